//! The command line of the bench of crowds.

use std::path::PathBuf;

use clap::{Args, ValueEnum, value_parser};

use crate::options::{Labelled, seconds};

/// Measure many connections: idle, active, and coming and going.
///
/// idle: connections from many source addresses, which first say nothing and then ask once each.
/// RSS of the server before and after is what each takes, and must come to 100 MiB for 100,000 at
/// most. Processor time of the server is watched while nobody says anything, without connections
/// and with all of them, and must stay below 0.2 % of a core. When all are gone, three quarters of
/// what they took must be free. Where the limit of open files allows fewer connections, so many are
/// made, and the table says so.
///
/// active: a closed loop of gets at depth 1 over many connections; slices of all servers are
/// interleaved, each round beginning with another one.
///
/// storms: connect, one get, close, 64 at a time, as fast as it goes; interleaved as well.
///
/// The exit code is not 0 when there were errors, or ringcached missed what it must reach.
#[derive(Clone, Debug, Args)]
pub struct Crowd {
    /// What to measure
    #[arg(long, value_name = "NAME,...", value_enum, value_delimiter = ',',
          default_values_t = Part::value_variants().to_vec())]
    pub parts: Vec<Part>,
    /// Idle connections [default: 100000]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=2_000_000))]
    pub idle: Option<u32>,
    /// How long processor time is watched while nobody says anything [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub watch_seconds: Option<f64>,
    /// Do not fail because of processor time: on an emulated processor it says little
    #[arg(long)]
    pub any_time: bool,
    /// Active connections [default: 10000]
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=60_000))]
    pub active: Option<u16>,
    /// Connections of a slice of a storm [default: 20000]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(64..=1_000_000))]
    pub storm: Option<u32>,
    /// Rounds: slices of each server [default: 4]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=100))]
    pub slices: Option<u32>,
    /// Length of an active slice [default: 1.5]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub slice_seconds: Option<f64>,
    /// Few connections and short slices unless said otherwise: a look, not a measurement
    #[arg(long)]
    pub quick: bool,
    /// A ringcached to measure, in every mode of --dispatch; may be repeated
    /// [default: ringcached beside this program]
    #[arg(long, value_name = "[LABEL=]PATH")]
    pub ringcached: Vec<Labelled>,
    /// Dispatch modes of ringcached
    #[arg(long, value_name = "MODE,...", default_value = "auto", value_delimiter = ',')]
    pub dispatch: Vec<String>,
    /// A memcached to measure with -t 1; may be repeated [default: memcached on PATH]
    #[arg(long, value_name = "[LABEL=]PATH")]
    pub memcached: Vec<Labelled>,
    /// Leave out memcached
    #[arg(long)]
    pub no_memcached: bool,
    /// Leave out the null server
    #[arg(long)]
    pub no_null: bool,
    /// Memory of each server, in megabytes
    #[arg(long, value_name = "MB", default_value_t = 1024)]
    pub memory: u32,
    /// Core of the servers
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub server_core: usize,
    /// Core of the clients
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub client_core: usize,
    /// Write the tables and how they were made to a file, in Markdown
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Write every slice to a file, in JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    Idle,
    Active,
    Storms,
}

impl Crowd {
    fn or<T>(&self, said: Option<T>, quick: T, default: T) -> T {
        said.unwrap_or(if self.quick { quick } else { default })
    }

    pub fn idle(&self) -> u32 {
        self.or(self.idle, 2000, 100_000)
    }

    pub fn watch_s(&self) -> f64 {
        self.or(self.watch_seconds, 1.0, 10.0)
    }

    pub fn active(&self) -> u16 {
        self.or(self.active, 500, 10_000)
    }

    pub fn storm(&self) -> u32 {
        self.or(self.storm, 2000, 20_000)
    }

    pub fn slices(&self) -> u32 {
        self.or(self.slices, 1, 4)
    }

    pub fn slice_s(&self) -> f64 {
        self.or(self.slice_seconds, 0.3, 1.5)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::{Command, Options};

    #[test]
    fn a_quick_look_is_quick_but_where_it_was_told_otherwise() {
        let crowd = |words: &[&str]| {
            let words = ["ringcached-bench", "crowd"].iter().chain(words);
            let Command::Crowd(options) = Options::parse_from(words).command else {
                unreachable!("crowd was asked for");
            };
            options
        };
        let default = crowd(&[]);
        assert_eq!((default.idle(), default.active(), default.slices()), (100_000, 10_000, 4));
        assert_eq!(default.parts, [Part::Idle, Part::Active, Part::Storms]);
        let quick = crowd(&["--quick", "--idle", "7", "--parts", "idle"]);
        assert_eq!((quick.idle(), quick.active(), quick.slices()), (7, 500, 1));
        assert_eq!(quick.parts, [Part::Idle]);
    }
}
