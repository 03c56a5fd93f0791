//! Lines for those who watch: what happened, one a line, as name and value.
//!
//! ```text
//!   ts=1700000000.031250 gid=7 type=item_get key=user%3A1 status=found clsid=5 cfd=12 size=100
//! ```
//!
//! Keys are encoded as in a URI. Lines end with a line feed alone. `gid` is a number of its own for
//! each line, by which lines of different threads can be put in order.

use std::net::SocketAddr;

use super::number::DECIMAL_BYTES_MAX;
use super::pen::{Pen, URI_BYTES_MAX};
use crate::base::limits::{KEY_BYTES_MAX, REPLY_HEAD_BYTES_MAX};

/// Names, words and spaces of the longest line come to less than this, as do addresses where there
/// is no key.
const WORDS_BYTES_MAX: usize = 128;

/// No line is longer.
pub const LOG_LINE_BYTES_MAX: usize =
    WORDS_BYTES_MAX + URI_BYTES_MAX * KEY_BYTES_MAX + 7 * DECIMAL_BYTES_MAX;

const _: () = assert!(LOG_LINE_BYTES_MAX <= REPLY_HEAD_BYTES_MAX);

/// What somebody watches: a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchKinds(u16);

impl WatchKinds {
    pub const FETCHERS: WatchKinds = WatchKinds(1);
    pub const MUTATIONS: WatchKinds = WatchKinds(1 << 1);
    pub const EVICTIONS: WatchKinds = WatchKinds(1 << 2);
    pub const CONNEVENTS: WatchKinds = WatchKinds(1 << 3);
    pub const DELETIONS: WatchKinds = WatchKinds(1 << 4);
    /// Of what memcached's proxy and its threads would have to tell, there is nothing here.
    const OTHERS: WatchKinds = WatchKinds(1 << 5);

    /// In the order in which memcached looks for them.
    const NAMES: [(&[u8], WatchKinds); 10] = [
        (b"rawcmds", WatchKinds::OTHERS),
        (b"evictions", WatchKinds::EVICTIONS),
        (b"fetchers", WatchKinds::FETCHERS),
        (b"mutations", WatchKinds::MUTATIONS),
        (b"sysevents", WatchKinds::OTHERS),
        (b"connevents", WatchKinds::CONNEVENTS),
        (b"proxyreqs", WatchKinds::OTHERS),
        (b"proxyevents", WatchKinds::OTHERS),
        (b"proxyuser", WatchKinds::OTHERS),
        (b"deletions", WatchKinds::DELETIONS),
    ];

    /// The kind of that name, or the first whose name begins so, as memcached has it.
    fn named(word: &[u8]) -> Option<WatchKinds> {
        let found = WatchKinds::NAMES.iter().find(|(name, _)| name.starts_with(word));
        found.map(|(_, kind)| *kind)
    }

    /// The kinds that a line names behind its verb; without any, what is fetched. `None` where it
    /// names something else.
    pub(super) fn parse(line: &[u8]) -> Option<WatchKinds> {
        let words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        let mut kinds = WatchKinds::default();
        for word in words.skip(1) {
            kinds = kinds.with(WatchKinds::named(word)?);
        }
        Some(if kinds.is_empty() { WatchKinds::FETCHERS } else { kinds })
    }

    #[must_use]
    pub const fn with(self, other: WatchKinds) -> WatchKinds {
        WatchKinds(self.0 | other.0)
    }

    #[inline]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// True when both have something in common.
    #[inline]
    pub fn has(self, other: WatchKinds) -> bool {
        self.0 & other.0 != 0
    }

    pub fn to_bits(self) -> u16 {
        self.0
    }

    #[inline]
    pub fn from_bits(bits: u16) -> WatchKinds {
        WatchKinds(bits)
    }
}

/// When something happened, and the number of its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogStamp {
    pub unix_s: u64,
    pub micros: u32,
    pub number: u64,
}

/// What became of a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    NotFound,
    Found,
    Flushed,
    Expired,
}

impl Fetched {
    fn name(self) -> &'static [u8] {
        match self {
            Fetched::NotFound => b"not_found",
            Fetched::Found => b"found",
            Fetched::Flushed => b"flushed",
            Fetched::Expired => b"expired",
        }
    }
}

