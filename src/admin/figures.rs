//! The figures, gathered: first one for each metric, then the process, then the server's own.

use crate::base::clock::Clock;
use crate::base::histogram::Snapshot;
use crate::base::hot::{Of, Ranking};
use crate::base::metrics::{Counters, Distribution, Kind, Metric, Registry};
use crate::base::sync::Arc;

use super::{ClassFigures, Control};

/// Names of the figures that stand between the metrics and the server's own.
const PROCESS: [&str; 2] = ["pid", "uptime"];

/// One figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) is_gauge: bool,
    pub(super) value: u64,
}

pub(super) struct Figures {
    pub(super) registry: Arc<Registry>,
    pub(super) control: Arc<dyn Control>,
    pub(super) clock: Clock,
    /// True when who asks may be told keys.
    pub(super) tells_keys: bool,
}

impl Figures {
    /// The figures of the process, as they are now.
    pub(super) fn all(&self) -> Vec<Figure> {
        let metrics = Metric::ALL.iter().map(|metric| metric_figure(*metric, self.metric(*metric)));
        let process = [u64::from(std::process::id()), self.clock.now().uptime_s()];
        let process = PROCESS.iter().zip(process).map(|(name, value)| gauge(name, value));
        let own = self.control.figures();
        metrics.chain(process).chain(own.iter().map(|(name, value)| gauge(name, *value))).collect()
    }

    /// The figures of one thread: the metrics alone. A gauge's part in one thread may be negative.
    pub(super) fn of_thread(counters: &Counters) -> impl Iterator<Item = Figure> {
        Metric::ALL.iter().map(|metric| metric_figure(*metric, counters.get(*metric)))
    }

    pub(super) fn threads(&self) -> Vec<Arc<Counters>> {
        self.registry.threads()
    }

    /// The words of the size classes, class after class: bytes of a slot, pages, slots, free ones.
    pub(super) fn classes(&self) -> Vec<u64> {
        let words =
            |each: &ClassFigures| [each.slot_bytes, each.pages, each.slots, each.slots_free];
        self.control.classes().iter().flat_map(words).collect()
    }

    /// How values are spread since the start of the process: counts by bucket.
    pub(super) fn spread(&self, distribution: Distribution) -> Snapshot {
        self.registry.raw_spread(distribution)
    }

    /// What is asked for most just now.
    pub(super) fn hottest(&self, of: Of) -> Arc<Ranking> {
        self.registry.hot.hottest(of, self.clock.now())
    }

    /// A metric since the start of the process.
    pub(super) fn metric(&self, metric: Metric) -> u64 {
        self.registry.raw(metric)
    }
}

fn metric_figure(metric: Metric, value: u64) -> Figure {
    Figure { name: metric.name(), is_gauge: metric.kind() != Kind::Counter, value }
}

fn gauge(name: &'static str, value: u64) -> Figure {
    Figure { name, is_gauge: true, value }
}
