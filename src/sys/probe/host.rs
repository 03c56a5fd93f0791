//! What the host says about itself: the facts that tell one cause of a refusal from another.
//!
//! A fact that cannot be read (units hide `/proc/sys` with `ProcSubset=pid`) is `None`, or `Hidden`
//! where it makes a difference that a kernel before 6.6 does not have it.

use std::ffi::CStr;
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::path::Path;

/// `CAP_IPC_LOCK`: whoever has it may lock any amount of memory.
const CAP_IPC_LOCK: u32 = 14;

/// What is known of a sysctl.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sysctl {
    /// It may be there, but it cannot be seen.
    Hidden,
    /// The kernel does not have it.
    Missing,
    Is(i64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The kernel's release, as `uname -r` prints it.
    pub release: String,
    /// `kernel.io_uring_disabled`: 0 nobody is, 1 all but a group are, 2 everybody is.
    pub disabled: Sysctl,
    /// `kernel.io_uring_group`; -1 is no group.
    pub group: Option<i64>,
    /// Seccomp mode of this thread; 2 is a filter.
    pub seccomp: Option<i64>,
    /// `RLIMIT_MEMLOCK` in bytes, where one applies to us.
    pub memlock_bytes: Option<u64>,
}

impl Host {
    pub fn read() -> Host {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let unlimited = capable(&status, CAP_IPC_LOCK);
        Host {
            release: release(),
            disabled: sysctl("/proc/sys/kernel/io_uring_disabled"),
            group: number("/proc/sys/kernel/io_uring_group").ok().flatten(),
            seccomp: field(&status, "Seccomp").and_then(|mode| mode.parse().ok()),
            memlock_bytes: memlock_bytes().filter(|_| !unlimited),
        }
    }
}

fn number(path: &str) -> std::io::Result<Option<i64>> {
    Ok(std::fs::read_to_string(path)?.trim().parse().ok())
}

fn sysctl(path: &str) -> Sysctl {
    let others_are_seen = Path::new("/proc/sys/kernel/osrelease").exists();
    match number(path) {
        Ok(Some(number)) => Sysctl::Is(number),
        Err(error) if error.kind() == ErrorKind::NotFound && others_are_seen => Sysctl::Missing,
        Ok(None) | Err(_) => Sysctl::Hidden,
    }
}

/// The value of one line `name:<tab>value` of a status file.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    status.lines().find_map(value).map(str::trim)
}

fn capable(status: &str, capability: u32) -> bool {
    let set = field(status, "CapEff").and_then(|set| u64::from_str_radix(set, 16).ok());
    set.is_some_and(|set| set & (1 << capability) != 0)
}

fn memlock_bytes() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is ours to write.
    let read = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } == 0;
    (read && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

fn release() -> String {
    let mut name = MaybeUninit::<libc::utsname>::zeroed();
    // SAFETY: `name` is ours to write.
    let read = unsafe { libc::uname(name.as_mut_ptr()) } == 0;
    // SAFETY: zeroes are a valid `utsname`, and the kernel writes only valid ones.
    let name = unsafe { name.assume_init() };
    // SAFETY: the kernel ends the string with a zero, and so do the zeroes it had.
    let release = unsafe { CStr::from_ptr(name.release.as_ptr()) };
    if read { release.to_string_lossy().into_owned() } else { "unknown".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tx\nCapEff:\t0000000000004000\nSeccomp:\t2\nSeccomp_filters:\t39\n";

    #[test]
    fn fields_are_found_by_their_whole_name() {
        assert_eq!(field(STATUS, "Seccomp"), Some("2"));
        assert_eq!(field(STATUS, "Seccomp_filters"), Some("39"));
        assert_eq!(field(STATUS, "Sec"), None);
    }

    #[test]
    fn a_capability_is_one_bit_of_a_hexadecimal_set() {
        assert!(capable(STATUS, CAP_IPC_LOCK));
        assert!(!capable(STATUS, CAP_IPC_LOCK - 1));
        assert!(!capable("", CAP_IPC_LOCK));
    }

    #[test]
    fn a_sysctl_is_there_or_missing_or_hidden() {
        // Where tests run, other sysctls can be seen.
        let pid_max = sysctl("/proc/sys/kernel/pid_max");
        assert!(matches!(pid_max, Sysctl::Is(number) if number > 0), "{pid_max:?}");
        assert_eq!(sysctl("/proc/sys/kernel/io_uring_never"), Sysctl::Missing);
        assert_eq!(sysctl("/proc/sys/kernel"), Sysctl::Hidden);
    }

    #[test]
    fn this_host_has_a_release() {
        assert!(Host::read().release.starts_with(|first: char| first.is_ascii_digit()));
    }
}
