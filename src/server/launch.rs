//! Starts the threads: rings on their cores, then workers; and holds them by one handle.

use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;

use crate::base::census::{self, Roll};
use crate::base::clock::Clock;
use crate::base::metrics::{Counters, Metric, Registry};
use crate::base::sync::Arc;
use crate::config::{Dispatch, Placement, Plan, StartError};
use crate::net::peers::Peers;
use crate::net::rate::RateLimits;
use crate::net::throttle::Throttle;
use crate::sys::ladder::Rung;
use crate::sys::probe::{self, RingShape};
use crate::sys::socket::Listener;
use crate::sys::thread;
use crate::sys::uring::{Sizes, Uring};
use crate::sys::wake::EventFd;

use super::datagrams::{DatagramSocket, Datagrams};
use super::fleet::Fleet;
use super::ring_loop::{RingLoop, Settings};
use super::service::Service;
use super::worker::Worker;

/// The shape of a server, whatever it serves.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub rings: usize,
    pub workers: usize,
    pub dispatch: Dispatch,
    pub connections_max: u32,
    /// Whether connections beyond that are told so and closed, or wait.
    pub maxconns_fast: bool,
    pub requests_per_event: u32,
    pub idle_timeout_s: u32,
    pub throttle: Throttle,
    pub rate: RateLimits,
    pub rung: Rung,
}

impl Shape {
    pub fn of(plan: &Plan, rung: Rung) -> Shape {
        Shape {
            rings: plan.rings as usize,
            workers: plan.workers as usize,
            dispatch: plan.dispatch,
            connections_max: plan.connections_max,
            maxconns_fast: plan.extended.maxconns_fast,
            requests_per_event: plan.requests_per_event,
            idle_timeout_s: plan.extended.idle_timeout_s,
            throttle: plan.throttle,
            rate: plan.rate,
            rung,
        }
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            submissions: RingShape::SERVER.submissions,
            completions: RingShape::SERVER.completions,
            buffers: (self.rung.mode.buffers(), self.rung.mode.buffer_bytes()),
        }
    }
}

/// A running server.
#[derive(Debug)]
pub struct Handle<S> {
    fleet: Arc<Fleet<S>>,
    rings: Vec<Arc<Counters>>,
    threads: Vec<JoinHandle<()>>,
}

/// What is served: connections from `stream`, datagrams from `datagram`.
#[derive(Debug, Default)]
pub struct Sockets {
    pub stream: Vec<Listener>,
    pub datagram: Vec<DatagramSocket>,
}

/// Starts `shape` on `sockets`, each thread at its place. `service` makes what each thread executes
/// with.
///
/// # Errors
/// What the kernel refuses to a ring.
pub fn launch<V, F>(
    (shape, placement): (Shape, &Placement),
    sockets: Sockets,
    registry: &Registry,
    clock: &Clock,
    service: F,
) -> Result<Handle<V::Session>, StartError>
where
    V: Service + 'static,
    V::Session: 'static,
    F: Fn(Arc<Counters>) -> V + Clone + Send + 'static,
{
    let refused = |what: &str, error: io::Error| {
        StartError::new("start", what, error, "See ringcached --check.")
    };
    let listeners = named(sockets.stream, registry);
    let doorbells = (0..shape.rings).map(|_| EventFd::new().map(Arc::new));
    let doorbells: Vec<_> =
        doorbells.collect::<io::Result<_>>().map_err(|error| refused("a doorbell", error))?;
    let ended = EventFd::new().map_err(|error| refused("a doorbell", error))?;
    let peers = Peers::new(shape.rate, shape.connections_max);
    let fleet = Fleet::new(&doorbells, shape.workers, shape.connections_max, ended);
    let fleet = Arc::new(fleet.with_peers(peers).with_queue(!shape.maxconns_fast));
    let mut rolls = registry.census.rolls(shape.rings + sockets.datagram.len()).into_iter();
    let mut handle = Handle { fleet: Arc::clone(&fleet), rings: Vec::new(), threads: Vec::new() };
    for ((number, doorbell), roll) in doorbells.into_iter().enumerate().zip(rolls.by_ref()) {
        let counters = registry.counters(&format!("ring {number}"));
        handle.rings.push(Arc::clone(&counters));
        let seat = Seat {
            shape,
            number,
            processor: placement.rings.get(number).copied().flatten(),
            listeners: Arc::clone(&listeners),
            doorbell,
            fleet: Arc::clone(&fleet),
            counters,
            roll,
            clock: clock.clone(),
        };
        let thread = seat.start(service.clone());
        let refused = |error| {
            let refusal = probe::refused(&error);
            StartError::new("set up", "io_uring", &refusal, refusal.remedy())
        };
        handle.threads.push(thread.map_err(refused)?);
    }
    for number in 0..shape.workers {
        let counters = registry.counters(&format!("worker {number}"));
        let (fleet, service, clock) = (Arc::clone(&fleet), service.clone(), clock.clone());
        let core = placement.workers.get(number).cloned().unwrap_or_default();
        let run = move || {
            // As with a ring; to be tied to no processor is refused, too.
            let _ = thread::pin(&core);
            let service = service(Arc::clone(&counters));
            Worker::new(number, (service, counters), fleet, clock, shape.requests_per_event).run();
        };
        handle.threads.push(spawn(format!("worker-{number}"), run)?);
    }
    for ((number, socket), roll) in sockets.datagram.into_iter().enumerate().zip(rolls) {
        let counters = registry.counters(&format!("datagrams {number}"));
        let (fleet, service, clock) = (Arc::clone(&fleet), service.clone(), clock.clone());
        let run = move || {
            let service = service(Arc::clone(&counters));
            let datagrams = Datagrams { socket, service, counters, roll, fleet, clock };
            datagrams.run().expect("it has a time-out");
        };
        handle.threads.push(spawn(format!("udp-{number}"), run)?);
    }
    Ok(handle)
}

