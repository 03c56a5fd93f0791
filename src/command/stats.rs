//! `stats`, `stats settings` and `stats conns`, with memcached's names and in its order; those of
//! size classes are in `class_rows`, those of sizes in `size_rows`, and what is only ours in
//! `instruments`.
//!
//! All of memcached's are there, as monitors expect them: those of what this server has not, as
//! `lru_maintainer_juggles`, are 0. `hash_bytes` is the index, `hash_power_level` how often its
//! buckets have doubled; `slab_global_page_pool` the pages that nobody uses; `response_obj_bytes`
//! the blocks in which replies wait. The crawler is the sweep: it starts with each of its rounds,
//! and runs in one that was asked for. The rows of the ledger come last.

use std::sync::atomic::Ordering;

use super::batch::{Batch, Step};
use super::class_rows;
use super::instruments;
use super::ledger::LEDGER;
use super::session::{Access, Form, Group, Report, State};
use super::{Rusage, Shared, Verdict};
use crate::base::census::{self, Doing, Origin, Sighting};
use crate::base::clock::{Now, TICKS_PER_S};
use crate::base::metrics::{Metric, Registry};
use crate::base::output::Output;
use crate::protocol::Rows;
use crate::protocol::binary::reply::Packets;
use crate::protocol::memcache::{self, reply::Lines};

/// Where a row's value comes from.
enum Source {
    Metric(Metric),
    Number(fn(&Shared, Now) -> u64),
    Text(fn(&Shared) -> String),
}

use Source::{Number, Text};

/// Rows whose name is the metric's.
const fn metric(metric: Metric) -> (&'static str, Source) {
    (metric.name(), Source::Metric(metric))
}

/// Rows of what cannot happen here, which monitors ask for: a connection waits for a buffer to
/// receive into, the index grows a segment at a time, memory for items is not allocated,
/// a page waits for nobody before it moves, and no thread sorts items by how warm they are.
const fn never(name: &'static str) -> (&'static str, Source) {
    (name, Number(|_, _| 0))
}

