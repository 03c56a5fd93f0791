//! What monitors read, in the shapes in which they parse it.

use std::path::Path;

use crate::common::server::{Kind, OURS, Server, original};

/// General rows of the original that say nothing about this server, or that it has not yet.
const NOT_HERE: &[&str] = &[
    "libevent",
    "read_buf_bytes_free",
    "lru_maintainer_juggles",
    "evicted_active",
    "lrutail_reflocked",
    "direct_reclaims",
];

/// Prefixes of such rows.
const FAMILIES_NOT_HERE: &[&str] = &["slab_reassign_", "lru_", "moves_", "extstore_", "proxy_"];

fn names(server: &Server, group: &str) -> Vec<String> {
    server.client().stats_of(group).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn general_rows_are_in_the_originals_order() {
    if !Path::new(&original()).exists() {
        return eprintln!("skipped: no {}", original());
    }
    let Some(ours) = Server::start(Kind::Auto, &[]).filter(Server::is_ours) else { return };
    let Some(theirs) = Server::start(Kind::Memcached, &[]) else { return };
    let (ours, theirs) = (names(&ours, ""), names(&theirs, ""));
    let is_here = |row: &&String| {
        !NOT_HERE.contains(&row.as_str())
            && !FAMILIES_NOT_HERE.iter().any(|family| row.starts_with(family))
    };
    let theirs: Vec<_> = theirs.iter().filter(is_here).collect();
    assert!(theirs.len() > 60, "{theirs:?}");
    let place = |row: &String| ours.iter().position(|each| each == row);
    let missing: Vec<_> = theirs.iter().filter(|row| place(row).is_none()).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(theirs.iter().map(|row| place(row)).is_sorted(), "{theirs:?}\n{ours:?}");
}

#[test]
fn flushes_are_dated() {
    for kind in OURS {
        let Some(server) = Server::start(kind, &[]).filter(Server::is_ours) else { return };
        let mut client = server.client();
        let oldest = |rows: Vec<(String, String)>| {
            rows.into_iter().find(|(name, _)| name == "oldest").unwrap().1.parse::<u64>().unwrap()
        };
        assert_eq!(oldest(client.stats_of("settings")), 0, "{kind:?}");
        std::thread::sleep(std::time::Duration::from_millis(1100));
        client.ask("flush_all", "OK");
        let (oldest, uptime) = (oldest(client.stats_of("settings")), client.stat("uptime"));
        assert!(oldest >= 1 && oldest <= uptime, "{kind:?}: {oldest} {uptime}");
    }
}
