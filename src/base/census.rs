//! What every connection does just now: written by its ring, read by whoever is asked for it.
//!
//! ```text
//!   Census --one for each ring--> Ward --chunks, only more of them--> places of connections
//!                                  ^ the ring's `Roll` writes; readers take what they find
//! ```
//!
//! A place is a few words that one ring writes and anybody reads, without a lock and without order:
//! a row may be a mixture of two moments. Readers and rings meet at a lock only when places are
//! added, and when a reader looks for them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::sync::atomic::{AtomicU64, Ordering};
use super::sync::{Arc, Mutex};

/// Places that are added at a time.
const CHUNK: usize = 256;

macro_rules! doings {
    ($($(#[$doc:meta])* $variant:ident $name:literal,)+) => {
        /// What a connection does, or waits for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Doing { $($(#[$doc])* $variant,)+ }

        impl Doing {
            pub const ALL: &[Doing] = &[$(Doing::$variant,)+];

            pub const fn name(self) -> &'static str {
                match self { $(Doing::$variant => $name,)+ }
            }
        }
    };
}

doings! {
    /// Its peer's requests.
    Receiving "receiving",
    /// The peer reads its replies.
    Sending "sending",
    /// Nothing is received: it holds more than its share.
    Parked "parked",
    /// Nothing is received: its peer's address has had its share.
    AwaitsRate "awaits_rate",
    /// Nothing is executed: the peer must read first.
    MustRead "must_read",
    /// A block to write replies in.
    AwaitsBlock "awaits_block",
    /// A buffer to receive into.
    AwaitsBuffer "awaits_buffer",
    /// Memory for an item.
    AwaitsItem "awaits_item",
    /// That less is sent from where it lies, to be sent a large value.
    AwaitsSpan "awaits_span",
    /// Room in the queue to the workers.
    Queueing "queueing",
    AtWorker "at_worker",
    /// The last replies are sent.
    Draining "draining",
    Closing "closing",
    /// No connection: datagrams of anybody come in here.
    Datagrams "datagrams",
}

/// What there is to say of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    pub doing: Doing,
    /// Bytes of blocks that hold its replies.
    pub reply_bytes: u64,
    /// Bytes of requests that wait.
    pub request_bytes: u64,
    /// Bytes of items that it keeps, because they are sent to it or come from it.
    pub item_bytes: u64,
    /// The tick at which bytes moved last.
    pub active_at: u32,
}

/// What an address is called among connections: `tcp:192.0.2.1:5`, `udp6:[2001:db8::1]:5`.
pub fn name(transport: &str, address: SocketAddr) -> String {
    let version = if address.is_ipv6() { "6" } else { "" };
    format!("{transport}{version}:{address}")
}

/// The words of a place; the first is 0 while nobody is there.
#[derive(Debug, Default)]
struct Place {
    doing: AtomicU64,
    reply_bytes: AtomicU64,
    request_bytes: AtomicU64,
    item_bytes: AtomicU64,
    active_at: AtomicU64,
    address: [AtomicU64; 2],
    /// The port, 0 where there is no address, in 16 bits; above them one more than the number of
    /// the listener, if it has one.
    origin: AtomicU64,
}

/// Where a connection came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// `None` for Unix sockets.
    pub peer: Option<SocketAddr>,
    /// The number of the listener that it was accepted from.
    pub listener: Option<u32>,
}

type Chunk = Arc<[Place]>;

#[derive(Debug, Default)]
struct Ward(Mutex<Vec<Chunk>>);

/// The connections of all rings.
#[derive(Debug, Default)]
pub struct Census {
    wards: Mutex<Vec<Arc<Ward>>>,
    /// What the listeners are called, by number.
    listeners: Mutex<Vec<String>>,
}

