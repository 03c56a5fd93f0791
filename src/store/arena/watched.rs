//! Memory in a loom model: loom fails the model when a reader and a writer meet in it.
//!
//! An arena of a model has the header words that its slots need, as atomics of loom, and watches
//! over the bytes. Slots of a model begin at multiples of `GRANULE_BYTES`.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;

use loom::cell::UnsafeCell;

use crate::base::sync::atomic::AtomicU64;
use crate::sys::region::Region;

pub(in crate::store) const GRANULE_BYTES: usize = 4096;
/// Words of a slot that are accessed as such.
const WORDS: usize = 5;

#[derive(Debug)]
pub(in crate::store) struct WatchedCell(UnsafeCell<u64>);

// SAFETY: loom watches over the accesses and stops the model before two of them are at odds.
unsafe impl Sync for WatchedCell {}

impl Default for WatchedCell {
    fn default() -> WatchedCell {
        WatchedCell(UnsafeCell::new(0))
    }
}

impl WatchedCell {
    pub(in crate::store) fn read(&self) {
        self.0.with(|cell| assert!(!cell.is_null()));
    }

    pub(in crate::store) fn write(&self) {
        self.0.with_mut(|cell| assert!(!cell.is_null()));
    }
}

#[derive(Debug, Default)]
struct Granule {
    words: [AtomicU64; WORDS],
    /// That a slot begins here: written when it is taken, read by who goes through a page.
    start: WatchedCell,
    /// What follows the header.
    bytes: WatchedCell,
}

#[derive(Debug)]
pub(super) struct Watch(Box<[Granule]>);

impl Watch {
    pub(super) fn new(len: usize) -> Watch {
        Watch((0..len / GRANULE_BYTES).map(|_| Granule::default()).collect())
    }

    pub(super) fn word(&self, offset: usize) -> &AtomicU64 {
        &self.0[offset / GRANULE_BYTES].words[offset % GRANULE_BYTES / 8]
    }

    pub(super) fn start(&self, offset: usize) -> &WatchedCell {
        &self.0[offset / GRANULE_BYTES].start
    }

    pub(super) fn bytes(&self, offset: usize) -> &WatchedCell {
        &self.0[offset / GRANULE_BYTES].bytes
    }
}

/// A region that all runs of a model use in turn: regions are never unmapped, and there are many
/// runs.
pub(super) fn region(len: usize) -> io::Result<(Region, OwnedFd)> {
    thread_local! {
        static REGION: RefCell<Option<(Region, OwnedFd)>> = const { RefCell::new(None) };
    }
    REGION.with_borrow_mut(|region| {
        if region.as_ref().is_none_or(|(region, _)| region.len() != len) {
            *region = Some(Region::map_memfd(c"model", len)?);
        }
        let (region, memfd) = region.as_ref().expect("set above");
        Ok((*region, memfd.try_clone()?))
    })
}
