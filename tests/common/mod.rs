//! What the tests over real sockets share: a server to start, a client to talk to it.
//!
//! The server is our own, in one of its dispatch modes. `E2E_SERVER=/usr/bin/memcached` puts
//! another program in its place, so that a test can be tried on the original.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]
#![allow(clippy::disallowed_methods, reason = "tests wait for another process, by the clock")]
#![allow(dead_code, reason = "each test program uses its part of this")]

pub mod client;
pub mod server;
pub mod transcript;

use std::time::{Duration, Instant};

/// Longer than anything takes on a busy machine with two cores.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Asks until it is so; false after `limit`.
pub fn wait_until(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if is_so() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A seeded source of numbers (xorshift64*), so that a failure can be repeated.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Chance {
        Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        let wide = self.number() % u64::try_from(end).unwrap();
        usize::try_from(wide).unwrap()
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.number().to_be_bytes()[0]).collect()
    }
}

/// Raises this process's limit of open files to what it may be, or skips nothing: a test that
/// needs more files than this fails by itself.
pub fn many_files() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let pid = std::process::id().to_string();
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let hard = line.split_whitespace().nth(4).unwrap();
        let nofile = format!("--nofile={hard}:{hard}");
        let status = std::process::Command::new("prlimit").args(["--pid", &pid, &nofile]).status();
        if !status.is_ok_and(|status| status.success()) {
            eprintln!("prlimit {nofile} failed; the limit of open files stays");
        }
    });
}
