//! The null server: our ring loop with a service that answers the same bytes without parsing or
//! looking anything up. What it costs is the limit of this kernel path.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool talks to people")]

use std::net::SocketAddr;

use clap::Parser;
use ringcached::base::clock::{Clock, Now};
use ringcached::base::metrics::Registry;
use ringcached::base::output::Output;
use ringcached::command::{Budget, Progress, Verdict};
use ringcached::config::Dispatch;
use ringcached::server::launch::{Shape, launch};
use ringcached::server::service::Service;
use ringcached::sys::socket::Listener;

/// Answers one canned VALUE for every fixed number of request bytes.
#[derive(Parser)]
struct Options {
    #[arg(long, default_value = "127.0.0.1:21300")]
    listen: SocketAddr,
    /// Bytes of one request, line end included.
    #[arg(long, default_value_t = 26)]
    request_bytes: usize,
    /// Bytes of the key in the reply.
    #[arg(long, default_value_t = 20)]
    key_bytes: usize,
    /// Bytes of the value in the reply.
    #[arg(long, default_value_t = 32)]
    value_bytes: usize,
}

#[derive(Clone)]
struct Null {
    request_bytes: usize,
    reply: Vec<u8>,
}

impl Service for Null {
    type Session = ();

    fn drive(
        &mut self,
        (): &mut (),
        input: &[u8],
        _now: Now,
        budget: &mut Budget,
        output: &mut impl Output,
    ) -> Progress {
        let whole = input.len() / self.request_bytes;
        let mut done = 0;
        while done < whole {
            if output.is_full() {
                return Progress { consumed: done * self.request_bytes, verdict: Verdict::OutputFull };
            }
            if budget.requests == 0 {
                return Progress { consumed: done * self.request_bytes, verdict: Verdict::Yield };
            }
            budget.requests -= 1;
            output.put(&self.reply);
            done += 1;
        }
        Progress { consumed: done * self.request_bytes, verdict: Verdict::NeedInput }
    }

    fn abandon(&mut self, (): &mut ()) {}
    fn quiesce(&mut self) {}
    fn rest(&mut self) {}
    fn wake(&mut self) {}
}

fn main() {
    let options = Options::parse();
    let key = "k".repeat(options.key_bytes);
    let value = "v".repeat(options.value_bytes);
    let reply = format!("VALUE {key} 0 {}\r\n{value}\r\nEND\r\n", options.value_bytes);
    let null = Null { request_bytes: options.request_bytes, reply: reply.into_bytes() };
    let shape = Shape {
        rings: 1,
        workers: 0,
        dispatch: Dispatch::Inline,
        connections_max: 4096,
        requests_per_event: 20,
        idle_timeout_s: 0,
        pool_bytes: 64 << 20,
    };
    let listener = Listener::tcp(options.listen, 1024).expect("the address is free");
    let registry = Registry::default();
    let handle =
        launch(shape, vec![listener], &registry, &Clock::start(), move |_| null.clone());
    handle.expect("io_uring works").join();
}
