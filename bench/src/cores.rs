//! Cores: where this program runs, and so where the programs run that it starts; how busy they are.

use std::fs;
use std::io;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Runs `start` on `core`. What it starts stays there; this thread goes back to where it was.
pub fn on<T>(core: usize, start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let this = Pid::from_raw(0);
    let before = sched_getaffinity(this)?;
    let mut only = CpuSet::new();
    only.set(core)?;
    sched_setaffinity(this, &only)
        .map_err(|e| io::Error::other(format!("cannot run on core {core}: {e}")))?;
    let started = start();
    sched_setaffinity(this, &before)?;
    started
}

/// The kernel's unit in /proc/stat, on every architecture.
const TICK_NS: u64 = 10_000_000;
/// The fields of /proc/stat that are no work: idle and iowait.
const IDLE_FIELDS: [usize; 2] = [3, 4];
/// The fields behind this one are counted in others too.
const FIELDS: usize = 8;

/// How long `core` has been busy, for whomever, time stolen by the host included.
pub fn busy_ns(core: usize) -> io::Result<u64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let busy = busy_ticks(&stat, core);
    busy.map(|ticks| ticks * TICK_NS)
        .ok_or_else(|| io::Error::other(format!("/proc/stat does not know core {core}")))
}

fn busy_ticks(stat: &str, core: usize) -> Option<u64> {
    let name = format!("cpu{core} ");
    let fields = stat.lines().find_map(|line| line.strip_prefix(&name))?;
    let fields = fields.split_ascii_whitespace().take(FIELDS).enumerate();
    let busy = fields.filter(|(index, _)| !IDLE_FIELDS.contains(index));
    busy.map(|(_, ticks)| ticks.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_is_busy_when_it_is_not_idle() {
        let stat = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu1 1 2 4 1000 1000 8 16 32 64 128\ncpu11 0 0\n";
        assert_eq!(busy_ticks(stat, 1), Some(63));
        assert_eq!(busy_ticks(stat, 2), None);
    }

    #[test]
    fn a_child_stays_on_its_core_and_the_parent_does_not() {
        let before = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let core = (0..CpuSet::count()).find(|core| before.is_set(*core).unwrap()).unwrap();
        let status = on(core, || fs::read_to_string("/proc/thread-self/status")).unwrap();
        assert!(status.contains(&format!("Cpus_allowed_list:\t{core}\n")));
        assert_eq!(sched_getaffinity(Pid::from_raw(0)).unwrap(), before);
    }
}