//= protocol.txt "General-purpose statistics"
const GENERAL: &[(&str, Source)] = &[
    ("pid", Number(|shared, _| shared.facts.pid.into())),
    ("uptime", Number(|_, now| now.uptime_s())),
    ("time", Number(|_, now| now.unix_s())),
    ("version", Text(|_| memcache::VERSION.into())),
    // It waits for events by io_uring.
    ("libevent", Text(|_| "none".into())),
    ("pointer_size", Number(|_, _| usize::BITS.into())),
    ("rusage_user", Text(|shared| seconds(&(shared.facts.rusage)(), |used| used.user))),
    ("rusage_system", Text(|shared| seconds(&(shared.facts.rusage)(), |used| used.system))),
    ("max_connections", Number(|shared, _| shared.facts.connections_max.into())),
    metric(Metric::CurrConnections),
    metric(Metric::TotalConnections),
    metric(Metric::RejectedConnections),
    ("connection_structures", Source::Metric(Metric::CurrConnections)),
    metric(Metric::ResponseObjOom),
    metric(Metric::ResponseObjCount),
    metric(Metric::ResponseObjBytes),
    ("read_buf_count", Number(|shared, _| shared.facts.fixed.receive_buffers)),
    ("read_buf_bytes", Number(|shared, _| shared.facts.fixed.receive_bytes)),
    // None is given to a connection: they lie ready for what comes next.
    ("read_buf_bytes_free", Number(|shared, _| shared.facts.fixed.receive_bytes)),
    never("read_buf_oom"),
    ("reserved_fds", Number(|shared, _| shared.facts.fixed.descriptors)),
    metric(Metric::CmdGet),
    metric(Metric::CmdSet),
    metric(Metric::CmdFlush),
    metric(Metric::CmdTouch),
    metric(Metric::CmdMeta),
    metric(Metric::GetHits),
    metric(Metric::GetMisses),
    metric(Metric::GetExpired),
    metric(Metric::GetFlushed),
    metric(Metric::DeleteMisses),
    metric(Metric::DeleteHits),
    metric(Metric::IncrMisses),
    metric(Metric::IncrHits),
    metric(Metric::DecrMisses),
    metric(Metric::DecrHits),
    metric(Metric::CasMisses),
    metric(Metric::CasHits),
    metric(Metric::CasBadval),
    metric(Metric::TouchHits),
    metric(Metric::TouchMisses),
    metric(Metric::StoreTooLarge),
    metric(Metric::StoreNoMemory),
    metric(Metric::AuthCmds),
    metric(Metric::AuthErrors),
    metric(Metric::IdleKicks),
    metric(Metric::BytesRead),
    metric(Metric::BytesWritten),
    ("limit_maxbytes", Number(|shared, _| shared.table.figures().limit_bytes)),
    ("accepting_conns", Number(|shared, _| 1 - shared.registry.sum(Metric::AcceptsPaused).min(1))),
    metric(Metric::ListenDisabledNum),
    metric(Metric::ListenDisabledUs),
    ("threads", Number(|shared, _| shared.facts.threads.into())),
    metric(Metric::ConnYields),
    ("hash_power_level", Number(|shared, _| shared.table.figures().buckets().ilog2().into())),
    ("hash_bytes", Number(|shared, _| shared.table.figures().index_bytes)),
    never("hash_is_expanding"),
    metric(Metric::SlabReassignRescues),
    never("slab_reassign_chunk_rescues"),
    never("slab_reassign_inline_reclaim"),
    never("slab_reassign_busy_items"),
    never("slab_reassign_busy_deletes"),
    never("slab_reassign_busy_nomem"),
    ("slab_reassign_last_busy_status", Text(|_| "none".into())),
    ("slab_reassign_running", Number(|shared, _| shared.table.is_moving_page().into())),
    metric(Metric::SlabsMoved),
    ("lru_crawler_running", Number(|shared, _| shared.table.rounds_asked_for().0.into())),
    ("lru_crawler_starts", Number(|shared, _| shared.table.rounds_begun().into())),
    never("lru_maintainer_juggles"),
    never("malloc_fails"),
    metric(Metric::LogWorkerDropped),
    metric(Metric::LogWorkerWritten),
    metric(Metric::LogWatcherSkipped),
    metric(Metric::LogWatcherSent),
    ("log_watchers", Number(|shared, _| shared.watchers.count())),
    never("unexpected_napi_ids"),
    never("round_robin_fallback"),
    metric(Metric::Bytes),
    metric(Metric::CurrItems),
    metric(Metric::TotalItems),
    ("slab_global_page_pool", Number(|shared, _| shared.table.figures().pages_free)),
    metric(Metric::ExpiredUnfetched),
    metric(Metric::EvictedUnfetched),
    metric(Metric::EvictedActive),
    metric(Metric::Evictions),
    metric(Metric::Reclaimed),
    metric(Metric::CrawlerReclaimed),
    metric(Metric::CrawlerItemsChecked),
    metric(Metric::LrutailReflocked),
    metric(Metric::MovesToCold),
    metric(Metric::MovesToWarm),
    metric(Metric::MovesWithinLru),
    metric(Metric::DirectReclaims),
    never("lru_bumps_dropped"),
    // What follows is ours.
    ("ringcached_version", Text(|shared| shared.facts.version.into())),
    metric(Metric::CmdDeletePrefix),
    metric(Metric::DeletedByPrefix),
    metric(Metric::Promoted),
    metric(Metric::GhostHits),
    metric(Metric::UpkeepUs),
    metric(Metric::ReplyWaits),
    metric(Metric::ItemWaits),
    metric(Metric::SpanWaits),
    metric(Metric::ThrottleLevel),
    metric(Metric::ThrottleActive),
    metric(Metric::ThrottleParked),
    metric(Metric::ThrottleParks),
    metric(Metric::ThrottleDeaf),
    metric(Metric::ConnectionsParked),
    metric(Metric::RateParked),
    metric(Metric::RateParks),
    metric(Metric::RateHeldBytes),
    metric(Metric::RateWaitUs),
    metric(Metric::RateForgotten),
    metric(Metric::UdpRequests),
    metric(Metric::UdpReplies),
    metric(Metric::UdpTooLarge),
    metric(Metric::UdpDropped),
    metric(Metric::UdpLimited),
    metric(Metric::UdpUnsent),
    metric(Metric::ClosedEnded),
    metric(Metric::ClosedBroken),
    metric(Metric::ClosedCommand),
    metric(Metric::ClosedStalled),
    metric(Metric::ClosedDraining),
    metric(Metric::ClosedForReplies),
    metric(Metric::ClosedForPool),
    metric(Metric::ClosedForItems),
    metric(Metric::ClosedForSpans),
    metric(Metric::Requests),
    metric(Metric::Batches),
    metric(Metric::BatchesQueued),
    metric(Metric::BatchesAway),
    metric(Metric::QueueFull),
    metric(Metric::WorkerWakes),
    metric(Metric::TurnsOverBudget),
    metric(Metric::BatchesOverBudget),
    metric(Metric::RingSleeps),
    metric(Metric::RingSends),
    metric(Metric::DirectReceives),
    metric(Metric::Spans),
    metric(Metric::SpannedBytes),
    metric(Metric::SpansCopied),
    metric(Metric::SilencesChecked),
    metric(Metric::SilencesBroken),
    metric(Metric::ZeroCopySends),
    metric(Metric::ZeroCopyCopied),
    metric(Metric::BusyUs),
    metric(Metric::InputBytes),
    metric(Metric::ConnBytes),
    metric(Metric::RingTurns),
    metric(Metric::RingCompletions),
    metric(Metric::BuffersDry),
    metric(Metric::CompletionsOverflowed),
    metric(Metric::RingBusy),
    metric(Metric::KernelNoMemory),
];

