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
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringcached::base::clock::Stopwatch;

pub use self::options::Replay;

use self::drive::{Findings, Plan};
use self::judges::{Judge, Judging, Verdict};
use self::request::Trace;
use self::rival::Score;
use self::source::Source;
use crate::compare::{Scratch, progress};
use crate::servers::pause;

/// So many traces are judged at once.
const JUDGES: usize = 2;
const JUDGE_PAUSE: Duration = Duration::from_millis(200);

/// All about one trace in one size of cache.
#[derive(Debug)]
pub struct Row {
    pub trace: String,
    pub memory_bytes: u64,
    pub ours: Findings,
    pub verdicts: Vec<Verdict>,
    pub verdicts_wanted: usize,
    /// By label.
    pub rivals: Vec<(String, Score)>,
    pub ttl: bool,
    /// Whether the trace changes on the way, so that it is shown by windows.
    pub by_window: bool,
}

/// A trace that is still being judged, and its rows.
struct Pending {
    judging: Judging,
    rows: Range<usize>,
}

/// What is being done, and until when.
struct Run<'a> {
    options: &'a Replay,
    folder: &'a Path,
    watch: Stopwatch,
    stop: Arc<AtomicBool>,
    rows: Vec<Row>,
    pending: Vec<Pending>,
}

/// Runs all that was asked for. Returns tables.
pub fn run(options: &Replay) -> io::Result<String> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let scratch = Scratch::new()?;
    let folder = options.keep.as_deref().unwrap_or(&scratch.0);
    fs::create_dir_all(folder)?;
    let watch = Stopwatch::start();
    let mut run = Run { options, folder, watch, stop, rows: Vec::new(), pending: Vec::new() };
    let mut left_out = Vec::new();
    for source in sources(options)? {
        if run.is_late() {
            left_out.push(source.label());
            continue;
        }
        run.replay(&source)?;
        progress(&format!("{} s so far", watch.elapsed().as_secs()));
    }
    run.judged(0)?;
    for row in run.rows.iter().filter(|row| row.verdicts.len() < row.verdicts_wanted) {
        left_out.push(format!("some policies, {}, {:.1} MiB", row.trace, mib(row.memory_bytes)));
    }
    left_out.iter().for_each(|what| progress(&format!("left out for lack of time: {what}")));
    Ok(report::markdown(&run.rows, &left_out))
}

impl Run<'_> {
    fn is_late(&self) -> bool {
        self.watch.elapsed() > Duration::from_secs(self.options.time_limit)
    }

    fn check(&self) -> io::Result<()> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted")),
            false => Ok(()),
        }
    }

    /// Replays one trace in all its sizes, and begins to judge it.
    fn replay(&mut self, source: &Source) -> io::Result<()> {
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
        let first = self.rows.len();
        // The policies know no TTLs.
        let python = self.options.judge.as_deref().filter(|_| !source.ttl);
        let judging = python.map(|python| {
            self.judged(JUDGES - 1)?;
            Judge { python, folder: self.folder }.begin(&trace, &sizes)
        });
        let judging = judging.transpose()?;
        for memory_bytes in &sizes {
            self.check()?;
            let mut row = row(self.options, source, &trace, *memory_bytes)?;
            row.verdicts_wanted = if judging.is_some() { judges::POLICIES.len() } else { 0 };
            self.rows.push(row);
        }
        let rows = first..self.rows.len();
        self.pending.extend(judging.map(|judging| Pending { judging, rows }));
        Ok(())
    }

    /// Waits until at most so many traces are being judged, or until it is late.
    fn judged(&mut self, running_max: usize) -> io::Result<()> {
        loop {
            let is_late = self.is_late();
            for mut pending in std::mem::take(&mut self.pending) {
                if !is_late && pending.judging.is_running()? {
                    self.pending.push(pending);
                    continue;
                }
                let verdicts = pending.judging.finish()?;
                for row in &mut self.rows[pending.rows] {
                    let of_row = verdicts.iter().filter(|v| v.bytes == row.memory_bytes);
                    row.verdicts = of_row.cloned().collect();
                }
            }
            if self.pending.len() <= running_max {
                return Ok(());
            }
            self.check()?;
            pause(JUDGE_PAUSE);
        }
    }
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
    words.push(options::LONGEST.to_owned());
    words.iter().map(|word| word.parse().map_err(io::Error::other)).collect()
}

fn row(options: &Replay, source: &Source, trace: &Trace, memory_bytes: u64) -> io::Result<Row> {
    let ours = drive::run(Plan {
        trace,
        memory_bytes,
        threads: usize::from(options.threads),
        ttl: source.ttl,
        favor: options.favor.favor(),
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
            "  {label}: {:.4} of objects missed, {} evictions, {} items (ours {})",
            score.tally.miss_ratio(),
            score.evictions,
            score.items,
            ours.items
        ));
        rivals.push((label, score));
    }
    Ok(Row {
        trace: source.label(),
        memory_bytes,
        ours,
        verdicts: Vec::new(),
        verdicts_wanted: 0,
        rivals,
        ttl: source.ttl,
        by_window: source.name == "shift",
    })
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::{Command, Options};

    fn replay(words: &[&str]) -> Replay {
        let words = ["ringcached-bench", "replay"].iter().chain(words);
        let Command::Replay(replay) = Options::parse_from(words).command else {
            unreachable!("replay was asked for");
        };
        *replay
    }

    #[test]
    fn all_is_what_is_generated_and_the_public_traces_that_are_there() {
        let folder = std::env::temp_dir().join(format!("replay-test-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for name in ["cloud_physics_w106.trace", "adapt_size.trace.xz", "other.trace", "w106.txt"] {
            fs::write(folder.join(name), "").unwrap();
        }
        let found = sources(&replay(&["--all", "--folder", &folder.display().to_string()]));
        fs::remove_dir_all(&folder).unwrap();
        let labels: Vec<String> = found.unwrap().iter().map(Source::label).collect();
        assert_eq!(labels[0], "twitterlike");
        let public = &labels[options::GENERATED.len()..];
        assert_eq!(public, ["adapt_size x24", "cloud_physics_w106 x4", "twitterlike x8"]);
        let some = sources(&replay(&["zipf:1@5%", "hot"])).unwrap();
        assert_eq!(some.len(), 2);
    }

    #[test]
    fn a_trace_that_is_not_there_is_named() {
        let error = run(&replay(&["/nowhere/at/all.bin"])).unwrap_err().to_string();
        assert!(error.contains("/nowhere/at/all.bin") && error.contains("zipf:ALPHA"), "{error}");
    }
}
