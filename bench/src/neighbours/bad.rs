//! The process of a bad neighbour: stores what it will ask for, says that it is ready, and has its
//! manners until its time is over.

use std::io::{self, Write};
use std::time::Duration;

use ringcached_load::clock::Clock;

use super::manners::{Asker, Deaf, Halves, Large, Manner, Nothing, Storm, Trickle};
use super::options::{Kind, Neighbour};
use super::peer::{Deeds, Road};
use crate::servers::pause;
use crate::store::wire::{Dialect, Wire};

/// What the harness waits for.
pub const READY: &str = "ready";
const VALUE_BYTES: usize = 64 << 10;
const LARGE_BYTES: usize = 100 << 20;
const PIPELINE_BYTES: usize = 4 << 20;
const KEYS: usize = 10_000;
/// Between two looks when there is nothing to do.
const NAP: Duration = Duration::from_micros(200);

/// Runs until its time is over. The last line printed is what it did.
#[allow(clippy::print_stdout, reason = "the harness reads this")]
pub fn run(options: &Neighbour) -> io::Result<()> {
    if let Some(delay_s) = options.delay {
        pause(Duration::from_secs_f64(delay_s));
    }
    let mut road = Road::to(options.server);
    let mut manner = manner(options.kind, &mut road)?;
    road.deeds = Deeds::default();
    println!("{READY}");
    io::stdout().flush()?;
    let clock = Clock::start();
    let end_ns = Duration::from_secs_f64(options.stay);
    let mut now_ns = clock.ns();
    while Duration::from_nanos(now_ns) < end_ns {
        let is_idle = !manner.round(&mut road, now_ns)?;
        if is_idle && options.busy {
            let until_ns = clock.ns() + u64::from(NAP.subsec_nanos());
            while clock.ns() < until_ns {
                std::hint::spin_loop();
            }
        } else if is_idle {
            pause(NAP);
        }
        now_ns = clock.ns();
    }
    println!("{}", serde_json::to_string(&road.deeds)?);
    Ok(())
}

fn manner(kind: Kind, road: &mut Road) -> io::Result<Box<dyn Manner>> {
    let store = |keys: &mut dyn Iterator<Item = String>, bytes| -> io::Result<()> {
        let mut wire = Wire::connect(road.server(), Dialect::Memcache)?;
        let value = vec![b'v'; bytes];
        for key in keys {
            wire.set(key.as_bytes(), &value, 0)?;
        }
        wire.sync()
    };
    let mut value = std::iter::once("bad-value".to_owned());
    Ok(match kind {
        Kind::None => Box::new(Nothing),
        Kind::Deaf => {
            store(&mut value, VALUE_BYTES)?;
            Box::new(Deaf::new(road, 1000, 0)?)
        }
        Kind::Sips => {
            store(&mut value, VALUE_BYTES)?;
            Box::new(Deaf::new(road, 100, 1 << 10)?)
        }
        Kind::Trickle => {
            store(&mut value, 32)?;
            Box::new(Trickle::new(road, 1000)?)
        }
        Kind::Pipeline => {
            store(&mut value, 32)?;
            let one = b"get bad-value\r\n";
            let count = PIPELINE_BYTES / one.len();
            Box::new(Asker::new(road, 8, (one.repeat(count), count as u64, b'D'))?)
        }
        Kind::Halves => Box::new(Halves::new(road, 4000)?),
        Kind::Large => Box::new(Large::new(road, LARGE_BYTES)?),
        Kind::ManyKeys => {
            let keys = || (0..KEYS).map(|number| format!("bad-key-{number:06}"));
            store(&mut keys(), 32)?;
            let words: Vec<String> = std::iter::once("get".to_owned()).chain(keys()).collect();
            let request = format!("{}\r\n", words.join(" ")).into_bytes();
            Box::new(Asker::new(road, 4, (request, 1, b'D'))?)
        }
        Kind::Flush => Box::new(Asker::new(road, 1, (b"flush_all\r\n".to_vec(), 1, b'K'))?),
        Kind::Storm => {
            store(&mut value, 32)?;
            Box::new(Storm)
        }
    })
}
