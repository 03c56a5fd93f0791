//! How soon the memory of expired items comes back when nobody asks for them.

use std::io;
use std::time::Duration;

use ringcached_load::clock::{Clock, NS_PER_S};
use ringcached_load::values::mix;

use super::options::Expiring;
use super::peers::{Make, Peer, peers};
use super::rss;
use super::sheet::{Sheet, mib};
use super::wire::{Wire, number};
use crate::servers::pause;

const TTL_S_MAX: u64 = 5;
const POLL: Duration = Duration::from_millis(250);
/// What is left when they are gone, and what is back then.
const LEFT_SHARE: f64 = 0.01;
const BACK_SHARE: f64 = 0.95;
/// Within which they must be back.
const BACK_S_MAX: f64 = 60.0;

/// What the statistics said at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reading {
    items: u64,
    /// Pages that nobody uses.
    pages_free: u64,
}

/// When, in seconds after the last set.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Seen {
    items_gone_s: Option<f64>,
    pages_back_s: Option<f64>,
}

impl Seen {
    /// What changes with one more reading.
    fn note(&mut self, at_s: f64, empty: Reading, full: Reading, now: Reading) {
        if (now.items as f64) <= LEFT_SHARE * full.items as f64 {
            self.items_gone_s.get_or_insert(at_s);
        }
        let taken = empty.pages_free.saturating_sub(full.pages_free);
        let back = now.pages_free.saturating_sub(full.pages_free);
        if taken > 0 && back as f64 >= BACK_SHARE * taken as f64 {
            self.pages_back_s.get_or_insert(at_s);
        }
    }
}

pub fn expiry(options: &Expiring) -> io::Result<Sheet> {
    let heads = [
        "server",
        "items full",
        "items at the end",
        "items gone s",
        "pages taken",
        "pages back s",
        "RSS full MiB",
        "RSS end MiB",
    ];
    let mut sheet = Sheet::new(1, &heads);
    for peer in peers(&options.programs, None)? {
        row(&peer, options, &mut sheet)?;
    }
    sheet.note(format!(
        "{} items of {} with TTLs of 1 to {TTL_S_MAX} s; times count from the last set; gone: 1 % \
         left; back: 95 % of the pages taken from the pool",
        options.items,
        options.workload.label()
    ));
    sheet.note("pages: `slab_global_page_pool`, into which memcached puts none to begin with");
    Ok(sheet)
}

fn row(peer: &Peer, options: &Expiring, sheet: &mut Sheet) -> io::Result<()> {
    let server = peer.start(options.memory, 1)?;
    let (mut wire, mut items) = (server.connect()?, options.workload.items());
    let empty = reading(&mut wire)?;
    for item in 0..options.items {
        let (key, value) = items.get(item);
        wire.set(key, value, 1 + mix(item) % TTL_S_MAX)?;
    }
    wire.sync()?;
    let clock = Clock::start();
    let (full, rss_full) = (reading(&mut wire)?, rss::of(server.pid())?);
    let census = wire.census()?;
    let mut seen = Seen::default();
    let taken = empty.pages_free.saturating_sub(full.pages_free);
    let last = loop {
        let (at_s, now) = (clock.ns() as f64 / NS_PER_S, reading(&mut wire)?);
        seen.note(at_s, empty, full, now);
        let done = seen.items_gone_s.is_some() && (taken == 0 || seen.pages_back_s.is_some());
        if done || at_s > options.patience as f64 {
            break now;
        }
        pause(POLL);
    };
    let when = |s: Option<f64>| s.map_or_else(|| "never".to_owned(), |s| format!("{s:.1}"));
    sheet.row(vec![
        peer.label.clone(),
        full.items.to_string(),
        last.items.to_string(),
        when(seen.items_gone_s),
        taken.to_string(),
        if taken == 0 { String::new() } else { when(seen.pages_back_s) },
        mib(rss_full),
        mib(rss::of(server.pid())?),
    ]);
    let late = |s: Option<f64>| s.is_none_or(|s| s > BACK_S_MAX);
    if peer.make == Make::Ringcached && (late(seen.items_gone_s) || late(seen.pages_back_s)) {
        sheet.fail(format!("{}: memory is not back within 60 s", peer.label));
    }
    if census.evictions > 0 || wire.refused > 0 {
        let (evictions, refused) = (census.evictions, wire.refused);
        sheet.fail(format!("{}: {evictions} evicted, {refused} refused", peer.label));
    }
    Ok(())
}

fn reading(wire: &mut Wire) -> io::Result<Reading> {
    let stats = wire.stats()?;
    let items = number(&stats, "curr_items");
    let items = items.ok_or_else(|| io::Error::other("the server does not count its items"))?;
    Ok(Reading { items, pages_free: number(&stats, "slab_global_page_pool").unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_moment_counts_and_only_a_true_one() {
        let empty = Reading { items: 0, pages_free: 1000 };
        let full = Reading { items: 50_000, pages_free: 200 };
        let mut seen = Seen::default();
        seen.note(1.0, empty, full, Reading { items: 501, pages_free: 959 });
        assert_eq!(seen, Seen::default());
        seen.note(2.0, empty, full, Reading { items: 500, pages_free: 959 });
        seen.note(3.0, empty, full, Reading { items: 0, pages_free: 960 });
        seen.note(4.0, empty, full, Reading { items: 0, pages_free: 1000 });
        assert_eq!(seen, Seen { items_gone_s: Some(2.0), pages_back_s: Some(3.0) });
        let mut never = Seen::default();
        never.note(9.0, full, full, full);
        assert_eq!(never, Seen::default(), "no pages were taken");
    }
}
