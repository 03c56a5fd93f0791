//! The policies to compare with: libcachesim's, run by a script on the same requests and sizes.
//!
//! Some of them take far longer than we do, so that each trace is judged by a process of its own
//! while the next one is replayed, and what was found is kept.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use super::request::Trace;
use crate::servers::because;

const SCRIPT: &str = include_str!("../../judge.py");
/// In the folder that is kept: what was found, for all traces.
const VERDICTS: &str = "verdicts";

/// As the script calls them, in the order of the table.
pub const POLICIES: [&str; 6] = ["S3-FIFO", "LRU", "SIEVE", "W-TinyLFU", "LHD", "GDSF"];
/// In the order in which they are run: those that take long come last.
const QUICK_FIRST: [&str; 6] = ["S3-FIFO", "LRU", "SIEVE", "LHD", "GDSF", "W-TinyLFU"];

/// Object and byte miss ratio of one policy in one size of cache.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub policy: String,
    pub bytes: u64,
    pub objects_missed: f64,
    pub bytes_missed: f64,
}

/// Judges traces, and keeps what it found in a folder, because it never changes.
#[derive(Debug)]
pub struct Judge<'a> {
    pub python: &'a Path,
    pub folder: &'a Path,
}

/// A trace that is being judged.
#[derive(Debug)]
pub struct Judging {
    /// Known from before.
    known: Vec<Verdict>,
    /// Works on the rest.
    script: Option<Script>,
    verdicts: PathBuf,
    fingerprint: u64,
}

/// The script with its files. None of them outlives this.
#[derive(Debug)]
struct Script {
    child: Child,
    input: PathBuf,
    output: PathBuf,
    ended: Option<ExitStatus>,
}

impl Drop for Script {
    fn drop(&mut self) {
        // It may have ended already, and the files may be gone; there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.input);
        let _ = fs::remove_file(&self.output);
    }
}

impl Judge<'_> {
    /// Begins to judge a trace in caches of these sizes.
    pub fn begin(&self, trace: &Trace, sizes: &[u64]) -> io::Result<Judging> {
        let (verdicts, fingerprint) = (self.folder.join(VERDICTS), trace.fingerprint());
        let known = match fs::read_to_string(&verdicts) {
            Ok(text) => known(&text, fingerprint, sizes),
            Err(_) => Vec::new(),
        };
        let wanted = wanted(&known, sizes);
        let mut script = None;
        if !wanted.is_empty() {
            let input = self.folder.join(format!("{fingerprint:016x}.bin"));
            trace.write(&input)?;
            script = Some(self.start(input, &wanted)?);
        }
        Ok(Judging { known, script, verdicts, fingerprint })
    }

    fn start(&self, input: PathBuf, wanted: &[String]) -> io::Result<Script> {
        let output = input.with_extension("txt");
        let mut child = Command::new(self.python)
            .arg("-")
            .arg(&input)
            .args(wanted)
            .stdin(Stdio::piped())
            .stdout(File::create(&output)?)
            .spawn()
            .map_err(|e| because(&self.python.display().to_string(), &e))?;
        let stdin = child.stdin.take();
        let script = Script { child, input, output, ended: None };
        if let Some(mut stdin) = stdin {
            stdin.write_all(SCRIPT.as_bytes())?;
        }
        Ok(script)
    }
}

impl Judging {
    /// True until all verdicts are there.
    pub fn is_running(&mut self) -> io::Result<bool> {
        let Some(script) = &mut self.script else { return Ok(false) };
        if script.ended.is_none() {
            script.ended = script.child.try_wait()?;
        }
        Ok(script.ended.is_none())
    }

    /// The verdicts there are; who comes too early gets fewer.
    pub fn finish(mut self) -> io::Result<Vec<Verdict>> {
        self.is_running()?;
        let mut verdicts = std::mem::take(&mut self.known);
        let Some(script) = self.script.take() else { return Ok(verdicts) };
        if let Some(status) = script.ended.filter(|status| !status.success()) {
            return Err(io::Error::other(format!("the judge: {status}")));
        }
        let mut memory = File::options().create(true).append(true).open(&self.verdicts)?;
        let text = fs::read_to_string(&script.output)?;
        // What has no end of line yet is no line yet.
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let verdict = verdict(line.trim_end())
                .ok_or_else(|| io::Error::other(format!("the judge said: {line}")))?;
            verdicts.push(verdict);
            write!(memory, "{:016x} {line}", self.fingerprint)?;
        }
        Ok(verdicts)
    }
}

