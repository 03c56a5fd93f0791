//! The meta commands: two letters, a key, and flags.
//!
//! ```text
//!   mg <key> <flag>*\r\n             VA <bytes> <flag>*\r\n<value>\r\n   HD   EN
//!   ms <key> <bytes> <flag>*\r\n     HD   NS   EX   NF      a value and \r\n follow the head
//!   md <key> <flag>*\r\n             HD   EX   NF
//!   ma <key> <flag>*\r\n             VA <bytes> <flag>*\r\n<number>\r\n  HD   NS   EX   NF
//!   me <key> [b]\r\n                 ME <key> <name>=<value>*\r\n        EN
//!   mn\r\n                           MN
//! ```
//!
//! What is read here is as total and prefix-stable as the rest: a head is its line.
//!
//! Differences from 1.6.45 that are meant:
//! - An `ms` whose length can be read has its value swallowed, whatever is wrong with the rest;
//!   there it is not when a flag is no letter, and the value is taken for commands.
//! - An opaque that is too long is refused before anything is done; there `mg` and `ma` have
//!   changed the item by then.
//! - `me` knows keys in base64, and `mn` may end in a bare line feed, as in older releases.
//! - Base64 is that of RFC 4648: what is not is refused, and no byte of it is passed over. What is
//!   told of a key is what the request says, in base64 if that does; there `mg` goes by how the key
//!   was first stored, and may tell bytes that break the line.
//! - An exptime has 64 bits, and a lone minus is no number.

use super::error::ProtocolError;
use super::flags::{Flags, OPAQUE_BYTES_MAX, words};
use super::head::{Head, Parsed, VALUE_BYTES_SAID_MAX};
use super::number::decimal;
use super::search::{find, find_low};
use crate::base::limits::KEY_BYTES_MAX;

/// Words that a head may have, and of how many the first letter is looked at before.
const WORDS_MAX: usize = 20;
const WORDS_LOOKED_AT: usize = 23;

/// `mg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetaGet<'a> {
    /// As it was sent: in base64, if the flags say so.
    pub key: &'a [u8],
    pub flags: Flags<'a>,
}

/// A meta command about one key that is not `mg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetaHead<'a> {
    pub verb: MetaVerb,
    /// As it was sent: in base64, if the flags say so.
    pub key: &'a [u8],
    pub flags: Flags<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaVerb {
    /// `ms`: so many bytes and a line end follow.
    Set { mode: SetMode, value_bytes: u32 },
    /// `md`
    Delete,
    /// `ma`
    Arithmetic { down: bool },
    /// `me`
    Debug,
}

/// What `ms` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetMode {
    Set,
    Add,
    Replace,
    Append,
    Prepend,
}

/// `mg <key> v`, if it is at the start of `input`: the way most are.
#[inline]
pub(super) fn plain_get(input: &[u8]) -> Option<Parsed<'_>> {
    let rest = input.strip_prefix(b"mg ")?;
    let (len, b' ') = find_low(&rest[..rest.len().min(KEY_BYTES_MAX + 1)], b' ')? else {
        return None;
    };
    let (key, rest) = rest.split_at(len);
    if rest.first_chunk() != Some(b" v\r\n") || key.is_empty() {
        return None;
    }
    let get = MetaGet { key, flags: Flags::VALUE };
    Some(Parsed::MetaGet { get, consumed: len + "mg  v\r\n".len() })
}

/// The next `mg` of a run of them, if it is there.
#[inline]
pub fn next_get(input: &[u8]) -> Option<(MetaGet<'_>, usize)> {
    match plain_get(input).unwrap_or_else(|| any_get(input)) {
        Parsed::MetaGet { get, consumed } => Some((get, consumed)),
        Parsed::Head { .. } | Parsed::Keys { .. } | Parsed::Partial | Parsed::Invalid { .. } => {
            None
        }
    }
}

fn any_get(input: &[u8]) -> Parsed<'_> {
    if input.starts_with(b"mg ") { super::head::parse_head(input) } else { Parsed::Partial }
}

/// The meta command that a line is, if it is one.
pub(super) fn parse_meta(line: &[u8], consumed: usize) -> Option<Parsed<'_>> {
    let (verb, rest) = line.split_first_chunk::<2>()?;
    let is_meta = matches!(verb, b"mg" | b"ms" | b"md" | b"ma" | b"me" | b"mn");
    if !is_meta || !matches!(rest.first(), None | Some(b' ')) {
        return None;
    }
    Some(match read(*verb, rest) {
        Ok(Read::Get(get)) => Parsed::MetaGet { get, consumed },
        Ok(Read::Head(head)) => Parsed::Head { head, consumed },
        Err(error) => Parsed::Invalid { error, noreply: false, consumed },
    })
}

