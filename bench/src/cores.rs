//! Cores: where this program runs, and so where the programs run that it starts.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_stays_on_its_core_and_the_parent_does_not() {
        let before = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let core = (0..CpuSet::count()).find(|core| before.is_set(*core).unwrap()).unwrap();
        let status = on(core, || std::fs::read_to_string("/proc/thread-self/status")).unwrap();
        assert!(status.contains(&format!("Cpus_allowed_list:\t{core}\n")));
        assert_eq!(sched_getaffinity(Pid::from_raw(0)).unwrap(), before);
    }
}
