//! `stats`, `stats settings` and `stats conns`, with memcached's names and in its order; and what
//! is only ours, see `instruments`.
//!
//! A row is left out when it says nothing about this server: slab classes, LRU. `hash_bytes` is the
//! index; `slab_global_page_pool` the pages that nobody uses; `response_obj_bytes` the blocks in
//! which replies wait. The rows of the ledger come last.

use std::sync::atomic::Ordering;

use super::batch::{Batch, Step};
use super::instruments;
use super::ledger::LEDGER;
use super::session::{Group, State};
use super::{Rusage, Shared, Verdict};
use std::net::SocketAddr;

use crate::base::census::Sighting;
use crate::base::clock::{Now, TICKS_PER_S};
use crate::base::metrics::Metric;
use crate::base::output::Output;
use crate::protocol::memcache::reply;

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

//= protocol.txt "General-purpose statistics"
const GENERAL: &[(&str, Source)] = &[
    ("pid", Number(|shared, _| shared.facts.pid.into())),
    ("uptime", Number(|_, now| now.uptime_s())),
    ("time", Number(|_, now| now.unix_s())),
    ("version", Text(|shared| shared.facts.version.into())),
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
    ("read_buf_bytes", Number(|shared, _| shared.facts.fixed.receive_bytes)),
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
    // Nobody can authenticate yet; monitors ask for the rows.
    ("auth_cmds", Number(|_, _| 0)),
    ("auth_errors", Number(|_, _| 0)),
    metric(Metric::IdleKicks),
    metric(Metric::BytesRead),
    metric(Metric::BytesWritten),
    ("limit_maxbytes", Number(|shared, _| shared.table.figures().limit_bytes)),
    ("accepting_conns", Number(|shared, _| 1 - shared.registry.sum(Metric::AcceptsPaused).min(1))),
    metric(Metric::ListenDisabledNum),
    ("threads", Number(|shared, _| shared.facts.threads.into())),
    metric(Metric::ConnYields),
    ("hash_bytes", Number(|shared, _| shared.table.figures().index_bytes)),
    metric(Metric::SlabsMoved),
    metric(Metric::Bytes),
    metric(Metric::CurrItems),
    metric(Metric::TotalItems),
    ("slab_global_page_pool", Number(|shared, _| shared.table.figures().pages_free)),
    metric(Metric::ExpiredUnfetched),
    metric(Metric::EvictedUnfetched),
    metric(Metric::Evictions),
    metric(Metric::Reclaimed),
    metric(Metric::CrawlerReclaimed),
    metric(Metric::CrawlerItemsChecked),
    // What follows is ours.
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
    metric(Metric::RateParked),
    metric(Metric::RateParks),
    metric(Metric::RateHeldBytes),
    metric(Metric::RateWaitUs),
    metric(Metric::RateForgotten),
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
    metric(Metric::Spans),
    metric(Metric::SpannedBytes),
    metric(Metric::SpansCopied),
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
        let rows = match report.group {
            Group::General => GENERAL.len() + LEDGER.len(),
            Group::Settings => shared.facts.settings.len(),
            Group::Connections | Group::Latency | Group::Rings => 0,
        };
        loop {
            let obstacle = if self.output.is_full() {
                Some(Verdict::OutputFull)
            } else {
                (self.budget.requests == 0).then_some(Verdict::Yield)
            };
            if obstacle.is_some() {
                return obstacle;
            }
            let registry = &shared.registry;
            let has_row = match report.group {
                Group::Connections => match registry.census.next(report.rows) {
                    Some((position, seen, address)) => {
                        let number = registry.census.number(position);
                        connection(self.output, number, (&seen, address), self.now);
                        report.rows = position;
                        true
                    }
                    None => false,
                },
                Group::Latency => instruments::latency(self.output, registry, report.rows),
                Group::Rings => instruments::ring(self.output, registry, report.rows),
                Group::General => {
                    report.rows < rows && {
                        general(self.output, shared, self.now, report.rows);
                        true
                    }
                }
                Group::Settings => {
                    report.rows < rows && {
                        setting(self.output, shared, report.rows);
                        true
                    }
                }
            };
            if !has_row {
                break;
            }
            report.rows += 1;
            self.budget.requests -= 1;
        }
        self.output.put(reply::END);
        *state = State::Idle;
        None
    }
}

fn general(output: &mut impl Output, shared: &Shared, now: Now, row: usize) {
    let Some((name, source)) = GENERAL.get(row) else {
        let (name, number) = LEDGER[row - GENERAL.len()];
        let figures = shared.table.figures();
        return reply::stat_number(output, name, number(shared, &figures));
    };
    match source {
        Source::Metric(metric) => reply::stat_number(output, name, shared.registry.sum(*metric)),
        Number(number) => reply::stat_number(output, name, number(shared, now)),
        Text(text) => reply::stat(output, name, text(shared).as_bytes()),
    }
}

/// The rows of one connection: memcached's names for what it has, and what it holds.
//= protocol.txt "Connection statistics"
fn connection(
    output: &mut impl Output,
    number: u64,
    (seen, address): (&Sighting, Option<SocketAddr>),
    now: Now,
) {
    let peer = address.map_or_else(|| "unix".to_owned(), |address| format!("tcp:{address}"));
    reply::stat(output, &format!("{number}:addr"), peer.as_bytes());
    reply::stat(output, &format!("{number}:state"), seen.doing.name().as_bytes());
    let silent = now.ticks.wrapping_sub(seen.active_at.into()) & u64::from(u32::MAX);
    let rows = [
        ("secs_since_last_cmd", silent / TICKS_PER_S),
        ("reply_bytes", seen.reply_bytes),
        ("request_bytes", seen.request_bytes),
        ("item_bytes", seen.item_bytes),
    ];
    for (name, value) in rows {
        reply::stat_number(output, &format!("{number}:{name}"), value);
    }
}

fn setting(output: &mut impl Output, shared: &Shared, row: usize) {
    let (name, value) = &shared.facts.settings[row];
    match *name {
        // The one setting that a peer can change.
        "verbosity" => {
            // Relaxed: it is a number by itself.
            reply::stat_number(output, name, shared.verbosity.load(Ordering::Relaxed).into());
        }
        _ => reply::stat(output, name, value.as_bytes()),
    }
}
