//! Keys that are read before their turn, so that the memory they need is on its way.
//!
//! A run of `get` requests, or a list of keys, waits for the index and for the items of every key,
//! one after the other. Read first and asked for together, they cost little more than one. So with
//! a run of storage commands, whose heads are read twice for that.

use crate::base::hash::KeyHash;
use crate::protocol::memcache::{
    Head, KeyTouch, LINE_END, NextKey, Parsed, next_key, parse, parse_list,
};
use crate::store::Participant;

/// How many keys are on their way at once: about as many lines as a core can wait for.
const KEYS_MAX: usize = 16;

/// A key of the present input, by its place there.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyAhead {
    pub hash: KeyHash,
    pub start: usize,
    pub end: usize,
    /// Where what follows the key begins: after the line end, if it is the last.
    pub next: usize,
    pub last: bool,
}

/// Keys read and not answered, in order. They belong to one input, and to lists that will be read.
#[derive(Debug)]
pub(super) struct Ahead {
    keys: [KeyAhead; KEYS_MAX],
    len: usize,
    taken: usize,
}

impl Ahead {
    pub const NONE: Ahead = Ahead {
        keys: [KeyAhead { hash: KeyHash(0), start: 0, end: 0, next: 0, last: false }; KEYS_MAX],
        len: 0,
        taken: 0,
    };

    #[inline]
    pub fn clear(&mut self) {
        (self.len, self.taken) = (0, 0);
    }

    #[inline]
    pub fn first(&self) -> Option<KeyAhead> {
        (self.taken < self.len).then(|| self.keys[self.taken])
    }

    #[inline]
    pub fn take(&mut self) {
        self.taken += 1;
    }

    /// Reads keys from `input[at..]` on, where a key of a list is due, as far as nothing but keys
    /// and lists of keys comes; `most` at the most.
    #[inline]
    pub fn read(&mut self, input: &[u8], mut at: usize, most: usize, participant: &Participant) {
        self.clear();
        let mut key_due = true;
        while self.len < KEYS_MAX.min(most) {
            if !key_due {
                match parse_list(&input[at..]) {
                    Some(Parsed::Keys { list, consumed }) if list.touch != KeyTouch::BadExptime => {
                        at += consumed;
                    }
                    _ => break,
                }
            }
            let NextKey::Key { key, last, consumed } = next_key(&input[at..]) else { break };
            let next = at + consumed;
            let end = if last { next - line_end_bytes(&input[..next]) } else { next };
            let hash = participant.table().hash(key);
            let start = end - key.len();
            self.keys[self.len] = KeyAhead { hash, start, end, next, last };
            self.len += 1;
            (at, key_due) = (next, !last);
        }
        // One by itself is looked up as soon as it could be asked for.
        if self.len > 1 {
            for key in &self.keys[..self.len] {
                participant.prefetch(key.hash);
            }
            for key in &self.keys[..self.len] {
                participant.prefetch_item(key.hash);
            }
        }
    }
}

/// Reads the heads of `input` on, as far as nothing but storing, deleting and the like comes, and
/// asks for what they will need. Says how many bytes of the input that was.
pub(super) fn foresee(input: &[u8], participant: &Participant) -> usize {
    let (mut hashes, mut len, mut at) = ([KeyHash(0); KEYS_MAX], 0, 0);
    while len < KEYS_MAX && at < input.len() {
        let Parsed::Head { head, consumed } = parse(&input[at..]) else { break };
        let (key, value_bytes) = match head {
            // Lossless: usize has 64 bits.
            Head::Store(head) => (head.key, head.value_bytes as usize + LINE_END.len()),
            Head::Touch { key, .. } | Head::Delete { key, .. } => (key, 0),
            Head::Incr(delta) | Head::Decr(delta) => (delta.key, 0),
            Head::Refused { .. }
            | Head::FlushAll { .. }
            | Head::Version
            | Head::Verbosity { .. }
            | Head::Quit
            | Head::Shutdown { .. }
            | Head::Stats { .. } => break,
        };
        hashes[len] = participant.table().hash(key);
        len += 1;
        at = at.saturating_add(consumed).saturating_add(value_bytes);
    }
    if len > 1 {
        hashes[..len].iter().for_each(|hash| participant.prefetch_to_store(*hash));
        hashes[..len].iter().for_each(|hash| participant.prefetch_item(*hash));
    }
    at
}

/// Bytes of the line end with which `line` ends.
fn line_end_bytes(line: &[u8]) -> usize {
    if line.ends_with(b"\r\n") { 2 } else { 1 }
}