/// Something that happened. Classes are 0 where there is no item; connections have the numbers of
/// `stats conns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogEntry<'a> {
    Get {
        key: &'a [u8],
        status: Fetched,
        class: u8,
        connection: u32,
        value_bytes: u64,
    },
    Store {
        key: &'a [u8],
        status: &'static str,
        verb: &'static str,
        /// 0 is for ever.
        ttl_s: u64,
        class: u8,
        connection: u32,
        value_bytes: u64,
    },
    Eviction {
        key: &'a [u8],
        is_fetched: bool,
        /// `None` is for ever.
        ttl_s: Option<u64>,
        idle_s: u64,
        class: u8,
        value_bytes: u64,
    },
    Deletion {
        key: &'a [u8],
        verb: &'static str,
        class: u8,
        value_bytes: u64,
    },
    /// A connection that came, from an address or over a Unix socket.
    Arrival {
        peer: Option<SocketAddr>,
        connection: u32,
    },
    Departure {
        peer: Option<SocketAddr>,
        reason: &'static str,
        connection: u32,
    },
}

impl LogEntry<'_> {
    /// Who watches this is told.
    pub fn kind(&self) -> WatchKinds {
        match self {
            LogEntry::Get { .. } => WatchKinds::FETCHERS,
            LogEntry::Store { .. } => WatchKinds::MUTATIONS,
            LogEntry::Eviction { .. } => WatchKinds::EVICTIONS,
            LogEntry::Deletion { .. } => WatchKinds::DELETIONS,
            LogEntry::Arrival { .. } | LogEntry::Departure { .. } => WatchKinds::CONNEVENTS,
        }
    }
}

/// Writes the line of an entry at the start of `space` and says how long it is.
///
/// # Panics
/// If there is less space than `LOG_LINE_BYTES_MAX`.
//= protocol.txt "Watchers"
pub fn write_log_line(space: &mut [u8], stamp: LogStamp, entry: &LogEntry<'_>) -> usize {
    let mut pen = Pen::new(space);
    pen.number(b"ts=", stamp.unix_s);
    // Six digits of a number below a million, behind the one that makes it seven.
    let micros = (1_000_000 + stamp.micros % 1_000_000).to_string().into_bytes();
    pen.put(b".");
    pen.put(&micros[1..]);
    pen.number(b" gid=", stamp.number);
    write_entry(&mut pen, entry);
    pen.put(b"\n");
    pen.len()
}

fn write_entry(pen: &mut Pen<'_>, entry: &LogEntry<'_>) {
    match *entry {
        LogEntry::Get { key, status, class, connection, value_bytes } => {
            begin(pen, b"item_get", key);
            word(pen, b" status=", status.name());
            pen.number(b" clsid=", class.into());
            pen.number(b" cfd=", connection.into());
            pen.number(b" size=", value_bytes);
        }
        LogEntry::Store { key, status, verb, ttl_s, class, connection, value_bytes } => {
            begin(pen, b"item_store", key);
            word(pen, b" status=", status.as_bytes());
            word(pen, b" cmd=", verb.as_bytes());
            pen.number(b" ttl=", ttl_s);
            pen.number(b" clsid=", class.into());
            pen.number(b" cfd=", connection.into());
            pen.number(b" size=", value_bytes);
        }
        LogEntry::Eviction { key, is_fetched, ttl_s, idle_s, class, value_bytes } => {
            begin(pen, b"eviction", key);
            word(pen, b" fetch=", if is_fetched { b"yes" } else { b"no" });
            match ttl_s {
                Some(ttl_s) => pen.number(b" ttl=", ttl_s),
                None => pen.put(b" ttl=-1"),
            }
            pen.number(b" la=", idle_s);
            pen.number(b" clsid=", class.into());
            pen.number(b" size=", value_bytes);
        }
        LogEntry::Deletion { key, verb, class, value_bytes } => {
            begin(pen, b"deleted", key);
            word(pen, b" cmd=", verb.as_bytes());
            pen.number(b" clsid=", class.into());
            pen.number(b" size=", value_bytes);
        }
        LogEntry::Arrival { peer, connection } => {
            write_peer(pen, b"conn_new", peer);
            pen.number(b" cfd=", connection.into());
        }
        LogEntry::Departure { peer, reason, connection } => {
            write_peer(pen, b"conn_close", peer);
            word(pen, b" reason=", reason.as_bytes());
            pen.number(b" cfd=", connection.into());
        }
    }
}

