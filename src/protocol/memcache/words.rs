//! A line in words.

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
        for word in line.split(|&byte| byte == b' ').filter(|word| !word.is_empty()) {
            if let Some(place) = words.first.get_mut(words.count) {
                *place = word;
            }
            words.last = word;
            words.count += 1;
        }
        words
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
