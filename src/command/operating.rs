//! Requests of operators: what they do here.
//!
//! What has a counterpart does it: a crawl is a round of the sweep, a page leaves its class, the
//! limit moves. What only tunes memcached's own
//! insides is remembered, and shown in `stats settings`, where monitors look for it.

use std::collections::BTreeMap;

use super::batch::{Batch, Step};
use super::dumping::Selection;
use super::session::State;
use crate::base::output::Output;
use crate::base::sync::Mutex;
use crate::protocol::memcache::{Hundredths, Operator, Tune, reply};
use crate::store::Reassigned;

/// Rows of `stats settings` that peers have changed.
#[derive(Debug, Default)]
pub struct Tuned(Mutex<BTreeMap<&'static str, String>>);

impl Tuned {
    pub(super) fn get(&self, name: &str) -> Option<String> {
        self.0.lock().get(name).cloned()
    }

    pub(super) fn set(&self, name: &'static str, value: impl ToString) {
        self.0.lock().insert(name, value.to_string());
    }

    /// What is tuned is shown, and nothing else.
    fn tune(&self, tune: Tune) {
        let ratio = |Hundredths(number): Hundredths| {
            let (sign, size) = (if number < 0 { "-" } else { "" }, number.unsigned_abs());
            format!("{sign}{}.{:02}", size / 100, size % 100)
        };
        match tune {
            Tune::CrawlerSleepUs(sleep_us) => self.set("lru_crawler_sleep", sleep_us),
            Tune::CrawlerItems(items) => self.set("lru_crawler_tocrawl", items),
            Tune::AutomoveLevel(level) => self.set("slab_automove", level),
            Tune::AutomoveRatio(number) => self.set("slab_automove_ratio", ratio(number)),
            Tune::AutomoveWindow(window_s) => self.set("slab_automove_window", window_s),
            Tune::Lists { percents: [hot, warm], factors: [hot_factor, warm_factor] } => {
                self.set("hot_lru_pct", hot);
                self.set("warm_lru_pct", warm);
                self.set("hot_max_factor", ratio(hot_factor));
                self.set("warm_max_factor", ratio(warm_factor));
            }
            Tune::Segmented(segmented) => self.set("lru_segmented", yes_no(segmented)),
            Tune::TemporaryTtl(ttl_s) => {
                self.set("temp_lru", yes_no(ttl_s.is_some()));
                if let Some(ttl_s) = ttl_s {
                    self.set("temporary_ttl", ttl_s);
                }
            }
            Tune::Other => {}
        }
    }
}

fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

impl<O: Output> Batch<'_, O> {
    pub(super) fn operate(
        &mut self,
        operator: &Operator<'_>,
        noreply: bool,
        state: &mut State,
    ) -> Step {
        let reply = match *operator {
            Operator::Dump { form, classes } => {
                self.start_dump(form, classes, state);
                return None;
            }
            Operator::DumpClass(asked) => {
                self.start_class_dump(asked, state);
                return None;
            }
            Operator::DeletePrefix { prefix } => {
                self.start_pruning(prefix, noreply, state);
                return None;
            }
            Operator::Watch { kinds } => return self.start_watch(kinds, state),
            Operator::Crawl { classes } => self.crawl(classes),
            Operator::Crawler { on } => self.switch_crawler(on),
            Operator::Reassign { from, to } => self.reassign(from, to),
            Operator::MemoryLimit { megabytes } => self.limit_memory(megabytes),
            Operator::RefreshCertificates => reply::NO_TLS,
            Operator::Tune(tune) => {
                self.executor.shared.tuned.tune(tune);
                reply::OK
            }
        };
        self.reply(reply, noreply);
        None
    }

    /// Asks for a round of the sweep.
    fn crawl(&self, classes: &[u8]) -> &'static [u8] {
        let table = self.executor.table();
        if !table.sweeps() {
            return reply::CRAWLER_DISABLED;
        }
        match Selection::parse(classes, table.class_count()) {
            Err(()) => reply::BAD_CLASS,
            Ok(Selection::None) => reply::NOTHING_TO_CRAWL,
            // As memcached has it.
            Ok(Selection::Hash) => reply::CRAWLER_ERROR,
            // A page holds items of every size: all pages are looked at.
            Ok(Selection::All | Selection::Some(_)) if table.ask_for_round() => reply::OK,
            Ok(Selection::All | Selection::Some(_)) => reply::CRAWLER_BUSY,
        }
    }

    fn switch_crawler(&self, on: bool) -> &'static [u8] {
        let table = self.executor.table();
        if on && table.sweeps() {
            return reply::CRAWLER_IS_ON;
        }
        table.set_sweeps(on);
        self.executor.shared.tuned.set("lru_crawler", yes_no(on));
        reply::OK
    }

    fn reassign(&mut self, from: i32, to: i32) -> &'static [u8] {
        match self.participant().reassign(from, to) {
            Reassigned::Begun => reply::OK,
            Reassigned::Busy => reply::REASSIGN_BUSY,
            Reassigned::NoSuchClass => reply::REASSIGN_BAD_CLASS,
            Reassigned::NoSpare => reply::REASSIGN_NO_SPARE,
            Reassigned::Same => reply::REASSIGN_SAME,
        }
    }

    /// Moves the limit; the keeper does what follows from it.
    fn limit_memory(&self, megabytes: u32) -> &'static [u8] {
        let (shared, bytes) = (&self.executor.shared, u64::from(megabytes) << 20);
        if !shared.table.set_limit(bytes) {
            return reply::LIMIT_NOT_ADJUSTED;
        }
        shared.tuned.set("maxbytes", bytes);
        reply::OK
    }
}
