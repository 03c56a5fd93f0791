//! Why there is no io_uring here, and what an operator can do about it.
//!
//! The kernel says the same `EPERM` for a sysctl, a seccomp filter and a security module, and the
//! same `ENOMEM` for a limit and for real shortage. `Refusal::of` tells them apart by the facts of
//! the host; it reads nothing itself.

use std::fmt;

use super::feature::{Need, Support};
use super::host::{Host, Sysctl};

/// The size of a ring, as far as it costs locked memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingShape {
    pub submissions: u32,
    pub completions: u32,
    /// Entries of its buffer ring.
    pub buffers: u32,
}

impl RingShape {
    /// What one ring is charged against `RLIMIT_MEMLOCK` from kernel 6.14 on.
    pub fn memlock_bytes(self) -> u64 {
        const PAGE: u64 = 4096;
        const HEAD: u64 = 320;
        let [submissions, completions, buffers] =
            [self.submissions, self.completions, self.buffers].map(u64::from);
        let queues = HEAD + 16 * completions + 4 * submissions;
        [64 * submissions, queues, 16 * buffers]
            .map(|bytes| bytes.next_multiple_of(PAGE))
            .iter()
            .sum()
    }
}

/// Why the server cannot serve here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The kernel has no io_uring.
    NotBuiltIn,
    /// `kernel.io_uring_disabled` is 1: reserved for a group (-1: for no group) and administrators.
    Reserved { group: i64 },
    /// `kernel.io_uring_disabled` is 2.
    Disabled,
    /// A seccomp filter forbids it.
    Seccomp { errno: i32 },
    /// Something else forbids it: a security module, a container, or a sysctl that is hidden here.
    Forbidden { errno: i32, sysctl_hidden: bool },
    /// `RLIMIT_MEMLOCK` is too small for a ring that is charged `ring_bytes`.
    Memlock { limit_bytes: u64, ring_bytes: u64 },
    /// The kernel has no memory for a ring, and no limit of ours is in the way.
    NoMemory,
    /// Required features are missing.
    TooOld { support: Box<Support> },
    /// The errno of a set-up that failed for a reason not known here.
    Unknown { errno: i32 },
}

impl Refusal {
    /// The cause, where setting up a ring of `shape` failed with `errno` on `host`.
    pub fn of(errno: i32, host: &Host, shape: RingShape) -> Refusal {
        let filtered = host.seccomp == Some(2);
        match errno {
            // The sysctl is there only where io_uring is.
            libc::ENOSYS if filtered && matches!(host.disabled, Sysctl::Is(_)) => {
                Refusal::Seccomp { errno }
            }
            libc::ENOSYS => Refusal::NotBuiltIn,
            libc::EPERM | libc::EACCES => match (errno, host.disabled) {
                (libc::EPERM, Sysctl::Is(2)) => Refusal::Disabled,
                (libc::EPERM, Sysctl::Is(1)) => {
                    Refusal::Reserved { group: host.group.unwrap_or(-1) }
                }
                (_, Sysctl::Hidden) => Refusal::Forbidden { errno, sysctl_hidden: true },
                (_, Sysctl::Missing | Sysctl::Is(_)) if filtered => Refusal::Seccomp { errno },
                (_, Sysctl::Missing | Sysctl::Is(_)) => {
                    Refusal::Forbidden { errno, sysctl_hidden: false }
                }
            },
            libc::ENOMEM => match host.memlock_bytes {
                Some(limit_bytes) => {
                    Refusal::Memlock { limit_bytes, ring_bytes: shape.memlock_bytes() }
                }
                None => Refusal::NoMemory,
            },
            _ => Refusal::Unknown { errno },
        }
    }

