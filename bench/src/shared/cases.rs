//! The requests, and the table.

use std::fmt::Write;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ringcached::base::clock::Now;
use ringcached::base::counted::trace;
use ringcached::base::hash::KeyHasher;
use ringcached::base::metrics::Registry;
use ringcached::base::output::Memory;
use ringcached::command::{
    Budget, Cost, Executor, Facts, Fixed, Rusage, Session, Shared as Common, Switches, Verdict,
};
use ringcached::server::service::Service;
use ringcached::store::{Favor, StorePlan, Table};

use super::Shared;
use super::lines::{Lines, Site, Sum, THREADS_MAX};

const NOW: Now = Now { ticks: 1 << 20, epoch_unix_s: 1_700_000_000 };
/// Requests of a batch, after which a thread says that it looks at nothing.
const BATCH: u32 = 16;
/// Items of others, among which the index is as large as a server's.
const CROWD: u32 = 50_000;
const VALUE: [u8; 32] = [b'v'; 32];
/// In the room of its keys each thread may have so many.
const KEYS_MAX: u32 = 1 << 24;

/// What is asked for of a key.
#[derive(Clone, Copy, Debug)]
enum Request {
    Get,
    Set,
    Delete,
}

/// One row: what comes before and is not counted, and what is counted.
struct Case {
    name: &'static str,
    before: &'static [Request],
    counted: Request,
}

const CASES: &[Case] = &[
    case("get, hit", &[Request::Set, Request::Get, Request::Get, Request::Get], Request::Get),
    case("get, hit that heats", &[Request::Set], Request::Get),
    case("get, miss", &[], Request::Get),
    case("set, new key", &[], Request::Set),
    case("set, key that is there", &[Request::Set], Request::Set),
    case("delete", &[Request::Set], Request::Delete),
];

const fn case(name: &'static str, before: &'static [Request], counted: Request) -> Case {
    Case { name, before, counted }
}

/// Counts all cases.
pub fn table(options: &Shared) -> io::Result<String> {
    let mut text = String::from(
        "| request, in batches of 16 | stores | updates | locks | fences | lines taken",
    );
    let numbers = |text: &mut String, word: &str| {
        options.threads.iter().for_each(|each| *text += &format!(" | {each} {word}"));
    };
    text.truncate(text.rfind(" | ").unwrap_or(text.len()));
    numbers(&mut text, "threads, own keys");
    numbers(&mut text, "threads, the same keys");
    let columns = 5 + 2 * options.threads.len();
    let _ = writeln!(text, " |\n|{}", " --- |".repeat(columns));
    let mut sites = String::new();
    for case in CASES {
        let alone = count(case, 1, false, options.batches)?;
        let _ = write!(text, "| {}", case.name);
        for number in [alone.stores, alone.updates, alone.locks, alone.fences] {
            let _ = write!(text, " | {}", each(number, 1, options.batches));
        }
        for same in [false, true] {
            for threads in &options.threads {
                let sum = count(case, *threads, same, options.batches)?;
                let _ = write!(text, " | {}", each(sum.taken, *threads, options.batches));
                if options.sites {
                    let keys = if same { "the same keys" } else { "own keys" };
                    let _ = writeln!(sites, "\n{}, {threads} threads, {keys}:", case.name);
                    name_sites(&mut sites, &sum, |count| each(count, *threads, options.batches));
                }
            }
        }
        let _ = writeln!(text, " |");
    }
    Ok(text + &sites)
}

/// A count by request.
fn each(count: u64, threads: u32, batches: u32) -> String {
    let requests = u64::from(threads) * u64::from(batches) * u64::from(BATCH);
    format!("{:.2}", count as f64 / requests as f64)
}

fn name_sites(text: &mut String, sum: &Sum, each: impl Fn(u64) -> String) {
    let mut sites: Vec<(&Site, &u64)> = sum.sites.iter().collect();
    sites.sort_unstable_by_key(|(site, count)| (u64::MAX - **count, site.file(), site.line()));
    for (site, count) in sites {
        let _ = writeln!(text, "  {:>6} {}:{}", each(*count), site.file(), site.line());
    }
}

/// A thread of the server, as far as requests are concerned.
struct One {
    executor: Executor,
    session: Session,
    output: Memory,
}

impl One {
    /// Rests and executes a batch, as a ring does in a turn. While the others have their turns, it
    /// is amid its own: what they let go of has to wait for it.
    fn run(&mut self, input: &[u8], requests: u32) -> io::Result<()> {
        self.executor.rest();
        self.executor.wake();
        let mut budget = Budget { requests, cost: Cost::Any };
        let progress =
            self.executor.drive(&mut self.session, input, NOW, &mut budget, &mut self.output);
        let is_done = progress.consumed == input.len()
            && matches!(progress.verdict, Verdict::NeedInput | Verdict::Yield);
        if is_done { Ok(()) } else { Err(io::Error::other(format!("{progress:?}"))) }
    }
}

