//! The asking end of the live statistics: timeouts, retries, pages, cookies, restarts.
//!
//! A datagram may be lost, late, doubled or forged. A reply counts only if it is well formed, has
//! the id of the question, is signed where there is a key, and is newer than the last one of the
//! same process.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use ringcached::admin::sign::Signer;
use ringcached::admin::wire::{Ask, REQUEST_BYTES_MAX, Reply, Request};
use ringcached::base::clock::Clock;
use ringcached::base::histogram::Snapshot;
use ringcached::config::AdminKey;

const TRIES: u32 = 3;
/// How often a server may restart, or renew its cookie, while one question is asked.
const ROUNDS: u32 = 4;

#[derive(Debug)]
pub(crate) enum Error {
    /// Nothing came back; with a key this is also what a wrong one looks like.
    Silence {
        signed: bool,
    },
    /// The host says that nobody listens.
    Refused,
    /// The server keeps restarting, or does not keep to the protocol.
    Confused,
    Socket(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Silence { signed: false } => {
                f.write_str("no answer; if the server has a key, give --key-file")
            }
            Error::Silence { signed: true } => {
                f.write_str("no answer; the key may not be the server's")
            }
            Error::Refused => f.write_str("no ringcached answers there; see --server"),
            Error::Confused => f.write_str("the answers do not fit together"),
            Error::Socket(error) => error.fmt(f),
        }
    }
}

/// One figure, as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) is_gauge: bool,
    pub(crate) value: u64,
}

/// The figures of the process at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) boot_id: u64,
    pub(crate) sequence: u64,
    /// Since the server started.
    pub(crate) elapsed_ns: u64,
    pub(crate) figures: Vec<Figure>,
}

/// A size class of items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) slot_bytes: u64,
    pub(crate) pages: u64,
    pub(crate) slots: u64,
    pub(crate) slots_free: u64,
}

/// All that a server tells, at about one moment.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) sample: Sample,
    pub(crate) threads: Vec<(String, Vec<Figure>)>,
    pub(crate) spreads: Vec<(String, Snapshot)>,
    pub(crate) classes: Vec<Class>,
}

impl Sample {
    pub(crate) fn get(&self, name: &str) -> Option<u64> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
    }
}

/// The names of one process.
#[derive(Debug)]
struct Book {
    boot_id: u64,
    /// Whether it is a gauge, and the name.
    names: Vec<(bool, String)>,
}

pub(crate) struct Client {
    socket: UdpSocket,
    signer: Option<Signer>,
    timeout: Duration,
    clock: Clock,
    next_id: u64,
    cookie: u64,
    book: Option<Book>,
    /// Boot id and sequence of the last reply.
    last: (u64, u64),
}

