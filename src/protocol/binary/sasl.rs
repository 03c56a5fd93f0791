//! How a peer says who it is: SASL's PLAIN, the one mechanism that there is.
//!
//! ```text
//!   [who to act as] NUL name NUL password
//! ```

/// The names of all mechanisms, with spaces between them.
pub const MECHANISMS: &[u8] = b"PLAIN";

/// The name and the password of a token. `None` if it is none, or if the peer wants to act as
/// somebody else: nobody may.
//= RFC 4616 "PLAIN SASL Mechanism"
pub fn parse_plain(token: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = token.splitn(3, |byte| *byte == 0);
    let (acts_as, name, password) = (parts.next()?, parts.next()?, parts.next()?);
    (acts_as.is_empty() || acts_as == name).then_some((name, password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_three_parts() {
        let read = Some((&b"bob"[..], &b"pw"[..]));
        for (token, read) in [
            (&b"\0bob\0pw"[..], read),
            (b"bob\0bob\0pw", read),
            (b"\0bob\0p\0w", Some((b"bob", b"p\0w"))),
            (b"\0bob\0", Some((b"bob", b""))),
            (b"\0\0", Some((b"", b""))),
            (b"ann\0bob\0pw", None),
            (b"bob\0pw", None),
            (b"bob", None),
            (b"", None),
        ] {
            assert_eq!(parse_plain(token), read, "{token:?}");
        }
    }
}
