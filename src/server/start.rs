//! From a checked plan to a running server: the product, composed in one place.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::base::clock::Clock;
use crate::base::hash::KeyHasher;
use crate::base::metrics::{Counters, Registry};
use crate::base::sync::Arc;
use crate::base::users::Roster;
use crate::command::{
    Auth, EvictionLog, Executor, Facts, Fixed, LEDGER, Row, Session, Shared, Switches,
};
use crate::config::{AuthPlan, Plan, StartError, read_users};
use crate::store::{StorePlan, Table};
use crate::sys::ladder::{FEATURES_TRIED, Rung};
use crate::sys::{limits, probe};

pub use crate::store::ClassFigures;

use super::claim::Claim;
use super::keeper;
use super::launch::{Handle, Shape, launch};
use super::overhead;
use super::populate::populate;
use super::upkeep;

/// The version of this server; clients of memcached are told memcached's.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A running server and what its figures are read from.
#[derive(Debug)]
pub struct Server {
    handle: Handle<Session>,
    shared: Arc<Shared>,
    pub registry: Arc<Registry>,
    memory_bytes: u64,
    group_bytes: Option<u64>,
    /// The file of users, if there is one.
    users_file: Option<PathBuf>,
    populated: Option<Result<String, String>>,
}

impl Server {
    /// # Errors
    /// What the system refuses: memory for the table, or the rings.
    pub fn start(plan: &Plan, claim: Claim, clock: &Clock) -> Result<Server, StartError> {
        let rung = rung(plan)?;
        let registry = Arc::new(Registry::default());
        let sockets = u32::try_from(plan.listeners.udp.len()).unwrap_or(u32::MAX);
        let store = StorePlan {
            favor: plan.favor,
            memory_bytes: plan.memory_bytes,
            item_bytes_max: plan.item_bytes_max,
            evict: plan.evict,
            threads: plan.rings + plan.workers + sockets,
            hasher: KeyHasher::random(),
            loan_bytes: plan.conn_bytes,
        };
        let table = Table::open(store).map_err(|error| {
            let megabytes = format!("{} MiB for items", plan.memory_bytes >> 20);
            StartError::new("reserve", megabytes, error, "Choose a smaller -m.")
        })?;
        let threads = plan.rings as usize;
        let populate = || populate(&table, threads, plan.group_bytes);
        let populated = plan.process.populate.then(populate);
        table.set_sweeps(plan.extended.sweeps);
        let table = Arc::new(table);
        let facts = facts(plan, rung, overhead::of(plan, &table.figures()));
        let mut shared = Shared::open(facts, Arc::clone(&table), Arc::clone(&registry));
        shared.verbosity = AtomicU8::new(plan.verbosity);
        shared.protocols = plan.listeners.protocols();
        shared.auth = plan.auth.as_ref().map(auth);
        let shared = Arc::new(shared);
        let executor = {
            let (table, shared) = (Arc::clone(&table), Arc::clone(&shared));
            move |counters: Arc<Counters>| {
                let participant = table.participant(Arc::clone(&counters));
                Executor::new(Arc::clone(&shared), participant, counters)
            }
        };
        let seated = (Shape::of(plan, rung), &plan.placement);
        let handle = launch(seated, claim.sockets, &registry, clock, executor)?;
        let refused = |error| StartError::new("start", "a thread", error, "Allow more threads.");
        shared.set_waker(handle.waker());
        let evictions =
            |counters: &Arc<Counters>| EvictionLog::new(Arc::clone(&shared), Arc::clone(counters));
        let counters = registry.counters("keeper");
        let participant = table.participant(Arc::clone(&counters));
        let thread = (participant, evictions(&counters));
        keeper::start(thread, handle.waker(), Arc::clone(&registry), clock.clone())
            .map_err(refused)?;
        let counters = registry.counters("upkeep");
        let evictions = evictions(&counters);
        upkeep::begin(&table, counters, evictions, clock).map_err(refused)?;
        let Plan { memory_bytes, group_bytes, .. } = *plan;
        let users_file = plan.auth.as_ref().map(|auth| auth.file.clone());
        Ok(Server { handle, shared, registry, memory_bytes, group_bytes, users_file, populated })
    }

    /// Stops accepting, answers what was asked, closes.
    pub fn drain(&self) {
        self.handle.drain();
    }

