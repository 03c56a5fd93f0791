//! What a run found, as text and as JSON, with what to think of it.

use std::fmt::{self, Display, Formatter};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::client::{Findings, Orders, Pace};
use crate::clock::NS_PER_S;
use crate::cpu::CpuTime;
use crate::dialect::Dialect;
use crate::failure::Failures;
use crate::options::Options;
use crate::schedule::Arrivals;

/// A closed loop whose client is busier than this was measuring the client.
const CLIENT_SHARE_MAX: f64 = 0.95;
/// More waiting for a core than this means that something else ran on it.
const WAITED_SHARE_MAX: f64 = 0.05;
/// An open loop that is later than this by its own fault was measuring the client.
const LAG_P99_US_MAX: f64 = 100.0;
/// A rate is reached when at least this part of it was, chance aside.
const RATE_REACHED: f64 = 0.99;
/// What chance may do to the number of Poisson arrivals, in standard deviations.
const CHANCE: f64 = 3.0;

/// Everything about one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub dialect: Dialect,
    pub threads: u32,
    pub connections: u16,
    pub depth: usize,
    pub keys_per_get: u32,
    /// Requests a second asked for, in an open loop.
    pub rate: Option<f64>,
    /// Whether as many replies came as requests were due, in an open loop.
    pub rate_reached: Option<bool>,
    /// Between the marks.
    pub wall_s: f64,
    pub requests: u64,
    pub requests_per_s: f64,
    /// Keys that were found, and that were not.
    pub hits: u64,
    pub misses: u64,
    pub stored: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// Over the whole run, warm-up and preload included.
    pub failures: Failures,
    pub first_failure: Option<String>,
    pub connections_lost: usize,
    pub latency: Latency,
    /// How late the client was by its own fault, in an open loop.
    pub lag: Option<Latency>,
    /// All threads of the client together.
    pub client: CpuUse,
    pub client_was_the_limit: bool,
    pub server: Option<CpuUse>,
    /// What a reader should know before using the figures.
    pub notes: Vec<String>,
    pub preload: Option<Preload>,
}

/// Microseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Latency {
    pub count: u64,
    pub mean_us: f64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub p9999_us: f64,
    pub max_us: f64,
}

/// Processor time between the marks.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct CpuUse {
    /// Of the wall clock; above 1 when several threads ran.
    pub share: f64,
    /// Of the wall clock, ready to run while something else had the core.
    pub waited_share: f64,
    pub us_per_request: f64,
    pub user_us_per_request: f64,
    pub system_us_per_request: f64,
}

/// What was stored before the run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Preload {
    pub stored: u64,
    pub wall_s: f64,
}

impl Latency {
    pub fn of(histogram_ns: &Histogram<u64>) -> Latency {
        let at = |quantile| us(histogram_ns.value_at_quantile(quantile));
        Latency {
            count: histogram_ns.len(),
            mean_us: histogram_ns.mean() / 1000.0,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            p9999_us: at(0.9999),
            max_us: us(histogram_ns.max()),
        }
    }
}

