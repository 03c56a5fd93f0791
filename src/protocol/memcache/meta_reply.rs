//! Replies to meta commands, as bytes.
//!
//! ```text
//!   HD f7 kthe-key Oabc W\r\n
//!   VA 5 t-1 s5 Z X\r\n
//!   hello\r\n
//! ```
//!
//! A flag is answered where it was asked for; of those that a command answers to. After them come
//! marks of the item, in an order of their own.

use super::LINE_END;
use super::base64::{encode, encoded_bytes};
use super::flags::{Flags, Letters, OPAQUE_BYTES_MAX};
use super::number::{DECIMAL_BYTES_MAX, write_decimal};
use super::reply::{append, append_number, fixed};
use crate::base::limits::{KEY_BYTES_MAX, REPLY_HEAD_BYTES_MAX};
use crate::base::output::Output;

pub const NOOP: &[u8] = b"MN\r\n";
/// For who asked for nothing but a value, and there is none.
pub const MISS: &[u8] = b"EN\r\n";

/// What comes first in a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Done.
    Done,
    /// There is no item, for who wanted to get it.
    End,
    NotFound,
    NotStored,
    Exists,
    /// A value of so many bytes follows the line.
    Value(usize),
}

/// What `mg`, `ms`, `md` and `ma` answer to, when they do what is asked for; and all, when not.
pub const OF_GET: Letters = Letters::of(b"stcflhOk");
pub const OF_SET: Letters = Letters::of(b"Okcs");
pub const OF_ARITHMETIC: Letters = Letters::of(b"ctOk");
pub const OF_NOTHING: Letters = Letters::of(b"Ok");

/// What flags may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told<'a> {
    /// In bytes, not in base64.
    pub key: &'a [u8],
    pub value_bytes: usize,
    /// `None` is never.
    pub left_s: Option<u64>,
    pub cas: u64,
    pub flags: u32,
    pub idle_s: u64,
    pub fetched: bool,
    /// Others have been told to make a newer value.
    pub sent: bool,
    pub stale: bool,
    /// The peer is told to.
    pub won: bool,
}