    /// What an operator can do about it.
    pub fn remedy(&self) -> String {
        match self {
            Refusal::NotBuiltIn => {
                "run a kernel from 6.1 on with CONFIG_IO_URING=y, such as Debian \
                12 or Ubuntu 24.04 have;\nin a container, a seccomp profile may hide it: allow \
                io_uring_setup, io_uring_enter and io_uring_register"
                    .into()
            }
            Refusal::Reserved { .. } => "sysctl kernel.io_uring_group=GID and run ringcached in \
                that group (SupplementaryGroups= in its unit),\nor sysctl \
                kernel.io_uring_disabled=0; keep either in /etc/sysctl.d/"
                .into(),
            Refusal::Disabled => "sysctl kernel.io_uring_disabled=0, and keep it in \
                /etc/sysctl.d/ringcached.conf"
                .into(),
            Refusal::Seccomp { .. } => "allow io_uring_setup, io_uring_enter and \
                io_uring_register: docker run --security-opt seccomp=PROFILE.json,\nor \
                SystemCallFilter=@system-service in a systemd unit, which has them"
                .into(),
            Refusal::Forbidden { sysctl_hidden: true, .. } => "look at `sysctl \
                kernel.io_uring_disabled` outside of this unit or container: it must be \
                0;\nthen at its seccomp profile, and at SELinux or AppArmor in the audit log"
                .into(),
            Refusal::Forbidden { .. } => "look for a denial of io_uring in the audit log \
                (ausearch -m avc; journalctl -k): SELinux and AppArmor have rules for it"
                .into(),
            Refusal::Memlock { ring_bytes, .. } => format!(
                "LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited, or at least {} KiB a \
                 thread;\nall processes of a user share the limit, so other rings of this user \
                 count too",
                kib(*ring_bytes)
            ),
            Refusal::NoMemory => "free memory on the host, or raise the memory limit of the \
                container or unit (MemoryMax=)"
                .into(),
            Refusal::TooOld { .. } => "run a kernel from 6.1 on; 6.12 or later is better".into(),
            Refusal::Unknown { .. } => "report this, with the output of ringcached --check".into(),
        }
    }
}

fn kib(bytes: u64) -> u64 {
    bytes.div_ceil(1024)
}

impl fmt::Display for Refusal {
    /// The cause, in one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotBuiltIn => f.write_str("this kernel has no io_uring (ENOSYS)"),
            Refusal::Reserved { group: -1 } => {
                f.write_str("io_uring is for administrators only: kernel.io_uring_disabled = 1")
            }
            Refusal::Reserved { group } => write!(
                f,
                "io_uring is for members of group {group} only: kernel.io_uring_disabled = 1"
            ),
            Refusal::Disabled => {
                f.write_str("io_uring is switched off: kernel.io_uring_disabled = 2")
            }
            Refusal::Seccomp { errno } => write!(
                f,
                "a seccomp filter, of a container or a unit, forbids io_uring ({})",
                ErrnoName(*errno)
            ),
            Refusal::Forbidden { errno, sysctl_hidden: true } => write!(
                f,
                "a sysctl, a seccomp filter or a security module forbids io_uring ({})",
                ErrnoName(*errno)
            ),
            Refusal::Forbidden { errno, .. } => {
                write!(f, "a security module forbids io_uring ({})", ErrnoName(*errno))
            }
            Refusal::Memlock { limit_bytes, ring_bytes } => write!(
                f,
                "locked memory is limited to {} KiB, and a ring takes {} KiB (RLIMIT_MEMLOCK)",
                kib(*limit_bytes),
                kib(*ring_bytes)
            ),
            Refusal::NoMemory => f.write_str("the kernel has no memory for a ring (ENOMEM)"),
            Refusal::TooOld { support } => {
                let names: Vec<_> = support.missing(Need::Required).map(|row| row.name).collect();
                write!(f, "this kernel is too old: it lacks {}", names.join(", "))
            }
            Refusal::Unknown { errno } => {
                write!(f, "a ring could not be set up ({})", ErrnoName(*errno))
            }
        }
    }
}

impl std::error::Error for Refusal {}

/// An errno as the manual pages call it.
pub(super) struct ErrnoName(pub(super) i32);

