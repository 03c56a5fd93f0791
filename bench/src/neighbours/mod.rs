//! A good client beside bad neighbours: what they do to its latency, and to the server's memory.
//!
//! ```text
//!   core of the server     core of the client
//!   server  <------------  load: open loop, at a real-time priority if it may
//!           <------------  bad: a process with one of the manners
//!      ^------- watch      RSS every 20 ms
//! ```
//!
//! The good client is the load generator of the other benches. The neighbour is a process of its
//! own, so that what it does shows in none of the good client's figures but through the server and
//! the core that they share; how late the good client was on that core stands beside them.

mod bad;
mod manners;
pub mod options;
mod peer;
mod table;
mod watch;

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ringcached_load::clock::Clock;
use ringcached_load::report::Report;
use serde::{Deserialize, Serialize};

use crate::clients::{GRACE_S, report};
use crate::compare::{Scratch, progress};
use crate::cores;
use crate::launcher::{Launcher, stop_on_signals};
use crate::machine::Machine;
use crate::servers::{
    Kind as ServerKind, Server, Variant, memcached, named_or, no_two_alike, on_path, pause,
    ringcached, ringcached_beside,
};
use crate::store::wire::{Dialect, Wire, number};

pub use bad::run as be_bad;
use options::{Kind, Neighbours};
use peer::Deeds;
pub use table::sheet;

const WARM_UP_S: f64 = 0.2;
/// How much longer than the good client's slice a neighbour stays: the client must start, too.
const STAYS_LONGER_S: f64 = 1.0;
/// A neighbour that comes second comes so long after the good client was started, and has so long
/// to begin before the slice does.
const DELAY_S: f64 = 0.3;
const BEGINS_S: f64 = 0.7;
/// A neighbour is ready after this at the latest, and gone so long after its time.
const PATIENCE_S: f64 = 30.0;
const POLL: Duration = Duration::from_millis(2);
/// Connections of the largest neighbour and the good client, amply.
const CONNECTIONS_MAX: &str = "-c 8192";
/// The longest value of a neighbour, amply.
const ITEM_BYTES_MAX: &str = "-I 128m";

/// One neighbour's stay.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Slice {
    /// None when the good client could not even connect; `error` says why.
    pub good: Option<Report>,
    pub error: Option<String>,
    pub bad: Deeds,
    /// How long the neighbour stayed.
    pub stay_s: f64,
    /// The most that the server took meanwhile, in bytes.
    pub rss_max: u64,
}

/// All stays of one neighbour at one server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    pub kind: Kind,
    pub server: String,
    /// What the server says that it will not exceed, in bytes.
    pub rss_limit: Option<u64>,
    pub slices: Vec<Slice>,
}

/// Everything that was found, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    pub machine: Machine,
    pub command: String,
    pub servers: Vec<(String, String)>,
    /// Whether the good client had a priority, and whether it came after its neighbours.
    pub has_priority: bool,
    pub is_late: bool,
    pub cells: Vec<Cell>,
    pub left_out: Vec<String>,
}

impl Slice {
    /// Errors of the good client.
    pub fn errors(&self) -> u64 {
        let of = |report: &Report| report.failures.total() + report.connections_lost as u64;
        self.good.as_ref().map_or(1, of)
    }
}

impl Cell {
    pub fn rss_max(&self) -> u64 {
        self.slices.iter().map(|slice| slice.rss_max).max().unwrap_or(0)
    }

    pub fn exceeds_limit(&self) -> bool {
        self.rss_limit.is_some_and(|limit| self.rss_max() > limit)
    }
}

impl Results {
    /// What must not happen where a server says what it will not exceed: errors of the good client,
    /// and more memory than that.
    pub fn errors(&self) -> u64 {
        let ours = self.cells.iter().filter(|cell| cell.rss_limit.is_some());
        let of = |cell: &Cell| {
            let errors: u64 = cell.slices.iter().map(Slice::errors).sum();
            errors + u64::from(cell.exceeds_limit())
        };
        ours.map(of).sum()
    }
}

/// Runs the bench. All processes are gone when it returns, however it does.
pub fn run(options: &Neighbours) -> io::Result<Results> {
    let machine = Machine::this();
    // Not on the server's core, whatever this thread does there.
    cores::on(options.client_core, || run_here(options, machine))
}

