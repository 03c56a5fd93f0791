//! The clients: each runs one slice against one server and says how many requests that were.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ringcached_load::clock::Clock;
use ringcached_load::cpu;
use ringcached_load::report::{CpuUse, Report};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cores;
use crate::launcher::Launcher;
use crate::options::{Compare, WorkloadName};
use crate::servers::{Server, because, on_path};

/// How ringcached-load begins its keys. memtier numbers its keys without padding, so it is given
/// numbers of seven digits, of which the first belongs to the prefix of the preload.
const LOAD_PREFIX: &str = "key-";
const MEMTIER_PREFIX: &str = "memtier-";
const MEMTIER_FIRST: u64 = 1_000_000;
const MEMTIER_DIGITS: usize = 7;

const LOAD_WARM_UP_S: f64 = 0.1;
/// A client that takes this much longer than its slice is ended.
pub const GRACE_S: f64 = 30.0;
/// memaslap exits with 0 whatever happens; one that did less had no server.
const MEMASLAP_OPS_MIN: u64 = 1000;

/// One slice.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    pub requests: u64,
    pub wall_s: f64,
    pub server: CpuUse,
    pub client: CpuUse,
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
    pub misses: u64,
    pub errors: u64,
    /// Of the wall clock: how long the server's core worked for others, or for nobody because the
    /// host had taken it.
    pub others_share: f64,
    /// What the client or the system said to it.
    pub notes: Vec<String>,
}

/// The keys that a workload asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    Load,
    Memtier,
    /// Those that its client stores itself.
    Own,
}

impl Keys {
    pub fn of(workload: WorkloadName) -> Keys {
        match workload {
            WorkloadName::Gets
            | WorkloadName::Sets
            | WorkloadName::Mix
            | WorkloadName::MetaGets
            | WorkloadName::MetaSets
            | WorkloadName::BinaryGets
            | WorkloadName::BinarySets => Keys::Load,
            WorkloadName::Memtier | WorkloadName::MemtierGets => Keys::Memtier,
            WorkloadName::Memaslap => Keys::Own,
        }
    }
}

/// Runs clients, one at a time.
#[derive(Debug)]
pub struct Clients<'a> {
    pub options: &'a Compare,
    pub launcher: Launcher<'a>,
}

/// What a client said of its own run.
struct Account {
    requests: u64,
    wall_s: f64,
    misses: u64,
    errors: u64,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
}

