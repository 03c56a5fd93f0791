//! Latency in an open loop, at parts of the slower server's saturation, side by side.
//!
//! ```text
//!   for each size of values: start, fill
//!     for each work and number of connections:
//!       closed loop, interleaved  -> saturation of each server; the least of them
//!       for each load, interleaved: open loop at that part of it -> percentiles
//! ```

pub mod options;
mod table;

use std::io;
use std::process::Command;

use ringcached_load::report::Report;
use serde::{Deserialize, Serialize};

use crate::clients::{GRACE_S, report};
use crate::compare::{Scratch, progress};
use crate::latency::options::{Latency, Work};
use crate::launcher::{Launcher, stop_on_signals};
use crate::machine::Machine;
use crate::servers::{
    Server, Variant, memcached, named_or, no_two_alike, on_path, ringcached, ringcached_beside,
};
use crate::table::median;

pub use table::sheet;

const WARM_UP_S: f64 = 0.2;

/// What is asked, of all servers alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    pub work: String,
    pub value_bytes: u32,
    pub connections: u16,
}

/// All slices of one task on one server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    pub task: Task,
    pub server: String,
    /// In the closed loop.
    pub closed: Vec<Report>,
    pub open: Vec<Open>,
}

/// All slices of an open loop at one rate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Open {
    /// Of saturation, in percent.
    pub load: u32,
    pub rate: f64,
    pub slices: Vec<Report>,
}

/// Everything that was found, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    pub machine: Machine,
    pub command: String,
    pub servers: Vec<(String, String)>,
    /// The server that ratios are to.
    pub baseline: Option<String>,
    pub cells: Vec<Cell>,
    pub left_out: Vec<String>,
}

impl Cell {
    /// Requests a second in the closed loop.
    pub fn saturation(&self) -> f64 {
        median(self.closed.iter().map(|report| report.requests_per_s).collect()).unwrap_or(0.0)
    }

    fn reports(&self) -> impl Iterator<Item = &Report> {
        self.closed.iter().chain(self.open.iter().flat_map(|open| &open.slices))
    }
}

impl Results {
    /// Errors of all slices, and lost connections.
    pub fn errors(&self) -> u64 {
        let reports = self.cells.iter().flat_map(Cell::reports);
        reports.map(|report| report.failures.total() + report.connections_lost as u64).sum()
    }
}

/// Runs the bench. All servers are gone when it returns, however it does.
pub fn run(options: &Latency) -> io::Result<Results> {
    let stop = stop_on_signals()?;
    let scratch = Scratch::new()?;
    let launcher = Launcher { core: options.client_core, stop: &stop, folder: scratch.0.clone() };
    let (variants, baseline, mut left_out) = variants(options)?;
    if variants.is_empty() {
        return Err(io::Error::other("there is no server to measure"));
    }
    let mut results = Results {
        machine: Machine::this(),
        command: std::env::args().collect::<Vec<_>>().join(" "),
        servers: Vec::new(),
        baseline,
        cells: Vec::new(),
        left_out: Vec::new(),
    };
    for value_bytes in &options.value_bytes {
        let works = options.works(*value_bytes);
        for work in options.works.iter().filter(|work| !works.contains(work)) {
            left_out.push(format!("{} with values of {value_bytes} bytes", work.label()));
        }
        let bench = Bench { options, launcher: &launcher, value_bytes: *value_bytes };
        let mut servers = bench.start(&variants)?;
        results.servers = servers.iter().map(|s| (s.label.clone(), s.command.clone())).collect();
        for connections in &options.connections {
            for work in &works {
                results.cells.extend(bench.measure(*work, *connections, &mut servers)?);
            }
        }
    }
    results.left_out = left_out;
    Ok(results)
}

/// The servers, the label of the first memcached, and what is missing.
fn variants(options: &Latency) -> io::Result<(Vec<Variant>, Option<String>, Vec<String>)> {
    let mut left_out = Vec::new();
    let ours = named_or(&options.ringcached, ringcached_beside()?, || {
        left_out.push("ringcached: build it with cargo build --release".to_owned());
    });
    let theirs = named_or(&options.memcached, on_path("memcached"), || {
        left_out.push("memcached: not on PATH".to_owned());
    });
    let memory = options.memory;
    let ours = ours.iter().flat_map(|program| {
        options.dispatch.iter().map(move |mode| ringcached(memory, program, mode))
    });
    let theirs: Vec<_> = theirs.iter().map(|program| memcached(memory, program, "")).collect();
    let baseline = theirs.first().map(|variant| variant.label.clone());
    let all: Vec<_> = ours.chain(theirs).collect();
    no_two_alike(&all)?;
    Ok((all, baseline, left_out))
}

