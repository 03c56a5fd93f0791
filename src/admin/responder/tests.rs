//! The responder over its desk and over real loopback sockets.

use super::*;
use crate::admin::fixture::Fixture;
use crate::admin::wire::{REQUEST_BYTES_MAX, REQUEST_BYTES_MIN, Reply};
use crate::base::histogram::{BUCKETS, Snapshot};
use crate::config::AdminKey;
use proptest::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const KEY: &[u8] = b"0123456789abcdef";

fn registry() -> Arc<Registry> {
    let registry = Arc::new(Registry::default());
    let (one, two) = (registry.counters("ring 0"), registry.counters("ring 1"));
    one.add(Metric::CmdGet, 5);
    two.add(Metric::CmdGet, 2);
    two.sub(Metric::CurrItems, 1);
    one.add(Metric::CurrItems, 4);
    registry
}

fn desk(key: Option<&[u8]>) -> Desk {
    desk_at(key, Clock::start())
}

fn desk_at(key: Option<&[u8]>, clock: Clock) -> Desk {
    let registry = registry();
    let counters = registry.counters("admin");
    let control: Arc<dyn Control> = Arc::new(Fixture::default());
    let figures = Figures { registry, control, clock, tells_keys: true };
    Desk::new(figures, key.map(Signer::new), counters)
}

fn source(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn request(ask: Ask, first: u32) -> Request {
    Request { ask, id: 7, first, thread: 0, cookie: 0 }
}

/// Asks as `request` says, and reads the one reply.
fn ask(desk: &mut Desk, request: Request, bytes: usize) -> Option<Reply> {
    let signer = desk.signer.clone();
    let datagram = request.encode(bytes, signer.as_ref());
    let replies = desk.answer(&datagram, source("127.0.0.1:9"));
    assert!(replies.len() <= 1);
    let reply = replies.first()?;
    assert!(reply.len() <= bytes);
    Some(Reply::decode(reply, signer.as_ref()).unwrap())
}

#[test]
fn how_values_are_spread_comes_by_bucket() {
    let mut desk = desk(None);
    let threads = desk.figures.threads();
    threads[0].record(Distribution::Store, 1000, 3);
    threads[1].record(Distribution::Store, 5, 1);
    let names = ask(&mut desk, request(Ask::Spreads, 0), REQUEST_BYTES_MAX).unwrap().names;
    assert_eq!(names.len(), Distribution::ALL.len());
    let store = names.iter().position(|(_, name)| name == "store").unwrap();
    let mut counts = Vec::new();
    while counts.len() < BUCKETS {
        let first = u32::try_from(counts.len()).unwrap();
        let thread = u32::try_from(store).unwrap();
        let request = Request { thread, ..request(Ask::Counts, first) };
        let reply = ask(&mut desk, request, REQUEST_BYTES_MAX).unwrap();
        assert_eq!(reply.head.total as usize, BUCKETS);
        counts.extend(reply.values);
    }
    let spread = Snapshot::from_counts(counts);
    assert_eq!((spread.count(), spread.quantile(1), spread.quantile(50_000)), (4, 5, 1023));
    let beyond = Request { thread: 99, ..request(Ask::Counts, 0) };
    assert_eq!(ask(&mut desk, beyond, REQUEST_BYTES_MAX), None);
}

#[test]
fn a_class_is_four_words() {
    let mut desk = desk(None);
    let reply = ask(&mut desk, request(Ask::Classes, 0), REQUEST_BYTES_MAX).unwrap();
    assert_eq!(reply.values, [96, 2, 20, 5, 112, 0, 0, 0]);
    let second = ask(&mut desk, request(Ask::Classes, 4), REQUEST_BYTES_MAX).unwrap();
    assert_eq!(second.values, [112, 0, 0, 0]);
}

#[test]
fn pages_of_any_size_add_up_to_the_same() {
    let mut desk = desk(None);
    let expected = desk.figures.all();
    assert_eq!(expected.len(), Metric::ALL.len() + 4);
    for bytes in [REQUEST_BYTES_MIN, 100, 333, REQUEST_BYTES_MAX] {
        let (mut values, mut names) = (Vec::new(), Vec::new());
        while values.len() < expected.len() {
            let first = u32::try_from(values.len()).unwrap();
            let reply = ask(&mut desk, request(Ask::Values, first), bytes).unwrap();
            assert_eq!(usize::try_from(reply.head.total).unwrap(), expected.len());
            assert!(!reply.values.is_empty());
            values.extend(reply.values);
        }
        while names.len() < expected.len() {
            let first = u32::try_from(names.len()).unwrap();
            let reply = ask(&mut desk, request(Ask::Names, first), bytes).unwrap();
            assert!(!reply.names.is_empty());
            names.extend(reply.names);
        }
        let value = |name: &str| values[names.iter().position(|(_, each)| each == name).unwrap()];
        assert_eq!((value("cmd_get"), value("curr_items")), (7, 3));
        assert_eq!((value("limit_maxbytes"), value("hash_bytes")), (64 << 20, 17));
        assert_eq!(value("pid"), u64::from(std::process::id()));
    }
    let past = ask(&mut desk, request(Ask::Values, u32::MAX), 200).unwrap();
    assert!(past.values.is_empty());
}

#[test]
fn threads_have_figures_of_their_own() {
    let mut desk = desk(None);
    let threads = ask(&mut desk, request(Ask::Threads, 0), 200).unwrap();
    let names: Vec<_> = threads.names.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["ring 0", "ring 1", "admin"]);
    let of = |thread| Request { thread, ..request(Ask::ThreadValues, 0) };
    let reply = ask(&mut desk, of(1), REQUEST_BYTES_MAX).unwrap();
    assert_eq!(reply.values.len(), Metric::ALL.len());
    assert_eq!(reply.values[Metric::CmdGet as usize], 2);
    assert_eq!(reply.values[Metric::CurrItems as usize], u64::MAX);
    assert_eq!(ask(&mut desk, of(3), 200), None);
}

