//! Counters: one writer each, read by anybody at any time without stopping the writer.
//!
//! Every thread that counts owns one `Counters`; a `Registry` knows them all and sums. A gauge is a
//! counter that also goes down: its per-thread parts wrap, their sum is right. What is known by the
//! size of items is counted by size class alone, see `by_size`.

use super::by_size::{BySize, OfSize, SizeClass, Sizes};
use super::histogram::{Histogram, Snapshot};
use super::sync::atomic::{AtomicU64, Ordering};
use super::sync::{Arc, Mutex};
use super::{census::Census, hot::Hot};

pub use super::distribution::{Distribution, Unit};

macro_rules! metrics {
    ($($(#[$doc:meta])* $variant:ident $name:literal $kind:ident,)+) => {
        /// What is counted. The names are memcached's where memcached has one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum Metric { $($(#[$doc])* $variant,)+ }

        impl Metric {
            pub const ALL: &[Metric] = &[$(Metric::$variant,)+];

            /// The name in `stats` and in the live statistics.
            pub const fn name(self) -> &'static str {
                match self { $(Metric::$variant => $name,)+ }
            }

            pub const fn kind(self) -> Kind {
                match self { $(Metric::$variant => Kind::$kind,)+ }
            }
        }
    };
}

/// Whether a figure only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    /// A gauge of which the highest of all threads counts, and not the sum.
    Level,
}

