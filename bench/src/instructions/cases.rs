//! What is counted. A round of each does the same again.

use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use ringcached::base::census::Roll;
use ringcached::base::clock::{Clock, Now};
use ringcached::base::hash::KeyHasher;
use ringcached::base::metrics::{Counters, Metric, Registry};
use ringcached::command::{Executor, Facts, Fixed, Rusage, Shared, Switches};
use ringcached::config::Dispatch;
use ringcached::net::output::{Output, Writer};
use ringcached::net::throttle::Throttle;
use ringcached::protocol::binary::{self, MAGIC, Opcode};
use ringcached::protocol::memcache::reply::{self, ValueHead};
use ringcached::protocol::memcache::{NextKey, Parsed, next_key, parse};
use ringcached::server::fleet::Fleet;
use ringcached::server::ring_loop::{RingLoop, Settings};
use ringcached::server::service::Service;
use ringcached::store::{Favor, Outcome, StorePlan, Table};
use ringcached::sys::blocks::BlockPool;
use ringcached::sys::treadmill::Treadmill;
use ringcached::sys::wake::EventFd;

use crate::null::Null;
use crate::store::local;

const KEY_BYTES: usize = 20;
const VALUE: [u8; 32] = [b'v'; 32];
const ITEMS: u32 = 4096;
const NOW: Now = Now { ticks: 1 << 20, epoch_unix_s: 1_700_000_000 };

/// Turns before those that are counted: connections are made, and items get hot, in the first.
const WARM_UP: u32 = 128;
/// As the server's default of `-R`.
const REQUESTS_PER_EVENT: u32 = 20;

/// One thing that is counted.
pub struct Case {
    pub name: &'static str,
    /// So often that nothing else shows in the first decimal of the count.
    pub rounds: u32,
    run: fn(u32) -> io::Result<()>,
}

const fn case(name: &'static str, rounds: u32, run: fn(u32) -> io::Result<()>) -> Case {
    Case { name, rounds, run }
}

pub const ALL: &[Case] = &[
    case("parse_get", 20_000, |rounds| parse_lists(rounds, 1)),
    case("parse_get_16_keys", 4_000, |rounds| parse_lists(rounds, 16)),
    case("parse_set", 20_000, parse_set),
    case("hash", 20_000, hash),
    case("look_up_hit", 20_000, |rounds| look_up(rounds, 0)),
    case("look_up_miss", 20_000, |rounds| look_up(rounds, ITEMS)),
    case("encode_hit", 20_000, encode),
    case("turn_null_1", 2_000, |rounds| null_turns(rounds, 1)),
    case("turn_null_16", 1_000, |rounds| null_turns(rounds, 16)),
    case("turn_null_64", 400, |rounds| null_turns(rounds, 64)),
    case("turn_get_1", 2_000, |rounds| turns(rounds, gets(1, 0))),
    case("turn_get_16", 1_000, |rounds| turns(rounds, gets(16, 0))),
    case("turn_get_64", 400, |rounds| turns(rounds, gets(64, 0))),
    case("turn_miss_64", 400, |rounds| turns(rounds, gets(64, ITEMS))),
    case("turn_get_64_keys", 400, |rounds| turns(rounds, list(64))),
    case("turn_set_16", 1_000, |rounds| turns(rounds, sets(16))),
    case("parse_packet", 20_000, parse_packet),
    case("turn_packet_get_1", 2_000, |rounds| turns(rounds, packet_gets(1, 0))),
    case("turn_packet_get_16", 1_000, |rounds| turns(rounds, packet_gets(16, 0))),
    case("turn_packet_get_64", 400, |rounds| turns(rounds, packet_gets(64, 0))),
    case("turn_packet_miss_64", 400, |rounds| turns(rounds, packet_gets(64, ITEMS))),
    case("turn_packet_set_16", 1_000, |rounds| turns(rounds, packet_sets(16))),
    case("turn_mg_16", 1_000, |rounds| turns(rounds, meta_gets(16, "v"))),
    case("turn_mg_64", 400, |rounds| turns(rounds, meta_gets(64, "v"))),
    case("turn_mg_flags_16", 1_000, |rounds| turns(rounds, meta_gets(16, "t f v O7"))),
    case("turn_ms_16", 1_000, |rounds| turns(rounds, meta_sets(16))),
];

