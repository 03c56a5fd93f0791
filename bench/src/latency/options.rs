//! The command line of the latency bench, and the work that it asks for.

use std::path::PathBuf;

use clap::{Args, ValueEnum, value_parser};

use crate::options::{Labelled, seconds};

/// What gets of many keys may ask for at once, in bytes of values.
const REPLY_BYTES_MAX: u64 = 1 << 20;

/// Measure how long users wait: latency in an open loop, at parts of saturation, side by side.
///
/// For each kind of work, a closed loop finds how many requests a second each server answers. The
/// median of the slower one is called saturation. Then an open loop asks each server for a part of
/// that, the same for all: requests are due at random moments (Poisson), whatever the server does,
/// and latency counts from when a request was due. Slices of all servers are interleaved, each
/// round beginning with another one; percentiles are medians and minima over the rounds.
///
/// Servers run on one core and the client on another, where it spins. They are started anew for
/// each size of values, so that none has to move memory between sizes. Gets find what they ask for:
/// keys are stored first, as many of them as fit a quarter of the memory.
///
/// The exit code is not 0 when there were errors. A rate that was not reached is a remark.
#[derive(Clone, Debug, Args)]
pub struct Latency {
    /// What is asked for; a get of many keys is one request. Those whose values come to more than
    /// a mebibyte are left out
    #[arg(
        long,
        value_name = "NAME,...",
        value_enum,
        value_delimiter = ',',
        default_value = "gets,sets,get16,get100"
    )]
    pub works: Vec<Work>,
    /// Lengths of values
    #[arg(long, value_name = "BYTES,...", value_delimiter = ',',
          default_value = "32,1024,16384,262144",
          value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub value_bytes: Vec<u32>,
    /// Numbers of connections
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "50,1000",
          value_parser = value_parser!(u16).range(1..=4000))]
    pub connections: Vec<u16>,
    /// Parts of saturation, in percent
    #[arg(long, value_name = "PERCENT,...", value_delimiter = ',', default_value = "50,80",
          value_parser = value_parser!(u32).range(1..=200))]
    pub loads: Vec<u32>,
    /// Requests outstanding on each connection in the closed loop that finds saturation
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub depth: u32,
    /// Requests outstanding on a connection at most, in the open loop; what is due beyond them
    /// waits in the client, and its latency counts that
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub depth_max: u32,
    /// Rounds: slices of each work, load and server
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = value_parser!(u32).range(1..))]
    pub slices: u32,
    /// Length of a slice
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    pub slice_seconds: f64,
    /// Number of keys, where that many fit
    #[arg(long, value_name = "N", default_value_t = 1_000_000,
          value_parser = value_parser!(u64).range(1..=1_000_000))]
    pub keys: u64,
    /// What the servers are spoken to in: text, meta or binary
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub dialect: String,
    /// A ringcached to measure, in every mode of --dispatch; may be repeated
    /// [default: ringcached beside this program]
    #[arg(long, value_name = "[LABEL=]PATH")]
    pub ringcached: Vec<Labelled>,
    /// Dispatch modes of ringcached
    #[arg(long, value_name = "MODE,...", default_value = "auto", value_delimiter = ',')]
    pub dispatch: Vec<String>,
    /// A memcached to measure with -t 1; may be repeated; ratios are to the first
    /// [default: memcached on PATH]
    #[arg(long, value_name = "[LABEL=]PATH")]
    pub memcached: Vec<Labelled>,
    /// Memory of each server, in megabytes
    #[arg(long, value_name = "MB", default_value_t = 1024)]
    pub memory: u32,
    /// Core of the servers
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub server_core: usize,
    /// Core of the client
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub client_core: usize,
    /// Write the table and how it was made to a file, in Markdown
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Write the report of every slice to a file, in JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Work {
    Gets,
    Sets,
    Get16,
    Get100,
}

impl Work {
    pub fn label(self) -> &'static str {
        match self {
            Work::Gets => "gets",
            Work::Sets => "sets",
            Work::Get16 => "gets of 16",
            Work::Get100 => "gets of 100",
        }
    }

    pub fn ratio(self) -> &'static str {
        match self {
            Work::Sets => "1:0",
            Work::Gets | Work::Get16 | Work::Get100 => "0:1",
        }
    }

    pub fn keys_per_get(self) -> u32 {
        match self {
            Work::Gets | Work::Sets => 1,
            Work::Get16 => 16,
            Work::Get100 => 100,
        }
    }
}

impl Latency {
    /// The kinds of work for values of one length.
    pub fn works(&self, value_bytes: u32) -> Vec<Work> {
        let fits = |work: &Work| {
            work.keys_per_get() == 1
                || u64::from(work.keys_per_get()) * u64::from(value_bytes) <= REPLY_BYTES_MAX
        };
        self.works.iter().copied().filter(fits).collect()
    }

    /// How many keys are stored with values of one length.
    pub fn keys(&self, value_bytes: u32) -> u64 {
        // 128 is more than a key and any server's overhead.
        let fitting = (u64::from(self.memory) << 20) / 4 / (u64::from(value_bytes) + 128);
        self.keys.min(fitting.max(1))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::{Command, Options};

    fn latency(words: &[&str]) -> Latency {
        let words = ["ringcached-bench", "latency"].iter().chain(words);
        let Command::Latency(options) = Options::parse_from(words).command else {
            unreachable!("latency was asked for");
        };
        *options
    }

    #[test]
    fn work_that_makes_no_sense_is_left_out() {
        let defaults = latency(&[]);
        assert_eq!(defaults.works(1024).len(), 4);
        assert_eq!(defaults.works(16_384), [Work::Gets, Work::Sets, Work::Get16]);
        assert_eq!(defaults.works(262_144), [Work::Gets, Work::Sets]);
        assert_eq!(latency(&["--works", "get100"]).works(16_384), []);
    }

    #[test]
    fn no_more_keys_are_stored_than_fit() {
        let defaults = latency(&[]);
        assert_eq!(defaults.keys(32), 1_000_000);
        assert_eq!(defaults.keys(262_144), 1023);
        assert_eq!(latency(&["--keys", "7"]).keys(262_144), 7);
    }
}
