//! ringcached-load: measures a memcached server from the outside.
//!
//! ```text
//!   options --> crew: threads --> client: connections --> run --> tally --> report, hdr
//!                                   |                      |
//!       workload: keys, values, dialect (requests)         |-- schedule: when (open loop)
//!       connection: reply, dialect (replies)               '-- world: clock, sockets, epoll
//! ```
//!
//! A thread asks, reads, and counts for its own connections. Requests are templates with a number
//! written into them, and replies are read just closely enough to prove their framing, so that one
//! core of client is enough for one core of server. Nothing here knows which server it talks to.

pub mod client;
pub mod clock;
pub mod connection;
pub mod cores;
pub mod cpu;
pub mod crew;
pub mod dialect;
pub mod failure;
pub mod hdr;
pub mod keys;
pub mod options;
pub mod reply;
pub mod report;
mod run;
pub mod schedule;
pub mod tally;
pub mod values;
pub mod workload;
pub mod world;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::client::Findings;
use crate::clock::NS_PER_S;
use crate::crew::Crew;
use crate::options::Options;
use crate::report::{Preload, Report};
use crate::world::Patience;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Files that are no connections, amply.
const OTHER_FILES: u64 = 64;

/// Runs what the options say and prints the report; the whole program but for the parsing.
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the program's output")]
pub fn main_with(options: &Options) -> ExitCode {
    let report = match measure(options) {
        Ok(report) => report,
        Err(e) => {
            eprintln!("ringcached-load: {e}");
            return ExitCode::from(2);
        }
    };
    if options.json {
        match serde_json::to_string_pretty(&report) {
            Ok(json) => println!("{json}"),
            Err(e) => eprintln!("ringcached-load: {e}"),
        }
    } else {
        print!("{report}");
    }
    let good = report.failures.total() == 0 && report.connections_lost == 0;
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Connects, fills if asked to, runs, and reports.
pub fn measure(options: &Options) -> io::Result<Report> {
    let mix = options.mix().map_err(io::Error::other)?;
    let orders = options.orders();
    let hdr = match &options.hdr {
        // Now, so that a path that cannot be written is not found out after the run.
        Some(path) => Some(File::create(path).map_err(|e| because(&shown(path), &e))?),
        None => None,
    };
    allow_files(options.connections)?;
    let sockets = connect(options)?;
    let (threads, asked) = (options.threads, (&mix, options.seed));
    let patience = if options.sleep { Patience::Sleep } else { Patience::Spin };
    let mut crew = Crew::new(sockets, threads, &options.core, asked, orders.depth, patience)?;
    let mut preload = None;
    if options.preload || options.preload_only {
        let filled = crew.fill(options.preload_depth(), &orders)?;
        let stored = filled.tally.counts.stored;
        let wall_s = (filled.to.ns - filled.from.ns) as f64 / NS_PER_S;
        preload = Some(Preload { stored, wall_s });
        if options.preload_only || filled.tally.failures.total() > 0 {
            let mut report = Report::new(&filled, options, &orders);
            report.preload = preload;
            return Ok(report);
        }
    }
    let findings = crew.run(orders)?;
    if let (Some(file), Some(path)) = (hdr, &options.hdr) {
        write_hdr(file, &findings).map_err(|e| because(&shown(path), &e))?;
    }
    let mut report = Report::new(&findings, options, &orders);
    report.preload = preload;
    Ok(report)
}

fn write_hdr(file: File, findings: &Findings) -> io::Result<()> {
    let mut out = BufWriter::new(file);
    hdr::write(&findings.tally.latency_ns, &mut out)?;
    out.flush()
}

fn shown(path: &Path) -> String {
    format!("cannot write {} (--hdr)", path.display())
}

/// Raises the limit of open files as far as this process may, where the connections need it.
fn allow_files(connections: u16) -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = u64::from(connections) + OTHER_FILES;
    if soft < wanted && soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard)?;
    }
    Ok(())
}

fn connect(options: &Options) -> io::Result<Vec<Socket>> {
    let (domain, address, name) = match &options.unix {
        Some(path) => (Domain::UNIX, SockAddr::unix(path)?, path.display().to_string()),
        None => {
            let address = options.server;
            (Domain::for_address(address), address.into(), address.to_string())
        }
    };
    let open = || {
        let socket = Socket::new(domain, Type::STREAM, None)?;
        if options.unix.is_none() {
            socket.set_tcp_nodelay(true)?;
            socket.connect_timeout(&address, CONNECT_TIMEOUT)?;
        } else {
            socket.connect(&address)?;
        }
        Ok(socket)
    };
    (0..options.connections)
        .map(|at| open().map_err(|e: io::Error| because(&refused(&name, at, options), &e)))
        .collect()
}

/// What to say when connection `at` cannot be made, and what to do about it.
fn refused(name: &str, at: u16, options: &Options) -> String {
    match at {
        0 => format!("cannot connect to {name}: is the server running there? (--server, --unix)"),
        _ => format!(
            "only {at} of {} connections to {name}: raise the server's limit of connections and \
             the limit of open files (ulimit -n), or ask for fewer (--connections)",
            options.connections
        ),
    }
}

fn because(what: &str, cause: &io::Error) -> io::Error {
    io::Error::new(cause.kind(), format!("{what}: {cause}"))
}
