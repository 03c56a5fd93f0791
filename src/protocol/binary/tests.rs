//! The parser against tables, and against arbitrary bytes.

use proptest::prelude::*;

use super::*;
use crate::base::limits::{HEAD_BYTES_MAX, KEY_BYTES_MAX};

/// A head with these lengths, opaque 1 2 3 4 and cas 9.
fn packet_head(opcode: u8, extras: u8, key: u16, body: u32) -> Vec<u8> {
    let mut head = vec![MAGIC, opcode];
    head.extend(key.to_be_bytes());
    head.extend([extras, 0, 0, 0]);
    head.extend(body.to_be_bytes());
    head.extend([1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 9]);
    head
}

/// A request with a value of so many bytes, of which none is there.
fn packet(opcode: u8, extras: &[u8], key: &[u8], value_bytes: u32) -> Vec<u8> {
    let (extras_bytes, key_bytes) = (extras.len(), key.len());
    let body = u32::try_from(extras_bytes + key_bytes).unwrap() + value_bytes;
    let (extras_bytes, key_bytes) = (extras_bytes.try_into(), key_bytes.try_into());
    let head = packet_head(opcode, extras_bytes.unwrap(), key_bytes.unwrap(), body);
    [&head[..], extras, key].concat()
}

const ECHO: Echo = Echo { opcode: 0, opaque: [1, 2, 3, 4] };

#[track_caller]
fn assert_parses(packet: &[u8], request: Request<'_>) {
    let opcode = packet[1];
    let quiet = Opcode::of(opcode).is_some_and(Opcode::is_quiet);
    let head = Head { echo: Echo { opcode, ..ECHO }, quiet, cas: 9, request };
    let consumed = packet.len();
    assert_eq!(parse(packet), Parsed::Head { head, consumed });
    // More of it does not change what it means.
    assert_eq!(parse(&[packet, b"more"].concat()), Parsed::Head { head, consumed });
    for cut in 0..packet.len() {
        assert_eq!(parse(&packet[..cut]), Parsed::Partial, "of {cut} bytes");
    }
}

#[test]
fn every_request_is_read() {
    let key: &[u8] = b"a \x00\r\n\xff";
    let exptime = 0x0102_0304u32.to_be_bytes();
    let stored = [&[0, 0, 0, 7][..], &exptime].concat();
    let store = |flags, exptime| StoreHead { key, flags, exptime, value_bytes: 5 };
    let counted = [&[0, 0, 0, 0, 0, 0, 1, 0][..], &[0xff; 8], &exptime].concat();
    let uncounted = [&[0, 0, 0, 0, 0, 0, 1, 0][..], &[0xff; 8], &[0xff; 4]].concat();
    let arithmetic = |initial| Arithmetic { key, delta: 256, initial };
    let exptime_read = 0x0102_0304;
    for (opcodes, extras, value, request) in [
        (&[0x00, 0x09, 0x0c, 0x0d][..], &[][..], 0, Request::Get { key }),
        (&[0x1d, 0x1e, 0x23, 0x24], &exptime, 0, {
            Request::GetAndTouch { key, exptime: exptime_read }
        }),
        (&[0x1c], &exptime, 0, Request::Touch { key, exptime: exptime_read }),
        (&[0x01, 0x11], &stored, 5, Request::Set(store(7, exptime_read))),
        (&[0x02, 0x12], &stored, 5, Request::Add(store(7, exptime_read))),
        (&[0x03, 0x13], &stored, 5, Request::Replace(store(7, exptime_read))),
        (&[0x0e, 0x19], &[], 5, Request::Append(store(0, 0))),
        (&[0x0f, 0x1a], &[], 5, Request::Prepend(store(0, 0))),
        (&[0x04, 0x14], &[], 0, Request::Delete { key }),
        (&[0x05, 0x15], &counted, 0, {
            Request::Increment(arithmetic(Some((u64::MAX, exptime_read))))
        }),
        (&[0x06, 0x16], &uncounted, 0, Request::Decrement(arithmetic(None))),
        (&[0x10], &[], 0, Request::Stat { group: key }),
        (&[0x21], &[], 5, Request::SaslAuth { mechanism: key, token_bytes: 5 }),
        (&[0x22], &[], 5, Request::SaslStep { mechanism: key, token_bytes: 5 }),
    ] {
        for opcode in opcodes {
            assert_parses(&packet(*opcode, extras, key, value), request);
        }
    }
    for (opcode, extras, request) in [
        (0x08, &[][..], Request::Flush { delay: 0 }),
        (0x18, &exptime, Request::Flush { delay: exptime_read }),
        (0x0a, &[], Request::Noop),
        (0x0b, &[], Request::Version),
        (0x1b, &exptime, Request::Verbosity { level: exptime_read }),
        (0x07, &[], Request::Quit),
        (0x17, &[], Request::Quit),
        (0x10, &[], Request::Stat { group: b"" }),
        (0x20, &[], Request::SaslList),
    ] {
        assert_parses(&packet(opcode, extras, b"", 0), request);
    }
}