fn word(pen: &mut Pen<'_>, name: &[u8], value: &[u8]) {
    pen.put(name);
    pen.put(value);
}

fn begin(pen: &mut Pen<'_>, kind: &[u8], key: &[u8]) {
    word(pen, b" type=", kind);
    pen.put(b" key=");
    pen.uri_encoded(key);
}

fn write_peer(pen: &mut Pen<'_>, kind: &[u8], peer: Option<SocketAddr>) {
    word(pen, b" type=", kind);
    let Some(peer) = peer else { return pen.put(b" rip=unix rport=0 transport=local") };
    word(pen, b" rip=", peer.ip().to_string().as_bytes());
    pen.number(b" rport=", peer.port().into());
    pen.put(b" transport=tcp");
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: LogStamp = LogStamp { unix_s: 1_700_000_000, micros: 31_250, number: 9 };

    fn line(stamp: LogStamp, entry: &LogEntry<'_>) -> String {
        let mut space = [0; LOG_LINE_BYTES_MAX];
        let len = write_log_line(&mut space, stamp, entry);
        String::from_utf8(space[..len].to_vec()).unwrap()
    }

    #[test]
    fn lines() {
        let key = b"a:b";
        let peer = Some("[2001:db8::1]:65535".parse().unwrap());
        let entries = [
            LogEntry::Get { key, status: Fetched::Found, class: 5, connection: 12, value_bytes: 9 },
            LogEntry::Store {
                key,
                status: "stored",
                verb: "set",
                ttl_s: 60,
                class: 5,
                connection: 12,
                value_bytes: 9,
            },
            LogEntry::Eviction {
                key,
                is_fetched: true,
                ttl_s: None,
                idle_s: 3,
                class: 5,
                value_bytes: 9,
            },
            LogEntry::Deletion { key, verb: "delete", class: 5, value_bytes: 9 },
            LogEntry::Arrival { peer, connection: 1 },
            LogEntry::Departure { peer: None, reason: "normal", connection: 1 },
        ];
        let got: String = entries.iter().map(|entry| line(STAMP, entry)).collect();
        let rip = "rip=2001:db8::1 rport=65535 transport=tcp";
        let wanted = [
            "item_get key=a%3Ab status=found clsid=5 cfd=12 size=9",
            "item_store key=a%3Ab status=stored cmd=set ttl=60 clsid=5 cfd=12 size=9",
            "eviction key=a%3Ab fetch=yes ttl=-1 la=3 clsid=5 size=9",
            "deleted key=a%3Ab cmd=delete clsid=5 size=9",
            &format!("conn_new {rip} cfd=1"),
            "conn_close rip=unix rport=0 transport=local reason=normal cfd=1",
        ];
        let wanted = wanted.map(|rest| format!("ts=1700000000.031250 gid=9 type={rest}\n"));
        assert_eq!(got, wanted.concat());
    }

    #[test]
    fn the_longest_line_has_room() {
        let key = &[b'#'; KEY_BYTES_MAX];
        let stamp = LogStamp { unix_s: u64::MAX, micros: 999_999, number: u64::MAX };
        let entry = LogEntry::Store {
            key,
            status: "not_stored",
            verb: "prepend",
            ttl_s: u64::MAX,
            class: u8::MAX,
            connection: u32::MAX,
            value_bytes: u64::MAX,
        };
        assert!(line(stamp, &entry).len() > 900);
    }

    #[test]
    fn kinds_by_name() {
        let parse = |line: &str| WatchKinds::parse(line.as_bytes());
        assert_eq!(parse("watch"), Some(WatchKinds::FETCHERS));
        let both = WatchKinds::MUTATIONS.with(WatchKinds::DELETIONS);
        assert_eq!(parse("watch  mutations deletions  mutations "), Some(both));
        let others = "watch rawcmds sysevents proxyreqs proxyevents proxyuser";
        assert_eq!(parse(others), Some(WatchKinds::OTHERS));
        assert_eq!(parse("watch m  d"), Some(both));
        assert_eq!(parse("watch fetchers noreply"), None);
        assert_eq!(parse("watch Fetchers"), None);
        assert!(both.has(WatchKinds::DELETIONS) && !both.has(WatchKinds::FETCHERS));
        assert_eq!(WatchKinds::from_bits(both.to_bits()), both);
    }
}
