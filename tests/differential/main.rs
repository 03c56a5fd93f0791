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
//! that comes before that of a mark, which is sent behind the request. What is each server's own
//! business, such as the numbers of cas, is replaced (`reply`). `README.md` lists the differences
//! that are meant; `meant` recognizes them. Of any other, the fewest requests that show it are told
//! (`shrink`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(clippy::print_stderr, reason = "what is left out is said")]

#[path = "../common/mod.rs"]
mod common;
mod generate;
mod meant;
mod peer;
mod reply;
mod shrink;

use common::server::{Kind, OURS, Server, original};
use common::transcript::{Version, parse_version};
use generate::{Effect, Request, Source};
use peer::Peer;
use reply::Reply;
use std::collections::{BTreeMap, BTreeSet};

/// Seeds of one run of the test, each with servers of its own, and requests for each.
const SEEDS: std::ops::Range<u64> = 1..7;
const STEPS: usize = 2000;

/// One thread, or it may still be sending a number on one when it changes it on another, and none
/// behind it, which keeps what it looks at from being changed in place, too.
const THEIR_OPTIONS: [&str; 6] =
    ["-m", "1024", "-t", "1", "-o", "no_lru_maintainer,no_lru_crawler"];

/// Differences that a run tells before it ends.
const TOLD_MAX: usize = 5;

/// Our server and the original.
struct Pair {
    ours: Peer,
    theirs: Peer,
    version: Version,
    /// Keys whose number has grown, or may have: the original gives it to a new item then, without
    /// the marks of the old one.
    grown: BTreeSet<Vec<u8>>,
    /// How often each difference was met that is meant.
    meant: BTreeMap<&'static str, usize>,
}

/// A difference that is not meant: the request of the step, and both replies.
struct Found {
    place: usize,
    ours: Reply,
    theirs: Reply,
}

impl Pair {
    /// Sends the requests of a step to both.
    fn take(&mut self, step: &[Request]) -> Option<Found> {
        let before = match step {
            [one] if one.effect == Effect::Counts => self.ours.size(&one.keys[0]),
            _ => None,
        };
        let (ours, theirs) = (self.ours.ask(step), self.theirs.ask(step));
        let mut misled = self.note_growth(step, before);
        for (place, (ours, theirs)) in ours.into_iter().zip(theirs).enumerate() {
            if ours.is_like(&theirs) {
                if meant::has_other_effect(&ours) || self.has_counted_unseen(&step[place], &ours) {
                    misled.push(step[place].clone());
                }
                continue;
            }
            let Some(meant) = meant::difference(self, &step[place], &ours, &theirs) else {
                return Some(Found { place, ours, theirs });
            };
            *self.meant.entry(meant.name).or_default() += 1;
            if !meant.is_harmless {
                self.forget(&step[place..]);
                break;
            }
        }
        self.forget(&misled);
        None
    }

    /// Whether a number may have been changed by one of both, without a word.
    fn has_counted_unseen(&mut self, request: &Request, reply: &Reply) -> bool {
        let is_silent = request.effect == Effect::Counts && reply.bytes.is_empty();
        let key = request.keys.first().filter(|_| is_silent);
        key.is_some_and(|key| self.value(key).is_none_or(|value| meant::is_number_there(&value)))
    }

    /// The value that ours has. Both are asked, so that both know that somebody has asked.
    fn value(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        self.theirs.value(key);
        self.ours.value(key)
    }

    /// Notes which numbers have grown. Of those, requests that gave the old item what is the new
    /// one's.
    fn note_growth(&mut self, step: &[Request], before: Option<usize>) -> Vec<Request> {
        let mut misled = Vec::new();
        for request in step {
            let key = &request.keys.first();
            let Some(key) = key.filter(|key| key.len() <= 250) else { continue };
            if request.effect != Effect::Counts {
                continue;
            }
            // What is gone may have grown before.
            let now = self.ours.size(key).unwrap_or(usize::MAX);
            let is_alone = step.len() == 1;
            // An item of which a peer has chosen the cas may become shorter with that.
            if is_alone && before.is_none_or(|before| before == now) {
                continue;
            }
            match request.gives_to_counted() {
                true => misled.push(request.clone()),
                false => _ = self.grown.insert(key.clone()),
            }
        }
        misled
    }

    /// What these requests may have left is no longer the same for both.
    fn forget(&mut self, requests: &[Request]) {
        if requests.iter().any(|request| request.is_wide) {
            return self.reset();
        }
        if requests.is_empty() {
            return;
        }
        let keys = requests.iter().flat_map(|request| request.keys.clone());
        let keys: Vec<_> = keys.filter(|key| key.len() <= 250).collect();
        self.grown.retain(|key| !keys.contains(key));
        self.ours.forget(&keys);
        self.theirs.forget(&keys);
    }

    fn reset(&mut self) {
        self.grown.clear();
        self.ours.reset();
        self.theirs.reset();
    }
}

fn version_of(program: &str) -> Version {
    let output = std::process::Command::new(program).arg("-V").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    said.split_whitespace()
        .find_map(parse_version)
        .unwrap_or_else(|| panic!("no version in {said:?}"))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn made_up_requests_are_answered_as_the_original_does() {
    let steps = number("DIFFERENTIAL_STEPS").and_then(|steps| usize::try_from(steps).ok());
    let seeds = match number("DIFFERENTIAL_SEED") {
        Some(seed) => seed..seed + 1,
        None => SEEDS,
    };
    let mut failures = Vec::new();
    for seed in seeds {
        // All three modes have their turn, with either kind of source.
        let kind = OURS[usize::try_from(seed % 3).unwrap()];
        let Some(theirs) = Server::start(Kind::Memcached, &THEIR_OPTIONS) else { return };
        let Some(ours) = Server::start(kind, &["-m", "1024"]) else { return };
        let (ours, theirs) = (Peer::new(ours), Peer::new(theirs));
        let version = version_of(&original());
        let (grown, meant) = (BTreeSet::new(), BTreeMap::new());
        let pair = Pair { ours, theirs, version, grown, meant };
        failures.extend(run(seed, steps.unwrap_or(STEPS), pair));
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n\n"));
}

#[test]
fn the_differences_that_are_meant_are_written_down() {
    let text = include_str!("README.md");
    for meant in meant::TABLE {
        assert!(text.contains(&format!("| {} |", meant.name)), "not in README.md: {}", meant.name);
    }
}

/// What differed, as text.
fn run(seed: u64, steps: usize, mut pair: Pair) -> Vec<String> {
    let mut source = Source::new(seed, pair.version);
    let (mut since_reset, mut failures, mut requests) = (Vec::new(), Vec::new(), 0);
    for number in 0..steps {
        let step = source.step();
        requests += step.len();
        since_reset.push(step);
        let Some(found) = pair.take(since_reset.last().unwrap()) else { continue };
        let story = shrink::story(&mut pair, &since_reset, &found);
        failures.push(format!("DIFFERENTIAL_SEED={seed}, step {number}:\n{story}"));
        if failures.len() == TOLD_MAX {
            break;
        }
        pair.reset();
        since_reset.clear();
    }
    eprintln!("seed {seed}: {requests} requests; differences that are meant: {:?}", pair.meant);
    pair.ours.server.assert_serves();
    failures
}
