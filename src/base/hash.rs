//! Hashes of keys: seeded per process, so that no peer can choose keys that collide.

use std::hash::{BuildHasher, RandomState};

/// The hash of a key. The table cuts it into stripe, directory, bucket and tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHash(pub u64);

/// The hash function of one process.
#[derive(Clone, Debug)]
pub struct KeyHasher {
    secrets: rapidhash::v3::RapidSecrets,
}

impl KeyHasher {
    /// A hasher that a test can repeat.
    pub fn with_seed(seed: u64) -> KeyHasher {
        KeyHasher { secrets: rapidhash::v3::RapidSecrets::seed(seed) }
    }

    /// A hasher that nobody can predict: the standard library draws its seed from the system.
    pub fn random() -> KeyHasher {
        KeyHasher::with_seed(RandomState::new().hash_one("ringcached"))
    }

    /// The variant for short input: keys are seldom longer than what it reads at once.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> KeyHash {
        KeyHash(rapidhash::v3::rapidhash_v3_nano_inline::<true, false>(key, &self.secrets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_the_hash() {
        let (one, two) = (KeyHasher::with_seed(1), KeyHasher::with_seed(2));
        assert_eq!(one.hash(b"key"), KeyHasher::with_seed(1).hash(b"key"));
        assert_ne!(one.hash(b"key"), two.hash(b"key"));
        assert_ne!(one.hash(b"key"), one.hash(b"kez"));
    }
}
