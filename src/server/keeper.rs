//! The thread that keeps pages in stock for loans, so that no ring waits for memory.
//!
//! A ring takes from the stock and goes on; letting go of items, and waiting until nobody looks at
//! them any more, is done here.

use std::io;
use std::time::Duration;

use crate::base::clock::Clock;
use crate::store::Participant;

/// How often it looks without being called: there was nothing to let go of, and now there may be.
const INTERVAL: Duration = Duration::from_millis(250);

/// Starts the thread, which lives as long as the process. `wake` is called when there is memory
/// again.
///
/// # Errors
/// When there may be no more threads.
pub fn start(
    mut participant: Participant,
    wake: impl Fn() + Send + 'static,
    clock: Clock,
) -> io::Result<()> {
    participant.offline();
    let run = move || {
        participant.keep_stock();
        loop {
            participant.online();
            let taken = participant.restock(clock.now());
            participant.offline();
            if taken > 0 {
                wake();
            }
            std::thread::park_timeout(INTERVAL);
        }
    };
    std::thread::Builder::new().name("keeper".into()).spawn(run).map(|_| ())
}
