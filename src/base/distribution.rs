//! What is known by how its values are spread, and not by a sum alone.

/// What the values of a distribution count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Ns,
    Number,
}

macro_rules! distributions {
    ($($(#[$doc:meta])* $variant:ident $name:literal $unit:ident,)+) => {
        /// What is known by how its values are spread.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum Distribution { $($(#[$doc])* $variant,)+ }

        impl Distribution {
            pub const ALL: &[Distribution] = &[$(Distribution::$variant,)+];

            pub const fn name(self) -> &'static str {
                match self { $(Distribution::$variant => $name,)+ }
            }

            pub const fn unit(self) -> Unit {
                match self { $(Distribution::$variant => Unit::$unit,)+ }
            }
        }
    };
}

distributions! {
    /// From when the bytes of a request were taken from the kernel until the batch that it was in
    /// had been executed: lists of one key.
    Get "get" Ns,
    /// As `Get`: lists of several keys.
    MultiGet "multi_get" Ns,
    /// As `Get`: storage commands, from when the last of the value came.
    Store "store" Ns,
    /// As `Get`: delete, touch, incr, decr.
    Change "change" Ns,
    /// As `Get`: all other requests.
    Other "other" Ns,
    /// How long a batch waited until it was executed.
    BatchWait "batch_wait" Ns,
    /// How long it was executed.
    BatchRun "batch_run" Ns,
    /// How long a batch waited for a worker.
    QueueWait "queue_wait" Ns,
    /// Batches in the queue to the workers, with one that is put there.
    QueueDepth "queue_depth" Number,
    TurnCompletions "turn_completions" Number,
    /// Batches that the ring itself executed in a turn.
    TurnBatches "turn_batches" Number,
    TurnRequests "turn_requests" Number,
}

impl Distribution {
    /// The name in statistics of one of the rows of `Snapshot::rows`: "get:p99_ns".
    pub fn row_name(self, row: &str) -> String {
        let unit = match self.unit() {
            Unit::Ns if row != "count" => "_ns",
            Unit::Ns | Unit::Number => "",
        };
        format!("{}:{row}{unit}", self.name())
    }
}
