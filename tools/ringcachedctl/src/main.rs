//! `ringcachedctl`: reads the live statistics of a ringcached over UDP.
//!
//! ```text
//!   main (arguments, exit code) --> stats, watch, top (what is shown) --> client (datagrams)
//! ```
//!
//! Exit codes: 0 done, 1 no answer or a bad key file, 2 wrong arguments.
#![forbid(unsafe_code)]

mod client;
mod stats;
mod top;
mod watch;

use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use ringcached::config::{ADMIN_PORT_OFFSET, AdminKey};

use client::Client;

/// Where a server on memcached's port answers.
const DEFAULT_PORT: u16 = 11211 + ADMIN_PORT_OFFSET;

/// Shows the live statistics of a ringcached
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Address of the statistics; the server prints it when it starts
    #[arg(long, global = true, value_name = "ADDR:PORT",
          default_value_t = format!("127.0.0.1:{DEFAULT_PORT}"))]
    server: String,

    /// File with the key that the server was given with --admin-key-file
    #[arg(long, global = true, value_name = "FILE")]
    key_file: Option<PathBuf>,

    /// Seconds to wait for an answer before asking again; there are three tries
    #[arg(long, global = true, value_name = "SECONDS", default_value = "0.5",
          value_parser = seconds)]
    timeout: Duration,

    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print all figures once
    Stats {
        /// As one JSON object
        #[arg(long)]
        json: bool,
        /// Those of each thread too
        #[arg(long)]
        threads: bool,
    },
    /// Print a line of rates at each interval
    Watch {
        /// Seconds between lines
        #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
        interval: Duration,
        /// End after this many lines
        #[arg(long, value_name = "NUM")]
        count: Option<u64>,
    },
    /// Show rates, latencies, memory, rings and workers, renewed at each interval
    Top(top::Options),
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().map_err(|error| error.to_string())?;
    let duration = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    let range = Duration::from_millis(10)..=Duration::from_secs(3600);
    range.contains(&duration).then_some(duration).ok_or_else(|| "not from 0.01 to 3600".into())
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            // Where standard error is closed too, the exit code still tells.
            let _ = writeln!(io::stderr(), "ringcachedctl: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Why there is nothing to show.
#[derive(Debug)]
enum Failure {
    Start(String),
    Server(SocketAddr, client::Error),
    Output(io::Error),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Start(why) => f.write_str(why),
            Failure::Server(server, error) => write!(f, "{server}: {error}"),
            Failure::Output(error) => write!(f, "cannot write: {error}"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Output(error)
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let server = resolve(&arguments.server)?;
    let key = arguments.key_file.as_deref().map(AdminKey::read).transpose();
    let key = key.map_err(|error| Failure::Start(error.to_string()))?;
    let failed = |error| Failure::Server(server, error);
    let mut client = Client::open(server, key.as_ref(), arguments.timeout).map_err(failed)?;
    let mut out = io::stdout().lock();
    match arguments.action {
        Action::Stats { json, threads } => {
            let sample = client.sample().map_err(failed)?;
            let threads = if threads { client.threads().map_err(failed)? } else { Vec::new() };
            if json {
                writeln!(out, "{:#}", stats::json(&sample, &threads))?;
            } else {
                stats::text(&sample, &threads, &mut out)?;
            }
        }
        Action::Watch { interval, count } => {
            let errors = &mut io::stderr();
            watch::run((&mut client, server), interval, count, &mut out, errors)?;
        }
        Action::Top(options) if options.once => {
            let view = top::once(&mut client, options.interval).map_err(failed)?;
            if options.json {
                writeln!(out, "{:#}", view.json())?;
            } else {
                view.write(&mut out)?;
            }
        }
        Action::Top(options) => {
            drop(out);
            return top::run(client, &arguments.server, options.interval);
        }
    }
    out.flush()?;
    Ok(())
}

fn resolve(text: &str) -> Result<SocketAddr, Failure> {
    let with_port = text.to_socket_addrs();
    let found = with_port.or_else(|_| (text, DEFAULT_PORT).to_socket_addrs());
    let refuse = |why: String| Failure::Start(format!("--server {text}: {why}"));
    let mut addresses = found.map_err(|error| refuse(error.to_string()))?;
    addresses.next().ok_or_else(|| refuse("no address".into()))
}
