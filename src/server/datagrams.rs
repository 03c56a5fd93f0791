//! memcached's requests in UDP datagrams: one thread a socket, beside the rings.
//!
//! ```text
//!   +------------+------------+------------+------------+
//!   | request id | number     | count      | 0          |  payload, at most 1392 bytes
//!   +------------+------------+------------+------------+
//!     u16 each, big-endian
//! ```
//!
//! A request is one datagram with whole commands; all that it deserves is one reply, in as many
//! full datagrams as it takes, under the id of the request. Anything else is dropped without a
//! word.
//!
//! A reply is far larger than its request and the source of a datagram is anybody's claim, so a
//! server that answers strangers is a weapon: the sockets are bound to loopback alone.

use std::io;
use std::net::UdpSocket;
use std::time::Duration;

use crate::base::clock::Clock;
use crate::base::metrics::{Counters, Metric};
use crate::base::output::Memory;
use crate::base::sync::Arc;
use crate::command::{Budget, Cost, Verdict};

use super::fleet::Fleet;
use super::service::Service;

const HEAD_BYTES: usize = 8;

//= protocol.txt "UDP protocol": datagrams of at most 1400 bytes
const PAYLOAD_BYTES_MAX: usize = 1400 - HEAD_BYTES;

/// A reply that would be larger is an error instead.
const REPLY_BYTES_MAX: usize = 4 << 20;

const TOO_LARGE: &[u8] = b"SERVER_ERROR output line too long\r\n";

/// A datagram cannot watch what happens after it.
const NO_WATCH: &[u8] = b"CLIENT_ERROR watch commands not allowed\r\n";

/// How often a thread without requests looks whether the server ends.
const PATIENCE: Duration = Duration::from_millis(500);

pub struct Datagrams<V: Service> {
    pub socket: UdpSocket,
    pub service: V,
    pub counters: Arc<Counters>,
    pub fleet: Arc<Fleet<V::Session>>,
    pub clock: Clock,
}

impl<V: Service> Datagrams<V> {
    /// Answers until the server drains.
    ///
    /// # Errors
    /// When the socket is none.
    pub fn run(mut self) -> io::Result<()> {
        self.socket.set_read_timeout(Some(PATIENCE))?;
        let mut datagram = vec![0; 1 << 16];
        while !self.fleet.is_draining() {
            self.service.rest();
            let received = self.socket.recv_from(&mut datagram);
            self.service.wake();
            // An error is a time-out, or news of an earlier reply that nobody awaited.
            let Ok((len, peer)) = received else { continue };
            self.counters.add(Metric::BytesRead, len as u64);
            let Some((id, payload)) = parse(&datagram[..len]) else { continue };
            let came_ns = self.clock.elapsed_ns();
            let answer = self.answer(payload);
            self.service.tell_latency(self.clock.elapsed_ns().saturating_sub(came_ns));
            for reply in split(id, &answer) {
                // A reply may be lost like any datagram.
                let sent = self.socket.send_to(&reply, peer).unwrap_or(0);
                self.counters.add(Metric::BytesWritten, sent as u64);
            }
        }
        self.service.rest();
        Ok(())
    }

    /// All that the commands of one datagram deserve. A command that is cut deserves nothing.
    fn answer(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut session = self.service.session(None);
        let mut output = Memory::new(REPLY_BYTES_MAX);
        let mut rest = payload;
        let verdict = loop {
            let mut budget = Budget { requests: u32::MAX, cost: Cost::Any };
            let now = self.clock.now();
            let progress = self.service.drive(&mut session, rest, now, &mut budget, &mut output);
            rest = &rest[progress.consumed..];
            if progress.verdict != Verdict::Yield {
                break progress.verdict;
            }
        };
        self.service.abandon(&mut session);
        match verdict {
            Verdict::OutputFull => TOO_LARGE.to_vec(),
            Verdict::Watch => NO_WATCH.to_vec(),
            Verdict::Shutdown => {
                self.fleet.drain();
                output.take()
            }
            Verdict::NeedInput
            | Verdict::Yield
            | Verdict::Defer
            | Verdict::WouldWait
            | Verdict::SpansFull
            | Verdict::Close => output.take(),
        }
    }
}

/// The id and the commands of a request that came whole in one datagram.
fn parse(datagram: &[u8]) -> Option<([u8; 2], &[u8])> {
    let (&[id_high, id_low, _, number, count_high, count_low, _, _], payload) =
        datagram.split_first_chunk::<HEAD_BYTES>()?;
    let is_whole = [count_high, count_low] == [0, 1] && number == 0 && !payload.is_empty();
    is_whole.then_some(([id_high, id_low], payload))
}

/// A reply in datagrams, all full but the last; none for nothing.
fn split(id: [u8; 2], reply: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let count = u16::try_from(reply.len().div_ceil(PAYLOAD_BYTES_MAX)).unwrap_or(u16::MAX);
    (0..count).zip(reply.chunks(PAYLOAD_BYTES_MAX)).map(move |(number, payload)| {
        let [number, count] = [number, count].map(u16::to_be_bytes);
        [id, number, count, [0, 0]].as_flattened().iter().chain(payload).copied().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_requests_are_heard() {
        assert_eq!(parse(&[1, 2, 0, 0, 0, 1, 0, 0, b'x']), Some(([1, 2], &b"x"[..])));
        for strange in [
            &[][..],
            &[1, 2, 0, 0, 0, 1, 0],
            &[1, 2, 0, 0, 0, 1, 0, 0],
            &[1, 2, 0, 0, 0, 2, 0, 0, b'x'],
            &[1, 2, 0, 1, 0, 1, 0, 0, b'x'],
            &[1, 2, 0, 0, 0, 0, 0, 0, b'x'],
        ] {
            assert_eq!(parse(strange), None, "{strange:?}");
        }
    }

    #[test]
    fn a_reply_fills_its_datagrams() {
        let reply: Vec<u8> = (0..3000u32).map(|byte| byte.to_le_bytes()[0]).collect();
        let datagrams: Vec<_> = split([7, 8], &reply).collect();
        assert_eq!(datagrams.iter().map(Vec::len).collect::<Vec<_>>(), [1400, 1400, 224]);
        assert_eq!(datagrams[2][..8], [7, 8, 0, 2, 0, 3, 0, 0]);
        let payloads: Vec<u8> = datagrams.iter().flat_map(|each| each[8..].to_vec()).collect();
        assert_eq!(payloads, reply);
        assert_eq!(split([0, 0], b"").count(), 0);
    }
}
