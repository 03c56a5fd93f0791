//! The servers under comparison: how each is started, found to be up, and ended.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::unistd::geteuid;
use ringcached_load::cpu;

use crate::cores;
use crate::options::{Compare, Labelled, More};

/// How long a server may take until it accepts connections.
const START_TRIES: u32 = 100;
const START_PAUSE: Duration = Duration::from_millis(50);

/// A server that has used less than this in a pause has settled; after so many pauses it is
/// measured as it is.
const SETTLED_NS: u64 = 5_000_000;
const SETTLE_PAUSE: Duration = Duration::from_millis(250);
const SETTLE_TRIES: u32 = 40;

/// So much of what a server said is shown when it has ended.
const TAIL_BYTES: usize = 2000;

/// What kind of server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Answers gets, and sets, of one length with the same bytes, and nothing else.
    Null,
    Ringcached,
    Memcached,
}

/// A server to be started.
#[derive(Clone, Debug)]
pub struct Variant {
    pub label: String,
    pub kind: Kind,
    program: PathBuf,
    arguments: Vec<String>,
}

/// A server that runs until this is dropped.
#[derive(Debug)]
pub struct Server {
    pub label: String,
    pub kind: Kind,
    pub address: SocketAddr,
    pub command: String,
    child: Child,
    said: Said,
}

/// A file with what a server said, which does not outlive this.
#[derive(Debug)]
struct Said(PathBuf);

impl Said {
    /// The end of it.
    fn tail(&self) -> String {
        let text = fs::read(&self.0).unwrap_or_default();
        let end = &text[text.len().saturating_sub(TAIL_BYTES)..];
        String::from_utf8_lossy(end).into_owned()
    }
}

impl Drop for Said {
    fn drop(&mut self) {
        // What cannot be removed stays in the folder for temporary files.
        let _ = fs::remove_file(&self.0);
    }
}

/// All servers that the options ask for and this machine has.
pub fn variants(options: &Compare) -> io::Result<(Vec<Variant>, Vec<String>)> {
    let mut all = Vec::new();
    let mut missing = Vec::new();
    let own = std::env::current_exe()?;
    if !options.no_null {
        all.push(null((options.key_bytes, options.value_bytes), 4096, &own));
    }
    if !options.no_ringcached {
        let programs = named_or(&options.ringcached, ringcached_beside()?, || {
            missing.push("ringcached: build it with cargo build --release".to_owned());
        });
        for program in programs {
            for mode in &options.dispatch {
                let plain = ringcached(options.memory, &program, mode);
                if options.with.is_empty() {
                    all.push(plain);
                } else {
                    all.extend(options.with.iter().map(|more| plain.with(more)));
                }
            }
        }
    }
    if !options.no_memcached {
        let programs = named_or(&options.memcached, on_path("memcached"), || {
            missing.push("memcached: not on PATH".to_owned());
        });
        all.extend(programs.iter().map(|program| memcached(options.memory, program, "")));
    }
    no_two_alike(&all)?;
    Ok((all, missing))
}

/// Fails when two servers have one label.
pub fn no_two_alike(all: &[Variant]) -> io::Result<()> {
    let is_again =
        |at: usize, variant: &Variant| all[..at].iter().any(|v| v.label == variant.label);
    if let Some((_, twice)) = all.iter().enumerate().find(|(at, variant)| is_again(*at, variant)) {
        let text = format!("two servers are called {}: say LABEL=PATH", twice.label);
        return Err(io::Error::other(text));
    }
    Ok(())
}

/// The ringcached that was built beside this program.
pub fn ringcached_beside() -> io::Result<Option<PathBuf>> {
    let beside = std::env::current_exe()?.with_file_name("ringcached");
    Ok(beside.is_file().then_some(beside))
}

/// The programs that were named, or else the one that was found.
pub fn named_or(
    named: &[Labelled],
    found: Option<PathBuf>,
    missing: impl FnOnce(),
) -> Vec<Labelled> {
    if !named.is_empty() {
        return named.to_vec();
    }
    if found.is_none() {
        missing();
    }
    found.into_iter().map(|path| Labelled { label: None, path }).collect()
}

/// A program by name, as a shell would find it.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// This program as a null server, for keys and values of these lengths and so many connections.
pub fn null((key_bytes, value_bytes): (usize, u32), connections: u32, own: &Path) -> Variant {
    let arguments = words(&format!(
        "null-server --key-bytes {key_bytes} --value-bytes {value_bytes} \
         --connections {connections}"
    ));
    Variant { label: "null".to_owned(), kind: Kind::Null, program: own.to_owned(), arguments }
}

/// A ringcached with so many megabytes of memory, in a mode of --dispatch.
pub fn ringcached(memory: u32, program: &Labelled, mode: &str) -> Variant {
    let label =
        program.label.as_ref().map_or_else(|| mode.to_owned(), |label| format!("{label} {mode}"));
    let workers = if mode == "inline" { "" } else { " --workers 1" };
    let arguments = words(&format!(
        "--dispatch {mode}{workers} -t 1 -m {} -c 4096 -U 0 --admin off -l 127.0.0.1",
        memory
    ));
    Variant { label, kind: Kind::Ringcached, program: program.path.clone(), arguments }
}

