//! What a connection speaks, and who may use it.

use super::cuts::packet;
use crate::base::metrics::Metric;
use crate::base::protocol::Protocol;
use crate::command::fuzzing::{End, Manner, Rig};

const MANNERS: [Manner; 5] =
    [Manner::Whole, Manner::Bytewise, Manner::Seeded(1), Manner::Seeded(2), Manner::Seeded(3)];

const USERS: &[u8] = b"foo:bar\nbaaaz:quux\n";

/// Sends everything in each manner, on connections of their own to a server with users. All replies
/// must be these.
#[track_caller]
fn assert_replies(sent: &[u8], replies: &str, end: End) {
    for manner in MANNERS {
        let mut rig = Rig::guarded(USERS, true);
        let got = rig.send(sent, manner);
        assert_eq!(String::from_utf8_lossy(&got), replies, "{manner:?}");
        assert_eq!(rig.end(), end, "{manner:?}");
    }
}

#[test]
fn nothing_is_executed_for_a_stranger() {
    let sent = b"get foo\r\nset foo 0 0 2\r\nhi\r\nset foo 0 0 7\r\nfoo bab\r\n\
        mg foo v\r\nms foo 5\r\nhello\r\nmd foo q\r\n\
        flush_all\r\nversion\r\nset x 0 0 2147483646\r\nset x 0 0 7\r\nfoo barxx\r\n";
    let replies = "CLIENT_ERROR unauthenticated\r\n\
        CLIENT_ERROR bad authentication token format\r\n\
        CLIENT_ERROR authentication failure\r\n\
        CLIENT_ERROR unauthenticated\r\nCLIENT_ERROR unauthenticated\r\n\
        CLIENT_ERROR unauthenticated\r\nCLIENT_ERROR unauthenticated\r\n\
        CLIENT_ERROR unauthenticated\r\nCLIENT_ERROR unauthenticated\r\n\
        CLIENT_ERROR auth token too long\r\n\
        CLIENT_ERROR bad command line termination\r\n\
        CLIENT_ERROR unauthenticated\r\n";
    assert_replies(sent, replies, End::Open);
    let unauthenticated = "CLIENT_ERROR unauthenticated\r\n";
    for line in ["quite\r\n", "quit x\r\n", "x\n", "\r\n", "\n"] {
        assert_replies(line.as_bytes(), unauthenticated, End::Open);
    }
    assert_replies(b"get foo\r\nquit\r\nget foo\r\n", unauthenticated, End::Closed);
    for line in [[b'x'; 2048], [b' '; 2048]] {
        assert_replies(&line, "CLIENT_ERROR line too long\r\n", End::Closed);
    }
}

#[test]
fn a_user_is_let_in() {
    let sent = b"set foo 0 0 7\r\nfoo bar\r\nset toast 0 0 2\r\nhi\r\nget toast foo\r\n";
    let replies = "STORED\r\nSTORED\r\nVALUE toast 0 2\r\nhi\r\nEND\r\n";
    assert_replies(sent, replies, End::Open);
    assert_replies(b"set a b c 10\nbaaaz quux\r\nquit\r\n", "STORED\r\n", End::Closed);
}

/// Of a token that is too long to be anybody's, nothing is kept: the rig would complain.
#[test]
fn a_long_token_is_swallowed() {
    for bytes in [1024, 1025, 16384] {
        let token = format!("foo {}", "b".repeat(bytes - 4));
        let sent = format!("set a 0 0 {bytes}\r\n{token}\r\nset a 0 0 7\r\nfoo bar\r\n");
        let replies = "CLIENT_ERROR authentication failure\r\nSTORED\r\n";
        assert_replies(sent.as_bytes(), replies, End::Open);
    }
}

#[test]
fn who_asks_to_be_let_in_is_counted() {
    let mut rig = Rig::guarded(USERS, true);
    let sent = b"get a\r\nset a 0 0 7\r\nfoo bab\r\nset a 0 0 7\r\nfoo bar\r\nget a\r\n";
    let _ = rig.send(sent, Manner::Whole);
    let counted = [Metric::AuthCmds, Metric::AuthErrors, Metric::GetMisses, Metric::Requests];
    assert_eq!(counted.map(|metric| rig.counted(metric)), [2, 1, 1, 4]);
}

#[test]
fn a_listener_may_settle_what_is_spoken() {
    let noop = b"\x80\x0a\0\0\0\0\0\0\0\0\0\0abcd\0\0\0\0\0\0\0\0";
    let done = b"\x81\x0a\0\0\0\0\0\0\0\0\0\0abcd\0\0\0\0\0\0\0\0";
    for manner in MANNERS {
        let mut rig = Rig::new(false);
        for (protocol, sent, replies, end) in [
            (Protocol::Negotiating, &b"version\r\n"[..], &b"VERSION 1.6.45\r\n"[..], End::Open),
            (Protocol::Negotiating, noop, done, End::Open),
            // As it is for memcached: a line like others.
            (
                Protocol::Ascii,
                b"\x80\x0a\r\n\n",
                b"CLIENT_ERROR bad command line format\r\n\
                CLIENT_ERROR bad command line format\r\nCLIENT_ERROR bad command line format\r\n",
                End::Open,
            ),
            (Protocol::Binary, noop, done, End::Open),
            (Protocol::Binary, b"version\r\n", b"", End::Closed),
        ] {
            rig.reconnect_in(protocol);
            let got = rig.send(sent, manner);
            assert_eq!(got, replies, "{protocol:?}, {manner:?}");
            assert_eq!(rig.end(), end, "{protocol:?}, {manner:?}");
        }
    }
}

