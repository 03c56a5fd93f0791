//! The load generator against a toy server in threads of the test, honest or with one fault.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::Duration;

use clap::Parser;
use ringcached_load::measure;
use ringcached_load::options::Options;
use ringcached_load::report::Report;

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Every tenth hit has a wrong byte.
    Corrupt,
    /// Nothing is answered for a while, once, after some gets.
    Stall(Duration),
    /// Gets are never answered.
    Silent,
    /// Connections are closed after some gets.
    Close,
    /// Some hits lack their END.
    Unframed,
}

const GETS_BEFORE_FAULT: u64 = 200;

#[derive(Default)]
struct Store {
    values: RwLock<BTreeMap<String, Vec<u8>>>,
    gets: AtomicU64,
}

/// Serves one connection; returns when it is closed.
fn serve(stream: impl Read, mut out: impl Write, store: &Store, fault: Fault) -> Option<()> {
    let mut input = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if input.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        if words[0] == "set" {
            let mut value = vec![0; words[4].parse().ok()?];
            input.read_exact(&mut value).ok()?;
            input.read_exact(&mut [0; 2]).ok()?;
            store.values.write().unwrap().insert(words[1].to_owned(), value);
            out.write_all(b"STORED\r\n").ok()?;
            continue;
        }
        let count = store.gets.fetch_add(1, Ordering::Relaxed);
        match fault {
            Fault::Stall(pause) if count == GETS_BEFORE_FAULT => thread::park_timeout(pause),
            Fault::Close if count >= GETS_BEFORE_FAULT => return None,
            Fault::Silent => continue,
            Fault::None | Fault::Corrupt | Fault::Stall(_) | Fault::Close | Fault::Unframed => {}
        }
        let mut reply = Vec::new();
        if let Some(value) = store.values.read().unwrap().get(words[1]) {
            reply = format!("VALUE {} 0 {}\r\n", words[1], value.len()).into_bytes();
            reply.extend_from_slice(value);
            if fault == Fault::Corrupt && count.is_multiple_of(10) {
                *reply.last_mut().unwrap() ^= 1;
            }
            reply.extend_from_slice(b"\r\n");
        }
        if fault != Fault::Unframed || count < GETS_BEFORE_FAULT {
            reply.extend_from_slice(b"END\r\n");
        }
        out.write_all(&reply).ok()?;
    }
}

fn start(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let store = Arc::new(Store::default());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let store = store.clone();
            thread::spawn(move || serve(&stream, &stream, &store, fault));
        }
    });
    address
}

fn load(server: SocketAddr, line: &str) -> Report {
    let server = server.to_string();
    let words = ["ringcached-load", "--server", &server].into_iter().chain(line.split(' '));
    measure(&Options::parse_from(words)).unwrap()
}

#[test]
fn what_was_stored_is_found_and_verified() {
    for values in ["32", "0", "lognormal:300:1", "list:10=5,70000=1"] {
        let line = format!("-p -k 500 -c 4 -d 16 -v {values} --verify --warm-up 0 -n 3000");
        let report = load(start(Fault::None), &line);
        assert_eq!(report.preload.unwrap().stored, 500);
        assert_eq!(report.failures.total(), 0, "{:?}", report.first_failure);
        assert_eq!((report.hits, report.misses, report.requests), (3000, 0, 3000));
        assert_eq!(report.latency.count, 3000);
        assert_eq!(report.bytes_sent, 3000 * "get key-0000000000000000\r\n".len() as u64);
        assert!(report.bytes_received > 3000 * "VALUE END".len() as u64, "{report}");
        assert!(report.latency.p50_us > 0.0 && report.latency.max_us >= report.latency.p999_us);
    }
}

#[test]
fn a_mix_stores_and_misses() {
    let line = "-k 1000 -c 3 -d 7 --window --ratio 1:1 --verify --popularity zipf:0.9 -t 0.3";
    let report = load(start(Fault::None), line);
    assert_eq!(report.failures.total(), 0, "{:?}", report.first_failure);
    assert!(report.stored > 100 && report.hits > 100, "{report}");
    let sets = report.stored as f64 / report.requests as f64;
    assert!((0.45..0.55).contains(&sets), "{sets} of the requests are sets");
    let missed = load(start(Fault::None), "-k 10 -n 100 --warm-up 0");
    assert_eq!((missed.hits, missed.misses, missed.failures.total()), (0, 100, 0));
}