#[test]
fn of_an_unknown_opcode_all_is_body() {
    for opcode in [0x1f, 0x25, 0x30, 0x3c, 0xff] {
        assert_parses(&packet_head(opcode, 200, 250, 1 << 30), {
            Request::Unknown { body_bytes: 1 << 30 }
        });
        assert_parses(&packet_head(opcode, 0, 0, 0), Request::Unknown { body_bytes: 0 });
    }
}

/// Which lengths each opcode takes, by trying them all.
#[test]
fn parts_that_do_not_belong_are_refused() {
    let mut table = String::new();
    for opcode in (0..=u8::MAX).filter(|opcode| Opcode::of(*opcode).is_some()) {
        let fits = |extras: u8, key: u16, value: u32| {
            let body = u32::from(extras) + u32::from(key) + value;
            match parse(&packet_head(opcode, extras, key, body)) {
                Parsed::Invalid { error, echo, consumed } => {
                    assert_eq!((error, echo.opcode), (ProtocolError::BadParts, opcode));
                    assert_eq!(consumed, PACKET_HEAD_BYTES);
                    false
                }
                Parsed::Head { .. } | Parsed::Partial => true,
            }
        };
        let mut rows: Vec<String> = Vec::new();
        for extras in 0..=u8::MAX {
            for (key, value) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                if fits(extras, key, value) {
                    rows.push(format!("{extras}/{key}/{value}"));
                }
            }
        }
        table += &format!("{opcode:02x} {:?}: {}\n", Opcode::of(opcode).unwrap(), rows.join(" "));
    }
    let want = "\
00 Get: 0/1/0
01 Set: 8/1/0 8/1/1
02 Add: 8/1/0 8/1/1
03 Replace: 8/1/0 8/1/1
04 Delete: 0/1/0
05 Increment: 20/1/0
06 Decrement: 20/1/0
07 Quit: 0/0/0
08 Flush: 0/0/0 4/0/0
09 GetQ: 0/1/0
0a Noop: 0/0/0
0b Version: 0/0/0
0c GetK: 0/1/0
0d GetKQ: 0/1/0
0e Append: 0/1/0 0/1/1
0f Prepend: 0/1/0 0/1/1
10 Stat: 0/0/0 0/1/0
11 SetQ: 8/1/0 8/1/1
12 AddQ: 8/1/0 8/1/1
13 ReplaceQ: 8/1/0 8/1/1
14 DeleteQ: 0/1/0
15 IncrementQ: 20/1/0
16 DecrementQ: 20/1/0
17 QuitQ: 0/0/0
18 FlushQ: 0/0/0 4/0/0
19 AppendQ: 0/1/0 0/1/1
1a PrependQ: 0/1/0 0/1/1
1b Verbosity: 4/0/0
1c Touch: 4/1/0
1d Gat: 4/1/0
1e GatQ: 4/1/0
20 SaslList: 0/0/0
21 SaslAuth: 0/1/0 0/1/1
22 SaslStep: 0/1/0 0/1/1
23 GatK: 4/1/0
24 GatKQ: 4/1/0
";
    assert_eq!(table, want);
}

/// Lengths that lie, up to the largest that the fields hold.
#[test]
fn lengths_that_cannot_be_are_refused() {
    use ProtocolError::*;
    for (extras, key, body, error) in [
        (8, 3, 10, BodyTooShort),
        (255, u16::MAX, 0, BodyTooShort),
        (0, 1, 0, BodyTooShort),
        (8, 3, (1 << 30) + 1, BodyTooLong),
        (8, 3, (1 << 31) - 1, BodyTooLong),
        (8, 3, 1 << 31, BodyTooLong),
        (8, 3, u32::MAX - 1, BodyTooLong),
        (8, 3, u32::MAX, BodyTooLong),
        (255, u16::MAX, u32::MAX, BodyTooLong),
        (8, 251, 300, KeyTooLong),
        (8, u16::MAX, 1 << 20, KeyTooLong),
        (9, 3, 20, BadParts),
    ] {
        for opcode in [0x01, 0x11] {
            let head = packet_head(opcode, extras, key, body);
            let echo = Echo { opcode, ..ECHO };
            assert_eq!(parse(&head), Parsed::Invalid { error, echo, consumed: 24 }, "{head:?}");
        }
    }
    let head = packet_head(0x01, 8, 250, 1 << 30);
    assert_eq!(parse(&head), Parsed::Partial);
    assert_eq!(BadMagic.status(), None);
    assert_eq!(BodyTooShort.status(), Some(Status::UnknownCommand));
}

