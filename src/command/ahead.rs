//! Keys that are read before their turn, so that the memory they need is on its way.
//!
//! A run of `get` requests, or a list of keys, waits for the index and for the items of every key,
//! one after the other. Read first and asked for together, they cost little more than one. So with
//! a run of storage commands, whose heads are read twice for that.

use super::session::KeyList;
use crate::base::clock::Now;
use crate::base::hash::KeyHash;
use crate::protocol::memcache::{Head, LINE_END, NextKey, Parsed, next_key, parse, parse_list};
use crate::store::{Participant, Seek};

/// How many keys are read ahead: the index has come for the first when the last is read.
const KEYS_MAX: usize = 32;

/// How many keys after the one that is answered items are asked for: an item is two lines, and a
/// core can wait for about sixteen.
const LEAD: usize = 8;

/// How many storage commands are read ahead.
const HEADS_MAX: usize = 16;

/// A key of the present input.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyAhead<'b> {
    pub key: &'b [u8],
    pub seek: Seek<'b>,
    /// Where what follows the key begins: after the line end, if it is the last.
    pub next: usize,
    pub last: bool,
    /// It is the first of a list of its own, whose head says the same as that of the one before.
    pub begins: bool,
}

/// Keys read and not answered, in order.
#[derive(Debug)]
pub(super) struct Ahead<'b> {
    keys: [Option<KeyAhead<'b>>; KEYS_MAX],
    len: usize,
}

impl<'b> Ahead<'b> {
    #[inline]
    pub fn new() -> Ahead<'b> {
        Ahead { keys: [None; KEYS_MAX], len: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The key at `place`, which is answered now; others after it are looked for meanwhile.
    #[inline]
    pub fn key(&mut self, place: usize) -> Option<&KeyAhead<'b>> {
        if self.len > 1 {
            self.sight(place + LEAD);
            self.sight_away(place + LEAD / 2);
        }
        self.keys.get(place)?.as_ref()
    }

    #[inline]
    fn sight(&mut self, place: usize) {
        if let Some(Some(key)) = self.keys.get_mut(place) {
            key.seek.sight();
        }
    }

    #[inline]
    fn sight_away(&mut self, place: usize) {
        if let Some(Some(key)) = self.keys.get_mut(place) {
            key.seek.sight_away();
        }
    }

    /// Reads keys from `input[at..]` on, where a key of `list` is due, as far as nothing but keys
    /// and lists like this one comes; `most` at the most.
    #[inline]
    pub fn read(
        &mut self,
        (input, mut at): (&'b [u8], usize),
        most: usize,
        list: &KeyList,
        now: Now,
        participant: &'b Participant,
    ) {
        let mut begins = false;
        for place in self.keys.iter_mut().take(most) {
            if begins {
                let Some(Parsed::Keys { list: head, consumed }) = parse_list(&input[at..]) else {
                    break;
                };
                if !KeyList::begin(head, now).is_like(list) {
                    break;
                }
                at += consumed;
            }
            let NextKey::Key { key, last, consumed } = next_key(&input[at..]) else { break };
            at += consumed;
            let seek = participant.seek(participant.table().hash(key));
            *place = Some(KeyAhead { key, seek, next: at, last, begins });
            self.len += 1;
            begins = last;
        }
        // One by itself is looked up as soon as it could be asked for.
        if self.len > 1 {
            (0..LEAD).for_each(|place| self.sight(place));
            (0..LEAD / 2).for_each(|place| self.sight_away(place));
        }
    }
}

/// Reads the heads of `input` on, as far as nothing but storing, deleting and the like comes, and
/// asks for what they will need. Says how many bytes of the input that was.
pub(super) fn foresee(input: &[u8], participant: &Participant) -> usize {
    let (mut hashes, mut len, mut at) = ([KeyHash(0); HEADS_MAX], 0, 0);
    while len < HEADS_MAX && at < input.len() {
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
