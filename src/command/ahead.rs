//! Keys that are read before their turn, so that the memory they need is on its way.
//!
//! A run of `get` requests, or a list of keys, waits for the index and for the items of every key,
//! one after the other. Read first and asked for together, they cost little more than one. So with
//! a run of `mg`, and with a run of storage commands, whose heads are kept until their values have
//! been seen.

use super::meta::read_key;
use super::session::KeyList;
use crate::base::clock::Now;
use crate::base::hash::KeyHash;
use crate::protocol::binary::{self, Lookup, Request, parse_lookup};
use crate::protocol::memcache::{
    Head, LINE_END, MetaGet, MetaHead, MetaVerb, NextKey, Parsed, next_get, next_key, parse,
    parse_list,
};
use crate::store::{Participant, Seek};

/// How many keys are read ahead: the index has come for the first when the last is read.
const KEYS_MAX: usize = 32;

/// Items are asked for in groups of so many keys: an item is two lines, and a core can wait for
/// about sixteen. It waits for those of a group together, and for single ones one after the other.
const GROUP: usize = 8;

/// How many storage commands are read ahead.
const HEADS_MAX: usize = 16;

/// A key of the present input.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyAhead<'b> {
    pub key: &'b [u8],
    hash: KeyHash,
    /// Where what follows the key begins: after the line end, if it is the last.
    pub next: usize,
    pub last: bool,
    /// It is the first of a list of its own, whose head says the same as that of the one before.
    pub begins: bool,
}

/// A lookup of the binary protocol in the present input.
#[derive(Clone, Copy, Debug)]
pub(super) struct LookupAhead<'b> {
    pub lookup: Lookup<'b>,
    hash: KeyHash,
    /// Where the next request begins.
    pub next: usize,
}

/// An `mg` of the present input.
#[derive(Clone, Copy, Debug)]
pub(super) struct GetAhead<'b> {
    pub get: MetaGet<'b>,
    hash: KeyHash,
    /// Where what follows it begins.
    pub next: usize,
}

/// What is looked for ahead of its turn.
pub(super) trait Sought: Copy {
    fn hash(&self) -> KeyHash;
}

impl Sought for KeyAhead<'_> {
    #[inline]
    fn hash(&self) -> KeyHash {
        self.hash
    }
}

impl Sought for GetAhead<'_> {
    #[inline]
    fn hash(&self) -> KeyHash {
        self.hash
    }
}

impl Sought for LookupAhead<'_> {
    #[inline]
    fn hash(&self) -> KeyHash {
        self.hash
    }
}

/// Keys read and not answered, in order.
#[derive(Debug)]
pub(super) struct Ahead<'b, K> {
    keys: [Option<K>; KEYS_MAX],
    seeks: [Option<Seek<'b>>; KEYS_MAX],
    len: usize,
}

