//! The program against a responder in this process, over loopback.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ringcached::admin::{AdminSocket, Control, Responder};
use ringcached::base::clock::Clock;
use ringcached::base::metrics::{Metric, Registry};
use ringcached::config::{AdminKey, AdminPlan};
use ringcached::sys::poll::readable;
use ringcached::sys::wake::EventFd;

const KEY: &[u8] = b"a key of 24 bytes or so.";

struct Table(EventFd);

impl Control for Table {
    fn drain(&self) {}

    fn has_ended(&self) -> bool {
        false
    }

    fn ended(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        vec![("limit_maxbytes", 1 << 26)]
    }

    fn verbosity(&self) -> u8 {
        0
    }

    fn heartbeats(&self) -> Vec<Option<u64>> {
        Vec::new()
    }
}

/// Answers until it is dropped, counting a hundred gets and ten turns at each wake.
struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(address: &str, key: Option<&[u8]>) -> Server {
        let key = key.map(|key| AdminKey::new(key).unwrap());
        let address = address.parse().unwrap();
        let plan = AdminPlan { address, may_move: false, key, tells_keys: true };
        let socket = AdminSocket::bind(&plan).unwrap();
        let address = socket.address();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let registry = Arc::new(Registry::default());
            let ring = registry.counters("ring 0");
            let control: Arc<dyn Control> = Arc::new(Table(EventFd::new().unwrap()));
            let mut responder = Responder::new(socket, &registry, &control, Clock::start());
            while !stopped.load(Ordering::Relaxed) {
                ring.add(Metric::CmdGet, 100);
                ring.add(Metric::GetHits, 75);
                ring.add(Metric::GetMisses, 25);
                ring.add(Metric::Requests, 100);
                ring.add(Metric::RingTurns, 10);
                readable([responder.as_fd()], Duration::from_millis(5)).unwrap();
                responder.turn();
            }
        });
        Server { address, stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn command(server: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringcachedctl"));
    command.args(["--server", &server.to_string(), "--timeout", "0.3"]).args(arguments);
    command
}

fn run(server: SocketAddr, arguments: &[&str]) -> Output {
    command(server, arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

struct KeyFile(std::path::PathBuf);

impl KeyFile {
    fn new(name: &str, key: &[u8]) -> KeyFile {
        let name = format!("ringcachedctl-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, key).unwrap();
        KeyFile(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

#[test]
fn stats_as_text_and_as_json() {
    let server = Server::start("127.0.0.1:0", None);
    let output = run(server.address, &["stats"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines = text(&output.stdout);
    assert!(lines.lines().any(|line| line.split_whitespace().eq(["limit_maxbytes", "67108864"])));
    assert!(lines.lines().count() > Metric::ALL.len());

    let output = run(server.address, &["stats", "--json", "--threads"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let figures = &json["figures"];
    assert_eq!(figures["pid"], std::process::id());
    let gets = figures["cmd_get"].as_u64().unwrap();
    assert!(gets > 0 && gets.is_multiple_of(100));
    assert!(json["threads"]["ring 0"]["cmd_get"].as_u64().unwrap() >= gets);
    assert!(json["threads"]["admin"]["admin_served"].as_u64().unwrap() > 0);
}

#[test]
fn a_key_opens_and_another_does_not() {
    let server = Server::start("127.0.0.1:0", Some(KEY));
    let right = KeyFile::new("right", KEY);
    let output = run(server.address, &["--key-file", right.path(), "stats", "--threads"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("ring 0"));

    let wrong = KeyFile::new("wrong", b"another key altogether");
    let output = run(server.address, &["--key-file", wrong.path(), "stats"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("the key may not be"), "{}", text(&output.stderr));
    let output = run(server.address, &["stats"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("--key-file"), "{}", text(&output.stderr));
    assert!(output.stdout.is_empty());
}

#[test]
fn nobody_there_and_nothing_meant() {
    let gone = Server::start("127.0.0.1:0", None).address;
    let output = run(gone, &["stats"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no ringcached answers"), "{}", text(&output.stderr));
    assert_eq!(run(gone, &["--key-file", "/nowhere", "stats"]).status.code(), Some(1));
    assert_eq!(run(gone, &["watch", "--interval", "0"]).status.code(), Some(2));
    assert_eq!(run(gone, &[]).status.code(), Some(2));
}

#[test]
fn watch_shows_rates_and_survives_a_restart() {
    let first = Server::start("127.0.0.1:0", None);
    let address = first.address;
    let mut child = command(address, &["watch", "--interval", "0.1", "--count", "6"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert!(next().contains("gets/s"));
    let cells: Vec<_> = next().split_whitespace().map(str::to_owned).collect();
    assert!(cells[0].parse::<u64>().unwrap() > 100, "{cells:?}");
    assert_eq!((cells[1].as_str(), cells[10].as_str()), ("75.0", "10.0"), "{cells:?}");

    drop(first);
    let _second = Server::start(&address.to_string(), None);
    for _ in 0..5 {
        let line = next();
        let gets = line.split_whitespace().next().unwrap().parse::<u64>().unwrap();
        assert!(gets < 1_000_000, "no rate spans the restart: {line}");
    }
    assert!(child.wait().unwrap().success());
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    let restarted = format!("{address}: the server has restarted\n");
    assert!(errors.contains(&restarted), "{errors}");
}
