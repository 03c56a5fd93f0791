//! The command line, and the checked orders that it makes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::client::{Bounds, Orders, Pace};
use crate::keys::{Keys, Popularity};
use crate::schedule::Arrivals;
use crate::values::Sizes;
use crate::workload::{Ratio, Workload};

const DURATION_S_DEFAULT: f64 = 10.0;
const PRELOAD_DEPTH: usize = 64;
/// A connection's requests and replies under way during a preload, roughly.
const PRELOAD_BYTES: usize = 1 << 20;

/// Loads a memcached server (text protocol) from one thread, and measures it.
///
/// CLOSED LOOP (default): each connection keeps DEPTH requests outstanding, written at once when
/// all the replies to the last ones have come. Throughput is what the server can do.
///
/// OPEN LOOP (--rate): requests are due at a fixed rate, whatever the server does, and latency
/// counts from the moment a request was due, so a stall shows in full. The client spins while it
/// waits for the next request, so give it a core of its own.
///
/// All keys have one length. The value of a key follows from the key and the size option, so that
/// --verify can check values that an earlier run with the same options stored.
///
/// The exit code is 0 when there was no error of any kind. A missing key is no error.
#[derive(Clone, Debug, Parser)]
#[command(name = "ringcached-load", version)]
pub struct Options {
    /// Address of the server
    #[arg(short, long, value_name = "ADDRESS", default_value = "127.0.0.1:11211")]
    pub server: SocketAddr,
    /// Unix socket of the server, in place of an address
    #[arg(long, value_name = "PATH", conflicts_with = "server")]
    pub unix: Option<PathBuf>,
    /// Number of connections
    #[arg(short, long, value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub connections: u16,
    /// Requests outstanding on each connection: exactly (closed loop) or at most (open loop)
    #[arg(short, long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub depth: u32,
    /// Closed loop: send anew for each reply that comes, not when all of them are in
    #[arg(long, conflicts_with = "rate")]
    pub window: bool,
    /// Open loop: requests a second, over all connections
    #[arg(short, long, value_name = "PER_SECOND", value_parser = positive)]
    pub rate: Option<f64>,
    /// Open loop: how the requests follow each other
    #[arg(long, value_enum, default_value = "uniform", requires = "rate")]
    pub arrivals: Arrivals,
    /// Sets and gets
    #[arg(long, value_name = "SET:GET", default_value = "0:1")]
    pub ratio: Ratio,
    /// Number of keys
    #[arg(short, long, value_name = "N", default_value_t = 1_000_000)]
    pub keys: u64,
    /// What keys begin with
    #[arg(long, value_name = "TEXT", default_value = "key-")]
    pub key_prefix: String,
    /// Length of each key: the prefix, and a number padded with zeros
    #[arg(long, value_name = "BYTES", default_value_t = 20)]
    pub key_bytes: usize,
    /// Which keys are asked for: uniform, or zipf:THETA (such as zipf:0.99)
    #[arg(long, value_name = "DISTRIBUTION", default_value = "uniform")]
    pub popularity: Popularity,
    /// Sizes of values: BYTES, lognormal:MEDIAN:SIGMA, or list:BYTES=WEIGHT,BYTES=WEIGHT,...
    #[arg(short, long, value_name = "SIZES", default_value = "32")]
    pub value_bytes: Sizes,
    /// Store every key once before the run
    #[arg(short, long)]
    pub preload: bool,
    /// Store every key once, and end there
    #[arg(long, conflicts_with_all = ["preload", "rate", "requests", "duration"])]
    pub preload_only: bool,
    /// How long to measure, in seconds [default: 10, unless --requests is given]
    #[arg(short = 't', long, value_name = "SECONDS", value_parser = positive)]
    pub duration: Option<f64>,
    /// How many requests to measure
    #[arg(short = 'n', long, value_name = "N")]
    pub requests: Option<u64>,
    /// How long to run before measuring, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5, value_parser = not_negative)]
    pub warm_up: f64,
    /// How long a reply may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = positive)]
    pub timeout: f64,
    /// Where chance begins
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Check key, length and content of each value, not only the framing
    #[arg(long)]
    pub verify: bool,
    /// Run on this core only
    #[arg(long, value_name = "N")]
    pub core: Option<usize>,
    /// The server's process: adds its processor time per request (of all its threads, from
    /// schedstat; divided into user and system in the proportion of its ticks)
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Write the distribution of latencies to a file, in microseconds, in HdrHistogram's text form
    #[arg(long, value_name = "FILE")]
    pub hdr: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(short, long)]
    pub json: bool,
}

fn not_negative(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=1e9).contains(&number) => Ok(number),
        _ => Err("expected a number from 0 to 1e9".to_owned()),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    not_negative(text).and_then(|number| {
        if number > 0.0 { Ok(number) } else { Err("must be above 0".to_owned()) }
    })
}

impl Options {
    pub fn workload(&self) -> Result<Workload, String> {
        let keys = Keys::new(self.keys, &self.key_prefix, self.key_bytes)?;
        Workload::new(keys, self.popularity, self.value_bytes.clone(), self.ratio, self.seed)
    }

    pub fn orders(&self) -> Orders {
        let pace = match self.rate {
            None => Pace::Closed { window: self.window },
            Some(rate) => Pace::Open { rate, arrivals: self.arrivals, seed: self.seed },
        };
        let duration = match (self.duration, self.requests) {
            (None, None) => Some(DURATION_S_DEFAULT),
            (duration, _) => duration,
        };
        Orders {
            pace,
            depth: self.depth as usize,
            bounds: Bounds {
                warm_up: Duration::from_secs_f64(self.warm_up),
                duration: duration.map(Duration::from_secs_f64),
                requests: self.requests,
                timeout: Duration::from_secs_f64(self.timeout),
            },
            verify: self.verify,
            server_pid: self.server_pid,
        }
    }

    /// How many sets a preload keeps outstanding on each connection.
    pub fn preload_depth(&self) -> usize {
        (PRELOAD_BYTES / self.value_bytes.bytes_max().max(1)).clamp(1, PRELOAD_DEPTH)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
        let defaults = Options::parse_from(["ringcached-load"]);
        assert!(defaults.workload().is_ok());
        assert_eq!(defaults.orders().bounds.duration, Some(Duration::from_secs(10)));
        let counted = Options::parse_from(["ringcached-load", "-n", "5"]);
        assert_eq!(counted.orders().bounds.duration, None);
        assert!(Options::try_parse_from(["ringcached-load", "--rate", "0"]).is_err());
        assert!(Options::try_parse_from(["ringcached-load", "--rate", "9", "--window"]).is_err());
    }

    #[test]
    fn a_preload_of_large_values_is_not_deep() {
        let depth = |sizes| Options::parse_from(["x", "-v", sizes]).preload_depth();
        assert_eq!(depth("32"), 64);
        assert_eq!(depth("1000000"), 1);
    }
}