fn run_here(options: &Neighbours, machine: Machine) -> io::Result<Results> {
    let stop = stop_on_signals()?;
    let scratch = Scratch::new()?;
    let launcher = Launcher { core: options.client_core, stop: &stop, folder: scratch.0.clone() };
    let (variants, left_out) = variants(options)?;
    let bench = Bench { options, launcher: &launcher, has_priority: may_have_priority() };
    let mut servers = Vec::new();
    let mut limits = Vec::new();
    for variant in &variants {
        let server = variant.start(options.server_core)?;
        limits.push(rss_limit(&server)?);
        servers.push(server);
    }
    let mut cells = Vec::new();
    for kind in &options.kinds {
        for (server, rss_limit) in servers.iter().zip(&limits) {
            let (server, rss_limit) = (server.label.clone(), *rss_limit);
            cells.push(Cell { kind: *kind, server, rss_limit, slices: Vec::new() });
        }
    }
    for _ in 0..options.slices {
        for (at, cell) in cells.iter_mut().enumerate() {
            let server = at % servers.len();
            cell.slices.push(bench.slice(cell.kind, &mut servers[server])?);
        }
    }
    Ok(Results {
        machine,
        command: std::env::args().collect::<Vec<_>>().join(" "),
        servers: servers.iter().map(|s| (s.label.clone(), s.command.clone())).collect(),
        has_priority: bench.has_priority,
        is_late: options.late,
        cells,
        left_out,
    })
}

