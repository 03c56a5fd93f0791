//! Which processors we may use, and how a thread is tied to some.

use std::io;
use std::time::Duration;

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

/// Time that the calling thread has had of processors, in microseconds.
pub fn processor_us() -> u64 {
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
        })
        .join()
        .unwrap();
    }
}
