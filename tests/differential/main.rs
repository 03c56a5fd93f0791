//! The same requests to our server and to the original, and the same replies, byte by byte.
//!
//! ```text
//!   seed -> request -> for each server, with the cas that it gave ------> server
//!                                                                            |
//!           equal, or a difference that is meant <- made comparable <- reply +
//! ```
//!
//! Requests are made up (`generate`): classic text, meta and binary ones in turn, on connections of
//! their own, about few keys, so that each dialect meets what the others have left. A reply is all
//! that comes before that of a no-op which is sent after the request. What is each server's own
//! business, the numbers of cas, is replaced by the order in which they were seen (`reply`).
//!
//! `DIFFERENTIAL_MEMCACHED=PATH` holds us against another release than Debian's, and
//! `DIFFERENTIAL_SEED=N` and `DIFFERENTIAL_STEPS=N` repeat or prolong a run.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(clippy::print_stderr, reason = "what is left out is said")]
#![allow(clippy::disallowed_methods, reason = "tests wait for another process, by the clock")]

#[path = "../common/mod.rs"]
mod common;
mod generate;
mod reply;

use common::Chance;
use common::server::{MEMCACHED, Server};
use common::transcript::{Version, parse_version};
use generate::{Dialect, Piece, Request};
use reply::Ordinals;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Seeds of one run of the test, each with servers of its own, and requests for each.
const SEEDS: u64 = 3;
const STEPS: usize = 3000;

/// A server that owes a reply for so long has lost it.
const PATIENCE: Duration = Duration::from_secs(5);

/// A cas that no server gives.
const NO_CAS: u64 = 9_876_543_210_123;

/// One of the two servers, as the requests see it.
struct Peer {
    server: Server,
    connections: BTreeMap<Dialect, TcpStream>,
    /// The cas that was last seen of each key.
    cas: BTreeMap<Vec<u8>, u64>,
    ordinals: Ordinals,
}

impl Peer {
    fn new(server: Server) -> Peer {
        let connect = |dialect| {
            let stream = TcpStream::connect(server.address()).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            (dialect, stream)
        };
        let connections = Dialect::ALL.map(connect).into();
        Peer { server, connections, cas: BTreeMap::new(), ordinals: Ordinals::default() }
    }

    /// What the request is for this server.
    fn bytes(&self, request: &Request) -> Vec<u8> {
        let cas = |key: &Vec<u8>, is_right: &bool| match self.cas.get(key) {
            Some(cas) if *is_right => *cas,
            Some(_) | None => NO_CAS,
        };
        let mut bytes = Vec::new();
        for piece in &request.pieces {
            match piece {
                Piece::Bytes(these) => bytes.extend_from_slice(these),
                Piece::CasInText { key, is_right } => {
                    bytes.extend_from_slice(cas(key, is_right).to_string().as_bytes());
                }
                Piece::CasInBinary { key, is_right } => {
                    bytes.extend_from_slice(&cas(key, is_right).to_be_bytes());
                }
            }
        }
        bytes
    }

    /// The reply in a form that can be compared.
    fn ask(&mut self, request: &Request) -> Vec<u8> {
        let mut bytes = self.bytes(request);
        bytes.extend_from_slice(request.dialect.no_op());
        let stream = self.connections.get_mut(&request.dialect).unwrap();
        stream.write_all(&bytes).unwrap();
        let mut reply = Vec::new();
        let mut piece = [0; 1 << 16];
        while !reply::is_whole(request.dialect, &reply) {
            match stream.read(&mut piece) {
                Ok(0) => {
                    reply.extend_from_slice(b"[closed]");
                    break;
                }
                Ok(count) => reply.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    reply.extend_from_slice(b"[no more comes]");
                    break;
                }
                Err(error) => panic!("{}: {error}", request.shown(&bytes)),
            }
        }
        let seen = reply::comparable(request.dialect, &reply, &mut self.ordinals);
        if let (Some(key), Some(cas)) = (&request.key, seen.cas) {
            self.cas.insert(key.clone(), cas);
        }
        seen.bytes
    }
}

fn original() -> Option<(String, Version)> {
    let named = std::env::var("DIFFERENTIAL_MEMCACHED").ok();
    let program = named.unwrap_or_else(|| MEMCACHED.into());
    let Ok(output) = std::process::Command::new(&program).arg("-V").output() else {
        assert!(std::env::var_os("E2E_MUST_RUN").is_none(), "no {program}");
        eprintln!("skipped: no {program}");
        return None;
    };
    let said = String::from_utf8(output.stdout).unwrap();
    let version = said.split_whitespace().find_map(parse_version);
    Some((program, version.unwrap_or_else(|| panic!("no version in {said:?}"))))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn made_up_requests_are_answered_as_the_original_does() {
    let Some((program, version)) = original() else { return };
    let steps = number("DIFFERENTIAL_STEPS").and_then(|steps| usize::try_from(steps).ok());
    let seeds = match number("DIFFERENTIAL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..SEEDS,
    };
    for seed in seeds {
        // All three modes have their turn.
        let kind = common::server::OURS[usize::try_from(seed % 3).unwrap()];
        let Some(ours) = Server::start(kind, &[]) else { return };
        let theirs = Server::start_program(&program, &[]);
        run(seed, steps.unwrap_or(STEPS), version, [ours, theirs]);
    }
}

fn run(seed: u64, steps: usize, version: Version, servers: [Server; 2]) {
    let [mut ours, mut theirs] = servers.map(Peer::new);
    let mut chance = Chance::new(seed);
    let mut past = Vec::new();
    let mut meant = BTreeMap::<&str, usize>::new();
    for step in 0..steps {
        let request = generate::request(&mut chance, version);
        let shown = request.shown(&ours.bytes(&request));
        let (mine, other) = (ours.ask(&request), theirs.ask(&request));
        past.push(format!("{shown}\n    -> {}", reply::shown(&mine)));
        if mine == other {
            continue;
        }
        if let Some(why) = reply::is_meant(&request, &mine, &other, version) {
            *meant.entry(why).or_default() += 1;
            continue;
        }
        let recent = past.iter().rev().take(12).rev().cloned().collect::<Vec<_>>().join("\n  ");
        let (mine, other) = (reply::shown(&mine), reply::shown(&other));
        panic!(
            "seed {seed}, step {step}:\n  {recent}\nthe last one differs\n  ours:   {mine}\n  \
             theirs: {other}"
        );
    }
    eprintln!("seed {seed}: {steps} requests; differences that are meant: {meant:?}");
    ours.server.assert_serves();
}
