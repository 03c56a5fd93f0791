//! The store against its budgets.
//!
//! ```text
//!   options --> bytes, held, trap, expiry    over servers: peers, wire, rss ---+
//!           --> growth, lookup, check        in this process: local            +--> sheet
//!   sizes: what is stored, by number ------------------------------------------+
//! ```

mod bytes;
mod check;
mod expiry;
pub mod local;
mod lookup;
pub mod options;
mod pauses;
mod peers;
pub mod rss;
pub mod sheet;
mod sizes;
mod trap;
pub mod wire;

use std::fs;
use std::io;

use crate::machine::Machine;
use options::{Bench, Store};

/// Runs a bench and prints its table. Fails when something happened that must not.
#[allow(clippy::print_stdout, reason = "this is the program's output")]
pub fn run(options: &Store) -> io::Result<()> {
    let sheet = match &options.bench {
        Bench::Bytes(options) => bytes::bytes(options),
        Bench::Held(options) => bytes::held(options),
        Bench::Trap(options) => trap::trap(options),
        Bench::Expiry(options) => expiry::expiry(options),
        Bench::Check(options) => check::check(options),
        Bench::Growth(options) => pauses::growth(options),
        Bench::Lookup(options) => lookup::lookup(options),
    }?;
    let command: Vec<String> = std::env::args().collect();
    let text = sheet.markdown(&Machine::this(), &command.join(" "));
    println!("{text}");
    if let Some(path) = &options.markdown {
        fs::write(path, &text)?;
    }
    match sheet.failures() {
        0 => Ok(()),
        count => Err(io::Error::other(format!("{count} failures; the notes say which"))),
    }
}
