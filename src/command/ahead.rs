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
        hashes[len] = hash(key);
        len += 1;
        at = at.saturating_add(consumed).saturating_add(value_bytes);
    }
    if len > 1 {
        ask_for(&hashes[..len]);
    }
    at
}

/// Bytes of the line end with which `line` ends.
fn line_end_bytes(line: &[u8]) -> usize {
    if line.ends_with(b"\r\n") { 2 } else { 1 }
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
        let seen: String = (10..10 + KEYS_MAX).map(|key| format!("delete {key}\r\n")).collect();
        let keys: Vec<String> = (10..10 + KEYS_MAX).map(|key| key.to_string()).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        assert_foresees(&seen, "delete more\r\n", &keys);
    }
}
