//! Bytes of overhead an item, and items held in a given memory.

use std::io;

use ringcached_load::values::mix;

use super::options::{Bytes, Held};
use super::peers::{Make, Peer, peers};
use super::rss;
use super::sheet::{Sheet, mib};
use super::sizes::{Items, Mix};
use super::wire::Wire;

/// The budget of DESIGN.md, without rounding.
const OVERHEAD_BYTES_MAX: f64 = 36.0;
/// What rounding to size classes may take.
const ROUNDING_SHARE_MAX: f64 = 0.05;
/// What no server needs for an item beyond key and value, and how much more memory there is.
const AMPLE_BYTES: u64 = 128;
const AMPLE_SHARE: u64 = 4;
const AMPLE_MB: u64 = 64;

/// Items asked for to learn what kind of items is held, and how many of them at once.
const SAMPLE: u64 = 20_000;
const SAMPLE_BATCH: u64 = 50;

/// One server that was filled with one workload.
struct Filled {
    growth_bytes: u64,
    /// Keys and values.
    payload_bytes: u64,
    remark: Option<String>,
}

/// What may be spent on an item with so many bytes of key and value.
fn budget(payload_bytes: f64) -> f64 {
    OVERHEAD_BYTES_MAX + ROUNDING_SHARE_MAX * (payload_bytes + OVERHEAD_BYTES_MAX)
}

pub fn bytes(options: &Bytes) -> io::Result<Sheet> {
    let all = peers(&options.programs, Some(&options.redis))?;
    let heads =
        ["workload", "server", "key + value", "RSS growth MiB", "overhead B/item", "budget"];
    let mut sheet = Sheet::new(2, &heads);
    let items = options.items;
    for workload in &options.workloads {
        for peer in &all {
            let filled = fill(peer, *workload, options)?;
            let mean = |bytes: u64| bytes as f64 / items as f64;
            let payload = mean(filled.payload_bytes);
            sheet.row(vec![
                workload.label().to_owned(),
                peer.label.clone(),
                format!("{payload:.1}"),
                mib(filled.growth_bytes),
                format!("{:.1}", mean(filled.growth_bytes) - payload),
                format!("{:.1}", budget(payload)),
            ]);
            if let Some(remark) = filled.remark {
                sheet.fail(format!("{}, {}: {remark}", workload.label(), peer.label));
            }
        }
    }
    sheet.note(format!("{items} items of each workload, none evicted"));
    sheet.note(
        "overhead: RSS after less RSS before less the bytes of keys and values; budget: 36 and \
         5 % of key, value and 36",
    );
    Ok(sheet)
}

fn fill(peer: &Peer, workload: Mix, options: &Bytes) -> io::Result<Filled> {
    let mut items = workload.items();
    let payload_bytes = (0..options.items).map(|item| items.bytes(item)).sum::<u64>();
    let ample = payload_bytes + options.items * AMPLE_BYTES;
    let memory_mb = ((ample + ample / AMPLE_SHARE) >> 20) + AMPLE_MB;
    let server = peer.start(options.memory.unwrap_or(memory_mb), 1)?;
    let mut wire = server.connect()?;
    let before = rss::settled(server.pid())?;
    for item in 0..options.items {
        let (key, value) = items.get(item);
        wire.set(key, value, 0)?;
    }
    wire.sync()?;
    let after = rss::settled(server.pid())?;
    let census = wire.census()?;
    let remark =
        (census.items != options.items || census.evictions > 0 || wire.refused > 0).then(|| {
            let refusal = wire.first_refusal.clone().unwrap_or_default();
            let (held, evictions) = (census.items, census.evictions);
            format!("{held} items, {evictions} evictions, {} refused {refusal}", wire.refused)
        });
    Ok(Filled { growth_bytes: after.saturating_sub(before), payload_bytes, remark })
}

pub fn held(options: &Held) -> io::Result<Sheet> {
    let all = peers(&options.programs, None)?;
    let heads = ["server", "items held", "x memcached", "key + value held", "RSS MiB", "evictions"];
    let mut sheet = Sheet::new(1, &heads);
    let mut found = Vec::new();
    for peer in &all {
        let server = peer.start(options.memory, 1)?;
        let (mut wire, mut items) = (server.connect()?, options.workload.items());
        for item in 0..options.sets {
            let (key, value) = items.get(item);
            wire.set(key, value, 0)?;
        }
        wire.sync()?;
        let (census, rss) = (wire.census()?, rss::settled(server.pid())?);
        let mean = mean_held(&mut wire, &mut items, options.sets)?;
        if wire.refused > 0 {
            let refusal = wire.first_refusal.clone().unwrap_or_default();
            sheet.fail(format!("{}: {} refused: {refusal}", peer.label, wire.refused));
        }
        if census.evictions == 0 {
            sheet.fail(format!("{}: everything fits; store more", peer.label));
        }
        found.push((peer, census, mean, rss));
    }
    let base = found.iter().find(|(peer, ..)| peer.make == Make::Memcached);
    let base = base.map(|(_, census, ..)| census.items);
    for (peer, census, mean, rss) in &found {
        let ratio = base.map(|base| census.items as f64 / base.max(1) as f64);
        sheet.row(vec![
            peer.label.clone(),
            census.items.to_string(),
            ratio.map_or(String::new(), |ratio| format!("{ratio:.3}")),
            format!("{mean:.1}"),
            mib(*rss),
            census.evictions.to_string(),
        ]);
    }
    let items = options.workload.items();
    let all = (0..options.sets).map(|item| items.bytes(item)).sum::<u64>();
    sheet.note(format!(
        "{} different items of {} stored, {:.1} bytes of key and value on average",
        options.sets,
        options.workload.label(),
        all as f64 / options.sets.max(1) as f64
    ));
    sheet.note(format!(
        "key + value held: mean of those among {SAMPLE} uniform ones that are there; who keeps \
         small items rather than large ones holds more of them"
    ));
    Ok(sheet)
}

/// Bytes of key and value of an item that is held, on average, by a sample.
fn mean_held(wire: &mut Wire, items: &mut Items, stored: u64) -> io::Result<f64> {
    let (mut count, mut sum) = (0u64, 0);
    for batch in 0..SAMPLE / SAMPLE_BATCH {
        let draws = batch * SAMPLE_BATCH..(batch + 1) * SAMPLE_BATCH;
        let mut sample: Vec<u64> = draws.map(|draw| mix(draw) % stored).collect();
        sample.sort_unstable();
        sample.dedup();
        let keys: Vec<Vec<u8>> = sample.iter().map(|item| items.get(*item).0.to_vec()).collect();
        let held = wire.get(&keys, |_, _| {})?;
        for (item, _) in sample.iter().zip(held).filter(|(_, held)| *held) {
            count += 1;
            sum += items.bytes(*item);
        }
    }
    Ok(sum as f64 / count.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_granted_on_the_whole_item() {
        assert_eq!(budget(52.0), 36.0 + 4.4);
        assert_eq!(budget(364.0), 36.0 + 20.0);
    }
}
