//! `top` against a whole server in this process, under load.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ringcached::admin::{AdminSocket, Control, Responder};
use ringcached::base::clock::Clock;
use ringcached::config::{AdminPlan, Plan};
use ringcached::server::claim::claim;
use ringcached::server::start::Server;
use ringcached::sys::poll::readable;

/// A server, its statistics, and a client that sets and gets as fast as it can.
struct Busy {
    statistics: SocketAddr,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Busy {
    /// `None` where there is no io_uring, which is said.
    fn start() -> Option<Busy> {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let port = address.port().to_string();
        let words = ["-u", "root", "-l", "127.0.0.1", "-m", "64", "-t", "2", "-p", &port];
        let plan = Plan::parse(&words).unwrap();
        let clock = Clock::start();
        let server = match Server::start(&plan, claim(&plan).unwrap(), &clock) {
            Ok(server) => Arc::new(server),
            Err(error) => {
                assert!(std::env::var_os("E2E_MUST_RUN").is_none(), "{error}");
                eprintln!("skipped: {error}");
                return None;
            }
        };
        let anywhere = "127.0.0.1:0".parse().unwrap();
        let any = AdminPlan { address: anywhere, may_move: false, key: None, tells_keys: true };
        let socket = AdminSocket::bind(&any).unwrap();
        let statistics = socket.address();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, registry) = (Arc::clone(&stop), Arc::clone(&server.registry));
        let answer = move || {
            let control: Arc<dyn Control> = server;
            let mut responder = Responder::new(socket, &registry, &control, clock);
            while !stopped.load(Ordering::Relaxed) {
                readable([responder.as_fd()], Duration::from_millis(50)).unwrap();
                responder.turn();
            }
            control.drain();
        };
        let stopped = Arc::clone(&stop);
        let ask = move || {
            let mut stream = BufReader::new(TcpStream::connect(address).unwrap());
            while !stopped.load(Ordering::Relaxed) {
                stream.get_mut().write_all(b"set k 0 0 1\r\nv\r\nget k\r\nget k k\r\n").unwrap();
                for _ in 0..9 {
                    let mut line = String::new();
                    stream.read_line(&mut line).unwrap();
                }
            }
        };
        let threads = vec![std::thread::spawn(answer), std::thread::spawn(ask)];
        Some(Busy { statistics, stop, threads })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

fn top(server: SocketAddr, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringcachedctl"))
        .args(["--server", &server.to_string(), "top", "--interval", "0.5"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn one_view_is_json_or_text() {
    let Some(busy) = Busy::start() else { return };
    let output = top(busy.statistics, &["--once", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let view: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |value: &serde_json::Value| value.as_f64().unwrap_or_else(|| panic!("{view:#}"));
    assert!(number(&view["seconds"]) >= 0.5, "{view:#}");
    let (gets, sets) = (number(&view["gets_per_s"]), number(&view["sets_per_s"]));
    assert!(sets > 0.0 && gets > 2.0 * sets, "three keys a set: {view:#}");
    assert_eq!((number(&view["hit_percent"]), number(&view["connections"])), (100.0, 1.0));
    assert_eq!(number(&view["throttled"]), 0.0);
    let latency = view["latency"].as_array().unwrap();
    for name in ["get", "multi_get", "store", "batch_run"] {
        let row = latency.iter().find(|row| row["what"] == name).unwrap();
        assert!(number(&row["per_s"]) > 0.0 && number(&row["p50"]) > 0.0, "{name}: {view:#}");
        assert!(number(&row["p999"]) >= number(&row["p50"]), "{name}: {view:#}");
    }
    let threads = view["threads"].as_array().unwrap();
    let rings = threads.iter().filter(|row| row["name"].as_str().unwrap().starts_with("ring "));
    let turns: f64 = rings.clone().map(|row| number(&row["turns_per_s"])).sum();
    assert!(rings.count() == 2 && turns > 0.0, "{view:#}");
    assert!(view["classes"].is_array());

    let output = top(busy.statistics, &["--once"]);
    let text = String::from_utf8(output.stdout).unwrap();
    for words in ["requests/s", "Latency", "Rings and workers", "ring 1", "Memory by class"] {
        assert!(text.contains(words), "no {words} in {text}");
    }
}

#[test]
fn there_must_be_a_terminal_and_a_server() {
    let gone: SocketAddr = "127.0.0.1:9".parse().unwrap();
    for (arguments, code, words) in [
        (&["--once", "--json"][..], 1, "no ringcached answers"),
        (&[], 1, "needs a terminal"),
        (&["--json"], 2, "--once"),
    ] {
        let output = top(gone, arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert!(errors.contains(words) && output.stdout.is_empty(), "{arguments:?}: {errors}");
    }
}
