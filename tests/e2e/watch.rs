//! `watch`: who is told what, who does not read, and who goes away.

use crate::common::client::Client;
use crate::common::server::{Kind, OURS, Server};
use crate::common::{PATIENCE, wait_until};
use crate::protocols::{packet, reply};
use std::time::Duration;

/// One that watches, and has been told that it does.
fn watcher(server: &Server, kinds: &str) -> Client {
    let mut client = server.client();
    client.ask(&format!("watch {kinds}"), "OK");
    client
}

/// The next line; it ends with a line feed alone. What it begins with is checked and left out.
#[track_caller]
fn told(client: &mut Client) -> String {
    let line = client.bare_line();
    let (stamp, rest) = line.split_once(" type=").unwrap_or_else(|| panic!("no line: {line:?}"));
    let (time, number) = stamp.strip_prefix("ts=").unwrap().split_once(" gid=").unwrap();
    let (seconds, micros) = time.split_once('.').unwrap();
    assert!(seconds.parse::<u64>().is_ok() && micros.parse::<u32>().is_ok(), "{line:?}");
    assert!(number.parse::<u64>().unwrap() > 0, "{line:?}");
    rest.to_owned()
}

/// The value of a name in a line.
fn of<'l>(line: &'l str, name: &str) -> &'l str {
    let words = line.split(' ').filter_map(|word| word.split_once('='));
    words.filter(|(each, _)| *each == name).map(|(_, value)| value).next().unwrap_or_default()
}

#[test]
fn each_kind_is_told() {
    for kind in OURS {
        let Some(mut server) = Server::start(kind, &["-m", "64"]) else { continue };
        let mut client = server.client();
        // Others may not be gone yet.
        let own = format!(":{}", client.stream().local_addr().unwrap().port());
        let rows = client.stats_of("conns");
        let (name, _) = rows.iter().find(|(_, value)| value.ends_with(&own)).unwrap();
        let number = name.split(':').next().unwrap().to_owned();
        let mut fetchers = watcher(&server, "");
        let mut others = watcher(&server, "mutations deletions");
        client.set("a:1", b"four");
        client.get("a:1");
        client.get("none");
        client.ask("add a:1 0 0 1\r\nx", "NOT_STORED");
        client.ask("append a:1 0 60 1\r\n5", "STORED");
        client.ask("delete a:1", "DELETED");
        client.ask("delete a:1", "NOT_FOUND");
        for (key, status, size) in [
            ("a%3A1", "not_found", "0"),
            ("a%3A1", "found", "4"),
            ("none", "not_found", "0"),
            ("a%3A1", "found", "4"),
            ("a%3A1", "found", "4"),
            ("a%3A1", "found", "5"),
            ("a%3A1", "not_found", "0"),
        ] {
            let line = told(&mut fetchers);
            assert!(line.starts_with("item_get "), "{kind:?}: {line}");
            let got = ["key", "status", "size"].map(|name| of(&line, name));
            assert_eq!(got, [key, status, size], "{kind:?}: {line}");
            assert_eq!(of(&line, "cfd"), number, "{kind:?}: {line}");
            assert_eq!(of(&line, "clsid") == "0", status == "not_found", "{line}");
        }
        for (what, status, cmd, size) in [
            ("item_store", "stored", "set", "4"),
            ("item_store", "not_stored", "add", "1"),
            ("item_store", "stored", "append", "5"),
            ("deleted", "", "delete", "5"),
        ] {
            let line = told(&mut others);
            assert!(line.starts_with(what), "{kind:?}: {line}");
            let got = ["key", "status", "cmd", "size"].map(|name| of(&line, name));
            assert_eq!(got, ["a%3A1", status, cmd, size], "{kind:?}: {line}");
        }
        assert_eq!(client.stat("log_watchers"), 2);
        server.assert_serves();
    }
}

/// What is told of each, but for when, by whom, and of which class.
#[track_caller]
fn assert_told(watcher: &mut Client, wanted: &[&str]) {
    for wanted in wanted {
        let line = told(watcher);
        let words = line
            .split(' ')
            .filter(|word| !["clsid=", "cfd="].iter().any(|name| word.starts_with(name)));
        assert_eq!(words.collect::<Vec<_>>().join(" "), *wanted, "{line}");
    }
}

