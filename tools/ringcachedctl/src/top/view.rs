//! What two readings of one process amount to: rates, shares, and how values were spread between
//! them. All is over the time that the server itself measured.

use std::io::{self, Write};

use ringcached::base::histogram::Snapshot;
use ringcached::base::metrics::{Distribution, Unit};
use serde_json::{Map, Value};

use super::table::{Cell, Column, Table};
use crate::client::{Class, Figure, Reading, Sample};

const fn column(key: &'static str, heading: &'static str) -> Column {
    Column { key, heading }
}

const LATENCY: &[Column] = &[
    column("what", "latency"),
    column("per_s", "per s"),
    column("p50", "p50"),
    column("p90", "p90"),
    column("p99", "p99"),
    column("p999", "p99.9"),
    column("max", "max"),
];

const THREADS: &[Column] = &[
    column("name", "thread"),
    column("connections", "conns"),
    column("requests_per_s", "req/s"),
    column("batches_per_s", "batch/s"),
    column("turns_per_s", "turns/s"),
    column("completions_per_turn", "compl/turn"),
    column("requests_per_turn", "req/turn"),
    column("busy_percent", "busy %"),
    column("waited_percent", "waited %"),
    column("cpu", "cpu"),
    column("away", "away"),
    column("parked", "parked"),
    column("in_bytes_per_s", "in B/s"),
    column("out_bytes_per_s", "out B/s"),
];

const CLASSES: &[Column] = &[
    column("slot_bytes", "slot bytes"),
    column("pages", "pages"),
    column("bytes", "memory"),
    column("slots", "slots"),
    column("slots_used", "used"),
    column("used_percent", "used %"),
];

/// Which table is which.
pub(super) const TABLES: usize = 3;

/// What is shown at once.
#[derive(Clone, Debug)]
pub(crate) struct View {
    seconds: f64,
    /// Names and values of the process as a whole.
    pub(super) totals: Vec<(Column, Cell)>,
    pub(super) tables: [Table; TABLES],
}

impl View {
    /// `None` when the readings are not of one process, or not of two moments.
    pub(crate) fn between(last: &Reading, now: &Reading) -> Option<View> {
        let span = Span::between(&last.sample, &now.sample)?;
        let rows: Vec<_> = now.spreads.iter().map(|each| spread(&span, last, each)).collect();
        let latency = Table { key: "latency", title: "Latency", columns: LATENCY, rows };
        let rows = now.threads.iter().filter_map(|each| thread(&span, last, each)).collect();
        let threads = Table { key: "threads", title: "Rings and workers", columns: THREADS, rows };
        let page_bytes = now.sample.get("page_bytes").unwrap_or(0);
        let used = now.classes.iter().filter(|each| each.pages > 0);
        let rows = used.map(|each| class(each, page_bytes)).collect();
        let classes = Table { key: "classes", title: "Memory by class", columns: CLASSES, rows };
        let tables = [latency, threads, classes];
        Some(View { seconds: span.seconds(), totals: totals(&span, last, now), tables })
    }

    pub(crate) fn json(&self) -> Value {
        let totals = self.totals.iter().map(|(name, cell)| (name.key.to_owned(), cell.json()));
        let mut root: Map<_, _> = totals.collect();
        root.insert("seconds".into(), self.seconds.into());
        for table in &self.tables {
            root.insert(table.key.into(), table.json());
        }
        Value::Object(root)
    }

    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        for (name, cell) in &self.totals {
            writeln!(out, "{:<20} {}", name.heading, cell.text())?;
        }
        self.tables.iter().try_for_each(|table| table.write(out))
    }
}

/// The time between two samples.
struct Span {
    ns: u64,
}

impl Span {
    fn between(last: &Sample, now: &Sample) -> Option<Span> {
        let ns = now.elapsed_ns.checked_sub(last.elapsed_ns).filter(|ns| *ns > 0)?;
        let is_same = last.boot_id == now.boot_id;
        is_same.then_some(Span { ns })
    }

    fn seconds(&self) -> f64 {
        self.ns as f64 / 1e9
    }

    fn rate(&self, grown: Option<u64>) -> Cell {
        grown.map_or(Cell::Unknown, |grown| Cell::Rate(grown as f64 / self.seconds()))
    }

    fn bytes_rate(&self, grown: Option<u64>) -> Cell {
        let rate = |grown: u64| u128::from(grown) * 1_000_000_000 / u128::from(self.ns);
        grown.map_or(Cell::Unknown, |grown| Cell::Bytes(rate(grown).try_into().unwrap_or(u64::MAX)))
    }
}

fn value(figures: &[Figure], name: &str) -> Option<u64> {
    figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
}

/// By how much a figure has grown.
fn growth<'f>(last: &'f [Figure], now: &'f [Figure]) -> impl Fn(&str) -> Option<u64> + 'f {
    move |name| value(now, name)?.checked_sub(value(last, name)?)
}

/// A gauge; a part of one may be below 0 for a moment.
fn gauge(figures: &[Figure], name: &str) -> Cell {
    let value = value(figures, name).map(|value| value.cast_signed().max(0).cast_unsigned());
    value.map_or(Cell::Unknown, Cell::Count)
}