impl Census {
    /// The rolls of all that have connections: of the rings, by number, and of datagrams behind
    /// them. All at once, because how many there are is in the number of a connection.
    pub fn rolls(&self, count: usize) -> Vec<Roll> {
        let wards: Vec<_> = (0..count).map(|_| Arc::new(Ward::default())).collect();
        self.wards.lock().clone_from(&wards);
        let roll = |(number, ward)| Roll { number, of: count, ward, chunks: Vec::new() };
        wards.into_iter().enumerate().map(roll).collect()
    }

    /// Says what the listeners are called, by number.
    pub fn name_listeners(&self, names: Vec<String>) {
        *self.listeners.lock() = names;
    }

    /// What the listener of this number is called, if it has a name.
    pub fn listener(&self, number: u32) -> Option<String> {
        self.listeners.lock().get(number as usize).cloned()
    }

    /// The first connection from `position` on, by its position: ring after ring, in the order of
    /// the places of each.
    pub fn next(&self, position: usize) -> Option<(usize, Sighting, Origin)> {
        let wards = self.wards.lock();
        let (first, mut place) = (position >> RING_SHIFT, position & ((1 << RING_SHIFT) - 1));
        for (ring, ward) in wards.iter().enumerate().skip(first) {
            let chunks = ward.0.lock();
            while let Some(chunk) = chunks.get(place / CHUNK) {
                if let Some(sighting) = chunk[place % CHUNK].read() {
                    let origin = chunk[place % CHUNK].origin();
                    return Some(((ring << RING_SHIFT) + place, sighting, origin));
                }
                place += 1;
            }
            place = 0;
        }
        None
    }

    /// A short number for a position, as long as nobody new has its ring's place.
    pub fn number(&self, position: usize) -> u32 {
        let (ring, place) = (position >> RING_SHIFT, position & ((1 << RING_SHIFT) - 1));
        number(place, ring, self.wards.lock().len())
    }
}

/// The number of who has a place of this ring, of so many.
fn number(place: usize, ring: usize, rings: usize) -> u32 {
    u32::try_from(place * rings + ring).unwrap_or(u32::MAX)
}

/// A position is a ring and, in so many bits, a place.
const RING_SHIFT: u32 = 32;

/// Where one ring writes. Only its owner may.
#[derive(Debug)]
pub struct Roll {
    number: usize,
    of: usize,
    ward: Arc<Ward>,
    chunks: Vec<Chunk>,
}

impl Roll {
    /// Somebody new has a place.
    pub fn enter(&mut self, place: u32, origin: Origin) {
        let place = place as usize;
        while self.chunks.len() <= place / CHUNK {
            let chunk: Chunk = (0..CHUNK).map(|_| Place::default()).collect();
            self.ward.0.lock().push(Arc::clone(&chunk));
            self.chunks.push(chunk);
        }
        self.place(place).set_origin(origin);
    }

    pub fn write(&self, place: u32, sighting: &Sighting) {
        self.place(place as usize).write(sighting);
    }

    /// What who has the place is called, as by `Census::number`.
    pub fn number(&self, place: u32) -> u32 {
        number(place as usize, self.number, self.of)
    }

    /// Where who has the place came from.
    pub fn origin(&self, place: u32) -> Origin {
        self.place(place as usize).origin()
    }

    /// There are no more places than that.
    pub fn shrink(&mut self, places: usize) {
        self.chunks.truncate(places.div_ceil(CHUNK));
        self.ward.0.lock().truncate(self.chunks.len());
    }

    /// Nobody has the place any more.
    pub fn leave(&self, place: u32) {
        // Relaxed, as everywhere here: words that order nothing.
        self.place(place as usize).doing.store(0, Ordering::Relaxed);
    }

    fn place(&self, place: usize) -> &Place {
        &self.chunks[place / CHUNK][place % CHUNK]
    }
}

impl Place {
    fn write(&self, sighting: &Sighting) {
        let store = |word: &AtomicU64, value| word.store(value, Ordering::Relaxed);
        store(&self.reply_bytes, sighting.reply_bytes);
        store(&self.request_bytes, sighting.request_bytes);
        store(&self.item_bytes, sighting.item_bytes);
        store(&self.active_at, sighting.active_at.into());
        store(&self.doing, sighting.doing as u64 + 1);
    }