impl fmt::Display for ErrnoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            libc::EPERM => "EPERM",
            libc::EACCES => "EACCES",
            libc::EBADF => "EBADF",
            libc::EINVAL => "EINVAL",
            libc::EMFILE => "EMFILE",
            libc::ENFILE => "ENFILE",
            libc::ENETUNREACH => "ENETUNREACH",
            libc::ENOBUFS => "ENOBUFS",
            libc::ENOMEM => "ENOMEM",
            libc::ENOSYS => "ENOSYS",
            libc::EOPNOTSUPP => "EOPNOTSUPP",
            libc::ETIME => "ETIME",
            errno => return write!(f, "errno {errno}"),
        };
        f.write_str(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: RingShape = RingShape { submissions: 1024, completions: 8192, buffers: 0 };

    /// errno, sysctl, seccomp, limit: cause
    #[test]
    fn causes() {
        use Sysctl::{Hidden, Is, Missing};
        use libc::{EACCES, EINVAL, ENOMEM, ENOSYS, EPERM};
        let (limit_bytes, ring_bytes) = (65536, 204_800);
        let hidden = |errno| Refusal::Forbidden { errno, sysctl_hidden: true };
        let module = |errno| Refusal::Forbidden { errno, sysctl_hidden: false };
        let table = [
            (ENOSYS, Hidden, Some(0), None, Refusal::NotBuiltIn),
            (ENOSYS, Hidden, Some(2), None, Refusal::NotBuiltIn),
            (ENOSYS, Missing, Some(2), None, Refusal::NotBuiltIn),
            (ENOSYS, Is(0), Some(2), None, Refusal::Seccomp { errno: ENOSYS }),
            (EPERM, Is(2), Some(2), None, Refusal::Disabled),
            (EPERM, Is(2), None, None, Refusal::Disabled),
            (EPERM, Is(1), Some(0), None, Refusal::Reserved { group: 991 }),
            (EPERM, Is(0), Some(2), None, Refusal::Seccomp { errno: EPERM }),
            (EPERM, Is(0), Some(0), None, module(EPERM)),
            (EPERM, Is(0), None, None, module(EPERM)),
            (EPERM, Hidden, Some(2), None, hidden(EPERM)),
            (EPERM, Hidden, Some(0), None, hidden(EPERM)),
            (EPERM, Missing, Some(2), None, Refusal::Seccomp { errno: EPERM }),
            (EPERM, Missing, Some(0), None, module(EPERM)),
            (EACCES, Is(0), Some(0), None, module(EACCES)),
            (EACCES, Is(1), Some(0), None, module(EACCES)),
            (ENOMEM, Is(0), Some(0), Some(65536), Refusal::Memlock { limit_bytes, ring_bytes }),
            (ENOMEM, Is(0), Some(0), None, Refusal::NoMemory),
            (EINVAL, Is(0), Some(0), None, Refusal::Unknown { errno: EINVAL }),
        ];
        for (errno, disabled, seccomp, memlock_bytes, cause) in table {
            let (release, group) = ("6.18.0".into(), Some(991));
            let host = Host { release, disabled, group, seccomp, memlock_bytes };
            assert_eq!(Refusal::of(errno, &host, SHAPE), cause, "{host:?}");
            assert!(!cause.remedy().is_empty());
        }
    }

    /// What 6.18 granted of rings with 1024 and 8192 entries under 8 MiB: 40.
    #[test]
    fn a_ring_is_charged_what_the_kernel_was_seen_to_charge() {
        assert_eq!((8 << 20) / SHAPE.memlock_bytes(), 40);
        let buffers = RingShape { buffers: 32768, ..SHAPE };
        assert_eq!(buffers.memlock_bytes() - SHAPE.memlock_bytes(), 512 << 10);
    }

    #[test]
    fn a_cause_is_one_line_and_a_remedy_at_most_two() {
        let host = Host {
            release: String::new(),
            disabled: Sysctl::Is(1),
            group: Some(-1),
            seccomp: None,
            memlock_bytes: Some(0),
        };
        for errno in [libc::ENOSYS, libc::EPERM, libc::EACCES, libc::ENOMEM, libc::EIO] {
            let refusal = Refusal::of(errno, &host, SHAPE);
            assert_eq!(refusal.to_string().lines().count(), 1);
            assert!(refusal.remedy().lines().count() <= 2);
            assert!(refusal.remedy().lines().all(|line| line.len() <= 120), "{refusal}");
        }
    }
}