impl<'a> Told<'a> {
    /// For a command that knows no more.
    pub fn of(key: &'a [u8]) -> Told<'a> {
        Told {
            key,
            value_bytes: 0,
            left_s: None,
            cas: 0,
            flags: 0,
            idle_s: 0,
            fetched: false,
            sent: false,
            stale: false,
            won: false,
        }
    }
}

/// Longest line but for its flags.
const CODE_BYTES_MAX: usize = "VA ".len() + DECIMAL_BYTES_MAX + " Z X W".len() + LINE_END.len();
/// Longest that all flags together are answered with.
const FLAGS_BYTES_MAX: usize = 5 * (" s".len() + DECIMAL_BYTES_MAX)
    + " h1".len()
    + " ".len()
    + OPAQUE_BYTES_MAX
    + KEY_ANSWER_BYTES_MAX;
const KEY_ANSWER_BYTES_MAX: usize = " k".len() + encoded_bytes(KEY_BYTES_MAX) + " b".len();
const LINE_BYTES_MAX: usize = CODE_BYTES_MAX + FLAGS_BYTES_MAX;
const DEBUG_BYTES_MAX: usize = 600;

const _: () = assert!(LINE_BYTES_MAX <= REPLY_HEAD_BYTES_MAX);
/// A short value is written with its line.
const SHORT_VALUE_BYTES_MAX: usize = REPLY_HEAD_BYTES_MAX - LINE_BYTES_MAX - LINE_END.len();

/// Appends a line: a code, the answers to those of `flags` that are in `answered`, and marks.
pub fn line(
    output: &mut impl Output,
    code: Code,
    flags: &Flags<'_>,
    answered: Letters,
    told: &Told<'_>,
) {
    output.write(LINE_BYTES_MAX, |space| write_line(space, code, flags, answered, told));
}

/// Appends a line and a value, of whose bytes the line tells the number.
pub fn value(
    output: &mut impl Output,
    value: &[u8],
    flags: &Flags<'_>,
    answered: Letters,
    told: &Told<'_>,
) {
    let code = Code::Value(value.len());
    if value.len() > SHORT_VALUE_BYTES_MAX {
        line(output, code, flags, answered, told);
        output.put(value);
        output.put(LINE_END);
        return;
    }
    output.write(LINE_BYTES_MAX + value.len() + LINE_END.len(), |space| {
        let mut len = write_line(space, code, flags, answered, told);
        len = append(space, len, value);
        fixed(space, len, LINE_END)
    });
}

/// As `value`, for the value of a number that `ma` has changed.
pub fn number(output: &mut impl Output, number: u64, flags: &Flags<'_>, told: &Told<'_>) {
    let mut digits = [0; DECIMAL_BYTES_MAX];
    let len = write_decimal(&mut digits, number);
    value(output, &digits[..len], flags, OF_ARITHMETIC, told);
}

/// As `value`, where nothing but the value was asked for.
#[inline]
pub fn plain_value(output: &mut impl Output, value: &[u8]) {
    const PLAIN_BYTES_MAX: usize = CODE_BYTES_MAX + LINE_END.len();
    if value.len() > REPLY_HEAD_BYTES_MAX - PLAIN_BYTES_MAX {
        plain_value_head(output, value.len());
        output.put(value);
        output.put(LINE_END);
        return;
    }
    output.write(PLAIN_BYTES_MAX + value.len(), |space| {
        let mut len = write_plain_head(space, value.len());
        len = append(space, len, value);
        fixed(space, len, LINE_END)
    });
}

/// Appends the line of a value that follows in pieces, where nothing else was asked for.
pub fn plain_value_head(output: &mut impl Output, value_bytes: usize) {
    output.write(CODE_BYTES_MAX, |space| write_plain_head(space, value_bytes));
}

#[inline]
fn write_plain_head(space: &mut [u8], value_bytes: usize) -> usize {
    let len = fixed(space, 0, b"VA");
    // Lossless: no target has a wider usize.
    let len = append_number(space, len, value_bytes as u64);
    fixed(space, len, LINE_END)
}

fn write_line(
    space: &mut [u8],
    code: Code,
    flags: &Flags<'_>,
    answered: Letters,
    told: &Told<'_>,
) -> usize {
    let mut len = match code {
        Code::Done => fixed(space, 0, b"HD"),
        Code::End => fixed(space, 0, b"EN"),
        Code::NotFound => fixed(space, 0, b"NF"),
        Code::NotStored => fixed(space, 0, b"NS"),
        Code::Exists => fixed(space, 0, b"EX"),
        // Lossless: no target has a wider usize.
        Code::Value(bytes) => {
            let len = fixed(space, 0, b"VA");
            append_number(space, len, bytes as u64)
        }
    };
    if flags.letters().has_any(answered) {
        for (letter, token) in flags.each().filter(|(letter, _)| answered.has(*letter)) {
            len = fixed(space, len, &[b' ', letter]);
            len = write_answer(space, len, (letter, token), flags.has(b'b'), told);
        }
    }
    for (is_so, mark) in [(told.sent, b" Z"), (told.stale, b" X"), (told.won, b" W")] {
        if is_so {
            len = fixed(space, len, mark);
        }
    }
    fixed(space, len, LINE_END)
}

/// What follows a letter.
fn write_answer(
    space: &mut [u8],
    len: usize,
    (letter, token): (u8, &[u8]),
    is_binary: bool,
    told: &Told<'_>,
) -> usize {
    let number = match letter {
        b'O' => return append(space, len, token),
        b'k' if is_binary => {
            let encoded = encode(told.key, &mut space[len..]);
            return fixed(space, len + encoded, b" b");
        }
        b'k' => return append(space, len, told.key),
        b't' => match told.left_s {
            Some(left_s) => left_s,
            None => return fixed(space, len, b"-1"),
        },
        b's' => told.value_bytes as u64,
        b'c' => told.cas,
        b'f' => told.flags.into(),
        b'l' => told.idle_s,
        _ => told.fetched.into(),
    };
    len + write_decimal(&mut space[len..], number)
}

/// What `me` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Debugged<'a> {
    pub key: &'a [u8],
    pub is_binary: bool,
    pub left_s: Option<u64>,
    pub idle_s: u64,
    pub cas: u64,
    pub fetched: bool,
    pub class: u64,
    pub item_bytes: u64,
}

