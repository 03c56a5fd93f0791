//! The probe on the kernel at hand, also in children that a filter or a limit keeps from io_uring.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::host::Sysctl;
use super::*;

/// `None`, and a word about it, where the host has no io_uring to take away from a child.
fn run_or_skip() -> Option<Support> {
    run().map_err(|refusal| eprintln!("skipped: {refusal}")).ok()
}

/// (major, minor) of the kernel at hand.
fn version() -> (u32, u32) {
    let release = Host::read().release;
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
fn every_feature_is_tried_and_the_kernel_has_what_its_version_promises() {
    let Some(support) = run_or_skip() else { return };
    print!("{}", render(&Ok(support.clone())));
    let version = version();
    for row in FEATURES {
        let answer = support.answer(row.feature);
        assert_ne!(answer, Answer::Untried, "{}", row.name);
        let mut since = row.since.split('.').map(|number| number.parse::<u32>().unwrap());
        let promised = version >= (since.next().unwrap(), since.next().unwrap());
        // What depends on how the kernel was built, or on interfaces and limits, may be missing.
        let unsure = [Feature::CollapseMemfd, Feature::SendZeroCopy];
        let sure = promised && !unsure.contains(&row.feature);
        assert!(!sure || answer.is_yes(), "{}: {answer:?}", row.name);
    }
}

#[test]
fn nothing_is_left_open() {
    let descriptors = || std::fs::read_dir("/proc/thread-self/fd").unwrap().count();
    // A process of its own, because other tests open descriptors too.
    if std::env::var_os("RINGCACHED_PROBE_CHILD").is_none() {
        let name = "sys::probe::tests::nothing_is_left_open";
        let child = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact"])
            .env("RINGCACHED_PROBE_CHILD", "1")
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
        return;
    }
    let before = descriptors();
    for _ in 0..20 {
        let _ = run();
    }
    assert_eq!(descriptors(), before);
}

/// What a child, restrained by `restrain` before it starts, prints of its probe.
fn report_of_child(restrain: fn() -> io::Result<()>) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["sys::probe::tests::child", "--exact", "--ignored", "--nocapture"]);
    // SAFETY: `restrain` makes system calls only: it takes no lock and allocates nothing.
    unsafe { command.pre_exec(restrain) };
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    text
}

#[test]
#[ignore = "a part of other tests, which start it in a process of its own"]
fn child() {
    println!("{}", render(&run()));
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Answers `io_uring_setup` with `EPERM`, as the default profiles of containers do.
fn filter_io_uring() -> io::Result<()> {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS; offset 0 is the number of the call
    const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const IO_URING_SETUP: u32 = 425;
    let step = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
    let mut steps = [
        step(LOAD, 0, 0),
        step(JUMP_IF_EQUAL, 1, IO_URING_SETUP),
        step(RETURN, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned()),
        step(RETURN, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: steps.as_mut_ptr() };
    // SAFETY: no pointer is passed.
    checked(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: `program` names four steps, which the kernel copies.
    checked(unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) })
}

#[test]
fn a_seccomp_filter_is_named() {
    if run_or_skip().is_none() {
        return;
    }
    let report = report_of_child(filter_io_uring);
    // Where nothing is said of the sysctl, it may be the cause as well.
    let (cause, remedy) = match Host::read().disabled {
        Sysctl::Hidden => ("a sysctl, a seccomp filter or a security module", "io_uring_disabled"),
        Sysctl::Missing | Sysctl::Is(_) => {
            ("a seccomp filter, of a container or a unit,", "io_uring_setup")
        }
    };
    let cause = format!("will not serve: {cause} forbids io_uring");
    assert!(report.contains(&cause), "{report}");
    assert!(report.contains(remedy), "{report}");
}

/// No locked memory at all, and no privilege to lock some nevertheless.
fn forbid_locked_memory() -> io::Result<()> {
    const NOBODY: u32 = 65534;
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `none` is read only.
    checked(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const none) })?;
    // SAFETY: no pointer is passed.
    if unsafe { libc::geteuid() } == 0 {
        // SAFETY: no pointer is passed.
        checked(unsafe { libc::setgid(NOBODY) })?;
        // SAFETY: no pointer is passed.
        checked(unsafe { libc::setuid(NOBODY) })?;
    }
    Ok(())
}

#[test]
fn a_limit_of_locked_memory_is_named_where_rings_are_charged() {
    if run_or_skip().is_none() {
        return;
    }
    let report = report_of_child(forbid_locked_memory);
    if version() >= (6, 14) {
        let cause = "will not serve: locked memory is limited to 0 KiB, and a ring takes 216 KiB";
        assert!(report.contains(cause), "{report}");
        assert!(report.contains("\nLimitMEMLOCK=infinity in the unit"), "{report}");
    } else {
        assert!(report.contains("ringcached will serve here"), "{report}");
    }
}
