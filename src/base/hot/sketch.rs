//! A count of names in bounded memory: Space-Saving, after Metwally, Agrawal and El Abbadi (2005).
//!
//! A name that is not counted takes the place of the one with the lowest count, and goes on from
//! that count, of which it is not known whose it was: the error. So no count is too low, none is
//! too high by more than its error, and whoever has more than one in `PLACES` of all has a place.
//! What a name is counted for first, it may have by chance: beyond 1, that is in doubt, too.

use crate::base::hash::KeyHasher;
use crate::base::limits::KEY_BYTES_MAX;

/// As many names are counted.
pub const PLACES: usize = 256;

/// A name with at least so much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted<'s> {
    pub name: &'s [u8],
    /// The count without the error.
    pub least: u32,
}

/// Parallel columns, so that the search for a name, or for the lowest count, reads little.
#[derive(Debug)]
pub struct Sketch {
    hasher: KeyHasher,
    /// A part of each name's hash.
    prints: Vec<u32>,
    counts: Vec<u32>,
    errors: Vec<u32>,
    lens: Vec<u8>,
    names: Vec<[u8; KEY_BYTES_MAX]>,
}

impl Sketch {
    pub fn new(hasher: KeyHasher) -> Sketch {
        let column = || Vec::with_capacity(PLACES);
        let (lens, names) = (Vec::with_capacity(PLACES), Vec::with_capacity(PLACES));
        Sketch { hasher, prints: column(), counts: column(), errors: column(), lens, names }
    }

    /// Counts a name so often.
    ///
    /// # Panics
    /// If it is longer than a key may be.
    pub fn add(&mut self, name: &[u8], amount: u32) {
        let [a, b, c, d, ..] = self.hasher.hash(name).0.to_le_bytes();
        let print = u32::from_le_bytes([a, b, c, d]);
        let known = self.find(name, print);
        let place = match known {
            Some(place) => place,
            None if self.prints.len() < PLACES => self.take_new_place(name, print),
            None => self.take_lowest_place(name, print),
        };
        if known.is_none() {
            self.errors[place] = self.errors[place].saturating_add(amount.saturating_sub(1));
        }
        self.counts[place] = self.counts[place].saturating_add(amount);
    }

    fn find(&self, name: &[u8], print: u32) -> Option<usize> {
        let alike = (0..self.prints.len()).filter(|place| self.prints[*place] == print);
        alike.into_iter().find(|place| self.name(*place) == name)
    }

    fn take_new_place(&mut self, name: &[u8], print: u32) -> usize {
        let place = self.prints.len();
        self.prints.push(print);
        self.counts.push(0);
        self.errors.push(0);
        self.lens.push(0);
        self.names.push([0; KEY_BYTES_MAX]);
        self.write_name(place, name);
        place
    }

    fn take_lowest_place(&mut self, name: &[u8], print: u32) -> usize {
        let lowest = self.counts.iter().enumerate().min_by_key(|(_, count)| **count);
        let (place, count) = lowest.expect("there are places");
        self.errors[place] = *count;
        self.prints[place] = print;
        self.write_name(place, name);
        place
    }

    fn write_name(&mut self, place: usize, name: &[u8]) {
        self.lens[place] = u8::try_from(name.len()).expect("a key");
        self.names[place][..name.len()].copy_from_slice(name);
    }

    fn name(&self, place: usize) -> &[u8] {
        &self.names[place][..self.lens[place].into()]
    }

    /// Makes all that was counted so far worth half.
    pub fn halve(&mut self) {
        for count in self.counts.iter_mut().chain(&mut self.errors) {
            *count /= 2;
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = Sketch::new(self.hasher.clone());
    }

    /// The names that were counted more often than is in doubt.
    pub fn counted(&self) -> impl Iterator<Item = Counted<'_>> {
        let least = |place: usize| self.counts[place].saturating_sub(self.errors[place]);
        let all = (0..self.prints.len())
            .map(move |place| Counted { name: self.name(place), least: least(place) });
        all.filter(|each| each.least > 0)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn sketch() -> Sketch {
        Sketch::new(KeyHasher::with_seed(1))
    }

    fn least(sketch: &Sketch, name: &[u8]) -> u32 {
        sketch.counted().find(|each| each.name == name).map_or(0, |each| each.least)
    }

    #[test]
    fn few_names_are_counted_exactly() {
        let mut sketch = sketch();
        for number in 0..PLACES {
            (0..=number).for_each(|_| sketch.add(format!("key{number}").as_bytes(), 1));
        }
        for number in 0..PLACES {
            let name = format!("key{number}");
            assert_eq!(least(&sketch, name.as_bytes()) as usize, number + 1, "{name}");
        }
        sketch.halve();
        assert_eq!((least(&sketch, b"key0"), least(&sketch, b"key255")), (0, 128));
        sketch.clear();
        assert_eq!(sketch.counted().count(), 0);
    }

    #[test]
    fn who_is_frequent_is_found_among_many_and_never_said_to_have_more() {
        let mut sketch = sketch();
        for round in 0..20_000_u32 {
            sketch.add(format!("rare{round}").as_bytes(), 1);
            if round % 10 == 0 {
                sketch.add(b"frequent", 1);
            }
        }
        // It may have come late, past errors, but its count goes on from the first time on.
        let frequent = least(&sketch, b"frequent");
        assert!((1_900..=2_000).contains(&frequent), "{frequent}");
        let others = sketch.counted().filter(|each| each.name != b"frequent");
        assert!(others.map(|each| each.least).max() <= Some(1));
    }

    #[test]
    fn names_of_one_print_are_told_apart_and_the_longest_fits() {
        let mut sketch = sketch();
        let longest = [b'k'; KEY_BYTES_MAX];
        sketch.add(&longest, 3);
        sketch.add(b"", 2);
        sketch.prints[1] = sketch.prints[0];
        sketch.add(&longest, 4);
        assert_eq!((least(&sketch, &longest), least(&sketch, b"")), (5, 1));
    }
}
