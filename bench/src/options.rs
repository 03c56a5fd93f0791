//! The command line of the harness.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};
use ringcached_load::options::Options as LoadOptions;

use crate::crowd::options::Crowd;
use crate::instructions::Instructions;
use crate::latency::options::Latency;
use crate::neighbours::options::{Neighbour, Neighbours};
use crate::replay::Replay;
use crate::shared::Shared;
use crate::store::options::Store;

/// Measures memcached servers side by side.
#[derive(Debug, Parser)]
#[command(name = "ringcached-bench", version)]
pub struct Options {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Compare(Box<Compare>),
    Crowd(Crowd),
    Instructions(Instructions),
    Latency(Box<Latency>),
    Load(Box<LoadOptions>),
    #[command(hide = true)]
    Neighbour(Neighbour),
    Neighbours(Neighbours),
    NullServer(NullOptions),
    Replay(Box<Replay>),
    Shared(Shared),
    Store(Box<Store>),
}

/// The null server, which `compare` runs as a process of its own.
///
/// A ring of ringcached that answers the same bytes for every so many bytes of requests, without
/// parsing or looking anything up: the limit of this kernel path.
///
/// It takes every request for a get of a key of KEY_BYTES, and answers with a hit; or, when what
/// comes begins as a set, for sets of VALUE_BYTES, and answers that they are stored.
#[derive(Clone, Debug, Args)]
pub struct NullOptions {
    /// Port, on 127.0.0.1
    #[arg(short, long, value_name = "N")]
    pub port: u16,
    /// Length of the keys that are asked for
    #[arg(long, value_name = "BYTES", default_value_t = 20,
          value_parser = value_parser!(u16).range(1..=250))]
    pub key_bytes: u16,
    /// Length of the value that is answered
    #[arg(long, value_name = "BYTES", default_value_t = 32)]
    pub value_bytes: u32,
    /// Connections at most
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub connections: u32,
}

/// Compare servers in short, interleaved slices and print one table.
///
/// All servers run on one core and the client on another.
///
/// All servers are started once and stay up, idle. Then slices of about a second are interleaved:
/// every workload and depth on every server in turn, several rounds, each round beginning with
/// another server. A host that is slow for a while is so slow for all of them.
///
/// The figure to compare is the server's processor time per request: run time of all its threads
/// from /proc/PID/task/*/schedstat. User and system time are its parts in the proportion of the
/// ticks in /proc/PID/stat. Minima are what the code can do, medians what this host let it do.
///
/// WORKLOADS, all with 50 connections and 1,000,000 keys with values of 32 bytes unless changed:
///
/// gets: ringcached-load, gets alone. The null server takes part: it answers the same bytes for
/// every so many bytes of requests, without parsing or looking anything up.
///
/// sets: ringcached-load, sets alone; only when it is asked for. The null server takes part: it
/// keeps nothing.
///
/// mix: ringcached-load, one set to ten gets.
///
/// meta-gets, meta-sets, binary-gets, binary-sets: the same gets and sets in memcached's other
/// dialects; only when they are asked for, and without the null server, which speaks text.
///
/// memtier: memtier_benchmark, one set to ten gets, depth as --pipeline.
///
/// memtier-gets: the same, gets alone; only when it is asked for. The null server takes part.
///
/// memaslap: one set to nine gets, its own 64-byte keys, depth as keys of a multi-get (-d); a key
/// is counted as a request. It gives no percentiles.
///
/// memtier and memaslap are measured from their start to their end and only in whole seconds;
/// ringcached-load after a warm-up.
#[derive(Clone, Debug, Args)]
pub struct Compare {
    /// Rounds: slices of each workload, depth and server [default: 5]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    pub slices: Option<u32>,
    /// Length of a slice [default: 1]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub slice_seconds: Option<f64>,
    /// Requests outstanding on each connection
    #[arg(long, value_name = "N,...", default_value = "1,16,64", value_delimiter = ',')]
    pub depths: Vec<u32>,
    /// Connections
    #[arg(long, value_name = "N", default_value_t = 50,
          value_parser = value_parser!(u16).range(1..=4000))]
    pub connections: u16,
    /// Number of keys
    #[arg(long, value_name = "N", default_value_t = 1_000_000,
          value_parser = value_parser!(u64).range(1..=1_000_000))]
    pub keys: u64,
    /// Length of a key, for gets and mix
    #[arg(long, value_name = "BYTES", default_value_t = 20)]
    pub key_bytes: usize,
    /// Length of a value
    #[arg(long, value_name = "BYTES", default_value_t = 32)]
    pub value_bytes: u32,
    /// What to run [default: all whose client is installed]
    #[arg(long, value_name = "NAME,...", value_enum, value_delimiter = ',')]
    pub workloads: Vec<WorkloadName>,
    /// Two slices of 0.3 s, gets alone, unless said otherwise: a look, not a measurement
    #[arg(long)]
    pub quick: bool,
    /// A ringcached to measure, in every mode of --dispatch; may be repeated
    /// [default: ringcached beside this program]
    #[arg(long, value_name = "[LABEL=]PATH")]
    pub ringcached: Vec<Labelled>,
    /// More arguments for ringcached, which is measured with each of them as a server of its own;
    /// may be repeated. `plain=` is none
    #[arg(long, value_name = "LABEL=ARGUMENTS")]
    pub with: Vec<More>,
    /// Dispatch modes of ringcached
    #[arg(
        long,
        value_name = "MODE,...",
        default_value = "inline,queue,auto",
        value_delimiter = ','
    )]
    pub dispatch: Vec<String>,
    /// A memcached to measure with -t 1; may be repeated; ratios are to the first
    /// [default: memcached on PATH]
    #[arg(long, value_name = "[LABEL=]PATH")]
    pub memcached: Vec<Labelled>,
    /// Leave out the null server
    #[arg(long)]
    pub no_null: bool,
    /// Leave out ringcached
    #[arg(long)]
    pub no_ringcached: bool,
    /// Leave out memcached
    #[arg(long)]
    pub no_memcached: bool,
    /// Memory of each server, in megabytes
    #[arg(long, value_name = "MB", default_value_t = 1024)]
    pub memory: u32,
    /// Core of the servers
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub server_core: usize,
    /// Core of the clients
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub client_core: usize,
    /// Write the table and how it was made to a file, in Markdown
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Write every slice to a file, in JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl Compare {
    pub fn rounds(&self) -> u32 {
        self.slices.unwrap_or(if self.quick { 2 } else { 5 })
    }

    pub fn slice_s(&self) -> f64 {
        self.slice_seconds.unwrap_or(if self.quick { 0.3 } else { 1.0 })
    }

    /// The workloads asked for, whether or not their clients are installed.
    pub fn workloads(&self) -> Vec<WorkloadName> {
        let mut asked = match (self.workloads.as_slice(), self.quick) {
            ([], true) => vec![WorkloadName::Gets],
            ([], false) => WorkloadName::ALL.to_vec(),
            (named, _) => named.to_vec(),
        };
        asked.sort_unstable();
        asked.dedup();
        asked
    }
}

