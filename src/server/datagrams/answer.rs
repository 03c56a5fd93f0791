//! What the commands of one datagram deserve: a reply within the limit, or an error in its place.

use crate::base::clock::Now;
use crate::base::output::Memory;
use crate::command::{Budget, Cost, Verdict};
use crate::protocol::binary::reply::{Echo, error};
use crate::protocol::binary::{PACKET_HEAD_BYTES, Status};

use super::super::service::Service;
use super::frame::Request;

//= memcached.c: its words for a reply that finds no room
const TOO_LARGE: &[u8] = b"SERVER_ERROR output line too long\r\n";

/// A datagram cannot watch what happens after it.
const NO_WATCH: &[u8] = b"CLIENT_ERROR watch commands not allowed\r\n";

/// After so many requests the thread says that it refers to nothing: a few commands may go through
/// all items many times, and meanwhile nothing that is retired would come free.
const STEP_REQUESTS: u32 = 1024;

/// The outcome of a request.
#[derive(Debug)]
pub(super) struct Answer {
    /// Empty for nothing.
    pub reply: Vec<u8>,
    /// Commands, keys of lists of keys, and rows of statistics.
    pub requests: u32,
    /// The reply is an error, because what was asked for is larger than a reply may be.
    pub is_too_large: bool,
    /// The server is to stop.
    pub stops: bool,
}

/// Executes a request on a session of its own. What is cut is not executed and deserves nothing.
///
/// Each step is bounded by what a datagram can hold, and by the limit: with the first reply beyond
/// it, execution ends.
pub(super) fn answer<V: Service>(
    service: &mut V,
    (listener, now): (u32, Now),
    request: &Request<'_>,
    payload_bytes_max: usize,
) -> Answer {
    let mut session = service.session(Some(listener));
    // Full is what is too large already.
    let mut output = Memory::new(payload_bytes_max + 1);
    let mut rest = request.commands;
    let mut requests = 0_u32;
    let verdict = loop {
        let mut budget = Budget { requests: STEP_REQUESTS, cost: Cost::Any };
        let progress = service.drive(&mut session, rest, now, &mut budget, &mut output);
        requests = requests.saturating_add(STEP_REQUESTS - budget.requests);
        rest = &rest[progress.consumed..];
        if progress.verdict != Verdict::Yield {
            break progress.verdict;
        }
        service.quiesce();
    };
    service.abandon(&mut session);
    let is_too_large = output.written().len() > payload_bytes_max;
    let reply = if is_too_large {
        let consumed = request.commands.len() - rest.len();
        too_large(request.is_binary, &request.commands[..consumed])
    } else if verdict == Verdict::Watch {
        NO_WATCH.to_vec()
    } else {
        output.take()
    };
    Answer { reply, requests, is_too_large, stops: verdict == Verdict::Shutdown }
}

/// The error that the last of these commands is answered with.
fn too_large(is_binary: bool, consumed: &[u8]) -> Vec<u8> {
    if !is_binary {
        return TOO_LARGE.to_vec();
    }
    let mut output = Memory::new(usize::MAX);
    error(&mut output, last_echo(consumed), Status::TooLarge);
    output.take()
}

/// What the reply to the last of these packets repeats.
fn last_echo(packets: &[u8]) -> Echo {
    let (mut rest, mut echo) = (packets, Echo::default());
    while let Some((head, behind)) = rest.split_first_chunk::<PACKET_HEAD_BYTES>() {
        let [opcode, opaque @ ..] = [head[1], head[12], head[13], head[14], head[15]];
        echo = Echo { opcode, opaque };
        let body = u32::from_be_bytes([head[8], head[9], head[10], head[11]]);
        rest = behind.get(body as usize..).unwrap_or_default();
    }
    echo
}
