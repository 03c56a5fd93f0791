//! Idle connections: what each takes, and what it costs that they are there.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use ringcached_load::clock::{Clock, NS_PER_S};
use ringcached_load::cpu;
use serde::{Deserialize, Serialize};

use super::Bench;
use super::sockets::{Question, allow_files, connect, kernel_bytes, reset};
use crate::compare::progress;
use crate::servers::{Kind, Server, Variant, pause};
use crate::store::rss;
use crate::store::wire::{Dialect, Wire, number};

/// Files of this process and of the server that are no connections, amply.
const OTHER_FILES: u64 = 200;
/// Connections that have been asked on and not heard, at a time.
const ASKED: usize = 100;
/// A connection is accepted after this, or something is wrong.
const ACCEPT_TRIES: u32 = 200;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What 100,000 may take, and of a core, at most.
const BYTES_MAX: u64 = 100 << 20;
const CONNECTIONS_OF_MAX: u64 = 100_000;
const CORE_SHARE_MAX: f64 = 0.002;
/// Of what they took, when they are gone.
const KEPT_SHARE_MAX: f64 = 0.25;
/// Fewer connections, or a shorter watch, say nothing of these.
const CONNECTIONS_MIN: u32 = 10_000;
const WATCH_S_MIN: f64 = 5.0;

/// Stored first, so that what any load touches, such as receive buffers, is touched before.
const WARM_UP_ITEMS: u32 = 500;
const WARM_UP_BYTES: usize = 20_000;

/// What was seen at one server. Bytes are RSS.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Idle {
    pub server: String,
    pub is_ours: bool,
    pub asked: u32,
    pub connections: u32,
    pub connect_s: f64,
    pub before: u64,
    /// With connections that have said nothing yet.
    pub silent: u64,
    /// With connections that have been answered once.
    pub spoken: u64,
    /// When all are gone.
    pub after: u64,
    pub watch_s: f64,
    /// Processor time is shown and must not be judged.
    pub any_time: bool,
    /// Of a core, without connections and with them.
    pub share_before: f64,
    pub share_with: f64,
    /// What the kernel took more, for both ends: buffers, and objects of all kinds.
    pub kernel: Option<(u64, u64)>,
}

impl Idle {
    pub fn bytes_each(&self) -> f64 {
        self.spoken.max(self.silent).saturating_sub(self.before) as f64
            / f64::from(self.connections.max(1))
    }

    /// What was missed, if it must be reached.
    pub fn misses(&self) -> Vec<String> {
        let mut all = Vec::new();
        if !self.is_ours {
            return all;
        }
        let is_timed = !self.any_time && self.watch_s >= WATCH_S_MIN;
        let allowed = BYTES_MAX as f64 / CONNECTIONS_OF_MAX as f64;
        if self.connections >= CONNECTIONS_MIN && self.bytes_each() > allowed {
            all.push(format!("{}: more than {allowed:.0} bytes a connection", self.server));
        }
        let taken = self.bytes_each() * f64::from(self.connections);
        let kept = self.after.saturating_sub(self.before) as f64;
        if self.connections >= CONNECTIONS_MIN && kept > taken * KEPT_SHARE_MAX {
            let percent = kept / taken * 100.0;
            all.push(format!("{}: {percent:.0} % is kept of what gone ones took", self.server));
        }
        for (when, share) in [("without", self.share_before), ("with", self.share_with)] {
            if is_timed && share > CORE_SHARE_MAX {
                let percent = share * 100.0;
                all.push(format!("{}: {percent:.2} % of a core {when} connections", self.server));
            }
        }
        all
    }
}

/// How many connections there may be of those that are asked for.
pub fn allowed(asked: u32) -> io::Result<u32> {
    let files = allow_files(u64::from(asked) + OTHER_FILES)?;
    Ok(u32::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(u32::MAX).min(asked))
}

