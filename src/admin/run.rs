//! The poll loop: signals, datagrams, deadlines.
//!
//! ```text
//!                 SIGTERM, SIGINT, SIGUSR1              drained, or the time is up
//!     Serving ------------------------------> Draining ----------------------------> ended
//!        |                                       |
//!        +---- the server ended by itself        +---- SIGTERM or SIGINT again
//! ```

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use crate::base::clock::Clock;
use crate::base::metrics::{Metric, Registry};
use crate::base::sync::Arc;
use crate::sys::poll::readable;
use crate::sys::signals::{Signal, Signals};

use super::journal::Journal;
use super::responder::Responder;
use super::systemd::Manager;
use super::{Control, Log, Severity};

/// How often STATUS is renewed.
const STATUS_INTERVAL_NS: u64 = 10_000_000_000;
/// How often the journal is written while anybody wants one.
const JOURNAL_INTERVAL_NS: u64 = 1_000_000_000;
/// How often a drain is looked at.
const DRAIN_INTERVAL_NS: u64 = 20_000_000;
/// A second signal that comes sooner is taken for the first.
const SAME_SIGNAL_NS: u64 = 250_000_000;
/// How long the rings may take to end, less than systemd's patience. After 5 s they close who has
/// not fetched their last replies.
const DRAIN_NS_MAX: u64 = 20_000_000_000;

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All replies that were owed are sent, or their peers were closed.
    Drained,
    /// The rings did not end in time.
    TimedOut,
    /// A second signal came.
    Forced,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    Draining { since_ns: u64 },
}

/// All that the admin thread owns.
pub struct Admin {
    signals: Signals,
    responder: Option<Responder>,
    control: Arc<dyn Control>,
    registry: Arc<Registry>,
    clock: Clock,
    log: Log,
    journal: Journal,
}

/// When what is due next. `u64::MAX` is never.
struct Deadlines {
    status_ns: u64,
    journal_ns: u64,
    watchdog_ns: u64,
    watchdog_every_ns: u64,
}

impl Admin {
    pub fn new(
        signals: Signals,
        responder: Option<Responder>,
        control: Arc<dyn Control>,
        registry: Arc<Registry>,
        clock: Clock,
        log: Log,
    ) -> Admin {
        Admin { signals, responder, control, registry, clock, log, journal: Journal::default() }
    }

    /// Serves until the server is drained. Tells the manager READY first, so all must be bound.
    pub fn run(mut self) -> io::Result<Ended> {
        let mut manager = Manager::default();
        let mut phase = Phase::Serving;
        let every = Manager::watchdog_interval().map(|every| every.as_nanos());
        let every = every.map_or(u64::MAX, |ns| u64::try_from(ns).unwrap_or(u64::MAX));
        let mut deadlines = Deadlines {
            status_ns: STATUS_INTERVAL_NS,
            journal_ns: 0,
            watchdog_ns: 0,
            watchdog_every_ns: every,
        };
        if every == u64::MAX {
            deadlines.watchdog_ns = u64::MAX;
        }
        manager.ready(&self.status(phase));
        loop {
            self.wait(phase, &deadlines)?;
            while let Some(signal) = self.signals.pending()? {
                if let Some(ended) = self.on_signal(signal, &mut phase, &manager) {
                    return Ok(ended);
                }
            }
            if let Some(responder) = &mut self.responder {
                responder.turn();
            }
            if self.control.has_ended() {
                if phase == Phase::Serving {
                    manager.stopping("the server has ended by itself");
                }
                return Ok(Ended::Drained);
            }
            let now_ns = self.clock.elapsed_ns();
            if matches!(phase, Phase::Draining { since_ns } if now_ns - since_ns > DRAIN_NS_MAX) {
                return Ok(Ended::TimedOut);
            }
            self.meet(&mut deadlines, &mut manager, phase);
        }
    }

    fn wait(&self, phase: Phase, deadlines: &Deadlines) -> io::Result<()> {
        let now_ns = self.clock.elapsed_ns();
        let mut due_ns = deadlines.status_ns.min(deadlines.journal_ns).min(deadlines.watchdog_ns);
        if phase != Phase::Serving {
            due_ns = due_ns.min(now_ns + DRAIN_INTERVAL_NS);
        }
        let timeout = Duration::from_nanos(due_ns.saturating_sub(now_ns));
        match &self.responder {
            Some(responder) => {
                let fds = [self.signals.as_fd(), self.control.ended(), responder.as_fd()];
                readable(fds, timeout).map(|_| ())
            }
            None => readable([self.signals.as_fd(), self.control.ended()], timeout).map(|_| ()),
        }
    }

