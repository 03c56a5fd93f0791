//! A server process of a test's own: started on a free port, killed by its pid in the end.

use super::client::Client;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The original: Debian's memcached, where it is installed, or the one that `MEMCACHED` names.
pub fn original() -> String {
    let named = std::env::var("MEMCACHED").ok().filter(|program| !program.is_empty());
    named.unwrap_or_else(|| "/usr/bin/memcached".into())
}

/// Ports below the range from which the kernel takes those of clients; the statistics port lies
/// 10,000 higher and should be below that range, too.
const PORTS: std::ops::Range<u16> = 12_000..22_000;

/// Who executes a batch; or the original, which knows no such thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Inline,
    Queue,
    Auto,
    Memcached,
}

/// The modes of our own server.
pub const OURS: [Kind; 3] = [Kind::Inline, Kind::Queue, Kind::Auto];

#[derive(Debug)]
pub struct Server {
    child: Child,
    port: u16,
    kind: Kind,
    errors: Option<JoinHandle<String>>,
}

impl Server {
    /// Starts a server with some options; none where this machine cannot run it, which is said.
    ///
    /// # Panics
    /// When it does not come up, with what it said.
    pub fn start(kind: Kind, options: &[&str]) -> Option<Server> {
        let kind = stand_in(kind)?;
        let mut failure = String::new();
        for _ in 0..5 {
            match Server::start_on(free_port(), kind, options) {
                Ok(server) => return Some(server),
                Err(error) => failure = error,
            }
        }
        panic!("{kind:?} {options:?} does not start: {failure}");
    }

    /// As `start`, with a limit of open descriptors.
    pub fn start_with_descriptors(limit: usize, kind: Kind, options: &[&str]) -> Option<Server> {
        let plain = command(stand_in(kind)?, free_port(), options);
        let mut limited = Command::new("sh");
        limited.args(["-c", &format!("ulimit -S -n {limit} && exec \"$0\" \"$@\"")]);
        limited.arg(plain.get_program()).args(plain.get_args());
        let words: Vec<_> = plain.get_args().collect();
        let port = words.iter().position(|word| *word == "-p").unwrap() + 1;
        let port = words[port].to_str().unwrap().parse().unwrap();
        let started = Server::spawn_command(limited, port, kind).until_it_accepts();
        Some(started.unwrap_or_else(|error| panic!("{kind:?} {options:?}: {error}")))
    }

    /// As `start`, for a server that listens on a unix socket.
    pub fn start_on_path(path: &str, kind: Kind, options: &[&str]) -> Option<Server> {
        let server = Server::spawn(free_port(), stand_in(kind)?, options);
        let started = server.until_it_answers(|_| {
            UnixStream::connect(path).is_ok_and(|stream| {
                let _ = stream.set_read_timeout(Some(super::PATIENCE));
                answers(stream)
            })
        });
        Some(started.unwrap_or_else(|error| panic!("{kind:?} {options:?}: {error}")))
    }

    /// Starts a server on a port that may be taken; the error is what it said.
    pub fn start_on(port: u16, kind: Kind, options: &[&str]) -> Result<Server, String> {
        Server::spawn(port, kind, options).until_it_accepts()
    }

    fn until_it_accepts(self) -> Result<Server, String> {
        self.until_it_answers(|server| {
            TcpStream::connect(server.address()).is_ok_and(|stream| {
                let _ = stream.set_read_timeout(Some(super::PATIENCE));
                answers(stream)
            })
        })
    }

    fn until_it_answers(mut self, answers: impl Fn(&Server) -> bool) -> Result<Server, String> {
        let start = Instant::now();
        while start.elapsed() < super::PATIENCE {
            let answers = answers(&self);
            if let Some(status) = self.child.try_wait().unwrap() {
                return Err(format!("{status}: {}", self.said()));
            }
            if answers {
                return Ok(self);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.kill();
        Err(format!("does not answer: {}", self.said()))
    }

    fn spawn(port: u16, kind: Kind, options: &[&str]) -> Server {
        Server::spawn_command(command(kind, port, options), port, kind)
    }

    fn spawn_command(mut command: Command, port: u16, kind: Kind) -> Server {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{kind:?} cannot be run: {error}"));
        let errors = Some(collect(child.stderr.take().unwrap()));
        Server { child, port, kind, errors }
    }

    /// What it says when it ends with a failure; none when it does not end.
    pub fn refusal(port: u16, kind: Kind, options: &[&str]) -> Option<String> {
        let mut server = Server::spawn(port, kind, options);
        let status = server.wait(Duration::from_secs(3))?;
        assert!(!status.success(), "{kind:?} {options:?} ends with success");
        Some(server.said())
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address()).unwrap()
    }

    pub fn is_ours(&self) -> bool {
        self.kind != Kind::Memcached
    }

    /// KiB of memory that the process holds now: anonymous, of files, and shared.
    pub fn rss_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Bytes of memory that the process held at most, ever.
    pub fn peak_rss_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }

    /// Bytes of memory that the process holds now in mappings of the arena.
    pub fn arena_rss_bytes(&self) -> u64 {
        let maps = std::fs::read_to_string(format!("/proc/{}/smaps", self.child.id())).unwrap();
        let arena = maps.lines().skip_while(|line| !line.contains("/memfd:ringcached"));
        let rss = arena.take(30).find(|line| line.starts_with("Rss:")).unwrap();
        rss.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }

    /// Open descriptors of the process.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("sh").arg("-c").arg(format!("kill -{name} {pid}")).status();
        assert!(status.unwrap().success());
    }

    /// Waits for the end of the process; none when it lives on.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let mut status = None;
        super::wait_until(limit, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status
    }

    /// That the server runs and answers; with what it said where it does not.
    pub fn assert_serves(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("the server is gone: {status}\n{}", self.said());
        }
        let mut client = self.client();
        client.set("assert_serves", b"yes");
        assert_eq!(client.get("assert_serves").as_deref(), Some(b"yes".as_slice()));
        client.ask("delete assert_serves", "DELETED");
    }

    fn kill(&mut self) {
        // An error says that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// What it wrote to stderr; only after its end, and once.
    fn said(&mut self) -> String {
        self.errors.take().map(|thread| thread.join().unwrap_or_default()).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let said = self.said();
            eprintln!("{:?} on port {} said:\n{said}", self.kind, self.port);
        }
    }
}

fn command(kind: Kind, port: u16, options: &[&str]) -> Command {
    let own =
        std::env::var("RINGCACHED").unwrap_or_else(|_| env!("CARGO_BIN_EXE_ringcached").into());
    let other = replacement().unwrap_or_else(original);
    let port = port.to_string();
    let mut command = Command::new(if kind == Kind::Memcached { other } else { own });
    command.args(["-u", "root", "-l", "127.0.0.1", "-p", &port, "-U", "0"]);
    if !options.contains(&"-t") {
        command.args(["-t", "2"]);
    }
    match kind {
        Kind::Inline => command.args(["--dispatch", "inline"]),
        Kind::Queue => command.args(["--dispatch", "queue"]),
        Kind::Auto => command.args(["--dispatch", "auto"]),
        Kind::Memcached => &mut command,
    };
    command.args(options);
    command
}

/// What runs when this kind is asked for here; none where nothing does.
fn stand_in(kind: Kind) -> Option<Kind> {
    super::many_files();
    let kind = match kind {
        Kind::Auto if replacement().is_some() => Kind::Memcached,
        Kind::Inline | Kind::Queue if replacement().is_some() => return None,
        Kind::Inline | Kind::Queue | Kind::Auto | Kind::Memcached => kind,
    };
    can_run(kind).then_some(kind)
}

/// The program that stands in for ours.
pub fn replacement() -> Option<String> {
    std::env::var("E2E_SERVER").ok().filter(|program| !program.is_empty())
}

/// Whether this machine can run such a server. `E2E_MUST_RUN` turns a skip into a failure.
fn can_run(kind: Kind) -> bool {
    let lacks = if kind == Kind::Memcached {
        let program = original();
        (!std::path::Path::new(&program).exists()).then(|| format!("no {program}"))
    } else {
        static LACKS: OnceLock<Option<String>> = OnceLock::new();
        LACKS.get_or_init(lacks_io_uring).clone()
    };
    if let Some(lacks) = &lacks {
        assert!(std::env::var_os("E2E_MUST_RUN").is_none(), "{lacks}");
        eprintln!("skipped: {lacks}");
    }
    lacks.is_none()
}

/// What the kernel says against a ring. On a thread of its own: the end of a ring interrupts what
/// waits in the kernel on the thread that made it, some time later.
fn lacks_io_uring() -> Option<String> {
    let attempt = std::thread::spawn(|| io_uring::IoUring::new(8).err());
    attempt.join().unwrap().map(|error| format!("no io_uring here: {error}"))
}

/// Whether a server answers here. To be let in is not enough: where `free_port` looked, its own
/// listener lives on for a moment in a process that another thread forked meanwhile.
fn answers(mut stream: impl Read + Write) -> bool {
    let mut reply = [0];
    stream.write_all(b"version\r\nquit\r\n").is_ok() && stream.read_exact(&mut reply).is_ok()
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Several test programs may run at once: each starts elsewhere.
    let spread = u16::try_from(std::process::id() % 97).unwrap() * 101;
    loop {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(spread);
        let port = PORTS.start + offset % (PORTS.end - PORTS.start);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Reads a pipe to its end on a thread, so that the writer never waits.
fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is what there is to show.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// One test for each of our modes: `in_each_mode! { name, name }` calls `name(Server)`.
#[macro_export]
macro_rules! in_each_mode {
    ($options:expr => $($name:ident),+ $(,)?) => {
        $crate::in_each_mode!(@mode inline, Inline, $options => $($name),+);
        $crate::in_each_mode!(@mode queue, Queue, $options => $($name),+);
        $crate::in_each_mode!(@mode auto, Auto, $options => $($name),+);
    };
    (@mode $mode:ident, $kind:ident, $options:expr => $($name:ident),+) => {
        mod $mode {
            use $crate::common::server::{Kind, Server};
            $(
                #[test]
                fn $name() {
                    if let Some(server) = Server::start(Kind::$kind, $options) {
                        super::$name(server);
                    }
                }
            )+
        }
    };
}
