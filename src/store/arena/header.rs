//! The two words that open every slot, of a size class or of the log.
//!
//! ```text
//!           63      32 31  24 23      22..20 19   18     17   16..15 14..12 11..0
//!   word 0  exptime    nkey   FETCHED kind   WIDE CFLAGS MAIN heat   state  pins   item
//!           63            26 25                               ..15   14..12
//!           ref of the head  -                                       state         fragment
//!           63      40 39                                                 0
//!   word 1  value len  cas                                                         item
//!           slot len (63..38)   ref of the next fragment, or 0 (37..0)             fragment
//!           ref of the next free slot of this page, or 0                           free
//! ```
//!
//! Word 0 changes in place (pins, heat, exptime, state), word 1 not while an item is live. Whatever
//! the page is used for, the state lies in the same bits, so that a CLOCK hand knows what it sees.
//! A slot of the log that is freed keeps what tells its length: a page of the log is read from its
//! start, slot by slot.

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
pub(super) const PINS_MAX: u64 = (1 << 12) - 1;

const STATE_SHIFT: u32 = 12;
const STATE_MASK: u64 = 7 << STATE_SHIFT;
const HEAT_SHIFT: u32 = 15;
const HEAT_MASK: u64 = HEAT_MAX << HEAT_SHIFT;
/// Right above the heat, see `warmth`.
const MAIN: u64 = 1 << 17;
const CFLAGS: u64 = 1 << 18;
const WIDE: u64 = 1 << 19;
const FETCHED: u64 = 1 << 23;
const NKEY_SHIFT: u32 = 24;
const EXPTIME_SHIFT: u32 = 32;
const HEAD_SHIFT: u32 = 26;

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
        super::to_usize(self.0 >> HEAT_SHIFT) % 8
    }

    /// True of an item that has any heat.
    pub(in crate::store) fn is_warm(self) -> bool {
        self.heat() > 0
    }

    pub(super) fn with_heat(self, heat: u64, fetched: bool) -> Word0 {
        let rest = self.0 & !(HEAT_MASK | FETCHED);
        Word0(rest | (heat << HEAT_SHIFT) | if fetched { FETCHED } else { 0 })
    }

    /// One degree hotter, and fetched. Heat must be below its limit.
    pub(super) fn hotter(self) -> Word0 {
        Word0((self.0 + (1 << HEAT_SHIFT)) | FETCHED)
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
/// Of a cas so many low bits are kept.
pub(in crate::store) const CAS_BITS: u32 = 40;
const CAS_MASK: u64 = (1 << CAS_BITS) - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Word1(pub(super) u64);

impl Word1 {
    pub(super) fn new(cas: u64, value_bytes: usize) -> Word1 {
        let length = if value_bytes <= NARROW_VALUE_BYTES_MAX { value_bytes as u64 } else { 0 };
        Word1((cas & CAS_MASK) | (length << CAS_BITS))
    }

    pub(in crate::store) fn cas(self) -> u64 {
        self.0 & CAS_MASK
    }

    pub(super) fn value_bytes(self) -> usize {
        super::to_usize(self.0 >> CAS_BITS)
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
        let word = Word1::new(CAS_MASK, NARROW_VALUE_BYTES_MAX);
        assert_eq!((word.cas(), word.value_bytes()), (CAS_MASK, NARROW_VALUE_BYTES_MAX));
    }
}
