//! What operations do to memory that threads share: writes, locks, and lines that must come from
//! another core.
//!
//! ```text
//!   cases: requests for each thread --Executor--> accesses --lines--> who had the line? --> table
//! ```
//!
//! A machine with two cores cannot show how 64 of them get on with each other; but which lines they
//! take from each other can be counted on any. The threads are the server's executors, and run in
//! turn on one thread of this process, batch by batch: the count is the same every time.

#[cfg(feature = "counted")]
mod cases;
#[cfg(feature = "counted")]
mod lines;

use std::io;

use clap::Args;

/// Count what requests do to memory that threads share.
///
/// Prints a table for one request in a batch of 16: stores, read-modify-writes, locks and fences,
/// and how many cache lines another thread had written since this one had them, or held when this
/// one wrote. Needs a build with the feature `counted`.
#[derive(Clone, Debug, Args)]
pub struct Shared {
    /// How many executors take turns; each number is a column
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [2, 8, 64],
          value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: Vec<u32>,
    /// Batches of each executor
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub batches: u32,
    /// Also name the lines of the source that take lines from others
    #[arg(long)]
    pub sites: bool,
}

/// # Errors
/// When there is no memory, or the program was built without the feature.
#[cfg(feature = "counted")]
#[allow(clippy::print_stdout, reason = "this is the program's output")]
pub fn run(options: &Shared) -> io::Result<()> {
    print!("{}", cases::table(options)?);
    Ok(())
}

/// # Errors
/// Always: the program was built without the feature.
#[cfg(not(feature = "counted"))]
pub fn run(_: &Shared) -> io::Result<()> {
    Err(io::Error::other("build with --features counted: accesses are counted only then"))
}