/// Starts a server and lets the crowd come and go.
pub fn measure(bench: &Bench<'_>, variant: &Variant, connections: u32) -> io::Result<Idle> {
    let options = bench.options;
    let variant = variant.clone().and(&format!("-c {}", connections + 100));
    let mut server = variant.start(options.server_core)?;
    let mut wire = Wire::connect(server.address, Dialect::Memcache)?;
    let value = vec![b'v'; WARM_UP_BYTES];
    for number in 0..WARM_UP_ITEMS {
        wire.set(format!("warm-up-{number}").as_bytes(), &value, 0)?;
    }
    wire.sync()?;
    server.settle()?;
    let share_before = share(&server, options.watch_s())?;
    let (before, kernel) = (rss::settled(server.pid())?, kernel_bytes());
    let clock = Clock::start();
    let mut crowd = come(bench, &server, connections)?;
    accepted(&mut wire, connections)?;
    let connect_s = clock.ns() as f64 / NS_PER_S;
    let silent = rss::settled(server.pid())?;
    let mut question = Question::miss();
    for some in crowd.chunks_mut(ASKED) {
        some.iter_mut().try_for_each(|stream| question.ask(stream))?;
        some.iter_mut().try_for_each(|stream| question.hear(stream))?;
    }
    let spoken = rss::settled(server.pid())?;
    let kernel = kernel_bytes().zip(kernel).map(|((buffers, slab), before)| {
        (buffers.saturating_sub(before.0), slab.saturating_sub(before.1))
    });
    let share_with = share(&server, options.watch_s())?;
    server.check()?;
    crowd.into_iter().for_each(reset);
    server.settle()?;
    let after = rss::settled(server.pid())?;
    let idle = Idle {
        server: server.label.clone(),
        is_ours: server.kind == Kind::Ringcached,
        asked: options.idle(),
        connections,
        connect_s,
        before,
        silent,
        spoken,
        after,
        watch_s: options.watch_s(),
        any_time: options.any_time,
        share_before,
        share_with,
        kernel,
    };
    let each = idle.bytes_each();
    progress(&format!("{connections} idle at {}: {each:.0} bytes each", server.label));
    Ok(idle)
}

fn come(bench: &Bench<'_>, server: &Server, connections: u32) -> io::Result<Vec<TcpStream>> {
    let mut crowd = Vec::new();
    for number in 0..connections {
        if number % 1000 == 0 {
            bench.launcher.check()?;
        }
        crowd.push(connect(server.address, number).map_err(|e| {
            io::Error::new(e.kind(), format!("connection {number} to {}: {e}", server.label))
        })?);
    }
    Ok(crowd)
}

/// Waits until the server has taken all of them.
fn accepted(wire: &mut Wire, connections: u32) -> io::Result<()> {
    for _ in 0..ACCEPT_TRIES {
        let current = number(&wire.stats()?, "curr_connections").unwrap_or(0);
        if current > u64::from(connections) {
            return Ok(());
        }
        pause(ACCEPT_PAUSE);
    }
    Err(io::Error::other("the server does not accept all connections"))
}

/// What part of a core the server takes while nobody says anything.
fn share(server: &Server, watch_s: f64) -> io::Result<f64> {
    let (clock, before) = (Clock::start(), cpu::of_process(server.pid())?);
    pause(Duration::from_secs_f64(watch_s));
    let used = cpu::of_process(server.pid())?.since(before);
    Ok(used.total_ns as f64 / clock.ns() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_be_reached_is_asked_of_our_server_alone() {
        let mut idle = Idle {
            server: "auto".to_owned(),
            is_ours: true,
            asked: 100_000,
            connections: 20_000,
            connect_s: 1.0,
            before: 1 << 20,
            silent: 2 << 20,
            spoken: (1 << 20) + 1048 * 20_000,
            after: 0,
            watch_s: 5.0,
            any_time: false,
            share_before: 0.0019,
            share_with: 0.0021,
            kernel: None,
        };
        assert_eq!(idle.bytes_each(), 1048.0);
        assert_eq!(idle.misses(), ["auto: 0.21 % of a core with connections"]);
        idle.spoken += 20_000;
        assert_eq!(idle.misses().len(), 2);
        idle.any_time = true;
        assert_eq!(idle.misses(), ["auto: more than 1049 bytes a connection"]);
        (idle.any_time, idle.watch_s) = (false, 1.0);
        assert_eq!(idle.misses(), ["auto: more than 1049 bytes a connection"]);
        (idle.spoken, idle.after) = ((1 << 20) + 1000 * 20_000, (1 << 20) + 260 * 20_000);
        assert_eq!(idle.misses(), ["auto: 26 % is kept of what gone ones took"]);
        idle.is_ours = false;
        assert!(idle.misses().is_empty());
    }
}
