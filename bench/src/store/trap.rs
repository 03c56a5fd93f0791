//! The large-value trap, and whether small values find their memory again after it.

use std::io;
use std::net::SocketAddr;

use ringcached_load::values::{self, mix};

use super::options::Trap;
use super::peers::{Make, Peer, Running, peers};
use super::sheet::Sheet;
use super::sizes::write_key;
use super::wire::{Dialect, Wire};

const KEY_BYTES: usize = 20;
/// Keys of one multi-get.
const BATCH: u64 = 50;
/// Passes over the small values, where no large ones came, and one refill after they did.
const PASSES: u32 = 3;
/// A pass has recovered when so little is missing from what it was.
const RECOVERED: f64 = 0.01;
/// Large values have keys of their own.
const LARGE_FROM: u64 = 1 << 31;

/// Reads with stores on a miss, and what they found.
struct Reader {
    wire: Wire,
    draws: u64,
    wrong: u64,
}

pub fn trap(options: &Trap) -> io::Result<Sheet> {
    let heads = ["server", "large sets", "refused", "hits, none before", "hits, after large ones"];
    let mut sheet = Sheet::new(1, &heads);
    for peer in peers(&options.programs, None)? {
        row(&peer, options, &mut sheet)?;
    }
    let Trap { small, small_bytes, large_bytes, connections, .. } = options;
    sheet.note(format!(
        "{small} values of {small_bytes} bytes, then large ones of {large_bytes} from \
         {connections} connections, then small ones again; hits are shares of {small} uniform \
         gets, a miss being stored",
    ));
    sheet.note(format!("refused: most of {} runs, each on a new server", options.runs));
    sheet.note(format!(
        "hits of {PASSES} passes, each after the other, where no large values came, and after they \
         came and all small values were stored once again: that is one refill"
    ));
    Ok(sheet)
}

fn row(peer: &Peer, options: &Trap, sheet: &mut Sheet) -> io::Result<()> {
    let before = filled(&start(peer, options)?, options)?.passes(options)?;
    let mut refused = 0;
    for _ in 1..options.runs {
        let server = start(peer, options)?;
        filled(&server, options)?;
        refused = refused.max(store_large(server.address, options)?);
    }
    let server = start(peer, options)?;
    let mut reader = filled(&server, options)?;
    refused = refused.max(store_large(server.address, options)?);
    reader.fill(options)?;
    let after = reader.passes(options)?;
    sheet.row(vec![
        peer.label.clone(),
        (options.connections * options.large).to_string(),
        refused.to_string(),
        percents(&before),
        percents(&after),
    ]);
    let is_ours = peer.make == Make::Ringcached;
    if is_ours && refused > 0 {
        sheet.fail(format!("{}: {refused} large sets were refused", peer.label));
    }
    if is_ours && before.iter().zip(&after).any(|(before, after)| *after < before - RECOVERED) {
        sheet.fail(format!("{}: the hit ratio is not back after one refill", peer.label));
    }
    if reader.wrong > 0 {
        sheet.fail(format!("{}: {} wrong values", peer.label, reader.wrong));
    }
    if reader.wire.refused > 0 {
        let refusal = reader.wire.first_refusal.unwrap_or_default();
        sheet.fail(format!("{}: {} small sets: {refusal}", peer.label, reader.wire.refused));
    }
    Ok(())
}

fn start(peer: &Peer, options: &Trap) -> io::Result<Running> {
    peer.start(options.memory, options.threads)
}

fn percents(hits: &[f64]) -> String {
    let each: Vec<String> = hits.iter().map(|ratio| format!("{:.2}", 100.0 * ratio)).collect();
    format!("{} %", each.join(", "))
}

/// A reader that has stored all small values.
fn filled(server: &Running, options: &Trap) -> io::Result<Reader> {
    let mut reader = Reader { wire: server.connect()?, draws: 0, wrong: 0 };
    reader.fill(options)?;
    Ok(reader)
}

impl Reader {
    /// Stores all small values.
    fn fill(&mut self, options: &Trap) -> io::Result<()> {
        for item in 0..options.small {
            self.store(item, options.small_bytes)?;
        }
        self.wire.sync()
    }

    fn passes(&mut self, options: &Trap) -> io::Result<Vec<f64>> {
        (0..PASSES).map(|_| self.pass(options)).collect()
    }

    fn store(&mut self, item: u64, bytes: usize) -> io::Result<()> {
        let (mut key, mut value) = (Vec::new(), Vec::with_capacity(bytes + 8));
        write_key(item, KEY_BYTES, &mut key);
        values::append(item, bytes, &mut value);
        self.wire.set(&key, &value, 0)
    }

    /// As many reads as there are small values; the share that were hits.
    fn pass(&mut self, options: &Trap) -> io::Result<f64> {
        let (mut read, mut hits) = (0, 0);
        while read < options.small {
            let count = BATCH.min(options.small - read);
            let mut items: Vec<u64> =
                (self.draws..self.draws + count).map(|draw| mix(draw) % options.small).collect();
            // One key asked for twice in one request says nothing more.
            items.sort_unstable();
            items.dedup();
            self.draws += count;
            read += items.len() as u64;
            let keys: Vec<Vec<u8>> = items.iter().map(|item| key(*item)).collect();
            let wrong = &mut self.wrong;
            let found = self.wire.get(&keys, |at, value| {
                let right = value.len() == options.small_bytes;
                *wrong += u64::from(!right || !values::matches(items[at], 0, value));
            })?;
            for (item, hit) in items.iter().zip(found) {
                hits += u64::from(hit);
                if !hit {
                    self.store(*item, options.small_bytes)?;
                }
            }
        }
        self.wire.sync()?;
        Ok(hits as f64 / read as f64)
    }
}

fn key(item: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(KEY_BYTES);
    write_key(item, KEY_BYTES, &mut key);
    key
}

/// Stores the large values from all connections at once. How many were refused.
fn store_large(address: SocketAddr, options: &Trap) -> io::Result<u64> {
    let store = |connection: u64| -> io::Result<u64> {
        let mut wire = Wire::connect(address, Dialect::Memcache)?;
        let mut value = Vec::with_capacity(options.large_bytes + 8);
        for number in 0..options.large {
            let item = LARGE_FROM + connection * options.large + number;
            value.clear();
            values::append(item, options.large_bytes, &mut value);
            wire.set_one(&key(item), &value)?;
        }
        Ok(wire.refused)
    };
    std::thread::scope(|scope| {
        let store = &store;
        let mut threads = Vec::new();
        for connection in 0..options.connections {
            threads.push(scope.spawn(move || store(connection)));
        }
        let ended = threads.into_iter().map(|thread| thread.join().expect("it does not panic"));
        ended.sum()
    })
}
