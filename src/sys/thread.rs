//! Which processors we may use, and how a thread is tied to some.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nix::sched::sched_getcpu;
use nix::time::{ClockId, clock_gettime};

fn no_processors() -> libc::cpu_set_t {
    // SAFETY: a `cpu_set_t` is a plain bit set, for which all zeros is the empty set.
    unsafe { std::mem::zeroed() }
}

/// The processors that this process is allowed to run on, in ascending order.
///
/// # Errors
/// What `sched_getaffinity(2)` says.
pub fn allowed_processors() -> io::Result<Vec<usize>> {
    let mut set = no_processors();
    // SAFETY: `set` is writable and as large as said.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let is_allowed = |processor: &usize| {
        // SAFETY: the index is below the size of the set.
        unsafe { libc::CPU_ISSET(*processor, &set) }
    };
    Ok((0..size_of::<libc::cpu_set_t>() * 8).filter(is_allowed).collect())
}

/// Ties the calling thread to some processors.
///
/// # Errors
/// What `sched_setaffinity(2)` says: a sandbox may forbid it, and the server runs without.
pub fn pin(processors: &[usize]) -> io::Result<()> {
    let mut set = no_processors();
    for processor in processors {
        if *processor >= size_of::<libc::cpu_set_t>() * 8 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: the index is below the size of the set.
        unsafe { libc::CPU_SET(*processor, &mut set) };
    }
    // SAFETY: `set` is readable and as large as said.
    let result =
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How a thread has fared with processors so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fare {
    /// Time on a processor.
    pub busy_us: u64,
    /// Time in which it could have run and others did; 0 where the kernel does not say.
    pub waited_us: u64,
    /// The processor that it is on.
    pub processor: usize,
}

/// Tells how the thread that made it has fared.
#[derive(Debug)]
pub struct Meter(Option<File>);

impl Meter {
    pub fn of_this_thread() -> Meter {
        Meter(File::open("/proc/thread-self/schedstat").ok())
    }

    /// One system call, or two where the kernel does not say all.
    pub fn read(&self) -> Fare {
        let mut text = [0; 64];
        let read = self.0.as_ref().and_then(|file| file.read_at(&mut text, 0).ok());
        let (busy_us, waited_us) =
            read.and_then(|bytes| times_us(&text[..bytes])).unwrap_or_else(|| (processor_us(), 0));
        Fare { busy_us, waited_us, processor: sched_getcpu().unwrap_or_default() }
    }
}

/// The first two numbers of a schedstat file: nanoseconds on a processor, and of waiting for one.
fn times_us(text: &[u8]) -> Option<(u64, u64)> {
    let mut words = std::str::from_utf8(text).ok()?.split_whitespace();
    let mut next_us = || Some(words.next()?.parse::<u64>().ok()? / 1000);
    Some((next_us()?, next_us()?))
}

fn processor_us() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
    // Every kernel has this clock; 0 shows that one has not.
    u64::try_from(time.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_can_be_tied_to_what_is_allowed() {
        std::thread::spawn(|| {
            let allowed = allowed_processors().unwrap();
            let last = *allowed.last().unwrap();
            pin(&[last]).unwrap();
            assert_eq!(allowed_processors().unwrap(), [last]);
            assert_eq!(Meter::of_this_thread().read().processor, last);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_thread_knows_how_it_has_fared() {
        let work = || (0..20_000_000u64).fold(0, |sum, each| std::hint::black_box(sum ^ each));
        let meter = Meter::of_this_thread();
        let before = meter.read();
        work();
        let after = meter.read();
        assert!(after.busy_us > before.busy_us && after.waited_us >= before.waited_us);
        assert!(Meter(None).read().busy_us >= before.busy_us, "by the clock");
        assert_eq!(Meter(None).read().waited_us, 0);
    }

    #[test]
    fn what_the_kernel_says_is_read() {
        assert_eq!(times_us(b"2000999 3000 17\n"), Some((2000, 3)));
        assert_eq!(times_us(b"2000999"), None);
        assert_eq!(times_us(b""), None);
    }
}