impl Client {
    pub(crate) fn open(
        server: SocketAddr,
        key: Option<&AdminKey>,
        timeout: Duration,
    ) -> Result<Client, Error> {
        let any: SocketAddr = match server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).map_err(Error::Socket)?;
        // Connected, so that the kernel drops what comes from elsewhere.
        socket.connect(server).map_err(Error::Socket)?;
        Ok(Client {
            socket,
            signer: key.map(|key| Signer::new(key.bytes())),
            timeout,
            clock: Clock::start(),
            next_id: RandomState::new().hash_one("request id"),
            cookie: 0,
            book: None,
            last: (0, 0),
        })
    }

    /// The figures now. Whatever was lost by a restart in between is asked for again.
    pub(crate) fn sample(&mut self) -> Result<Sample, Error> {
        for _ in 0..ROUNDS {
            let names = self.names()?;
            let Some(pages) = self.pages(Ask::Values, 0)? else { continue };
            if pages.boot_id != names.0 || pages.values.len() != names.1.len() {
                self.book = None;
                continue;
            }
            let figures = names.1.into_iter().zip(pages.values);
            let figures =
                figures.map(|((is_gauge, name), value)| Figure { name, is_gauge, value }).collect();
            let Pages { boot_id, sequence, elapsed_ns, .. } = pages;
            return Ok(Sample { boot_id, sequence, elapsed_ns, figures });
        }
        Err(Error::Confused)
    }

    /// The figures of each thread, with its name.
    pub(crate) fn threads(&mut self) -> Result<Vec<(String, Vec<Figure>)>, Error> {
        'round: for _ in 0..ROUNDS {
            let (boot_id, names) = self.names()?;
            let Some(threads) = self.pages(Ask::Threads, 0)? else { continue };
            let mut found = Vec::new();
            for (index, (_, thread)) in (0..).zip(threads.names) {
                let Some(pages) = self.pages(Ask::ThreadValues, index)? else { continue 'round };
                if pages.boot_id != boot_id {
                    self.book = None;
                    continue 'round;
                }
                let figures = names.iter().zip(pages.values);
                let figures = figures.map(|((is_gauge, name), value)| Figure {
                    name: name.clone(),
                    is_gauge: *is_gauge,
                    value,
                });
                found.push((thread, figures.collect()));
            }
            return Ok(found);
        }
        Err(Error::Confused)
    }

    /// All that there is to know, of one process.
    pub(crate) fn reading(&mut self) -> Result<Reading, Error> {
        for _ in 0..ROUNDS {
            let (sample, threads) = (self.sample()?, self.threads()?);
            let (Some(spreads), Some(classes)) = (self.spreads()?, self.classes()?) else {
                continue;
            };
            // Whatever came last is of the process that the first was of.
            if self.last.0 == sample.boot_id {
                return Ok(Reading { sample, threads, spreads, classes });
            }
        }
        Err(Error::Confused)
    }

    /// How values are spread, by name; `None` if the server restarted in between.
    fn spreads(&mut self) -> Result<Option<Vec<(String, Snapshot)>>, Error> {
        let Some(pages) = self.pages(Ask::Spreads, 0)? else { return Ok(None) };
        let mut spreads = Vec::new();
        for (index, (_, name)) in (0..).zip(pages.names) {
            let Some(counts) = self.pages(Ask::Counts, index)? else { return Ok(None) };
            spreads.push((name, Snapshot::from_counts(counts.values)));
        }
        Ok(Some(spreads))
    }

    /// The size classes; `None` if the server restarted in between.
    fn classes(&mut self) -> Result<Option<Vec<Class>>, Error> {
        let Some(pages) = self.pages(Ask::Classes, 0)? else { return Ok(None) };
        let class = |[slot_bytes, pages, slots, slots_free]: &[u64; 4]| Class {
            slot_bytes: *slot_bytes,
            pages: *pages,
            slots: *slots,
            slots_free: *slots_free,
        };
        let (classes, _) = pages.values.as_chunks::<4>();
        Ok(Some(classes.iter().map(class).collect()))
    }

    /// Boot id and names, from the book or from the server.
    fn names(&mut self) -> Result<(u64, Vec<(bool, String)>), Error> {
        for _ in 0..ROUNDS {
            if let Some(book) = &self.book {
                return Ok((book.boot_id, book.names.clone()));
            }
            if let Some(pages) = self.pages(Ask::Names, 0)? {
                self.book = Some(Book { boot_id: pages.boot_id, names: pages.names });
            }
        }
        Err(Error::Confused)
    }

    /// All pages of one kind; `None` if the server restarted between two of them.
    fn pages(&mut self, ask: Ask, thread: u32) -> Result<Option<Pages>, Error> {
        let mut pages = Pages::default();
        loop {
            let first = u32::try_from(pages.len()).map_err(|_| Error::Confused)?;
            let reply = self.exchange(ask, first, thread)?;
            if first == 0 {
                pages.boot_id = reply.head.boot_id;
            } else if pages.boot_id != reply.head.boot_id {
                return Ok(None);
            }
            (pages.sequence, pages.elapsed_ns) = (reply.head.sequence, reply.head.elapsed_ns);
            let before = pages.len();
            pages.values.extend(reply.values);
            pages.names.extend(reply.names);
            if pages.len() >= usize::try_from(reply.head.total).unwrap_or(usize::MAX) {
                return Ok(Some(pages));
            }
            if pages.len() == before {
                return Err(Error::Confused);
            }
        }
    }

    /// One question and its answer, with a cookie where there is a key.
    fn exchange(&mut self, ask: Ask, first: u32, thread: u32) -> Result<Reply, Error> {
        for _ in 0..ROUNDS {
            let ask = if self.signer.is_some() && self.cookie == 0 { Ask::Hello } else { ask };
            let request = match ask {
                Ask::Hello => Request { ask, id: self.next_id, first: 0, thread: 0, cookie: 0 },
                Ask::Values
                | Ask::Names
                | Ask::Threads
                | Ask::ThreadValues
                | Ask::Spreads
                | Ask::Counts
                | Ask::Classes => {
                    Request { ask, id: self.next_id, first, thread, cookie: self.cookie }
                }
            };
            self.next_id = self.next_id.wrapping_add(1);
            let reply = self.ask(request)?;
            if reply.head.ask == Ask::Hello {
                self.cookie = *reply.values.first().ok_or(Error::Confused)?;
            } else {
                return Ok(reply);
            }
        }
        Err(Error::Confused)
    }

    /// Sends `request` until a reply comes, or gives up.
    fn ask(&mut self, request: Request) -> Result<Reply, Error> {
        let datagram = request.encode(REQUEST_BYTES_MAX, self.signer.as_ref());
        for _ in 0..TRIES {
            // An error of the last datagram may be reported by this one: receiving tells too.
            if self.socket.send(&datagram).is_err() {
                self.socket.send(&datagram).map_err(refusal)?;
            }
            if let Some(reply) = self.await_reply(&request)? {
                self.last = (reply.head.boot_id, reply.head.sequence);
                return Ok(reply);
            }
        }
        Err(Error::Silence { signed: self.signer.is_some() })
    }

    /// The reply to `request`, if it comes in time.
    fn await_reply(&self, request: &Request) -> Result<Option<Reply>, Error> {
        let now = || Duration::from_nanos(self.clock.elapsed_ns());
        let deadline = now() + self.timeout;
        let mut datagram = [0; REQUEST_BYTES_MAX + 1];
        loop {
            let left = deadline.saturating_sub(now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left)).map_err(Error::Socket)?;
            let bytes = match self.socket.recv(&mut datagram) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    return Err(Error::Refused);
                }
                // Interrupted, or the time is up: the deadline decides.
                Err(_) => continue,
            };
            let reply = Reply::decode(&datagram[..bytes], self.signer.as_ref());
            if let Some(reply) = reply.filter(|reply| self.is_answer(request, reply)) {
                return Ok(Some(reply));
            }
        }
    }

    fn is_answer(&self, request: &Request, reply: &Reply) -> bool {
        let head = reply.head;
        let is_new = head.boot_id != self.last.0 || head.sequence > self.last.1;
        let is_kind = head.ask == request.ask || (head.ask == Ask::Hello && self.signer.is_some());
        let is_place = (head.first, head.thread) == (request.first, request.thread);
        head.id == request.id && is_new && is_kind && is_place
    }
}

/// What several replies brought together.
#[derive(Default)]
struct Pages {
    boot_id: u64,
    sequence: u64,
    elapsed_ns: u64,
    values: Vec<u64>,
    names: Vec<(bool, String)>,
}

impl Pages {
    fn len(&self) -> usize {
        self.values.len() + self.names.len()
    }
}

fn refusal(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        Error::Refused
    } else {
        Error::Socket(error)
    }
}
