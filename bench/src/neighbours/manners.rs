//! The manners of bad neighbours. None of them works hard itself: what it asks for is written
//! beforehand, and what it reads is counted or thrown away.

use std::io;
use std::net::TcpStream;

use super::peer::{Moved, Road};

const NS_PER_MS: u64 = 1_000_000;
const NS_PER_S: u64 = 1000 * NS_PER_MS;
/// What a peer that hardly reads gives the kernel for what it does not read.
pub const RECEIVE_BUFFER: usize = 32 << 10;
/// Connections that a round looks at.
const LOOKS: usize = 32;

/// One way to be a bad neighbour.
pub trait Manner {
    /// Does a little of it. False when there was nothing to do.
    fn round(&mut self, road: &mut Road, now_ns: u64) -> io::Result<bool>;
}

/// A connection and what of the request under way has gone out.
struct Peer {
    stream: TcpStream,
    sent: usize,
}

impl Peer {
    fn new(road: &mut Road) -> io::Result<Peer> {
        Ok(Peer { stream: road.connect()?, sent: 0 })
    }

    /// Sends on, until all of it is out. False when that is so, or the server takes no more.
    fn push(&mut self, road: &mut Road, request: &[u8]) -> io::Result<bool> {
        if self.sent == request.len() {
            return Ok(false);
        }
        match road.send(&mut self.stream, &request[self.sent..]) {
            Moved::Some(count) => {
                self.sent += count;
                Ok(true)
            }
            Moved::Nothing => Ok(false),
            Moved::Gone => {
                self.renew(road)?;
                Ok(true)
            }
        }
    }

    fn renew(&mut self, road: &mut Road) -> io::Result<()> {
        self.sent = 0;
        road.reconnect(&mut self.stream)
    }
}

fn peers(road: &mut Road, count: usize) -> io::Result<Vec<Peer>> {
    (0..count).map(|_| Peer::new(road)).collect()
}

/// Does nothing.
pub struct Nothing;

impl Manner for Nothing {
    fn round(&mut self, _road: &mut Road, _now_ns: u64) -> io::Result<bool> {
        Ok(false)
    }
}

/// Asks for far more than anybody keeps for it, and never reads, or hardly. It does not ask for
/// ever: the kernel would take more for what waits there than either end does.
pub struct Deaf {
    peers: Vec<Peer>,
    request: Vec<u8>,
    next: usize,
    /// What each reads every 100 ms.
    sip_bytes: usize,
    /// When the peer in this place reads again, or looks whether it is still connected.
    looks_at: Vec<u64>,
}

impl Deaf {
    /// With values of 64 KiB, 64 MiB of replies are owed to each connection.
    const REQUESTS: usize = 1024;

    pub fn new(road: &mut Road, connections: usize, sip_bytes: usize) -> io::Result<Deaf> {
        road.receive_buffer(RECEIVE_BUFFER);
        let peers = peers(road, connections)?;
        let request = b"get bad-value\r\n".repeat(Self::REQUESTS);
        Ok(Deaf { peers, request, next: 0, sip_bytes, looks_at: vec![0; connections] })
    }
}

impl Manner for Deaf {
    fn round(&mut self, road: &mut Road, now_ns: u64) -> io::Result<bool> {
        let mut moved = false;
        for _ in 0..LOOKS.min(self.peers.len()) {
            self.next = (self.next + 1) % self.peers.len();
            let peer = &mut self.peers[self.next];
            moved |= peer.push(road, &self.request)?;
            if self.looks_at[self.next] <= now_ns {
                self.looks_at[self.next] = now_ns + 100 * NS_PER_MS;
                let is_gone = match self.sip_bytes {
                    0 => peer.stream.take_error()?.is_some(),
                    most => road.receive(&mut peer.stream, most, |_| {}) == Moved::Gone,
                };
                if is_gone {
                    peer.renew(road)?;
                }
            }
        }
        Ok(moved)
    }
}

/// Sends a byte a second on each connection, and reads what comes of it.
pub struct Trickle {
    peers: Vec<Peer>,
    next: usize,
    due_ns: u64,
}

impl Trickle {
    pub fn new(road: &mut Road, connections: usize) -> io::Result<Trickle> {
        let mut peers = peers(road, connections)?;
        // All places of a command at once, so that a look of seconds sees whole ones too.
        for (at, peer) in peers.iter_mut().enumerate() {
            peer.sent = at % Self::REQUEST.len();
            let begun = &Self::REQUEST[..peer.sent];
            if !begun.is_empty() && road.send(&mut peer.stream, begun) != Moved::Some(begun.len()) {
                return Err(io::Error::other("a new connection takes no bytes"));
            }
        }
        Ok(Trickle { peers, next: 0, due_ns: 0 })
    }

