//! The binary: arguments in, exit code out. The only place that prints.
//!
//! ```text
//!   arguments -> Plan -> bind -> give up root -> start -> admin loop -> exit code
//! ```
//!
//! What needs privileges comes before they are given up; what owns credentials, as a ring does,
//! comes after. Signals are blocked before there is a second thread.
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use ringcached::admin::{
    Admin, AdminSocket, Control, Detached, Ended, PidFile, Responder, Severity, Signals, Starter,
    detach,
};
use ringcached::base::clock::Clock;
use ringcached::base::sync::Arc;
use ringcached::config::{Host, Options, Plan, StartError};
use ringcached::server::claim::{claim, give_up, report};
use ringcached::server::start::Server;

/// What memcached says for wrong arguments, from sysexits.h.
const EX_USAGE: u8 = 64;

const LICENSE: &str = include_str!("../LICENSE");

fn main() -> ExitCode {
    let options = match Options::read(std::env::args_os()) {
        Ok(options) => options,
        Err(error) => {
            // Help and version come as errors that are meant for standard output.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EX_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    if options.license {
        return print(LICENSE, true);
    }
    if !options.daemon || options.own.check {
        return run(&options, None);
    }
    // Before all else: threads and what locks memory would stay behind.
    match detach(options.enable_coredumps) {
        Ok(Detached::Starter(code)) => ExitCode::from(code),
        Ok(Detached::Server(starter)) => run(&options, Some(starter)),
        Err(error) => {
            say(Severity::Error, format!("cannot go into the background: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Serves, and tells who started it, if somebody waits to hear.
fn run(options: &Options, starter: Option<Starter>) -> ExitCode {
    let host = Host::here();
    let plan = Plan::check(options, &host);
    let served = match plan {
        Ok(plan) if options.own.check => return check(&host, &plan),
        plan => plan.and_then(|plan| serve(&plan, starter)),
    };
    match served {
        Ok(ended) => {
            say(Severity::Notice, ended);
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(Severity::Error, error);
            ExitCode::FAILURE
        }
    }
}

/// Prints what this host offers; fails where the server could not serve.
fn check(host: &Host, plan: &Plan) -> ExitCode {
    let (text, can_serve) = report(host, &plan.placement);
    print(&text, can_serve)
}

fn print(text: &str, is_good: bool) -> ExitCode {
    let printed = io::stdout().write_all(text.as_bytes());
    if is_good && printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn serve(plan: &Plan, starter: Option<Starter>) -> Result<&'static str, StartError> {
    let refused = |what: &'static str| {
        move |error: io::Error| {
            let remedy = "Look for a sandbox that forbids it, or a limit of descriptors.";
            StartError::new("read", what, error, remedy)
        }
    };
    let signals = Signals::take().map_err(refused("signals"))?;
    for warning in &plan.warnings {
        say(Severity::Warning, warning);
    }
    let socket = plan.admin.as_ref().map(AdminSocket::bind).transpose()?;
    let claim = claim(plan)?;
    for warning in &claim.warnings {
        say(Severity::Warning, warning);
    }
    let statistics = socket.as_ref().map(AdminSocket::address);
    let announcement = announcement(plan, &claim.addresses, statistics);
    let clock = Clock::start();
    let server = Arc::new(Server::start(plan, claim, &clock)?);
    let registry = Arc::clone(&server.registry);
    say(Severity::Notice, announcement);
    say(Severity::Notice, server.promise());
    if let Some(excess) = server.excess() {
        say(Severity::Warning, excess);
    }
    match server.populated() {
        Some(Ok(line)) => say(Severity::Notice, line),
        Some(Err(line)) => say(Severity::Warning, line),
        None => {}
    }
    let pid_file = plan.process.pid_file.as_deref().and_then(write_pid);
    if let Some(Err(error)) = starter.map(|starter| starter.release(plan.verbosity > 0)) {
        say(Severity::Warning, format!("cannot let go of the terminal: {error}"));
    }
    let control: Arc<dyn Control> = server;
    let answer = |socket| Responder::new(socket, &registry, &control, clock.clone());
    let responder = socket.map(answer);
    let admin = Admin::new(signals, responder, control, registry, clock, Box::new(say_line));
    let ended = admin.run().map_err(refused("events"))?;
    give_up(plan);
    if let Some(Err(error)) = pid_file.map(PidFile::remove) {
        say(Severity::Warning, format!("cannot remove the file of the process id: {error}"));
    }
    Ok(match ended {
        Ended::Drained => "stopped",
        Ended::TimedOut => "stopped; some connections were still busy",
        Ended::Forced => "stopped at once",
    })
}

/// Writes the file with the process id; a server without it serves as well.
fn write_pid(path: &Path) -> Option<PidFile> {
    let warn = |warning| say(Severity::Warning, warning);
    let written = PidFile::write(path, warn);
    written.map_err(|error| warn(format!("cannot write {}: {error}", path.display()))).ok()
}

fn announcement(plan: &Plan, addresses: &[String], statistics: Option<SocketAddr>) -> String {
    let statistics = statistics.map_or_else(|| "off".into(), |at| format!("at udp {at}"));
    format!(
        "ringcached {} serves {}; {} MiB, {} rings, {} workers, dispatch {}; statistics {}",
        env!("CARGO_PKG_VERSION"),
        addresses.join(", "),
        plan.memory_bytes >> 20,
        plan.rings,
        plan.workers,
        plan.dispatch.name(),
        statistics,
    )
}

fn say_line(severity: Severity, line: &str) {
    say(severity, line);
}

/// One line on standard error; under systemd with the priority that the journal reads.
fn say(severity: Severity, line: impl Display) {
    let is_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let prefix = match (is_journal, severity) {
        (true, Severity::Notice) => "<5>",
        (true, Severity::Warning) => "<4>",
        (true, Severity::Error) => "<3>",
        (false, Severity::Notice) => "",
        (false, Severity::Warning) => "warning: ",
        (false, Severity::Error) => "ringcached: ",
    };
    // One write, so that two lines do not mix; a server does not die of a closed standard error.
    let _ = io::stderr().write_all(format!("{prefix}{line}\n").as_bytes());
}