metrics! {
    CurrConnections "curr_connections" Gauge,
    TotalConnections "total_connections" Counter,
    RejectedConnections "rejected_connections" Counter,
    /// Connections closed because others needed the memory that they held.
    ResponseObjOom "response_obj_oom" Counter,
    /// Blocks that hold replies.
    ResponseObjCount "response_obj_count" Gauge,
    /// Bytes of all blocks of the rings, in use or not.
    ResponseObjBytes "response_obj_bytes" Gauge,
    /// Bytes of received input that was copied because it waits, and of what keeps it.
    InputBytes "input_bytes" Gauge,
    /// Bytes of the places of connections.
    ConnBytes "conn_bytes" Gauge,
    /// Times a connection waited for a block to write replies in.
    ReplyWaits "reply_waits" Counter,
    /// Turns in which a request was put off because it wanted memory that others held back.
    ItemWaits "item_waits" Counter,
    /// Times a connection waited to be sent a large value because too many others were.
    SpanWaits "span_waits" Counter,
    /// Connections closed by themselves: the peer sends no more, and has its replies.
    ClosedEnded "closed_ended" Counter,
    /// Connections that broke.
    ClosedBroken "closed_broken" Counter,
    /// Connections closed by a command, or by an error that ends the stream.
    ClosedCommand "closed_command" Counter,
    /// Connections closed because the peer sent on without reading.
    ClosedStalled "closed_stalled" Counter,
    /// Connections closed because the server stops.
    ClosedDraining "closed_draining" Counter,
    /// Connections closed because others waited for the blocks of their unread replies.
    ClosedForReplies "closed_for_replies" Counter,
    /// Connections closed because all together took too much of their memory.
    ClosedForPool "closed_for_pool" Counter,
    /// Connections closed because items found no place in the memory that they kept.
    ClosedForItems "closed_for_items" Counter,
    /// Connections closed because they did not read large values, which others needed or were gone.
    ClosedForSpans "closed_for_spans" Counter,
    /// Connections that are received from no more until they hold less.
    ThrottleParked "throttle_parked" Gauge,
    /// Times a connection was parked.
    ThrottleParks "throttle_parks" Counter,
    /// Connections that hold replies or requests.
    ThrottleActive "throttle_active" Gauge,
    /// How short memory is for the ring for which it is shortest: 1 is short, 2 is dire.
    ThrottleLevel "throttle_level" Level,
    /// Times that nobody was let in because memory was dire.
    ThrottleDeaf "throttle_deaf" Counter,
    /// 1 while nobody is let in.
    AcceptsPaused "accepts_paused" Gauge,
    /// Connections that wait because their peer's address has had its share.
    RateParked "rate_parked" Gauge,
    /// Times a connection began to wait for that.
    RateParks "rate_parks" Counter,
    /// Bytes of requests that had come by then.
    RateHeldBytes "rate_held_bytes" Counter,
    /// Microseconds that they waited, all together.
    RateWaitUs "rate_wait_us" Counter,
    /// Times that what an address owed was forgotten, because there are so many of them.
    RateForgotten "rate_forgotten" Counter,
    CmdGet "cmd_get" Counter,
    CmdSet "cmd_set" Counter,
    CmdFlush "cmd_flush" Counter,
    CmdTouch "cmd_touch" Counter,
    CmdDeletePrefix "cmd_delete_prefix" Counter,
    /// Items that were deleted for how their keys begin.
    DeletedByPrefix "deleted_by_prefix" Counter,
    CmdMeta "cmd_meta" Counter,
    GetHits "get_hits" Counter,
    GetMisses "get_misses" Counter,
    GetExpired "get_expired" Counter,
    GetFlushed "get_flushed" Counter,
    DeleteMisses "delete_misses" Counter,
    DeleteHits "delete_hits" Counter,
    IncrMisses "incr_misses" Counter,
    IncrHits "incr_hits" Counter,
    DecrMisses "decr_misses" Counter,
    DecrHits "decr_hits" Counter,
    CasMisses "cas_misses" Counter,
    CasHits "cas_hits" Counter,
    CasBadval "cas_badval" Counter,
    TouchHits "touch_hits" Counter,
    TouchMisses "touch_misses" Counter,
    StoreTooLarge "store_too_large" Counter,
    StoreNoMemory "store_no_memory" Counter,
    AuthCmds "auth_cmds" Counter,
    AuthErrors "auth_errors" Counter,
    IdleKicks "idle_kicks" Counter,
    BytesRead "bytes_read" Counter,
    BytesWritten "bytes_written" Counter,
    ListenDisabledNum "listen_disabled_num" Counter,
    /// Time, once it is over, in which nobody was accepted for want of descriptors, places, memory.
    ListenDisabledUs "time_in_listen_disabled_us" Counter,
    ConnYields "conn_yields" Counter,
    /// Bytes of live items, header and key included.
    Bytes "bytes" Gauge,
    CurrItems "curr_items" Gauge,
    TotalItems "total_items" Counter,
    ExpiredUnfetched "expired_unfetched" Counter,
    EvictedUnfetched "evicted_unfetched" Counter,
    Evictions "evictions" Counter,
    /// Expired items whose memory was taken for a new one.
    Reclaimed "reclaimed" Counter,
    /// Items that were asked for while they were new, and have been copied to their size class.
    Promoted "promoted" Counter,
    /// Keys that were stored again soon after their item had gone.
    GhostHits "ghost_hits" Counter,
    /// Expired or flushed items that the sweep has found.
    CrawlerReclaimed "crawler_reclaimed" Counter,
    /// Slots that the sweep has looked at.
    CrawlerItemsChecked "crawler_items_checked" Counter,
    /// Time that the thread for upkeep has taken: sweep, index, huge pages.
    UpkeepUs "upkeep_us" Counter,
    /// Pages that moved from one class to another.
    SlabsMoved "slabs_moved" Counter,
    SlabReassignRescues "slab_reassign_rescues" Counter,
    /// Lines for those who watch: put into the queue of at least one of them, or of none.
    LogWorkerWritten "log_worker_written" Counter,
    LogWorkerDropped "log_worker_dropped" Counter,
    /// Times that a line found no room in the queue of a watcher, and those that were sent to one.
    LogWatcherSkipped "log_watcher_skipped" Counter,
    LogWatcherSent "log_watcher_sent" Counter,
    /// Bytes of lines that wait.
    LogBytes "log_bytes" Gauge,
    /// Items that made room although they were not cold.
    EvictedActive "evicted_active" Counter,
    /// Items that could not go because they were being sent.
    LrutailReflocked "lrutail_reflocked" Counter,
    /// Items that have become cold, or have left the log.
    MovesToCold "moves_to_cold" Counter,
    /// Cold items that were asked for.
    MovesToWarm "moves_to_warm" Counter,
    /// Items that cooled down and are not cold yet, or were copied to where their like is.
    MovesWithinLru "moves_within_lru" Counter,
    /// Times that memory for an item was not there, and room had to be made first.
    DirectReclaims "direct_reclaims" Counter,
    /// Turns of a ring: one entry into the kernel each.
    RingTurns "ring_turns" Counter,
    /// Turns that began with nothing to do: the ring slept until something came.
    RingSleeps "ring_sleeps" Counter,
    RingCompletions "ring_completions" Counter,
    /// Requests executed, whoever executed them.
    Requests "requests" Counter,
    /// Runs of requests of one connection, executed without a look at another one.
    Batches "batches" Counter,
    /// Batches that were executed by a worker.
    BatchesQueued "batches_queued" Counter,
    /// Batches that wait for a worker, or are with one.
    BatchesAway "batches_away" Gauge,
    /// Times a batch found its queue full, or blocks short, and waited in the ring.
    QueueFull "queue_full" Counter,
    /// Turns that took longer than a turn may.
    TurnsOverBudget "turns_over_budget" Counter,
    /// Batches that went to a worker because their connection had taken much of a turn.
    BatchesOverBudget "batches_over_budget" Counter,
    RingSends "ring_sends" Counter,
    /// Sends after which there was more to send.
    ShortSends "short_sends" Counter,
    /// Receives that ended because the ring had no buffer left.
    BuffersDry "buffers_dry" Counter,
    /// Receives straight into the place of a large value.
    DirectReceives "direct_receives" Counter,
    /// Pieces of large values that were given to be sent from where they are, and their bytes.
    Spans "spans" Counter,
    SpannedBytes "spanned_bytes" Counter,
    /// Replies whose values were copied because their items are gone and their peers read slowly.
    SpansCopied "spans_copied" Counter,
    /// Times the kernel was asked whether a peer that seemed to be silent reads, and found that so.
    SilencesChecked "silences_checked" Counter,
    SilencesBroken "silences_broken" Counter,
    /// Sends without a copy, and those that the kernel copied all the same, or would not take.
    ZeroCopySends "zero_copy_sends" Counter,
    ZeroCopyCopied "zero_copy_copied" Counter,
    /// Times a receive was stopped because the connection held too much.
    ConnectionsParked "connections_parked" Counter,
    /// Turns in which completions had to wait because their queue was full.
    CompletionsOverflowed "completions_overflowed" Counter,
    /// Entries into the kernel that it put off until completions were taken.
    RingBusy "ring_busy" Counter,
    /// Times the kernel had no memory for what it was asked to do; it was asked again later.
    KernelNoMemory "kernel_no_memory" Counter,
    WorkerWakes "worker_wakes" Counter,
    /// Time that a ring's thread has had of its processor, four times a second, or that a worker
    /// has taken for batches.
    BusyUs "busy_us" Counter,
    /// When `busy_us` of a ring was taken, since the start.
    BusyAtUs "busy_at_us" Counter,
    /// Time in which a ring could have run and others had its processor, as of `busy_at_us`.
    WaitedUs "waited_us" Counter,
    /// The processor that a ring was on then. A sum says nothing.
    Processor "cpu" Gauge,
    /// Requests in datagrams of clients, and those that were answered.
    UdpRequests "udp_requests" Counter,
    UdpReplies "udp_replies" Counter,
    /// Those whose reply was larger than a reply may be: an error was sent in its place.
    UdpTooLarge "udp_too_large" Counter,
    /// Datagrams that are no request.
    UdpDropped "udp_dropped" Counter,
    /// Requests that were dropped because their peer's address has had its share.
    UdpLimited "udp_limited" Counter,
    /// Replies, or parts of them, that the kernel did not take.
    UdpUnsent "udp_unsent" Counter,
    /// Malformed or refused datagrams at the statistics port.
    AdminDropped "admin_dropped" Counter,
    AdminServed "admin_served" Counter,
}