/// A request to be let in, with so long a name of the way to be.
fn sasl(opcode: u8, mechanism: &str, token: &[u8]) -> Vec<u8> {
    packet(opcode, b"", mechanism, token, 0)
}

const LIST: u8 = 0x20;
const AUTH: u8 = 0x21;
const STEP: u8 = 0x22;

fn get() -> Vec<u8> {
    packet(0x00, b"", "k", b"", 0)
}

/// Sends packets in each manner, on connections of their own. The replies must have these statuses
/// and bodies.
#[track_caller]
fn assert_packets(sasl: bool, sent: &[Vec<u8>], wanted: &[(u16, &str)], end: End) {
    for manner in MANNERS {
        let mut rig = Rig::guarded(USERS, sasl);
        let got = rig.send(&sent.concat(), manner);
        let (mut rest, mut replies) = (&got[..], Vec::new());
        while let Some(head) = rest.get(..24) {
            let body = u32::from_be_bytes(head[8..12].try_into().unwrap()) as usize;
            let status = u16::from_be_bytes([head[6], head[7]]);
            replies.push((status, String::from_utf8_lossy(&rest[24..24 + body])));
            rest = &rest[24 + body..];
        }
        assert!(rest.is_empty());
        let wanted: Vec<_> = wanted.iter().map(|(code, text)| (*code, (*text).into())).collect();
        assert_eq!(replies, wanted, "{manner:?}");
        assert_eq!(rig.end(), end, "{manner:?}");
    }
}

#[test]
fn no_packet_of_a_stranger_is_executed() {
    let failure = (0x20, "Auth failure.");
    let set = packet(0x01, &[0; 8], "k", b"v", 0);
    for request in [get(), set, packet(0x0a, b"", "", b"", 0), packet(0x3f, b"", "", b"x", 0)] {
        assert_packets(true, &[request.clone(), request], &[failure], End::Closed);
    }
    // Which version it is may be asked by all.
    let version = packet(0x0b, b"", "", b"", 0);
    assert_packets(true, &[version, get()], &[(0, "1.6.45"), failure], End::Closed);
}

#[test]
fn a_user_is_let_in_by_sasl() {
    let token = b"\0foo\0bar";
    let (ok, failure, missing) = ((0, "Authenticated"), (0x20, "Auth failure."), (1, "Not found"));
    let right = || sasl(AUTH, "PLAIN", token);
    let sent = [sasl(LIST, "", b""), right(), get()];
    assert_packets(true, &sent, &[(0, "PLAIN"), ok, missing], End::Open);
    let sent =
        [sasl(AUTH, "PLAIN", b"\0foo\0baz"), sasl(AUTH, "PLAIN", b"foo bar"), right(), get()];
    assert_packets(true, &sent, &[failure, failure, ok, missing], End::Open);
    let sent = [sasl(AUTH, "CRAM-MD5", token), right(), get()];
    assert_packets(true, &sent, &[failure, ok, missing], End::Open);
    // In two steps.
    let sent = [sasl(AUTH, "PLAIN", b""), sasl(STEP, "PLAIN", token), get()];
    assert_packets(true, &sent, &[(0x21, ""), ok, missing], End::Open);
    let sent = [sasl(STEP, "PLAIN", token), right(), sasl(STEP, "PLAIN", token), get()];
    assert_packets(true, &sent, &[failure, ok, failure, failure], End::Closed);
    // Who wants to be somebody else is nobody until that is settled.
    let sent = [right(), sasl(AUTH, "PLAIN", b"\0foo\0baz"), get()];
    assert_packets(true, &sent, &[ok, failure, failure], End::Closed);
}

#[test]
fn what_is_too_long_for_sasl_is_swallowed() {
    let right = || sasl(AUTH, "PLAIN", b"\0foo\0bar");
    let sent = [sasl(AUTH, &"X".repeat(33), b"\0foo\0bar"), right()];
    assert_packets(true, &sent, &[(4, "Invalid arguments"), (0, "Authenticated")], End::Open);
    for bytes in [1024, 1025, 100_000] {
        let sent = [sasl(AUTH, "PLAIN", &vec![0; bytes]), right()];
        assert_packets(true, &sent, &[(0x20, "Auth failure."), (0, "Authenticated")], End::Open);
    }
}

#[test]
fn without_sasl_no_packet_gets_far() {
    let (unknown, failure) = ((0x81, "Unknown command"), (0x20, "Auth failure."));
    let sent = [sasl(LIST, "", b""), sasl(AUTH, "PLAIN", b"\0foo\0bar"), get()];
    assert_packets(false, &sent, &[unknown, unknown, failure], End::Closed);
}

#[test]
fn who_asks_by_sasl_is_counted() {
    let mut rig = Rig::guarded(USERS, true);
    let sent = [
        sasl(AUTH, &"X".repeat(33), b"\0foo\0bar"),
        sasl(AUTH, "PLAIN", b"\0foo\0baz"),
        sasl(AUTH, "PLAIN", b""),
        sasl(STEP, "PLAIN", b"\0foo\0bar"),
    ];
    let _ = rig.send(&sent.concat(), Manner::Whole);
    let counted = [Metric::AuthCmds, Metric::AuthErrors, Metric::Requests];
    assert_eq!(counted.map(|metric| rig.counted(metric)), [2, 1, 4]);
}
