//! Verbs that make a new value from the old one. They are optimistic: whoever stored in between
//! makes them begin again.

use super::arena::{Inherits, ItemHead, Pin, Reservation};
use super::participant::Participant;
use super::write::{Terms, Tried};
use super::{
    ArithmeticError, Change, Changed, Condition, Direction, Join, Miss, Outcome, Refusal, Side,
};
use crate::base::by_size::OfSize;
use crate::base::clock::{Expiry, Now};
use crate::base::hash::KeyHash;
use crate::base::limits::KEY_BYTES_MAX;

/// Digits of the largest number.
const DIGITS_MAX: usize = 20;

/// What is remembered of an item while its successor is made.
struct Seen {
    flags: u32,
    version: u64,
    value_bytes: usize,
    pin: Pin,
}

impl Participant {
    /// Joins the value of a full reservation to that of its key, which keeps flags and exptime. A
    /// cas that was reserved for becomes that of the item.
    ///
    /// # Errors
    /// The reservation, when this thread defers waits and would have to: as `Refusal::WouldWait`.
    ///
    /// # Panics
    /// If the reservation is not full, or of another table.
    pub fn concat(
        &mut self,
        mut addition: Reservation,
        join: Join,
        now: Now,
    ) -> Result<Outcome, Reservation> {
        loop {
            let seen = match self.look_at(&addition, join, now) {
                Ok(seen) => seen,
                Err(Outcome::NotStored) if join.create => {
                    match self.try_store(addition, Terms::on(Condition::Absent), now) {
                        Tried::Stored(outcome) => return Ok(outcome),
                        // There is one by now.
                        Tried::Refused(refused, Outcome::NotStored) => {
                            addition = refused;
                            continue;
                        }
                        Tried::Refused(refused, outcome) => {
                            self.abandon(refused);
                            return Ok(outcome);
                        }
                    }
                }
                Err(outcome) => {
                    self.abandon(addition);
                    return Ok(outcome);
                }
            };
            let joined = self.join(&addition, join.side, &seen, now);
            self.unpin(seen.pin);
            let joined = match joined {
                Ok(joined) => joined,
                Err(Refusal::WouldWait) => return Err(addition),
                Err(Refusal::NoMemory | Refusal::TooLarge) => {
                    self.abandon(addition);
                    return Ok(Outcome::NoMemory);
                }
            };
            let condition = Condition::Version(seen.version);
            let terms = Terms {
                inherits: Inherits { exptime: true, ..Inherits::NOTHING },
                ..Terms::on(condition)
            };
            match self.store(joined, terms, now) {
                Outcome::Exists | Outcome::NotFound => {}
                outcome @ (Outcome::Stored { .. } | Outcome::NotStored | Outcome::NoMemory) => {
                    self.abandon(addition);
                    return Ok(outcome);
                }
            }
        }
    }

    /// Looks at the item that is to be extended, and keeps it.
    fn look_at(&self, addition: &Reservation, join: Join, now: Now) -> Result<Seen, Outcome> {
        let draft = self.table.arena.draft(addition);
        let item = self.peek(draft.key(), addition.hash(), now);
        let item = item.map_err(|_| Outcome::NotStored)?;
        if join.cas.is_some_and(|cas| cas != item.cas()) {
            return Err(Outcome::Exists);
        }
        let pin = self.pin(&item).ok_or(Outcome::NoMemory)?;
        let (flags, value_bytes) = (item.flags(), item.value_bytes());
        Ok(Seen { flags, version: item.version(), value_bytes, pin })
    }

    /// Builds the joined value.
    fn join(
        &mut self,
        addition: &Reservation,
        side: Side,
        seen: &Seen,
        now: Now,
    ) -> Result<Reservation, Refusal> {
        let table = std::sync::Arc::clone(&self.table);
        let draft = table.arena.draft(addition);
        let head = ItemHead {
            key: draft.key(),
            hash: addition.hash(),
            flags: seen.flags,
            expiry: Expiry::NEVER,
            value_bytes: seen.value_bytes + addition.value_bytes(),
            cas: draft.is_noted().then(|| draft.cas()),
        };
        let mut joined = self.reserve(head, now)?;
        let mut fill = |old: bool| -> Result<(), Refusal> {
            if !old {
                return draft.runs().try_for_each(|run| self.fill(&mut joined, run, now));
            }
            let mut offset = 0;
            while offset < seen.value_bytes {
                let run = table.arena.pinned(&seen.pin, offset);
                self.fill(&mut joined, run, now)?;
                offset += run.len();
            }
            Ok(())
        };
        let filled = match side {
            Side::Append => fill(true).and_then(|()| fill(false)),
            Side::Prepend => fill(false).and_then(|()| fill(true)),
        };
        match filled {
            Ok(()) => Ok(joined),
            Err(refusal) => {
                self.abandon(joined);
                Err(refusal)
            }
        }
    }