impl<'b, K: Sought> Ahead<'b, K> {
    #[inline]
    pub fn new() -> Ahead<'b, K> {
        Ahead { keys: [None; KEYS_MAX], seeks: [None; KEYS_MAX], len: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The key at `place`, which is answered now; others after it are looked for meanwhile.
    #[inline]
    pub fn key(&mut self, place: usize) -> Option<(&K, &Seek<'b>)> {
        match place % GROUP {
            0 => self.sight(place + GROUP),
            half if half == GROUP / 2 => self.sight_away(place + GROUP - half),
            _ => {}
        }
        self.keys.get(place)?.as_ref().zip(self.seeks[place].as_ref())
    }

    /// Of what was read, what is at this place.
    #[inline]
    pub fn at(&self, place: usize) -> Option<&K> {
        self.keys.get(place)?.as_ref()
    }

    /// Asks for the items of the group that begins at `place`.
    #[inline]
    fn sight(&mut self, place: usize) {
        for seek in self.group(place) {
            if let Some(seek) = seek.as_mut() {
                seek.sight();
            }
        }
    }

    /// Asks for those of them that are not where they were looked for first.
    #[inline]
    fn sight_away(&mut self, place: usize) {
        for seek in self.group(place) {
            if let Some(seek) = seek.as_mut() {
                seek.sight_away();
            }
        }
    }

    #[inline]
    fn group(&mut self, place: usize) -> &mut [Option<Seek<'b>>] {
        let end = self.len.min(place + GROUP);
        self.seeks.get_mut(place..end).unwrap_or_default()
    }

    /// Begins to look for all that was read.
    #[inline]
    fn seek(&mut self, participant: &'b Participant) {
        // All at once, as with groups of items.
        for (key, seek) in self.keys.iter().zip(&mut self.seeks).take(self.len) {
            *seek = key.as_ref().map(|key| participant.seek(key.hash()));
        }
        self.sight(0);
        self.sight_away(0);
    }
}

impl<'b> Ahead<'b, LookupAhead<'b>> {
    /// Reads lookups from `input[at..]` on, as far as nothing else comes; `most` at the most.
    #[inline]
    pub fn read(
        &mut self,
        (input, mut at): (&'b [u8], usize),
        most: usize,
        participant: &'b Participant,
    ) {
        for place in self.keys.iter_mut().take(most) {
            let Some((lookup, bytes)) = parse_lookup(&input[at..]) else { break };
            at += bytes;
            let hash = participant.table().hash(lookup.key);
            *place = Some(LookupAhead { lookup, hash, next: at });
            self.len += 1;
        }
        self.seek(participant);
    }
}

impl<'b> Ahead<'b, KeyAhead<'b>> {
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
            let hash = participant.table().hash(key);
            *place = Some(KeyAhead { key, hash, next: at, last, begins });
            self.len += 1;
            begins = last;
        }
        self.seek(participant);
    }
}

impl<'b> Ahead<'b, GetAhead<'b>> {
    /// Reads the `first` request, which ends at `at`, and those that follow in `input`, as far as
    /// nothing but `mg` comes; `most` at the most.
    #[inline]
    pub fn read(
        &mut self,
        (input, mut at): (&'b [u8], usize),
        first: MetaGet<'b>,
        most: usize,
        participant: &'b Participant,
    ) {
        let mut next = Some(first);
        for place in self.keys.iter_mut().take(most) {
            let Some(get) = next else { break };
            let hash = read_key(get.key, &get.flags, |key| participant.table().hash(key));
            *place = Some(GetAhead { get, hash, next: at });
            self.len += 1;
            next = next_get(&input[at..]).map(|(get, consumed)| {
                at += consumed;
                get
            });
        }
        self.seek(participant);
    }
}

/// A head that may be about one key.
pub(super) trait Subject<'b>: Copy {
    /// The head at the start of `input`, and its bytes, if it is a whole and a good one.
    fn parse(input: &'b [u8]) -> Option<(Self, usize)>;

    /// What is read in the key that a head is about, and the bytes that follow the head. `None` if
    /// it is about another thing.
    fn subject<T>(&self, read: impl FnOnce(&[u8]) -> T) -> Option<(T, usize)>;
}

/// A head of the present input.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadAhead<H> {
    pub head: H,
    pub hash: KeyHash,
    at: usize,
    /// Bytes of the head itself.
    pub bytes: usize,
}

impl<H> HeadAhead<H> {
    /// A head about no key.
    #[inline]
    pub fn about_none(head: H, at: usize, bytes: usize) -> HeadAhead<H> {
        HeadAhead { head, hash: KeyHash(0), at, bytes }
    }
}

/// Heads about one key each, read and not executed, in order.
#[derive(Debug)]
pub(super) struct Heads<H> {
    heads: [Option<HeadAhead<H>>; HEADS_MAX],
    next: usize,
}

impl<'b, H: Subject<'b>> Heads<H> {
    #[inline]
    pub fn new() -> Heads<H> {
        Heads { heads: [None; HEADS_MAX], next: 0 }
    }

    /// The head that begins at `at`, if it was read.
    #[inline]
    pub fn take(&mut self, at: usize) -> Option<HeadAhead<H>> {
        let head = (*self.heads.get(self.next)?).filter(|head| head.at == at)?;
        self.next += 1;
        Some(head)
    }