    const REQUEST: &[u8] = b"get bad-value\r\n";
}

impl Manner for Trickle {
    fn round(&mut self, road: &mut Road, now_ns: u64) -> io::Result<bool> {
        if now_ns < self.due_ns {
            return Ok(false);
        }
        self.due_ns = self.due_ns.max(now_ns - NS_PER_MS) + NS_PER_S / self.peers.len() as u64;
        self.next = (self.next + 1) % self.peers.len();
        let peer = &mut self.peers[self.next];
        let byte = &Self::REQUEST[peer.sent..=peer.sent];
        match road.send(&mut peer.stream, byte) {
            Moved::Some(count) => peer.sent = (peer.sent + count) % Self::REQUEST.len(),
            Moved::Nothing => {}
            Moved::Gone => peer.renew(road)?,
        }
        // What the last request brought has come in this second.
        while let Moved::Some(_) = road.discard(&peer.stream, 1 << 20) {}
        Ok(true)
    }
}

/// Half a command on each connection, and no more.
pub struct Halves {
    peers: Vec<Peer>,
    next: usize,
}

impl Halves {
    pub fn new(road: &mut Road, connections: usize) -> io::Result<Halves> {
        let mut peers = peers(road, connections)?;
        for peer in &mut peers {
            Self::begin(road, peer);
        }
        Ok(Halves { peers, next: 0 })
    }

    fn begin(road: &mut Road, peer: &mut Peer) {
        // One that the server closes at once is found in its turn.
        let _ = road.send(&mut peer.stream, b"get a-key-that-never-en");
    }
}

impl Manner for Halves {
    fn round(&mut self, road: &mut Road, _now_ns: u64) -> io::Result<bool> {
        self.next = (self.next + 1) % self.peers.len();
        let peer = &mut self.peers[self.next];
        if road.receive(&mut peer.stream, 1 << 10, |_| {}) == Moved::Gone {
            road.reconnect(&mut peer.stream)?;
            Self::begin(road, peer);
        }
        Ok(false)
    }
}

/// Asks for much at once on each connection, and reads when all is written or the server takes no
/// more.
pub struct Asker {
    peers: Vec<Asking>,
    request: Vec<u8>,
    /// Replies to the whole of it.
    replies: u64,
    /// A byte that is in every reply once, however it ends.
    mark: u8,
    next: usize,
}

struct Asking {
    stream: TcpStream,
    sent: usize,
    /// Replies that came.
    came: u64,
    /// Since when the server has taken nothing.
    stuck_ns: Option<u64>,
    reads: bool,
}

impl Asker {
    /// How long it insists that the server takes more before it reads.
    const INSISTS_NS: u64 = 200 * NS_PER_MS;

    pub fn new(
        road: &mut Road,
        connections: usize,
        (request, replies, mark): (Vec<u8>, u64, u8),
    ) -> io::Result<Asker> {
        let peer = |road: &mut Road| {
            let stream = road.connect()?;
            Ok(Asking { stream, sent: 0, came: 0, stuck_ns: None, reads: false })
        };
        let peers = (0..connections).map(|_| peer(road)).collect::<io::Result<_>>()?;
        Ok(Asker { peers, request, replies, mark, next: 0 })
    }
}

impl Manner for Asker {
    fn round(&mut self, road: &mut Road, now_ns: u64) -> io::Result<bool> {
        self.next = (self.next + 1) % self.peers.len();
        let peer = &mut self.peers[self.next];
        let mut moved = Moved::Nothing;
        if peer.sent < self.request.len() {
            moved = road.send(&mut peer.stream, &self.request[peer.sent..]);
            match moved {
                Moved::Some(count) => {
                    peer.sent += count;
                    peer.stuck_ns = None;
                }
                Moved::Nothing => {
                    let since = *peer.stuck_ns.get_or_insert(now_ns);
                    peer.reads |= now_ns - since > Self::INSISTS_NS;
                }
                Moved::Gone => {}
            }
            peer.reads |= peer.sent == self.request.len();
        }
        if moved != Moved::Gone && peer.reads {
            let (mark, mut marks) = (self.mark, 0);
            let look = |bytes: &[u8]| marks = bytes.iter().filter(|byte| **byte == mark).count();
            let received = road.receive(&mut peer.stream, usize::MAX, look);
            peer.came += marks as u64;
            road.deeds.replies += marks as u64;
            moved = if moved == Moved::Nothing { received } else { moved };
            if received == Moved::Gone {
                moved = Moved::Gone;
            }
        }
        if moved == Moved::Gone {
            road.reconnect(&mut peer.stream)?;
        }
        if moved == Moved::Gone || (peer.came >= self.replies && peer.sent == self.request.len()) {
            (peer.sent, peer.came, peer.stuck_ns, peer.reads) = (0, 0, None, false);
        }
        Ok(moved != Moved::Nothing)
    }
}