#[test]
fn another_first_byte_is_no_request() {
    for byte in (0..=u8::MAX).filter(|byte| *byte != MAGIC) {
        let (error, echo) = (ProtocolError::BadMagic, Echo::default());
        assert_eq!(parse(&[byte]), Parsed::Invalid { error, echo, consumed: 1 });
    }
}

#[test]
fn a_lookup_is_read_as_a_request_is() {
    for opcode in 0..=u8::MAX {
        for key_bytes in [0, 1, 20, KEY_BYTES_MAX, KEY_BYTES_MAX + 1] {
            let packet = packet(opcode, b"", &vec![b'k'; key_bytes], 0);
            let read = parse_lookup(&packet);
            assert_eq!(read, lookup_of(&packet), "{opcode:02x}, {key_bytes} bytes");
            let is_get = [0x00, 0x09, 0x0c, 0x0d].contains(&opcode);
            assert_eq!(read.is_some(), is_get && (1..=KEY_BYTES_MAX).contains(&key_bytes));
        }
    }
    let whole = packet(0x0c, b"", b"key", 0);
    for cut in 0..whole.len() {
        assert_eq!(parse_lookup(&whole[..cut]), None);
    }
}

/// What `parse_lookup` has to say, from what `parse` says.
fn lookup_of(input: &[u8]) -> Option<(Lookup<'_>, usize)> {
    let Parsed::Head { head, consumed } = parse(input) else { return None };
    let Request::Get { key } = head.request else { return None };
    let opcode = Opcode::of(head.echo.opcode)?;
    Some((Lookup { key, opcode, echo: head.echo }, consumed))
}

/// Bytes that look like requests often enough.
fn input() -> impl Strategy<Value = Vec<u8>> {
    let opcode = prop_oneof![4 => 0u8..0x28, 1 => any::<u8>()];
    let extras = prop_oneof![
        4 => prop::sample::select(vec![0u8, 4, 8, 20]),
        1 => any::<u8>(),
    ];
    let key = prop_oneof![6 => 0u16..12, 1 => 245u16..260, 1 => any::<u16>()];
    let value = prop_oneof![
        4 => Just(0u32),
        2 => 0u32..30,
        1 => any::<u32>(),
        1 => prop::sample::select(vec![1 << 30, (1 << 31) - 1, 1 << 31, u32::MAX]),
    ];
    let request = (opcode, extras, key, value, any::<bool>()).prop_map(
        |(opcode, extras, key, value, lies)| {
            let parts = u32::from(extras) + u32::from(key);
            let body = if lies { value } else { parts.saturating_add(value) };
            let mut bytes = packet_head(opcode, extras, key, body);
            bytes.resize(bytes.len() + body.min(600) as usize, b'k');
            bytes
        },
    );
    let piece = prop_oneof![
        4 => request,
        1 => prop::collection::vec(any::<u8>(), 0..30),
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn parse_is_total_and_prefix_stable(input in input(), cut in any::<prop::sample::Index>()) {
        let whole = parse(&input);
        let cut = cut.index(input.len() + 1);
        let part = parse(&input[..cut]);
        let consumed = match whole {
            Parsed::Head { consumed, .. } | Parsed::Invalid { consumed, .. } => consumed,
            Parsed::Partial => {
                // No more than a head is ever kept.
                prop_assert!(input.len() < HEAD_BYTES_MAX);
                prop_assert_eq!(part, Parsed::Partial);
                return Ok(());
            }
        };
        prop_assert!(consumed > 0);
        prop_assert!(consumed <= input.len());
        match cut >= consumed {
            true => prop_assert_eq!(part, whole),
            false => prop_assert_eq!(part, Parsed::Partial),
        }
        prop_assert_eq!(parse_lookup(&input), lookup_of(&input));
    }
}
