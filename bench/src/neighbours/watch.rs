//! Watches how much memory a process takes while something happens to it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::servers::pause;
use crate::store::rss;

const PAUSE: Duration = Duration::from_millis(20);

/// A thread that looks at the memory of a process until it is asked what it saw.
#[derive(Debug)]
pub struct Watch {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<u64>>,
}

impl Watch {
    pub fn over(pid: u32) -> Watch {
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let mut most = rss::glance(pid)?;
            // Relaxed: it orders nothing; a look more does no harm.
            while !seen.load(Ordering::Relaxed) {
                pause(PAUSE);
                most = most.max(rss::glance(pid)?);
            }
            Ok(most)
        });
        Watch { is_over, thread }
    }

    /// The most that it saw, in bytes.
    pub fn end(self) -> io::Result<u64> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the watch panicked")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_comes_and_goes_is_seen() {
        const TAKEN: usize = 64 << 20;
        let before = rss::glance(std::process::id()).unwrap();
        let watch = Watch::over(std::process::id());
        let bytes = vec![1u8; TAKEN];
        assert_eq!(bytes.iter().filter(|byte| **byte == 1).count(), TAKEN);
        pause(PAUSE * 5);
        drop(bytes);
        let most = watch.end().unwrap();
        // Other tests run beside this one.
        assert!(most > before + TAKEN as u64 / 2, "{before} {most}");
        assert!(Watch::over(u32::MAX).end().is_err(), "nobody has this number");
    }
}
