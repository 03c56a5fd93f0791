//! Crowds: many connections that are idle, active, or coming and going.
//!
//! ```text
//!   idle    a server at a time: before -> silent -> spoken -> after
//!   active  load, closed loop, depth 1  \  interleaved over all servers,
//!   storms  connect, get, close         /  each round beginning with another
//! ```

mod idle;
pub mod options;
mod sockets;
mod storm;
mod table;

use std::io;
use std::process::Command;

use ringcached_load::report::Report;
use serde::{Deserialize, Serialize};

use crate::clients::{GRACE_S, report};
use crate::compare::{Scratch, progress};
use crate::cores;
use crate::launcher::{Launcher, stop_on_signals};
use crate::machine::Machine;
use crate::servers::{
    Kind, Server, Variant, memcached, named_or, no_two_alike, null, on_path, ringcached,
    ringcached_beside,
};

use idle::Idle;
use options::{Crowd, Part};
use sockets::Question;
use storm::Storm;
pub use table::sheets;

const WARM_UP_S: f64 = 0.3;
const KEYS: u64 = 100_000;
const VALUE_BYTES: u32 = 32;
/// What the load generator stores first; its keys are that long. The null server answers a get of
/// any key of that length.
const FIRST_KEY: &str = "key-0000000000000000";

/// All slices of one server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell<T> {
    pub server: String,
    pub slices: Vec<T>,
}

/// Everything that was found, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    pub machine: Machine,
    pub command: String,
    pub servers: Vec<(String, String)>,
    pub idle: Vec<Idle>,
    pub active: Vec<Cell<Report>>,
    pub storms: Vec<Cell<Storm>>,
    pub left_out: Vec<String>,
}

impl Results {
    /// Errors of all slices, and what was missed that must be reached.
    pub fn errors(&self) -> u64 {
        let active = self.active.iter().flat_map(|cell| &cell.slices);
        let errors = active.map(|each| each.failures.total() + each.connections_lost as u64);
        let missed = self.idle.iter().map(|idle| idle.misses().len() as u64);
        errors.sum::<u64>() + missed.sum::<u64>()
    }
}

/// Runs the bench. All servers are gone when it returns, however it does.
pub fn run(options: &Crowd) -> io::Result<Results> {
    let mut results = Results {
        machine: Machine::this(),
        command: std::env::args().collect::<Vec<_>>().join(" "),
        servers: Vec::new(),
        idle: Vec::new(),
        active: Vec::new(),
        storms: Vec::new(),
        left_out: Vec::new(),
    };
    // Not on the servers' core, whatever this thread does there.
    cores::on(options.client_core, || run_here(options, &mut results))?;
    Ok(results)
}

fn run_here(options: &Crowd, results: &mut Results) -> io::Result<()> {
    let stop = stop_on_signals()?;
    let scratch = Scratch::new()?;
    let launcher = Launcher { core: options.client_core, stop: &stop, folder: scratch.0.clone() };
    let bench = Bench { options, launcher: &launcher };
    let has = |part| options.parts.contains(&part);
    let (variants, left_out) = variants(options)?;
    results.left_out = left_out;
    if has(Part::Idle) {
        let connections = idle::allowed(options.idle())?;
        if connections < options.idle() {
            results.left_out.push(format!(
                "connections {} to {}: the limit of open files (ulimit -Hn) does not allow them",
                connections + 1,
                options.idle()
            ));
        }
        for variant in variants.iter().filter(|variant| variant.kind != Kind::Null) {
            results.idle.push(idle::measure(&bench, variant, connections)?);
        }
    }
    if !has(Part::Active) && !has(Part::Storms) {
        return Ok(());
    }
    let mut servers = bench.start(&variants)?;
    results.servers = servers.iter().map(|s| (s.label.clone(), s.command.clone())).collect();
    if has(Part::Active) {
        results.active = bench.interleave(&mut servers, |server, _| bench.active(server))?;
    }
    if has(Part::Storms) {
        let storm = options.storm();
        let question = Question::hit(FIRST_KEY, VALUE_BYTES);
        results.storms = bench.interleave(&mut servers, |server, slice| {
            let numbers = (storm, slice.wrapping_mul(storm));
            let found = storm::measure(server, &question, numbers)?;
            progress(&format!("storm at {}: {:.1} us", server.label, found.server.us_per_request));
            Ok(found)
        })?;
    }
    Ok(())
}

