//! The parser against tables, and against arbitrary bytes.

use proptest::prelude::*;

use super::*;
use crate::base::limits::{HEAD_BYTES_MAX, KEY_BYTES_MAX};

fn head(line: &[u8]) -> Head<'_> {
    let parsed = parse(line);
    let Parsed::Head { head, consumed } = parsed else {
        panic!("{:?}: {parsed:?}", String::from_utf8_lossy(line));
    };
    assert_eq!(consumed, line.len());
    head
}

fn error(line: &[u8]) -> (ProtocolError, bool) {
    let parsed = parse(line);
    let Parsed::Invalid { error, noreply, consumed } = parsed else {
        panic!("{:?}: {parsed:?}", String::from_utf8_lossy(line));
    };
    assert_eq!(consumed, line.len());
    (error, noreply)
}

fn store(
    verb: StoreVerb,
    flags: u32,
    exptime: i64,
    value_bytes: u32,
    noreply: bool,
) -> Head<'static> {
    Head::Store(StoreHead { verb, key: b"k", flags, exptime, value_bytes, noreply })
}

#[test]
fn storage_heads() {
    use StoreVerb::*;
    let table: &[(&[u8], Head<'_>)] = &[
        (b"set k 1 2 3\r\n", store(Set, 1, 2, 3, false)),
        (b"set k 1 2 3\n", store(Set, 1, 2, 3, false)),
        (b"set  k  1  -2  3  noreply \r\n", store(Set, 1, -2, 3, true)),
        (b"add k +1 +2 3 any thing else\r\n", store(Add, 1, 2, 3, false)),
        (b"replace k 4294967296 0 0\r\n", store(Replace, 0, 0, 0, false)),
        (b"append k 18446744073709551615 0 2147483645\r\n", {
            store(Append, u32::MAX, 0, 2_147_483_645, false)
        }),
        (b"prepend k 0 9223372036854775807 1\r\n", store(Prepend, 0, i64::MAX, 1, false)),
        (b"cas k 0 0 1 18446744073709551615 noreply\r\n", store(Cas(u64::MAX), 0, 0, 1, true)),
    ];
    for (line, want) in table {
        assert_eq!(head(line), *want);
    }
    let refused = |value_bytes, noreply| Head::Refused {
        error: ProtocolError::BadFormat,
        value_bytes,
        noreply,
    };
    assert_eq!(head(b"set k x 0 5\r\n"), refused(5, false));
    assert_eq!(head(b"set k 0 x 5 noreply\r\n"), refused(5, true));
    assert_eq!(head(b"set k 18446744073709551616 0 5\r\n"), refused(5, false));
    assert_eq!(head(b"cas k 0 0 5\r\n"), refused(5, false));
    assert_eq!(head(b"cas k 0 0 5 noreply\r\n"), refused(5, true));
    let long = [b"set ", &[b'k'; KEY_BYTES_MAX + 1][..], b" 0 0 5\r\n"].concat();
    assert_eq!(head(&long), refused(5, false));
    for line in [&b"set k 0 0\r\n"[..], b"set\r\n", b"set k 0 0 x noreply\r\n", b"add k 0 0 -1\r\n"]
    {
        assert_eq!(error(line), (ProtocolError::BadFormat, false));
    }
    assert_eq!(error(b"set k 0 0 2147483646\r\n"), (ProtocolError::BadFormat, false));
}

#[test]
fn other_heads() {
    let key: &[u8] = b"a\x00\x01\r\xff";
    let table: &[(&[u8], Head<'_>)] = &[
        (b"delete a\x00\x01\r\xff\r\n", Head::Delete { key, noreply: false }),
        (b"delete k 0 noreply\r\n", Head::Delete { key: b"k", noreply: true }),
        (b"touch k -1\r\n", Head::Touch { key: b"k", exptime: -1, noreply: false }),
        (b"incr k 7\r\n", Head::Incr(Delta { key: b"k", delta: 7, noreply: false })),
        (b"decr k 007 noreply\r\n", Head::Decr(Delta { key: b"k", delta: 7, noreply: true })),
        (b"flush_all\r\n", Head::FlushAll { delay: Some(0), noreply: false }),
        (b"flush_all noreply\r\n", Head::FlushAll { delay: Some(0), noreply: true }),
        (b"flush_all x\r\n", Head::FlushAll { delay: None, noreply: false }),
        (b"flush_all 2147483648\r\n", Head::FlushAll { delay: None, noreply: false }),
        (b"flush_all 9 noreply\r\n", Head::FlushAll { delay: Some(9), noreply: true }),
        (b"verbosity 4294967295\r\n", Head::Verbosity { level: u32::MAX, noreply: false }),
        (b"version x\r\n", Head::Version),
        (b"quit now\r\n", Head::Quit),
        (b"stats\r\n", Head::Stats { group: b"", action: b"" }),
        (b"stats settings x\r\n", Head::Stats { group: b"settings", action: b"x" }),
        (b"shutdown\r\n", Head::Shutdown { mode: Some(ShutdownMode::AtOnce), noreply: false }),
        (b"shutdown graceful\r\n", {
            Head::Shutdown { mode: Some(ShutdownMode::Graceful), noreply: false }
        }),
        (b"shutdown noreply\r\n", Head::Shutdown { mode: None, noreply: true }),
    ];
    for (line, want) in table {
        assert_eq!(head(line), *want);
    }
}

#[test]
fn what_is_refused_at_once() {
    use ProtocolError::*;
    let long = [b'k'; KEY_BYTES_MAX + 1];
    let long_key = |verb: &[u8], rest: &[u8]| [verb, &long[..], rest].concat();
    let table: &[(&[u8], (ProtocolError, bool))] = &[
        (b"\n", (BadFormat, false)),
        (b"x\r\n", (BadFormat, false)),
        (b"abc\n", (UnknownCommand, false)),
        (b"   \r\n", (UnknownCommand, false)),
        (b" get k\r\n", (UnknownCommand, false)),
        (b"GET k\r\n", (UnknownCommand, false)),
        (b"nothing noreply\r\n", (UnknownCommand, true)),
        (b"set\tk 0 0 1\r\n", (UnknownCommand, false)),
        (b"GET / HTTP/1.1\r\n", (Http, false)),
        (b"HTTP/1.1\r\n", (UnknownCommand, false)),
        (b"get\r\n", (BadFormat, false)),
        (b"gets\n", (BadFormat, false)),
        (b"gat\r\n", (BadFormat, false)),
        (b"gat 1\r\n", (BadFormat, false)),
        (b"touch k\r\n", (BadFormat, false)),
        (b"touch noreply\r\n", (BadFormat, false)),
        (b"touch k x\r\n", (BadExptime, false)),
        (b"touch k noreply\r\n", (BadExptime, true)),
        (b"incr k\r\n", (BadFormat, false)),
        (b"delete k 5\r\n", (BadDelete, false)),
        (b"delete k 0 0 noreply\r\n", (BadDelete, true)),
        (b"incr k +1\r\n", (BadDelta, false)),
        (b"decr k 18446744073709551616 noreply\r\n", (BadDelta, true)),
        (b"delete\r\n", (BadFormat, false)),
        (b"verbosity\r\n", (BadFormat, false)),
        (b"verbosity noreply\r\n", (BadFormat, true)),
        (&long_key(b"delete ", b"\r\n"), (BadFormat, false)),
        (&long_key(b"incr ", b" 1 noreply\r\n"), (BadFormat, true)),
        (&long_key(b"touch ", b" 0\r\n"), (BadFormat, false)),
    ];
    for (line, want) in table {
        assert_eq!(error(line), *want, "{:?}", String::from_utf8_lossy(line));
    }
}

#[test]
fn a_head_has_a_limit_and_a_list_of_keys_has_none() {
    let mut line = vec![b'x'; HEAD_BYTES_MAX - 1];
    assert_eq!(parse(&line), Parsed::Partial);
    line.push(b'\n');
    assert_eq!(error(&line).0, ProtocolError::UnknownCommand);
    line[HEAD_BYTES_MAX - 1] = b'x';
    line.push(b'\n');
    let Parsed::Invalid { error, .. } = parse(&line) else { panic!() };
    assert_eq!((error, error.blame()), (ProtocolError::HeadTooLong, Blame::Stream));
    let gat = [b"gat ", &vec![b' '; HEAD_BYTES_MAX][..], b"1 k\r\n"].concat();
    assert!(matches!(parse(&gat), Parsed::Invalid { error: ProtocolError::HeadTooLong, .. }));
    let spaces = [&vec![b' '; 3 * HEAD_BYTES_MAX][..], b"k\r\n"].concat();
    let consumed = spaces.len();
    assert_eq!(next_key(&spaces), NextKey::Key { key: b"k", last: true, consumed });
}

#[test]
fn keys_end_at_spaces_and_at_the_line() {
    let mut rest: &[u8] = b" a \rb c\r d\r\r\n";
    let mut keys = Vec::new();
    loop {
        let NextKey::Key { key, last, consumed } = next_key(rest) else { panic!("{rest:?}") };
        keys.push(key);
        rest = &rest[consumed..];
        if last {
            break;
        }
    }
    assert_eq!(keys, [&b"a"[..], b"\rb", b"c\r", b"d\r"]);
    assert_eq!(rest, b"");
    assert_eq!(next_key(b"  \r\n"), NextKey::End { consumed: 4 });
    assert_eq!(next_key(b"  \r"), NextKey::Partial { consumed: 2 });
    assert_eq!(next_key(b""), NextKey::Partial { consumed: 0 });
    for (key_bytes, fits) in [(KEY_BYTES_MAX, true), (KEY_BYTES_MAX + 1, false)] {
        let line = [&vec![b'k'; key_bytes][..], b"\r\n"].concat();
        assert_eq!(matches!(next_key(&line), NextKey::Key { last: true, .. }), fits);
        let end = line.len() - 2;
        assert!(matches!(next_key(&line[..end]), NextKey::Partial { consumed: 0 }));
    }
    let longer = [b'k'; KEY_BYTES_MAX + 2];
    assert_eq!(next_key(&longer), NextKey::TooLong { consumed: 0 });
}

#[test]
fn heads_of_key_lists() {
    let list =
        |with_cas, touch, consumed| Parsed::Keys { list: KeyList { with_cas, touch }, consumed };
    assert_eq!(parse(b"get "), list(false, KeyTouch::No, 4));
    assert_eq!(parse(b"gets k"), list(true, KeyTouch::No, 5));
    assert_eq!(parse(b"gat  5 k"), list(false, KeyTouch::Exptime(5), 6));
    assert_eq!(parse(b"gats -1 "), list(true, KeyTouch::Exptime(-1), 7));
    assert_eq!(parse(b"gat x k"), list(false, KeyTouch::BadExptime, 5));
    for partial in ["g", "get", "gets", "gat ", "gat 5", "gat 5\r", "gats  "] {
        assert_eq!(parse(partial.as_bytes()), Parsed::Partial, "{partial}");
    }
}

/// Bytes that look like requests often enough.
fn input() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(vec![
        "get",
        "gets",
        "gat",
        "gats",
        "set",
        "add",
        "cas",
        "append",
        "incr",
        "touch",
        "delete",
        "flush_all",
        "verbosity",
        "version",
        "stats",
        "shutdown",
        "quit",
        "noreply",
        " ",
        " ",
        " ",
        "\r\n",
        "\r\n",
        "\n",
        "\r",
        "0",
        "5",
        "-1",
        "99999999999999999999",
        "HTTP/1.1",
        "mg ",
        "mg ",
        "ms ",
        "md",
        "ma",
        "me",
        "mn",
        " v",
        " k",
        " T5",
        " C7",
        " Oabc",
        " b",
        "Zm9v",
    ]);
    let piece = prop_oneof![
        8 => words.prop_map(|word| word.as_bytes().to_vec()),
        2 => prop::collection::vec(any::<u8>(), 0..8),
        1 => (240usize..260).prop_map(|len| vec![b'k'; len]),
        1 => (2040usize..2060).prop_map(|len| vec![b'x'; len]),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

/// Bytes consumed, if an answer is final.
fn parse_consumed(parsed: &Parsed<'_>) -> Option<usize> {
    match *parsed {
        Parsed::Head { consumed, .. }
        | Parsed::Keys { consumed, .. }
        | Parsed::MetaGet { consumed, .. }
        | Parsed::Invalid { consumed, .. } => Some(consumed),
        Parsed::Partial => None,
    }
}

proptest! {
    #[test]
    fn parse_is_total_and_prefix_stable(input in input(), cut in any::<prop::sample::Index>()) {
        let whole = parse(&input);
        let Some(consumed) = parse_consumed(&whole) else {
            prop_assert!(input.len() < HEAD_BYTES_MAX);
            let cut = cut.index(input.len() + 1);
            prop_assert_eq!(parse(&input[..cut]), Parsed::Partial);
            return Ok(());
        };
        prop_assert!(consumed > 0);
        prop_assert!(consumed <= input.len());
        // A word is known to end only by what follows it.
        let seen = input.len().min(consumed + 1);
        let cut = cut.index(input.len() + 1);
        let part = parse(&input[..cut]);
        match cut >= seen {
            true => prop_assert_eq!(part, whole),
            false => prop_assert!(part == Parsed::Partial || part == whole),
        }
    }

    #[test]
    fn next_key_is_total_and_prefix_stable(
        input in input(),
        cut in any::<prop::sample::Index>(),
    ) {
        let cut = cut.index(input.len() + 1);
        let whole = next_key(&input);
        match next_key(&input[..cut]) {
            NextKey::Partial { consumed } => {
                prop_assert!(input[..consumed].iter().all(|&byte| byte == b' '));
                prop_assert!(cut - consumed <= KEY_BYTES_MAX + 1);
            }
            part @ (NextKey::Key { .. } | NextKey::End { .. } | NextKey::TooLong { .. }) => {
                prop_assert_eq!(part, whole);
            }
        }
        if let NextKey::Key { key, last, consumed } = whole {
            prop_assert!((1..=KEY_BYTES_MAX).contains(&key.len()));
            prop_assert!(!key.contains(&b' '));
            prop_assert!(!key.contains(&b'\n'));
            prop_assert_eq!(input[consumed - 1] == b'\n', last);
        }
    }
}