fn us(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

impl CpuUse {
    /// `time`, used in `wall_s` seconds for `requests` requests.
    pub fn of(time: CpuTime, wall_s: f64, requests: u64) -> CpuUse {
        let each = us(time.total_ns) / requests.max(1) as f64;
        CpuUse {
            share: time.total_ns as f64 / NS_PER_S / wall_s,
            waited_share: time.waited_ns as f64 / NS_PER_S / wall_s,
            us_per_request: each,
            user_us_per_request: each * time.user_share(),
            system_us_per_request: each * (1.0 - time.user_share()),
        }
    }
}

fn reached(pace: &Pace, wall_s: f64, requests: u64) -> Option<bool> {
    let Pace::Open { rate, arrivals, .. } = *pace else { return None };
    let due = rate * wall_s;
    let chance = match arrivals {
        Arrivals::Uniform => 0.0,
        Arrivals::Poisson => CHANCE * due.sqrt(),
    };
    Some(requests as f64 >= due * RATE_REACHED - chance)
}

impl Report {
    pub fn new(findings: &Findings, options: &Options, orders: &Orders) -> Report {
        let Findings { from, to, tally, lost, busiest_share } = findings;
        let wall_s = (to.ns - from.ns).max(1) as f64 / NS_PER_S;
        let counts = to.counts - from.counts;
        let requests = counts.replies;
        let client = CpuUse::of(to.client.since(from.client), wall_s, requests);
        let server = to.server.zip(from.server);
        let (rate, lag) = match orders.pace {
            Pace::Closed { .. } => (None, None),
            Pace::Open { rate, .. } => (Some(rate), Some(Latency::of(&tally.lag_ns))),
        };
        let client_was_the_limit = match lag {
            None => *busiest_share > CLIENT_SHARE_MAX,
            Some(lag) => lag.p99_us > LAG_P99_US_MAX,
        };
        let mut report = Report {
            dialect: options.dialect,
            threads: options.threads,
            connections: options.connections,
            depth: orders.depth,
            keys_per_get: options.multi_get,
            rate,
            rate_reached: reached(&orders.pace, wall_s, requests),
            wall_s,
            requests,
            requests_per_s: requests as f64 / wall_s,
            hits: counts.hits,
            misses: counts.misses,
            stored: counts.stored,
            bytes_sent: counts.bytes_sent,
            bytes_received: counts.bytes_received,
            failures: tally.failures,
            first_failure: tally.first_failure.clone(),
            connections_lost: *lost,
            latency: Latency::of(&tally.latency_ns),
            lag,
            client,
            client_was_the_limit,
            server: server.map(|(to, from)| CpuUse::of(to.since(from), wall_s, requests)),
            notes: Vec::new(),
            preload: None,
        };
        report.notes = report.remarks(*busiest_share);
        report
    }

    fn remarks(&self, busiest_share: f64) -> Vec<String> {
        let mut notes = Vec::new();
        if self.client_was_the_limit {
            notes.push(match self.lag {
                None => format!(
                    "THE CLIENT WAS THE LIMIT: its busiest thread ran, or waited for its core, \
                     {:.0} % of the time. Throughput is a lower bound and latency holds the \
                     client's own queue; the server's processor time per request still stands.",
                    busiest_share * 100.0
                ),
                Some(lag) => format!(
                    "THE CLIENT WAS THE LIMIT: at p99 it sent {:.0} us late by its own fault. \
                     Latency holds that delay; lower the rate or give the client a core.",
                    lag.p99_us
                ),
            });
        }
        if let Some(rate) = self.rate
            && self.rate_reached == Some(false)
        {
            notes.push(format!(
                "The rate was not reached: {:.0} of {rate:.0} requests/s; what was due waited, and \
                 latency says how long.",
                self.requests_per_s
            ));
        }
        let waited = |cpu: CpuUse, threads: u32| {
            let share = cpu.waited_share / f64::from(threads);
            Some(share * 100.0).filter(|_| share > WAITED_SHARE_MAX)
        };
        if let Some(percent) = waited(self.client, self.threads) {
            notes.push(format!(
                "The client waited {percent:.0} % of the time for a core that something else, or \
                 another of its threads, used."
            ));
        }
        if let Some(percent) = self.server.and_then(|server| waited(server, 1)) {
            notes.push(format!(
                "The server's threads waited {percent:.0} % of the time for a core that something \
                 else, or another of them, used."
            ));
        }
        let strange = self.failures.error + self.failures.framing + self.failures.unanswered;
        if self.dialect != Dialect::Text
            && strange > 0
            && self.hits + self.misses + self.stored == 0
        {
            notes.push(format!(
                "Hardly a reply made sense: perhaps the server does not speak this dialect \
                 (--dialect {}).",
                self.dialect.name()
            ));
        }
        if self.hits == 0 && self.misses > 0 {
            notes.push(
                "Not one key was found: store them first, with --preload, or see that --keys, \
                 --key-prefix and --key-bytes are those of the run that stored them."
                    .to_owned(),
            );
        }
        if self.latency.count == 0 {
            notes.push("No request was both started and answered while measuring.".to_owned());
        }
        notes
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(Preload { stored, wall_s }) = self.preload {
            writeln!(f, "preload      {stored} keys stored in {wall_s:.2} s")?;
        }
        writeln!(
            f,
            "throughput   {:.0} requests/s: {} in {:.3} s, {} connections, depth {}, {} thread{}",
            self.requests_per_s,
            self.requests,
            self.wall_s,
            self.connections,
            self.depth,
            self.threads,
            if self.threads == 1 { "" } else { "s" }
        )?;
        let keys = self.hits + self.misses;
        if self.keys_per_get > 1 {
            let (each, per_s) = (self.keys_per_get, keys as f64 / self.wall_s);
            writeln!(f, "keys         {per_s:.0} keys/s asked for, {each} in each get")?;
        }
        writeln!(
            f,
            "replies      {} hits, {} misses, {} stored",
            self.hits, self.misses, self.stored
        )?;
        let megabytes = |bytes: u64| bytes as f64 / 1e6 / self.wall_s;
        writeln!(
            f,
            "bytes        {:.1} MB/s sent, {:.1} MB/s received",
            megabytes(self.bytes_sent),
            megabytes(self.bytes_received)
        )?;
        row(f, "latency, us", &self.latency)?;
        if let Some(lag) = &self.lag {
            row(f, "client lag  ", lag)?;
        }
        cpu_row(f, "client CPU  ", &self.client)?;
        if let Some(server) = &self.server {
            cpu_row(f, "server CPU  ", server)?;
        }
        if self.failures.total() == 0 {
            writeln!(f, "errors       none")?;
        }
        for (name, count) in self.failures.rows() {
            if count > 0 {
                writeln!(f, "errors       {count} {name}")?;
            }
        }
        if self.connections_lost > 0 {
            writeln!(f, "errors       {} connections lost", self.connections_lost)?;
        }
        if let Some(first) = &self.first_failure {
            writeln!(f, "first error  {first}")?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "note         {note}"))
    }
}

