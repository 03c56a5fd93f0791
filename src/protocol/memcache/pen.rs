//! Text that is written into a space that is long enough.

use super::number::write_decimal;

/// A byte takes at most so many when it is encoded for a URI.
pub const URI_BYTES_MAX: usize = 3;

const HEX: &[u8; 16] = b"0123456789ABCDEF";
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

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
        for chunk in bytes.chunks(3) {
            let byte = |place: usize| u32::from(chunk.get(place).copied().unwrap_or(0));
            let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
            let digit = |place: usize| BASE64[(bits >> (18 - 6 * place) & 63) as usize];
            let padded = |place: usize| if place <= chunk.len() { digit(place) } else { b'=' };
            self.put(&[digit(0), digit(1), padded(2), padded(3)]);
        }
    }
}
