//! The command line of `replay`.

use std::path::PathBuf;

use clap::{Args, value_parser};

use ringcached::config::FavorName;

use super::source::Source;
use crate::options::Labelled;

/// Replay traces against the store, without sockets, and print its miss ratios beside others'.
///
/// Every request of a trace is a get; where it misses, the key is set. Time is that of the trace.
/// Cold misses count. All memory of the row is the store's whole budget, index included; the other
/// policies, which have no overhead of their own, are charged a key of 27 bytes, a header of 16 and
/// 15 bytes of index with every value, but neither rounding nor what they remember of the past.
///
/// TRACE is NAME[+xN][+ttl][+FORMAT][@SIZE,SIZE...]. NAME is zipf:ALPHA, twitterlike, hot, shift,
/// or a file. +xN replays N copies at once, each with its own keys. +ttl lets items expire: 20 % in
/// 60 s, 30 % in an hour, 30 % in a day, the trace takes two days. SIZE is 5%, of the bytes of all
/// objects, or 64MiB [default: 1%,10%]. FORMAT is records (24 bytes: u32 time, u64 key, u32 bytes,
/// i64 next, little-endian), u32, i32 or u64 (big-endian keys; sizes are drawn, with a median of
/// 230 bytes), or text (time, key, bytes); public traces called *adapt_size*, *scarab*, *w106* and
/// *orm-busy* are known. A file called *.xz is read with xz.
#[derive(Clone, Debug, Args)]
pub struct Replay {
    /// What to replay
    #[arg(value_name = "TRACE", required_unless_present = "all")]
    pub traces: Vec<Source>,
    /// Replay all generated traces, and the known public ones that are in --folder
    #[arg(long, conflicts_with = "traces")]
    pub all: bool,
    /// Folder with public traces, for --all
    #[arg(long, value_name = "FOLDER", requires = "all")]
    pub folder: Option<PathBuf>,
    /// A Python that has libcachesim 0.3.5, to print its policies beside ours: python3 -m venv
    /// judge && judge/bin/pip install libcachesim==0.3.5; then --judge judge/bin/python
    #[arg(long, value_name = "PYTHON")]
    pub judge: Option<PathBuf>,
    /// Keep the verdicts of --judge in a folder, and do not judge again what is there
    #[arg(long, value_name = "FOLDER")]
    pub keep: Option<PathBuf>,
    /// A memcached to replay against where the cache has at least 64 MiB; may be repeated
    #[arg(long, value_name = "[LABEL=]PATH")]
    pub memcached: Vec<Labelled>,
    /// Threads at the table, which take turns with pieces of the trace
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = value_parser!(u8).range(1..=16))]
    pub threads: u8,
    /// What the store keeps when not everything fits, as --favor of the server
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    pub favor: FavorName,
    /// Requests between two looks at the table
    #[arg(long, value_name = "N", default_value_t = 250_000,
          value_parser = value_parser!(u32).range(1000..))]
    pub window: u32,
    /// Begin no further trace after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 720)]
    pub time_limit: u64,
    /// Core of memcached
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub server_core: usize,
    /// Write the tables and how they were made to a file, in Markdown
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
}

/// What --all replays before the public traces.
pub const GENERATED: [&str; 7] = [
    "twitterlike@1%,5%,10%",
    "twitterlike+ttl@1%,5%,10%",
    "hot@32MiB",
    "shift@32MiB",
    "zipf:0.7@1%,10%",
    "zipf:0.99@1%,10%",
    "zipf:1.2@5%,10%",
];

/// What --all replays in the end: it takes longest, and is the first to go if time is short.
pub const LONGEST: &str = "twitterlike+x8@64MiB";