    fn on_signal(&self, signal: Signal, phase: &mut Phase, manager: &Manager) -> Option<Ended> {
        match (signal, *phase) {
            (Signal::Stop | Signal::StopGracefully, Phase::Serving) => {
                *phase = Phase::Draining { since_ns: self.clock.elapsed_ns() };
                manager.stopping(&self.status(*phase));
                (self.log)(Severity::Notice, "stopping: draining connections");
                self.control.drain();
                None
            }
            // Who signals a process and then its group means one.
            (Signal::Stop, Phase::Draining { since_ns })
                if self.clock.elapsed_ns() - since_ns > SAME_SIGNAL_NS =>
            {
                Some(Ended::Forced)
            }
            (Signal::Stop, Phase::Draining { .. }) => None,
            (Signal::StopGracefully, Phase::Draining { .. }) => None,
            (Signal::Reload, Phase::Serving | Phase::Draining { .. }) => {
                match self.control.reload() {
                    None => {
                        let line = "reload: there is nothing that could have changed";
                        (self.log)(Severity::Notice, line);
                    }
                    Some(Ok(told)) => (self.log)(Severity::Notice, &format!("reload: {told}")),
                    Some(Err(error)) => {
                        let line = format!("reload: all stays as it was: {error}");
                        (self.log)(Severity::Warning, &line);
                    }
                }
                manager.reloaded();
                None
            }
        }
    }

    /// Does what is due.
    fn meet(&mut self, deadlines: &mut Deadlines, manager: &mut Manager, phase: Phase) {
        let now_ns = self.clock.elapsed_ns();
        if now_ns >= deadlines.status_ns {
            deadlines.status_ns = now_ns + STATUS_INTERVAL_NS;
            manager.status(&self.status(phase));
        }
        if now_ns >= deadlines.journal_ns {
            let verbosity = self.control.verbosity();
            // A client may want a journal later; one is begun with the next status then.
            let every = if verbosity == 0 { STATUS_INTERVAL_NS } else { JOURNAL_INTERVAL_NS };
            deadlines.journal_ns = now_ns + every;
            for (severity, line) in self.journal.lines(&self.registry, verbosity) {
                (self.log)(severity, &line);
            }
        }
        if now_ns >= deadlines.watchdog_ns {
            deadlines.watchdog_ns = now_ns.saturating_add(deadlines.watchdog_every_ns);
            if !manager.keep_alive(self.control.heartbeats()) {
                (self.log)(Severity::Error, "a thread has stalled: the watchdog is not fed");
            }
        }
    }

