//! The flags of a meta command: words of a letter each, some with a token after it.

use super::error::ProtocolError;
use super::number::{decimal, signed};
use super::search::find;

/// Longest opaque token, letter included.
pub const OPAQUE_BYTES_MAX: usize = 32;

/// A set of letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Letters(u64);

impl Letters {
    pub const NONE: Letters = Letters(0);

    pub const fn of(letters: &[u8]) -> Letters {
        let (mut set, mut place) = (Letters::NONE, 0);
        while place < letters.len() {
            set.0 |= Letters::bit(letters[place]);
            place += 1;
        }
        set
    }

    const fn bit(letter: u8) -> u64 {
        match letter {
            b'A'..=b'z' => 1 << (letter - b'A'),
            _ => 0,
        }
    }

    #[inline]
    pub const fn has(self, letter: u8) -> bool {
        self.0 & Letters::bit(letter) != 0
    }

    /// True when it has any of the others.
    #[inline]
    pub const fn has_any(self, others: Letters) -> bool {
        self.0 & others.0 != 0
    }
}

/// Known to all meta commands, whether they mean anything to one or not.
const KNOWN: Letters = Letters::of(b"bcfhklqstuvxCDEFIJLMNOPRT");

/// The flags of one command, in order: no letter twice, all known, and all numbers readable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags<'a> {
    letters: Letters,
    text: &'a [u8],
}

impl<'a> Flags<'a> {
    pub const NONE: Flags<'static> = Flags { letters: Letters::NONE, text: b"" };
    /// The value, and nothing else.
    pub const VALUE: Flags<'static> = Flags { letters: Letters::of(b"v"), text: b"v" };

    /// Reads the words of `text`.
    ///
    /// # Errors
    /// Of several, the one that memcached tells.
    pub(super) fn read(text: &'a [u8], key: &[u8]) -> Result<Flags<'a>, ProtocolError> {
        let text = text.strip_prefix(b" ").unwrap_or(text);
        let (mut letters, mut error) = (Letters::NONE, None);
        for (letter, token) in words(text) {
            if letters.has(letter) {
                return Err(ProtocolError::DuplicateFlag);
            }
            if !KNOWN.has(letter) {
                return Err(ProtocolError::InvalidFlag);
            }
            letters.0 |= Letters::bit(letter);
            let fault = match letter {
                b'b' if !super::base64::is_encoded(key) => ProtocolError::BadKeyEncoding,
                b'N' | b'T' | b'R' if signed(token).is_none() => ProtocolError::BadToken,
                b'C' | b'E' if decimal(token).is_none() => ProtocolError::BadToken,
                b'J' if decimal(token).is_none() => ProtocolError::BadInitial,
                b'D' if decimal(token).is_none() => ProtocolError::BadDeltaValue,
                // What another flag has said stays.
                b'F' if client_flags(token).is_none() => error.unwrap_or(ProtocolError::BadFormat),
                _ => continue,
            };
            error = Some(fault);
        }
        match error {
            Some(error) => Err(error),
            None => Ok(Flags { letters, text }),
        }
    }

    #[inline]
    pub fn has(&self, letter: u8) -> bool {
        self.letters.has(letter)
    }

    #[inline]
    pub fn letters(&self) -> Letters {
        self.letters
    }

    /// Each flag with its token, in order.
    pub fn each(&self) -> impl Iterator<Item = (u8, &'a [u8])> + use<'a> {
        words(self.text)
    }

    /// What follows a letter; empty when it is not there.
    pub fn token(&self, letter: u8) -> &'a [u8] {
        if !self.has(letter) {
            return b"";
        }
        self.each().find(|(other, _)| *other == letter).map_or(&b""[..], |(_, token)| token)
    }

    /// The number after C, E, J or D.
    pub fn number(&self, letter: u8) -> Option<u64> {
        if self.has(letter) { decimal(self.token(letter)) } else { None }
    }

    /// The exptime after N, T or R, as clients send it.
    pub fn exptime(&self, letter: u8) -> Option<i64> {
        if self.has(letter) { signed(self.token(letter)) } else { None }
    }

    /// The client's flags, which are 0 unless F says otherwise.
    pub fn client_flags(&self) -> u32 {
        client_flags(self.token(b'F')).unwrap_or(0)
    }

    /// The letter after M.
    pub(super) fn mode(&self) -> Option<u8> {
        self.has(b'M').then(|| self.token(b'M').first().copied().unwrap_or(0))
    }

    /// A copy of those flags that a storage command answers with, and of what says how.
    pub fn keep(&self) -> KeptFlags {
        let mut kept = KeptFlags { letters: Letters::NONE, text: [0; KEPT_BYTES_MAX], len: 0 };
        for (letter, token) in self.each().filter(|(letter, _)| KEPT.has(*letter)) {
            let token = if letter == b'O' { token } else { b"" };
            kept.letters.0 |= Letters::bit(letter);
            let word = [&b" "[..], &[letter], token];
            for part in word {
                let len = usize::from(kept.len);
                kept.text[len..len + part.len()].copy_from_slice(part);
                kept.len += u8::try_from(part.len()).expect("a token is checked");
            }
        }
        kept
    }
}

/// Of a storage command's flags, those that matter when its value is there.
const KEPT: Letters = Letters::of(b"bckqsO");
const KEPT_BYTES_MAX: usize = 5 * " b".len() + " ".len() + OPAQUE_BYTES_MAX;

/// Flags that outlive the input they were read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptFlags {
    letters: Letters,
    text: [u8; KEPT_BYTES_MAX],
    len: u8,
}