/// Stores a large value and asks for it, without end.
pub struct Large {
    stream: TcpStream,
    value_bytes: usize,
    chunk: Vec<u8>,
    state: State,
}

/// Where a large value is.
#[derive(Clone, Copy)]
enum State {
    /// So many bytes of head, value and line end have gone out.
    Put(usize),
    /// The answer to a set is awaited.
    Stored,
    /// The first bytes of the value are awaited.
    Asked,
    /// So many bytes are to come.
    Comes(usize),
}

impl Large {
    pub fn new(road: &mut Road, value_bytes: usize) -> io::Result<Large> {
        let stream = road.connect()?;
        Ok(Large { stream, value_bytes, chunk: vec![b'v'; 1 << 20], state: State::Put(0) })
    }

    fn head(&self) -> String {
        format!("set bad-large 0 0 {}\r\n", self.value_bytes)
    }

    /// Sends what comes at `sent`, and says where it is then.
    fn put(&mut self, road: &mut Road, sent: usize) -> (Moved, State) {
        let head = self.head();
        let end = head.len() + self.value_bytes;
        let piece = if sent < head.len() {
            &head.as_bytes()[sent..]
        } else if sent < end {
            &self.chunk[..self.chunk.len().min(end - sent)]
        } else {
            &b"\r\n"[sent - end..]
        };
        let moved = road.send(&mut self.stream, piece);
        let Moved::Some(count) = moved else { return (moved, State::Put(sent)) };
        let is_done = sent + count == end + 2;
        (moved, if is_done { State::Stored } else { State::Put(sent + count) })
    }

    /// Takes the first bytes of an answer to a get: the value, or its absence.
    fn begin(&mut self, road: &mut Road) -> (Moved, State) {
        const FIRST: &[u8] = b"VALUE";
        let mut first = [0; FIRST.len()];
        let look = |bytes: &[u8]| first[..bytes.len()].copy_from_slice(bytes);
        let moved = road.receive(&mut self.stream, FIRST.len(), look);
        let Moved::Some(count) = moved else { return (moved, State::Asked) };
        if first != FIRST {
            // "END", or a part of it.
            return (moved, State::Put(0));
        }
        let rest = format!("VALUE bad-large 0 {}\r\n\r\nEND\r\n", self.value_bytes).len();
        (moved, State::Comes(rest + self.value_bytes - count))
    }
}

impl Manner for Large {
    fn round(&mut self, road: &mut Road, _now_ns: u64) -> io::Result<bool> {
        let (moved, next) = match self.state {
            State::Put(sent) => self.put(road, sent),
            State::Stored => {
                // Refused or not: then it asks for what is there.
                let moved = road.receive(&mut self.stream, 1 << 10, |_| {});
                match moved {
                    Moved::Some(_) => {
                        road.deeds.replies += 1;
                        (road.send(&mut self.stream, b"get bad-large\r\n"), State::Asked)
                    }
                    Moved::Nothing | Moved::Gone => (moved, State::Stored),
                }
            }
            State::Asked => self.begin(road),
            State::Comes(left) => match road.discard(&self.stream, left) {
                Moved::Some(count) if count == left => {
                    road.deeds.replies += 1;
                    (Moved::Some(count), State::Put(0))
                }
                Moved::Some(count) => (Moved::Some(count), State::Comes(left - count)),
                other @ (Moved::Nothing | Moved::Gone) => (other, State::Comes(left)),
            },
        };
        self.state = next;
        if moved == Moved::Gone {
            road.reconnect(&mut self.stream)?;
            self.state = State::Put(0);
        }
        Ok(moved != Moved::Nothing)
    }
}

/// Connects, asks, and is gone before the answer.
pub struct Storm;

impl Manner for Storm {
    fn round(&mut self, road: &mut Road, _now_ns: u64) -> io::Result<bool> {
        let mut stream = match road.connect() {
            Ok(stream) => stream,
            Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                road.deeds.closed += 1;
                return Ok(false);
            }
            Err(e) => return Err(e),
        };
        if road.send(&mut stream, b"get bad-value\r\n") == Moved::Gone {
            road.deeds.closed += 1;
        }
        // A reset, so that no address is in use for minutes afterwards.
        socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO))?;
        Ok(true)
    }
}
