//! Keys and what is known of their items, one a line.

use super::number::DECIMAL_BYTES_MAX;
use super::pen::{Pen, URI_BYTES_MAX};
use crate::base::limits::{KEY_BYTES_MAX, REPLY_HEAD_BYTES_MAX};
use crate::base::output::Output;

/// Names, spaces and the words that are no numbers come to less than this.
const WORDS_BYTES_MAX: usize = 64;
const ROW_BYTES_MAX: usize =
    WORDS_BYTES_MAX + URI_BYTES_MAX * KEY_BYTES_MAX + 6 * DECIMAL_BYTES_MAX;

/// The same of a class.
pub const ITEM_ROW_BYTES_MAX: usize =
    "ITEM  [ b;  s]\r\n".len() + KEY_BYTES_MAX + 2 * DECIMAL_BYTES_MAX;

const _: () = assert!(ROW_BYTES_MAX <= REPLY_HEAD_BYTES_MAX);

/// What a dump tells of an item. Times are Unix times in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DumpRow<'a> {
    pub key: &'a [u8],
    /// `None` is never.
    pub expires_at: Option<u64>,
    pub accessed_at: u64,
    pub cas: u64,
    pub is_fetched: bool,
    pub class: u8,
    pub item_bytes: u64,
    pub flags: u32,
}

/// Says how many bytes were written.
fn write(output: &mut impl Output, fill: impl FnOnce(&mut Pen<'_>)) -> usize {
    let mut bytes = 0;
    output.write(ROW_BYTES_MAX, |space| {
        let mut pen = Pen::new(space);
        fill(&mut pen);
        bytes = pen.len();
        bytes
    });
    bytes
}

/// True of a key, or a part of one, that can stand in a line as it is.
pub fn is_plain(key: &[u8]) -> bool {
    key.iter().all(|byte| *byte > b' ' && *byte != 0x7f)
}

/// Appends the line of an item.
//= protocol.txt "LRU_Crawler": metadump
pub fn dump_row(output: &mut impl Output, row: &DumpRow<'_>) {
    write(output, |pen| {
        pen.put(b"key=");
        pen.uri_encoded(row.key);
        match row.expires_at {
            Some(unix_s) => pen.number(b" exp=", unix_s),
            None => pen.put(b" exp=-1"),
        }
        pen.number(b" la=", row.accessed_at);
        pen.number(b" cas=", row.cas);
        pen.put(if row.is_fetched { b" fetch=yes" } else { b" fetch=no" });
        pen.number(b" cls=", row.class.into());
        pen.number(b" size=", row.item_bytes);
        pen.number(b" flags=", row.flags.into());
        pen.put(b" \n");
    });
}

/// Appends a request for a key. One that no request can hold as it is, is encoded.
//= protocol.txt "LRU_Crawler": mgdump
pub fn mg_request(output: &mut impl Output, key: &[u8]) {
    write(output, |pen| {
        pen.put(b"mg ");
        if is_plain(key) {
            pen.put(key);
        } else {
            pen.base64(key);
            pen.put(b" b");
        }
        pen.put(b"\r\n");
    });
}

/// Appends the line of an item of a class, and says how long it is: a key that no line can hold has
/// none, as memcached has it.
//= memcached items.c: item_cachedump
pub fn item_row(
    output: &mut impl Output,
    key: &[u8],
    value_bytes: u64,
    expires_at: Option<u64>,
) -> usize {
    if !is_plain(key) {
        return 0;
    }
    write(output, |pen| {
        pen.put(b"ITEM ");
        pen.put(key);
        pen.number(b" [", value_bytes);
        pen.number(b" b; ", expires_at.unwrap_or(0));
        pen.put(b" s]\r\n");
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::output::Memory;

    fn written(fill: impl FnOnce(&mut Memory)) -> Vec<u8> {
        let mut output = Memory::new(usize::MAX);
        fill(&mut output);
        output.take()
    }

    fn row(row: &DumpRow<'_>) -> String {
        String::from_utf8(written(|output| dump_row(output, row))).unwrap()
    }

    #[test]
    fn rows() {
        let common = DumpRow {
            key: b"a-._~Z9 %\n\xff",
            expires_at: None,
            accessed_at: 1_700_000_000,
            cas: 7,
            is_fetched: false,
            class: 128,
            item_bytes: 66,
            flags: u32::MAX,
        };
        let tail = "cls=128 size=66 flags=4294967295 \n";
        let wanted = "key=a-._~Z9%20%25%0A%FF exp=-1 la=1700000000 cas=7 fetch=no ";
        assert_eq!(row(&common), format!("{wanted}{tail}"));
        let longest = DumpRow {
            key: &[0xab; KEY_BYTES_MAX],
            expires_at: Some(u64::MAX),
            accessed_at: u64::MAX,
            cas: u64::MAX,
            is_fetched: true,
            item_bytes: u64::MAX,
            ..common
        };
        let line = row(&longest);
        assert!(line.contains("%AB exp=18446744073709551615 la=") && line.contains("fetch=yes"));
        assert!(line.ends_with("flags=4294967295 \n"));
    }

    #[test]
    fn rows_of_a_class() {
        let mut output = Memory::new(usize::MAX);
        assert_eq!(item_row(&mut output, b"a\xff", 0, None), "ITEM a? [0 b; 0 s]\r\n".len());
        for no_word in [&b"a b"[..], b"\n", b"\0", b"\x7f"] {
            assert_eq!(item_row(&mut output, no_word, 1, None), 0);
        }
        item_row(&mut output, &[b'k'; KEY_BYTES_MAX], u64::MAX, Some(u64::MAX));
        let longest = format!("ITEM {} [{} b; {} s]\r\n", "k".repeat(250), u64::MAX, u64::MAX);
        assert_eq!(output.take(), [b"ITEM a\xff [0 b; 0 s]\r\n", longest.as_bytes()].concat());
    }

    #[test]
    fn requests() {
        let of = |key: &[u8]| written(|output| mg_request(output, key));
        assert_eq!(of(b"user:1,2"), b"mg user:1,2\r\n");
        assert_eq!(of(b"k\x80\xff"), b"mg k\x80\xff\r\n");
        for (key, encoded) in [
            (&b"a b"[..], "YSBi"),
            (b"a\n", "YQo="),
            (b"\x7f", "fw=="),
            (b"\x00\xff\xfe\xfb", "AP/++w=="),
        ] {
            assert_eq!(of(key), format!("mg {encoded} b\r\n").as_bytes());
        }
        assert_eq!(of(&[0; KEY_BYTES_MAX]).len(), "mg  b\r\n".len() + 336);
    }
}
