//! Processor time: of this thread, and of a server by its process number.
//!
//! /proc/PID/task/*/schedstat counts run time in nanoseconds, but does not divide it into user and
//! system time; /proc/PID/stat divides, in ticks. So the ticks give the proportion of the
//! schedstat total.

use std::fs;
use std::io;
use std::ops::Add;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// Processor time used up to some moment, or between two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// All of it, in nanoseconds.
    pub total_ns: u64,
    /// Ready to run, while something else had the core, in nanoseconds.
    pub waited_ns: u64,
    /// User and system time, in units of their own: only their proportion counts.
    pub user: u64,
    pub system: u64,
}

impl CpuTime {
    /// What was used since `earlier`.
    pub fn since(self, earlier: CpuTime) -> CpuTime {
        CpuTime {
            total_ns: self.total_ns.saturating_sub(earlier.total_ns),
            waited_ns: self.waited_ns.saturating_sub(earlier.waited_ns),
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }

    /// The part spent in user space, from 0 to 1; all of it when nothing is known.
    pub fn user_share(self) -> f64 {
        match self.user + self.system {
            0 => 1.0,
            both => self.user as f64 / both as f64,
        }
    }
}

impl Add for CpuTime {
    type Output = CpuTime;

    fn add(self, other: CpuTime) -> CpuTime {
        CpuTime {
            total_ns: self.total_ns + other.total_ns,
            waited_ns: self.waited_ns + other.waited_ns,
            user: self.user + other.user,
            system: self.system + other.system,
        }
    }
}

/// What this thread has used so far.
pub fn of_thread() -> io::Result<CpuTime> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    let us = |time: nix::sys::time::TimeVal| u64::try_from(time.num_microseconds()).unwrap_or(0);
    let (user, system) = (us(usage.user_time()), us(usage.system_time()));
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let (total_ns, waited_ns) = run_and_wait(&text).ok_or_else(|| strange("schedstat", &text))?;
    Ok(CpuTime { total_ns, waited_ns, user, system })
}

/// What all threads of a process have used so far, as far as they are still alive.
pub fn of_process(pid: u32) -> io::Result<CpuTime> {
    let (mut total_ns, mut waited_ns) = (0, 0);
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the listing and the reading.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let (run, wait) = run_and_wait(&text).ok_or_else(|| strange("schedstat", &text))?;
        total_ns += run;
        waited_ns += wait;
    }
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (user, system) = ticks(&text).ok_or_else(|| strange("stat", &text))?;
    Ok(CpuTime { total_ns, waited_ns, user, system })
}

fn strange(file: &str, text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("cannot read this {file}: {text:?}"))
}

/// The first two fields: nanoseconds on a core, and ready but not on a core.
fn run_and_wait(schedstat: &str) -> Option<(u64, u64)> {
    let mut fields = schedstat.split_ascii_whitespace();
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// utime and stime, fields 14 and 15. The second field is a name in parentheses that may hold
/// anything, so counting starts behind the last of them.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        assert_eq!(run_and_wait("123456 789 10\n"), Some((123_456, 789)));
        assert_eq!(run_and_wait(""), None);
        let stat = "42 (a) b) (c) S 1 42 42 0 -1 4194304 100 0 0 0 17 23 0 0 20 0 1 0 1 1 1";
        assert_eq!(ticks(stat), Some((17, 23)));
        assert_eq!(ticks("42 (a) S 1"), None);
    }

    #[test]
    fn work_shows() {
        let (thread, process) = (of_thread().unwrap(), of_process(std::process::id()).unwrap());
        let mut sum = 0u64;
        for i in 0..30_000_000u64 {
            sum = std::hint::black_box(sum ^ i);
        }
        let thread = of_thread().unwrap().since(thread);
        let process = of_process(std::process::id()).unwrap().since(process);
        assert!(thread.total_ns > 1_000_000, "{thread:?}");
        assert!(process.total_ns > 1_000_000, "{process:?}");
        assert!((0.0..=1.0).contains(&thread.user_share()));
    }
}
