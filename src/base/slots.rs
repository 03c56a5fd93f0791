//! A table of reusable places whose names go stale: an index plus a generation.
//!
//! A completion that arrives late carries the generation of the tenant it was meant for, so it
//! cannot be taken for the next one's (rule R4).

/// The name of one tenant of one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlotId {
    pub index: u32,
    /// Counts the tenants of the place; only the low 24 bits travel through the kernel.
    pub generation: u32,
}

/// Low bits of a generation that are kept.
pub const GENERATION_BITS: u32 = 24;

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    tenant: Option<T>,
}

#[derive(Debug)]
pub struct Slots<T> {
    places: Vec<Place<T>>,
    vacant: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Slots { places: Vec::new(), vacant: Vec::new() }
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
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 0, tenant: None });
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
        self.vacant.push(id.index);
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

    /// One past the highest place ever used.
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
}
