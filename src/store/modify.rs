//! Verbs that make a new value from the old one. They are optimistic: whoever stored in between
//! makes them begin again.

use super::arena::{Exptime, ItemHead, Pin, Reservation};
use super::participant::Participant;
use super::{ArithmeticError, Condition, Direction, Miss, Outcome, Refusal, Side};
use crate::base::by_size::OfSize;
use crate::base::clock::{Expiry, Now};
use crate::base::hash::KeyHash;
use crate::base::limits::KEY_BYTES_MAX;

/// Digits of the largest number.
const DIGITS_MAX: usize = 20;

/// What is remembered of an item while its successor is made.
struct Seen {
    flags: u32,
    cas: u64,
    value_bytes: usize,
    pin: Pin,
}

impl Participant {
    /// Joins the value of a full reservation to that of its key, which keeps flags and exptime.
    ///
    /// # Errors
    /// The reservation, when this thread defers waits and would have to: as `Refusal::WouldWait`.
    ///
    /// # Panics
    /// If the reservation is not full, or of another table.
    pub fn concat(
        &mut self,
        addition: Reservation,
        side: Side,
        condition: Condition,
        now: Now,
    ) -> Result<Outcome, Reservation> {
        loop {
            let seen = match self.look_at(&addition, condition, now) {
                Ok(seen) => seen,
                Err(outcome) => {
                    self.abandon(addition);
                    return Ok(outcome);
                }
            };
            let joined = self.join(&addition, side, &seen, now);
            self.unpin(seen.pin);
            let joined = match joined {
                Ok(joined) => joined,
                Err(Refusal::WouldWait) => return Err(addition),
                Err(Refusal::NoMemory | Refusal::TooLarge) => {
                    self.abandon(addition);
                    return Ok(Outcome::NoMemory);
                }
            };
            match self.store(joined, Condition::Cas(seen.cas), Exptime::Inherited, now) {
                Outcome::Exists | Outcome::NotFound => {}
                outcome @ (Outcome::Stored | Outcome::NotStored | Outcome::NoMemory) => {
                    self.abandon(addition);
                    return Ok(outcome);
                }
            }
        }
    }

    /// Looks at the item that is to be extended, and keeps it.
    fn look_at(
        &self,
        addition: &Reservation,
        condition: Condition,
        now: Now,
    ) -> Result<Seen, Outcome> {
        let draft = self.table.arena.draft(addition);
        let absent = match condition {
            Condition::Cas(_) => Outcome::NotFound,
            Condition::Always | Condition::Absent | Condition::Present => Outcome::NotStored,
        };
        let item = self.peek(draft.key(), addition.hash(), now).map_err(|_| absent)?;
        match condition {
            Condition::Cas(cas) if cas != item.cas() => return Err(Outcome::Exists),
            Condition::Absent => return Err(Outcome::NotStored),
            Condition::Cas(_) | Condition::Always | Condition::Present => {}
        }
        let pin = self.pin(&item).ok_or(Outcome::NoMemory)?;
        Ok(Seen { flags: item.flags(), cas: item.cas(), value_bytes: item.value_bytes(), pin })
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

    /// Adds `delta` to a decimal number, wrapping at 2^64, or subtracts it, ending at 0. The value
    /// never becomes shorter: blanks follow the number then.
    ///
    /// # Errors
    /// Why nothing was changed.
    //= protocol.txt "Increment/Decrement"
    pub fn arithmetic(
        &mut self,
        key: &[u8],
        hash: KeyHash,
        delta: u64,
        direction: Direction,
        now: Now,
    ) -> Result<u64, ArithmeticError> {
        loop {
            let item = match self.get(key, hash, now) {
                Ok(item) => item,
                Err(Miss::Absent | Miss::Expired | Miss::Flushed) => {
                    return Err(ArithmeticError::NotFound);
                }
            };
            let class = self.class_of(&item);
            let old = item.value().and_then(number).ok_or(ArithmeticError::NonNumeric)?;
            let (flags, cas, old_bytes) = (item.flags(), item.cas(), item.value_bytes());
            let new = match direction {
                Direction::Up => old.wrapping_add(delta),
                Direction::Down => old.saturating_sub(delta),
            };
            let (digits, count) = decimal(new);
            let value = &digits[..count.max(old_bytes)];
            let expiry = Expiry::NEVER;
            let head = ItemHead { key, hash, flags, expiry, value_bytes: value.len() };
            match self.replace(head, value, cas, now) {
                Ok(Outcome::Stored) => {
                    let hits = match direction {
                        Direction::Up => OfSize::IncrHits,
                        Direction::Down => OfSize::DecrHits,
                    };
                    self.counters.add_of_size(class, hits, 1);
                    return Ok(new);
                }
                Ok(Outcome::Exists | Outcome::NotFound) => {}
                Err(Refusal::WouldWait) => return Err(ArithmeticError::WouldWait),
                Ok(Outcome::NoMemory | Outcome::NotStored)
                | Err(Refusal::NoMemory | Refusal::TooLarge) => {
                    return Err(ArithmeticError::NoMemory);
                }
            }
        }
    }

    /// Replaces the item with this cas by another value with the same exptime.
    fn replace(
        &mut self,
        head: ItemHead<'_>,
        value: &[u8],
        cas: u64,
        now: Now,
    ) -> Result<Outcome, Refusal> {
        debug_assert!(head.key.len() <= KEY_BYTES_MAX);
        let mut reservation = self.reserve(head, now)?;
        match self.fill(&mut reservation, value, now) {
            Ok(()) => Ok(self.store(reservation, Condition::Cas(cas), Exptime::Inherited, now)),
            Err(refusal) => {
                self.abandon(reservation);
                Err(refusal)
            }
        }
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
