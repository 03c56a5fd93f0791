//! What the process is to the system: its memory, its files, its core.

use std::path::PathBuf;

use super::host::Host;
use super::options::Options;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessPlan {
    /// Where its id stands while it runs.
    pub pid_file: Option<PathBuf>,
    /// Where the ports that were bound are named, once they are.
    pub port_file: Option<PathBuf>,
    /// Whether it leaves a core when it dies.
    pub core_dumps: bool,
    /// Whether its memory is locked into RAM as it comes into use.
    pub lock_memory: bool,
    /// Whether all memory for items is taken from the system at start.
    pub populate: bool,
}

impl ProcessPlan {
    pub(super) fn of(options: &Options, host: &Host) -> ProcessPlan {
        ProcessPlan {
            pid_file: options.pidfile.clone(),
            port_file: host.port_file.clone(),
            core_dumps: options.enable_coredumps,
            lock_memory: options.lock_memory,
            populate: options.enable_largepages,
        }
    }
}