/// Says among connections what the listeners are called.
fn named(listeners: Vec<Listener>, registry: &Registry) -> Arc<[Listener]> {
    registry.census.name_listeners(listeners.iter().map(name_of).collect());
    listeners.into()
}

/// What a listener is called among connections, as memcached has it.
fn name_of(listener: &Listener) -> String {
    match (listener.local_address(), listener.path()) {
        (Ok(Some(address)), _) => census::name("tcp", address),
        (_, Some(path)) => format!("unix:{}", path.display()),
        (Ok(None) | Err(_), None) => "unix".into(),
    }
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    let thread = std::thread::Builder::new().name(name).spawn(run);
    thread.map_err(|error| StartError::new("start", "a thread", error, "Allow more threads."))
}

/// What one ring's thread is given.
struct Seat<S> {
    shape: Shape,
    number: usize,
    processor: Option<usize>,
    listeners: Arc<[Listener]>,
    doorbell: Arc<EventFd>,
    fleet: Arc<Fleet<S>>,
    counters: Arc<Counters>,
    roll: Roll,
    clock: Clock,
}

impl<S: Default + Send + 'static> Seat<S> {
    /// Starts the thread, and returns when its ring stands: a ring belongs to the thread that made
    /// it.
    fn start<V, F>(self, service: F) -> io::Result<JoinHandle<()>>
    where
        V: Service<Session = S> + 'static,
        F: Fn(Arc<Counters>) -> V + Send + 'static,
    {
        let (report, outcome) = mpsc::channel();
        let name = format!("ring-{}", self.number);
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            // A sandbox may forbid pinning; the server runs without.
            let _ = self.processor.map(|processor| thread::pin(&[processor]));
            match self.ring() {
                Ok(ring) => {
                    report.send(Ok(())).expect("the starter waits");
                    self.serve(ring, service);
                }
                Err(error) => report.send(Err(error)).expect("the starter waits"),
            }
        })?;
        outcome.recv().expect("the thread reports")?;
        Ok(thread)
    }

    fn ring(&self) -> io::Result<Uring> {
        let number = u16::try_from(self.number).map_err(|_| io::ErrorKind::InvalidInput)?;
        let listeners = Arc::clone(&self.listeners);
        let (sizes, rung) = (self.shape.sizes(), self.shape.rung);
        Uring::new(number, sizes, rung, listeners, Arc::clone(&self.doorbell))
    }

    fn serve<V: Service<Session = S>>(self, ring: Uring, service: impl Fn(Arc<Counters>) -> V) {
        let all = u32::try_from(self.listeners.len()).expect("fewer than 2^32 listeners");
        let settings = Settings {
            number: self.number,
            dispatch: self.shape.dispatch,
            requests_per_event: self.shape.requests_per_event,
            idle_timeout_s: self.shape.idle_timeout_s,
            throttle: self.shape.throttle,
            rings: self.shape.rings,
            // One ring accepts for all: it alone can deal connections out evenly.
            listeners: if self.number == 0 { all } else { 0 },
        };
        let service = service(Arc::clone(&self.counters));
        let told = (self.counters, self.roll);
        let mut ring = RingLoop::new(settings, ring, service, self.clock, told, self.fleet);
        if let Err(error) = ring.run() {
            panic!("the kernel refuses to run ring {}: {error}", self.number);
        }
    }
}

impl<S> Handle<S> {
    /// Stops accepting, answers what was asked, closes.
    pub fn drain(&self) {
        self.fleet.drain();
    }

    /// Wakes every ring that sleeps.
    pub fn waker(&self) -> impl Fn() + Send + Sync + 'static
    where
        S: Send + 'static,
    {
        let fleet = Arc::clone(&self.fleet);
        move || fleet.wake_rings()
    }

    /// Rung when the last ring has ended.
    pub fn ended(&self) -> &EventFd {
        &self.fleet.ended
    }

    /// True when the last ring has ended.
    pub fn has_ended(&self) -> bool {
        self.fleet.has_ended()
    }

    /// A number for each ring that changes as long as the ring lives; `None` while it sleeps, idle.
    pub fn heartbeats(&self) -> Vec<Option<u64>> {
        let inboxes = self.fleet.dispatch.inboxes.iter();
        let beat = |(counters, asleep): (&Arc<Counters>, bool)| {
            (!asleep).then(|| counters.get(Metric::RingTurns))
        };
        self.rings.iter().zip(inboxes.map(|inbox| inbox.doorbell.is_asleep())).map(beat).collect()
    }

    /// Waits for all threads.
    ///
    /// # Panics
    /// If one of them did.
    pub fn join(self) {
        for thread in self.threads {
            thread.join().expect("a server thread panicked");
        }
    }
}
