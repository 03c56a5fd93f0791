//! The load generator against a toy server in threads of the test, honest or with one fault.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod server;

use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread;

use clap::Parser;
use ringcached_load::measure;
use ringcached_load::options::Options;
use ringcached_load::report::Report;

use crate::server::{Fault, Store, serve, start};

const DIALECTS: [&str; 3] = ["text", "meta", "binary"];

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
fn every_dialect_stores_finds_and_misses() {
    for dialect in DIALECTS {
        for values in ["0", "lognormal:300:1", "list:10=5,70000=1"] {
            let line = format!(
                "--dialect {dialect} -p -k 300 -c 4 -d 16 -v {values} --verify --ratio 1:3 \
                 --warm-up 0 -n 2000"
            );
            let report = load(start(Fault::None), &line);
            assert_eq!(report.failures.total(), 0, "{line}: {:?}", report.first_failure);
            assert_eq!((report.misses, report.hits + report.stored), (0, 2000), "{line}");
            assert!((400..600).contains(&report.stored), "{report}");
        }
        let line = format!("--dialect {dialect} -k 10 -n 100 --warm-up 0");
        let missed = load(start(Fault::None), &line);
        assert_eq!((missed.hits, missed.misses, missed.failures.total()), (0, 100, 0));
        assert!(missed.notes.iter().any(|note| note.contains("--preload")), "{missed}");
    }
}

#[test]
fn many_keys_are_one_request_in_every_dialect() {
    for dialect in DIALECTS {
        let address = start(Fault::None);
        let line = format!("--dialect {dialect} -k 1000 -c 3 -d 4 -v lognormal:50:1 --verify");
        let filled = load(address, &format!("{line} --preload-only"));
        assert_eq!(filled.preload.unwrap().stored, 1000);
        for (keys_per_get, threads) in [(2, 1), (16, 2), (100, 1)] {
            let more = format!("{line} -m {keys_per_get} -n 200 --warm-up 0 --threads {threads}");
            let report = load(address, &more);
            assert_eq!(report.failures.total(), 0, "{more}: {:?}", report.first_failure);
            assert_eq!((report.hits, report.misses), (200 * keys_per_get, 0), "{more}");
            assert_eq!((report.requests, report.latency.count), (200, 200), "{more}");
        }
        // Twice as many keys as were stored: about half of them are found.
        let half = load(address, &line.replace("-k 1000", "-k 2000 -m 10 -n 200 --warm-up 0"));
        assert_eq!((half.hits + half.misses, half.failures.total()), (2000, 0), "{half}");
        assert!((800..1200).contains(&half.hits), "{half}");
    }
}

#[test]
fn threads_share_connections_keys_and_requests() {
    let address = start(Fault::None);
    let report = load(address, "-p -k 1001 -c 5 --threads 3 -d 2 --verify -n 1000 --warm-up 0");
    assert_eq!(report.preload.unwrap().stored, 1001);
    assert_eq!((report.hits, report.requests, report.latency.count), (1000, 1000, 1000));
    assert_eq!((report.threads, report.failures.total()), (3, 0), "{report}");
    let sent = 1000 * "get key-0000000000000000\r\n".len() as u64;
    assert_eq!(report.bytes_sent, sent);
    let line = "-k 1001 -c 5 --threads 3 -d 4 --rate 3000 --arrivals uniform -n 900 --warm-up 0";
    for line in [line.to_owned(), format!("{line} --sleep")] {
        let open = load(address, &line);
        assert_eq!((open.hits, open.lag.unwrap().count), (900, 900), "{open}");
    }
}

#[test]
fn a_mix_stores_and_misses() {
    let line = "-k 1000 -c 3 -d 7 --window --ratio 1:1 --verify --popularity zipf:0.9 -n 9000";
    let report = load(start(Fault::None), line);
    assert_eq!(report.failures.total(), 0, "{:?}", report.first_failure);
    assert!(report.stored > 100 && report.hits > 100, "{report}");
    let sets = report.stored as f64 / report.requests as f64;
    assert!((0.45..0.55).contains(&sets), "{sets} of the requests are sets");
}

#[test]
fn wrong_values_are_counted_when_asked_to_look() {
    for dialect in DIALECTS {
        let address = start(Fault::Corrupt);
        let line = format!("--dialect {dialect} -p -k 100 -c 1 --warm-up 0 -n 1000");
        let report = load(address, &format!("{line} --verify"));
        assert_eq!((report.failures.content, report.hits), (100, 900), "{dialect}");
        assert!(report.first_failure.unwrap().starts_with("get of key "));
        let report = load(address, &line);
        assert_eq!((report.failures.content, report.hits), (0, 1000), "{dialect}");
        // Every tenth value is wrong, and so is every get of twenty.
        let report = load(address, &format!("{line} --verify -m 20"));
        assert_eq!((report.failures.content, report.hits), (1000, 0), "{dialect}");
        assert!(report.first_failure.unwrap().starts_with("get of many keys: "));
    }
}

#[test]
fn a_server_that_fails_ends_the_run() {
    let closed = load(start(Fault::Close), "-p -k 10 -c 2 -t 1000 --warm-up 0");
    assert_eq!(closed.connections_lost, 2);
    assert!(closed.failures.closed >= 2, "{closed}");

    let silent = load(start(Fault::Silent), "-p -k 10 -c 2 -d 3 -t 1000 --warm-up 0 --timeout 0.2");
    assert_eq!((silent.failures.unanswered, silent.requests), (6, 0));
    assert!(silent.latency.max_us >= 200_000.0, "{silent}");

    // A server that speaks another dialect, as it were.
    let line = "--dialect meta --preload-only -k 10 -c 1 --timeout 0.2";
    let strange = load(start(Fault::NotMeta), line);
    assert_eq!((strange.failures.error, strange.preload.unwrap().stored), (1, 0), "{strange}");
    assert!(strange.notes.iter().any(|note| note.contains("--dialect meta")), "{strange}");

    let unframed = load(start(Fault::Unframed), "-p -k 10 -c 1 -d 2 -t 1000 --warm-up 0");
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
