//! Atomics and locks, behind one seam: under `cfg(loom)` they are loom's, so that the models in the
//! tests explore the very code that runs; in other tests, and with the feature `counted`, they tell
//! what is done to them.

#[cfg(all(not(loom), not(any(test, feature = "counted"))))]
pub use parking_lot::{Mutex, MutexGuard};
pub use std::sync::Arc;
#[cfg(all(not(loom), not(any(test, feature = "counted"))))]
pub use std::sync::atomic;

#[cfg(all(not(loom), any(test, feature = "counted")))]
pub use super::counted::{Mutex, MutexGuard, atomic};

#[cfg(loom)]
pub use loom::sync::{MutexGuard, atomic};

/// loom's mutex under `parking_lot`'s signature: it is never poisoned.
#[cfg(loom)]
#[derive(Debug)]
pub struct Mutex<T>(loom::sync::Mutex<T>);

#[cfg(loom)]
impl<T: Default> Default for Mutex<T> {
    fn default() -> Mutex<T> {
        Mutex::new(T::default())
    }
}

#[cfg(loom)]
impl<T> Mutex<T> {
    pub fn new(value: T) -> Mutex<T> {
        Mutex(loom::sync::Mutex::new(value))
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().expect("a model that panics has failed already")
    }
}