#[test]
fn meta_commands_are_told_as_others_are() {
    for kind in OURS {
        let Some(mut server) = Server::start(kind, &["-m", "64"]) else { continue };
        let mut watcher = watcher(&server, "fetchers mutations deletions");
        let mut client = server.client();
        for (request, reply) in [
            // A key in base64 is told as it is.
            ("ms YS9i 2 b T100\r\nab", "HD"),
            ("ms a/b 3 MA\r\ncde", "HD"),
            ("ms a/b 1 C1\r\nx", "EX"),
            ("mg a/b s", "HD s5"),
            ("mg none N30 s", "HD s0 W"),
            ("md a/b x", "HD"),
            ("md a/b I", "HD"),
            ("md a/b C1", "EX"),
            ("md a/b", "HD"),
            ("ma n N0 J77", "HD"),
            ("ma n", "HD"),
        ] {
            client.ask(request, reply);
        }
        assert_told(
            &mut watcher,
            &[
                "item_get key=a%2Fb status=not_found size=0",
                "item_store key=a%2Fb status=stored cmd=set ttl=100 size=2",
                "item_get key=a%2Fb status=found size=2",
                "item_store key=a%2Fb status=stored cmd=append ttl=100 size=5",
                "item_get key=a%2Fb status=found size=5",
                "item_store key=a%2Fb status=exists cmd=cas ttl=0 size=1",
                "item_get key=a%2Fb status=found size=5",
                "item_get key=none status=not_found size=0",
                "item_get key=a%2Fb status=found size=5",
                "item_get key=a%2Fb status=found size=5",
                "item_store key=a%2Fb status=stored cmd=set ttl=0 size=0",
                "deleted key=a%2Fb cmd=md size=0",
                "item_get key=a%2Fb status=found size=0",
                "item_get key=a%2Fb status=found size=0",
                "item_get key=a%2Fb status=found size=0",
                "deleted key=a%2Fb cmd=md size=0",
                "item_get key=n status=not_found size=0",
                "item_get key=n status=not_found size=0",
                "item_store key=n status=stored cmd=add ttl=0 size=2",
                "item_get key=n status=found size=2",
            ],
        );
        server.assert_serves();
    }
}

/// A value that comes late is told of when it has come; packets that delete are not told, as
/// memcached has it.
#[test]
fn packets_are_told_as_text_is() {
    for kind in OURS {
        let Some(mut server) = Server::start(kind, &["-m", "64"]) else { continue };
        let mut watcher = watcher(&server, "fetchers mutations deletions");
        let mut client = server.client();
        let (flags, number) = ([0; 8], [0; 16]);
        let value = [b'v'; 50_000];
        let set = packet(0x01, &flags, "k", &value);
        client.send(&set[..30_000]);
        std::thread::sleep(Duration::from_millis(50));
        client.send(&set[30_000..]);
        assert_eq!(reply(&mut client, 0x01).0, 0);
        let counts = [&number[..], &[0; 4]].concat();
        for (opcode, extras, key) in [
            (0x00, &b""[..], "k"),
            (0x0c, b"", "none"),
            (0x05, &counts, "n"),
            (0x04, b"", "k"),
            (0x04, b"", "k"),
        ] {
            client.send(packet(opcode, extras, key, b""));
            reply(&mut client, opcode);
        }
        assert_told(
            &mut watcher,
            &[
                "item_get key=k status=not_found size=0",
                "item_store key=k status=stored cmd=set ttl=0 size=50000",
                "item_get key=k status=found size=50000",
                "item_get key=none status=not_found size=0",
                "item_get key=n status=not_found size=0",
                "item_get key=n status=not_found size=0",
                "item_store key=n status=stored cmd=add ttl=0 size=1",
                "item_get key=k status=found size=50000",
                "item_get key=k status=not_found size=0",
            ],
        );
        server.assert_serves();
    }
}

#[test]
fn connections_are_told_as_they_come_and_go() {
    for kind in OURS {
        let options = ["-m", "64", "-o", "idle_timeout=1"];
        let Some(server) = Server::start(kind, &options) else { continue };
        let mut watcher = watcher(&server, "connevents");
        let mut quits = server.client();
        let port = quits.stream().local_addr().unwrap().port().to_string();
        quits.ask("version", "VERSION 1.6.45");
        let line = told(&mut watcher);
        let expect = format!("conn_new rip=127.0.0.1 rport={port} transport=tcp cfd=");
        assert!(line.starts_with(&expect), "{line}");
        quits.send("quit\r\n");
        let close = told(&mut watcher);
        let expect = format!("conn_close rip=127.0.0.1 rport={port} transport=tcp reason=normal");
        assert!(close.starts_with(&expect), "{close}");
        assert_eq!(of(&close, "cfd"), of(&line, "cfd"));
        for (request, reason) in [("GET / HTTP/1.1\r\n", "error"), ("", "idle_timeout")] {
            let mut client = server.client();
            client.send(request);
            let line = told(&mut watcher);
            assert!(line.starts_with("conn_new "), "{line}");
            let line = told(&mut watcher);
            assert!(line.starts_with("conn_close "), "{line}");
            assert_eq!(of(&line, "reason"), reason, "{kind:?}: {line}");
        }
        let client = server.client();
        let port = client.stream().local_addr().unwrap().port().to_string();
        drop(client);
        let line = told(&mut watcher);
        assert!(line.starts_with("conn_new "), "{line}");
        let close = told(&mut watcher);
        let expect = format!("conn_close rip=127.0.0.1 rport={port} transport=tcp reason=normal");
        assert!(close.starts_with(&expect), "{kind:?}: {close}");
    }
}

