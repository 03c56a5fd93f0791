//! The UDP port: one datagram in, one reply no longer than it out, or silence.
//!
//! Only on loopback, without a key and to loopback, a line of text is answered too, by as many
//! datagrams as it takes: whoever can forge that source is on this host already.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use crate::base::clock::Clock;
use crate::base::metrics::{Counters, Distribution, Metric, Registry};
use crate::base::sync::Arc;
use crate::config::{AdminPlan, StartError};

use super::figures::Figures;
use super::limit::{Limiter, Rate};
use super::sign::Signer;
use super::wire::{Ask, Entry, MAGIC, ReplyHead, Request};
use super::{Control, text};

/// Datagrams that are read at a time, so that a flood does not keep signals waiting.
const DATAGRAMS_PER_TURN: usize = 64;
const PER_SOURCE: Rate = Rate { per_s: 500, burst: 1000 };
const OVERALL: Rate = Rate { per_s: 2000, burst: 4000 };
/// A cookie is good in the window in which it was made and in the next.
const COOKIE_WINDOW_NS: u64 = 60_000_000_000;

/// The bound socket, before there is anything to tell.
#[derive(Debug)]
pub struct AdminSocket {
    socket: UdpSocket,
    address: SocketAddr,
    signer: Option<Signer>,
    tells_keys: bool,
}

impl AdminSocket {
    /// Binds as planned; a port that nobody asked for gives way to another when it is taken.
    pub fn bind(plan: &AdminPlan) -> Result<AdminSocket, StartError> {
        let refuse = |error: io::Error| {
            let remedy = "Choose another with --admin ADDR:PORT, or use --admin off.";
            StartError::new("serve statistics on", plan.address, error, remedy)
        };
        if plan.key.is_none() && !plan.address.ip().is_loopback() {
            return Err(refuse(io::Error::other("off loopback there must be a key")));
        }
        let bound = match UdpSocket::bind(plan.address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && plan.may_move => {
                UdpSocket::bind((plan.address.ip(), 0))
            }
            bound => bound,
        };
        let socket = bound.map_err(refuse)?;
        socket.set_nonblocking(true).map_err(refuse)?;
        let address = socket.local_addr().map_err(refuse)?;
        let signer = plan.key.as_ref().map(|key| Signer::new(key.bytes()));
        Ok(AdminSocket { socket, address, signer, tells_keys: plan.tells_keys })
    }

