//! Who asks for little goes on while others on the same ring ask for much. What is asserted are
//! counts: so many small requests were answered while no more than so many large ones were.

use crate::common::client::{Client, set_request};
use crate::common::server::Server;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

// Large values need room beside the one that they replace.
crate::in_each_mode! { &["-m", "400", "-I", "128m", "-t", "1"] =>
    ten_thousand_keys_do_not_starve_a_neighbour,
    flushes_do_not_starve_a_neighbour,
    a_hundred_megabytes_do_not_starve_a_neighbour,
}

/// Tells the neighbour that it is over, also when a large request fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does `large` again and again until a neighbour has had `wanted` replies to small requests, which
/// it sends one after the other. They must have come when `large` was done so often.
fn get_beside(server: &Server, wanted: u32, rounds_max: u32, mut large: impl FnMut(&mut Client)) {
    let (served, is_over) = (AtomicU32::new(0), AtomicBool::new(false));
    let mut neighbour = server.client();
    neighbour.set("small", b"s");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                // It may have been flushed.
                assert!(neighbour.get("small").is_none_or(|value| value == b"s"));
                served.fetch_add(1, Ordering::Relaxed);
            }
        });
        let _over = Over(&is_over);
        let mut client = server.client();
        let is_served = (0..rounds_max).any(|_| {
            large(&mut client);
            served.load(Ordering::Relaxed) >= wanted
        });
        let served = served.load(Ordering::Relaxed);
        assert!(is_served, "{served} small requests, {wanted} wanted, beside {rounds_max} large");
    });
}

fn ten_thousand_keys_do_not_starve_a_neighbour(mut server: Server) {
    let mut sets = Vec::new();
    for number in 0..10_000 {
        sets.extend(format!("set many:{number} 0 0 5 noreply\r\n{number:05}\r\n").bytes());
    }
    sets.extend(b"version\r\n");
    let mut client = server.client();
    client.send(sets);
    assert!(client.line().starts_with("VERSION "));
    let mut line = String::from("get");
    (0..10_000).for_each(|number| write!(line, " many:{number}").unwrap());
    line += "\r\n";
    get_beside(&server, 100, 100, |client| {
        let mut writer = client.stream().try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| std::io::Write::write_all(&mut writer, line.as_bytes()).unwrap());
            assert_eq!(client.values().len(), 10_000);
        });
    });
    server.assert_serves();
}

fn flushes_do_not_starve_a_neighbour(mut server: Server) {
    let flushes = "flush_all\r\n".repeat(20_000);
    get_beside(&server, 100, 50, |client| {
        client.send(&flushes);
        (0..20_000).for_each(|_| assert_eq!(client.line(), "OK"));
    });
    server.assert_serves();
}

fn a_hundred_megabytes_do_not_starve_a_neighbour(mut server: Server) {
    let request = set_request("large", &vec![b'v'; 100 << 20]);
    get_beside(&server, 50, 10, |client| {
        client.send(&request);
        assert_eq!(client.line(), "STORED");
        assert_eq!(client.get("large").unwrap().len(), 100 << 20);
    });
    server.assert_serves();
}