    /// Adds to a decimal number, wrapping at 2^64, or subtracts from it, ending at 0. The value
    /// never becomes shorter: blanks follow the number then. Flags and marks stay.
    ///
    /// # Errors
    /// Why nothing was changed.
    //= protocol.txt "Increment/Decrement", "Meta Arithmetic"
    pub fn arithmetic(
        &mut self,
        key: &[u8],
        hash: KeyHash,
        change: &Change,
        now: Now,
    ) -> Result<Changed, ArithmeticError> {
        loop {
            let item = match (self.peek(key, hash, now), change.initial) {
                (Ok(item), _) => item,
                (Err(Miss::Absent | Miss::Expired | Miss::Flushed), None) => {
                    return Err(ArithmeticError::NotFound);
                }
                (Err(_), Some(initial)) => match self.begin_number(key, hash, change, initial, now)
                {
                    // There is one by now.
                    Err(ArithmeticError::Exists) => continue,
                    result => return result,
                },
            };
            self.count_change(&item);
            let size = self.size_of(&item);
            if item.value_bytes() == 0 {
                return Err(ArithmeticError::NonNumeric);
            }
            if change.cas.is_some_and(|cas| cas != item.cas()) {
                return Err(ArithmeticError::Exists);
            }
            // What lies in pieces is no number.
            let value = item.value().ok_or(ArithmeticError::NonNumeric)?;
            let old = number(value).ok_or(ArithmeticError::NonNumeric)?;
            let new = match change.direction {
                Direction::Up => old.wrapping_add(change.delta),
                Direction::Down => old.saturating_sub(change.delta),
            };
            let (digits, count) = decimal(new);
            let (flags, old_bytes, expiry) = (item.flags(), value.len(), item.expiry());
            let value = &digits[..count.max(old_bytes)];
            let inherits = Inherits { exptime: change.expiry.is_none(), ..Inherits::EVERYTHING };
            let condition = Condition::Version(item.version());
            let terms = Terms { inherits, ..Terms::on(condition) };
            let head = ItemHead {
                key,
                hash,
                flags,
                expiry: change.expiry.unwrap_or(Expiry::NEVER),
                value_bytes: value.len(),
                cas: change.new_cas,
            };
            match self.build(head, value, terms, now) {
                Ok(Outcome::Stored { cas, .. }) => {
                    let hits = match change.direction {
                        Direction::Up => OfSize::IncrHits,
                        Direction::Down => OfSize::DecrHits,
                    };
                    self.counters.add_of_size(size, hits, 1);
                    return Ok(Changed { number: new, cas, expiry: Some(expiry) });
                }
                Ok(Outcome::Exists | Outcome::NotFound) => {}
                result => return Err(refused(result)),
            }
        }
    }

    /// Stores the number to begin with.
    #[cold]
    fn begin_number(
        &mut self,
        key: &[u8],
        hash: KeyHash,
        change: &Change,
        (number, expiry): (u64, Expiry),
        now: Now,
    ) -> Result<Changed, ArithmeticError> {
        let (digits, count) = decimal(number);
        let cas = change.new_cas;
        let head = ItemHead { key, hash, flags: 0, expiry, value_bytes: count, cas };
        match self.build(head, &digits[..count], Terms::on(Condition::Absent), now) {
            Ok(Outcome::Stored { cas, .. }) => Ok(Changed { number, cas, expiry: None }),
            Ok(Outcome::NotStored) => Err(ArithmeticError::Exists),
            result => Err(refused(result)),
        }
    }

    /// Stores a short value on these terms.
    pub(in crate::store) fn build(
        &mut self,
        head: ItemHead<'_>,
        value: &[u8],
        terms: Terms,
        now: Now,
    ) -> Result<Outcome, Refusal> {
        debug_assert!(head.key.len() <= KEY_BYTES_MAX);
        let mut reservation = self.reserve(head, now)?;
        match self.fill(&mut reservation, value, now) {
            Ok(()) => Ok(self.store(reservation, terms, now)),
            Err(refusal) => {
                self.abandon(reservation);
                Err(refusal)
            }
        }
    }
}

fn refused(result: Result<Outcome, Refusal>) -> ArithmeticError {
    match result {
        Err(Refusal::WouldWait) => ArithmeticError::WouldWait,
        Ok(_) | Err(Refusal::NoMemory | Refusal::TooLarge) => ArithmeticError::NoMemory,
    }
}

/// A decimal number, which blanks may follow.
fn number(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii_end();
    if digits.is_empty() || value.len() > DIGITS_MAX {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// A number in decimal, with blanks behind it, and how many digits it has.
fn decimal(mut number: u64) -> ([u8; DIGITS_MAX], usize) {
    let mut reversed = [b' '; DIGITS_MAX];
    let mut count = 0;
    while number > 0 || count == 0 {
        reversed[count] = b'0' + (number % 10).to_le_bytes()[0];
        number /= 10;
        count += 1;
    }
    reversed[..count].reverse();
    (reversed, count)
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn numbers() {
        for (text, value) in [
            (&b"0"[..], Some(0)),
            (b"18446744073709551615", Some(u64::MAX)),
            (b"18446744073709551616", None),
            (b"9  ", Some(9)),
            (b"", None),
            (b"  ", None),
            (b"-1", None),
            (b"1a", None),
            (b"000000000000000000001", None),
        ] {
            assert_eq!(number(text), value, "{text:?}");
        }
        for value in [0, 9, 10, u64::MAX] {
            let (digits, count) = decimal(value);
            assert_eq!(std::str::from_utf8(&digits[..count]).unwrap(), value.to_string());
        }
    }
}