#[test]
fn wrong_values_are_counted_when_asked_to_look() {
    let address = start(Fault::Corrupt);
    let report = load(address, "-p -k 100 -c 1 --warm-up 0 -n 1000 --verify");
    assert_eq!((report.failures.content, report.hits), (100, 900));
    assert!(report.first_failure.unwrap().contains("Get of key"));
    let report = load(address, "-k 100 -c 1 --warm-up 0 -n 1000");
    assert_eq!((report.failures.content, report.hits), (0, 1000));
}

#[test]
fn an_open_loop_keeps_its_rate_and_charges_a_stall_in_full() {
    // 2000 requests/s for a second; those due within the pause of 0.3 s wait for its end.
    let pause = Duration::from_millis(300);
    for arrivals in ["uniform", "poisson"] {
        let line = format!("-p -k 10 -c 1 -d 4 --rate 2000 --arrivals {arrivals} -t 1 --warm-up 0");
        let report = load(start(Fault::Stall(pause)), &line);
        assert_eq!(report.failures.total(), 0, "{:?}", report.first_failure);
        let count = report.latency.count;
        assert!((1_800..2_200).contains(&count), "{count} {arrivals}");
        assert!(report.latency.max_us >= 280_000.0, "{report}");
        // 600 of 2000 requests were due within the pause: the slowest tenth waited 0.1 s or more.
        assert!(report.latency.p90_us >= 50_000.0, "{report}");
    }
    // A closed loop asks nothing during the pause, and so hardly sees it.
    let report = load(start(Fault::Stall(pause)), "-p -k 10 -c 1 -t 1 --warm-up 0");
    assert!(report.latency.max_us >= 280_000.0 && report.latency.p90_us < 50_000.0, "{report}");
}

#[test]
fn a_server_that_fails_ends_the_run() {
    let closed = load(start(Fault::Close), "-p -k 10 -c 2 -t 5 --warm-up 0");
    assert_eq!(closed.connections_lost, 2);
    assert!(closed.failures.closed >= 2 && closed.wall_s < 4.0, "{closed}");

    let silent = load(start(Fault::Silent), "-p -k 10 -c 2 -d 3 -t 5 --warm-up 0 --timeout 0.2");
    assert_eq!((silent.failures.unanswered, silent.requests), (6, 0));
    assert!(silent.latency.max_us >= 200_000.0, "{silent}");

    let line = "-p -k 10 -c 1 -d 2 --rate 100 -t 0.5 --warm-up 0 --timeout 1";
    let silent = load(start(Fault::Silent), line);
    assert_eq!((silent.failures.unanswered, silent.latency.count), (50, 50), "{silent}");

    let unframed = load(start(Fault::Unframed), "-p -k 10 -c 1 -d 2 -t 5 --warm-up 0");
    assert!(unframed.failures.framing >= 1 && unframed.connections_lost == 1, "{unframed}");
}

#[test]
fn a_unix_socket_serves_as_well_and_the_distribution_is_written() {
    let folder = std::env::temp_dir().join(format!("ringcached-load-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (path, hdr) = (folder.join("toy.sock"), folder.join("latency.hgrm"));
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        let store = Arc::new(Store::default());
        for stream in listener.incoming().flatten() {
            let store = store.clone();
            thread::spawn(move || serve(&stream, &stream, &store, Fault::None));
        }
    });
    let pid = std::process::id();
    let line = format!("-p -k 50 -c 3 -n 500 --verify --warm-up 0 --server-pid {pid}");
    let words = ["x", "--unix", path.to_str().unwrap(), "--hdr", hdr.to_str().unwrap()];
    let report = measure(&Options::parse_from(words.into_iter().chain(line.split(' ')))).unwrap();
    assert_eq!((report.hits, report.failures.total()), (500, 0), "{report}");
    assert!(report.server.unwrap().us_per_request > 0.0);
    let text = std::fs::read_to_string(&hdr).unwrap();
    assert!(text.contains("Total count    =          500"), "{text}");
    std::fs::remove_dir_all(&folder).unwrap();
}