/// Runs one case so often.
pub fn run(name: &str, rounds: u32) -> io::Result<()> {
    let case = ALL.iter().find(|case| case.name == name);
    let unknown = || io::Error::new(io::ErrorKind::InvalidInput, format!("no case {name}"));
    (case.ok_or_else(unknown)?.run)(rounds)
}

fn key(number: u32) -> Vec<u8> {
    // Neighbours in a request are none in the table.
    let number = number.wrapping_mul(37) % ITEMS + number / ITEMS * ITEMS;
    format!("key-{number:016}").into_bytes()
}

fn gets(count: u32, first: u32) -> Vec<u8> {
    (first..first + count).flat_map(|each| [b"get ", &key(each)[..], b"\r\n"].concat()).collect()
}

fn meta_gets(count: u32, flags: &str) -> Vec<u8> {
    let get = |each| [b"mg ", &key(each)[..], b" ", flags.as_bytes(), b"\r\n"].concat();
    (0..count).flat_map(get).collect()
}

fn meta_sets(count: u32) -> Vec<u8> {
    let set = |each| [b"ms ", &key(each)[..], b" 32 T0\r\n", &VALUE, b"\r\n"].concat();
    (0..count).flat_map(set).collect()
}

fn list(count: u32) -> Vec<u8> {
    let keys = (0..count).flat_map(|each| [b" ", &key(each)[..]].concat());
    b"get".iter().copied().chain(keys).chain(*b"\r\n").collect()
}

fn sets(count: u32) -> Vec<u8> {
    let set = |each| [b"set ", &key(each)[..], b" 0 0 32\r\n", &VALUE, b"\r\n"].concat();
    (0..count).flat_map(set).collect()
}

/// A request of the binary protocol.
fn packet(opcode: Opcode, extras: &[u8], key: &[u8], value: &[u8]) -> Vec<u8> {
    let body = [extras, key, value].concat();
    let (extras_bytes, key_bytes) = (extras.len().to_le_bytes()[0], key.len().to_le_bytes()[0]);
    let [a, b, c, d, ..] = body.len().to_le_bytes();
    let start = [MAGIC, opcode as u8, 0, key_bytes, extras_bytes, 0, 0, 0, d, c, b, a];
    [&start[..], &[0; 12], &body].concat()
}

fn packet_gets(count: u32, first: u32) -> Vec<u8> {
    (first..first + count).flat_map(|each| packet(Opcode::Get, b"", &key(each), b"")).collect()
}

fn packet_sets(count: u32) -> Vec<u8> {
    (0..count).flat_map(|each| packet(Opcode::Set, &[0; 8], &key(each), &VALUE)).collect()
}

fn parse_packet(rounds: u32) -> io::Result<()> {
    let set = packet_sets(1);
    for _ in 0..rounds {
        let _ = black_box(binary::parse(black_box(&set)));
    }
    Ok(())
}

fn parse_lists(rounds: u32, keys: u32) -> io::Result<()> {
    let line = list(keys);
    for _ in 0..rounds {
        let line = black_box(&line[..]);
        let Parsed::Keys { consumed, .. } = black_box(parse(line)) else {
            return Err(io::Error::other("no list of keys"));
        };
        let mut at = consumed;
        while let NextKey::Key { consumed, last, .. } = black_box(next_key(&line[at..])) {
            at += consumed;
            if last {
                break;
            }
        }
    }
    Ok(())
}

fn parse_set(rounds: u32) -> io::Result<()> {
    let set = sets(1);
    for _ in 0..rounds {
        let _ = black_box(parse(black_box(&set)));
    }
    Ok(())
}

fn hash(rounds: u32) -> io::Result<()> {
    let hasher = KeyHasher::with_seed(1);
    let key = key(0);
    for _ in 0..rounds {
        black_box(hasher.hash(black_box(&key)));
    }
    Ok(())
}

/// A table with `ITEMS` items.
fn table() -> io::Result<Arc<Table>> {
    let table = Table::open(StorePlan {
        memory_bytes: 64 << 20,
        item_bytes_max: 1 << 20,
        evict: true,
        threads: 1,
        hasher: KeyHasher::with_seed(1),
        favor: Favor::default(),
        loan_bytes: None,
    })?;
    let table = Arc::new(table);
    let mut one = table.participant(Registry::default().counters("fill"));
    for number in 0..ITEMS {
        let stored = local::store(&mut one, &key(number), &VALUE, NOW);
        if !stored.is_ok_and(Outcome::is_stored) {
            return Err(io::Error::other(format!("item {number}: {stored:?}")));
        }
        one.quiesce();
    }
    drop(one);
    Ok(table)
}