const METRICS: usize = Metric::ALL.len();

const DISTRIBUTIONS: usize = Distribution::ALL.len();

/// The counters of one thread.
#[derive(Debug)]
pub struct Counters {
    /// Who counts here: "ring 0", "worker 3".
    pub owner: String,
    cells: Box<[AtomicU64; METRICS]>,
    sizes: BySize,
    histograms: Box<[Histogram; DISTRIBUTIONS]>,
}

impl Counters {
    pub fn new(owner: &str) -> Counters {
        let cells = Box::new(std::array::from_fn(|_| AtomicU64::new(0)));
        let histograms = Box::new(std::array::from_fn(|_| Histogram::default()));
        Counters { owner: owner.into(), cells, sizes: BySize::default(), histograms }
    }

    /// Adds to a counter by size of this thread. Only its owner may call this.
    #[inline(always)]
    pub fn add_of_size(&self, class: SizeClass, what: OfSize, amount: u64) {
        self.sizes.add(class, what, amount);
    }

    /// Lowers this thread's part of a gauge by size. Only its owner may call this.
    #[inline(always)]
    pub fn sub_of_size(&self, class: SizeClass, what: OfSize, amount: u64) {
        self.sizes.add(class, what, amount.wrapping_neg());
    }

    /// Counts a get that found an item of this class. `warmth` is its heat, and 4 more unless it
    /// was in the log. Only the owner of the counters may call this.
    #[inline(always)]
    pub fn count_hit(&self, class: SizeClass, warmth: usize) {
        self.sizes.count_hit(class, warmth);
    }

    /// Remembers that an item of this class was evicted. Only the counters' owner may call this.
    pub fn note_eviction(&self, class: SizeClass, at_tick: u64, age_s: u64) {
        self.sizes.set(class, OfSize::EvictedAt, at_tick);
        self.sizes.set(class, OfSize::EvictedAge, age_s);
    }

