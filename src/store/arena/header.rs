//! The two words that open every slot, of a size class or of the log.
//!
//! ```text
//!           63    32 31..24 23..21 20   19    18     17   16..15 14..12 11      10..0
//!   word 0  exptime  nkey   kind   WIDE NOTED CFLAGS MAIN heat   state  FETCHED pins   item
//!           63            26 25                          ..15    14..12
//!           ref of the head  -                                   state                 fragment
//!           63      40 39                                                     0
//!   word 1  value len  version                                                         item
//!           slot len (63..38)   ref of the next fragment, or 0 (37..0)                 fragment
//!           ref of the next free slot of this page, or 0                               free
//! ```
//!
//! Kinds: 0 is a string. 5 is one whose successor somebody has been told to make (won), 6 one that
//! is out of date (stale), 7 is both. 1 to 4 are for other types of values.
//!
//! Word 0 changes in place: pins, heat, exptime, state, and the marks of a string. Whatever the
//! page is used for, the state lies in the same bits, so that a CLOCK hand knows what it sees. A
//! slot of the log that is freed keeps what tells its length: a page of the log is read from its
//! start, slot by slot.
//!
//! Word 1 of a live item changes in one way: an item that is marked as stale gets a newer version,
//! under the lock of its stripe. Its length stays, so nobody who goes by that can be misled. Who
//! reads the version without the lock reads it once, atomically, and finds the older or the newer
//! one:
//! - As a cas for the peer, the older one is no match any more, and the newer one belongs to the
//!   same value. Who tells marks, too, reads the version first: see `Item::settled`.
//! - Against a flush, both give the same answer: an item is marked only while it is alive, so every
//!   flush that kills the older version and comes later kills the newer one.
//! - Who puts a copy or a successor in the place of the item compares, or takes over, the version
//!   under the lock.

use super::Ref;
use crate::base::clock::Expiry;

/// What a slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum State {
    Free,
    /// Owned by one `Reservation`; no reader knows it.
    Reserved,
    /// An item, linked in the index.
    Live,
    /// A further piece of the item that its head ref names.
    Fragment,
    /// An item that the index has let go, but readers may still look at.
    Retired,
    /// Where in the log the head of an item was.
    Hole,
    /// Where in the log a further piece of an item was.
    FragmentHole,
}

/// Heat does not rise beyond this.
pub(in crate::store) const HEAT_MAX: u64 = 3;
pub(super) const PINS_MAX: u64 = (1 << 11) - 1;

const FETCHED: u64 = 1 << 11;
const STATE_SHIFT: u32 = 12;
const STATE_MASK: u64 = 7 << STATE_SHIFT;
const HEAT_SHIFT: u32 = 15;
const HEAT_MASK: u64 = HEAT_MAX << HEAT_SHIFT;
/// Right above the heat, see `warmth`.
const MAIN: u64 = 1 << 17;
const CFLAGS: u64 = 1 << 18;
const NOTED: u64 = 1 << 19;
const WIDE: u64 = 1 << 20;
const KIND_SHIFT: u32 = 21;
const KIND_MASK: u64 = 7 << KIND_SHIFT;
/// Of the kinds, those of strings with marks: each has this bit, and those of its marks.
const MARKED: u64 = 4 << KIND_SHIFT;
const STALE: u64 = 2 << KIND_SHIFT;
const WON: u64 = 1 << KIND_SHIFT;
const NKEY_SHIFT: u32 = 24;
const EXPTIME_SHIFT: u32 = 32;
const HEAD_SHIFT: u32 = 26;

/// What is to be known about a value beside itself. Storing a value clears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks(u64);

impl Marks {
    pub(in crate::store) const NONE: Marks = Marks(0);
    pub(in crate::store) const WON: Marks = Marks(MARKED | WON);
    pub(in crate::store) const STALE: Marks = Marks(MARKED | STALE);
    pub(in crate::store) const ALL: Marks = Marks(MARKED | STALE | WON);

    /// True when somebody has been told to make a newer value.
    pub fn is_won(self) -> bool {
        self.0 & WON != 0
    }

    /// True when it is out of date.
    pub fn is_stale(self) -> bool {
        self.0 & STALE != 0
    }

    /// All that are in one of both.
    #[cfg(test)]
    pub(in crate::store) fn or(self, other: Marks) -> Marks {
        Marks(self.0 | other.0)
    }