/// Seconds with six decimals, as monitors want them.
fn seconds(used: &Rusage, part: fn(&Rusage) -> std::time::Duration) -> String {
    let used = part(used);
    format!("{}.{:06}", used.as_secs(), used.subsec_micros())
}

impl<O: Output> Batch<'_, O> {
    /// Goes on with statistics, row by row.
    pub fn report(&mut self, state: &mut State) -> Step {
        let State::Reporting(report) = state else { unreachable!() };
        let shared = &self.executor.shared;
        loop {
            let obstacle = if self.output.is_full() {
                Some(Verdict::OutputFull)
            } else {
                (self.budget.requests == 0).then_some(Verdict::Yield)
            };
            if obstacle.is_some() {
                return obstacle;
            }
            let output = &mut *self.output;
            let has_row = match report.form {
                Form::Lines => next_row(&mut Lines(output), report, shared, self.now),
                Form::Packets(echo) => {
                    next_row(&mut Packets(output, echo), report, shared, self.now)
                }
            };
            if !has_row {
                break;
            }
            self.budget.requests -= 1;
        }
        *state = self.end_rows(report.form);
        None
    }

    /// Ends what was told row by row, and says what comes next.
    pub(super) fn end_rows(&mut self, form: Form) -> State {
        match form {
            Form::Lines => {
                Lines(&mut *self.output).end();
                State::Idle
            }
            Form::Packets(echo) => {
                Packets(&mut *self.output, echo).end();
                State::Binary(Access::Granted)
            }
        }
    }
}

/// Writes the next row of a report, or the next group of rows. False past the last.
fn next_row(rows: &mut impl Rows, report: &mut Report, shared: &Shared, now: Now) -> bool {
    let registry = &shared.registry;
    let place = report.rows;
    let has_row = match report.group {
        Group::Connections => match registry.census.next(place) {
            Some((position, seen, origin)) => {
                let number = registry.census.number(position);
                connection(rows, number, (&seen, origin), (registry, now));
                report.rows = position;
                true
            }
            None => false,
        },
        Group::Items => at_place(report, class_rows::items(rows, shared, now, place)),
        Group::Slabs => at_place(report, class_rows::slabs(rows, shared, now, place)),
        Group::SizesStatus | Group::SizesError => sizes(rows, shared, report.group, place),
        Group::Detail => match shared.detail.line(place) {
            Some(line) => {
                rows.line("detailed", &line);
                true
            }
            None => false,
        },
        Group::Latency => instruments::latency(rows, registry, place),
        Group::Rings => instruments::ring(rows, registry, place),
        Group::Hot(of) => instruments::hot_name(rows, &registry.hot.hottest(of, now), of, place),
        Group::General => general(rows, shared, now, place),
        Group::Settings => setting(rows, shared, now, place),
    };
    report.rows += usize::from(has_row);
    has_row
}

/// Goes on behind the place whose rows were written. False when there was none.
fn at_place(report: &mut Report, place: Option<usize>) -> bool {
    report.rows = place.unwrap_or(report.rows);
    place.is_some()
}