    /// The figures of one size class, of this thread.
    pub fn of_size(&self, class: SizeClass) -> Sizes {
        self.sizes.of(class)
    }

    /// Counts a value so often. Only the owner of the counters may call this.
    #[inline]
    pub fn record(&self, distribution: Distribution, value: u64, count: u64) {
        self.histograms[distribution as usize].record(value, count);
    }

    /// As `record`, for a value that is most often below 16.
    #[inline]
    pub fn record_small(&self, distribution: Distribution, value: u64, count: u64) {
        self.histograms[distribution as usize].record_small(value, count);
    }

    /// How the values of this thread are spread, since the start.
    pub fn spread(&self, distribution: Distribution) -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.add(&self.histograms[distribution as usize]);
        snapshot
    }

    /// Adds to a counter of this thread. Only its owner may call this.
    #[inline]
    pub fn add(&self, metric: Metric, amount: u64) {
        let cell = &self.cells[metric as usize];
        // Relaxed, and no read-modify-write: there is one writer, and readers want no order.
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    #[inline]
    pub fn bump(&self, metric: Metric) {
        self.add(metric, 1);
    }

    /// Lowers this thread's part of a gauge. Only its owner may call this.
    pub fn sub(&self, metric: Metric, amount: u64) {
        self.add(metric, amount.wrapping_neg());
    }

    /// Sets this thread's part of a gauge. Only its owner may call this.
    pub fn set(&self, metric: Metric, amount: u64) {
        self.cells[metric as usize].store(amount, Ordering::Relaxed);
    }

    pub fn get(&self, metric: Metric) -> u64 {
        let cell = self.cells[metric as usize].load(Ordering::Relaxed);
        cell.wrapping_add(self.sizes.part(metric))
    }
}

/// What the counters of one thread stood at.
#[derive(Debug)]
struct Baseline {
    metrics: Vec<u64>,
    sizes: Vec<Sizes>,
    spreads: Vec<Snapshot>,
}

/// All the counters of the process.
#[derive(Debug, Default)]
pub struct Registry {
    /// What connections do.
    pub census: Census,
    /// Which keys are asked for most.
    pub hot: Hot,
    threads: Mutex<Vec<Arc<Counters>>>,
    /// What the counters of each thread stood at when they were last reset.
    baseline: Mutex<Vec<Baseline>>,
}

impl Registry {
    pub fn counters(&self, owner: &str) -> Arc<Counters> {
        let counters = Arc::new(Counters::new(owner));
        self.threads.lock().push(Arc::clone(&counters));
        counters
    }

    /// Every thread's counters, in the order in which they were made.
    pub fn threads(&self) -> Vec<Arc<Counters>> {
        self.threads.lock().clone()
    }

    /// A figure since the start of the process; `reset` does not touch it.
    pub fn raw(&self, metric: Metric) -> u64 {
        let threads = self.threads.lock();
        let figures = threads.iter().map(|each| each.get(metric));
        match metric.kind() {
            Kind::Level => figures.max().unwrap_or(0),
            Kind::Counter | Kind::Gauge => figures.fold(0, u64::wrapping_add),
        }
    }

    /// A figure since the last `reset`. A gauge is never reset.
    pub fn sum(&self, metric: Metric) -> u64 {
        let of_reset = |each: &Baseline| each.metrics[metric as usize];
        match metric.kind() {
            Kind::Gauge | Kind::Level => self.raw(metric),
            Kind::Counter => {
                let past = self.baseline.lock().iter().map(of_reset).fold(0, u64::wrapping_add);
                self.raw(metric).wrapping_sub(past)
            }
        }
    }

    /// As `sum`, of the thread that comes at this place in `threads`.
    pub fn of_thread(&self, thread: usize, metric: Metric) -> u64 {
        // What it began with first: nothing may be reset between the two.
        let past = match metric.kind() {
            Kind::Counter => {
                self.baseline.lock().get(thread).map(|past| past.metrics[metric as usize])
            }
            Kind::Gauge | Kind::Level => None,
        };
        let raw = self.threads.lock().get(thread).map_or(0, |each| each.get(metric));
        raw.wrapping_sub(past.unwrap_or(0))
    }

    /// The figures of a size class since the last `reset`.
    pub fn of_size(&self, class: SizeClass) -> Sizes {
        let mut sum = Sizes::default();
        let baseline = self.baseline.lock();
        for (thread, each) in self.threads.lock().iter().enumerate() {
            let figures = each.of_size(class);
            sum.add(&match baseline.get(thread) {
                Some(past) => figures.since(&past.sizes[class.number()]),
                None => figures,
            });
        }
        sum.settled()
    }