    /// Those that are in both.
    pub(in crate::store) fn and(self, other: Marks) -> Marks {
        match self.0 & other.0 {
            MARKED => Marks::NONE,
            both => Marks(both),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Word0(pub(super) u64);

impl Word0 {
    pub(super) const FREE: Word0 = Word0(0);

    /// The first word of a reserved item.
    pub(super) fn reserved(nkey: u8, expiry: Expiry, cflags: bool) -> Word0 {
        let word = (u64::from(expiry.to_bits()) << EXPTIME_SHIFT)
            | (u64::from(nkey) << NKEY_SHIFT)
            | if cflags { CFLAGS } else { 0 };
        Word0(word).with_state(State::Reserved)
    }

    pub(super) fn with_wide(self, wide: bool) -> Word0 {
        Word0(self.0 | if wide { WIDE } else { 0 })
    }

    pub(super) fn with_note(self, noted: bool) -> Word0 {
        Word0(self.0 | if noted { NOTED } else { 0 })
    }

    pub(super) fn with_main(self, main: bool) -> Word0 {
        Word0(self.0 | if main { MAIN } else { 0 })
    }

    pub(super) fn fragment(head: Ref) -> Word0 {
        Word0(head.bits() << HEAD_SHIFT).with_state(State::Fragment)
    }

    pub(in crate::store) fn state(self) -> State {
        match (self.0 & STATE_MASK) >> STATE_SHIFT {
            0 => State::Free,
            1 => State::Reserved,
            2 => State::Live,
            3 => State::Fragment,
            4 => State::Retired,
            5 => State::Hole,
            6 => State::FragmentHole,
            other => unreachable!("a slot in state {other}"),
        }
    }

    /// As `state`, for who expects this one.
    #[inline]
    pub(super) fn is_in(self, state: State) -> bool {
        self.0 & STATE_MASK == (state as u64) << STATE_SHIFT
    }

    /// True of an item that is or was in the index: live or retired.
    #[inline]
    pub(super) fn is_published(self) -> bool {
        self.is_in(State::Live) || self.is_in(State::Retired)
    }

    pub(super) fn with_state(self, state: State) -> Word0 {
        Word0((self.0 & !STATE_MASK) | ((state as u64) << STATE_SHIFT))
    }

    pub(in crate::store) fn pins(self) -> u64 {
        self.0 & PINS_MAX
    }

    pub(in crate::store) fn heat(self) -> u64 {
        (self.0 & HEAT_MASK) >> HEAT_SHIFT
    }

    /// The heat of an item, and 4 more if it lies in a size class.
    #[inline(always)]
    pub(in crate::store) fn warmth(self) -> usize {
        const _: () = assert!(MAIN >> HEAT_SHIFT == 4 && HEAT_MAX == 3);
        super::to_usize(self.0 >> HEAT_SHIFT) % 8
    }

    pub(super) fn with_heat(self, heat: u64) -> Word0 {
        Word0((self.0 & !HEAT_MASK) | (heat << HEAT_SHIFT))
    }

    /// One degree hotter, if it can be, and fetched.
    pub(super) fn hotter(self) -> Word0 {
        let degree = if self.heat() < HEAT_MAX { 1 << HEAT_SHIFT } else { 0 };
        Word0((self.0 + degree) | FETCHED)
    }

    /// Fetched if the other is, and only then.
    pub(super) fn as_fetched_as(self, other: Word0) -> Word0 {
        Word0((self.0 & !FETCHED) | (other.0 & FETCHED))
    }

    /// True when `hotter` changes nothing.
    #[inline]
    pub(super) fn is_hottest(self) -> bool {
        self.0 & (HEAT_MASK | FETCHED) == HEAT_MASK | FETCHED
    }

    /// One degree colder. Heat must not be 0.
    pub(super) fn colder(self) -> Word0 {
        Word0(self.0 - (1 << HEAT_SHIFT))
    }

    /// True when a `get` has seen the item.
    pub(in crate::store) fn is_fetched(self) -> bool {
        self.0 & FETCHED != 0
    }

    pub(super) fn has_cflags(self) -> bool {
        self.0 & CFLAGS != 0
    }

    pub(super) fn is_wide(self) -> bool {
        self.0 & WIDE != 0
    }

    /// True when a peer chose the cas of the item.
    pub(super) fn is_noted(self) -> bool {
        self.0 & NOTED != 0
    }

    /// Bytes between the header and the key: 16 if it is wide, 8 if it is noted, 4 for flags.
    #[inline]
    pub(super) fn extra_bytes(self) -> usize {
        const _: () = assert!(CFLAGS >> 16 == 4 && NOTED >> 16 == 8 && WIDE >> 16 == 16);
        super::to_usize((self.0 & (CFLAGS | NOTED | WIDE)) >> 16)
    }

    #[inline]
    pub(super) fn is_marked(self) -> bool {
        self.0 & MARKED != 0 && self.0 & (STALE | WON) != 0
    }

    pub(in crate::store) fn marks(self) -> Marks {
        if self.is_marked() { Marks(self.0 & KIND_MASK) } else { Marks::NONE }
    }

    /// With these marks, too.
    #[inline]
    pub(super) fn marked(self, marks: Marks) -> Word0 {
        Word0(self.0 | marks.0)
    }

    pub(super) fn with_marks(self, marks: Marks) -> Word0 {
        Word0((self.0 & !KIND_MASK) | marks.0)
    }

    /// True of an item that lies in a size class, and not in the log.
    pub(in crate::store) fn is_main(self) -> bool {
        self.0 & MAIN != 0
    }

    pub(super) fn nkey(self) -> usize {
        usize::from((self.0 >> NKEY_SHIFT).to_le_bytes()[0])
    }

    pub(in crate::store) fn expiry(self) -> Expiry {
        let [_, _, _, _, a, b, c, d] = self.0.to_le_bytes();
        Expiry::from_bits(u32::from_le_bytes([a, b, c, d]))
    }

    pub(super) fn with_expiry(self, expiry: Expiry) -> Word0 {
        let rest = self.0 & ((1 << EXPTIME_SHIFT) - 1);
        Word0(rest | (u64::from(expiry.to_bits()) << EXPTIME_SHIFT))
    }

    /// The head of the item that a fragment belongs to.
    pub(super) fn head(self) -> Ref {
        Ref::from_bits(self.0 >> HEAD_SHIFT)
    }
}

/// Longest value whose length fits word 1; a longer one makes its item wide.
pub(super) const NARROW_VALUE_BYTES_MAX: usize = (1 << 24) - 1;
/// Of a version so many low bits are kept.
pub(in crate::store) const VERSION_BITS: u32 = 40;
const VERSION_MASK: u64 = (1 << VERSION_BITS) - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Word1(pub(super) u64);

impl Word1 {
    pub(super) fn new(version: u64, value_bytes: usize) -> Word1 {
        let length = if value_bytes <= NARROW_VALUE_BYTES_MAX { value_bytes as u64 } else { 0 };
        Word1((version & VERSION_MASK) | (length << VERSION_BITS))
    }

    pub(in crate::store) fn version(self) -> u64 {
        self.0 & VERSION_MASK
    }

    pub(super) fn with_version(self, version: u64) -> Word1 {
        Word1((self.0 & !VERSION_MASK) | (version & VERSION_MASK))
    }

    pub(super) fn value_bytes(self) -> usize {
        super::to_usize(self.0 >> VERSION_BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_touch_each_other() {
        let word = Word0::reserved(250, Expiry::from_bits(0xdead_beef), true).with_main(true);
        let word = word.with_state(State::Live).hotter().hotter();
        assert!(word.is_main() && !word.with_state(State::Hole).is_wide());
        assert_eq!((word.state(), word.nkey(), word.heat()), (State::Live, 250, 2));
        assert_eq!(word.warmth(), 4 + 2);
        assert_eq!(Word0::reserved(1, Expiry::NEVER, true).hotter().warmth(), 1);
        assert_eq!(word.expiry().to_bits(), 0xdead_beef);
        assert!(word.has_cflags() && !word.is_wide() && word.is_fetched());
        let word = word.colder().with_expiry(Expiry::NEVER);
        assert_eq!((word.nkey(), word.heat(), word.pins()), (250, 1, 0));
        assert_eq!(word.expiry(), Expiry::NEVER);
        let head = Ref::from_bits((1 << 38) - 1);
        assert_eq!(Word0::fragment(head).head(), head);
        assert_eq!(Word0::fragment(head).state(), State::Fragment);
        let word = Word1::new(VERSION_MASK, NARROW_VALUE_BYTES_MAX);
        assert_eq!((word.version(), word.value_bytes()), (VERSION_MASK, NARROW_VALUE_BYTES_MAX));
        let word = word.with_version(7);
        assert_eq!((word.version(), word.value_bytes()), (7, NARROW_VALUE_BYTES_MAX));
    }

    #[test]
    fn marks_are_kinds_of_their_own() {
        let word = Word0::reserved(250, Expiry::NEVER, true).with_main(true).with_wide(true);
        let both = Marks::WON.or(Marks::STALE);
        for (marks, kind) in [(Marks::NONE, 0), (Marks::WON, 5), (Marks::STALE, 6), (both, 7)] {
            let marked = word.with_marks(both).with_marks(marks);
            assert_eq!((marked.0 & KIND_MASK) >> KIND_SHIFT, kind);
            assert_eq!((marked.marks(), marked.0 & !KIND_MASK), (marks, word.0));
            assert_eq!((marks.and(both), marks.and(Marks::NONE)), (marks, Marks::NONE));
            assert_eq!((marks.is_won(), marks.is_stale()), (kind & 1 == 1, kind & 2 == 2));
        }
        assert_eq!(Marks::WON.and(Marks::STALE), Marks::NONE);
        for kind in 1..5 {
            assert_eq!(Word0(word.0 | kind << KIND_SHIFT).marks(), Marks::NONE);
        }
    }

    #[test]
    fn pins_end_where_another_field_begins() {
        let word = Word0(Word0::reserved(1, Expiry::NEVER, false).0 + PINS_MAX);
        let fields = (word.pins(), word.is_fetched(), word.state());
        assert_eq!(fields, (PINS_MAX, false, State::Reserved));
    }

    #[test]
    fn what_precedes_the_key_has_its_length() {
        for (wide, noted, cflags, bytes) in
            [(false, false, false, 0), (true, true, true, 28), (false, true, false, 8)]
        {
            let word = Word0::reserved(1, Expiry::NEVER, cflags).with_wide(wide).with_note(noted);
            assert_eq!(word.extra_bytes(), bytes);
        }
    }

    #[test]
    fn what_is_hottest_has_been_fetched() {
        let word = Word0::reserved(1, Expiry::NEVER, false).with_heat(HEAT_MAX);
        assert!(!word.is_hottest() && word.hotter().is_hottest());
        assert_eq!(word.hotter().heat(), HEAT_MAX);
    }
}
