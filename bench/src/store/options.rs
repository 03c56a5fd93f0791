//! The command line of the benches of the store.

use std::path::PathBuf;

use clap::{Args, Subcommand, value_parser};

use super::sizes::Mix;
use crate::options::Labelled;

/// Measure the store against its budgets: bytes, pauses, look-ups, and what must never happen.
///
/// Each bench prints one table in Markdown. `bytes`, `held`, `trap` and `expiry` run over real
/// servers, one at a time, each started for its rows and ended after them; `growth`, `lookup` and
/// `check` drive the store in this process, without sockets.
///
/// The exit code is not 0 when something happened that must not, which the notes then say.
#[derive(Clone, Debug, Args)]
pub struct Store {
    #[command(subcommand)]
    pub bench: Bench,
    /// Write the table to a file, too
    #[arg(long, value_name = "FILE", global = true)]
    pub markdown: Option<PathBuf>,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Bench {
    Bytes(Bytes),
    Held(Held),
    Trap(Trap),
    Expiry(Expiring),
    Growth(Growth),
    Lookup(Lookup),
    Check(Check),
}

/// The programs to measure.
#[derive(Clone, Debug, Args)]
pub struct Programs {
    /// A ringcached; may be repeated [default: ringcached beside this program]
    #[arg(long, value_name = "[LABEL=]PATH")]
    pub ringcached: Vec<Labelled>,
    /// A memcached; may be repeated; ratios are to the first [default: memcached on PATH]
    #[arg(long, value_name = "[LABEL=]PATH")]
    pub memcached: Vec<Labelled>,
    /// Measure nothing that is not named here
    #[arg(long)]
    pub only_named: bool,
}

/// Bytes of overhead an item: growth of RSS less the bytes of keys and values.
///
/// A server is started for each workload with memory enough for all of it. RSS is that of
/// /proc/PID/smaps_rollup, before the first item and when it no longer changes after the last.
/// Everything is in it: headers, index, rounding, pages begun and not full.
///
/// WORKLOADS: small is 20-byte keys with 32-byte values. kvcache, leader and follower have values
/// lognormal with mean and median of CacheBench's kvcache_reg, graph_leader_fbobj and
/// graph_follower_assocs, and keys uniform in the ranges that it gives, from 8 bytes on so that
/// they differ. twitter is 38-byte keys with values lognormal around a median of 230.
#[derive(Clone, Debug, Args)]
pub struct Bytes {
    #[command(flatten)]
    pub programs: Programs,
    /// A redis-server or valkey-server; may be repeated [default: redis-server on PATH]
    #[arg(long, value_name = "[LABEL=]PATH")]
    pub redis: Vec<Labelled>,
    /// Items of each workload
    #[arg(long, value_name = "N", default_value_t = 2_000_000,
          value_parser = value_parser!(u64).range(1000..=100_000_000))]
    pub items: u64,
    /// What to store
    #[arg(
        long,
        value_name = "NAME,...",
        value_enum,
        value_delimiter = ',',
        default_value = "small,kvcache,leader,follower,twitter"
    )]
    pub workloads: Vec<Mix>,
    /// Memory of each server, in megabytes [default: ample for the workload]
    #[arg(long, value_name = "MB")]
    pub memory: Option<u64>,
}

/// Items held in a given memory, when far more were stored than fit.
#[derive(Clone, Debug, Args)]
pub struct Held {
    #[command(flatten)]
    pub programs: Programs,
    /// Memory of each server, in megabytes
    #[arg(long, value_name = "MB", default_value_t = 1024)]
    pub memory: u64,
    /// Different items to store
    #[arg(long, value_name = "N", default_value_t = 6_000_000,
          value_parser = value_parser!(u64).range(1000..=1_000_000_000))]
    pub sets: u64,
    /// What to store, as in bytes
    #[arg(long, value_name = "NAME", value_enum, default_value = "twitter")]
    pub workload: Mix,
}

/// The large-value trap: memory filled with small values, then large ones, then small ones again.
///
/// Large sets come from several connections at once, as soon as the small ones are stored, and
/// each waits for its reply; what is refused is counted. Small values are read uniformly, and
/// stored on a miss: a pass is as many reads as there are values. What they find before any large
/// value comes is asked of a server of its own.
#[derive(Clone, Debug, Args)]
pub struct Trap {
    #[command(flatten)]
    pub programs: Programs,
    /// Memory of each server, in megabytes
    #[arg(long, value_name = "MB", default_value_t = 64)]
    pub memory: u64,
    /// How often large values are stored, each time on a new server: refusals vary
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = value_parser!(u32).range(1..))]
    pub runs: u32,
    /// Threads of each server
    #[arg(long, value_name = "N", default_value_t = 4,
          value_parser = value_parser!(u32).range(1..=64))]
    pub threads: u32,
    /// Small values
    #[arg(long, value_name = "N", default_value_t = 80_000,
          value_parser = value_parser!(u64).range(1..=100_000_000))]
    pub small: u64,
    /// Bytes of a small value
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    pub small_bytes: usize,
    /// Connections that store large values
    #[arg(long, value_name = "N", default_value_t = 8,
          value_parser = value_parser!(u64).range(1..=64))]
    pub connections: u64,
    /// Large values of each connection
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub large: u64,
    /// Bytes of a large value
    #[arg(long, value_name = "BYTES", default_value_t = 700_000)]
    pub large_bytes: usize,
}

