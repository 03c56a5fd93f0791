//! The memory limit holds, evicts or refuses as told, and what clients took comes back.

use crate::common::Chance;
use crate::common::server::{OURS, Server};

/// Memory beyond `-m` that a process may hold: code, stacks, rings, buffers.
const BESIDE_KIB: u64 = 96 << 10;

#[test]
fn eviction_never_refuses_and_the_limit_holds() {
    for kind in OURS {
        let Some(mut server) = Server::start(kind, &["-m", "64"]) else { continue };
        let mut client = server.client();
        let mut chance = Chance::new(17);
        let bytes = chance.bytes(200_000);
        // About 400 MB of values of mixed sizes, in batches.
        let mut last = Vec::new();
        for batch in 0..400 {
            last.clear();
            let mut request = Vec::new();
            while request.len() < 1 << 20 {
                let size = [40, 700, 5000, 30_000, 180_000][chance.below(5)];
                let size = 1 + chance.below(size);
                let key = format!("fill:{batch}:{}", last.len());
                request.extend(format!("set {key} 0 0 {size}\r\n").bytes());
                request.extend_from_slice(&bytes[..size]);
                request.extend_from_slice(b"\r\n");
                last.push((key, size));
            }
            client.send(&request);
            for (key, _) in &last {
                assert_eq!(client.line(), "STORED", "{kind:?}: reply to set {key}");
            }
        }
        let (key, size) = last.last().unwrap();
        assert!(client.get(key).unwrap() == bytes[..*size], "{kind:?}: the newest item");
        assert!(client.stat("evictions") > 100, "{kind:?}");
        assert!(client.stat("bytes") <= 64 << 20, "{kind:?}");
        assert!(client.stat("curr_items") > 100, "{kind:?}");
        let rss = server.rss_kib();
        assert!(rss < (64 << 10) + BESIDE_KIB, "{kind:?}: RSS {rss} KiB with -m 64");
        server.assert_serves();
    }
}

#[test]
fn without_eviction_a_full_cache_refuses_and_keeps() {
    for kind in OURS {
        let Some(server) = Server::start(kind, &["-m", "64", "-M"]) else { continue };
        let mut client = server.client();
        client.set("first", b"kept");
        let value = Chance::new(19).bytes(100_000);
        let mut refused = None;
        for number in 0..1000 {
            client.send(crate::common::client::set_request(&format!("fill:{number}"), &value));
            match client.line().as_str() {
                "STORED" => {}
                "SERVER_ERROR out of memory storing object" => {
                    refused = Some(number);
                    break;
                }
                other => panic!("{kind:?}: reply to set: {other}"),
            }
        }
        let refused = refused.unwrap_or_else(|| panic!("{kind:?}: 100 MB fit into 64 MB"));
        assert!(refused > 300, "{kind:?}: full after {refused} values of 100 KB");
        assert_eq!(client.stat("evictions"), 0, "{kind:?}");
        assert_eq!(client.get("first").unwrap(), b"kept", "{kind:?}");
        assert!(client.get("fill:0").unwrap() == value, "{kind:?}: what was stored stays");
        // Room that is given back is room again.
        for number in 0..refused {
            client.ask(&format!("delete fill:{number}"), "DELETED");
        }
        client.set("again", &value);
    }
}

#[test]
fn flush_and_overwrite_give_memory_back() {
    for kind in OURS {
        let Some(server) = Server::start(kind, &["-m", "64"]) else { continue };
        let mut client = server.client();
        let value = Chance::new(23).bytes(10_000);
        let mut highest = 0;
        for _ in 0..30 {
            for number in 0..500 {
                client.set(&format!("over:{number}"), &value);
            }
            highest = highest.max(client.stat("bytes"));
        }
        assert_eq!(client.stat("evictions"), 0, "{kind:?}: 5 MB of live items in 64 MB");
        assert!(highest < 8 << 20, "{kind:?}: {highest} bytes for 5 MB of items");
        client.ask("flush_all", "OK");
        assert_eq!(client.get("over:1"), None, "{kind:?}");
        for number in 0..5000 {
            client.set(&format!("new:{number}"), &value);
        }
        assert_eq!(client.get("new:4999").unwrap(), value, "{kind:?}");
    }
}