    /// One line for `systemctl status`.
    fn status(&self, phase: Phase) -> String {
        let of = |metric| self.registry.raw(metric);
        let (hits, misses) = (of(Metric::GetHits), of(Metric::GetMisses));
        let word = if phase == Phase::Serving { "serving" } else { "draining" };
        let (items, connections) = (of(Metric::CurrItems), of(Metric::CurrConnections));
        let mut line = format!("{word}: {items} items, {connections} connections");
        if let Some(permille) = (hits * 1000).checked_div(hits + misses) {
            line += &format!(", hit ratio {}.{} %", permille / 10, permille % 10);
        }
        if let Some(responder) = &self.responder {
            line += &format!(", statistics at udp {}", responder.address());
        }
        line
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::admin::fixture::Fixture;
    use crate::base::clock::Stopwatch;
    use crate::base::sync::Mutex;
    use crate::sys::signals::send_self;
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;

    fn admin(fixture: &Arc<Fixture>, lines: &Arc<Mutex<Vec<String>>>) -> Admin {
        let registry = Arc::new(Registry::default());
        let counters = registry.counters("ring 0");
        counters.add(Metric::GetHits, 2);
        counters.add(Metric::GetMisses, 1);
        let lines = Arc::clone(lines);
        let log = Box::new(move |_, line: &str| lines.lock().push(line.to_owned()));
        let control = Arc::<Fixture>::clone(fixture);
        Admin::new(Signals::take().unwrap(), None, control, registry, Clock::start(), log)
    }

    /// To this thread alone: the other tests of this process have not blocked the signal.
    fn raise(signal: nix::sys::signal::Signal) {
        nix::sys::signal::raise(signal).unwrap();
    }

    fn terminate() {
        raise(nix::sys::signal::SIGTERM);
    }

    #[test]
    fn a_signal_drains_and_the_end_is_awaited() {
        for signal in [nix::sys::signal::SIGTERM, nix::sys::signal::SIGUSR1] {
            let fixture = Fixture { drained_after: Mutex::new(Some(3)), ..Fixture::default() };
            let (fixture, lines) = (Arc::new(fixture), Arc::default());
            let admin = admin(&fixture, &lines);
            raise(nix::sys::signal::SIGHUP);
            raise(signal);
            assert_eq!(admin.run().unwrap(), Ended::Drained);
            assert_eq!(*fixture.drains.lock(), 1);
            assert_eq!(*fixture.drained_after.lock(), Some(0));
            let lines = lines.lock();
            assert!(lines.iter().any(|line| line.starts_with("reload")), "{lines:?}");
        }
    }

    #[test]
    fn what_came_of_a_reload_is_logged() {
        let reloads = Mutex::new(vec![Err("line 2".to_owned()), Ok("3 users".to_owned())]);
        let fixture = Arc::new(Fixture { reloads, ..Fixture::default() });
        let lines = Arc::default();
        let admin = admin(&fixture, &lines);
        let manager = Manager::default();
        for _ in 0..3 {
            let ended = admin.on_signal(Signal::Reload, &mut Phase::Serving, &manager);
            assert_eq!(ended, None);
        }
        let wanted = [
            "reload: 3 users",
            "reload: all stays as it was: line 2",
            "reload: there is nothing that could have changed",
        ];
        assert_eq!(*lines.lock(), wanted);
    }

    #[test]
    fn a_second_signal_does_not_wait() {
        let later = || {
            let until = Stopwatch::start();
            while until.elapsed() <= Duration::from_nanos(SAME_SIGNAL_NS) {
                std::thread::park_timeout(Duration::from_millis(10));
            }
            terminate();
        };
        let fixture = Arc::new(Fixture { on_drain: Some(later), ..Fixture::default() });
        let admin = admin(&fixture, &Arc::default());
        terminate();
        assert_eq!(admin.run().unwrap(), Ended::Forced);
        assert_eq!(*fixture.drains.lock(), 1);
    }

    /// As of `timeout`, which signals the process and then the group that it is in.
    #[test]
    fn the_same_signal_twice_is_one() {
        let drained_after = Mutex::new(Some(3));
        let fixture = Fixture { on_drain: Some(terminate), drained_after, ..Fixture::default() };
        let admin = admin(&Arc::new(fixture), &Arc::default());
        terminate();
        assert_eq!(admin.run().unwrap(), Ended::Drained);
    }

    /// Plays the server for the test below, in a process of its own that has a NOTIFY_SOCKET. The
    /// fourth heartbeat stalls; later the process stops itself as the command `shutdown` does.
    #[test]
    #[ignore = "only a part: run by the test below"]
    fn under_a_manager() {
        assert!(std::env::var_os("NOTIFY_SOCKET").is_some(), "would stop every other test");
        let stop_later = |calls| {
            if calls == 6 {
                send_self(Signal::Stop).unwrap();
            }
        };
        let fixture = Fixture {
            drained_after: Mutex::new(Some(0)),
            beats: Mutex::new(3),
            on_heartbeat: Some(stop_later),
            ..Fixture::default()
        };
        let lines = Arc::default();
        let admin = admin(&Arc::new(fixture), &lines);
        assert_eq!(admin.run().unwrap(), Ended::Drained);
        assert!(lines.lock().iter().any(|line| line.contains("stalled")));
    }

    #[test]
    fn the_manager_is_told() {
        let path = std::env::temp_dir().join(format!("ringcached-notify-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        // A child inherits what is blocked, and so does each of its threads: the harness has more
        // than one, and a signal to the process would kill it through any other.
        let _blocked = Signals::take().unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "admin::run::tests::under_a_manager", "--ignored"])
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "60000")
            .env_remove("WATCHDOG_PID")
            .output()
            .unwrap();
        let mut told = Vec::new();
        let mut buffer = [0; 1000];
        while let Ok(bytes) = socket.recv(&mut buffer) {
            told.push(String::from_utf8(buffer[..bytes].to_vec()).unwrap());
            if told.last().unwrap().contains("STOPPING=1") {
                break;
            }
        }
        std::fs::remove_file(&path).unwrap();
        let output = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && output.contains("1 passed"), "{output}");
        let ready = "READY=1\nSTATUS=serving: 0 items, 0 connections, hit ratio 66.6 %\n";
        assert_eq!(told[0], ready);
        let fed = told.iter().filter(|line| *line == "WATCHDOG=1\n").count();
        assert_eq!(fed, 3, "three heartbeats moved, then one thread stalled: {told:?}");
        assert!(told.last().unwrap().starts_with("STOPPING=1\nSTATUS=draining"), "{told:?}");
    }
}
