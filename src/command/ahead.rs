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

    /// Of the first so many keys, those that begin a list and do not end it. The very first begins
    /// one if `opens`.
    pub fn lists_of_several(&self, keys: u64, opens: bool) -> u64 {
        let keys = usize::try_from(keys).unwrap_or(usize::MAX);
        let several = |(place, key): (usize, &KeyAhead<'_>)| {
            (key.begins || (place == 0 && opens)) && !key.last
        };
        // Lossless: no target has a wider usize.
        self.keys.iter().flatten().take(keys).enumerate().filter(|each| several(*each)).count()
            as u64
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
    let hash = |key: &[u8]| participant.table().hash(key);
    let ask_for = |hashes: &[KeyHash]| {
        hashes.iter().for_each(|hash| participant.prefetch_to_store(*hash));
        hashes.iter().for_each(|hash| participant.prefetch_item(*hash));
    };
    foresee_by(input, hash, ask_for)
}

/// As `foresee`. One key by itself is looked up as soon as it could be asked for.
fn foresee_by(
    input: &[u8],
    hash: impl Fn(&[u8]) -> KeyHash,
    ask_for: impl FnOnce(&[KeyHash]),
) -> usize {
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
        hashes[len] = hash(key);
        len += 1;
        at = at.saturating_add(consumed).saturating_add(value_bytes);
    }
    if len > 1 {
        ask_for(&hashes[..len]);
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash::KeyHasher;

    /// That all of `seen`, and then `rest`, is foreseen to be about `keys`.
    #[track_caller]
    fn assert_foresees(seen: &str, rest: &str, keys: &[&str]) {
        let (hasher, mut asked) = (KeyHasher::with_seed(1), Vec::new());
        let hash = |key: &[u8]| hasher.hash(key);
        let input = [seen, rest].concat();
        let bytes = foresee_by(input.as_bytes(), hash, |hashes| asked.extend_from_slice(hashes));
        let wanted: Vec<KeyHash> = keys.iter().map(|key| hash(key.as_bytes())).collect();
        assert_eq!((bytes, asked), (seen.len(), wanted), "of {input:?}");
    }

    #[test]
    fn every_command_about_one_key_is_foreseen() {
        let seen = "set a 0 0 1\r\nv\r\nadd bb 5 9 0 noreply\r\n\r\nappend c 0 0 3\r\nset\r\n\
            cas d 0 0 1 77\r\ny\r\ndelete e\r\ntouch f 9\nincr g 1\r\ndecr h 2 noreply\r\n";
        assert_foresees(seen, "", &["a", "bb", "c", "d", "e", "f", "g", "h"]);
    }

    #[test]
    fn values_are_not_taken_for_commands() {
        let seen = "set a 0 0 10\r\ndelete b\r\n\r\nset c 0 0 1\r\nd\r\n";
        assert_foresees(seen, "", &["a", "c"]);
    }

    #[test]
    fn it_ends_where_another_kind_of_command_comes() {
        let others = ["get c\r\n", "flush_all\r\n", "nonsense\r\n", "set c 0 0 x\r\n"];
        for other in others.map(|other| format!("{other}delete d\r\n")) {
            assert_foresees("set a 0 0 1\r\nv\r\ndelete b\r\n", &other, &["a", "b"]);
        }
        assert_foresees("delete a\r\ndelete b\r\n", "delete c", &["a", "b"]);
    }

    #[test]
    fn what_follows_a_value_that_has_not_come_is_unknown() {
        let (hash, mut asked) = (|key: &[u8]| KeyHash(u64::from(key[0])), Vec::new());
        let input = b"delete a\r\nset b 0 0 1000\r\nv\r\ndelete c\r\n";
        let bytes = foresee_by(input, hash, |hashes| asked.extend_from_slice(hashes));
        assert_eq!(bytes, "delete a\r\nset b 0 0 1000\r\n".len() + 1002);
        assert_eq!(asked, [KeyHash(97), KeyHash(98)]);
    }

    #[test]
    fn one_by_itself_is_not_asked_for_and_no_more_than_fit_are() {
        assert_foresees("delete a\r\n", "", &[]);
        assert_foresees("delete a\r\n", "get b\r\n", &[]);
        let seen: String = (10..10 + HEADS_MAX).map(|key| format!("delete {key}\r\n")).collect();
        let keys: Vec<String> = (10..10 + HEADS_MAX).map(|key| key.to_string()).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        assert_foresees(&seen, "delete more\r\n", &keys);
    }
}