/// A workload by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum WorkloadName {
    Gets,
    Sets,
    Mix,
    MetaGets,
    MetaSets,
    BinaryGets,
    BinarySets,
    Memtier,
    MemtierGets,
    Memaslap,
}

impl WorkloadName {
    /// All that need not be asked for by name.
    pub const ALL: [WorkloadName; 4] =
        [WorkloadName::Gets, WorkloadName::Mix, WorkloadName::Memtier, WorkloadName::Memaslap];

    /// True when all requests are alike, and the null server can answer them.
    pub fn is_of_one_kind(self) -> bool {
        matches!(self, WorkloadName::Gets | WorkloadName::Sets | WorkloadName::MemtierGets)
    }

    pub fn label(self) -> &'static str {
        match self {
            WorkloadName::Gets => "gets",
            WorkloadName::Sets => "sets",
            WorkloadName::Mix => "mix",
            WorkloadName::MetaGets => "meta-gets",
            WorkloadName::MetaSets => "meta-sets",
            WorkloadName::BinaryGets => "binary-gets",
            WorkloadName::BinarySets => "binary-sets",
            WorkloadName::Memtier => "memtier",
            WorkloadName::MemtierGets => "memtier-gets",
            WorkloadName::Memaslap => "memaslap",
        }
    }
}

/// A program, and what to call it in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    pub label: Option<String>,
    pub path: PathBuf,
}

impl FromStr for Labelled {
    type Err = String;

    fn from_str(text: &str) -> Result<Labelled, String> {
        let (label, path) = match text.split_once('=') {
            Some((label, path)) => (Some(label.to_owned()), path),
            None => (None, text),
        };
        if path.is_empty() || label.as_deref() == Some("") {
            return Err("expected PATH or LABEL=PATH".to_owned());
        }
        Ok(Labelled { label, path: PathBuf::from(path) })
    }
}

/// Arguments, and what to call a server that has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct More {
    pub label: String,
    pub arguments: String,
}

impl FromStr for More {
    type Err = String;

    fn from_str(text: &str) -> Result<More, String> {
        match text.split_once('=') {
            Some((label, arguments)) if !label.is_empty() => {
                Ok(More { label: label.to_owned(), arguments: arguments.to_owned() })
            }
            Some(_) | None => Err("expected LABEL=ARGUMENTS".to_owned()),
        }
    }
}

pub fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.05..=600.0).contains(&number) => Ok(number),
        _ => Err("expected a number from 0.05 to 600".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn compare(words: &[&str]) -> Compare {
        let words = ["ringcached-bench", "compare"].iter().chain(words);
        let Command::Compare(compare) = Options::parse_from(words).command else {
            unreachable!("compare was asked for");
        };
        *compare
    }

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
        let defaults = compare(&[]);
        assert_eq!((defaults.rounds(), defaults.workloads().len()), (5, 4));
        assert_eq!(defaults.depths, [1, 16, 64]);
        assert_eq!(compare(&["--quick"]).workloads(), [WorkloadName::Gets]);
        let quick = compare(&["--quick", "--slices", "9", "--workloads", "memtier,mix,mix"]);
        assert_eq!((quick.rounds(), quick.slice_s()), (9, 0.3));
        assert_eq!(quick.workloads(), [WorkloadName::Mix, WorkloadName::Memtier]);
        assert_eq!(compare(&["--depths", "2,4"]).depths, [2, 4]);
    }

    #[test]
    fn programs_have_labels() {
        let both = compare(&["--memcached", "new=/a/b", "--memcached", "/c"]).memcached;
        assert_eq!(both[0], Labelled { label: Some("new".to_owned()), path: "/a/b".into() });
        assert_eq!(both[1], Labelled { label: None, path: "/c".into() });
        let with = &compare(&["--with", "big=--receive incremental -c 9"]).with[0];
        assert_eq!((with.label.as_str(), with.arguments.len()), ("big", 26));
        assert!("--receive".parse::<More>().is_err() && "=x".parse::<More>().is_err());
        assert!("=x".parse::<Labelled>().is_err() && "x=".parse::<Labelled>().is_err());
    }
}