/// How soon the memory of expired items comes back when nobody asks for them.
///
/// Items with TTLs of 1 to 5 s fill a part of the memory and are never touched again; only the
/// statistics are watched.
#[derive(Clone, Debug, Args)]
pub struct Expiring {
    #[command(flatten)]
    pub programs: Programs,
    /// Memory of each server, in megabytes
    #[arg(long, value_name = "MB", default_value_t = 256)]
    pub memory: u64,
    /// Items to store
    #[arg(long, value_name = "N", default_value_t = 400_000)]
    pub items: u64,
    /// What to store, as in bytes
    #[arg(long, value_name = "NAME", value_enum, default_value = "twitter")]
    pub workload: Mix,
    /// How long to watch
    #[arg(long, value_name = "SECONDS", default_value_t = 90,
          value_parser = value_parser!(u64).range(1..=600))]
    pub patience: u64,
}

/// The longest pause of a get while the table grows.
///
/// One thread stores, another gets what is there already and times each get from the end of the one
/// before, so that no pause falls between two. A third makes huge pages, as in the server. Then the
/// table is filled once more by one thread alone; and a null loop, which does the same without a
/// table, shows the machine's own stalls on the same core for as long as the growth took, while the
/// other core is busy.
#[derive(Clone, Debug, Args)]
pub struct Growth {
    /// Items there before the first get
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub from: u64,
    /// Items in the end
    #[arg(long, value_name = "N", default_value_t = 20_000_000)]
    pub items: u64,
    /// Memory of the table, in megabytes [default: 144 bytes an item]
    #[arg(long, value_name = "MB")]
    pub memory: Option<u64>,
    /// Make no huge pages
    #[arg(long)]
    pub no_huge_pages: bool,
    /// Lock the memory of the tables before anything is stored, so that what the kernel and its
    /// host need to bring it is in no time; implies --no-huge-pages
    #[arg(long)]
    pub lock: bool,
    /// Core of the thread that stores
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub store_core: usize,
    /// Core of the thread that gets
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub get_core: usize,
}

impl Growth {
    pub fn makes_huge_pages(&self) -> bool {
        !self.no_huge_pages && !self.lock
    }
}

/// Nanoseconds per look-up, one at a time and in batches that are prefetched.
///
/// One at a time, the next key depends on the value found, as bad as it can be. In a batch, 16
/// keys are hashed and prefetched, then their items, then they are looked up, as the server does.
/// Keys are uniform. The null loop makes and hashes the same keys without looking them up: what it
/// takes is in the other figures too.
#[derive(Clone, Debug, Args)]
pub struct Lookup {
    /// Items of the tables
    #[arg(long, value_name = "N,...", default_value = "1000000,20000000", value_delimiter = ',',
          value_parser = value_parser!(u64).range(1000..))]
    pub items: Vec<u64>,
    /// Threads that look up at once
    #[arg(long, value_name = "N,...", default_value = "1,2", value_delimiter = ',',
          value_parser = value_parser!(u64).range(1..=64))]
    pub threads: Vec<u64>,
    /// Slices of each kind, interleaved
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = value_parser!(u32).range(1..))]
    pub slices: u32,
    /// Length of a slice, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 500)]
    pub slice_ms: u64,
}

/// Mixed work from several threads at full memory, with every answer checked.
///
/// Sets, gets, touches, deletes, cas and values of up to 900 KB. Each value says of which key and
/// version it is and is checked to the last byte. No read may show a version older than one that
/// was stored before the read began; nothing deleted or expired may be seen; a cas that succeeded
/// must be in all later values; no write may be refused; RSS must stay within its limit.
#[derive(Clone, Debug, Args)]
pub struct Check {
    #[arg(long, value_name = "N", default_value_t = 60,
          value_parser = value_parser!(u64).range(1..))]
    pub seconds: u64,
    #[arg(long, value_name = "N", default_value_t = 2,
          value_parser = value_parser!(u32).range(1..=32))]
    pub threads: u32,
    /// Memory of the table, in megabytes
    #[arg(long, value_name = "MB", default_value_t = 256,
          value_parser = value_parser!(u64).range(8..))]
    pub memory: u64,
    /// Megabytes beyond the table's own account that RSS may grow by
    #[arg(long, value_name = "MB", default_value_t = 8)]
    pub slack: u64,
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}
