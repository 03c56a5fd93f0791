//! The policies to compare with: libcachesim's, run by a script on the same requests and sizes.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::request::Trace;
use crate::servers::because;

const SCRIPT: &str = include_str!("../../judge.py");
const VERDICTS: &str = "verdicts";

/// As the script calls them, in the order of the table.
pub const POLICIES: [&str; 6] = ["S3-FIFO", "LRU", "SIEVE", "W-TinyLFU", "LHD", "GDSF"];

/// Object and byte miss ratio of one policy in one size of cache.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub bytes: u64,
    pub policy: String,
    pub objects_missed: f64,
    pub bytes_missed: f64,
}

/// Judges traces, and keeps what was found in a folder, because it never changes.
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
    process: Option<Script>,
    memory: PathBuf,
    fingerprint: u64,
}

/// The script, which does not outlive this.
#[derive(Debug)]
struct Script(Child, PathBuf);

impl Drop for Script {
    fn drop(&mut self) {
        // It may have ended already, and the file may be gone; there is nobody to tell.
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = fs::remove_file(&self.1);
    }
}

impl Judge<'_> {
    /// Begins to judge a trace in caches of these sizes.
    pub fn begin(&self, trace: &Trace, sizes: &[u64]) -> io::Result<Judging> {
        let (memory, fingerprint) = (self.folder.join(VERDICTS), trace.fingerprint());
        let known = match fs::read_to_string(&memory) {
            Ok(text) => known(&text, fingerprint, sizes),
            Err(_) => Vec::new(),
        };
        let wanted = wanted(&known, sizes);
        let mut process = None;
        if !wanted.is_empty() {
            let path = self.folder.join(format!("{fingerprint:016x}.bin"));
            trace.write(&path)?;
            let mut child = Command::new(self.python)
                .arg("-")
                .arg(&path)
                .args(wanted)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .map_err(|e| because(&self.python.display().to_string(), &e))?;
            let script = child.stdin.take();
            process = Some(Script(child, path));
            if let Some(mut script) = script {
                script.write_all(SCRIPT.as_bytes())?;
            }
        }
        Ok(Judging { known, process, memory, fingerprint })
    }
}

impl Judging {
    /// Waits for all verdicts.
    pub fn finish(mut self) -> io::Result<Vec<Verdict>> {
        let mut verdicts = std::mem::take(&mut self.known);
        if let Some(mut script) = self.process.take() {
            let mut text = String::new();
            if let Some(output) = &mut script.0.stdout {
                output.read_to_string(&mut text)?;
            }
            let status = script.0.wait()?;
            if !status.success() {
                return Err(io::Error::other(format!("the judge: {status}")));
            }
            for line in text.lines() {
                let verdict = verdict(line)
                    .ok_or_else(|| io::Error::other(format!("the judge said: {line}")))?;
                verdicts.push(verdict);
            }
            self.remember(&text)?;
        }
        Ok(verdicts)
    }

    fn remember(&self, text: &str) -> io::Result<()> {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&self.memory)?;
        text.lines().try_for_each(|line| writeln!(file, "{:016x} {line}", self.fingerprint))
    }
}

/// What the memory says of a trace in these sizes.
fn known(text: &str, fingerprint: u64, sizes: &[u64]) -> Vec<Verdict> {
    let prefix = format!("{fingerprint:016x} ");
    let of_trace = text.lines().filter_map(|line| verdict(line.strip_prefix(&prefix)?));
    of_trace.filter(|verdict| sizes.contains(&verdict.bytes)).collect()
}

/// What the script is still to be asked.
fn wanted(known: &[Verdict], sizes: &[u64]) -> Vec<String> {
    let is_known =
        |size: u64, policy: &str| known.iter().any(|v| v.bytes == size && v.policy == policy);
    let rest = |size: &u64| {
        let policies: Vec<&str> =
            POLICIES.into_iter().filter(|policy| !is_known(*size, policy)).collect();
        (!policies.is_empty()).then(|| format!("{size}:{}", policies.join(",")))
    };
    sizes.iter().filter_map(rest).collect()
}

fn verdict(line: &str) -> Option<Verdict> {
    let mut words = line.split(' ');
    Some(Verdict {
        bytes: words.next()?.parse().ok()?,
        policy: words.next()?.to_owned(),
        objects_missed: words.next()?.parse().ok()?,
        bytes_missed: words.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "1000 S3-FIFO 0.50000 0.25000";

    #[test]
    fn lines_are_verdicts() {
        let found = verdict(LINE).unwrap();
        assert_eq!((found.bytes, found.policy.as_str()), (1000, "S3-FIFO"));
        assert_eq!((found.objects_missed, found.bytes_missed), (0.5, 0.25));
        assert!(verdict("1000 S3-FIFO x 1").is_none() && verdict("").is_none());
    }

    #[test]
    fn only_what_is_not_known_is_asked() {
        let text = format!("00000000000000aa {LINE}\n00000000000000ab 2000 LRU 0.1 0.1\n");
        let found = known(&text, 0xaa, &[1000, 2000]);
        assert_eq!(found, [verdict(LINE).unwrap()]);
        assert_eq!(
            wanted(&found, &[1000, 2000]),
            ["1000:LRU,SIEVE,W-TinyLFU,LHD,GDSF", "2000:S3-FIFO,LRU,SIEVE,W-TinyLFU,LHD,GDSF"]
        );
        assert!(known(&text, 0xaa, &[2000]).is_empty());
    }

    #[test]
    fn the_script_knows_all_policies() {
        for policy in POLICIES {
            assert!(SCRIPT.contains(&format!("\"{policy}\":")), "{policy}");
        }
    }
}