/// The servers with values of one size.
struct Bench<'a> {
    options: &'a Latency,
    launcher: &'a Launcher<'a>,
    value_bytes: u32,
}

impl Bench<'_> {
    /// Starts all servers and fills them.
    fn start(&self, variants: &[Variant]) -> io::Result<Vec<Server>> {
        let mut servers = Vec::new();
        for variant in variants {
            let server = variant.start(self.options.server_core)?;
            let mut command = self.load(&server)?;
            command.arg("--preload-only");
            let report = self.finish(command)?;
            if report.failures.total() > 0 {
                return Err(io::Error::other(format!("cannot fill {}:\n{report}", server.label)));
            }
            server.settle()?;
            servers.push(server);
        }
        Ok(servers)
    }

    /// Finds saturation, then latencies at parts of it.
    fn measure(
        &self,
        work: Work,
        connections: u16,
        servers: &mut [Server],
    ) -> io::Result<Vec<Cell>> {
        let task =
            Task { work: work.label().to_owned(), value_bytes: self.value_bytes, connections };
        let mut cells: Vec<Cell> = servers
            .iter()
            .map(|server| Cell {
                task: task.clone(),
                server: server.label.clone(),
                closed: Vec::new(),
                open: Vec::new(),
            })
            .collect();
        for at in order(self.options.slices, servers.len()) {
            let report = self.slice(work, connections, &mut servers[at], None)?;
            cells[at].closed.push(report);
        }
        let slowest = cells.iter().map(Cell::saturation).fold(f64::INFINITY, f64::min);
        for load in &self.options.loads {
            let rate = slowest * f64::from(*load) / 100.0;
            if rate <= 0.0 {
                return Err(io::Error::other(format!("no {} were answered", work.label())));
            }
            cells.iter_mut().for_each(|cell| {
                cell.open.push(Open { load: *load, rate, slices: Vec::new() });
            });
            for at in order(self.options.slices, servers.len()) {
                let report = self.slice(work, connections, &mut servers[at], Some(rate))?;
                cells[at].open.last_mut().into_iter().for_each(|o| o.slices.push(report.clone()));
            }
        }
        Ok(cells)
    }

    /// A closed loop, or an open one at a rate.
    fn slice(
        &self,
        work: Work,
        connections: u16,
        server: &mut Server,
        rate: Option<f64>,
    ) -> io::Result<Report> {
        self.launcher.check()?;
        let mut command = self.load(server)?;
        command.args(["--connections", &connections.to_string(), "--ratio", work.ratio()]);
        command.args(["--multi-get", &work.keys_per_get().to_string()]);
        command.args(["--duration", &self.options.slice_seconds.to_string()]);
        command.args(["--warm-up", &WARM_UP_S.to_string()]);
        command.args(["--server-pid", &server.pid().to_string()]);
        match rate {
            None => command.args(["--depth", &self.options.depth.to_string()]),
            Some(rate) => command.args([
                "--rate",
                &rate.to_string(),
                "--arrivals",
                "poisson",
                "--depth",
                &self.options.depth_max.to_string(),
            ]),
        };
        let report = self.finish(command)?;
        server.check()?;
        let pace = rate.map_or_else(|| "closed".to_owned(), |rate| format!("at {rate:.0}/s"));
        progress(&format!(
            "{} of {} B, {connections} connections, {}, {pace}: {:.0}/s, p50 {:.0} p99 {:.0} us",
            work.label(),
            self.value_bytes,
            server.label,
            report.requests_per_s,
            report.latency.p50_us,
            report.latency.p99_us
        ));
        Ok(report)
    }

    fn load(&self, server: &Server) -> io::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["load", "--json", "--server", &server.address.to_string()]);
        command.args(["--dialect", &self.options.dialect]);
        command.args(["--keys", &self.options.keys(self.value_bytes).to_string()]);
        command.args(["--value-bytes", &self.value_bytes.to_string()]);
        Ok(command)
    }

    fn finish(&self, command: Command) -> io::Result<Report> {
        let patience_s = self.options.slice_seconds + GRACE_S;
        report(&self.launcher.finish(command, patience_s)?.0)
    }
}

/// The servers by index, in rounds, each round beginning with the next of them.
fn order(rounds: u32, servers: usize) -> impl Iterator<Item = usize> {
    (0..rounds as usize).flat_map(move |round| (0..servers).map(move |at| (at + round) % servers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_begins_with_another_server() {
        assert_eq!(order(3, 2).collect::<Vec<_>>(), [0, 1, 1, 0, 0, 1]);
        assert_eq!(order(2, 3).collect::<Vec<_>>(), [0, 1, 2, 1, 2, 0]);
    }
}
