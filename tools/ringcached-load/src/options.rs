//! The command line, and the checked orders that it makes.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::client::{Bounds, Orders, Pace};
use crate::dialect::Dialect;
use crate::keys::{Keys, Popularity};
use crate::schedule::Arrivals;
use crate::values::Sizes;
use crate::workload::{Mix, Ratio};

/// Where memcached listens.
const PORT: u16 = 11211;
const DURATION_S_DEFAULT: f64 = 10.0;
const PRELOAD_DEPTH: usize = 64;
/// A connection's requests and replies under way during a preload, roughly.
const PRELOAD_BYTES: usize = 1 << 20;

const SERVER: &str = "The server";
const PACE: &str = "When requests are sent";
const WORK: &str = "What is asked for";
const CLIENT: &str = "This program";

const EXAMPLES: &str = "\
Examples:
  How many gets a second can it do, with 16 requests under way on each connection?
    ringcached-load --preload --depth 16

  How long do users wait at 50,000 requests a second, one set to ten gets?
    ringcached-load --preload --ratio 1:10 --rate 50000 --depth 64 --hdr latency.hgrm

  Does it return what was stored? A few popular keys, values of many sizes, 100 keys in each get:
    ringcached-load --preload --keys 10000 --popularity zipf:0.99 \\
        --value-bytes lognormal:300:1.5 --multi-get 100 --ratio 1:1 --verify";

