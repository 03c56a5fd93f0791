//! Where a connection is in its requests, between two calls of `drive`.

use std::sync::Arc;

use super::costs::Work;
use super::dumping::Classes;
use super::size_rows::Sizing;
use super::watchers::Watcher;
use crate::base::clock::{Expiry, Now};
use crate::base::hot::Of;
use crate::base::protocol::Protocol;
use crate::protocol::binary::Echo;
use crate::protocol::memcache::reply::ITEM_ROW_BYTES_MAX;
use crate::protocol::memcache::{DumpForm, KeptFlags, KeyList as ListHead, KeyTouch, LINE_END};
use crate::store::{Condition, Cursor, Join, Mark, Pin, Reservation};

/// The protocol state of one connection. A session that is dropped must be idle, or have been given
/// to `Executor::abandon`: it may hold memory of the store.
#[derive(Debug, Default)]
pub struct Session {
    pub(super) state: State,
    /// The number of its connection, for those who watch.
    pub(super) number: u32,
}

impl Session {
    /// That of a connection from which nothing has come yet.
    pub(super) fn of(protocol: Protocol) -> Session {
        Session { state: State::Opening(protocol), number: 0 }
    }
}

#[derive(Debug, Default)]
pub(super) enum State {
    /// The first byte comes next.
    Opening(Protocol),
    /// A head of the text protocol comes next.
    #[default]
    Idle,
    /// A key or the end of the line comes next.
    KeyList(KeyList),
    /// A value is being replied; nothing is read.
    Sending(Sending),
    /// A value comes next.
    Filling(Filling),
    /// A value that is of no use comes next.
    Swallowing(Swallowing),
    /// The rest of a line that is of no use comes next.
    SkippingLine,
    /// Statistics are being replied; nothing is read.
    Reporting(Report),
    /// Keys are being listed; nothing is read.
    Dumping(Box<Dump>),
    /// Keys that begin alike are being deleted; nothing is read.
    Pruning(Box<Pruning>),
    /// Items are being counted by their sizes; nothing is read.
    Sizing(Box<Sizing>),
    /// The peer is told what happens, from now on; what it sends is of no use.
    Watching(Arc<Watcher>),
    /// What comes next says who the peer is, in the text protocol; `Some` is the length of a token.
    Login(Option<u32>),
    /// A head of the binary protocol comes next.
    Binary(Access),
    Closed,
    /// As `Closed`: the peer broke the protocol.
    Broken,
}

/// Whether it is known who a peer of the binary protocol is, where that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Granted,
    /// Not yet. `has_begun` says that it was asked for a name and a password.
    Awaited {
        has_begun: bool,
    },
}

/// What a connection is to do after something that both protocols have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Text,
    Login,
    Binary(Access),
}

impl From<Next> for State {
    fn from(next: Next) -> State {
        match next {
            Next::Text => State::Idle,
            Next::Login => State::Login(None),
            Next::Binary(access) => State::Binary(access),
        }
    }
}

/// A list of keys in progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyList {
    pub with_cas: bool,
    pub touch: Touch,
    /// Keys answered so far.
    pub keys: u32,
}

impl KeyList {
    /// A list whose head has been read.
    #[inline]
    pub fn begin(head: ListHead, now: Now) -> KeyList {
        let touch = match head.touch {
            KeyTouch::No => Touch::No,
            KeyTouch::Exptime(exptime) => Touch::Expiry(Expiry::from_wire(exptime, now)),
            KeyTouch::BadExptime => Touch::Bad,
        };
        KeyList { with_cas: head.with_cas, touch, keys: 0 }
    }

    /// True when the keys of both are answered in the same way.
    #[inline]
    pub fn is_like(&self, other: &KeyList) -> bool {
        self.with_cas == other.with_cas && self.touch == other.touch
    }
}

/// What becomes of the exptimes of the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Touch {
    No,
    /// Due as it was when the head was read.
    Expiry(Expiry),
    /// The head had none that can be read.
    Bad,
}

#[derive(Debug)]
pub(super) struct Sending {
    pub pin: Pin,
    /// Bytes of the value that were replied.
    pub offset: usize,
    pub after: After,
}

/// What follows a value that is replied in pieces.
#[derive(Clone, Copy, Debug)]
pub(super) enum After {
    /// Other keys of its list.
    Keys(KeyList),
    /// The end of its list.
    End,
    /// Its line ends, and that is all.
    Line,
    /// Another request of the binary protocol.
    Packet,
}

#[derive(Debug)]
pub(super) struct Filling {
    pub reservation: Reservation,
    pub plan: Plan,
    pub answer: Answer,
    /// What it takes to execute it once it is there.
    pub work: Work,
}

/// What becomes of a value when all of it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    Put(Condition),
    Join(Join),
}

/// How the peer is told what came of a value that did not come at once: one variant a dialect.
#[derive(Debug)]
pub(super) enum Answer {
    Text {
        noreply: bool,
    },
    Meta(Box<KeptFlags>),
    /// A packet of the binary protocol. Nothing follows the value.
    Packet {
        echo: Echo,
        quiet: bool,
    },
}

impl Answer {
    /// What follows the value of which this is the answer.
    #[inline]
    pub fn value_end(&self) -> &'static [u8] {
        match self {
            Answer::Text { .. } | Answer::Meta(_) => LINE_END,
            Answer::Packet { .. } => b"",
        }
    }
}

#[derive(Debug)]
pub(super) struct Swallowing {
    /// The value and its line end.
    pub bytes: u64,
    /// What is told after them; empty for nothing.
    pub reply: &'static [u8],
    pub next: Next,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    pub group: Group,
    /// Rows replied so far, or groups of rows; of connections, the position from which to go on.
    pub rows: usize,
    pub form: Form,
}

/// In what statistics are replied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Lines,
    Packets(Echo),
}

/// A list of all keys in progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dump {
    pub form: DumpForm,
    pub classes: Classes,
    pub cursor: Cursor,
    pub left: Left,
}

/// How much of a list may still be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub rows: u64,
    pub bytes: u64,
}

impl Left {
    pub const NO_LIMIT: Left = Left { rows: u64::MAX, bytes: u64::MAX };

    /// True when there is no room for another row, however long.
    pub fn is_nothing(&self) -> bool {
        self.rows == 0 || self.bytes < ITEM_ROW_BYTES_MAX as u64
    }
}

/// A deletion of keys that begin alike in progress.
#[derive(Debug)]
pub(super) struct Pruning {
    pub prefix: Box<[u8]>,
    /// What was stored later stays.
    pub mark: Mark,
    pub cursor: Cursor,
    pub deleted: u64,
    pub noreply: bool,
}

/// A group of statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    General,
    Settings,
    Items,
    Slabs,
    /// Whether sizes are told.
    SizesStatus,
    /// Sizes are not told now: too many others are.
    SizesError,
    Connections,
    Detail,
    Latency,
    Rings,
    Hot(Of),
}

impl Group {
    pub fn named(name: &[u8]) -> Option<Group> {
        Some(match name {
            b"" => Group::General,
            b"settings" => Group::Settings,
            b"items" => Group::Items,
            b"slabs" => Group::Slabs,
            b"conns" => Group::Connections,
            b"latency" => Group::Latency,
            b"rings" => Group::Rings,
            b"hotkeys" => Group::Hot(Of::Keys),
            b"hotprefixes" => Group::Hot(Of::Prefixes),
            _ => return None,
        })
    }
}
