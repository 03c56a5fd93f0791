//! What is known of every key, and what must never be seen.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ringcached::base::clock::Expiry;
use ringcached::base::sync::{Mutex, MutexGuard};

use super::record::Layout;

/// What is known of one key. One read before another says what the other may not show.
#[derive(Debug, Default)]
pub struct Facts {
    /// Stored or seen: nothing older may be seen from now on.
    floor: AtomicU64,
    /// No newer one was made.
    issued: AtomicU64,
    /// Of owned keys the exptime that was set last, for its owner alone.
    expiry: AtomicU32,
}

impl Facts {
    /// What a read that begins now must show at least.
    pub fn floor(&self) -> u64 {
        // Acquire: pairs with `raise`; who sees the version sees the table in which it is.
        self.floor.load(Ordering::Acquire)
    }

    /// Says that a version was stored or seen.
    pub fn raise(&self, version: u64) {
        // AcqRel: pairs with `floor`, also for what others had raised.
        self.floor.fetch_max(version, Ordering::AcqRel);
    }

    /// A version that nobody has.
    pub fn issue(&self) -> u64 {
        // AcqRel: whoever reads a value of this version finds it issued.
        self.issued.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Says that a version will be tried that follows from one that was read.
    pub fn announce(&self, version: u64) {
        // AcqRel: as in `issue`.
        self.issued.fetch_max(version, Ordering::AcqRel);
    }

    pub fn issued(&self) -> u64 {
        // Acquire: pairs with `issue` and `announce`.
        self.issued.load(Ordering::Acquire)
    }

    /// The exptime set last, for the owner.
    pub fn expiry(&self) -> Expiry {
        // Relaxed: one thread alone writes and reads it.
        Expiry::from_bits(self.expiry.load(Ordering::Relaxed))
    }

    pub fn set_expiry(&self, expiry: Expiry) {
        // Relaxed: as above.
        self.expiry.store(expiry.to_bits(), Ordering::Relaxed);
    }
}

/// What must never happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Bytes that are not those of the key and its version.
    Wrong,
    /// A version that somebody had replaced, or deleted, before the read began.
    Stale,
    /// A version that nobody has made.
    Unborn,
    /// An item whose time had come.
    Expired,
    /// An exptime other than the one set last.
    LostTouch,
    /// A cas that succeeded and is not in a later value, or is there twice.
    LostCas,
    /// A write for which there was no memory.
    Refused,
}

impl Fault {
    pub const ALL: [Fault; 7] = [
        Fault::Wrong,
        Fault::Stale,
        Fault::Unborn,
        Fault::Expired,
        Fault::LostTouch,
        Fault::LostCas,
        Fault::Refused,
    ];

    pub fn label(self) -> &'static str {
        match self {
            Fault::Wrong => "wrong values",
            Fault::Stale => "stale values",
            Fault::Unborn => "versions nobody stored",
            Fault::Expired => "expired items seen",
            Fault::LostTouch => "lost touches",
            Fault::LostCas => "lost cas",
            Fault::Refused => "refused writes",
        }
    }
}

/// What all threads know.
#[derive(Debug)]
pub struct Known {
    /// Of the shared keys, and then of the owned ones.
    facts: Box<[Facts]>,
    /// Who makes a shared record anew holds its lock, so that births come in order.
    births: Box<[Mutex<()>]>,
    pub threads: u64,
    pub owned: Layout,
    pub shared: Layout,
}

impl Known {
    pub fn new(threads: u32, shared_keys: u64, owned_keys: u64, payload_bytes_max: u64) -> Known {
        let count = index(u64::from(threads));
        let facts: Box<[Facts]> = (0..shared_keys + owned_keys).map(|_| Facts::default()).collect();
        // What is written is memory from now on, and not in the middle of the check.
        facts.iter().for_each(|facts| facts.set_expiry(Expiry::NEVER));
        Known {
            facts,
            births: (0..shared_keys).map(|_| Mutex::default()).collect(),
            threads: u64::from(threads),
            owned: Layout { threads: 0, payload_bytes_max },
            shared: Layout { threads: count, payload_bytes_max: payload_bytes_max.min(1000) },
        }
    }

    pub fn shared_keys(&self) -> u64 {
        self.births.len() as u64
    }

    pub fn keys(&self) -> u64 {
        self.facts.len() as u64
    }

    /// The lock of a shared key; none while another makes its record anew.
    pub fn birth(&self, key: u64) -> Option<MutexGuard<'_, ()>> {
        // Who waited would keep memory from the one who is before it.
        self.births.get(index(key))?.try_lock()
    }

    /// # Panics
    /// If there is no such key.
    pub fn of(&self, key: u64) -> &Facts {
        &self.facts[index(key)]
    }
}

/// A number as a place in memory.
pub fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// What one thread did and found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    pub gets: u64,
    pub hits: u64,
    pub sets: u64,
    pub large_sets: u64,
    pub touches: u64,
    pub deletes: u64,
    pub cas_tried: u64,
    pub cas_won: u64,
    pub born: u64,
    pub pins: u64,
    pub bytes_checked: u64,
    pub faults: [u64; Fault::ALL.len()],
    pub first_fault: Option<String>,
}

impl Findings {
    pub fn fault(&mut self, fault: Fault, key: u64, detail: &str) {
        self.faults[fault as usize] += 1;
        self.first_fault.get_or_insert_with(|| format!("{}, key {key}: {detail}", fault.label()));
    }

    pub fn faults(&self) -> u64 {
        self.faults.iter().sum()
    }

    /// Adds what another thread did.
    pub fn merge(&mut self, other: Findings) {
        self.gets += other.gets;
        self.hits += other.hits;
        self.sets += other.sets;
        self.large_sets += other.large_sets;
        self.touches += other.touches;
        self.deletes += other.deletes;
        self.cas_tried += other.cas_tried;
        self.cas_won += other.cas_won;
        self.born += other.born;
        self.pins += other.pins;
        self.bytes_checked += other.bytes_checked;
        for (sum, more) in self.faults.iter_mut().zip(other.faults) {
            *sum += more;
        }
        self.first_fault = self.first_fault.take().or(other.first_fault);
    }

    /// What was done, for the table.
    pub fn work(&self) -> [(&'static str, u64); 11] {
        [
            ("gets", self.gets),
            ("hits", self.hits),
            ("bytes checked", self.bytes_checked),
            ("sets", self.sets),
            ("of 64 KiB and more", self.large_sets),
            ("touches", self.touches),
            ("deletes", self.deletes),
            ("cas tried", self.cas_tried),
            ("cas won", self.cas_won),
            ("adds", self.born),
            ("pinned reads", self.pins),
        ]
    }
}
