//! How a peer says who it is where that is asked for: by a `set` whose value is a name, a space and
//! a password. Key, flags and exptime mean nothing.
//!
//! ```text
//!   set auth 0 0 8\r\n
//!   alice pw\r\n
//! ```

use super::LINE_END;
use super::number::decimal;
use super::search::find;
use super::words::Words;
use crate::base::limits::HEAD_BYTES_MAX;

/// What is said to be longer is refused at once, as memcached does.
const TOKEN_BYTES_SAID_MAX: u64 = 16 << 10;

/// What stands at the start of the input of a peer that has not said who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// A line after which a name and a password of so many bytes come, and a line end.
    Head {
        token_bytes: u32,
        consumed: usize,
    },
    Partial,
    /// A peer that takes its leave.
    Quit {
        consumed: usize,
    },
    /// Something else, or too long a token: what the peer is told, and how much that was.
    Refused {
        reply: &'static [u8],
        consumed: usize,
    },
    /// A line without an end: this is no memcached client.
    TooLong {
        consumed: usize,
    },
}

const UNAUTHENTICATED: &[u8] = b"CLIENT_ERROR unauthenticated\r\n";
const TOKEN_TOO_LONG: &[u8] = b"CLIENT_ERROR auth token too long\r\n";
const BAD_TERMINATION: &[u8] = b"CLIENT_ERROR bad command line termination\r\n";
const BAD_TOKEN: &[u8] = b"CLIENT_ERROR bad authentication token format\r\n";
pub const AUTHENTICATION_FAILURE: &[u8] = b"CLIENT_ERROR authentication failure\r\n";

/// Parses the first line of `input`. Total and prefix-stable, as `parse` is.
pub fn parse_login(input: &[u8]) -> Login {
    let Some(end) = find(&input[..input.len().min(HEAD_BYTES_MAX)], b'\n') else {
        return match input.len() {
            HEAD_BYTES_MAX.. => Login::TooLong { consumed: HEAD_BYTES_MAX },
            _ => Login::Partial,
        };
    };
    let consumed = end + 1;
    let line = &input[..end];
    let words = Words::of(line.strip_suffix(b"\r").unwrap_or(line));
    if words.at(0) == b"quit" && words.at(1).is_empty() {
        return Login::Quit { consumed };
    }
    let token_bytes = decimal(words.at(4)).filter(|_| words.at(0) == b"set");
    match token_bytes.map(|bytes| (bytes <= TOKEN_BYTES_SAID_MAX, u32::try_from(bytes))) {
        Some((true, Ok(token_bytes))) => Login::Head { token_bytes, consumed },
        Some(_) => Login::Refused { reply: TOKEN_TOO_LONG, consumed },
        None => Login::Refused { reply: UNAUTHENTICATED, consumed },
    }
}

/// The name and the password of a token with its line end.
///
/// # Errors
/// What the peer is told if there are none.
pub fn parse_token(token: &[u8]) -> Result<(&[u8], &[u8]), &'static [u8]> {
    let token = token.strip_suffix(LINE_END).ok_or(BAD_TERMINATION)?;
    let space = find(token, b' ').ok_or(BAD_TOKEN)?;
    Ok((&token[..space], &token[space + 1..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_a_set_tells_who_a_peer_is() {
        let head = |token_bytes, consumed| Login::Head { token_bytes, consumed };
        let refused = |consumed| Login::Refused { reply: UNAUTHENTICATED, consumed };
        for (input, login) in [
            (&b"set foo 0 0 7\r\nfoo bar\r\n"[..], head(7, 15)),
            (b"set x y z 16384\n", head(16384, 16)),
            (b"set  k  1  2  0  noreply\r\n", head(0, 26)),
            (b"set k 0 0 16385\r\n", Login::Refused { reply: TOKEN_TOO_LONG, consumed: 17 }),
            (b"set k 0 0 4294967303\r\n", Login::Refused { reply: TOKEN_TOO_LONG, consumed: 22 }),
            (b"set k 0 0\r\n", refused(11)),
            (b"set k 0 0 -1\r\n", refused(14)),
            (b"add k 0 0 7\r\n", refused(13)),
            (b"settle k 0 0 7\r\n", refused(16)),
            (b"get foo\r\n", refused(9)),
            (b"get a\r\n", refused(7)),
            (b"quit\r\n", Login::Quit { consumed: 6 }),
            (b"quit x\r\n", refused(8)),
            (b"\r\n", refused(2)),
            (b"\n", refused(1)),
            (b"set foo 0 0 7", Login::Partial),
            (b"", Login::Partial),
        ] {
            assert_eq!(parse_login(input), login, "{:?}", String::from_utf8_lossy(input));
        }
        let long = [b'x'; HEAD_BYTES_MAX];
        assert_eq!(parse_login(&long[1..]), Login::Partial);
        assert_eq!(parse_login(&long), Login::TooLong { consumed: HEAD_BYTES_MAX });
    }

    #[test]
    fn a_token_is_a_name_and_a_password() {
        for (token, read) in [
            (&b"foo bar\r\n"[..], Ok((&b"foo"[..], &b"bar"[..]))),
            (b"foo  b r\r\n", Ok((b"foo", b" b r"))),
            (b" \r\n", Ok((b"", b""))),
            (b"foobar\r\n", Err(BAD_TOKEN)),
            (b"foo bar\n\n", Err(BAD_TERMINATION)),
            (b"foo bar", Err(BAD_TERMINATION)),
        ] {
            assert_eq!(parse_token(token), read);
        }
    }

    proptest! {
        #[test]
        fn parse_login_is_total_and_prefix_stable(
            words in prop::collection::vec("set|quit|[a0-9]{1,4}|99999999999| ", 0..8),
            end in "\r\n|\n|\r|x{2040}\n|",
            cut in any::<prop::sample::Index>(),
        ) {
            let input = format!("{}{end}", words.join(" ")).into_bytes();
            let cut = cut.index(input.len() + 1);
            let whole = parse_login(&input);
            let part = parse_login(&input[..cut]);
            match whole {
                Login::Partial => prop_assert_eq!(part, whole),
                Login::Head { consumed, .. }
                | Login::Refused { consumed, .. }
                | Login::Quit { consumed }
                | Login::TooLong { consumed } => {
                    prop_assert!(consumed <= input.len());
                    let wanted = if cut >= consumed { whole } else { Login::Partial };
                    prop_assert_eq!(part, wanted);
                }
            }
        }
    }
}
