//! What lines of text and of meta have in common.

use crate::failure::Failure;
use crate::reply::Nonsense;

/// No line of a reply is longer.
pub const LINE_BYTES_MAX: usize = 2048;

/// A decimal number of at most ten digits, and the bytes that it and the byte behind it take.
#[inline]
pub fn number(input: &[u8], end: u8) -> Result<Option<(usize, usize)>, Nonsense> {
    let mut value = 0;
    for (at, byte) in input.iter().enumerate() {
        match byte {
            b'0'..=b'9' if at < 10 => value = value * 10 + usize::from(byte - b'0'),
            _ if *byte == end && at > 0 => return Ok(Some((value, at + 1))),
            _ => return Err(Nonsense),
        }
    }
    Ok(None)
}

/// The end of a line: the bytes up to behind it, given that it belongs at `at`.
#[inline]
pub fn newline(input: &[u8], at: usize) -> Result<Option<usize>, Nonsense> {
    match input.get(at) {
        None => Ok(None),
        Some(b'\n') => Ok(Some(at + 1)),
        Some(_) => Err(Nonsense),
    }
}

/// A line that says what went wrong, with its length; `not_stored` is the refusal of a set.
pub fn failure(input: &[u8], not_stored: &[u8]) -> Result<Option<(usize, Failure)>, Nonsense> {
    let Some(end) = input.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n') else {
        return if input.len() < LINE_BYTES_MAX { Ok(None) } else { Err(Nonsense) };
    };
    let text = input[..end].strip_suffix(b"\r").ok_or(Nonsense)?;
    let failure = match text {
        b"ERROR" => Failure::Error,
        _ if !not_stored.is_empty() && text == not_stored => Failure::NotStored,
        _ if text.starts_with(b"CLIENT_ERROR") => Failure::ClientError,
        _ if text.starts_with(b"SERVER_ERROR") => Failure::ServerError,
        _ => return Err(Nonsense),
    };
    Ok(Some((end + 1, failure)))
}