enum Read<'a> {
    Get(MetaGet<'a>),
    Head(Head<'a>),
}

fn read(verb: [u8; 2], rest: &[u8]) -> Result<Read<'_>, ProtocolError> {
    if verb == *b"mn" {
        return Ok(Read::Head(Head::Noop));
    }
    let (key, rest) = next_word(rest).ok_or(ProtocolError::BadFormat)?;
    let head = |verb, flags| Ok(Read::Head(Head::Meta(MetaHead { verb, key, flags })));
    match &verb {
        b"mg" => {
            let flags = flags(2, key, rest)?;
            check_opaque(&flags)?;
            Ok(Read::Get(MetaGet { key, flags }))
        }
        b"ms" => {
            let (bytes, rest) = next_word(rest).ok_or(ProtocolError::BadFormat)?;
            let value_bytes = decimal(bytes)
                .filter(|bytes| *bytes <= VALUE_BYTES_SAID_MAX)
                .and_then(|bytes| u32::try_from(bytes).ok())
                .ok_or(ProtocolError::BadFormat)?;
            let set = flags(3, key, rest).and_then(|flags| {
                let mode = set_mode(&flags)?;
                check_opaque(&flags)?;
                Ok((mode, flags))
            });
            match set {
                Ok((mode, flags)) => head(MetaVerb::Set { mode, value_bytes }, flags),
                Err(error) => Ok(Read::Head(Head::Refused { error, value_bytes, noreply: false })),
            }
        }
        b"md" => {
            let flags = flags(2, key, rest)?;
            check_opaque(&flags)?;
            head(MetaVerb::Delete, flags)
        }
        b"ma" => {
            check_letters(2, rest)?;
            let flags = flags(2, key, rest).map_err(|_| ProtocolError::InvalidOrDuplicateFlag)?;
            let down = is_down(&flags)?;
            check_opaque(&flags)?;
            head(MetaVerb::Arithmetic { down }, flags)
        }
        _ => {
            check_letters(2, rest)?;
            let is_binary = words(rest).next() == Some((b'b', b""));
            let flags = if is_binary { Flags::read(b"b", key) } else { Ok(Flags::NONE) };
            match flags {
                Ok(flags) if key.len() <= KEY_BYTES_MAX => head(MetaVerb::Debug, flags),
                _ => Err(ProtocolError::BadFormat),
            }
        }
    }
}

/// The next word of a line, and what follows it.
fn next_word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let start = text.iter().position(|byte| *byte != b' ')?;
    let text = &text[start..];
    Some(text.split_at(find(text, b' ').unwrap_or(text.len())))
}

/// The flags that follow so many words.
fn flags<'a>(before: usize, key: &[u8], text: &'a [u8]) -> Result<Flags<'a>, ProtocolError> {
    check_letters(before, text)?;
    if key.len() > KEY_BYTES_MAX {
        return Err(ProtocolError::BadFormat);
    }
    if before + words(text).count() > WORDS_MAX {
        return Err(ProtocolError::TooManyFlags);
    }
    Flags::read(text, key)
}

/// That flags begin with letters, or what lies between them, or digits, is a matter of format.
fn check_letters(before: usize, text: &[u8]) -> Result<(), ProtocolError> {
    let is_any = |(first, _): (u8, &[u8])| matches!(first, b'A'..=b'z' | b'0'..=b'9');
    match words(text).take(WORDS_LOOKED_AT - before).all(is_any) {
        true => Ok(()),
        false => Err(ProtocolError::BadFormat),
    }
}

fn check_opaque(flags: &Flags<'_>) -> Result<(), ProtocolError> {
    match flags.token(b'O').len() < OPAQUE_BYTES_MAX {
        true => Ok(()),
        false => Err(ProtocolError::OpaqueTooLong),
    }
}

fn set_mode(flags: &Flags<'_>) -> Result<SetMode, ProtocolError> {
    Ok(match flags.mode() {
        None | Some(b'S') => SetMode::Set,
        Some(b'E') => SetMode::Add,
        Some(b'R') => SetMode::Replace,
        Some(b'A') => SetMode::Append,
        Some(b'P') => SetMode::Prepend,
        Some(_) => return Err(ProtocolError::BadSetMode),
    })
}

/// Whether `ma` subtracts.
fn is_down(flags: &Flags<'_>) -> Result<bool, ProtocolError> {
    match flags.mode() {
        None | Some(b'I' | b'+') => Ok(false),
        Some(b'D' | b'-') => Ok(true),
        Some(_) => Err(ProtocolError::BadArithmeticMode),
    }
}