/// Loads a memcached server and measures how fast it answers.
///
/// A first run, which stores 100,000 keys of a running server, asks for them for ten seconds over
/// 50 connections, and prints what it saw:
///
///   ringcached-load --server 127.0.0.1:11211 --preload --keys 100000
///
/// HOW REQUESTS ARE PACED decides what the figures mean:
///
/// CLOSED LOOP (default): each connection keeps DEPTH requests outstanding, written at once when
/// all the replies to the last ones have come. This finds how much the server can do. It does not
/// find how long users would wait: while the server stalls, a closed loop asks nothing, and so a
/// stall is one slow request in it and not the thousands that would have come meanwhile.
///
/// OPEN LOOP (--rate): a schedule says when each request is due, whatever the server does, and
/// latency counts from that moment, so that a stall shows in full. Find the server's limit with a
/// closed loop, then ask for a part of it, such as 50 % or 80 %. The client spins while it waits
/// for the next request, so give it a core of its own, or --sleep.
///
/// The value of a key follows from the key and the size option, so that --verify can check values
/// that an earlier run with the same options stored. All keys have one length.
///
/// The exit code is 0 when there was no error of any kind, 1 when the report has errors, and 2 when
/// there is no report. A missing key is no error.
#[derive(Clone, Debug, Parser)]
#[command(name = "ringcached-load", version, verbatim_doc_comment, after_long_help = EXAMPLES)]
pub struct Options {
    /// Address of the server: a name or a number, and a port when it is not 11211
    #[arg(short, long, value_name = "HOST[:PORT]", default_value = "127.0.0.1:11211",
          value_parser = address, help_heading = SERVER)]
    pub server: SocketAddr,
    /// Unix socket of the server, in place of an address
    #[arg(long, value_name = "PATH", conflicts_with = "server", help_heading = SERVER)]
    pub unix: Option<PathBuf>,
    /// What the server is spoken to in
    #[arg(long, visible_alias = "protocol", value_enum, default_value = "text",
          help_heading = SERVER)]
    pub dialect: Dialect,
    /// The server's process, on this machine: adds its processor time per request (of all its
    /// threads, from schedstat; divided into user and system in the proportion of its ticks)
    #[arg(long, value_name = "PID", help_heading = SERVER)]
    pub server_pid: Option<u32>,

    /// Number of connections, over all threads
    #[arg(short, long, value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u16).range(1..), help_heading = PACE)]
    pub connections: u16,
    /// Requests outstanding on each connection: exactly (closed loop) or at most (open loop)
    #[arg(short, long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000), help_heading = PACE)]
    pub depth: u32,
    /// Closed loop: send anew for each reply that comes, not when all of them are in
    #[arg(long, conflicts_with = "rate", help_heading = PACE)]
    pub window: bool,
    /// Open loop: requests a second, over all connections
    #[arg(short, long, value_name = "PER_SECOND", value_parser = positive, help_heading = PACE)]
    pub rate: Option<f64>,
    /// Open loop: how the requests follow each other
    #[arg(long, value_enum, default_value = "poisson", requires = "rate", help_heading = PACE)]
    pub arrivals: Arrivals,
    /// Open loop: sleep until the next request is due, for a core that is shared; each wake-up is a
    /// part of the latency then
    #[arg(long, requires = "rate", help_heading = PACE)]
    pub sleep: bool,
    /// How long to measure, in seconds [default: 10, unless --requests is given]
    #[arg(short = 't', long, value_name = "SECONDS", value_parser = positive,
          help_heading = PACE)]
    pub duration: Option<f64>,
    /// How many requests to measure
    #[arg(short = 'n', long, value_name = "N", help_heading = PACE)]
    pub requests: Option<u64>,
    /// How long to run before measuring, in seconds; what happens then is not counted
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5, value_parser = not_negative,
          help_heading = PACE)]
    pub warm_up: f64,
    /// How long a reply may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = positive,
          help_heading = PACE)]
    pub timeout: f64,

    /// Sets and gets
    #[arg(long, value_name = "SET:GET", default_value = "0:1", help_heading = WORK)]
    pub ratio: Ratio,
    /// Keys of each get. With more than 1, a get is one request with one latency, in every dialect:
    /// one line of text; quiet mg and a final mn; quiet GetKQ and a final Noop
    #[arg(short, long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=100_000), help_heading = WORK)]
    pub multi_get: u32,
    /// Number of keys
    #[arg(short, long, value_name = "N", default_value_t = 1_000_000, help_heading = WORK)]
    pub keys: u64,
    /// What keys begin with
    #[arg(long, value_name = "TEXT", default_value = "key-", help_heading = WORK)]
    pub key_prefix: String,
    /// Length of each key: the prefix, and a number padded with zeros
    #[arg(long, value_name = "BYTES", default_value_t = 20, help_heading = WORK)]
    pub key_bytes: usize,
    /// Which keys are asked for: uniform, or zipf:THETA (such as zipf:0.99, where few keys make
    /// most of the requests)
    #[arg(long, value_name = "DISTRIBUTION", default_value = "uniform", help_heading = WORK)]
    pub popularity: Popularity,
    /// Sizes of values: BYTES, lognormal:MEDIAN:SIGMA, or list:BYTES=WEIGHT,BYTES=WEIGHT,...
    #[arg(short, long, value_name = "SIZES", default_value = "32", help_heading = WORK)]
    pub value_bytes: Sizes,
    /// Store every key once before the run
    #[arg(short, long, help_heading = WORK)]
    pub preload: bool,
    /// Store every key once, and end there
    #[arg(long, conflicts_with_all = ["preload", "rate", "requests", "duration"],
          help_heading = WORK)]
    pub preload_only: bool,
    /// Check key, length and content of each value, not only the framing
    #[arg(long, help_heading = WORK)]
    pub verify: bool,
    /// Where chance begins: the same seed draws the same requests
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = WORK)]
    pub seed: u64,

    /// Threads of the client; each has its part of the connections
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=1024), help_heading = CLIENT)]
    pub threads: u32,
    /// Run on these cores only: the first thread on the first of them, and so on in turn
    #[arg(long, value_name = "N,...", value_delimiter = ',', help_heading = CLIENT)]
    pub core: Vec<usize>,
    /// Write the distribution of latencies to a file, in microseconds, in HdrHistogram's text form
    /// (.hgrm), which its plotters read
    #[arg(long, value_name = "FILE", help_heading = CLIENT)]
    pub hdr: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(short, long, help_heading = CLIENT)]
    pub json: bool,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Ok(host) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::from((host, PORT)));
    }
    let host = if text.contains(':') { text.to_owned() } else { format!("{text}:{PORT}") };
    let mut found =
        host.to_socket_addrs().map_err(|e| format!("{e}; expected HOST or HOST:PORT"))?;
    found.next().ok_or_else(|| format!("{text:?} has no address"))
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
    /// What is asked for; fails when the options do not go together.
    pub fn mix(&self) -> Result<Mix, String> {
        if self.threads > u32::from(self.connections) {
            return Err(format!(
                "{} threads cannot share {} connections: each needs one at least",
                self.threads, self.connections
            ));
        }
        let mix = Mix {
            dialect: self.dialect,
            keys: Keys::new(self.keys, &self.key_prefix, self.key_bytes)?,
            popularity: self.popularity,
            sizes: self.value_bytes.clone(),
            ratio: self.ratio,
            keys_per_get: self.multi_get,
        };
        Ok(mix)
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
        assert!(defaults.mix().is_ok());
        assert_eq!(defaults.orders().bounds.duration, Some(Duration::from_secs(10)));
        let counted = Options::parse_from(["ringcached-load", "-n", "5"]);
        assert_eq!(counted.orders().bounds.duration, None);
        assert!(Options::try_parse_from(["ringcached-load", "--rate", "0"]).is_err());
        assert!(Options::try_parse_from(["ringcached-load", "--rate", "9", "--window"]).is_err());
    }

    #[test]
    fn options_that_do_not_go_together_are_refused_in_words() {
        let refusal = |words: &[&str]| {
            let words = ["ringcached-load"].iter().chain(words);
            Options::parse_from(words).mix().unwrap_err()
        };
        assert!(refusal(&["--threads", "3", "-c", "2"]).contains("3 threads cannot share 2"));
        assert!(refusal(&["-k", "1000", "--key-bytes", "6"]).contains("need 7 bytes, not 6"));
    }

    #[test]
    fn a_server_has_a_port_even_when_nobody_says_which() {
        let of = |text| address(text).map(|address| address.to_string());
        assert_eq!(of("10.1.2.3:99").unwrap(), "10.1.2.3:99");
        assert_eq!(of("10.1.2.3").unwrap(), "10.1.2.3:11211");
        assert_eq!(of("::1").unwrap(), "[::1]:11211");
        assert_eq!(of("[::1]:99").unwrap(), "[::1]:99");
        assert!(of("127.0.0.1:port").unwrap_err().contains("expected HOST or HOST:PORT"));
    }

    #[test]
    fn a_preload_of_large_values_is_not_deep() {
        let depth = |sizes| Options::parse_from(["x", "-v", sizes]).preload_depth();
        assert_eq!(depth("32"), 64);
        assert_eq!(depth("1000000"), 1);
    }
}