/// What so many threads do for so many batches each, after as many that are not counted.
fn count(case: &Case, threads: u32, same: bool, batches: u32) -> io::Result<Sum> {
    let (common, mut all) = executors(threads.min(THREADS_MAX))?;
    fill(&common, &mut all[0])?;
    let (mut lines, mut warm, mut sum) = (Lines::default(), Sum::default(), Sum::default());
    for batch in 0..2 * batches {
        let is_counted = batch >= batches;
        for before in case.before {
            for (thread, one) in (0..).zip(all.iter_mut()) {
                let input = requests(*before, if same { 0 } else { thread }, batch);
                let (done, accesses) = trace(|| one.run(&input, BATCH));
                done?;
                lines.follow(thread, &accesses, &mut warm);
            }
        }
        for (thread, one) in (0..).zip(all.iter_mut()) {
            let input = requests(case.counted, if same { 0 } else { thread }, batch);
            one.output.take();
            let (done, accesses) = trace(|| one.run(&input, BATCH));
            done?;
            let sum = if is_counted { &mut sum } else { &mut warm };
            lines.follow(thread, &accesses, sum);
        }
    }
    Ok(sum)
}

/// A batch of requests for keys that this thread has not asked for in another batch.
fn requests(request: Request, thread: u32, batch: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in batch * BATCH..(batch + 1) * BATCH {
        // Neighbours in a batch are none in the table.
        let key = format!("key-{:016}", (thread + 1) * KEYS_MAX / THREADS_MAX + number);
        match request {
            Request::Get => bytes.extend(format!("get {key}\r\n").bytes()),
            Request::Delete => bytes.extend(format!("delete {key}\r\n").bytes()),
            Request::Set => {
                bytes.extend(format!("set {key} 0 0 {}\r\n", VALUE.len()).bytes());
                bytes.extend([&VALUE[..], b"\r\n"].concat());
            }
        }
    }
    bytes
}

fn executors(threads: u32) -> io::Result<(Arc<Common>, Vec<One>)> {
    let table = Arc::new(Table::open(StorePlan {
        memory_bytes: 256 << 20,
        item_bytes_max: 1 << 20,
        evict: true,
        threads,
        hasher: KeyHasher::with_seed(1),
        favor: Favor::default(),
        loan_bytes: None,
    })?);
    let registry = Arc::new(Registry::default());
    let facts = Facts {
        pid: 0,
        version: "0",
        threads,
        connections_max: 1,
        switches: Switches::default(),
        settings: Vec::new(),
        fixed: Fixed::default(),
        rusage: || Rusage { user: Duration::ZERO, system: Duration::ZERO },
    };
    let common = Arc::new(Common::open(facts, table, registry));
    let one = |thread| {
        let counters = common.registry.counters(&format!("ring {thread}"));
        let mut participant = common.table.participant(Arc::clone(&counters));
        participant.offline();
        let executor = Executor::new(Arc::clone(&common), participant, counters);
        One { executor, session: Session::default(), output: Memory::new(usize::MAX) }
    };
    let all = (0..threads).map(one).collect();
    Ok((common, all))
}

/// Fills the table with items that nobody asks for.
fn fill(common: &Common, one: &mut One) -> io::Result<()> {
    for number in 0..CROWD / BATCH {
        let input = requests(Request::Set, THREADS_MAX, number);
        one.run(&input, BATCH)?;
        one.output.take();
    }
    let items = common.registry.sum(ringcached::base::metrics::Metric::CurrItems);
    match items {
        CROWD_ITEMS => Ok(()),
        _ => Err(io::Error::other(format!("{items} items instead of {CROWD_ITEMS}"))),
    }
}

const CROWD_ITEMS: u64 = (CROWD / BATCH * BATCH) as u64;

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(name: &str, threads: u32, same: bool) -> Sum {
        let case = CASES.iter().find(|case| case.name == name).unwrap();
        count(case, threads, same, 20).unwrap()
    }

    /// A hit writes what is the thread's own: its counters, and that it looks at the table.
    #[test]
    fn a_hit_takes_nothing_from_others_however_many_ask() {
        for same in [false, true] {
            let sum = counted("get, hit", 8, same);
            // After 256 requests a thread tells the classes what it has seen.
            let told = 8 * u64::from(20 * BATCH).div_ceil(256);
            assert!(sum.locks == 0 && sum.updates <= 3 * told, "{sum:?}");
            assert!(sum.taken <= 3 * told, "{:?}", sum.sites);
            assert!(sum.stores > 0);
        }
    }

    #[test]
    fn a_set_takes_what_the_text_says() {
        let sum = counted("set, key that is there", 2, true);
        assert!(sum.taken > 0 && sum.locks > 0);
        assert!(sum.sites.keys().all(|site| site.file().starts_with("src/")));
    }
}