    fn read(&self) -> Option<Sighting> {
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let doing = usize::try_from(load(&self.doing)).ok()?.checked_sub(1)?;
        Some(Sighting {
            doing: *Doing::ALL.get(doing)?,
            reply_bytes: load(&self.reply_bytes),
            request_bytes: load(&self.request_bytes),
            item_bytes: load(&self.item_bytes),
            active_at: u32::try_from(load(&self.active_at)).ok()?,
        })
    }

    fn set_origin(&self, origin: Origin) {
        let (bits, port) = match origin.peer {
            Some(SocketAddr::V4(v4)) => (v4.ip().to_ipv6_mapped().to_bits(), v4.port()),
            Some(SocketAddr::V6(v6)) => (v6.ip().to_bits(), v6.port()),
            None => (0, 0),
        };
        let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(0);
        self.address[0].store(half(bits >> 64), Ordering::Relaxed);
        self.address[1].store(half(bits), Ordering::Relaxed);
        let listener = origin.listener.map_or(0, |number| u64::from(number) + 1);
        self.origin.store(listener << u16::BITS | u64::from(port), Ordering::Relaxed);
    }

    fn origin(&self) -> Origin {
        let word = self.origin.load(Ordering::Relaxed);
        let port = u16::try_from(word & u64::from(u16::MAX)).unwrap_or(0);
        let listener = (word >> u16::BITS).checked_sub(1);
        Origin {
            peer: self.peer(port),
            listener: listener.and_then(|number| u32::try_from(number).ok()),
        }
    }

    fn peer(&self, port: u16) -> Option<SocketAddr> {
        let port = Some(port).filter(|port| *port > 0)?;
        let [high, low] = [0, 1].map(|half: usize| self.address[half].load(Ordering::Relaxed));
        let address = Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low));
        let address = address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4);
        Some(SocketAddr::new(address, port))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const SEEN: Sighting = Sighting {
        doing: Doing::Parked,
        reply_bytes: 1,
        request_bytes: 2,
        item_bytes: 3,
        active_at: 4,
    };

    #[test]
    fn who_is_there_is_seen_ring_by_ring() {
        let census = Census::default();
        let [mut one, mut two] = census.rolls(2).try_into().unwrap();
        assert_eq!(census.next(0), None);
        let peers = ["127.0.0.1:5", "[2001:db8::1]:65535"].map(|text| text.parse().ok());
        let origins = [(peers[0], Some(0)), (peers[1], None), (None, Some(u32::MAX))]
            .map(|(peer, listener)| Origin { peer, listener });
        one.enter(300, origins[0]);
        one.write(300, &SEEN);
        two.enter(0, origins[1]);
        two.write(0, &Sighting { doing: Doing::Closing, ..SEEN });
        two.enter(1, Origin::default());
        let (position, seen, origin) = census.next(0).unwrap();
        assert_eq!((seen, origin, census.number(position)), (SEEN, origins[0], 600));
        assert_eq!((one.origin(300), one.number(300), two.number(1)), (origins[0], 600, 3));
        let (position, seen, origin) = census.next(position + 1).unwrap();
        assert_eq!((seen.doing, origin), (Doing::Closing, origins[1]));
        assert_eq!(census.number(position), 1);
        assert_eq!(census.next(position + 1), None, "who is there but not seen yet");
        one.leave(300);
        assert_eq!(census.next(0).unwrap().0, position);
        one.shrink(256);
        assert_eq!(one.chunks.len(), 1);
        one.enter(300, origins[2]);
        one.write(300, &SEEN);
        assert_eq!(census.next(0), Some((300, SEEN, origins[2])));
        census.name_listeners(vec![name("tcp", peers[1].unwrap())]);
        assert_eq!(census.listener(0).unwrap(), "tcp6:[2001:db8::1]:65535");
        assert_eq!(census.listener(u32::MAX), None);
    }
}
