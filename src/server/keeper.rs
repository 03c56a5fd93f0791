//! The thread that keeps the ledger: pages in stock for loans, and pages taken out of use for what
//! connections take of the heap, or because the limit was lowered.
//!
//! A ring takes from the stock and goes on; letting go of items, and waiting until nobody looks at
//! them any more, is done here.

use std::io;
use std::time::Duration;

use crate::base::clock::Clock;
use crate::base::metrics::{Metric, Registry};
use crate::base::sync::Arc;
use crate::command::EvictionLog;
use crate::store::Participant;
use crate::sys::heap;

/// How often it looks without being called: there was nothing to let go of, and now there may be.
const INTERVAL: Duration = Duration::from_millis(250);
/// How long it rests between two steps of the way to a lower limit, for others to store.
const REST: Duration = Duration::from_millis(1);

/// What takes memory of the heap that pages are taken out of use for.
const OF_HEAP: [Metric; 3] = [Metric::InputBytes, Metric::ConnBytes, Metric::LogBytes];

/// Starts the thread, which lives as long as the process. `wake` is called when there is memory
/// again.
///
/// # Errors
/// When there may be no more threads.
pub fn start(
    (mut participant, mut evictions): (Participant, EvictionLog),
    wake: impl Fn() + Send + 'static,
    registry: Arc<Registry>,
    clock: Clock,
) -> io::Result<()> {
    participant.offline();
    let run = move || {
        participant.keep_stock();
        loop {
            participant.online();
            let now = clock.now();
            let heap = OF_HEAP.iter().map(|metric| registry.raw(*metric)).sum();
            participant.settle(heap, heap::trim, now);
            let has_more = participant.keep_limit(now);
            let taken = participant.restock(now);
            evictions.tell(&mut participant, now);
            participant.offline();
            if taken > 0 {
                wake();
            }
            std::thread::park_timeout(if has_more { REST } else { INTERVAL });
        }
    };
    std::thread::Builder::new().name("keeper".into()).spawn(run).map(|_| ())
}