#[test]
fn evictions_are_told() {
    let Some(server) = Server::start(Kind::Auto, &["-m", "8"]) else { return };
    let mut watcher = watcher(&server, "evictions");
    let mut client = server.client();
    for number in 0..20_000 {
        client.set(&format!("key:{number}"), &[7; 600]);
    }
    let line = told(&mut watcher);
    assert!(line.starts_with("eviction key=key%3A"), "{line}");
    let got = ["fetch", "ttl", "size"].map(|name| of(&line, name));
    assert_eq!(got, ["no", "-1", "600"], "{line}");
}

/// Who watches and does not read loses lines, and holds nobody up; who reads again is told so.
#[test]
fn who_does_not_read_loses_lines() {
    for kind in OURS {
        let Some(mut server) = Server::start(kind, &["-m", "64"]) else { continue };
        let mut deaf = Client::connect_narrowly(server.address()).unwrap();
        deaf.ask("watch fetchers", "OK");
        let mut client = server.client();
        let long = "k".repeat(200);
        let gets = (0..1000).map(|number| format!("get {long}{number}\r\n")).collect::<String>();
        let lost = |client: &mut Client| client.stat("log_watcher_skipped");
        for _ in 0..100 {
            client.send(&gets);
            (0..1000).for_each(|_| assert_eq!(client.line(), "END"));
            if lost(&mut client) > 0 {
                break;
            }
        }
        assert!(lost(&mut client) > 0, "{kind:?}");
        // Ours take no more than is said, whatever waits.
        let limit = client.stat("rss_limit_bytes");
        assert!(server.peak_rss_bytes() <= limit, "{kind:?}");
        let mut lines = 0;
        let skipped = loop {
            let line = deaf.bare_line();
            if lines % 100 == 0 {
                client.get("more");
            }
            lines += 1;
            if let Some(skipped) = line.strip_prefix("skipped=") {
                break skipped.parse::<u64>().unwrap();
            }
            assert!(line.contains(" type=item_get "), "{kind:?}: {line:?}");
        };
        assert!(skipped > 0 && lines > 100, "{kind:?}: {skipped} {lines}");
        assert!(told(&mut deaf).starts_with("item_get "), "{kind:?}");
        server.assert_serves();
    }
}

#[test]
fn who_goes_away_is_told_nothing_any_more() {
    for kind in OURS {
        let Some(mut server) = Server::start(kind, &["-m", "64"]) else { continue };
        let mut client = server.client();
        let watchers = |client: &mut Client| client.stat("log_watchers");
        for round in 0..30 {
            let mut gone = watcher(&server, "fetchers mutations connevents");
            client.get("nothing");
            match round % 3 {
                0 => {}
                1 => gone.reset_on_close(),
                // What it sends is of no use.
                _ => gone.send("get nothing\r\nset x 0 0 100\r\nquit\r\n".repeat(50)),
            }
            drop(gone);
        }
        assert!(wait_until(PATIENCE, || watchers(&mut client) == 0), "{kind:?}");
        let written = client.stat("log_worker_written");
        client.get("nothing");
        assert_eq!(client.stat("log_worker_written"), written, "{kind:?}: nobody watches");
        let mut all: Vec<_> = (0..20).map(|_| watcher(&server, "fetchers")).collect();
        client.ask("watch", "WATCHER_TOO_MANY log watcher limit reached");
        drop(all.pop());
        assert!(wait_until(PATIENCE, || watchers(&mut client) == 19), "{kind:?}");
        let mut last = watcher(&server, "fetchers");
        client.get("seen");
        assert_eq!(of(&told(&mut last), "key"), "seen");
        server.assert_serves();
    }
}

#[test]
fn nobody_watches_where_that_is_forbidden() {
    let Some(server) = Server::start(Kind::Auto, &["-W"]) else { return };
    let mut client = server.client();
    client.ask("watch", "CLIENT_ERROR watch commands not allowed");
    client.ask("watch nonsense", "CLIENT_ERROR watch commands not allowed");
    client.ask("get k", "END");
}

#[test]
fn a_stop_does_not_wait_for_who_watches() {
    for kind in OURS {
        let Some(mut server) = Server::start(kind, &[]) else { continue };
        let mut watcher = watcher(&server, "fetchers");
        server.client().get("k");
        told(&mut watcher);
        server.signal("TERM");
        let status = server.wait(Duration::from_secs(10));
        assert_eq!(status.and_then(|status| status.code()), Some(0), "{kind:?}");
        assert!(watcher.rest().is_some(), "{kind:?}");
    }
}
