//! What the server may use of io_uring: one row a feature.
//!
//! The first kernel stands here for the reader only. Nothing decides by it: kernels are patched,
//! backported and filtered, so `trial` asks the kernel at hand for the behaviour itself.

/// Something that a kernel may or may not do. Its number is its row in `FEATURES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    SetUp,
    CqSize,
    SubmitAll,
    AcceptMultishot,
    ReceiveMultishot,
    NoSqArray,
    NoIoWait,
    RegisteredRing,
    MinWait,
    ReceiveCap,
    ReceiveBundle,
    IncrementalBuffers,
    SendZeroCopy,
    CollapseMemfd,
}

/// Whether the server can do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Required,
    Optional,
}

/// What is known about a feature before anything is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub feature: Feature,
    pub name: &'static str,
    /// The first mainline kernel that has it, for the reader.
    pub since: &'static str,
    pub need: Need,
    /// What it is worth, in one phrase.
    pub worth: &'static str,
    /// What happens without it.
    pub instead: &'static str,
}

const REFUSE: &str = "nothing: refuse to start";

/// Required rows first; each row at the number of its feature.
pub const FEATURES: &[Row] = &[
    Row {
        feature: Feature::SetUp,
        name: "SINGLE_ISSUER + DEFER_TASKRUN",
        since: "6.1",
        need: Need::Required,
        worth: "completions in our own enter, a batch at a time",
        instead: REFUSE,
    },
    Row {
        feature: Feature::CqSize,
        name: "CQSIZE",
        since: "5.5",
        need: Need::Required,
        worth: "room for multishots: more completions than submissions",
        instead: REFUSE,
    },
    Row {
        feature: Feature::SubmitAll,
        name: "SUBMIT_ALL",
        since: "5.18",
        need: Need::Required,
        worth: "one enter submits all, also behind a refused one",
        instead: REFUSE,
    },
    Row {
        feature: Feature::AcceptMultishot,
        name: "multishot accept",
        since: "5.19",
        need: Need::Required,
        worth: "one submission a listener, not one a connection",
        instead: REFUSE,
    },
    Row {
        feature: Feature::ReceiveMultishot,
        name: "multishot receive, buffer ring",
        since: "6.0",
        need: Need::Required,
        worth: "one submission a connection, no buffer while idle",
        instead: REFUSE,
    },
    Row {
        feature: Feature::NoSqArray,
        name: "NO_SQARRAY",
        since: "6.6",
        need: Need::Optional,
        worth: "one indirection less a submission",
        instead: "rings with the index array",
    },
    Row {
        feature: Feature::NoIoWait,
        name: "NO_IOWAIT",
        since: "6.15",
        need: Need::Optional,
        worth: "an idle ring does not show as 100 % iowait",
        instead: "plain waits: read iowait and io pressure with care",
    },
    Row {
        feature: Feature::RegisteredRing,
        name: "registered ring descriptor",
        since: "5.18",
        need: Need::Optional,
        worth: "580-600 ns an enter, against 695-1032",
        instead: "the plain descriptor",
    },
    Row {
        feature: Feature::MinWait,
        name: "min_wait",
        since: "6.12",
        need: Need::Optional,
        worth: "fewer wake-ups: under load waits 20-50 us for a batch",
        instead: "a wait ends with its first completion",
    },
    Row {
        feature: Feature::ReceiveCap,
        name: "byte cap on multishot receive",
        since: "6.17",
        need: Need::Optional,
        worth: "no connection can take a whole turn",
        instead: "the budget of a turn, counted by the server",
    },
    Row {
        feature: Feature::ReceiveBundle,
        name: "receive bundles",
        since: "6.10",
        need: Need::Optional,
        worth: "10,000 bytes in 2 completions instead of 3",
        instead: "one completion a buffer",
    },
    Row {
        feature: Feature::IncrementalBuffers,
        name: "incremental buffers",
        since: "6.12",
        need: Need::Optional,
        worth: "small receives share one large buffer",
        instead: "one buffer a receive",
    },
    Row {
        feature: Feature::SendZeroCopy,
        name: "SENDMSG_ZC",
        since: "6.1",
        need: Need::Optional,
        worth: "no copy to a NIC (loopback, 256 KiB: 114 us for 103)",
        instead: "plain sends; it is off by default anyway",
    },
    Row {
        feature: Feature::CollapseMemfd,
        name: "MADV_COLLAPSE of a memfd",
        since: "6.1",
        need: Need::Optional,
        worth: "huge pages: a lookup in 20 million items 1/3 faster",
        instead: "4-KiB pages",
    },
];

/// What the kernel at hand answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Not asked.
    Untried,
    Yes,
    /// It works, with a reservation that the operator should know.
    YesBut(&'static str),
    /// Refused with this errno.
    No(i32),
    /// Accepted, but what happened is not what the feature promises.
    Differs(&'static str),
}

impl Answer {
    pub fn is_yes(self) -> bool {
        match self {
            Answer::Yes | Answer::YesBut(_) => true,
            Answer::Untried | Answer::No(_) | Answer::Differs(_) => false,
        }
    }
}

/// The answers of the kernel at hand, one a feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Support {
    pub answers: [Answer; FEATURES.len()],
}

impl Support {
    pub const UNTRIED: Support = Support { answers: [Answer::Untried; FEATURES.len()] };

    pub fn answer(&self, feature: Feature) -> Answer {
        self.answers[feature as usize]
    }

    pub(super) fn record(&mut self, feature: Feature, answer: Answer) {
        self.answers[feature as usize] = answer;
    }

    /// The features that were tried, are needed, and do not work.
    pub fn missing(&self, need: Need) -> impl Iterator<Item = &'static Row> {
        FEATURES.iter().zip(self.answers).filter_map(move |(row, answer)| {
            let missing = row.need == need && !answer.is_yes() && answer != Answer::Untried;
            missing.then_some(row)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_has_its_row_and_required_ones_come_first() {
        for (index, row) in FEATURES.iter().enumerate() {
            assert_eq!(row.feature as usize, index, "{}", row.name);
        }
        assert!(FEATURES.is_sorted_by_key(|row| row.need == Need::Optional));
    }

    #[test]
    fn untried_is_neither_there_nor_missing() {
        let mut support = Support::UNTRIED;
        assert!(!support.answer(Feature::MinWait).is_yes());
        assert_eq!(support.missing(Need::Optional).count(), 0);
        support.record(Feature::MinWait, Answer::No(libc::EINVAL));
        support.record(Feature::SendZeroCopy, Answer::YesBut("loopback copies"));
        let missing: Vec<_> = support.missing(Need::Optional).map(|row| row.feature).collect();
        assert_eq!(missing, [Feature::MinWait]);
        assert!(support.answer(Feature::SendZeroCopy).is_yes());
    }
}