fn look_up(rounds: u32, number: u32) -> io::Result<()> {
    let table = table()?;
    let one = table.participant(Registry::default().counters("one"));
    let key = key(number);
    let hash = table.hash(&key);
    let wanted = number < ITEMS;
    for _ in 0..WARM_UP + rounds {
        let found = one.get(black_box(&key), black_box(hash), NOW);
        let value = found.ok().and_then(|item| item.value());
        if black_box(value).is_some() != wanted {
            return Err(io::Error::other("the table is not as it was filled"));
        }
    }
    Ok(())
}

fn encode(rounds: u32) -> io::Result<()> {
    const TOGETHER: u32 = 100;
    let mut pool = BlockPool::map(0)?;
    let mut output = Output::default();
    let key = key(0);
    for _ in 0..rounds / TOGETHER {
        let mut writer = Writer::new(&mut output, &mut pool, usize::MAX);
        for _ in 0..TOGETHER {
            let head = ValueHead { key: &key, flags: 0, value_bytes: VALUE.len(), cas: None };
            reply::value(&mut writer, black_box(&head), black_box(&VALUE), black_box(true));
        }
        output.clear(&mut pool, drop);
    }
    Ok(())
}

/// Turns of a ring on whose one connection these requests arrive again and again.
fn turns(rounds: u32, requests: Vec<u8>) -> io::Result<()> {
    let table = table()?;
    let registry = Registry::default();
    let counters = registry.counters("ring 0");
    let participant = table.participant(Arc::clone(&counters));
    let facts = Facts {
        pid: 0,
        version: "0",
        threads: 1,
        connections_max: 1,
        switches: Switches::default(),
        settings: Vec::new(),
        fixed: Fixed::default(),
        rusage: || Rusage { user: Duration::ZERO, system: Duration::ZERO },
    };
    let registry = Arc::new(registry);
    let shared = Shared::open(facts, table, Arc::clone(&registry));
    let service = Executor::new(Arc::new(shared), participant, Arc::clone(&counters));
    let told = (counters, registry.census.rolls(1).remove(0));
    let replied_bytes = spin(rounds, requests, service, told)?;
    match registry.sum(Metric::Requests) {
        0 => Err(io::Error::other("nothing was executed")),
        _ if replied_bytes == 0 => Err(io::Error::other("nothing was replied")),
        _ => Ok(()),
    }
}

fn null_turns(rounds: u32, depth: u32) -> io::Result<()> {
    let registry = Registry::default();
    let told = (registry.counters("ring 0"), registry.census.rolls(1).remove(0));
    spin(rounds, gets(depth, 0), Null::new(KEY_BYTES, VALUE.len()), told).map(drop)
}

/// Turns of a ring, and the bytes that were replied in them.
fn spin<V: Service>(
    rounds: u32,
    requests: Vec<u8>,
    service: V,
    told: (Arc<Counters>, Roll),
) -> io::Result<u64> {
    let settings = Settings {
        number: 0,
        dispatch: Dispatch::Inline,
        requests_per_event: REQUESTS_PER_EVENT,
        idle_timeout_s: 0,
        throttle: Throttle::default(),
        rings: 1,
        listeners: 1,
    };
    let fleet = Fleet::new(&[Arc::new(EventFd::new()?)], 0, 1, EventFd::new()?);
    let clock = Clock::manual(Arc::new(AtomicU64::new(0)));
    let ring = Treadmill::new(requests)?;
    let mut ring = RingLoop::new(settings, ring, service, clock, told, Arc::new(fleet));
    for _ in 0..WARM_UP + rounds {
        ring.turn()?;
    }
    Ok(ring.ring_mut().replied_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_runs_and_has_a_name_of_its_own() {
        for case in ALL {
            run(case.name, 100).unwrap();
        }
        let mut names: Vec<_> = ALL.iter().map(|case| case.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        assert!(run("nothing", 1).is_err());
    }

    #[test]
    fn keys_are_there_or_not_as_the_cases_want() {
        let mut keys: Vec<_> = (0..ITEMS).map(key).collect();
        assert!(!keys.contains(&key(ITEMS)) && !keys.contains(&key(ITEMS + 63)));
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), ITEMS as usize);
        assert!(keys.iter().all(|key| key.len() == KEY_BYTES));
    }
}
