//! A table of reusable places whose names go stale: an index plus a generation.
//!
//! A completion that arrives late carries the generation of the tenant it was meant for, so it
//! cannot be taken for the next one's (rule R4).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The name of one tenant of one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlotId {
    pub index: u32,
    /// Counts the tenants of the place; only the low 24 bits travel through the kernel.
    pub generation: u32,
}

/// Low bits of a generation that are kept.
pub const GENERATION_BITS: u32 = 24;

/// Fewest places that are worth to be given back.
const PLACES_KEPT: usize = 64;

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    tenant: Option<T>,
}

#[derive(Debug)]
pub struct Slots<T> {
    places: Vec<Place<T>>,
    /// The lowest is taken first, so that those at the end become of no use.
    vacant: BinaryHeap<Reverse<u32>>,
    /// What the generations of new places begin with.
    first_generation: u32,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Slots { places: Vec::new(), vacant: BinaryHeap::new(), first_generation: 0 }
    }
}

impl<T> Slots<T> {
    pub fn len(&self) -> usize {
        self.places.len() - self.vacant.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives `tenant` a place.
    ///
    /// # Panics
    /// If there are 2^32 tenants.
    pub fn insert(&mut self, tenant: T) -> SlotId {
        let index = self.vacant.pop().map(|Reverse(index)| index).unwrap_or_else(|| {
            self.places.push(Place { generation: self.first_generation, tenant: None });
            u32::try_from(self.places.len() - 1).expect("fewer than 2^32 places")
        });
        let place = &mut self.places[index as usize];
        assert!(place.tenant.is_none());
        place.tenant = Some(tenant);
        SlotId { index, generation: place.generation }
    }

    /// Vacates the place; every copy of `id` is stale from now on.
    pub fn remove(&mut self, id: SlotId) -> Option<T> {
        let place = self.places.get_mut(id.index as usize)?;
        if place.generation != id.generation {
            return None;
        }
        let tenant = place.tenant.take()?;
        place.generation = (place.generation + 1) & ((1 << GENERATION_BITS) - 1);
        self.vacant.push(Reverse(id.index));
        Some(tenant)
    }

    pub fn get(&self, id: SlotId) -> Option<&T> {
        let place = self.places.get(id.index as usize)?;
        if place.generation == id.generation { place.tenant.as_ref() } else { None }
    }

    pub fn get_mut(&mut self, id: SlotId) -> Option<&mut T> {
        let place = self.places.get_mut(id.index as usize)?;
        if place.generation == id.generation { place.tenant.as_mut() } else { None }
    }

    /// The names of all tenants, in the order of their places.
    pub fn ids(&self) -> impl Iterator<Item = SlotId> + '_ {
        (0u32..)
            .zip(&self.places)
            .filter(|(_, place)| place.tenant.is_some())
            .map(|(index, place)| SlotId { index, generation: place.generation })
    }

    /// Gives the memory of vacant places at the end back, if they are most of them. Names that are
    /// stale stay so.
    pub fn shrink(&mut self) {
        let used = self.places.iter().rposition(|place| place.tenant.is_some());
        let wanted = used.map_or(0, |last| last + 1).max(PLACES_KEPT);
        if wanted >= self.places.len() / 2 {
            return;
        }
        let gone = self.places.drain(wanted..).map(|place| place.generation);
        self.first_generation = gone.fold(self.first_generation, u32::max);
        self.places.shrink_to(wanted);
        self.vacant.retain(|Reverse(index)| (*index as usize) < wanted);
        self.vacant.shrink_to(wanted);
    }

    /// One past the highest place in use or kept.
    pub fn places(&self) -> usize {
        self.places.len()
    }

    /// The tenant of a place, if it has one now.
    pub fn at(&self, index: u32) -> Option<(SlotId, &T)> {
        let place = self.places.get(index as usize)?;
        let id = SlotId { index, generation: place.generation };
        place.tenant.as_ref().map(|tenant| (id, tenant))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_name_reaches_nobody() {
        let mut slots = Slots::default();
        let first = slots.insert("first");
        assert_eq!(slots.remove(first), Some("first"));
        assert_eq!(slots.remove(first), None);
        let second = slots.insert("second");
        assert_eq!(second.index, first.index);
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.get(second), Some(&"second"));
        assert_eq!(slots.ids().collect::<Vec<_>>(), [second]);
    }

    #[test]
    fn places_that_a_crowd_has_left_are_given_back_and_its_names_stay_stale() {
        let mut slots = Slots::default();
        let crowd: Vec<_> = (0..10_000).map(|number| slots.insert(number)).collect();
        slots.shrink();
        assert_eq!(slots.places(), 10_000);
        crowd
            .iter()
            .filter(|id| id.index != 300)
            .for_each(|id| assert!(slots.remove(*id).is_some()));
        assert_eq!((slots.places(), slots.len()), (10_000, 1));
        slots.shrink();
        assert_eq!((slots.places(), slots.len()), (301, 1));
        assert_eq!(slots.get(crowd[300]), Some(&300));
        let again: Vec<_> = (0..1000).map(|number| slots.insert(number)).collect();
        assert_eq!((slots.len(), again[0].index, again[300].index), (1001, 0, 301));
        assert!(crowd.iter().all(|id| id.index == 300 || slots.get(*id).is_none()));
    }
}
