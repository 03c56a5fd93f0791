//! ringcached-load: measures a memcached server from the outside.
//!
//! ```text
//!   options --> workload: keys, values ----> run: epoll ----> tally ----> report, hdr
//!               schedule: when (open loop)    connection: reply
//! ```
//!
//! One thread asks, reads, and counts. Requests are templates with a number written into them, and
//! replies are read just closely enough to prove their framing, so that one core of client is
//! enough for one core of server. Nothing here knows which server it talks to.

pub mod client;
pub mod clock;
pub mod connection;
pub mod cpu;
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

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::client::{Client, Findings};
use crate::clock::NS_PER_S;
use crate::options::Options;
use crate::report::{Preload, Report};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

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
    let workload = options.workload().map_err(io::Error::other)?;
    if let Some(core) = options.core {
        pin(core)?;
    }
    let sockets = connect(options)?;
    let count = sockets.len();
    let orders = options.orders();
    let mut client = Client::new(sockets, workload, orders.depth)?;
    let mut preload = None;
    if options.preload || options.preload_only {
        let filled = client.fill(options.preload_depth(), orders.bounds.timeout)?;
        let stored = filled.tally.counts.stored;
        let wall_s = (filled.to.ns - filled.from.ns) as f64 / NS_PER_S;
        preload = Some(Preload { stored, wall_s });
        if options.preload_only || filled.tally.failures.total() > 0 {
            let mut report = Report::new(&filled, &orders, count);
            report.preload = preload;
            return Ok(report);
        }
    }
    let findings = client.run(orders)?;
    if let Some(path) = &options.hdr {
        write_hdr(path, &findings).map_err(|e| because(&format!("{}", path.display()), &e))?;
    }
    let mut report = Report::new(&findings, &orders, count);
    report.preload = preload;
    Ok(report)
}

fn write_hdr(path: &std::path::Path, findings: &Findings) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    hdr::write(&findings.tally.latency_ns, &mut out)?;
    out.flush()
}

/// Ties this thread to one core.
pub fn pin(core: usize) -> io::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &cores)
        .map_err(|e| because(&format!("cannot run on core {core}"), &e.into()))
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
        .map(|_| open().map_err(|e: io::Error| because(&format!("cannot connect to {name}"), &e)))
        .collect()
}

fn because(what: &str, cause: &io::Error) -> io::Error {
    io::Error::new(cause.kind(), format!("{what}: {cause}"))
}
