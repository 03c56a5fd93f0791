//! Memory in a loom model: loom fails the model when a reader and a writer meet in it.

use loom::cell::UnsafeCell;

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
