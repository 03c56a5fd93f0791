//! Which processors the threads are tied to, and how many rings there are by default.
//!
//! ```text
//!   two nodes, two cores each, two hardware threads a core (processors 0-7):
//!
//!     node 0                  node 1                 rings, in this order, take
//!     core: 0 4   core: 1 5   core: 2 6   core: 3 7  0 1 | 2 3 | 4 5 | 6 7
//! ```
//!
//! Rings take whole cores first, those of one node before those of the next, and second threads of
//! cores only when every core has a ring. A worker stays on the core of its ring: it looks at what
//! that ring has just received, and a sleeper there is woken at a tenth of the cost.
//!
//! Under a quota others run on the same processors, and the kernel shares out time, not places: a
//! thread that is tied to its place cannot go where there is time, and two servers of one host
//! would choose the same places. So where the quota is less than the processors, nobody is tied.

use clap::ValueEnum;

use crate::sys::cgroup::Limits;
use crate::sys::topology::Processor;

/// Whether threads are tied to processors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Pin {
    /// Unless a quota says that the processors are shared.
    #[default]
    Auto,
    Always,
    Never,
}

impl Pin {
    pub fn name(self) -> &'static str {
        match self {
            Pin::Auto => "auto",
            Pin::Always => "always",
            Pin::Never => "never",
        }
    }
}

/// How many rings this host is good for: one for each processor, as far as a quota pays for them.
///
/// Half a processor is none: with a ring more than the quota pays for, all of them would stand
/// still for a part of each period.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of processors is not negative, and a large one is cut off"
)]
pub fn rings_by_default(processors: &[Processor], limits: &Limits) -> u32 {
    let all = u32::try_from(processors.len()).unwrap_or(u32::MAX);
    limits.processors.map_or(all, |quota| all.min(quota as u32)).max(1)
}

/// The processors of each thread; none where a thread is not tied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    pub rings: Vec<Option<usize>>,
    pub workers: Vec<Vec<usize>>,
}

impl Placement {
    /// A place for so many rings and workers.
    pub fn of(
        processors: &[Processor],
        limits: &Limits,
        pin: Pin,
        (rings, workers): (usize, usize),
    ) -> Placement {
        let is_shared = limits.processors.is_some_and(|quota| quota < processors.len() as f64);
        let is_free = match pin {
            Pin::Auto => is_shared,
            Pin::Always => false,
            Pin::Never => true,
        };
        let order = if is_free { Vec::new() } else { order(processors) };
        let seat = |ring: usize| order.get(ring % order.len().max(1)).copied();
        let core = |worker: usize| match seat(worker % rings.max(1)) {
            Some(own) => order.iter().filter(|each| each.core == own.core).collect(),
            None => Vec::new(),
        };
        let numbers = |core: Vec<&Processor>| core.iter().map(|each| each.number).collect();
        Placement {
            rings: (0..rings).map(|ring| seat(ring).map(|each| each.number)).collect(),
            workers: (0..workers).map(|worker| numbers(core(worker))).collect(),
        }
    }

    /// The processors of the rings, for people: `0,2`; or that there are none.
    pub fn text(&self) -> String {
        let numbers: Vec<_> =
            self.rings.iter().map(|each| each.map_or("any".into(), |n| n.to_string())).collect();
        if self.rings.iter().any(Option::is_some) { numbers.join(",") } else { "any".into() }
    }
}