fn variants(options: &Neighbours) -> io::Result<(Vec<Variant>, Vec<String>)> {
    let mut left_out = Vec::new();
    let more = format!("{CONNECTIONS_MAX} {ITEM_BYTES_MAX}");
    let ours = named_or(&options.ringcached, ringcached_beside()?, || {
        left_out.push("ringcached: build it with cargo build --release".to_owned());
    });
    let mut all = Vec::new();
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

/// What ringcached says that it will not exceed.
fn rss_limit(server: &Server) -> io::Result<Option<u64>> {
    if server.kind != ServerKind::Ringcached {
        return Ok(None);
    }
    let stats = Wire::connect(server.address, Dialect::Memcache)?.stats()?;
    Ok(number(&stats, "rss_limit_bytes"))
}

/// True when a process may be given a real-time priority here.
fn may_have_priority() -> bool {
    let mut command = Command::new("chrt");
    command.args(["-f", "10", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

struct Bench<'a> {
    options: &'a Neighbours,
    launcher: &'a Launcher<'a>,
    has_priority: bool,
}

impl Bench<'_> {
    /// The good client beside one neighbour.
    fn slice(&self, kind: Kind, server: &mut Server) -> io::Result<Slice> {
        self.launcher.check()?;
        server.settle()?;
        self.fill(server)?;
        let slice_s = self.options.slice_s();
        let stay_s = self.warm_up_s() + slice_s + STAYS_LONGER_S;
        let watch = watch::Watch::over(server.pid());
        let mut bad = Bad::start(self, kind, server, stay_s)?;
        if self.options.late {
            bad.wait_until_ready(self)?;
        }
        let patience_s = slice_s + GRACE_S;
        let good = self.launcher.finish(self.good(server)?, patience_s);
        let good = good.and_then(|(output, _)| report(&output));
        bad.wait_until_ready(self)?;
        let deeds = bad.end(self)?;
        let rss_max = watch.end()?;
        server.check()?;
        let (good, error) = match good {
            Ok(report) => (Some(report), None),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Err(e),
            Err(e) => (None, Some(e.to_string())),
        };
        let slice = Slice { good, error, bad: deeds, stay_s, rss_max };
        self.tell(kind, server, &slice);
        Ok(slice)
    }

    /// Of the good client.
    fn warm_up_s(&self) -> f64 {
        if self.options.late { WARM_UP_S } else { WARM_UP_S + DELAY_S + BEGINS_S }
    }

    fn tell(&self, kind: Kind, server: &Server, slice: &Slice) {
        let latency = slice.good.as_ref().map_or_else(
            || slice.error.clone().unwrap_or_default(),
            |report| {
                let latency = &report.latency;
                format!("p50 {:.0} p99 {:.0} us", latency.p50_us, latency.p99_us)
            },
        );
        progress(&format!(
            "{} beside {}: {latency}, {} errors, RSS {} MiB",
            kind.label(),
            server.label,
            slice.errors(),
            slice.rss_max >> 20
        ));
    }

    fn load(&self, server: &Server, words: &[&str]) -> io::Result<Command> {
        let program = std::env::current_exe()?;
        let mut command = match words.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.args(["load", "--json", "--server", &server.address.to_string()]);
        command.args(["--keys", &self.options.keys.to_string()]);
        command.args(["--value-bytes", &self.options.value_bytes.to_string()]);
        Ok(command)
    }

    /// Stores the good client's keys: the last neighbour may have seen to it that they are gone.
    fn fill(&self, server: &Server) -> io::Result<()> {
        let mut command = self.load(server, &[])?;
        command.arg("--preload-only");
        let report = report(&self.launcher.finish(command, GRACE_S)?.0)?;
        if report.failures.total() > 0 {
            return Err(io::Error::other(format!("cannot fill {}:\n{report}", server.label)));
        }
        Ok(())
    }

    fn good(&self, server: &Server) -> io::Result<Command> {
        let options = self.options;
        let before: &[&str] = if self.has_priority { &["chrt", "-f", "10"] } else { &[] };
        let mut command = self.load(server, before)?;
        command.args(["--connections", &options.connections.to_string()]);
        command.args(["--rate", &options.rate.to_string(), "--arrivals", "poisson"]);
        command.args(["--depth", "4096", "--duration", &options.slice_s().to_string()]);
        command.args(["--warm-up", &self.warm_up_s().to_string()]);
        command.args(["--server-pid", &server.pid().to_string()]);
        if self.has_priority {
            command.arg("--sleep");
        }
        Ok(command)
    }
}

/// A neighbour that does not outlive this.
struct Bad {
    child: Child,
    out: PathBuf,
}

impl Bad {
    /// Starts a neighbour.
    fn start(bench: &Bench<'_>, kind: Kind, server: &Server, stay_s: f64) -> io::Result<Bad> {
        let out = bench.launcher.folder.join("neighbour");
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["neighbour", "--kind", &kind.label()]);
        command.args(["--server", &server.address.to_string(), "--stay", &stay_s.to_string()]);
        if bench.has_priority {
            command.arg("--busy");
        }
        if !bench.options.late {
            command.args(["--delay", &DELAY_S.to_string()]);
        }
        command.stdin(Stdio::null()).stdout(File::create(&out)?);
        Ok(Bad { child: command.spawn()?, out })
    }

    /// Waits until it has begun.
    fn wait_until_ready(&mut self, bench: &Bench<'_>) -> io::Result<()> {
        let is_ready = |bad: &mut Bad| Ok(bad.printed()?.contains(bad::READY));
        match self.wait(bench, PATIENCE_S, is_ready)? {
            true => Ok(()),
            false => Err(io::Error::other("a neighbour was never ready; its words are above")),
        }
    }

    /// Waits until its time is over; says what it did.
    fn end(mut self, bench: &Bench<'_>) -> io::Result<Deeds> {
        self.wait(bench, PATIENCE_S, |bad| Ok(bad.child.try_wait()?.is_some()))?;
        let printed = self.printed()?;
        let last = printed.lines().last().unwrap_or_default();
        serde_json::from_str(last)
            .map_err(|e| io::Error::other(format!("a neighbour does not say what it did: {e}")))
    }

    /// Waits for something. False when the patience, or the process, ended before it came.
    fn wait(
        &mut self,
        bench: &Bench<'_>,
        patience_s: f64,
        mut is_there: impl FnMut(&mut Bad) -> io::Result<bool>,
    ) -> io::Result<bool> {
        let clock = Clock::start();
        loop {
            let has_ended = self.child.try_wait()?.is_some();
            if is_there(self)? {
                return Ok(true);
            }
            bench.launcher.check()?;
            if has_ended || Duration::from_nanos(clock.ns()).as_secs_f64() > patience_s {
                return Ok(false);
            }
            pause(POLL);
        }
    }

    fn printed(&self) -> io::Result<String> {
        fs::read_to_string(&self.out)
    }
}

impl Drop for Bad {
    fn drop(&mut self) {
        // It may have ended already; there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
