//! Processors and control groups, for real: what a group takes away is not used.
//!
//! Groups are made in version 1 or 2, whichever this machine lets a test make, and removed.

#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::common::client::Client;
use crate::common::server::free_port;

const SERVER: &str = env!("CARGO_BIN_EXE_ringcached");

/// A control group of a test's own.
struct Group(PathBuf);

impl Group {
    /// One below `parent` in which these files can be written. None where that is not possible.
    fn make(parent: &str, files: &[(&str, &str)]) -> Option<Group> {
        let name = format!("ringcached-test-{}-{}", std::process::id(), free_port());
        let folder = Path::new(parent).join(name);
        fs::create_dir(&folder).ok()?;
        let group = Group(folder);
        let write = |(name, text): &(&str, &str)| fs::write(group.0.join(name), text);
        files.iter().all(|file| write(file).is_ok()).then_some(group)
    }

    fn start(&self, arguments: &[&str]) -> Child {
        let shell = "echo $$ > \"$0\" && exec \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", shell]).arg(self.0.join("cgroup.procs")).arg(SERVER).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The processes in it are waited for, but leave a moment later.
        crate::common::wait_until(crate::common::PATIENCE, || fs::remove_dir(&self.0).is_ok());
    }
}

/// The first of the places where such a group can be made.
fn group(one: (&str, &[(&str, &str)]), two: &[(&str, &str)]) -> Option<Group> {
    let made = Group::make(one.0, one.1).or_else(|| Group::make("/sys/fs/cgroup", two));
    if made.is_none() {
        eprintln!("skipped: no control group with these limits can be made here");
    }
    made
}

#[test]
fn a_quota_bounds_the_rings() {
    let one = [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "150000")];
    let two = [("cpu.max", "150000 100000")];
    let Some(group) = group(("/sys/fs/cgroup/cpu", &one), &two) else { return };
    let port = free_port().to_string();
    let check = |more: &[&str]| {
        let said = group.start(&[&["--check", "-p", &port], more].concat()).wait_with_output();
        String::from_utf8(said.unwrap().stdout).unwrap()
    };
    let usual = check(&[]);
    assert!(usual.contains("time of 1.50 of them); 1 rings, on "), "{usual}");
    assert!(check(&["-t", "2", "--pin", "never"]).contains("2 rings, on any\n"));
}

/// In a cpuset of the last processor alone, the only ring is there.
#[test]
fn rings_keep_to_what_is_allowed() {
    let allowed = std::thread::available_parallelism().unwrap().get();
    let last = (allowed - 1).to_string();
    let port = free_port().to_string();
    let mut command = Command::new("taskset");
    command.args(["-c", &last, SERVER, "--check", "-p", &port]);
    let Ok(said) = command.output() else { return eprintln!("skipped: there is no taskset") };
    let said = String::from_utf8(said.stdout).unwrap();
    let expected = format!("may be used: {last} (");
    if said.contains(&expected) {
        assert!(said.contains(&format!("; 1 rings, on {last}\n")) || said.contains("on any\n"));
    } else {
        eprintln!("skipped: processors are not numbered from 0 here");
    }
}

#[test]
fn more_memory_than_the_group_allows_is_warned_of() {
    let one = [("memory.limit_in_bytes", "536870912")];
    let Some(group) = group(("/sys/fs/cgroup/memory", &one), &[("memory.max", "536870912")]) else {
        return;
    };
    let say = |megabytes: &str| {
        let port = free_port().to_string();
        let words = ["-p", &port, "-l", "127.0.0.1", "-m", megabytes, "--admin", "off"];
        let mut child = group.start(&words);
        let serves = crate::common::wait_until(crate::common::PATIENCE, || {
            let has_ended = child.try_wait().unwrap().is_some();
            has_ended || Client::connect(([127, 0, 0, 1], port.parse().unwrap()).into()).is_ok()
        });
        assert!(serves, "neither serves nor ends");
        // SIGTERM: what it has to say is said by then.
        Command::new("kill").arg(child.id().to_string()).status().unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap()
    };
    let (much, little) = (say("510"), say("64"));
    if !much.contains("at most") {
        return eprintln!("skipped: the server does not start here: {much}");
    }
    assert!(much.contains("the control group allows 512 MiB"), "{much}");
    assert!(!little.contains("control group"), "{little}");
}
