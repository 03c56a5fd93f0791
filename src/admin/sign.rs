//! Signatures under a shared key: HMAC-SHA-256.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

pub const MAC_BYTES: usize = 32;

/// Signs and verifies. The key's schedule is computed once.
#[derive(Clone)]
pub struct Signer {
    keyed: Hmac<Sha256>,
}

impl Signer {
    pub fn new(key: &[u8]) -> Signer {
        let keyed = Hmac::new_from_slice(key).expect("HMAC takes a key of any length");
        Signer { keyed }
    }

    pub fn sign(&self, message: &[u8]) -> [u8; MAC_BYTES] {
        self.keyed.clone().chain_update(message).finalize().into_bytes().into()
    }

    /// True when `mac` is the signature of `message`. Takes as long when it is not.
    pub fn verify(&self, message: &[u8], mac: &[u8]) -> bool {
        self.keyed.clone().chain_update(message).verify_slice(mac).is_ok()
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    //= RFC 4231 "Test Case 2"
    #[test]
    fn known_answer() {
        let signer = Signer::new(b"Jefe");
        let mac = signer.sign(b"what do ya want for nothing?");
        let hex: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert!(signer.verify(b"what do ya want for nothing?", &mac));
        assert!(!signer.verify(b"what do ya want for nothing!", &mac));
        assert!(!signer.verify(b"what do ya want for nothing?", &mac[..31]));
    }
}