fn variants(options: &Crowd) -> io::Result<(Vec<Variant>, Vec<String>)> {
    let mut left_out = Vec::new();
    let connections = u32::from(options.active()) + 500;
    let mut all = Vec::new();
    if !options.no_null {
        let sizes = (FIRST_KEY.len(), VALUE_BYTES);
        all.push(null(sizes, connections, &std::env::current_exe()?));
    }
    let more = format!("-c {connections}");
    let ours = named_or(&options.ringcached, ringcached_beside()?, || {
        left_out.push("ringcached: build it with cargo build --release".to_owned());
    });
    for program in &ours {
        let of = |mode: &String| ringcached(options.memory, program, mode).and(&more);
        all.extend(options.dispatch.iter().map(of));
    }
    if !options.no_memcached {
        let theirs = named_or(&options.memcached, on_path("memcached"), || {
            left_out.push("memcached: not on PATH".to_owned());
        });
        all.extend(theirs.iter().map(|program| memcached(options.memory, program, &more)));
    }
    no_two_alike(&all)?;
    if all.is_empty() {
        return Err(io::Error::other("there is no server to measure"));
    }
    Ok((all, left_out))
}

pub struct Bench<'a> {
    options: &'a Crowd,
    launcher: &'a Launcher<'a>,
}

impl Bench<'_> {
    /// Starts all servers and fills them.
    fn start(&self, variants: &[Variant]) -> io::Result<Vec<Server>> {
        let mut servers = Vec::new();
        for variant in variants {
            let server = variant.start(self.options.server_core)?;
            if server.is_real() {
                let mut command = self.load(&server)?;
                command.arg("--preload-only");
                let report = self.finish(command)?;
                if report.failures.total() > 0 {
                    let text = format!("cannot fill {}:\n{report}", server.label);
                    return Err(io::Error::other(text));
                }
                server.settle()?;
            }
            servers.push(server);
        }
        Ok(servers)
    }

    /// Takes slices of all servers in rounds; each slice is told how many came before it.
    fn interleave<T>(
        &self,
        servers: &mut [Server],
        mut slice: impl FnMut(&Server, u32) -> io::Result<T>,
    ) -> io::Result<Vec<Cell<T>>> {
        let cell = |server: &Server| Cell { server: server.label.clone(), slices: Vec::new() };
        let mut cells: Vec<Cell<T>> = servers.iter().map(cell).collect();
        let mut count = 0;
        for round in 0..self.options.slices() as usize {
            for turn in 0..servers.len() {
                self.launcher.check()?;
                let at = (round + turn) % servers.len();
                cells[at].slices.push(slice(&servers[at], count)?);
                servers[at].check()?;
                count += 1;
            }
        }
        Ok(cells)
    }

    fn active(&self, server: &Server) -> io::Result<Report> {
        let mut command = self.load(server)?;
        command.args(["--connections", &self.options.active().to_string(), "--depth", "1"]);
        command.args(["--duration", &self.options.slice_s().to_string()]);
        command.args(["--warm-up", &WARM_UP_S.to_string()]);
        command.args(["--server-pid", &server.pid().to_string()]);
        let report = self.finish(command)?;
        let us = report.server.map_or(0.0, |server| server.us_per_request);
        progress(&format!("active at {}: {us:.2} us", server.label));
        Ok(report)
    }

    fn load(&self, server: &Server) -> io::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["load", "--json", "--server", &server.address.to_string()]);
        command.args(["--keys", &KEYS.to_string(), "--key-bytes", &FIRST_KEY.len().to_string()]);
        command.args(["--value-bytes", &VALUE_BYTES.to_string()]);
        Ok(command)
    }

    fn finish(&self, command: Command) -> io::Result<Report> {
        let patience_s = self.options.slice_s() + GRACE_S;
        report(&self.launcher.finish(command, patience_s)?.0)
    }
}
