//! Instructions that the parts of a request take, counted by callgrind.
//!
//! ```text
//!   cases: parse, hash, look up, encode, whole turns      counts: bench/instructions.txt
//!     |                                                     | recorded        ^ record
//!     +-- run under valgrind, twice as often --> callgrind -+-- compared --> check
//! ```
//!
//! A count is noise-free where a time is not: a change of one instruction shows in a diff.

mod callgrind;
mod cases;
mod counts;

use std::fs;
use std::io;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use counts::Counts;

/// Count the instructions of the parts of a request.
///
/// Each part runs under valgrind, which must be installed, so often and twice as often; the
/// difference is what is counted. What is counted depends on the compiler and on its options: the
/// file says with what it was recorded.
#[derive(Clone, Debug, Args)]
pub struct Instructions {
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// Count, and print
    Show(Chosen),
    /// Count, and write the file
    Record(File),
    /// Count, and fail where a count differs from the file by more than the tolerance
    Check(Check),
    /// Run one part so often: what the others run under valgrind
    Run(Run),
}

#[derive(Clone, Debug, Args)]
pub struct Chosen {
    /// Only the parts with this in their names
    #[arg(default_value = "")]
    pub name: String,
}

#[derive(Clone, Debug, Args)]
pub struct File {
    /// Where the counts are kept
    #[arg(long, value_name = "FILE", default_value = "bench/instructions.txt")]
    pub file: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub struct Check {
    #[command(flatten)]
    pub file: File,
    /// Most that a count may differ, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 2.0)]
    pub tolerance: f64,
}

#[derive(Clone, Debug, Args)]
pub struct Run {
    pub name: String,
    pub rounds: u32,
}

/// Does what is asked for. Fails when a count is beyond the tolerance.
#[allow(clippy::print_stdout, reason = "this is the program's output")]
pub fn run(options: &Instructions) -> io::Result<()> {
    match &options.action {
        Action::Run(run) => cases::run(&run.name, run.rounds),
        Action::Show(chosen) => {
            print!("{}", count(&chosen.name)?);
            Ok(())
        }
        Action::Record(file) => fs::write(&file.file, count("")?.to_string()),
        Action::Check(check) => {
            let recorded = Counts::parse(&fs::read_to_string(&check.file.file)?)?;
            let (table, beyond) = recorded.compare(&count("")?, check.tolerance);
            print!("{table}");
            match beyond {
                0 => Ok(()),
                _ => Err(io::Error::other(format!(
                    "{beyond} counts differ; if they are meant to, record them: \
                     ringcached-bench instructions record"
                ))),
            }
        }
    }
}

fn count(name: &str) -> io::Result<Counts> {
    let chosen = cases::ALL.iter().filter(|case| case.name.contains(name));
    let counted = |case: &cases::Case| {
        let few = callgrind::instructions(case.name, case.rounds)?;
        let many = callgrind::instructions(case.name, 2 * case.rounds)?;
        let each = many.saturating_sub(few) as f64 / f64::from(case.rounds);
        Ok((case.name.to_owned(), each))
    };
    let rows = chosen.map(counted).collect::<io::Result<_>>()?;
    Ok(Counts { taken_with: callgrind::taken_with()?, rows })
}