fn bytes(figures: &[Figure], name: &str) -> Cell {
    value(figures, name).map_or(Cell::Unknown, Cell::Bytes)
}

fn share(part: Option<u64>, whole: Option<u64>) -> Option<f64> {
    let (part, whole) = part.zip(whole).filter(|(_, whole)| *whole > 0)?;
    Some(part as f64 / whole as f64)
}

fn percent(part: Option<u64>, whole: Option<u64>) -> Cell {
    share(part, whole).map_or(Cell::Unknown, |share| Cell::Percent(100.0 * share))
}

fn totals(span: &Span, last: &Reading, now: &Reading) -> Vec<(Column, Cell)> {
    let figures = &now.sample.figures;
    let grown = growth(&last.sample.figures, figures);
    let rate = |name: &str| span.rate(grown(name));
    let asked = grown("get_hits").zip(grown("get_misses")).map(|(hits, misses)| hits + misses);
    vec![
        (column("uptime_s", "uptime s"), gauge(figures, "uptime")),
        (column("requests_per_s", "requests/s"), rate("requests")),
        (column("gets_per_s", "gets/s"), rate("cmd_get")),
        (column("sets_per_s", "sets/s"), rate("cmd_set")),
        (column("hit_percent", "hits %"), percent(grown("get_hits"), asked)),
        (column("evictions_per_s", "evictions/s"), rate("evictions")),
        (column("items", "items"), gauge(figures, "curr_items")),
        (column("item_bytes", "item bytes"), bytes(figures, "bytes")),
        (column("limit_bytes", "limit"), bytes(figures, "limit_maxbytes")),
        (column("free_page_bytes", "free pages"), bytes(figures, "free_page_bytes")),
        (column("connections", "connections"), gauge(figures, "curr_connections")),
        (column("connections_per_s", "connections/s"), rate("total_connections")),
        (column("throttled", "throttled"), gauge(figures, "throttle_parked")),
        (column("throttle_level", "throttle level"), gauge(figures, "throttle_level")),
        (column("throttles_per_s", "throttles/s"), rate("throttle_parks")),
        (column("in_bytes_per_s", "in B/s"), span.bytes_rate(grown("bytes_read"))),
        (column("out_bytes_per_s", "out B/s"), span.bytes_rate(grown("bytes_written"))),
        (column("enters_per_s", "enters/s"), rate("ring_turns")),
    ]
}

fn spread(span: &Span, last: &Reading, (name, now): &(String, Snapshot)) -> Vec<Cell> {
    let before = last.spreads.iter().find(|(other, _)| other == name).map(|(_, spread)| spread);
    let fresh = before.map_or_else(|| now.clone(), |before| now.since(before));
    let known = Distribution::ALL.iter().find(|each| each.name() == name);
    let cell = |number| match known.map(|each| each.unit()) {
        Some(Unit::Ns) => Cell::Ns(number),
        Some(Unit::Number) | None => Cell::Count(number),
    };
    let is_empty = fresh.count() == 0;
    let mut row = vec![Cell::Text(name.clone()), span.rate(Some(fresh.count()))];
    let bounds = fresh.rows().filter(|(name, _)| *name != "count");
    row.extend(bounds.map(|(_, bound)| if is_empty { Cell::Unknown } else { cell(bound) }));
    row
}

/// The row of a ring or worker; other threads have nothing to show here.
fn thread(span: &Span, last: &Reading, (name, now): &(String, Vec<Figure>)) -> Option<Vec<Cell>> {
    let is_ring = name.starts_with("ring ");
    if !is_ring && !name.starts_with("worker ") {
        return None;
    }
    let (_, before) = last.threads.iter().find(|(other, _)| other == name)?;
    let grown = growth(before, now);
    let per_turn =
        |name: &str| share(grown(name), grown("ring_turns")).map_or(Cell::Unknown, Cell::Rate);
    let batches = grown(if is_ring { "batches" } else { "batches_queued" });
    // A ring tells when it took its time; a worker's is of what it has executed.
    let elapsed_us = match is_ring {
        true => grown("busy_at_us"),
        false => Some(span.ns / 1000),
    };
    let of_ring = |cell| if is_ring { cell } else { Cell::Unknown };
    Some(vec![
        Cell::Text(name.clone()),
        of_ring(gauge(now, "curr_connections")),
        span.rate(grown("requests")),
        span.rate(batches),
        of_ring(span.rate(grown("ring_turns"))),
        per_turn("ring_completions"),
        per_turn("requests"),
        percent(grown("busy_us"), elapsed_us),
        of_ring(percent(grown("waited_us"), elapsed_us)),
        of_ring(gauge(now, "cpu")),
        of_ring(gauge(now, "batches_away")),
        of_ring(gauge(now, "throttle_parked")),
        of_ring(span.bytes_rate(grown("bytes_read"))),
        of_ring(span.bytes_rate(grown("bytes_written"))),
    ])
}

fn class(class: &Class, page_bytes: u64) -> Vec<Cell> {
    let used = class.slots.saturating_sub(class.slots_free);
    vec![
        Cell::Count(class.slot_bytes),
        Cell::Count(class.pages),
        Cell::Bytes(class.pages * page_bytes),
        Cell::Count(class.slots),
        Cell::Count(used),
        percent(Some(used), Some(class.slots)),
    ]
}
