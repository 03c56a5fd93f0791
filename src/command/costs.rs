//! What requests cost, in one place: what a ring does itself, and what it leaves to a worker.
//!
//! | work | requests | long |
//! | --- | --- | --- |
//! | an item | all that name one key, meta commands too, and what touches none | never |
//! | keys | lists of keys; each key is paid for as a request | from `BOUNDED_KEYS` on |
//! | copy | values in, out if not spanned; joining; `md` with I, E | above `BOUNDED_COPY_BYTES` |
//! | rows | statistics; each row, or connection, is paid for as a request | always |
//! | table | whatever locks every stripe or looks at every item: `flush_all`, dumps | always |
//!
//! Long work is done where `Cost::Any` is allowed: by a worker, or by a ring that has none. Even
//! there it ends when the budget of requests is used up, so that nothing takes longer than so many
//! keys or rows and one copy: what is copied within the store is paid for as the requests that take
//! as long, and so is a look at all there is, beside the rows or keys that it finds. A request
//! whose cost is not known from its head alone asks once it knows; and what turns out to take long
//! all the same goes to a worker by the time it took.
//!
//! A new command is put here: `Table` if it walks the store. Keys are counted where they are
//! answered.

use crate::protocol::memcache::{Head, Operator};

/// Copying more than this is long work: about ten microseconds.
pub const BOUNDED_COPY_BYTES: usize = 64 << 10;

/// Bytes that are copied in the time of a request, about a microsecond.
const BYTES_PER_REQUEST: usize = 4 << 10;

/// What a look at all stripes, at all size classes, or at what all threads count is paid for with,
/// in requests: it takes tens to hundreds of microseconds.
const LOOK_REQUESTS: u32 = 128;

/// More keys than this in one list are long work: somewhat more than a hundred microseconds, if all
/// of them are somewhere else in memory.
pub const BOUNDED_KEYS: u32 = 512;

/// What is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Item,
    /// So many bytes.
    Copy(usize),
    Rows,
    Table,
}

impl Work {
    /// What a head asks for, as far as it says.
    pub(super) fn of(head: &Head<'_>) -> Work {
        match head {
            // A value is copied as it comes.
            Head::Store(_)
            | Head::Refused { .. }
            | Head::Touch { .. }
            | Head::Delete { .. }
            | Head::Incr(_)
            | Head::Decr(_)
            | Head::Version
            | Head::Verbosity { .. }
            | Head::Quit
            | Head::Shutdown { .. }
            | Head::Meta(_)
            | Head::Noop => Work::Item,
            Head::Stats { .. } => Work::Rows,
            Head::FlushAll { .. } => Work::Table,
            Head::Operator { operator, .. } => match operator {
                Operator::Dump { .. } | Operator::DumpClass(_) | Operator::DeletePrefix { .. } => {
                    Work::Table
                }
                Operator::Crawl { .. }
                | Operator::Crawler { .. }
                | Operator::Reassign { .. }
                | Operator::MemoryLimit { .. }
                | Operator::RefreshCertificates
                | Operator::Watch { .. }
                | Operator::Tune(_) => Work::Item,
            },
        }
    }

    /// What is to be paid for it, in requests, beside the request itself, and keys and rows.
    pub(super) fn requests(self) -> u32 {
        match self {
            Work::Item => 0,
            Work::Rows | Work::Table => LOOK_REQUESTS,
            Work::Copy(bytes) => u32::try_from(bytes / BYTES_PER_REQUEST).unwrap_or(u32::MAX),
        }
    }

    /// True of what a ring should not do while others wait.
    #[inline]
    pub(super) fn is_long(self) -> bool {
        match self {
            Work::Item => false,
            Work::Copy(bytes) => bytes > BOUNDED_COPY_BYTES,
            Work::Rows | Work::Table => true,
        }
    }
}
