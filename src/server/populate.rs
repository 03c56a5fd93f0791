//! All memory for items from the system at start (`-L`), so that nobody waits for it later.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::base::clock::Stopwatch;
use crate::store::Table;
use crate::sys::limits;

/// More threads would wait for each other in the kernel.
const THREADS_MAX: usize = 8;

/// Takes the memory, by several threads, and says how much it was; the error says why not all.
/// `allowed` is what the control group lets the process have.
pub(super) fn populate(
    table: &Table,
    threads: usize,
    allowed: Option<u64>,
) -> Result<String, String> {
    let wanted = table.figures().limit_bytes;
    let available = limits::available_bytes().unwrap_or(u64::MAX).min(allowed.unwrap_or(u64::MAX));
    if wanted > available {
        return Err(format!(
            "-L has no effect: {} MiB are more than the {} MiB that can be had now, and are taken \
             as they are used",
            wanted >> 20,
            available >> 20
        ));
    }
    let watch = Stopwatch::start();
    let next = AtomicUsize::new(0);
    let work = || {
        let (mut small, mut huge) = (0, 0);
        loop {
            // Relaxed: each number is taken once, whoever does.
            match table.populate(next.fetch_add(1, Ordering::Relaxed))? {
                None => return Ok((small, huge)),
                Some((bytes, true)) => huge += bytes,
                Some((bytes, false)) => small += bytes,
            }
        }
    };
    #[allow(clippy::needless_collect, reason = "all threads begin before one is waited for")]
    let taken = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.min(THREADS_MAX)).map(|_| scope.spawn(work)).collect();
        let joined = threads.into_iter().map(|thread| thread.join().expect("no thread panics"));
        joined.collect::<io::Result<Vec<(usize, usize)>>>()
    });
    let parts = taken.map_err(|error| format!("-L has taken only a part of -m: {error}"))?;
    table.note_populated();
    let small: usize = parts.iter().map(|(small, _)| small).sum();
    let huge: usize = parts.iter().map(|(_, huge)| huge).sum();
    Ok(format!(
        "memory: {} MiB are there already (-L), {} MiB of them in huge pages, after {} ms",
        (small + huge) >> 20,
        huge >> 20,
        watch.elapsed().as_millis()
    ))
}
