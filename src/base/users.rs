//! Who may use the server: names and passwords, as in memcached's file of them.
//!
//! ```text
//!   alice:secret           a line for each user; all after the first colon is the password
//!   bob:se:cret
//! ```
//!
//! A name has a byte at least: there it may have none.
//!
//! What is kept of a user is a signature of the name and the password. To compare signatures takes
//! as long when they differ as when they do not, and all users are compared with always, so that
//! how long it takes tells nothing of who there is, or of how much of a password was right.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::sync::{Arc, Mutex};

/// How many users there may be, and how long their lines: as memcached has it.
pub const USERS_MAX: usize = 8;
pub const USER_BYTES_MAX: usize = 255;

const SIGNATURE_BYTES: usize = 32;

/// Names and passwords that belong together.
#[derive(Clone, PartialEq, Eq)]
pub struct Users(Vec<[u8; SIGNATURE_BYTES]>);

/// Why a file does not say who may use the server. Lines are counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsersError {
    NoUser,
    NoColon { line: usize },
    NoName { line: usize },
    LongLine { line: usize },
    TooMany,
}

impl fmt::Display for UsersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUser => f.write_str("there is no user in it"),
            Self::NoColon { line } => write!(f, "line {line} has no colon after a user's name"),
            Self::NoName { line } => write!(f, "line {line} has no name before its colon"),
            Self::LongLine { line } => {
                write!(f, "line {line} has more than {USER_BYTES_MAX} bytes")
            }
            Self::TooMany => write!(f, "there are more than {USERS_MAX} users in it"),
        }
    }
}

impl Users {
    /// Reads the users of a file. Empty lines are left out.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(file: &[u8]) -> Result<Users, UsersError> {
        let mut users = Vec::new();
        for (line, text) in (1..).zip(file.split(|byte| *byte == b'\n')) {
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            if text.is_empty() {
                continue;
            }
            if text.len() > USER_BYTES_MAX {
                return Err(UsersError::LongLine { line });
            }
            let colon = text.iter().position(|byte| *byte == b':');
            let colon = colon.ok_or(UsersError::NoColon { line })?;
            // Whoever says nothing would be let in.
            if colon == 0 {
                return Err(UsersError::NoName { line });
            }
            if users.len() == USERS_MAX {
                return Err(UsersError::TooMany);
            }
            users
                .push(signature(&text[..colon], &text[colon + 1..]).finalize().into_bytes().into());
        }
        if users.is_empty() { Err(UsersError::NoUser) } else { Ok(Users(users)) }
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// True when there is such a user.
    pub fn admit(&self, name: &[u8], password: &[u8]) -> bool {
        let signature = signature(name, password);
        let known = |user: &[u8; SIGNATURE_BYTES]| signature.clone().verify_slice(user).is_ok();
        self.0.iter().fold(false, |found, user| known(user) | found)
    }
}

/// Not even signatures are shown.
impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Users({})", self.0.len())
    }
}

fn signature(name: &[u8], password: &[u8]) -> Hmac<Sha256> {
    let keyed = Hmac::<Sha256>::new_from_slice(b"ringcached user");
    let keyed = keyed.expect("HMAC takes a key of any length");
    // Otherwise "ab" with "c" would be "a" with "bc". Lossless: no target has a wider usize.
    keyed.chain_update((name.len() as u64).to_le_bytes()).chain_update(name).chain_update(password)
}

/// The users that there are now.
#[derive(Debug)]
pub struct Roster(Mutex<Arc<Users>>);

impl Roster {
    pub fn new(users: Users) -> Roster {
        Roster(Mutex::new(Arc::new(users)))
    }

    /// See `Users::admit`.
    pub fn admit(&self, name: &[u8], password: &[u8]) -> bool {
        let users = Arc::clone(&self.0.lock());
        users.admit(name, password)
    }

    /// From now on these are the users. Who has been admitted stays.
    pub fn replace(&self, users: Users) {
        *self.0.lock() = Arc::new(users);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn names_belong_to_passwords() {
        let users = Users::parse(b"foo:bar\nbaaaz:quux\r\n\nn:\na:b:c d").unwrap();
        for (name, password) in [("foo", "bar"), ("baaaz", "quux"), ("n", ""), ("a", "b:c d")] {
            assert!(users.admit(name.as_bytes(), password.as_bytes()), "{name}");
        }
        for (name, password) in [
            ("foo", "quux"),
            ("foo", "ba"),
            ("foo", "bar\n"),
            ("foo", ""),
            ("", "foo"),
            ("fo", "obar"),
            ("foob", "ar"),
            ("a:b", "c d"),
            ("Foo", "bar"),
        ] {
            assert!(!users.admit(name.as_bytes(), password.as_bytes()), "{name} {password}");
        }
        assert_eq!(format!("{users:?}"), "Users(4)");
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let line = |bytes: usize| [b"u:", &vec![b'p'; bytes - 2][..]].concat();
        for (file, error) in [
            (&b""[..], UsersError::NoUser),
            (b"\n\r\n", UsersError::NoUser),
            (b"a:b\nnobody\n", UsersError::NoColon { line: 2 }),
            (b"a:b\n:\n", UsersError::NoName { line: 2 }),
            (b":password\r\n", UsersError::NoName { line: 1 }),
            (&line(USER_BYTES_MAX + 1), UsersError::LongLine { line: 1 }),
            (&b"a:b\n".repeat(USERS_MAX + 1), UsersError::TooMany),
        ] {
            assert_eq!(Users::parse(file), Err(error));
        }
        assert!(Users::parse(&line(USER_BYTES_MAX)).is_ok());
        assert!(Users::parse(&b"a:b\n".repeat(USERS_MAX)).is_ok());
        assert_eq!(UsersError::NoColon { line: 2 }.to_string(), {
            "line 2 has no colon after a user's name"
        });
    }

    #[test]
    fn a_roster_has_the_users_that_came_last() {
        let roster = Roster::new(Users::parse(b"a:1").unwrap());
        assert!(roster.admit(b"a", b"1") && !roster.admit(b"b", b"2"));
        roster.replace(Users::parse(b"b:2").unwrap());
        assert!(!roster.admit(b"a", b"1") && roster.admit(b"b", b"2"));
    }
}
