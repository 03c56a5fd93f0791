//! Text that is written into a space that is long enough.

use super::base64;
use super::number::write_decimal;

/// A byte takes at most so many when it is encoded for a URI.
pub const URI_BYTES_MAX: usize = 3;

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Writes one thing after the other.
pub struct Pen<'a> {
    space: &'a mut [u8],
    len: usize,
}

impl<'a> Pen<'a> {
    pub fn new(space: &'a mut [u8]) -> Pen<'a> {
        Pen { space, len: 0 }
    }

    /// How many bytes were written.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn put(&mut self, bytes: &[u8]) {
        self.space[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// A name, and a number.
    pub fn number(&mut self, name: &[u8], number: u64) {
        self.put(name);
        self.len += write_decimal(&mut self.space[self.len..], number);
    }

    /// Letters, digits and `-._~` as they are, anything else as `%NN`.
    pub fn uri_encoded(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
                self.put(&[*byte]);
            } else {
                self.put(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }

    pub fn base64(&mut self, bytes: &[u8]) {
        self.len += base64::encode(bytes, &mut self.space[self.len..]);
    }
}
