//! Why a connection ends: one reason for each, which is also the label of a counter.

use crate::base::metrics::Metric;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer has said that it sends no more, and has its replies.
    Ended,
    /// The connection broke: a reset, or an error of a receive or send.
    Broken,
    /// The peer asked for it, or broke the protocol beyond repair.
    Command,
    /// Nothing moved for as long as the operator lets peers be idle.
    Idle,
    /// It sent on without reading.
    Stalled,
    /// The server stops.
    Draining,
    /// Others waited for the blocks that its unread replies filled.
    Replies,
    /// Connections took too much of the memory that is for them.
    Pool,
    /// Items found no place in the memory that it kept.
    Items,
    /// It kept large values that are gone from others, and did not read them.
    Spans,
}

impl CloseReason {
    pub const ALL: [CloseReason; 10] = [
        CloseReason::Ended,
        CloseReason::Broken,
        CloseReason::Command,
        CloseReason::Idle,
        CloseReason::Stalled,
        CloseReason::Draining,
        CloseReason::Replies,
        CloseReason::Pool,
        CloseReason::Items,
        CloseReason::Spans,
    ];

    pub fn metric(self) -> Metric {
        match self {
            CloseReason::Ended => Metric::ClosedEnded,
            CloseReason::Broken => Metric::ClosedBroken,
            CloseReason::Command => Metric::ClosedCommand,
            CloseReason::Idle => Metric::IdleKicks,
            CloseReason::Stalled => Metric::ClosedStalled,
            CloseReason::Draining => Metric::ClosedDraining,
            CloseReason::Replies => Metric::ClosedForReplies,
            CloseReason::Pool => Metric::ClosedForPool,
            CloseReason::Items => Metric::ClosedForItems,
            CloseReason::Spans => Metric::ClosedForSpans,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_counter_of_its_own() {
        let mut names: Vec<_> = CloseReason::ALL.map(|each| each.metric().name()).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CloseReason::ALL.len());
    }
}