/// All processors, in the order in which rings take them.
fn order(processors: &[Processor]) -> Vec<Processor> {
    // How many of its core come before it.
    let sibling = |each: &Processor| {
        processors.iter().filter(|one| one.core == each.core && one.number < each.number).count()
    };
    let cores = |node: usize| {
        processors.iter().filter(|each| each.node == node && sibling(each) == 0).count()
    };
    let mut order = processors.to_vec();
    // The node with the most cores first: rings that fit there stay together.
    order
        .sort_by_key(|each| (sibling(each), usize::MAX - cores(each.node), each.node, each.number));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_LIMITS: Limits = Limits { processors: None, memory_bytes: None };

    fn quota(processors: f64) -> Limits {
        Limits { processors: Some(processors), ..NO_LIMITS }
    }

    /// Two packages with four cores each and two threads a core, numbered as the kernel does.
    fn two_sockets() -> Vec<Processor> {
        let describe = |number| {
            let package = number / 4 % 2;
            Processor { number, core: (package, number % 4), node: package }
        };
        (0..16).map(describe).collect()
    }

    fn flat(numbers: &[usize]) -> Vec<Processor> {
        let describe = |number| Processor { number, core: (usize::MAX, number), node: 0 };
        numbers.iter().copied().map(describe).collect()
    }

    fn rings(processors: &[Processor], count: usize) -> Vec<usize> {
        let placement = Placement::of(processors, &NO_LIMITS, Pin::Auto, (count, 0));
        placement.rings.into_iter().map(Option::unwrap).collect()
    }

    #[test]
    fn rings_take_cores_first_and_one_node_before_the_other() {
        let host = two_sockets();
        assert_eq!(rings(&host, 4), [0, 1, 2, 3]);
        assert_eq!(rings(&host, 6), [0, 1, 2, 3, 4, 5]);
        assert_eq!(rings(&host, 16), (0..16).collect::<Vec<_>>());
        // Siblings next to each other, as some firmware numbers them.
        let describe = |number| Processor { number, core: (0, number / 2), node: 0 };
        assert_eq!(rings(&(0..6).map(describe).collect::<Vec<_>>(), 5), [0, 2, 4, 1, 3]);
    }

    #[test]
    fn the_node_with_the_most_cores_comes_first() {
        let host: Vec<_> = two_sockets().into_iter().filter(|each| each.number > 1).collect();
        // Of node 0 cores 2 and 3 are whole; of cores 0 and 1 one thread each is left.
        assert_eq!(rings(&host, 4), [2, 3, 8, 9]);
        let host: Vec<_> = host.into_iter().filter(|each| ![8, 9].contains(&each.number)).collect();
        assert_eq!(rings(&host, 5), [4, 5, 6, 7, 2]);
    }

    #[test]
    fn a_cpuset_of_odd_processors_is_kept_to() {
        let odd = flat(&[1, 3, 5]);
        assert_eq!(rings_by_default(&odd, &NO_LIMITS), 3);
        assert_eq!(rings(&odd, 3), [1, 3, 5]);
        assert_eq!(rings(&odd, 5), [1, 3, 5, 1, 3], "more rings than processors share them");
    }

    #[test]
    fn a_quota_bounds_the_rings_and_unties_them() {
        let host = flat(&[0, 1, 2, 3]);
        let counts = [0.2, 1.0, 1.5, 2.0, 3.9, 4.0, 64.0];
        let counts = counts.map(|each| rings_by_default(&host, &quota(each)));
        assert_eq!(counts, [1, 1, 1, 2, 3, 4, 4]);
        let place = |limits: &Limits, pin| Placement::of(&host, limits, pin, (2, 2));
        let (free, tied) = (place(&quota(1.5), Pin::Auto), place(&quota(4.0), Pin::Auto));
        assert_eq!((free.text().as_str(), tied.text().as_str()), ("any", "0,1"));
        assert_eq!((free.rings, free.workers), (vec![None, None], vec![vec![], vec![]]));
        assert_eq!(place(&quota(1.5), Pin::Always), tied);
        assert_eq!(place(&NO_LIMITS, Pin::Never).rings, [None, None]);
    }

    #[test]
    fn a_worker_stays_on_the_core_of_its_ring() {
        let workers = |count| Placement::of(&two_sockets(), &NO_LIMITS, Pin::Auto, count).workers;
        assert_eq!(workers((2, 3)), [[0, 8], [1, 9], [0, 8]]);
        assert_eq!(workers((3, 1)), [[0, 8]]);
        let flat = Placement::of(&flat(&[1, 3]), &NO_LIMITS, Pin::Auto, (2, 2));
        assert_eq!(flat.workers, [[1], [3]]);
    }

    #[test]
    fn a_host_that_says_nothing_has_one_ring_that_is_not_tied() {
        assert_eq!(rings_by_default(&[], &NO_LIMITS), 1);
        let placement = Placement::of(&[], &NO_LIMITS, Pin::Always, (1, 1));
        assert_eq!((placement.text().as_str(), placement.rings), ("any", vec![None]));
        assert_eq!(placement.workers, [[]; 1]);
    }
}
