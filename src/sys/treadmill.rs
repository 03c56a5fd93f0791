//! A ring without a kernel, on which one connection runs on the spot: for counting instructions.
//!
//! In every turn the peer has read the replies to the last requests, and sends the same ones again.
//! It does next to nothing itself, so that what a turn takes is what the server takes.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

use crate::base::slots::SlotId;

use super::blocks::{Block, BlockPool, Landed};
use super::buffers::{BufferPool, Filled};
use super::gather::Gather;
use super::region::Loan;
use super::ring::{Completion, Hardships, Received, Ring};
use super::socket::Socket;

/// Longest requests of a turn: a receive buffer of a server holds as many bytes.
pub const REQUESTS_BYTES_MAX: u32 = 4096;

#[derive(Debug)]
pub struct Treadmill {
    /// What the connection takes for its own: it is asked for its peer, and has none.
    socket: UnixDatagram,
    requests: Vec<u8>,
    buffers: BufferPool,
    blocks: BlockPool,
    ready: VecDeque<Completion>,
    /// The connection that is received from.
    armed: Option<SlotId>,
    replied_bytes: u64,
}

impl Treadmill {
    /// A ring whose one peer sends `requests` in every turn.
    ///
    /// # Errors
    /// What socket(2) and mmap(2) say; more bytes than `REQUESTS_BYTES_MAX` are refused.
    pub fn new(requests: Vec<u8>) -> io::Result<Treadmill> {
        if requests.len() > REQUESTS_BYTES_MAX as usize {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Treadmill {
            socket: UnixDatagram::unbound()?,
            requests,
            buffers: BufferPool::map(0, 1, REQUESTS_BYTES_MAX)?,
            blocks: BlockPool::map(0)?,
            ready: VecDeque::new(),
            armed: None,
            replied_bytes: 0,
        })
    }

    /// Bytes of all replies so far.
    pub fn replied_bytes(&self) -> u64 {
        self.replied_bytes
    }
}

impl Ring for Treadmill {
    fn accept(&mut self, listener: u32) {
        let result = Ok(Socket::from_raw(self.socket.as_raw_fd()));
        self.ready.push_back(Completion::Accepted { listener, result, armed: true });
    }

    fn cancel_accept(&mut self, _listener: u32) {}

    fn stop_listening(&mut self, _listener: u32) {}

    fn has_arrivals(&self) -> bool {
        false
    }

    fn receive(&mut self, _socket: &Socket, slot: SlotId, _cap_bytes: u32) {
        self.armed = Some(slot);
    }

    fn receive_one(&mut self, socket: &Socket, slot: SlotId) {
        self.receive(socket, slot, 1);
    }

    fn receive_into(&mut self, _: &Socket, _: SlotId, _: Loan, _: bool) {
        unreachable!("no value is large");
    }

    fn cancel_receive(&mut self, _slot: SlotId) {
        if let Some(slot) = self.armed.take() {
            let received = Received::Stopped;
            self.ready.push_back(Completion::Received { slot, received, armed: false });
        }
    }

    fn send<'b>(
        &mut self,
        _socket: &Socket,
        slot: SlotId,
        blocks: impl Iterator<Item = &'b mut Block>,
        skip: usize,
    ) {
        let launch = |block: &'b mut Block| {
            block.launch();
            block.bytes().len()
        };
        let bytes = blocks.map(launch).sum::<usize>() - skip;
        self.replied_bytes += bytes as u64;
        let landed = Landed(());
        self.ready.push_back(Completion::Sent { slot, result: Ok(bytes), landed });
    }

    fn send_gathered(&mut self, _socket: &Socket, slot: SlotId, fill: impl FnOnce(&mut Gather)) {
        let mut gather = Gather::default();
        fill(&mut gather);
        let bytes = gather.bytes();
        self.replied_bytes += bytes as u64;
        let landed = Landed(());
        self.ready.push_back(Completion::Sent { slot, result: Ok(bytes), landed });
    }

    fn cancel_send(&mut self, _slot: SlotId) {}

    fn shutdown(&mut self, _socket: &Socket, _slot: SlotId) {}

    fn close(&mut self, _socket: Socket) {}

    fn refuse(&mut self, _socket: Socket, _words: &[u8]) {}

    fn wake_after(&mut self, _ns: u64) {}

    fn enter(&mut self, _wait: bool) -> io::Result<()> {
        if let Some(slot) = self.armed {
            let filled = self.buffers.fill(0, &self.requests, true);
            let received = Received::Bytes(filled);
            self.ready.push_back(Completion::Received { slot, received, armed: true });
        }
        Ok(())
    }

    fn next(&mut self) -> Option<Completion> {
        self.ready.pop_front()
    }

    fn provide(&mut self, filled: Filled) {
        let _ = self.buffers.settle(filled);
    }

    fn refill(&mut self) {}

    fn receive_bytes(&self) -> usize {
        REQUESTS_BYTES_MAX as usize
    }

    fn is_dry(&self) -> bool {
        false
    }

    fn resize(&mut self, _connections: usize) {}

    fn blocks(&mut self) -> &mut BlockPool {
        &mut self.blocks
    }

    fn untaken_bytes(&self, _socket: &Socket) -> usize {
        0
    }

    fn intake(&self, _socket: &Socket) -> u64 {
        0
    }

    fn is_gone(&self, _socket: &Socket) -> bool {
        false
    }

    fn hardships(&self) -> Hardships {
        Hardships::default()
    }
}