impl Clients<'_> {
    /// Why a workload cannot be run here, if it cannot.
    pub fn missing(workload: WorkloadName) -> Option<&'static str> {
        let program = match Keys::of(workload) {
            Keys::Load => return None,
            Keys::Memtier => "memtier_benchmark",
            Keys::Own => return memaslap().is_none().then_some("memcaslap"),
        };
        on_path(program).is_none().then_some(program)
    }

    /// Stores all the keys that workloads with such keys will ask for.
    pub fn preload(&self, keys: Keys, server: &Server) -> io::Result<()> {
        let memtier = self.memtier_prefix();
        let (prefix, bytes) = match keys {
            Keys::Load => (LOAD_PREFIX.to_owned(), self.options.key_bytes),
            Keys::Memtier => (format!("{memtier}1"), memtier.len() + MEMTIER_DIGITS),
            Keys::Own => return Ok(()),
        };
        let mut command = self.load(server)?;
        command.arg("--preload-only").args(["--key-prefix", &prefix]);
        command.args(["--key-bytes", &bytes.to_string()]);
        let report = report(&self.launcher.finish(command, GRACE_S)?.0)?;
        match (report.failures.total(), report.preload.map(|preload| preload.stored)) {
            (0, Some(stored)) if stored == self.options.keys => Ok(()),
            _ => Err(io::Error::other(format!("cannot fill {}:\n{report}", server.command))),
        }
    }

    /// Runs one slice, and watches the server's core meanwhile.
    pub fn run(&self, workload: WorkloadName, depth: u32, server: &Server) -> io::Result<Sample> {
        let core = self.options.server_core;
        let look = || io::Result::Ok((cores::busy_ns(core)?, cpu::of_process(server.pid())?));
        let clock = Clock::start();
        let (busy, used) = look()?;
        let mut sample = self.run_client(workload, depth, server)?;
        let (busy_after, used_after) = look()?;
        let others = (busy_after - busy).saturating_sub(used_after.since(used).total_ns);
        sample.others_share = others as f64 / clock.ns() as f64;
        Ok(sample)
    }

    fn run_client(
        &self,
        workload: WorkloadName,
        depth: u32,
        server: &Server,
    ) -> io::Result<Sample> {
        match workload {
            WorkloadName::Gets => self.run_load(("text", "0:1"), depth, server),
            WorkloadName::Sets => self.run_load(("text", "1:0"), depth, server),
            WorkloadName::Mix => self.run_load(("text", "1:10"), depth, server),
            WorkloadName::MetaGets => self.run_load(("meta", "0:1"), depth, server),
            WorkloadName::MetaSets => self.run_load(("meta", "1:0"), depth, server),
            WorkloadName::BinaryGets => self.run_load(("binary", "0:1"), depth, server),
            WorkloadName::BinarySets => self.run_load(("binary", "1:0"), depth, server),
            WorkloadName::Memtier => self.run_memtier("1:10", depth, server),
            WorkloadName::MemtierGets => self.run_memtier("0:1", depth, server),
            WorkloadName::Memaslap => {
                self.run_foreign(self.memaslap(depth, server)?, server, memaslap_account)
            }
        }
    }

    fn load(&self, server: &Server) -> io::Result<Command> {
        let options = self.options;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["load", "--json", "--server", &server.address.to_string()]);
        command.args(["--connections", &options.connections.to_string()]);
        command.args(["--keys", &options.keys.to_string()]);
        command.args(["--value-bytes", &options.value_bytes.to_string()]);
        Ok(command)
    }

    fn run_load(
        &self,
        (dialect, ratio): (&str, &str),
        depth: u32,
        server: &Server,
    ) -> io::Result<Sample> {
        let mut command = self.load(server)?;
        command.args(["--dialect", dialect]);
        command.args(["--ratio", ratio, "--depth", &depth.to_string()]);
        command.args(["--duration", &self.options.slice_s().to_string()]);
        command.args(["--warm-up", &LOAD_WARM_UP_S.to_string()]);
        command.args(["--key-prefix", LOAD_PREFIX]);
        command.args(["--key-bytes", &self.options.key_bytes.to_string()]);
        command.args(["--server-pid", &server.pid().to_string()]);
        let report = report(&self.launcher.finish(command, self.options.slice_s() + GRACE_S)?.0)?;
        let server = report.server.ok_or_else(|| io::Error::other("no processor time"))?;
        let mut notes = report.notes;
        notes.extend(report.first_failure);
        Ok(Sample {
            requests: report.requests,
            wall_s: report.wall_s,
            server,
            client: report.client,
            p50_us: Some(report.latency.p50_us),
            p99_us: Some(report.latency.p99_us),
            misses: report.misses,
            errors: report.failures.total(),
            others_share: 0.0,
            notes,
        })
    }

    fn run_memtier(&self, ratio: &str, depth: u32, server: &Server) -> io::Result<Sample> {
        let file = self.launcher.folder.join("memtier.json");
        let mut command = self.memtier(depth, server, &file)?;
        command.args(["--ratio", ratio]);
        self.run_foreign(command, server, |output| memtier_account(output, &file))
    }

    /// How memtier's keys begin, so that they are as long as all others: the null server knows
    /// requests by their length.
    fn memtier_prefix(&self) -> String {
        let zeros = self.options.key_bytes.saturating_sub(MEMTIER_PREFIX.len() + MEMTIER_DIGITS);
        format!("{MEMTIER_PREFIX}{:0<zeros$}", "")
    }

    fn memtier(&self, depth: u32, server: &Server, file: &Path) -> io::Result<Command> {
        let program = on_path("memtier_benchmark").ok_or(io::ErrorKind::NotFound)?;
        let options = self.options;
        let mut command = Command::new(program);
        command.args(["-P", "memcache_text", "-t", "1", "--hide-histogram"]);
        command.args(["-s", "127.0.0.1", "-p", &server.address.port().to_string()]);
        command.args(["-c", &options.connections.to_string(), "--pipeline", &depth.to_string()]);
        command.args(["--test-time", &whole_seconds(options.slice_s())]);
        command.args(["--data-size", &options.value_bytes.to_string(), "--distinct-client-seed"]);
        command.args(["--key-prefix", &self.memtier_prefix(), "--key-pattern", "R:R"]);
        command.args(["--key-minimum", &MEMTIER_FIRST.to_string()]);
        command.args(["--key-maximum", &(MEMTIER_FIRST + options.keys - 1).to_string()]);
        command.arg("--json-out-file").arg(file);
        Ok(command)
    }

    fn memaslap(&self, depth: u32, server: &Server) -> io::Result<Command> {
        let program = memaslap().ok_or(io::ErrorKind::NotFound)?;
        let options = self.options;
        let mut command = Command::new(program);
        command.args(["-s", &server.address.to_string(), "-T", "1"]);
        command.args(["-c", &options.connections.to_string(), "-d", &depth.to_string()]);
        command.args(["-t", &format!("{}s", whole_seconds(options.slice_s()))]);
        command.args(["-X", &options.value_bytes.to_string(), "-w", "1k"]);
        Ok(command)
    }

    /// Runs a client that knows nothing of us, and measures around it.
    fn run_foreign(
        &self,
        command: Command,
        server: &Server,
        account: impl FnOnce(&Output) -> io::Result<Account>,
    ) -> io::Result<Sample> {
        let before = cpu::of_process(server.pid())?;
        let (output, client) = self.launcher.finish(command, self.options.slice_s() + GRACE_S)?;
        let used = cpu::of_process(server.pid())?.since(before);
        let Account { requests, wall_s, misses, errors, p50_us, p99_us } = account(&output)?;
        Ok(Sample {
            requests,
            wall_s,
            server: CpuUse::of(used, wall_s, requests),
            client: CpuUse::of(client, wall_s, requests),
            p50_us,
            p99_us,
            misses,
            errors,
            others_share: 0.0,
            notes: Vec::new(),
        })
    }
}