impl KeptFlags {
    pub fn flags(&self) -> Flags<'_> {
        Flags { letters: self.letters, text: &self.text[..usize::from(self.len)] }
    }
}

/// The words of a line, each as its first byte and the rest.
pub(super) fn words(text: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let start = rest.iter().position(|byte| *byte != b' ')?;
        let len = find(&rest[start..], b' ').unwrap_or(rest.len() - start);
        let (word, after) = rest[start..].split_at(len);
        rest = after;
        word.split_first().map(|(first, token)| (*first, token))
    })
}

fn client_flags(token: &[u8]) -> Option<u32> {
    decimal(token).and_then(|flags| u32::try_from(flags).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Flags<'_>, ProtocolError> {
        Flags::read(text.as_bytes(), b"Zm9v")
    }

    #[test]
    fn tokens_are_found() {
        let flags = read("s  Oabc v T-5 C7 F4294967295 MS k b Lany/thing").unwrap();
        let letters: Vec<u8> = flags.each().map(|(letter, _)| letter).collect();
        assert_eq!(letters, b"sOvTCFMkbL");
        assert_eq!(
            (flags.token(b'O'), flags.token(b's'), flags.token(b't')),
            (&b"abc"[..], &b""[..], &b""[..])
        );
        assert_eq!((flags.exptime(b'T'), flags.exptime(b'N')), (Some(-5), None));
        assert_eq!((flags.number(b'C'), flags.number(b'E')), (Some(7), None));
        assert_eq!((flags.client_flags(), flags.mode()), (u32::MAX, Some(b'S')));
        assert!(flags.has(b'v') && !flags.has(b'q') && !flags.has(b'!') && !flags.has(0xff));
        assert_eq!(read(" ").unwrap().each().count(), 0);
        assert_eq!(read("v").unwrap(), Flags::VALUE);
        assert_eq!(read("M").unwrap().mode(), Some(0));
    }

    #[test]
    fn of_several_errors_one_is_told() {
        use ProtocolError::*;
        for (text, error) in [
            ("v v", DuplicateFlag),
            ("v S", InvalidFlag),
            ("v 5", InvalidFlag),
            ("[", InvalidFlag),
            ("C", BadToken),
            ("C-1", BadToken),
            ("E18446744073709551616", BadToken),
            ("Tx", BadToken),
            ("N", BadToken),
            ("R5x", BadToken),
            ("J-1", BadInitial),
            ("D", BadDeltaValue),
            ("F", BadFormat),
            ("F4294967296", BadFormat),
            ("Cx Fx", BadToken),
            ("Fx Cx", BadToken),
            ("Cx Dx", BadDeltaValue),
            ("Cx v v", DuplicateFlag),
            ("Cx ! v", InvalidFlag),
        ] {
            assert_eq!(read(text), Err(error), "{text}");
        }
        assert_eq!(Flags::read(b"b", b"Zm9"), Err(BadKeyEncoding));
        assert_eq!(Flags::read(b"b Cx", b"Zm9"), Err(BadToken));
    }

    #[test]
    fn what_is_answered_is_kept() {
        let flags = read("q T5 s O0123456789012345678901234567890 c k b Lx I").unwrap();
        let kept = flags.keep();
        let want = Flags::read(b"q s O0123456789012345678901234567890 c k b", b"Zm9v").unwrap();
        assert_eq!(kept.flags().letters(), want.letters());
        assert!(kept.flags().each().eq(want.each()));
        assert_eq!(size_of::<KeptFlags>(), 56);
    }
}