    /// Reads again what may have changed: the file of users. Says what came of it; `None` if there
    /// is nothing to read. Who has been let in stays.
    ///
    /// # Errors
    /// What is wrong with the file. The users stay as they were.
    pub fn reload(&self) -> Option<Result<String, StartError>> {
        let (Some(file), Some(auth)) = (&self.users_file, &self.shared.auth) else { return None };
        Some(read_users(file).map(|users| {
            let told = format!("{} users from {}", users.count(), file.display());
            auth.users.replace(users);
            told
        }))
    }

    /// True when the last ring has ended.
    pub fn has_ended(&self) -> bool {
        self.handle.has_ended()
    }

    /// Readable once the server has ended.
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.handle.ended().as_fd()
    }

    /// As `-v` or the command `verbosity` set it last.
    pub fn verbosity(&self) -> u8 {
        // Relaxed: it orders nothing.
        self.shared.verbosity.load(Ordering::Relaxed)
    }

    /// See `Handle::heartbeats`.
    pub fn heartbeats(&self) -> Vec<Option<u64>> {
        self.handle.heartbeats()
    }

    /// Figures that are no counters; always the same names in the same order.
    pub fn figures(&self) -> Vec<(&'static str, u64)> {
        let figures = self.shared.table.figures();
        let own = [
            ("limit_maxbytes", self.memory_bytes),
            ("hash_bytes", figures.index_bytes),
            ("segments", figures.segments),
            ("stripes", figures.stripes),
            ("read_buf_bytes", self.shared.facts.fixed.receive_bytes),
        ];
        let row = |(name, number): &Row| (*name, number(&self.shared, &figures));
        own.into_iter().chain(LEDGER.iter().map(row)).collect()
    }

    /// The size classes of items.
    pub fn classes(&self) -> Vec<ClassFigures> {
        self.shared.table.classes()
    }

    /// What the process will take at most, in words.
    pub fn promise(&self) -> String {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let (limit, fixed) = self.promised();
        format!(
            "memory: {} MiB for items, index, replies and connections (-m), and {} MiB for code, \
             stacks, rings and receive buffers: at most {} MiB",
            mib(limit),
            mib(fixed),
            mib(limit + fixed),
        )
    }

    /// How much memory was taken at start, if all was to be; the error says why it was not.
    pub fn populated(&self) -> Option<&Result<String, String>> {
        self.populated.as_ref()
    }

    /// Says so, where the control group lets the process have less than it may come to take.
    pub fn excess(&self) -> Option<String> {
        let (limit, fixed) = self.promised();
        let allowed = self.group_bytes.filter(|allowed| *allowed < limit + fixed)?;
        Some(format!(
            "the control group allows {} MiB of memory, less than ringcached may come to take: \
             the kernel would end it; lower -m, or raise memory.max (MemoryMax=)",
            allowed >> 20,
        ))
    }

    /// The limit, and all that comes on top.
    fn promised(&self) -> (u64, u64) {
        (self.shared.table.figures().limit_bytes, self.shared.facts.fixed.bytes)
    }
}

/// How the rings receive: what the plan asks for, as far as this kernel has it.
fn rung(plan: &Plan) -> Result<Rung, StartError> {
    let support = probe::try_out(&FEATURES_TRIED)
        .map_err(|refusal| StartError::new("set up", "io_uring", &refusal, refusal.remedy()))?;
    Rung::choose(plan.receive, &support).map_err(|row| {
        let cause = "this kernel does not have it (see ringcached --check)";
        let remedy =
            "Leave --receive, --receive-cap, --min-wait and --send-zero-copy to the server.";
        StartError::new("use", row.name, cause, remedy)
    })
}

fn facts(plan: &Plan, rung: Rung, fixed: Fixed) -> Facts {
    let receive_buffers = u64::from(plan.rings) * u64::from(rung.mode.buffers());
    Facts {
        pid: std::process::id(),
        version: VERSION,
        threads: plan.rings,
        connections_max: plan.connections_max,
        switches: switches(plan),
        settings: plan.settings(rung),
        fixed: Fixed { receive_buffers, ..fixed },
        rusage,
    }
}

fn auth(plan: &AuthPlan) -> Auth {
    Auth { users: Roster::new(plan.users.clone()), sasl: plan.sasl }
}

fn switches(plan: &Plan) -> Switches {
    Switches {
        shutdown: plan.shutdown_enabled,
        flush: plan.flush_enabled,
        dumping: plan.dumping_enabled,
        watch: plan.watch_enabled,
        cas: plan.cas_enabled,
        detail: plan.detail_enabled,
        prefix_delimiter: plan.prefix_delimiter,
        track_sizes: plan.extended.track_sizes,
    }
}

fn rusage() -> crate::command::Rusage {
    let (user, system) = limits::processor_time();
    crate::command::Rusage { user, system }
}
