//! What the control group of this process lets it have: processor time and memory.
//!
//! ```text
//!   /proc/self/cgroup      0::/a/b            the group, below the root of its hierarchy
//!   /proc/self/mountinfo   /  /sys/fs/cgroup  which part of a hierarchy is mounted, and where
//!   /sys/fs/cgroup/a/b/cpu.max, a/cpu.max     the smallest up the tree is what holds
//! ```
//!
//! Both versions are read: a host may have either, or some controllers of each. What cannot be read
//! is no limit.

use std::fs;
use std::path::{Path, PathBuf};

/// The limits that hold for this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Processor time, in processors.
    pub processors: Option<f64>,
    pub memory_bytes: Option<u64>,
}

/// As they are now.
pub fn limits() -> Limits {
    read(Path::new("/"))
}

/// As `limits`, of a host whose `/proc` and `/sys` are below `root`.
fn read(root: &Path) -> Limits {
    let text = |name: &str| fs::read_to_string(root.join("proc/self").join(name));
    let groups = text("cgroup").unwrap_or_default();
    let mounts = text("mountinfo").unwrap_or_default();
    let mut limits = Limits::default();
    for mount in mounts.lines().filter_map(Mount::parse) {
        let Some(group) = groups.lines().find_map(|line| mount.group(line)) else { continue };
        let top = root.join(mount.point.trim_start_matches('/'));
        for folder in mount.folders(&top, group) {
            limits.processors = smaller(limits.processors, processors(&folder, mount.version));
            limits.memory_bytes = smaller(limits.memory_bytes, memory(&folder, mount.version));
        }
    }
    limits
}

fn smaller<T: PartialOrd>(one: Option<T>, two: Option<T>) -> Option<T> {
    match (one, two) {
        (Some(one), Some(two)) => Some(if two < one { two } else { one }),
        (one, two) => one.or(two),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A mounted hierarchy, or a part of it.
#[derive(Debug)]
struct Mount<'m> {
    /// The group that is seen at the mount point.
    group: &'m str,
    point: &'m str,
    version: Version,
    /// Of version 1: its controllers.
    options: &'m str,
}

impl<'m> Mount<'m> {
    /// Reads a line as proc_pid_mountinfo(5) has it.
    fn parse(line: &'m str) -> Option<Mount<'m>> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let mut right = right.split(' ');
        let (group, point) = (left.next()?, left.next()?);
        let version = match right.next()? {
            "cgroup" => Version::One,
            "cgroup2" => Version::Two,
            _ => return None,
        };
        Some(Mount { group, point, version, options: right.nth(1)? })
    }

    /// The group of a line of `/proc/self/cgroup`, if the line is of this hierarchy.
    fn group<'g>(&self, line: &'g str) -> Option<&'g str> {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
        let is_here = match self.version {
            Version::Two => number == "0",
            Version::One => {
                let is_mounted = |controller| self.options.split(',').any(|one| one == controller);
                !controllers.is_empty() && controllers.split(',').all(is_mounted)
            }
        };
        is_here.then_some(group)
    }

    /// The folders of a group and of all above it that can be seen at `top`.
    fn folders(&self, top: &Path, group: &str) -> Vec<PathBuf> {
        let below = group.strip_prefix(self.group.trim_end_matches('/'));
        // A group that is not below the mounted one is seen from a namespace that cannot name it.
        let below = below.unwrap_or_default().trim_start_matches('/');
        let folder = if below.contains("..") { top.to_owned() } else { top.join(below) };
        folder.ancestors().take_while(|each| each.starts_with(top)).map(Path::to_owned).collect()
    }
}

/// Processor time of a group, in processors.
fn processors(folder: &Path, version: Version) -> Option<f64> {
    let (quota, period) = match version {
        Version::Two => {
            let text = fs::read_to_string(folder.join("cpu.max")).ok()?;
            let (quota, period) = text.trim().split_once(' ')?;
            (quota.parse::<u64>().ok()?, period.parse().ok()?)
        }
        // No quota is -1.
        Version::One => (number(folder, "cpu.cfs_quota_us")?, number(folder, "cpu.cfs_period_us")?),
    };
    (period > 0).then(|| quota as f64 / period as f64)
}

/// More than any machine has: how version 1 says that there is no limit.
const UNLIMITED_BYTES: u64 = 1 << 62;

fn memory(folder: &Path, version: Version) -> Option<u64> {
    match version {
        Version::Two => number(folder, "memory.max"),
        Version::One => number(folder, "memory.limit_in_bytes"),
    }
    .filter(|bytes| *bytes < UNLIMITED_BYTES)
}

fn number(folder: &Path, name: &str) -> Option<u64> {
    fs::read_to_string(folder.join(name)).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake_root::FakeRoot;

    const TWO: &str = "30 23 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw";

    /// The limits in a group of version 2, by what stands in files below the mount point.
    fn of_two(group: &str, files: &[(&str, &str)]) -> Limits {
        let paths: Vec<_> =
            files.iter().map(|(path, line)| (format!("sys/fs/cgroup/{path}"), *line)).collect();
        let line = format!("0::{group}");
        let mut all = vec![("proc/self/cgroup", line.as_str()), ("proc/self/mountinfo", TWO)];
        all.extend(paths.iter().map(|(path, line)| (path.as_str(), *line)));
        read(FakeRoot::new(&all).path())
    }

    #[test]
    fn the_smallest_limit_up_the_tree_holds() {
        let limits = of_two(
            "/a/b",
            &[
                ("a/b/cpu.max", "400000 100000"),
                ("a/cpu.max", "150000 100000"),
                ("cpu.max", "max 100000"),
                ("a/b/memory.max", "max"),
                ("a/memory.max", "1073741824"),
                ("other/memory.max", "1"),
                ("other/cpu.max", "1 100000"),
            ],
        );
        assert_eq!(limits, Limits { processors: Some(1.5), memory_bytes: Some(1 << 30) });
    }

    #[test]
    fn no_limit_is_none() {
        assert_eq!(of_two("/", &[("cpu.max", "max 100000")]), Limits::default());
        assert_eq!(of_two("/gone/../../away", &[]), Limits::default());
        assert_eq!(read(Path::new("/nowhere")), Limits::default());
    }

    #[test]
    fn a_group_out_of_sight_has_the_limits_of_what_is_in_sight() {
        let limits = of_two("/../outside", &[("cpu.max", "50000 100000")]);
        assert_eq!(limits.processors, Some(0.5));
    }

    #[test]
    fn version_1_has_a_hierarchy_for_each_controller() {
        let mounts = "\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
32 31 0:29 /box /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
36 31 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
37 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        let groups = "4:memory:/box/one\n1:cpu,cpuacct:/box/one\n3:cpuset:/\n0::/";
        let limits = read(
            FakeRoot::new(&[
                ("proc/self/mountinfo", mounts),
                ("proc/self/cgroup", groups),
                ("sys/fs/cgroup/cpu,cpuacct/one/cpu.cfs_quota_us", "-1"),
                ("sys/fs/cgroup/cpu,cpuacct/one/cpu.cfs_period_us", "100000"),
                ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000"),
                ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "20000"),
                ("sys/fs/cgroup/memory/box/one/memory.limit_in_bytes", "268435456"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712"),
            ])
            .path(),
        );
        assert_eq!(limits, Limits { processors: Some(2.5), memory_bytes: Some(256 << 20) });
    }
}
