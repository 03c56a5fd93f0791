//! Atomics and locks that tell what is done to them: the counting form of `sync`.
//!
//! They do what the standard's and `parking_lot`'s do, and take as much room. What a thread does to
//! them while it is in `trace` is kept, access by access, with the line of the source that did it.
//! Tests and `ringcached-bench shared` count by it; the server is built without.

use std::cell::RefCell;
use std::panic::Location;

/// What was done to a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    Load,
    Store,
    /// A read-modify-write, whether it changed something or not.
    Update,
    /// A lock was taken, which is given back later: two updates of one word.
    Lock,
    /// No word, but a wait of the processor for what it has written.
    Fence,
}

/// One access to memory that threads may share.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    pub deed: Deed,
    /// The address of the word in units of cache lines.
    pub line: usize,
    /// Who did it.
    pub site: &'static Location<'static>,
}

impl Access {
    /// True when no other thread may have the line at that moment.
    pub fn writes(&self) -> bool {
        matches!(self.deed, Deed::Store | Deed::Update | Deed::Lock)
    }
}

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

thread_local! {
    static TRACE: RefCell<Option<Vec<Access>>> = const { RefCell::new(None) };
}

/// Runs something, and says which accesses this thread made meanwhile.
///
/// # Panics
/// If it is called by what it runs.
pub fn trace<R>(run: impl FnOnce() -> R) -> (R, Vec<Access>) {
    let before = TRACE.replace(Some(Vec::new()));
    assert!(before.is_none(), "a trace within a trace");
    let result = run();
    (result, TRACE.take().unwrap_or_default())
}

#[inline]
#[track_caller]
fn note<T>(deed: Deed, word: &T) {
    let site = Location::caller();
    // A thread that ends may still let go of something.
    let _ = TRACE.try_with(|trace| {
        if let Some(accesses) = trace.borrow_mut().as_mut() {
            let line = std::ptr::from_ref(word).addr() / LINE_BYTES;
            accesses.push(Access { deed, line, site });
        }
    });
}

pub use parking_lot::MutexGuard;

/// `parking_lot`'s.
#[derive(Debug, Default)]
pub struct Mutex<T>(parking_lot::Mutex<T>);

impl<T> Mutex<T> {
    pub const fn new(value: T) -> Mutex<T> {
        Mutex(parking_lot::Mutex::new(value))
    }

    #[track_caller]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        note(Deed::Lock, &self.0);
        self.0.lock()
    }

    #[track_caller]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        note(Deed::Lock, &self.0);
        self.0.try_lock()
    }
}

/// The standard's, under its names.
pub mod atomic {
    use std::sync::atomic as plain;
    pub use std::sync::atomic::Ordering;

    use super::{Deed, note};

    #[track_caller]
    pub fn fence(order: Ordering) {
        note(Deed::Fence, &());
        plain::fence(order);
    }

    macro_rules! word {
        ($($name:ident of $value:ty,)+) => {$(
            #[derive(Debug, Default)]
            #[repr(transparent)]
            pub struct $name(plain::$name);

            impl $name {
                pub const fn new(value: $value) -> $name {
                    $name(plain::$name::new(value))
                }

                #[inline]
                #[track_caller]
                pub fn load(&self, order: Ordering) -> $value {
                    note(Deed::Load, self);
                    self.0.load(order)
                }

                #[inline]
                #[track_caller]
                pub fn store(&self, value: $value, order: Ordering) {
                    note(Deed::Store, self);
                    self.0.store(value, order);
                }

                #[inline]
                #[track_caller]
                pub fn swap(&self, value: $value, order: Ordering) -> $value {
                    note(Deed::Update, self);
                    self.0.swap(value, order)
                }

                #[inline]
                #[track_caller]
                pub fn compare_exchange(
                    &self,
                    current: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    note(Deed::Update, self);
                    self.0.compare_exchange(current, new, success, failure)
                }

                #[inline]
                #[track_caller]
                pub fn compare_exchange_weak(
                    &self,
                    current: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    note(Deed::Update, self);
                    self.0.compare_exchange_weak(current, new, success, failure)
                }

                #[inline]
                #[track_caller]
                pub fn fetch_update(
                    &self,
                    success: Ordering,
                    failure: Ordering,
                    update: impl FnMut($value) -> Option<$value>,
                ) -> Result<$value, $value> {
                    note(Deed::Update, self);
                    self.0.fetch_update(success, failure, update)
                }
            }
        )+};
    }

    macro_rules! sums {
        ($($name:ident of $value:ty: $($update:ident)+,)+) => {$(
            impl $name {$(
                #[inline]
                #[track_caller]
                pub fn $update(&self, value: $value, order: Ordering) -> $value {
                    note(Deed::Update, self);
                    self.0.$update(value, order)
                }
            )+}
        )+};
    }

    word! {
        AtomicBool of bool,
        AtomicU8 of u8,
        AtomicU32 of u32,
        AtomicU64 of u64,
        AtomicI64 of i64,
        AtomicUsize of usize,
    }

    sums! {
        AtomicU32 of u32: fetch_add fetch_sub fetch_max fetch_min fetch_xor,
        AtomicU64 of u64: fetch_add fetch_sub fetch_max fetch_min fetch_xor,
        AtomicI64 of i64: fetch_add fetch_sub,
        AtomicUsize of usize: fetch_add fetch_sub fetch_max,
    }
}

#[cfg(test)]
mod tests {
    use super::atomic::{AtomicU64, Ordering, fence};
    use super::*;

    #[test]
    fn what_a_thread_does_is_told_in_order_and_only_then() {
        let words = [const { AtomicU64::new(1) }; 9];
        let lock = Mutex::new(0);
        words[0].store(2, Ordering::Relaxed);
        let (sum, accesses) = trace(|| {
            words[0].store(3, Ordering::Relaxed);
            std::thread::scope(|scope| scope.spawn(|| words[1].swap(7, Ordering::Relaxed)).join())
                .unwrap();
            *lock.lock() += 1;
            fence(Ordering::SeqCst);
            words[8].fetch_add(1, Ordering::Relaxed) + words[0].load(Ordering::Relaxed)
        });
        assert_eq!((sum, *lock.lock()), (4, 1));
        let deeds: Vec<_> = accesses.iter().map(|each| each.deed).collect();
        assert_eq!(deeds, [Deed::Store, Deed::Lock, Deed::Fence, Deed::Update, Deed::Load]);
        assert_eq!(accesses[3].line, accesses[0].line + 1, "64 bytes further on");
        assert_eq!(accesses[4].line, accesses[0].line);
        let first = accesses[0].site;
        assert!(first.file().ends_with("counted.rs"));
        assert_eq!(accesses[4].site.line(), first.line() + 5, "where it is done");
        assert_eq!(accesses.iter().filter(|each| each.writes()).count(), 3);
    }
}
