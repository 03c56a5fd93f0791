//! This very program under callgrind.

use std::env;
use std::fs;
use std::io;
use std::process::{Command, Stdio};

/// Instructions of the whole process that runs a case so often.
pub fn instructions(name: &str, rounds: u32) -> io::Result<u64> {
    let out = env::temp_dir().join(format!("ringcached-callgrind.{}", std::process::id()));
    let said = Command::new("valgrind")
        .args(["--tool=callgrind", "--log-file=/dev/null"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(env::current_exe()?)
        .args(["instructions", "run", name, &rounds.to_string()])
        // Where the stack begins depends on the environment, and copying on where the stack is.
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("valgrind: {error}")))?;
    if !said.status.success() {
        let words = String::from_utf8_lossy(&said.stderr);
        return Err(io::Error::other(format!("{name} under valgrind: {}: {words}", said.status)));
    }
    let profile = fs::read_to_string(&out)?;
    fs::remove_file(&out)?;
    total(&profile).ok_or_else(|| io::Error::other("callgrind wrote no total"))
}

/// The compiler's and valgrind's words for themselves.
pub fn taken_with() -> io::Result<String> {
    let say = |program: &str| -> io::Result<String> {
        let said = Command::new(program).arg("--version").output();
        let said = said.map_err(|error| io::Error::other(format!("{program}: {error}")))?;
        Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
    };
    Ok(format!("{}, {}, {}", say("rustc")?, say("valgrind")?, env::consts::ARCH))
}

fn total(profile: &str) -> Option<u64> {
    let line = profile.lines().find_map(|line| line.strip_prefix("totals: "))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_found() {
        assert_eq!(total("events: Ir\nsummary: 5\n\n1 5\ntotals: 1234\n"), Some(1234));
        assert_eq!(total("events: Ir\n"), None);
    }
}