fn row(f: &mut Formatter<'_>, name: &str, latency: &Latency) -> fmt::Result {
    writeln!(
        f,
        "{name}  mean {:.1}  p50 {:.1}  p90 {:.1}  p99 {:.1}  p99.9 {:.1}  p99.99 {:.1}  max {:.1}",
        latency.mean_us,
        latency.p50_us,
        latency.p90_us,
        latency.p99_us,
        latency.p999_us,
        latency.p9999_us,
        latency.max_us
    )
}

fn cpu_row(f: &mut Formatter<'_>, name: &str, cpu: &CpuUse) -> fmt::Result {
    writeln!(
        f,
        "{name} {:.1} % of the wall clock; {:.3} us/request: {:.3} user, {:.3} system",
        cpu.share * 100.0,
        cpu.us_per_request,
        cpu.user_us_per_request,
        cpu.system_us_per_request
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_not_missed_by_chance() {
        let pace = |arrivals| Pace::Open { rate: 1000.0, arrivals, seed: 1 };
        assert_eq!(reached(&pace(Arrivals::Uniform), 10.0, 9_900), Some(true));
        assert_eq!(reached(&pace(Arrivals::Uniform), 10.0, 9_899), Some(false));
        assert_eq!(reached(&pace(Arrivals::Poisson), 10.0, 9_600), Some(true));
        assert_eq!(reached(&pace(Arrivals::Poisson), 10.0, 9_599), Some(false));
        assert_eq!(reached(&Pace::Closed { window: false }, 10.0, 0), None);
    }
}