    /// Reads heads from `input[at..]` on, where `first` is the next one, as far as nothing but
    /// storing, deleting and the like comes, and asks for what they will need. None are left from
    /// before.
    #[inline]
    pub fn read(
        &mut self,
        (input, at): (&'b [u8], usize),
        first: (H, usize),
        participant: &Participant,
    ) {
        self.read_by((input, at), first, |key| participant.table().hash(key));
        // One key by itself is looked up as soon as it could be asked for.
        if self.heads[1].is_some() {
            let hashes = || self.heads.iter().map_while(|head| head.as_ref().map(|head| head.hash));
            hashes().for_each(|hash| participant.prefetch(hash));
            hashes().for_each(|hash| participant.prefetch_stored(hash));
        }
    }

    #[inline]
    fn read_by(
        &mut self,
        (input, mut at): (&'b [u8], usize),
        first: (H, usize),
        hash: impl Fn(&[u8]) -> KeyHash,
    ) {
        *self = Heads::new();
        let mut next = Some(first);
        for place in &mut self.heads {
            let Some((head, bytes)) = next else { break };
            let Some((hash, value_bytes)) = head.subject(&hash) else { break };
            *place = Some(HeadAhead { head, hash, at, bytes });
            at = at.saturating_add(bytes).saturating_add(value_bytes);
            next = input.get(at..).and_then(H::parse);
        }
    }
}

impl<'b> Subject<'b> for Head<'b> {
    #[inline]
    fn parse(input: &'b [u8]) -> Option<(Head<'b>, usize)> {
        match parse(input) {
            Parsed::Head { head, consumed } => Some((head, consumed)),
            Parsed::Keys { .. }
            | Parsed::MetaGet { .. }
            | Parsed::Partial
            | Parsed::Invalid { .. } => None,
        }
    }

    #[inline]
    fn subject<T>(&self, read: impl FnOnce(&[u8]) -> T) -> Option<(T, usize)> {
        // Lossless: usize has 64 bits.
        let with_value = |bytes: u32| bytes as usize + LINE_END.len();
        match self {
            Head::Store(head) => Some((read(head.key), with_value(head.value_bytes))),
            Head::Touch { key, .. } | Head::Delete { key, .. } => Some((read(key), 0)),
            Head::Incr(delta) | Head::Decr(delta) => Some((read(delta.key), 0)),
            Head::Meta(MetaHead { verb, key, flags }) => {
                let follows = match *verb {
                    MetaVerb::Set { value_bytes, .. } => with_value(value_bytes),
                    MetaVerb::Delete | MetaVerb::Arithmetic { .. } | MetaVerb::Debug => 0,
                };
                Some((read_key(key, flags, read), follows))
            }
            Head::Refused { .. }
            | Head::FlushAll { .. }
            | Head::Version
            | Head::Verbosity { .. }
            | Head::Quit
            | Head::Shutdown { .. }
            | Head::Stats { .. }
            | Head::Noop
            | Head::Operator { .. } => None,
        }
    }
}

impl<'b> Subject<'b> for binary::Head<'b> {
    #[inline]
    fn parse(input: &'b [u8]) -> Option<(binary::Head<'b>, usize)> {
        match binary::parse(input) {
            binary::Parsed::Head { head, consumed } => Some((head, consumed)),
            binary::Parsed::Partial | binary::Parsed::Invalid { .. } => None,
        }
    }

