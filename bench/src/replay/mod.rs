//! Miss ratios: the same requests to our store, to simulated policies and to memcached.
//!
//! ```text
//!   source    a name or a file -> requests        generate, chance: requests made here
//!   request   requests, a trace of them, their file
//!   drive     a trace -> the store, in this process, in virtual time
//!   judges    a trace -> libcachesim, beside       rival: a trace -> memcached, over a socket
//!   report    what they found -> tables
//! ```

mod chance;
mod drive;
mod generate;
mod judges;
mod options;
mod report;
mod request;
mod rival;
mod source;

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use ringcached::base::clock::Stopwatch;

pub use self::options::Replay;

use self::drive::{Findings, Plan};
use self::judges::{Judge, Judging, Verdict};
use self::request::Trace;
use self::rival::Score;
use self::source::Source;
use crate::compare::{Scratch, progress};

/// All about one trace in one size of cache.
#[derive(Debug)]
pub struct Row {
    pub trace: String,
    pub memory_bytes: u64,
    pub ours: Findings,
    pub verdicts: Vec<Verdict>,
    /// By label.
    pub rivals: Vec<(String, Score)>,
    pub ttl: bool,
    /// Whether the trace changes on the way, so that it is shown by windows.
    pub by_window: bool,
}

/// Runs all that was asked for. Returns tables.
pub fn run(options: &Replay) -> io::Result<String> {
    let watch = Stopwatch::start();
    let limit = Duration::from_secs(options.time_limit);
    let scratch = Scratch::new()?;
    let folder = options.keep.as_deref().unwrap_or(&scratch.0);
    fs::create_dir_all(folder)?;
    let mut rows = Vec::new();
    let mut left_out = Vec::new();
    for source in sources(options)? {
        if watch.elapsed() > limit {
            progress(&format!("{}: left out for lack of time", source.label()));
            left_out.push(source.label());
            continue;
        }
        rows.extend(rows_of(options, &source, folder)?);
        progress(&format!("{} s so far", watch.elapsed().as_secs()));
    }
    Ok(report::markdown(&rows, &left_out))
}

fn sources(options: &Replay) -> io::Result<Vec<Source>> {
    if !options.all {
        return Ok(options.traces.clone());
    }
    let mut words: Vec<String> = options::GENERATED.map(str::to_owned).into();
    if let Some(folder) = &options.folder {
        let known = source::known_in(folder)?;
        words.extend(known.iter().map(|path| path.display().to_string()));
    }
    words.iter().map(|word| word.parse().map_err(io::Error::other)).collect()
}

/// One trace in all its sizes.
fn rows_of(options: &Replay, source: &Source, folder: &Path) -> io::Result<Vec<Row>> {
    let trace = Trace::new(source.requests()?);
    let footprint_bytes = trace.footprint_bytes();
    progress(&format!(
        "{}: {} requests, {} objects, {:.1} MiB",
        source.label(),
        trace.requests.len(),
        trace.objects(),
        mib(footprint_bytes)
    ));
    let sizes: Vec<u64> = source.sizes.iter().map(|size| size.bytes(footprint_bytes)).collect();
    let judging = match &options.judge {
        // They know no TTLs.
        Some(python) if !source.ttl => Some(Judge { python, folder }.begin(&trace, &sizes)?),
        _ => None,
    };
    let mut rows = Vec::new();
    for memory_bytes in sizes {
        rows.push(row(options, source, &trace, memory_bytes)?);
    }
    let verdicts = judging.map(Judging::finish).transpose()?.unwrap_or_default();
    for row in &mut rows {
        let of_row = verdicts.iter().filter(|verdict| verdict.bytes == row.memory_bytes);
        row.verdicts = of_row.cloned().collect();
    }
    Ok(rows)
}

fn row(options: &Replay, source: &Source, trace: &Trace, memory_bytes: u64) -> io::Result<Row> {
    let ours = drive::run(Plan {
        trace,
        memory_bytes,
        threads: usize::from(options.threads),
        ttl: source.ttl,
        window: usize::try_from(options.window).unwrap_or(usize::MAX),
    })?;
    progress(&format!(
        "  {:.1} MiB: {:.4} of objects, {:.4} of bytes missed, {:.0} ns a request",
        mib(memory_bytes),
        ours.total.miss_ratio(),
        ours.total.byte_miss_ratio(),
        ours.total.ns_per_request()
    ));
    let mut rivals = Vec::new();
    for program in &options.memcached {
        if source.ttl || memory_bytes < rival::MEMORY_BYTES_MIN {
            continue;
        }
        let (label, score) = rival::run(program, trace, memory_bytes, options.server_core)?;
        progress(&format!(
            "  {label}: {:.4} of objects missed, {} evictions",
            score.tally.miss_ratio(),
            score.evictions
        ));
        rivals.push((label, score));
    }
    Ok(Row {
        trace: source.label(),
        memory_bytes,
        ours,
        verdicts: Vec::new(),
        rivals,
        ttl: source.ttl,
        by_window: source.name == "shift",
    })
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}
