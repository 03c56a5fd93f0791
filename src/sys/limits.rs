//! What the system grants this process: descriptors and locked memory.

use std::fmt;
use std::io;
use std::time::Duration;

use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{RLIM_INFINITY, Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::{TimeVal, TimeValLike};

/// A limit that is too low and could not be raised.
#[derive(Debug)]
pub struct Shortage {
    pub needed: u64,
    /// The most this process could take for itself.
    pub hard: u64,
    pub cause: io::Error,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shortage { needed, hard, cause } = self;
        write!(f, "{needed} descriptors are needed, {hard} are allowed ({cause})")
    }
}

impl std::error::Error for Shortage {}

/// Makes RLIMIT_NOFILE at least `needed`, beyond the hard limit too if this process may.
pub fn raise_descriptors(needed: u64) -> Result<(), Shortage> {
    let resource = Resource::RLIMIT_NOFILE;
    let refused = |hard| move |errno: nix::Error| Shortage { needed, hard, cause: errno.into() };
    let (soft, hard) = getrlimit(resource).map_err(refused(0))?;
    if soft >= needed {
        return Ok(());
    }
    setrlimit(resource, needed, hard.max(needed)).map_err(refused(hard))
}

/// Raises RLIMIT_MEMLOCK as far as this process may: rings are charged to it from Linux 6.14 on.
///
/// Nothing is said where it cannot be raised: it may be enough, and a ring that fails says why.
pub fn raise_locked_memory() {
    let resource = Resource::RLIMIT_MEMLOCK;
    if setrlimit(resource, RLIM_INFINITY, RLIM_INFINITY).is_ok() {
        return;
    }
    if let Ok((_, hard)) = getrlimit(resource) {
        let _ = setrlimit(resource, hard, hard);
    }
}

/// Raises RLIMIT_CORE as far as this process may; false when no core would be left all the same.
pub fn raise_core() -> io::Result<bool> {
    let resource = Resource::RLIMIT_CORE;
    if setrlimit(resource, RLIM_INFINITY, RLIM_INFINITY).is_err() {
        let (_, hard) = getrlimit(resource)?;
        let _ = setrlimit(resource, hard, hard);
    }
    Ok(getrlimit(resource)?.0 > 0)
}

/// What the host could give to a process now without swapping; `None` where it does not say.
pub fn available_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// How much memory this process may lock: all of it where it is root.
pub fn lockable_bytes() -> io::Result<u64> {
    if super::user::is_root() {
        return Ok(u64::MAX);
    }
    Ok(getrlimit(Resource::RLIMIT_MEMLOCK)?.0)
}

/// Keeps all memory of the process, present and future, in RAM from its first use on.
///
/// Unlike memcached's, the lock falls on pages as they are touched (`MCL_ONFAULT`): the arena is a
/// reservation of address space, and locking it whole would take all of `-m` at start.
pub fn lock_memory() -> io::Result<()> {
    let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault)?;
    Ok(())
}

/// What all threads of this process have used of the processors: in user mode, in the kernel.
pub fn processor_time() -> (Duration, Duration) {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("getrusage(2) of oneself");
    let duration = |time: TimeVal| {
        let micros = u64::try_from(time.num_microseconds()).unwrap_or(0);
        Duration::from_micros(micros)
    };
    (duration(usage.user_time()), duration(usage.system_time()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors() {
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        raise_descriptors(soft).unwrap();
        let shortage = raise_descriptors(u64::MAX - 1).unwrap_err();
        assert_eq!(shortage.needed, u64::MAX - 1);
        assert!(shortage.to_string().contains("are allowed"), "{shortage}");
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap().0, soft);
    }

    #[test]
    fn a_host_says_what_it_has() {
        assert!(available_bytes().unwrap() > 1 << 20);
    }

    #[test]
    fn locked_memory_reaches_its_hard_limit() {
        raise_locked_memory();
        let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap();
        assert_eq!(soft, hard);
    }

    /// Locks memory for the test below, in a process of its own.
    #[test]
    #[ignore = "only a part: run by the test below"]
    fn with_locked_memory() {
        raise_locked_memory();
        lock_memory().unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmLck:")).unwrap();
        let locked_kib = line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
        assert!(locked_kib > 0, "{line}");
    }

    #[test]
    fn memory_is_locked() {
        if getrlimit(Resource::RLIMIT_MEMLOCK).unwrap().1 != RLIM_INFINITY {
            return eprintln!("skipped: this user may not lock all its memory");
        }
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sys::limits::tests::with_locked_memory", "--ignored"])
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && output.contains("1 passed"), "{output}");
    }
}