/// What there is to say where sizes are not told.
//= protocol.txt "Item size statistics"
fn sizes(rows: &mut impl Rows, shared: &Shared, group: Group, place: usize) -> bool {
    match (group, place) {
        (Group::SizesError, 0) => rows.row("sizes_status", b"error"),
        (Group::SizesError, 1) => rows.row("sizes_error", b"too_many_at_a_time"),
        (_, 0) => {
            rows.row("sizes_status", if shared.tracks_sizes() { b"enabled" } else { b"disabled" });
        }
        _ => return false,
    }
    true
}

fn general(rows: &mut impl Rows, shared: &Shared, now: Now, place: usize) -> bool {
    let Some((name, source)) = GENERAL.get(place) else {
        let Some((name, number)) = LEDGER.get(place - GENERAL.len()) else { return false };
        let figures = shared.table.figures();
        rows.number(name, number(shared, &figures));
        return true;
    };
    match source {
        Source::Metric(metric) => rows.number(name, shared.registry.sum(*metric)),
        Number(number) => rows.number(name, number(shared, now)),
        Text(text) => rows.row(name, text(shared).as_bytes()),
    }
    true
}

/// The rows of one connection, or of a socket for datagrams: memcached's names for what it has, and
/// what it holds.
//= protocol.txt "Connection statistics"
fn connection(
    rows: &mut impl Rows,
    number: u32,
    (seen, origin): (&Sighting, Origin),
    (registry, now): (&Registry, Now),
) {
    let transport = if seen.doing == Doing::Datagrams { "udp" } else { "tcp" };
    if seen.doing == Doing::Datagrams {
        rows.row(&format!("{number}:UDP"), b"UDP");
    }
    let named = |address| census::name(transport, address);
    let peer = origin.peer.map_or_else(|| "unix".into(), named);
    rows.row(&format!("{number}:addr"), peer.as_bytes());
    if let Some(listener) = origin.listener.and_then(|listener| registry.census.listener(listener))
    {
        rows.row(&format!("{number}:listen_addr"), listener.as_bytes());
    }
    rows.row(&format!("{number}:state"), seen.doing.name().as_bytes());
    let silent = now.ticks.wrapping_sub(seen.active_at.into()) & u64::from(u32::MAX);
    // Another ring may be a moment ahead of this batch.
    let silent = if silent > u64::from(u32::MAX >> 1) { 0 } else { silent };
    let numbers = [
        ("secs_since_last_cmd", silent / TICKS_PER_S),
        ("reply_bytes", seen.reply_bytes),
        ("request_bytes", seen.request_bytes),
        ("item_bytes", seen.item_bytes),
    ];
    for (name, value) in numbers {
        rows.number(&format!("{number}:{name}"), value);
    }
}

fn setting(rows: &mut impl Rows, shared: &Shared, now: Now, place: usize) -> bool {
    let Some((name, value)) = shared.facts.settings.get(place) else { return false };
    match *name {
        // As peers have set it, as with those that are tuned.
        "verbosity" => {
            // Relaxed: it is a number by itself.
            rows.number(name, shared.verbosity.load(Ordering::Relaxed).into());
        }
        "track_sizes" => rows.row(name, if shared.tracks_sizes() { b"yes" } else { b"no" }),
        "detail_enabled" => rows.row(name, if shared.detail.is_on() { b"yes" } else { b"no" }),
        // What was stored before is dead; in seconds since the start, as there.
        "oldest" => {
            let flushed_s = shared.table.flushed_s();
            rows.number(name, flushed_s.map_or(0, |flushed_s| uptime_at(flushed_s, now)));
        }
        _ => {
            let tuned = shared.tuned.get(name);
            rows.row(name, tuned.as_ref().unwrap_or(value).as_bytes());
        }
    }
    true
}

/// How long the server had been up in a second of its clock, which another thread may have seen
/// first.
fn uptime_at(second: u64, now: Now) -> u64 {
    now.uptime_s().saturating_sub(now.seconds().saturating_sub(second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_may_be_a_second_ahead_of_who_asks() {
        let now = Now { ticks: 100 * TICKS_PER_S, epoch_unix_s: 1_700_000_000 };
        let uptime_s = now.uptime_s();
        let seconds = [now.seconds() - 1, now.seconds(), now.seconds() + 1];
        assert_eq!(seconds.map(|each| uptime_at(each, now)), [uptime_s - 1, uptime_s, uptime_s]);
        assert_eq!(uptime_at(0, now), uptime_s.saturating_sub(now.seconds()));
    }
}
