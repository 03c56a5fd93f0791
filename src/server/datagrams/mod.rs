//! memcached's requests in UDP datagrams: one thread a socket, beside the rings.
//!
//! A request is one datagram with whole commands, in text or in packets, which each datagram says
//! anew; all that it deserves is one reply, in as many full datagrams as it takes, under the id of
//! the request. A datagram that is no request is dropped without a word. Nothing is kept from one
//! to the next: what is lost, comes twice or out of order is as if it had been sent so.
//!
//! A reply is larger than its request, and the source of a datagram is anybody's claim. So a reply
//! has a limit, beyond which there is a short error in its place; what a reply looks like is not
//! answered; who is beyond the limits of its address is not, either; and sockets are bound to
//! loopback, unless the operator insists.

mod answer;
mod frame;
#[cfg(all(any(test, fuzzing), not(loom)))]
pub mod fuzzing;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use crate::base::census::{Doing, Origin, Roll, Sighting};
use crate::base::clock::Clock;
use crate::base::metrics::{Counters, Metric};
use crate::base::protocol::Protocol;
use crate::base::sync::Arc;
use crate::net::rate::Served;

use super::fleet::Fleet;
use super::service::Service;
use answer::answer;
use frame::{Request, payload_bytes_max, split};

/// How often a thread without requests looks whether the server ends, and how long it tries to send
/// where nothing goes out.
const PATIENCE: Duration = Duration::from_millis(500);

/// Where datagrams come in.
#[derive(Debug)]
pub struct DatagramSocket {
    pub socket: UdpSocket,
    /// Its number, counted on from those that listen for connections.
    pub listener: u32,
    pub protocol: Protocol,
    /// Bytes of all datagrams of a reply.
    pub reply_bytes_max: usize,
}

pub struct Datagrams<V: Service> {
    pub socket: DatagramSocket,
    pub service: V,
    pub counters: Arc<Counters>,
    pub roll: Roll,
    pub fleet: Arc<Fleet<V::Session>>,
    pub clock: Clock,
}

impl<V: Service> Datagrams<V> {
    /// Answers until the server drains.
    ///
    /// # Errors
    /// When the socket is none.
    pub fn run(mut self) -> io::Result<()> {
        let socket = &self.socket.socket;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let origin = Origin { peer: socket.local_addr().ok(), listener: None };
        self.roll.enter(0, origin);
        self.show();
        let mut datagram = vec![0; 1 << 16];
        while !self.fleet.is_draining() {
            self.service.rest();
            let received = self.socket.socket.recv_from(&mut datagram);
            self.service.wake();
            // An error is a time-out, or news of an earlier reply that nobody awaited.
            let Ok((len, peer)) = received else { continue };
            self.receive(&datagram[..len], peer);
            self.show();
        }
        self.service.rest();
        Ok(())
    }

    fn receive(&mut self, datagram: &[u8], peer: SocketAddr) {
        self.counters.add(Metric::BytesRead, datagram.len() as u64);
        let Some(request) = Request::parse(datagram, self.socket.protocol) else {
            return self.counters.bump(Metric::UdpDropped);
        };
        let came_ns = self.clock.elapsed_ns();
        let fleet = Arc::clone(&self.fleet);
        let seat = fleet.peers.as_ref().and_then(|peers| {
            let seat = peers.enter(peer.ip(), came_ns)?;
            self.counters.add(Metric::RateForgotten, u64::from(seat.forgets));
            Some((peers, seat.bucket))
        });
        // Nobody can be made to wait who has not been promised anything.
        if seat.is_some_and(|(peers, bucket)| peers.due_ns(bucket) > came_ns) {
            self.counters.bump(Metric::UdpLimited);
        } else {
            let mut served = self.serve(&request, peer);
            served.bytes += datagram.len() as u64;
            let done_ns = self.clock.elapsed_ns();
            self.service.tell_latency(done_ns.saturating_sub(came_ns));
            if let Some((peers, bucket)) = seat {
                peers.charge(bucket, served, done_ns);
            }
        }
        if let Some((peers, bucket)) = seat {
            peers.leave(bucket);
        }
    }

    /// Executes a request and sends its reply. Says how many requests that were, and how many bytes
    /// were sent.
    fn serve(&mut self, request: &Request<'_>, peer: SocketAddr) -> Served {
        let DatagramSocket { ref socket, listener, reply_bytes_max, .. } = self.socket;
        let limit = payload_bytes_max(reply_bytes_max);
        let answer = answer(&mut self.service, (listener, self.clock.now()), request, limit);
        self.counters.bump(Metric::UdpRequests);
        self.counters.add(Metric::UdpTooLarge, u64::from(answer.is_too_large));
        let mut bytes = 0;
        for reply in split(request.id, &answer.reply) {
            // What is left of a reply is of no use without this part.
            let Ok(sent) = socket.send_to(&reply, peer) else {
                self.counters.bump(Metric::UdpUnsent);
                break;
            };
            bytes += sent as u64;
        }
        self.counters.add(Metric::UdpReplies, u64::from(bytes > 0));
        self.counters.add(Metric::BytesWritten, bytes);
        if answer.stops {
            self.fleet.drain();
        }
        Served { requests: answer.requests.into(), bytes }
    }

    /// Says in the census that something has come.
    fn show(&self) {
        let ticks = self.clock.now().ticks & u64::from(u32::MAX);
        let seen = Sighting {
            doing: Doing::Datagrams,
            reply_bytes: 0,
            request_bytes: 0,
            item_bytes: 0,
            active_at: u32::try_from(ticks).expect("32 bits"),
        };
        self.roll.write(0, &seen);
    }
}