/// Debian calls it memcaslap, everybody else memaslap.
fn memaslap() -> Option<PathBuf> {
    on_path("memcaslap").or_else(|| on_path("memaslap"))
}

fn whole_seconds(seconds: f64) -> String {
    format!("{:.0}", seconds.ceil())
}

/// What the load generator printed as JSON.
pub fn report(output: &Output) -> io::Result<Report> {
    serde_json::from_slice(&output.stdout)
        .map_err(|e| io::Error::other(format!("cannot read the report of the load generator: {e}")))
}

fn memtier_account(output: &Output, file: &Path) -> io::Result<Account> {
    let text = fs::read_to_string(file).map_err(|e| because("memtier's JSON", &e))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let errors = stderr.lines().filter(|line| line.contains("error")).count() as u64;
    memtier_totals(&text, errors)
        .ok_or_else(|| io::Error::other(format!("cannot read memtier's JSON; it said: {stderr}")))
}

fn memtier_totals(json: &str, errors: u64) -> Option<Account> {
    let all: Value = serde_json::from_str(json).ok()?;
    let totals = all.get("ALL STATS")?.get("Totals")?;
    let requests = totals.get("Count")?.as_u64()?;
    let wall_s = requests as f64 / totals.get("Ops/sec")?.as_f64()?;
    let refused = totals.get("Connection Errors").and_then(Value::as_u64).unwrap_or(0);
    let us = |name| Some(totals.get("Percentile Latencies")?.get(name)?.as_f64()? * 1000.0);
    Some(Account {
        requests,
        wall_s,
        misses: whole(totals.get("Misses/sec")?.as_f64()? * wall_s),
        errors: errors + refused,
        p50_us: us("p50.00"),
        p99_us: us("p99.00"),
    })
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of requests, between 0 and 2^53"
)]
fn whole(number: f64) -> u64 {
    number.round() as u64
}

fn memaslap_account(output: &Output) -> io::Result<Account> {
    let text = String::from_utf8_lossy(&output.stdout);
    memaslap_totals(&text)
        .ok_or_else(|| io::Error::other(format!("cannot read what memaslap said: {text}")))
}

fn memaslap_totals(text: &str) -> Option<Account> {
    let number_after = |label: &str| -> Option<u64> {
        let rest = text.rsplit_once(label)?.1.trim_start();
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let (requests, per_second) = (number_after("Ops:")?, number_after("TPS:")?);
    let wall_s = requests as f64 / per_second.max(1) as f64;
    let failed = text.lines().filter(|line| line.contains("fail") || line.contains("error"));
    let errors = failed.count() as u64 + u64::from(requests < MEMASLAP_OPS_MIN);
    let misses = number_after("get_misses:")?;
    Some(Account { requests, wall_s, misses, errors, p50_us: None, p99_us: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memtiers_json_is_read() {
        let json = r#"{"ALL STATS": {"Totals": {"Count": 200, "Ops/sec": 100.0,
            "Misses/sec": 25.0, "Connection Errors": 1,
            "Percentile Latencies": {"p50.00": 3.055, "p99.00": 4.479}}}}"#;
        let account = memtier_totals(json, 2).unwrap();
        assert_eq!((account.requests, account.misses, account.errors), (200, 50, 3));
        assert_eq!(account.wall_s, 2.0);
        assert_eq!((account.p50_us, account.p99_us), (Some(3055.0), Some(4479.0)));
        assert!(memtier_totals("{}", 0).is_none());
    }

    #[test]
    fn what_memaslap_prints_is_read() {
        let text = "cmd_get: 279328\ncmd_set: 31101\nget_misses: 7\nwritten_bytes: 52556225\n\n\
                    Run time: 2.0s Ops: 310429 TPS: 154902 Net_rate: 171.9M/s\n";
        let account = memaslap_totals(text).unwrap();
        assert_eq!((account.requests, account.misses, account.errors), (310_429, 7, 0));
        let idle = memaslap_totals("get_misses: 0\nRun time: 1.0s Ops: 2 TPS: 2\n").unwrap();
        assert_eq!(idle.errors, 1);
        assert!(memaslap_totals("").is_none());
    }
}