/// A memcached with so many megabytes of memory, and with `more` arguments.
pub fn memcached(memory: u32, program: &Labelled, more: &str) -> Variant {
    let label = program.label.clone().unwrap_or_else(|| "memcached".to_owned());
    let mut arguments = words(&format!("-t 1 -m {memory} -c 4096 -U 0 -l 127.0.0.1 {more}"));
    // It refuses to be root.
    if geteuid().is_root() {
        arguments.extend(words("-u nobody"));
    }
    Variant { label, kind: Kind::Memcached, program: program.path.clone(), arguments }
}

fn words(line: &str) -> Vec<String> {
    line.split_ascii_whitespace().map(str::to_owned).collect()
}

impl Variant {
    /// The same with more arguments.
    fn with(&self, more: &More) -> Variant {
        let label = format!("{} {}", self.label, more.label);
        let arguments = [self.arguments.clone(), words(&more.arguments)].concat();
        Variant { label, arguments, ..self.clone() }
    }

    /// The same under the same name, with more arguments; the last of two alike counts.
    pub fn and(mut self, arguments: &str) -> Variant {
        self.arguments.extend(words(arguments));
        self
    }

    /// Starts the server on `core` and waits until it accepts connections.
    pub fn start(&self, core: usize) -> io::Result<Server> {
        let port = free_port()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).arg("-p").arg(port.to_string());
        let name = format!("ringcached-bench-{}-{port}.stderr", std::process::id());
        let said = Said(std::env::temp_dir().join(name));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&said.0)?);
        let child = cores::on(core, || command.spawn())
            .map_err(|e| because(&format!("{}: {}", self.label, self.program.display()), &e))?;
        let command = format!("{} {}", self.program.display(), self.arguments.join(" "));
        let (label, kind) = (self.label.clone(), self.kind);
        let mut server = Server { label, kind, address, command, child, said };
        server.wait_until_up()?;
        Ok(server)
    }
}

impl Server {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the server has nothing more to do: memcached grows its index in the background
    /// after it was filled.
    pub fn settle(&self) -> io::Result<()> {
        for _ in 0..SETTLE_TRIES {
            let before = cpu::of_process(self.pid())?;
            pause(SETTLE_PAUSE);
            let used = cpu::of_process(self.pid())?.since(before);
            if used.total_ns < SETTLED_NS {
                break;
            }
        }
        Ok(())
    }

    /// Whether all of memcached's text may be sent to it.
    pub fn is_real(&self) -> bool {
        self.kind != Kind::Null
    }

    /// Fails when the server has ended.
    pub fn check(&mut self) -> io::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                let (command, said) = (&self.command, self.said.tail());
                Err(io::Error::other(format!("{command} has ended: {status}\n{said}")))
            }
        }
    }

    fn wait_until_up(&mut self) -> io::Result<()> {
        for _ in 0..START_TRIES {
            self.check()?;
            if TcpStream::connect(self.address).is_ok() {
                return Ok(());
            }
            pause(START_PAUSE);
        }
        Err(io::Error::other(format!("{} does not accept connections", self.command)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody uses now.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

#[allow(clippy::disallowed_methods, reason = "the harness has nothing to do until others have")]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

pub fn because(what: &str, cause: &io::Error) -> io::Error {
    io::Error::new(cause.kind(), format!("{what}: {cause}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::{Command as Program, Options};

    #[test]
    fn a_server_that_ends_at_once_is_reported() {
        let variant = Variant {
            label: "false".to_owned(),
            kind: Kind::Memcached,
            program: on_path("false").unwrap(),
            arguments: Vec::new(),
        };
        let core = core_of_this_thread();
        let error = variant.start(core).unwrap_err().to_string();
        assert!(error.contains("has ended"), "{error}");
        let missing = Variant { program: "/nowhere/at/all".into(), ..variant };
        assert!(missing.start(core).unwrap_err().to_string().contains("/nowhere/at/all"));
    }

    #[test]
    fn two_servers_are_not_called_the_same() {
        let two = |first: &str, second: &str| {
            let words = ["x", "compare", "--no-ringcached", "--memcached", first, "--memcached"];
            let words = words.into_iter().chain([second]);
            let Program::Compare(options) = Options::parse_from(words).command else {
                unreachable!("compare was asked for");
            };
            variants(&options).map(|found| found.0.len())
        };
        assert_eq!(two("old=/a", "new=/b").unwrap(), 3);
        assert!(two("/a", "/b").unwrap_err().to_string().contains("called memcached"));
    }

    #[test]
    fn each_set_of_arguments_is_a_server() {
        let words = ["x", "compare", "--no-memcached", "--no-null", "--dispatch", "inline"];
        let more = ["--ringcached", "/r", "--with", "plain=", "--with", "big=-c 9"];
        let words = words.into_iter().chain(more);
        let Program::Compare(options) = Options::parse_from(words).command else {
            unreachable!("compare was asked for");
        };
        let variants = variants(&options).unwrap().0;
        let labels: Vec<_> = variants.iter().map(|variant| variant.label.as_str()).collect();
        assert_eq!(labels, ["inline plain", "inline big"]);
        assert_eq!(variants[1].arguments[variants[0].arguments.len()..], ["-c", "9"]);
    }

    fn core_of_this_thread() -> usize {
        let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap();
        (0..nix::sched::CpuSet::count()).find(|core| set.is_set(*core).unwrap()).unwrap()
    }
}
