//! The processors that this process may use, and how they lie to each other, as the host tells.
//!
//! What is not told is left out: without `/sys` every processor is a core of its own, on one node.

use std::fs;
use std::path::Path;

use super::thread;

/// A processor of the kernel: a core, or one of its hardware threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    pub number: usize,
    /// Package and number within it; who has the same shares the core.
    pub core: (usize, usize),
    /// The NUMA node.
    pub node: usize,
}

/// Those that this process may use, in ascending order. Empty where the system does not say.
pub fn processors() -> Vec<Processor> {
    read(Path::new("/"), &thread::allowed_processors().unwrap_or_default())
}

/// As `processors`, of a host whose `/sys` is below `root`.
fn read(root: &Path, allowed: &[usize]) -> Vec<Processor> {
    let all = root.join("sys/devices/system/cpu");
    let nodes = nodes(&root.join("sys/devices/system/node"));
    let online = fs::read_to_string(all.join("online")).ok().and_then(|text| list(&text));
    let is_online = |number: &usize| online.as_ref().is_none_or(|online| online.contains(number));
    let describe = |number: usize| {
        let topology = all.join(format!("cpu{number}/topology"));
        let read = |name: &str| fs::read_to_string(topology.join(name)).ok()?.trim().parse().ok();
        // A machine may not number its packages, and says -1.
        let package = read("physical_package_id").unwrap_or(0);
        // Past all that are told: a core of its own.
        let core = read("core_id").map_or((usize::MAX, number), |core: usize| (package, core));
        let node = nodes.iter().find(|(_, numbers)| numbers.contains(&number));
        Processor { number, core, node: node.map_or(0, |(node, _)| *node) }
    };
    allowed.iter().copied().filter(is_online).map(describe).collect()
}

/// The NUMA nodes and their processors.
fn nodes(folder: &Path) -> Vec<(usize, Vec<usize>)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let node = |name: &str| {
        let number = name.strip_prefix("node")?.parse().ok()?;
        let text = fs::read_to_string(folder.join(name).join("cpulist")).ok()?;
        Some((number, list(&text)?))
    };
    entries.flatten().filter_map(|entry| node(entry.file_name().to_str()?)).collect()
}

/// The numbers of a list as the kernel writes it: `0-3,8,10-11`.
fn list(text: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        numbers.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake_root::FakeRoot;

    #[test]
    fn what_the_host_tells_is_read() {
        let root = FakeRoot::new(&[
            ("sys/devices/system/cpu/online", "0-1,5"),
            ("sys/devices/system/cpu/cpu0/topology/physical_package_id", "0"),
            ("sys/devices/system/cpu/cpu0/topology/core_id", "4"),
            ("sys/devices/system/cpu/cpu1/topology/physical_package_id", "-1"),
            ("sys/devices/system/cpu/cpu1/topology/core_id", "4"),
            ("sys/devices/system/cpu/cpu5/topology/physical_package_id", "1"),
            ("sys/devices/system/cpu/cpu5/topology/core_id", "4"),
            ("sys/devices/system/node/node0/cpulist", "0-3"),
            ("sys/devices/system/node/node1/cpulist", "4-7"),
            ("sys/devices/system/node/possible", "0-1"),
        ]);
        let processor = |number, core, node| Processor { number, core, node };
        let expected = [processor(0, (0, 4), 0), processor(1, (0, 4), 0), processor(5, (1, 4), 1)];
        assert_eq!(read(root.path(), &[0, 1, 4, 5]), expected, "4 is offline");
    }

    #[test]
    fn a_host_that_tells_nothing_has_a_core_for_each() {
        let cores: Vec<_> = read(Path::new("/nowhere"), &[1, 3])
            .iter()
            .map(|each| (each.core, each.node))
            .collect();
        assert_eq!(cores, [((usize::MAX, 1), 0), ((usize::MAX, 3), 0)]);
    }

    #[test]
    fn lists_are_the_kernels() {
        assert_eq!(list("0-2,7,9-10\n").unwrap(), [0, 1, 2, 7, 9, 10]);
        assert_eq!(list("\n").unwrap(), []);
        assert_eq!(list("a"), None);
    }

    #[test]
    fn this_host_has_what_this_process_is_allowed() {
        let numbers: Vec<_> = processors().iter().map(|each| each.number).collect();
        assert_eq!(numbers, thread::allowed_processors().unwrap());
    }
}
