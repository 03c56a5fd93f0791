//! The dialects of memcached: how requests are written, and what their replies begin with.
//!
//! | request | text | meta | binary |
//! | --- | --- | --- | --- |
//! | get | `get` | `mg v` | Get |
//! | set | `set` | `ms` | Set |
//! | get of many keys | one `get` | quiet `mg k q v` each, then `mn` | GetKQ each, then Noop |
//!
//! A dialect knows lines and packets. It does not know connections, nor which value is right.

mod binary;
mod line;
mod meta;
mod text;
pub mod wording;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::reply::{Nonsense, Outcome};
use crate::workload::Request;

/// What a server is spoken to in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// get and set: what every memcached client can speak.
    #[default]
    Text,
    /// mg and ms: the newer text commands.
    Meta,
    /// The old packets with a header of 24 bytes.
    Binary,
}

impl Dialect {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Dialect::Text => "text",
            Dialect::Meta => "meta",
            Dialect::Binary => "binary",
        }
    }
}

/// What comes next in the reply to a request. `bytes` is its length, line end and all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head<'a> {
    /// A value follows. `key` is empty where the dialect does not repeat it.
    Value { bytes: usize, value_bytes: usize, key: &'a [u8] },
    /// This is the whole rest of the reply.
    Whole { bytes: usize, outcome: Outcome },
    /// One of many keys failed; the others are still to come.
    Lapse { bytes: usize, failure: Failure },
    /// All that were found of many keys have come.
    EndOfMany { bytes: usize },
}

/// How a dialect answers. A type for each, so that its reading is compiled for it alone.
pub trait Answers {
    /// What stands behind a value when one key was asked for: the reply ends there.
    const TAIL: &[u8];
    /// What stands behind each value when several were asked for.
    const TAIL_OF_MANY: &[u8];

    /// Reads what comes next in the reply to `request`, whose keys have `key_bytes` bytes each.
    /// None: it is not all there.
    fn head(input: &[u8], request: Request, key_bytes: usize)
    -> Result<Option<Head<'_>>, Nonsense>;
}

pub use binary::Binary;
pub use meta::Meta;
pub use text::Text;