#[test]
fn replies_carry_one_boot_id_and_a_growing_sequence() {
    let mut first = desk(None);
    let heads: Vec<_> =
        (0..3).map(|_| ask(&mut first, request(Ask::Values, 0), 500).unwrap().head).collect();
    assert_eq!(heads.iter().map(|head| head.sequence).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(heads.iter().all(|head| head.boot_id == heads[0].boot_id));
    assert!(heads.is_sorted_by_key(|head| head.elapsed_ns));
    assert_ne!(desk(None).boot_id, first.boot_id);
}

#[test]
fn text_is_for_loopback_without_a_key() {
    let mut open = desk(None);
    let local = source("127.0.0.1:9");
    let replies = open.answer(b"stats\n", local);
    assert!(replies.iter().all(|reply| reply.len() <= 1400));
    let text = String::from_utf8(replies.concat()).unwrap();
    assert!(text.contains("STAT cmd_get 7\r\nSTAT"), "{text}");
    assert!(text.ends_with("STAT hash_bytes 17\r\nEND\r\n"), "{text}");
    let text = String::from_utf8(open.answer(b"stats rings\r\n", local).concat()).unwrap();
    assert!(text.contains("STAT ring_0:cmd_get 5\r\n"), "{text}");
    assert!(text.contains("STAT ring_1:curr_items -1\r\n"), "{text}");
    let mut sampler = open.figures.registry.hot.sampler(b':');
    let now = open.figures.clock.now();
    sampler.pass(1, now, |_, sample| sample.is_of(b"user:17"));
    let text = String::from_utf8(open.answer(b"stats hotkeys\n", local).concat()).unwrap();
    let rows = "STAT 1:key user:17\r\nSTAT 1:requests_per_s 1\r\nSTAT 1:share_percent 100.00\r\n";
    assert_eq!(text, format!("STAT requests_per_s 1\r\n{rows}END\r\n"));
    let text = String::from_utf8(open.answer(b"stats hotprefixes\n", local).concat()).unwrap();
    assert!(text.contains("STAT 1:prefix user\r\n"), "{text}");
    open.figures.tells_keys = false;
    for question in ["stats hotkeys", "stats hotprefixes"] {
        assert!(open.answer(question.as_bytes(), local).is_empty(), "{question}");
    }
    for question in [&b""[..], b"STATS", b"stats reset", b"STAT cmd_get 7", b"END\r\n", b"get k"] {
        assert!(open.answer(question, local).is_empty(), "{question:?}");
    }
    assert!(open.answer(b"stats", source("10.0.0.1:9")).is_empty(), "not from here");
    assert!(desk(Some(KEY)).answer(b"stats", local).is_empty(), "a key is for packets");
    let dropped = open.counters.get(Metric::AdminDropped);
    assert_eq!((open.counters.get(Metric::AdminServed), dropped), (4, 9));
}

#[test]
fn without_a_key_only_loopback_is_answered() {
    let mut open = desk(None);
    let datagram = request(Ask::Values, 0).encode(300, None);
    assert!(open.answer(&datagram, source("192.0.2.1:9")).is_empty());
    assert_eq!(open.answer(&datagram, source("[::1]:9")).len(), 1);
    assert_eq!(open.answer(&datagram, source("[::ffff:127.0.0.1]:9")).len(), 1);
}

#[test]
fn a_key_and_a_fresh_cookie_are_demanded() {
    let mut desk = desk(Some(KEY));
    let hello = ask(&mut desk, request(Ask::Hello, 0), 96).unwrap();
    let cookie = hello.values[0];
    let signed = Request { cookie, ..request(Ask::Values, 0) };
    assert!(ask(&mut desk, signed, 900).unwrap().values.len() > 9);

    // Sent again from elsewhere, it yields a cookie for there and no figure.
    let signer = desk.signer.clone().unwrap();
    let overheard = signed.encode(900, Some(&signer));
    let replies = desk.answer(&overheard, source("127.0.0.1:10"));
    let reply = Reply::decode(&replies[0], Some(&signer)).unwrap();
    assert_eq!((reply.head.ask, reply.values.len()), (Ask::Hello, 1));
    assert_ne!(reply.values[0], cookie);

    assert!(
        desk.answer(&signed.encode(900, Some(&Signer::new(b"wrong key"))), source("127.0.0.1:9"))
            .is_empty()
    );
    assert!(
        desk.answer(&request(Ask::Values, 0).encode(900, None), source("127.0.0.1:9")).is_empty()
    );
}

#[test]
fn a_cookie_grows_stale() {
    let elapsed_ns = Arc::new(AtomicU64::new(0));
    let mut desk = desk_at(Some(KEY), Clock::manual(Arc::clone(&elapsed_ns)));
    let cookie = ask(&mut desk, request(Ask::Hello, 0), 96).unwrap().values[0];
    let signed = Request { cookie, ..request(Ask::Values, 0) };
    for (window, kind) in [(0, Ask::Values), (1, Ask::Values), (2, Ask::Hello), (9, Ask::Hello)] {
        elapsed_ns.store(window * COOKIE_WINDOW_NS + 1, Ordering::Relaxed);
        assert_eq!(ask(&mut desk, signed, 900).unwrap().head.ask, kind, "window {window}");
    }
    let fresh = ask(&mut desk, signed, 900).unwrap().values[0];
    assert_ne!(fresh, cookie);
    let signed = Request { cookie: fresh, ..signed };
    assert_eq!(ask(&mut desk, signed, 900).unwrap().head.ask, Ask::Values);
}

#[test]
fn too_many_are_met_with_silence() {
    let elapsed_ns = Arc::new(AtomicU64::new(0));
    let mut desk = desk_at(None, Clock::manual(Arc::clone(&elapsed_ns)));
    let datagram = request(Ask::Values, 0).encode(96, None);
    let flood = |desk: &mut Desk| {
        (0..5000).filter(|_| !desk.answer(&datagram, source("127.0.0.1:9")).is_empty()).count()
    };
    assert_eq!(flood(&mut desk) as u64, PER_SOURCE.burst);
    assert_eq!(flood(&mut desk), 0);
    assert_eq!(desk.answer(b"stats", source("127.0.0.1:10")).len(), 0, "one host is one source");
    assert!(!desk.answer(&datagram, source("[::1]:9")).is_empty(), "another is not silenced");
    elapsed_ns.store(1_000_000_000, Ordering::Relaxed);
    assert_eq!(flood(&mut desk) as u64, PER_SOURCE.per_s);
}

proptest! {
    /// Whatever comes, with a key or without: what goes out is no longer, unless it is text.
    #[test]
    fn a_reply_is_never_longer_than_its_request(
        asks in prop::collection::vec((0usize..5, any::<u32>(), 0u32..4, 96usize..=1400), 1..20),
        noise in prop::collection::vec(any::<u8>(), 0..1500),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        keyed in any::<bool>(),
    ) {
        let mut desk = desk(keyed.then_some(KEY));
        let signer = desk.signer.clone();
        let mut datagrams = vec![noise.clone(), [&MAGIC[..], &noise].concat()];
        for (ask, first, thread, bytes) in asks {
            let ask = Ask::ALL[ask];
            let thread = if ask == Ask::ThreadValues { thread } else { 0 };
            let first = if first % 2 == 0 { first } else { first % 70 };
            let request = Request { ask, id: 1, first, thread, cookie: 0 };
            let mut datagram = request.encode(bytes, signer.as_ref());
            datagrams.push(datagram.clone());
            for (index, change) in &flips {
                let at = index.index(datagram.len());
                datagram[at] ^= change;
            }
            datagrams.push(datagram.clone());
            datagram.truncate(flips.first().map_or(95, |(index, _)| index.index(bytes)));
            datagrams.push(datagram);
        }
        for datagram in datagrams {
            let replies = desk.answer(&datagram, source("127.0.0.1:9"));
            prop_assert!(replies.len() <= 1);
            prop_assert!(replies.iter().all(|reply| reply.len() <= datagram.len()));
        }
    }
}

fn bind(key: Option<&[u8]>) -> Responder {
    let key = key.map(|key| AdminKey::new(key).unwrap());
    let address = source("127.0.0.1:0");
    let plan = AdminPlan { address, may_move: false, key, tells_keys: true };
    let control: Arc<dyn Control> = Arc::new(Fixture::default());
    Responder::new(AdminSocket::bind(&plan).unwrap(), &registry(), &control, Clock::start())
}

#[test]
fn over_a_socket() {
    let mut responder = bind(None);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(responder.address()).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut buffer = [0; 2000];

    client.send(&[0x80; 1400]).unwrap();
    client.send(&request(Ask::Values, 0).encode(1400, None)).unwrap();
    client.send(b"stats rings\n").unwrap();
    responder.turn();
    let bytes = client.recv(&mut buffer).unwrap();
    let reply = Reply::decode(&buffer[..bytes], None).unwrap();
    assert_eq!(reply.head.id, 7, "the garbage was not answered");
    let bytes = client.recv(&mut buffer).unwrap();
    assert!(buffer[..bytes].starts_with(b"STAT ring_0:cmd_get 5\r\n"));
    assert_eq!(client.recv(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);

    // Longer than any request: cut by the buffer it would look valid.
    let mut long = request(Ask::Values, 0).encode(1400, None);
    long.resize(1500, 0);
    client.send(&long).unwrap();
    responder.turn();
    assert_eq!(client.recv(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn a_taken_port_is_left_when_nobody_asked_for_it() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let plan = AdminPlan { address, may_move: true, key: None, tells_keys: true };
    let moved = AdminSocket::bind(&plan).unwrap();
    assert_ne!(moved.address().port(), address.port());
    let error = AdminSocket::bind(&AdminPlan { may_move: false, ..plan }).unwrap_err();
    assert_eq!(error.subject, address.to_string());
}

#[test]
fn off_loopback_nothing_is_bound_without_a_key() {
    let address = source("0.0.0.0:0");
    let plan = AdminPlan { address, may_move: false, key: None, tells_keys: true };
    assert!(AdminSocket::bind(&plan).unwrap_err().cause.contains("key"));
    let key = AdminKey::new(KEY);
    assert!(AdminSocket::bind(&AdminPlan { key, ..plan }).is_ok());
}