    #[inline]
    fn subject<T>(&self, read: impl FnOnce(&[u8]) -> T) -> Option<(T, usize)> {
        match self.request {
            Request::Set(head)
            | Request::Add(head)
            | Request::Replace(head)
            | Request::Append(head)
            | Request::Prepend(head) => Some((read(head.key), head.value_bytes as usize)),
            Request::GetAndTouch { key, .. }
            | Request::Touch { key, .. }
            | Request::Delete { key } => Some((read(key), 0)),
            Request::Increment(number) | Request::Decrement(number) => Some((read(number.key), 0)),
            // Lookups have a run of their own.
            Request::Get { .. }
            | Request::Flush { .. }
            | Request::Noop
            | Request::Version
            | Request::Verbosity { .. }
            | Request::Quit
            | Request::Stat { .. }
            | Request::SaslList
            | Request::SaslAuth { .. }
            | Request::SaslStep { .. }
            | Request::Unknown { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash::KeyHasher;

    fn read<'b>(input: &'b [u8]) -> Vec<(usize, HeadAhead<Head<'b>>)> {
        let mut heads = Heads::new();
        let Parsed::Head { head, consumed } = parse(input) else { unreachable!("a head") };
        let hasher = KeyHasher::with_seed(1);
        heads.read_by((input, 0), (head, consumed), |key| hasher.hash(key));
        (0..=input.len() + 2000).filter_map(|at| Some((at, heads.take(at)?))).collect()
    }

    /// That of `seen`, and then `rest`, heads are read as far as they are of `seen`, about `keys`.
    #[track_caller]
    fn assert_reads(seen: &str, rest: &str, keys: &[&str]) {
        let input = [seen, rest].concat();
        let read = read(input.as_bytes());
        let hasher = KeyHasher::with_seed(1);
        let wanted: Vec<KeyHash> = keys.iter().map(|key| hasher.hash(key.as_bytes())).collect();
        let hashes: Vec<KeyHash> = read.iter().map(|(_, head)| head.hash).collect();
        assert_eq!(hashes, wanted, "of {input:?}");
        for (at, head) in read {
            assert!(at < seen.len());
            let again = parse(&input.as_bytes()[at..]);
            assert_eq!(again, Parsed::Head { head: head.head, consumed: head.bytes });
        }
    }

    #[test]
    fn every_command_about_one_key_is_read() {
        let seen = "set a 0 0 1\r\nv\r\nadd bb 5 9 0 noreply\r\n\r\nappend c 0 0 3\r\nset\r\n\
            cas d 0 0 1 77\r\ny\r\ndelete e\r\ntouch f 9\nincr g 1\r\ndecr h 2 noreply\r\n\
            ms i 2 T9\r\n\r\n\r\nmd Zm9v b q\r\nma j\r\nme k\r\n";
        assert_reads(seen, "", &["a", "bb", "c", "d", "e", "f", "g", "h", "i", "foo", "j", "k"]);
    }

    #[test]
    fn values_are_not_taken_for_commands() {
        let seen = "set a 0 0 10\r\ndelete b\r\n\r\nset c 0 0 1\r\nd\r\n";
        assert_reads(seen, "", &["a", "c"]);
    }

    #[test]
    fn it_ends_where_another_kind_of_command_comes() {
        let others = ["get c\r\n", "flush_all\r\n", "nonsense\r\n", "set c 0 0 x\r\n"];
        for other in others.map(|other| format!("{other}delete d\r\n")) {
            assert_reads("set a 0 0 1\r\nv\r\ndelete b\r\n", &other, &["a", "b"]);
        }
        assert_reads("delete a\r\ndelete b\r\n", "delete c", &["a", "b"]);
    }

    #[test]
    fn what_follows_a_value_that_has_not_come_is_unknown() {
        let seen = "delete a\r\nset b 0 0 1000\r\n";
        assert_reads(seen, "v\r\ndelete c\r\n", &["a", "b"]);
    }

    #[test]
    fn no_more_are_read_than_there_is_room_for() {
        let seen: String = (10..10 + HEADS_MAX).map(|key| format!("delete {key}\r\n")).collect();
        let keys: Vec<String> = (10..10 + HEADS_MAX).map(|key| key.to_string()).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        assert_reads(&seen, "delete more\r\n", &keys);
    }

    #[test]
    fn a_head_is_taken_only_where_it_begins() {
        let input = b"delete a\r\ndelete b\r\n";
        let mut heads = Heads::new();
        let Parsed::Head { head, consumed } = parse(input) else { unreachable!("a head") };
        heads.read_by((input, 0), (head, consumed), |_| KeyHash(0));
        assert!(heads.take(1).is_none() && heads.take(0).is_some() && heads.take(0).is_none());
        assert!(heads.take(consumed).is_some() && heads.take(2 * consumed).is_none());
    }
}
