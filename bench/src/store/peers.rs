//! The servers over which bytes are counted: one at a time, each for as long as its rows take.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::unistd::geteuid;

use super::options::Programs;
use super::wire::{Dialect, Wire};
use crate::options::Labelled;
use crate::servers::{because, free_port, on_path, pause};

const START_TRIES: u32 = 200;
const START_PAUSE: Duration = Duration::from_millis(25);

/// Which server it is, and so how it is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    Ringcached,
    Memcached,
    Redis,
}

/// A server that can be started.
#[derive(Clone, Debug)]
pub struct Peer {
    pub label: String,
    pub make: Make,
    program: PathBuf,
}

/// A server that runs until this is dropped.
#[derive(Debug)]
pub struct Running {
    pub address: SocketAddr,
    dialect: Dialect,
    command: String,
    child: Child,
}

impl Make {
    fn name(self) -> &'static str {
        match self {
            Make::Ringcached => "ringcached",
            Make::Memcached => "memcached",
            Make::Redis => "redis-server",
        }
    }

    /// Where it is when nobody says so.
    fn found(self) -> Option<PathBuf> {
        match self {
            Make::Ringcached => {
                let own = std::env::current_exe().ok()?;
                Some(own.with_file_name(self.name())).filter(|path| path.is_file())
            }
            Make::Memcached | Make::Redis => on_path(self.name()),
        }
    }

    fn arguments(self, port: u16, memory_mb: u64, threads: u32) -> String {
        match self {
            Make::Ringcached => {
                format!(
                    "-t {threads} -m {memory_mb} -c 1024 -U 0 --admin off -l 127.0.0.1 -p {port}"
                )
            }
            Make::Memcached => {
                // It refuses to be root.
                let user = if geteuid().is_root() { " -u nobody" } else { "" };
                format!("-t {threads} -m {memory_mb} -c 1024 -U 0 -l 127.0.0.1 -p {port}{user}")
            }
            Make::Redis => format!("--bind 127.0.0.1 --port {port} --appendonly no --save"),
        }
    }
}

/// The servers that are named, and those that this machine has where none is.
pub fn peers(programs: &Programs, redis: Option<&[Labelled]>) -> io::Result<Vec<Peer>> {
    let mut all = Vec::new();
    let makes = [
        (Make::Ringcached, Some(&programs.ringcached[..])),
        (Make::Memcached, Some(&programs.memcached[..])),
        (Make::Redis, redis),
    ];
    for (make, named) in makes {
        let Some(named) = named else { continue };
        let found = if named.is_empty() && !programs.only_named { make.found() } else { None };
        let found = found.map(|path| Labelled { label: None, path });
        all.extend(named.iter().cloned().chain(found).map(|labelled| Peer {
            label: labelled.label.unwrap_or_else(|| make.name().to_owned()),
            make,
            program: labelled.path,
        }));
    }
    if all.is_empty() {
        return Err(io::Error::other("there is no server to measure"));
    }
    let twice = |at: usize| all[..at].iter().any(|peer: &Peer| peer.label == all[at].label);
    if let Some(at) = (0..all.len()).find(|at| twice(*at)) {
        let text = format!("two servers are called {}: say LABEL=PATH", all[at].label);
        return Err(io::Error::other(text));
    }
    Ok(all)
}

impl Peer {
    /// Starts the server and waits until it accepts connections. Redis knows neither a limit of
    /// memory nor threads here.
    pub fn start(&self, memory_mb: u64, threads: u32) -> io::Result<Running> {
        let port = free_port()?;
        let mut arguments: Vec<String> = self
            .make
            .arguments(port, memory_mb, threads)
            .split_ascii_whitespace()
            .map(str::to_owned)
            .collect();
        let dialect = match self.make {
            Make::Ringcached | Make::Memcached => Dialect::Memcache,
            Make::Redis => {
                // No point in time at which it saves: an empty word.
                arguments.push(String::new());
                Dialect::Resp
            }
        };
        let mut command = Command::new(&self.program);
        command.args(&arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // It could find files of its own where this program was started.
        command.current_dir(std::env::temp_dir());
        let child = command
            .spawn()
            .map_err(|e| because(&format!("{}: {}", self.label, self.program.display()), &e))?;
        let command = format!("{} {}", self.program.display(), arguments.join(" "));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut running = Running { address, dialect, command, child };
        running.wait_until_up()?;
        Ok(running)
    }
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn connect(&self) -> io::Result<Wire> {
        Wire::connect(self.address, self.dialect)
    }

    fn wait_until_up(&mut self) -> io::Result<()> {
        for _ in 0..START_TRIES {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("{} has ended: {status}", self.command)));
            }
            if TcpStream::connect(self.address).is_ok() {
                return Ok(());
            }
            pause(START_PAUSE);
        }
        Err(io::Error::other(format!("{} does not accept connections", self.command)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already; there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Vec<Labelled> {
        vec![text.parse().unwrap()]
    }

    #[test]
    fn what_is_named_is_measured_and_nothing_else() {
        let programs =
            Programs { ringcached: named("/a"), memcached: named("new=/b"), only_named: true };
        let all = peers(&programs, Some(&[])).unwrap();
        let labels: Vec<&str> = all.iter().map(|peer| peer.label.as_str()).collect();
        assert_eq!(labels, ["ringcached", "new"]);
        let none = Programs { ringcached: vec![], memcached: vec![], only_named: true };
        assert!(peers(&none, None).is_err());
        let twice = Programs { memcached: named("ringcached=/c"), ..programs };
        assert!(peers(&twice, None).unwrap_err().to_string().contains("called ringcached"));
    }

    #[test]
    fn a_server_that_ends_at_once_is_reported() {
        let peer =
            Peer { label: "x".into(), make: Make::Redis, program: on_path("false").unwrap() };
        assert!(peer.start(1, 1).unwrap_err().to_string().contains("has ended"));
    }
}
