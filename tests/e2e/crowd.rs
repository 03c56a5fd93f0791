//! Many connections: at once, one after the other, and writing the same keys.

use crate::common::client::{Client, set_request};
use crate::common::server::Server;
use crate::common::{PATIENCE, wait_until};

crate::in_each_mode! { &["-c", "4096"] =>
    a_thousand_connections_pipeline_at_once,
    ten_thousand_connections_come_and_go,
    many_clients_count_on_one_key,
    many_clients_append_to_one_key,
    cas_lets_one_writer_win,
}

fn a_thousand_connections_pipeline_at_once(mut server: Server) {
    const THREADS: usize = 8;
    let address = server.address();
    let mut threads = Vec::new();
    for thread in 0..THREADS {
        threads.push(std::thread::spawn(move || {
            let mut clients: Vec<_> =
                (0..1000 / THREADS).map(|_| Client::connect(address).unwrap()).collect();
            for round in 0..4 {
                for (index, client) in clients.iter_mut().enumerate() {
                    client.send(crowd_batch(&name(thread, index), round));
                }
                for (index, client) in clients.iter_mut().enumerate() {
                    check_crowd_batch(client, &name(thread, index), round);
                }
            }
            // All stay connected until the last has been answered.
            clients
        }));
    }
    let clients: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(server.client().stat("curr_connections") >= 1000);
    drop(clients);
    server.assert_serves();
}

fn name(thread: usize, index: usize) -> String {
    format!("crowd-{thread}-{index}")
}

fn value(name: &str, round: usize, number: usize) -> Vec<u8> {
    format!("{name}/{round}/{number} ").repeat(1 + number * 7).into_bytes()
}

/// Sets, gets, a multi-get, a miss, a counter and an error, in one write.
fn crowd_batch(name: &str, round: usize) -> Vec<u8> {
    let mut batch = Vec::new();
    for number in 0..8 {
        batch.extend(set_request(&format!("{name}:{number}"), &value(name, round, number)));
        batch.extend(format!("get {name}:{number}\r\n").bytes());
    }
    batch.extend(format!("get {name}:7 {name}:none {name}:0\r\n").bytes());
    batch.extend(format!("set {name}:n 0 0 1 noreply\r\n{round}\r\nincr {name}:n 5\r\n").bytes());
    batch.extend(b"nonsense\r\n");
    batch
}

fn check_crowd_batch(client: &mut Client, name: &str, round: usize) {
    let item = |number: usize| (format!("{name}:{number}"), value(name, round, number));
    for number in 0..8 {
        assert_eq!(client.line(), "STORED");
        assert_eq!(client.values(), [item(number)]);
    }
    assert_eq!(client.values(), [item(7), item(0)]);
    assert_eq!(client.line(), (round + 5).to_string());
    assert_eq!(client.line(), "ERROR");
}

fn ten_thousand_connections_come_and_go(mut server: Server) {
    server.assert_serves();
    let descriptors = server.descriptors();
    let mut watcher = server.client();
    for number in 0..10_000 {
        let mut client = server.client();
        match number % 4 {
            // Nothing said at all.
            0 => {}
            // A whole request, its reply left unread.
            1 => client.send("version\r\n"),
            // Half a command.
            2 => client.send("get a_key_that_never_en"),
            // A whole exchange.
            _ => assert_eq!(client.get("nobody"), None),
        }
    }
    // The last of them may still wait to be accepted.
    let seen = wait_until(PATIENCE, || watcher.stat("total_connections") >= 10_000);
    assert!(seen, "{} connections seen", watcher.stat("total_connections"));
    let few = wait_until(PATIENCE, || watcher.stat("curr_connections") <= 10);
    assert!(few, "{} connections are left", watcher.stat("curr_connections"));
    let closed = wait_until(PATIENCE, || server.descriptors() <= descriptors + 10);
    assert!(closed, "{} descriptors, {descriptors} before", server.descriptors());
    server.assert_serves();
}

/// Runs one function on many connections at once.
fn at_once(server: &Server, clients: usize, work: impl Fn(usize, &mut Client) + Sync) {
    std::thread::scope(|scope| {
        for index in 0..clients {
            let work = &work;
            scope.spawn(move || work(index, &mut server.client()));
        }
    });
}

fn many_clients_count_on_one_key(server: Server) {
    server.client().set("count", b"0");
    server.client().set("down", b"100000");
    at_once(&server, 16, |_, client| {
        // Pipelined, so that batches of several connections meet on the key.
        client.send("incr count 3\r\ndecr down 2\r\n".repeat(500));
        let (mut up, mut down) = (0, u64::MAX);
        for _ in 0..500 {
            let (next_up, next_down) =
                (client.line().parse().unwrap(), client.line().trim_end().parse().unwrap());
            assert!(next_up > up, "{next_up} after {up}");
            assert!(next_down < down, "{next_down} after {down}");
            (up, down) = (next_up, next_down);
        }
    });
    assert_eq!(server.client().get("count").unwrap(), b"24000");
    assert_eq!(server.client().get("down").unwrap(), b"84000 ");
}

fn many_clients_append_to_one_key(server: Server) {
    server.client().set("log", b"");
    at_once(&server, 8, |index, client| {
        for number in 0..100 {
            client.ask(&format!("append log 0 0 6\r\n<{index}:{number:02}>"), "STORED");
        }
    });
    let log = String::from_utf8(server.client().get("log").unwrap()).unwrap();
    let entries: Vec<_> = log.split_inclusive('>').collect();
    assert_eq!(entries.len(), 800);
    for index in 0..8 {
        let prefix = format!("<{index}:");
        let own = entries.iter().filter(|entry| entry.starts_with(&prefix));
        let wanted = (0..100).map(|number| format!("<{index}:{number:02}>"));
        assert!(own.copied().eq(wanted), "appends of client {index} in their order");
    }
}

fn cas_lets_one_writer_win(server: Server) {
    server.client().set("race", b"0");
    at_once(&server, 8, |_, client| {
        let mut won = 0;
        while won < 50 {
            client.send("gets race\r\n");
            let head = client.line();
            let unique = head.rsplit(' ').next().unwrap().to_string();
            let number: u64 = client.line().parse().unwrap();
            assert_eq!(client.line(), "END");
            let next = (number + 1).to_string();
            client.send(format!("cas race 0 0 {} {unique}\r\n{next}\r\n", next.len()));
            match client.line().as_str() {
                "STORED" => won += 1,
                "EXISTS" => {}
                other => panic!("reply to cas: {other}"),
            }
        }
    });
    assert_eq!(server.client().get("race").unwrap(), b"400");
}
