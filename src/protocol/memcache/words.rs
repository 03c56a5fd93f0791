//! A line in words.

use super::search::find;

/// As many words as a command looks at by their place.
const WORDS_MAX: usize = 6;

/// The words of one line, split at spaces and at nothing else: keys may hold any other byte.
pub struct Words<'a> {
    first: [&'a [u8]; WORDS_MAX],
    last: &'a [u8],
    count: usize,
}

impl<'a> Words<'a> {
    pub fn of(line: &'a [u8]) -> Words<'a> {
        let mut words = Words { first: [b""; WORDS_MAX], last: b"", count: 0 };
        let mut rest = line;
        while !rest.is_empty() {
            let len = find(rest, b' ').unwrap_or(rest.len());
            if len > 0 {
                words.push(&rest[..len]);
            }
            rest = rest.get(len + 1..).unwrap_or_default();
        }
        words
    }

    #[inline]
    fn push(&mut self, word: &'a [u8]) {
        if let Some(place) = self.first.get_mut(self.count) {
            *place = word;
        }
        self.last = word;
        self.count += 1;
    }

    /// The word at `place`, the verb being at 0; empty when there is none.
    pub fn at(&self, place: usize) -> &'a [u8] {
        self.first[place]
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn last(&self) -> &'a [u8] {
        self.last
    }

    /// True when the last word asks for no reply.
    //= protocol.txt "Commands": "noreply" optional parameter
    pub fn noreply(&self) -> bool {
        self.last == b"noreply"
    }
}
