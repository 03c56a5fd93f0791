//! How much memory a process holds.

use std::fs;
use std::io;
use std::time::Duration;

use crate::servers::pause;

/// Memory that changes by less in a pause has settled.
const SETTLED_BYTES: u64 = 128 << 10;
const SETTLE_PAUSE: Duration = Duration::from_millis(500);
/// So many pauses in a row without a change; the index of memcached grows in the background.
const SETTLED_PAUSES: u32 = 3;
const SETTLE_PAUSES_MAX: u32 = 60;

/// RSS in bytes, shared memory and files included. That of smaps_rollup is exact; where it may not
/// be read, that of status must do.
pub fn of(pid: u32) -> io::Result<u64> {
    let read = |name: &str, label: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{name}"))?;
        kib(&text, label).ok_or_else(|| io::Error::other(format!("no {label} in {name}")))
    };
    Ok(read("smaps_rollup", "Rss:").or_else(|_| read("status", "VmRSS:"))? << 10)
}

/// RSS in bytes, to a few pages of each thread; costs the process nothing, so that it may be asked
/// often.
pub fn glance(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = kib(&text, "VmRSS:").ok_or_else(|| io::Error::other("no VmRSS in status"))?;
    Ok(kib << 10)
}

fn kib(text: &str, label: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// RSS once it no longer changes.
pub fn settled(pid: u32) -> io::Result<u64> {
    let (mut last, mut calm) = (of(pid)?, 0);
    for _ in 0..SETTLE_PAUSES_MAX {
        pause(SETTLE_PAUSE);
        let now = of(pid)?;
        calm = if now.abs_diff(last) < SETTLED_BYTES { calm + 1 } else { 0 };
        last = now;
        if calm == SETTLED_PAUSES {
            break;
        }
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_label_decides() {
        let text = "5581 ---p [rollup]\nRss:    1640 kB\nPss:     317 kB\nPss_Shmem: 5 kB\n";
        assert_eq!(kib(text, "Rss:"), Some(1640));
        assert_eq!(kib(text, "Swap:"), None);
    }

    /// Of a process of its own: the other tests of this one give memory back meanwhile.
    #[test]
    fn memory_that_is_taken_is_seen() {
        const TAKEN: usize = 64 << 20;
        // It keeps the last lines that it is told, of which this is one without an end.
        let mut command = Command::new("tail");
        let mut tail = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let before = of(tail.id()).unwrap();
        let mut input = tail.stdin.take().unwrap();
        input.write_all(&vec![1; TAKEN]).unwrap();
        let (after, glance) = (of(tail.id()).unwrap(), glance(tail.id()).unwrap());
        drop(input);
        assert!(tail.wait().unwrap().success());
        let least = before + TAKEN as u64 / 2;
        assert!(after > least && glance > least, "{before} {after} {glance}");
    }
}