    /// Where it is bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Answers at an `AdminSocket`.
pub struct Responder {
    socket: UdpSocket,
    address: SocketAddr,
    desk: Desk,
}

impl Responder {
    pub fn new(
        socket: AdminSocket,
        registry: &Arc<Registry>,
        control: &Arc<dyn Control>,
        clock: Clock,
    ) -> Responder {
        let AdminSocket { socket, address, signer, tells_keys } = socket;
        let (registry, control) = (Arc::clone(registry), Arc::clone(control));
        let counters = registry.counters("admin");
        let figures = Figures { registry, control, clock, tells_keys };
        Responder { socket, address, desk: Desk::new(figures, signer, counters) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers the datagrams that have come, up to a bound. Waits for none.
    pub fn turn(&mut self) {
        // One byte more than is valid, so that what is too long is seen to be.
        let mut datagram = [0; super::wire::REQUEST_BYTES_MAX + 1];
        for _ in 0..DATAGRAMS_PER_TURN {
            // An error is either "nothing there", or the echo of a reply that nobody wanted.
            let Ok((bytes, source)) = self.socket.recv_from(&mut datagram) else { return };
            for reply in self.desk.answer(&datagram[..bytes], source) {
                // A reply that does not go out is lost, as any datagram may be; the asker retries.
                let _ = self.socket.send_to(&reply, source);
            }
        }
    }
}

impl AsFd for Responder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The responder without its socket.
struct Desk {
    figures: Figures,
    signer: Option<Signer>,
    /// Makes cookies; nobody else knows its key.
    cookies: Signer,
    boot_id: u64,
    sequence: u64,
    limiter: Limiter,
    counters: Arc<Counters>,
}

impl Desk {
    fn new(figures: Figures, signer: Option<Signer>, counters: Arc<Counters>) -> Desk {
        let secret: Vec<u8> = (0..4).flat_map(|_| random().to_ne_bytes()).collect();
        let cookies = Signer::new(&secret);
        let limiter = Limiter::new(PER_SOURCE, OVERALL);
        Desk { figures, signer, cookies, boot_id: random(), sequence: 0, limiter, counters }
    }

    /// The replies to one datagram; none is silence.
    fn answer(&mut self, datagram: &[u8], source: SocketAddr) -> Vec<Vec<u8>> {
        let now_ns = self.figures.clock.elapsed_ns();
        let is_local = source.ip().to_canonical().is_loopback();
        let is_welcome = self.signer.is_some() || is_local;
        let mut replies = if !is_welcome || !self.limiter.admit(source, now_ns) {
            Vec::new()
        } else if datagram.starts_with(&MAGIC) {
            self.answer_packet(datagram, source, now_ns).into_iter().collect()
        } else if self.signer.is_none() {
            text::answer(datagram, &self.figures).unwrap_or_default()
        } else {
            Vec::new()
        };
        // The first datagram is paid for; a long text pays for the others too.
        let mut paid = 1;
        while paid < replies.len() && self.limiter.admit(source, now_ns) {
            paid += 1;
        }
        replies.truncate(paid);
        let metric = if replies.is_empty() { Metric::AdminDropped } else { Metric::AdminServed };
        self.counters.bump(metric);
        replies
    }

    fn answer_packet(
        &mut self,
        datagram: &[u8],
        source: SocketAddr,
        now_ns: u64,
    ) -> Option<Vec<u8>> {
        let request = Request::decode(datagram, self.signer.as_ref())?;
        let is_stale = self.signer.is_some()
            && request.ask != Ask::Hello
            && ![0, 1].map(|age| self.cookie(source, now_ns, age)).contains(&Some(request.cookie));
        let ask = if is_stale { Ask::Hello } else { request.ask };
        let cookie = self.cookie(source, now_ns, 0).unwrap_or(0);
        let head = |total: usize| ReplyHead {
            ask,
            id: request.id,
            first: request.first,
            thread: request.thread,
            boot_id: self.boot_id,
            sequence: self.sequence + 1,
            elapsed_ns: now_ns,
            total: u32::try_from(total).unwrap_or(u32::MAX),
        };
        let reply = |entries: &[Entry<'_>]| {
            // What begins past the end is an empty page, not an error.
            let first = usize::try_from(request.first).unwrap_or(usize::MAX).min(entries.len());
            let page = entries[first..].iter().copied();
            head(entries.len()).encode(page, datagram.len(), self.signer.as_ref())
        };
        let value = |figure: super::figures::Figure| Entry::Value(figure.value);
        let answer = match ask {
            // Whatever page was asked for, the cookie is the answer.
            Ask::Hello => {
                let entries = [Entry::Value(cookie)].into_iter();
                head(1).encode(entries, datagram.len(), self.signer.as_ref())
            }
            Ask::Values => reply(&self.figures.all().into_iter().map(value).collect::<Vec<_>>()),
            Ask::Names => {
                let name = |figure: &super::figures::Figure| Entry::Name {
                    is_gauge: figure.is_gauge,
                    name: figure.name,
                };
                reply(&self.figures.all().iter().map(name).collect::<Vec<_>>())
            }
            Ask::Threads => {
                let threads = self.figures.threads();
                let names = threads.iter().map(|thread| thread.owner.as_str());
                reply(&names.map(|name| Entry::Name { is_gauge: false, name }).collect::<Vec<_>>())
            }
            Ask::ThreadValues => {
                let threads = self.figures.threads();
                let thread = threads.get(usize::try_from(request.thread).ok()?)?;
                reply(&Figures::of_thread(thread).map(value).collect::<Vec<_>>())
            }
            Ask::Spreads => {
                let names = Distribution::ALL.iter().map(|each| each.name());
                reply(&names.map(|name| Entry::Name { is_gauge: false, name }).collect::<Vec<_>>())
            }
            Ask::Counts => {
                let distribution = Distribution::ALL.get(usize::try_from(request.thread).ok()?)?;
                let spread = self.figures.spread(*distribution);
                reply(&spread.counts().iter().copied().map(Entry::Value).collect::<Vec<_>>())
            }
            Ask::Classes => {
                reply(&self.figures.classes().into_iter().map(Entry::Value).collect::<Vec<_>>())
            }
        };
        // Only what is answered counts: a number that is missed is a reply that was lost.
        self.sequence += 1;
        Some(answer)
    }

    /// What `source` must show, `age` windows after it was made. `None` before there was a window.
    fn cookie(&self, source: SocketAddr, now_ns: u64, age: u64) -> Option<u64> {
        let window = (now_ns / COOKIE_WINDOW_NS).checked_sub(age)?;
        let mut message = window.to_be_bytes().to_vec();
        match source.ip() {
            IpAddr::V4(address) => message.extend(address.octets()),
            IpAddr::V6(address) => message.extend(address.octets()),
        }
        message.extend(source.port().to_be_bytes());
        let mac = self.cookies.sign(&message);
        mac.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
    }
}

/// A number that nobody can guess: the standard library's hash keys come from the system.
fn random() -> u64 {
    RandomState::new().hash_one("ringcached")
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