    /// How values are spread since the start of the process; `reset` does not touch it.
    pub fn raw_spread(&self, distribution: Distribution) -> Snapshot {
        let mut sum = Snapshot::default();
        for each in self.threads.lock().iter() {
            sum.add(&each.histograms[distribution as usize]);
        }
        sum
    }

    /// How values are spread since the last `reset`.
    pub fn spread(&self, distribution: Distribution) -> Snapshot {
        let mut sum = Snapshot::default();
        for thread in 0..self.threads().len() {
            sum.merge(&self.spread_of_thread(thread, distribution));
        }
        sum
    }

    /// As `spread`, of the thread that comes at this place in `threads`.
    pub fn spread_of_thread(&self, thread: usize, distribution: Distribution) -> Snapshot {
        let now = self.threads.lock().get(thread).map(|each| each.spread(distribution));
        let now = now.unwrap_or_default();
        match self.baseline.lock().get(thread) {
            Some(past) => now.since(&past.spreads[distribution as usize]),
            None => now,
        }
    }

    /// Starts all counters, but no gauge, at 0 again, without writing to any thread's cells.
    pub fn reset(&self) {
        let past = |each: &Arc<Counters>| Baseline {
            metrics: Metric::ALL.iter().map(|metric| each.get(*metric)).collect(),
            sizes: SizeClass::all().map(|class| each.of_size(class)).collect(),
            spreads: Distribution::ALL.iter().map(|each_of| each.spread(*each_of)).collect(),
        };
        let baseline = self.threads.lock().iter().map(past).collect();
        *self.baseline.lock() = baseline;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn threads_are_summed_and_gauges_may_cross() {
        let registry = Registry::default();
        let (one, two) = (registry.counters("one"), registry.counters("two"));
        one.add(Metric::CurrItems, 5);
        two.sub(Metric::CurrItems, 2);
        one.bump(Metric::CmdGet);
        two.bump(Metric::CmdGet);
        assert_eq!(registry.sum(Metric::CurrItems), 3);
        assert_eq!(registry.sum(Metric::CmdGet), 2);
        registry.reset();
        assert_eq!(registry.sum(Metric::CurrItems), 3);
        assert_eq!(registry.sum(Metric::CmdGet), 0);
        assert_eq!(registry.raw(Metric::CmdGet), 2);
    }

    #[test]
    fn of_levels_the_highest_counts() {
        let registry = Registry::default();
        assert_eq!(registry.sum(Metric::ThrottleLevel), 0);
        for level in [1, 2, 1] {
            registry.counters("ring").set(Metric::ThrottleLevel, level);
        }
        assert_eq!(registry.sum(Metric::ThrottleLevel), 2);
        registry.reset();
        assert_eq!(registry.sum(Metric::ThrottleLevel), 2);
    }

    #[test]
    fn a_reset_is_of_each_thread_and_of_what_is_spread() {
        let registry = Registry::default();
        let one = registry.counters("one");
        one.add(Metric::Requests, 3);
        one.add(Metric::BatchesAway, 1);
        one.record(Distribution::Get, 5, 3);
        registry.reset();
        let two = registry.counters("two");
        one.bump(Metric::Requests);
        one.record(Distribution::Get, 7, 1);
        two.record(Distribution::Get, 9, 1);
        assert_eq!([0, 1, 2].map(|each| registry.of_thread(each, Metric::Requests)), [1, 0, 0]);
        assert_eq!(registry.of_thread(0, Metric::BatchesAway), 1);
        let (all, since) =
            (registry.raw_spread(Distribution::Get), registry.spread(Distribution::Get));
        assert_eq!((all.count(), since.count(), since.quantile(1)), (5, 2, 7));
        let of_one = registry.spread_of_thread(0, Distribution::Get);
        assert_eq!((of_one.count(), of_one.quantile(100_000)), (1, 7));
        assert_eq!(registry.spread_of_thread(2, Distribution::Get).count(), 0);
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = Metric::ALL.iter().map(|metric| metric.name()).collect();
        names.extend(Distribution::ALL.iter().map(|each| each.name()));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Metric::ALL.len() + Distribution::ALL.len());
    }

    #[test]
    fn rows_name_their_unit() {
        assert_eq!(Distribution::Get.row_name("p99"), "get:p99_ns");
        assert_eq!(Distribution::Get.row_name("count"), "get:count");
        assert_eq!(Distribution::QueueDepth.row_name("max"), "queue_depth:max");
    }
}