/// Appends what there is to say of an item.
//= protocol.txt "Meta Debug"
pub fn debug(output: &mut impl Output, it: &Debugged<'_>) {
    output.write(DEBUG_BYTES_MAX, |space| {
        let mut len = fixed(space, 0, b"ME ");
        len = match it.is_binary {
            true => len + encode(it.key, &mut space[len..]),
            false => append(space, len, it.key),
        };
        len = fixed(space, len, b" exp=");
        len = match it.left_s {
            Some(left_s) => len + write_decimal(&mut space[len..], left_s),
            None => fixed(space, len, b"-1"),
        };
        for (name, number) in [(&b" la="[..], it.idle_s), (b" cas=", it.cas)] {
            len = append(space, len, name);
            len += write_decimal(&mut space[len..], number);
        }
        len = append(space, len, if it.fetched { b" fetch=yes" } else { b" fetch=no" });
        for (name, number) in [(&b" cls="[..], it.class), (b" size=", it.item_bytes)] {
            len = append(space, len, name);
            len += write_decimal(&mut space[len..], number);
        }
        fixed(space, len, LINE_END)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::output::Memory;

    fn flags(text: &str) -> Flags<'_> {
        Flags::read(text.as_bytes(), b"a2V5").unwrap()
    }

    fn told() -> Told<'static> {
        Told {
            key: b"key",
            value_bytes: 5,
            left_s: Some(30),
            cas: 9,
            flags: 7,
            idle_s: 4,
            fetched: true,
            sent: false,
            stale: false,
            won: false,
        }
    }

    fn written(write: impl FnOnce(&mut Memory)) -> String {
        let mut output = Memory::new(usize::MAX);
        write(&mut output);
        String::from_utf8(output.take()).unwrap()
    }

    #[test]
    fn flags_are_answered_in_their_order() {
        for (text, answered, want) in [
            ("", OF_GET, "HD\r\n"),
            ("s t c f l h Oab k v q", OF_GET, "HD s5 t30 c9 f7 l4 h1 Oab kkey\r\n"),
            ("k h O f", OF_GET, "HD kkey h1 O f7\r\n"),
            ("k b s", OF_GET, "HD ka2V5 b s5\r\n"),
            ("b s k", OF_SET, "HD s5 ka2V5 b\r\n"),
            ("s t c f l h Oab k", OF_SET, "HD s5 c9 Oab kkey\r\n"),
            ("s t c f l h Oab k", OF_ARITHMETIC, "HD t30 c9 Oab kkey\r\n"),
            ("s t c f l h Oab k", OF_NOTHING, "HD Oab kkey\r\n"),
        ] {
            let line = |output: &mut Memory| {
                line(output, Code::Done, &flags(text), answered, &told());
            };
            assert_eq!(written(line), want);
        }
    }

    #[test]
    fn marks_come_last() {
        for (sent, stale, won, want) in [
            (true, true, false, "EN t-1 Z X\r\n"),
            (false, true, true, "EN t-1 X W\r\n"),
            (false, false, true, "EN t-1 W\r\n"),
        ] {
            let told = Told { left_s: None, sent, stale, won, ..told() };
            let line = |output: &mut Memory| {
                line(output, Code::End, &flags("t"), OF_GET, &told);
            };
            assert_eq!(written(line), want);
        }
    }

    #[test]
    fn the_longest_line_fits() {
        let long = [0xff; KEY_BYTES_MAX];
        let told = Told {
            key: &long,
            value_bytes: usize::MAX,
            left_s: Some(u64::MAX),
            cas: u64::MAX,
            flags: u32::MAX,
            idle_s: u64::MAX,
            fetched: true,
            sent: true,
            stale: true,
            won: true,
        };
        let text = format!("s t c f l h O{} k b", "o".repeat(OPAQUE_BYTES_MAX - 1));
        let longest = written(|output| {
            line(output, Code::Value(usize::MAX), &flags(&text), OF_GET, &told);
        });
        assert!(longest.len() <= LINE_BYTES_MAX && longest.ends_with(" Z X W\r\n"), "{longest}");
        for value_bytes in [0, SHORT_VALUE_BYTES_MAX, SHORT_VALUE_BYTES_MAX + 1, 5000] {
            let bytes = vec![b'v'; value_bytes];
            let reply = written(|output| value(output, &bytes, &flags(&text), OF_GET, &told));
            assert!(reply.ends_with(&format!("W\r\n{}\r\n", "v".repeat(value_bytes))));
        }
        let it = Debugged {
            key: &long,
            is_binary: true,
            left_s: Some(u64::MAX),
            idle_s: u64::MAX,
            cas: u64::MAX,
            fetched: false,
            class: u64::MAX,
            item_bytes: u64::MAX,
        };
        assert!(written(|output| debug(output, &it)).len() <= DEBUG_BYTES_MAX);
    }

    #[test]
    fn plain_values_are_as_others() {
        for value_bytes in [0, 1, 9, 10, 99, 100, 900, 1000, 1024, 5000] {
            let bytes = vec![b'v'; value_bytes];
            let plain = written(|output| plain_value(output, &bytes));
            assert_eq!(plain, format!("VA {value_bytes}\r\n{}\r\n", "v".repeat(value_bytes)));
            let any = |output: &mut Memory| {
                value(output, &bytes, &Flags::VALUE, OF_GET, &Told::of(b"k"));
            };
            assert_eq!(plain, written(any));
        }
    }

    #[test]
    fn an_item_is_told_of() {
        let it = Debugged {
            key: b"key",
            is_binary: false,
            left_s: None,
            idle_s: 2,
            cas: 3,
            fetched: true,
            class: 4,
            item_bytes: 50,
        };
        let want = "ME key exp=-1 la=2 cas=3 fetch=yes cls=4 size=50\r\n";
        assert_eq!(written(|output| debug(output, &it)), want);
        let it = Debugged { is_binary: true, left_s: Some(9), fetched: false, ..it };
        let want = "ME a2V5 exp=9 la=2 cas=3 fetch=no cls=4 size=50\r\n";
        assert_eq!(written(|output| debug(output, &it)), want);
    }
}
