//! The command line of the bench of neighbours, and the kinds of them.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum, value_parser};
use serde::{Deserialize, Serialize};

use crate::options::{Labelled, seconds};

/// Measure what a bad neighbour does to a good client, and to the server's memory.
///
/// A good client asks for small values at a moderate rate in an open loop: requests are due at
/// random moments (Poisson) whatever the server does, and latency counts from when a request was
/// due. Beside it runs one bad neighbour after the other; `none` is the good client alone. RSS is
/// sampled meanwhile, and held against what ringcached says that it will not exceed.
///
/// The good client and its neighbour share a core, so that the server has its own. With the right
/// to set real-time priorities (chrt), the good client has one: it sleeps between requests, runs as
/// soon as it must, and the neighbour keeps the core busy in between, so that no wake-up depends on
/// how idle the core is. Without it both are equals, and the good client spins. Either way the
/// table says how late the good client sent by its own fault ("late"), which its latencies hold.
///
/// The exit code is not 0 when ringcached failed the good client or exceeded its limit of memory.
#[derive(Clone, Debug, Args)]
pub struct Neighbours {
    /// Neighbours, one after the other
    #[arg(long, value_name = "NAME,...", value_enum, value_delimiter = ',',
          default_values_t = Kind::value_variants().to_vec())]
    pub kinds: Vec<Kind>,
    /// Requests a second of the good client
    #[arg(long, value_name = "PER_SECOND", default_value_t = 20_000,
          value_parser = value_parser!(u32).range(1..))]
    pub rate: u32,
    /// Connections of the good client
    #[arg(long, value_name = "N", default_value_t = 8,
          value_parser = value_parser!(u16).range(1..=1000))]
    pub connections: u16,
    /// Keys of the good client
    #[arg(long, value_name = "N", default_value_t = 100_000,
          value_parser = value_parser!(u64).range(1..=1_000_000))]
    pub keys: u64,
    /// Length of its values
    #[arg(long, value_name = "BYTES", default_value_t = 32,
          value_parser = value_parser!(u32).range(1..=100_000))]
    pub value_bytes: u32,
    /// How long each neighbour stays [default: 4]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub slice_seconds: Option<f64>,
    /// Rounds: how often each neighbour comes
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = value_parser!(u32).range(1..=100))]
    pub slices: u32,
    /// The good client connects when its neighbour is there already, and not before it comes
    #[arg(long)]
    pub late: bool,
    /// Slices of 0.4 s unless said otherwise: a look, not a measurement
    #[arg(long)]
    pub quick: bool,
    /// A ringcached to measure, in every mode of --dispatch; may be repeated
    /// [default: ringcached beside this program]
    #[arg(long, value_name = "[LABEL=]PATH")]
    pub ringcached: Vec<Labelled>,
    /// Dispatch modes of ringcached
    #[arg(long, value_name = "MODE,...", default_value = "auto", value_delimiter = ',')]
    pub dispatch: Vec<String>,
    /// A memcached to measure with -t 1; may be repeated [default: memcached on PATH]
    #[arg(long, value_name = "[LABEL=]PATH")]
    pub memcached: Vec<Labelled>,
    /// Leave out memcached
    #[arg(long)]
    pub no_memcached: bool,
    /// Memory of each server, in megabytes
    #[arg(long, value_name = "MB", default_value_t = 1024,
          value_parser = value_parser!(u32).range(512..))]
    pub memory: u32,
    /// Core of the servers
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub server_core: usize,
    /// Core of the good client and its neighbours
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub client_core: usize,
    /// Write the table and how it was made to a file, in Markdown
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Write every slice to a file, in JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl Neighbours {
    pub fn slice_s(&self) -> f64 {
        self.slice_seconds.unwrap_or(if self.quick { 0.4 } else { 4.0 })
    }
}

/// What a neighbour does all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Kind {
    /// Nothing.
    None,
    /// Asks for 64 MiB on each of 1,000 connections and never reads.
    Deaf,
    /// The same on 100 connections, of which each reads 1 KiB every 100 ms.
    Sips,
    /// Sends a byte a second on each of 1,000 connections.
    Trickle,
    /// Writes 4 MiB of gets, or what the server takes of them, before it reads; on 8 connections.
    Pipeline,
    /// Half a command on each of 4,000 connections.
    Halves,
    /// Stores a value of 100 MiB and asks for it.
    Large,
    /// Gets of 10,000 keys, on 4 connections.
    ManyKeys,
    /// flush_all.
    Flush,
    /// Connects, asks, and resets the connection without reading.
    Storm,
}

impl Kind {
    pub fn label(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// A bad neighbour, which `neighbours` runs as a process of its own.
///
/// It prints `ready` when it has begun, and in the end what it did, as JSON.
#[derive(Clone, Debug, Args)]
pub struct Neighbour {
    #[arg(long, value_enum)]
    pub kind: Kind,
    /// Address of the server
    #[arg(long, value_name = "ADDRESS")]
    pub server: SocketAddr,
    /// How long it waits before it comes
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub delay: Option<f64>,
    /// How long it stays
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub stay: f64,
    /// Keep the core busy when there is nothing to do
    #[arg(long)]
    pub busy: bool,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::{Command, Options};

    #[test]
    fn everybody_comes_unless_somebody_is_named() {
        let neighbours = |words: &[&str]| {
            let words = ["ringcached-bench", "neighbours"].iter().chain(words);
            let Command::Neighbours(options) = Options::parse_from(words).command else {
                unreachable!("neighbours was asked for");
            };
            options
        };
        assert_eq!(neighbours(&[]).kinds.len(), Kind::value_variants().len());
        assert_eq!(neighbours(&[]).slice_s(), 4.0);
        let named = neighbours(&["--kinds", "none,many-keys", "--quick"]);
        assert_eq!(
            (named.kinds.as_slice(), named.slice_s()),
            (&[Kind::None, Kind::ManyKeys][..], 0.4)
        );
        assert_eq!(Kind::ManyKeys.label(), "many-keys");
    }
}