#[cfg(test)]
mod tests {
    use super::super::head::parse_head;
    use super::super::{Parsed, parse};
    use super::*;
    use ProtocolError::*;
    use proptest::prelude::*;

    fn get(line: &[u8]) -> MetaGet<'_> {
        let parsed = parse(line);
        let Parsed::MetaGet { get, consumed } = parsed else {
            panic!("{:?}: {parsed:?}", String::from_utf8_lossy(line))
        };
        assert_eq!(consumed, line.len());
        get
    }

    fn head(line: &[u8]) -> Head<'_> {
        let parsed = parse(line);
        let Parsed::Head { head, consumed } = parsed else {
            panic!("{:?}: {parsed:?}", String::from_utf8_lossy(line))
        };
        assert_eq!(consumed, line.len());
        head
    }

    fn error(line: &[u8]) -> ProtocolError {
        let parsed = parse(line);
        let Parsed::Invalid { error, noreply: false, consumed } = parsed else {
            panic!("{:?}: {parsed:?}", String::from_utf8_lossy(line))
        };
        assert_eq!(consumed, line.len());
        error
    }

    fn letters(flags: &Flags<'_>) -> Vec<u8> {
        flags.each().map(|(letter, _)| letter).collect()
    }

    #[test]
    fn gets() {
        for (line, key, wanted) in [
            (&b"mg k v\r\n"[..], &b"k"[..], &b"v"[..]),
            (b"mg a-longer-key v\r\n", b"a-longer-key", b"v"),
            (b"mg a-longer-key v\n", b"a-longer-key", b"v"),
            (b"mg  k  v  \r\n", b"k", b"v"),
            (b"mg k\r\n", b"k", b""),
            (b"mg a\x01\x7f\xff\r v\r\n", b"a\x01\x7f\xff\r", b"v"),
            (b"mg k t v f\r\n", b"k", b"tvf"),
            (b"mg bmFtZQ== s b N30 Oabc k\r\n", b"bmFtZQ==", b"sbNOk"),
        ] {
            let get = get(line);
            assert_eq!((get.key, letters(&get.flags)), (key, wanted.to_vec()));
        }
    }

    #[test]
    fn others() {
        assert_eq!(head(b"mn\r\n"), Head::Noop);
        assert_eq!(head(b"mn all the same\r\n"), Head::Noop);
        assert_eq!(head(b"mn\n"), Head::Noop);
        let debug = |key, flags| Head::Meta(MetaHead { verb: MetaVerb::Debug, key, flags });
        assert_eq!(head(b"me k\r\n"), debug(b"k", Flags::NONE));
        assert_eq!(head(b"me k q b\r\n"), debug(b"k", Flags::NONE));
        let binary = Flags::read(b"b", b"Zm9v").unwrap();
        assert_eq!(head(b"me Zm9v b\r\n"), debug(b"Zm9v", binary));
        for (line, wanted) in [
            (&b"ms k 5\r\n"[..], MetaVerb::Set { mode: SetMode::Set, value_bytes: 5 }),
            (b"ms k 0 MS\r\n", MetaVerb::Set { mode: SetMode::Set, value_bytes: 0 }),
            (b"ms k 1 ME T9\r\n", MetaVerb::Set { mode: SetMode::Add, value_bytes: 1 }),
            (b"ms k 1 MR\r\n", MetaVerb::Set { mode: SetMode::Replace, value_bytes: 1 }),
            (b"ms k 1 MAppend\r\n", MetaVerb::Set { mode: SetMode::Append, value_bytes: 1 }),
            (b"ms k 2147483645 q MP\r\n", {
                MetaVerb::Set { mode: SetMode::Prepend, value_bytes: 2_147_483_645 }
            }),
            (b"md k I T5\r\n", MetaVerb::Delete),
            (b"ma k\r\n", MetaVerb::Arithmetic { down: false }),
            (b"ma k MI\r\n", MetaVerb::Arithmetic { down: false }),
            (b"ma k M+\r\n", MetaVerb::Arithmetic { down: false }),
            (b"ma k MD\r\n", MetaVerb::Arithmetic { down: true }),
            (b"ma k M-1\r\n", MetaVerb::Arithmetic { down: true }),
        ] {
            let Head::Meta(head) = head(line) else { panic!("{line:?}") };
            assert_eq!((head.verb, head.key), (wanted, &b"k"[..]));
        }
    }

    #[test]
    fn what_is_refused_at_once() {
        let long = [b"mg ", &[b'k'; KEY_BYTES_MAX + 1][..], b" v\r\n"].concat();
        let arithmetic = [b"ma ", &[b'k'; KEY_BYTES_MAX + 1][..], b"\r\n"].concat();
        let opaque = format!("O{}", "o".repeat(OPAQUE_BYTES_MAX));
        let many = " v".repeat(19);
        let table: &[(&[u8], ProtocolError)] = &[
            (b"mg\r\n", BadFormat),
            (b"mg \r\n", BadFormat),
            (b"ms k\r\n", BadFormat),
            (b"ms k x\r\n", BadFormat),
            (b"ms k -1\r\n", BadFormat),
            (b"ms k 2147483646\r\n", BadFormat),
            (b"mx k\r\n", UnknownCommand),
            (b"mgk v\r\n", UnknownCommand),
            (b"mg\tk v\r\n", UnknownCommand),
            (b" mg k v\r\n", UnknownCommand),
            (b"mg k !\r\n", BadFormat),
            (b"mg k v \x80\r\n", BadFormat),
            (b"me k !\r\n", BadFormat),
            (b"me Zm9 b\r\n", BadFormat),
            (b"ma k !\r\n", BadFormat),
            (b"mg k v v\r\n", DuplicateFlag),
            (b"md k Z\r\n", InvalidFlag),
            (b"ma k Z\r\n", InvalidOrDuplicateFlag),
            (b"ma k Nx\r\n", InvalidOrDuplicateFlag),
            (b"ma k Mx\r\n", BadArithmeticMode),
            (b"ma k M\r\n", BadArithmeticMode),
            (b"mg Zm9 b\r\n", BadKeyEncoding),
            (b"mg k Tsoon\r\n", BadToken),
            (&long, BadFormat),
            (&arithmetic, InvalidOrDuplicateFlag),
        ];
        for (line, want) in table {
            assert_eq!(error(line), *want, "{:?}", String::from_utf8_lossy(line));
        }
        for verb in ["mg", "md", "ma"] {
            assert_eq!(error(format!("{verb} k {opaque}\r\n").as_bytes()), OpaqueTooLong);
            let want = if verb == "ma" { InvalidOrDuplicateFlag } else { TooManyFlags };
            assert_eq!(error(format!("{verb} k{many}\r\n").as_bytes()), want);
        }
        assert_eq!(error(format!("mg k{} !\r\n", " v".repeat(20)).as_bytes()), BadFormat);
        assert_eq!(error(format!("mg k{} !\r\n", " v".repeat(21)).as_bytes()), TooManyFlags);
    }

    #[test]
    fn a_value_whose_length_is_known_is_swallowed() {
        let long = [b"ms ", &[b'k'; KEY_BYTES_MAX + 1][..], b" 5\r\n"].concat();
        for (line, error) in [
            (&b"ms k 5 !\r\n"[..], BadFormat),
            (b"ms k 5 Z\r\n", InvalidFlag),
            (b"ms k 5 q q\r\n", DuplicateFlag),
            (b"ms k 5 b\r\n", BadKeyEncoding),
            (b"ms k 5 Tx\r\n", BadToken),
            (b"ms k 5 Mx\r\n", BadSetMode),
            (b"ms k 5 F4294967296\r\n", BadFormat),
            (&long, BadFormat),
            (b"ms k 5 q q q q q q q q q q q q q q q q q q\r\n", TooManyFlags),
        ] {
            assert_eq!(head(line), Head::Refused { error, value_bytes: 5, noreply: false });
        }
    }

    proptest! {
        /// What is read in the short way is read alike in the long one.
        #[test]
        fn plain_gets_are_as_others(
            key in "[a0 \r\t\u{7f}\u{e9}]{1,12}|k{248,252}",
            tail in " v\r\n| v\n| v| v \r\n|  v\r\n|\r\n| v\r\nmg k",
        ) {
            let line = format!("mg {key}{tail}");
            if let Some(parsed) = plain_get(line.as_bytes()) {
                prop_assert_eq!(parsed, parse_head(line.as_bytes()));
            }
        }

        #[test]
        fn a_run_of_gets_is_read_as_they_are_one_by_one(
            lines in prop::collection::vec(
                "m[gs] [a-c]{1,9}( [vbcT0-9]{1,3}){0,2}\r?\n|get a\r\n",
                0..6,
            ),
            cut in any::<prop::sample::Index>(),
        ) {
            let input = lines.concat();
            let input = &input.as_bytes()[..cut.index(input.len() + 1)];
            let (mut rest, mut of_run) = (input, 0);
            while let Some((get, consumed)) = next_get(rest) {
                prop_assert_eq!(parse(rest), Parsed::MetaGet { get, consumed });
                (rest, of_run) = (&rest[consumed..], of_run + 1);
            }
            let is_get = matches!(parse(rest), Parsed::MetaGet { .. });
            prop_assert!(!is_get, "{of_run}");
        }
    }
}