/// What was found of a trace in these sizes.
fn known(text: &str, fingerprint: u64, sizes: &[u64]) -> Vec<Verdict> {
    let prefix = format!("{fingerprint:016x} ");
    let of_trace = text.lines().filter_map(|line| verdict(line.strip_prefix(&prefix)?));
    of_trace.filter(|verdict| sizes.contains(&verdict.bytes)).collect()
}

/// What the script is still to be asked.
fn wanted(known: &[Verdict], sizes: &[u64]) -> Vec<String> {
    let mut wanted = Vec::new();
    for policy in QUICK_FIRST {
        for size in sizes {
            if !known.iter().any(|v| v.bytes == *size && v.policy == policy) {
                wanted.push(format!("{policy}:{size}"));
            }
        }
    }
    wanted
}

fn verdict(line: &str) -> Option<Verdict> {
    let mut words = line.split(' ');
    Some(Verdict {
        policy: words.next()?.to_owned(),
        bytes: words.next()?.parse().ok()?,
        objects_missed: words.next()?.parse().ok()?,
        bytes_missed: words.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::request::Request;
    use super::*;

    const LINE: &str = "S3-FIFO 1000 0.50000 0.25000";

    #[test]
    fn lines_are_verdicts() {
        let found = verdict(LINE).unwrap();
        assert_eq!((found.bytes, found.policy.as_str()), (1000, "S3-FIFO"));
        assert_eq!((found.objects_missed, found.bytes_missed), (0.5, 0.25));
        assert!(verdict("S3-FIFO 1000 x 1").is_none() && verdict("").is_none());
    }

    #[test]
    fn only_what_is_not_known_is_asked() {
        let text = format!("00000000000000aa {LINE}\n00000000000000ab LRU 2000 0.1 0.1\n");
        let found = known(&text, 0xaa, &[1000, 2000]);
        assert_eq!(found, [verdict(LINE).unwrap()]);
        let wanted = wanted(&found, &[1000, 2000]);
        assert_eq!(wanted[..3], ["S3-FIFO:2000", "LRU:1000", "LRU:2000"]);
        assert_eq!(wanted.len(), 11);
        assert!(known(&text, 0xaa, &[2000]).is_empty());
    }

    #[test]
    fn the_script_knows_all_policies() {
        for policy in POLICIES {
            assert!(SCRIPT.contains(&format!("\"{policy}\":")), "{policy}");
            assert!(QUICK_FIRST.contains(&policy), "{policy}");
        }
    }

    /// `program` plays the judge; its output is what was found.
    fn judged(program: &str) -> (io::Result<Vec<Verdict>>, String) {
        let folder = std::env::temp_dir().join(format!(
            "judges-test-{}-{}",
            std::process::id(),
            program.len()
        ));
        fs::create_dir_all(&folder).unwrap();
        let python = folder.join("python");
        fs::write(&python, format!("#!/bin/sh\ncat >/dev/null\n{program}\n")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&python, mode).unwrap();
        let trace = Trace::new(vec![Request { time_s: 0, key: 1, bytes: 100 }]);
        let mut judging =
            Judge { python: &python, folder: &folder }.begin(&trace, &[1000]).unwrap();
        while judging.is_running().unwrap() {
            crate::servers::pause(std::time::Duration::from_millis(5));
        }
        let verdicts = judging.finish();
        let kept = fs::read_to_string(folder.join(VERDICTS)).unwrap_or_default();
        let left = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(left.into_iter().all(|name| name == "python" || name == VERDICTS));
        fs::remove_dir_all(&folder).unwrap();
        (verdicts, kept)
    }

    #[test]
    fn verdicts_are_kept_and_unfinished_ones_are_not() {
        let (verdicts, kept) = judged("echo 'S3-FIFO 1000 0.50000 0.25000'; printf 'LRU 10'");
        assert_eq!(verdicts.unwrap(), [verdict(LINE).unwrap()]);
        assert!(kept.ends_with(&format!(" {LINE}\n")), "{kept}");
        let error = |program| judged(program).0.unwrap_err().to_string();
        assert!(error("exit 3").contains("exit status: 3"));
        assert!(error("echo nonsense 1").contains("nonsense"));
    }
}
