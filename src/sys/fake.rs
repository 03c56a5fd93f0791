//! A ring without a kernel, for simulations: seeded, and as unkind as the kernel may be.
//!
//! It delivers bytes in runs of any length, into buffers of their own or into one that connections
//! share, ends multishots when it likes (with and without data), runs out of buffers, memory,
//! descriptors and room for completions, puts a turn off, sends a part of what it was given,
//! reports completions of different connections in any order, or late, and checks what the real
//! kernel only relies on: that bytes in flight do not change (R3), that memory that is received
//! into is nobody else's (R2), that nothing is armed twice, and that no socket is closed while it
//! is named.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use crate::base::slots::SlotId;

use super::blocks::{Block, BlockPool, Landed};
use super::buffers::{BufferPool, Filled};
use super::gather::Gather;
use super::landing::Pads;
use super::region::Loan;
use super::ring::{Arrived, Completion, Fault, Hardships, Received, Ring};
use super::socket::Socket;

/// A small generator of numbers that a seed decides.
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Chance {
        Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % limit
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// The far end of one connection.
#[derive(Debug, Default)]
pub struct Peer {
    /// What it wants to send.
    pub outgoing: VecDeque<u8>,
    /// It has shut down its sending side; seen when `outgoing` is empty.
    pub finished: bool,
    /// It is on this host: where its end comes right behind bytes, a receive that is armed already
    /// may not tell it.
    pub is_local: bool,
    /// It is gone without a word.
    pub reset: bool,
    /// It does not read.
    pub deaf: bool,
    /// Bytes that the kernel takes for it while it does not read.
    pub room: usize,
    /// It takes more only when there is room for so many.
    pub room_min: usize,
    /// What the kernel has taken so.
    pub untaken: VecDeque<u8>,
    /// Bytes that were taken by it, or by the kernel for it, in all; where there is no copy, once
    /// it has acknowledged them.
    sent: u64,
    /// It reads a byte at a time.
    pub sips: bool,
    /// What it has read.
    pub got: Vec<u8>,
    /// The server has closed or refused it.
    pub closed: bool,
    shut_down: bool,
    receive: Option<SlotId>,
    cancelled: bool,
    end_missed: bool,
    /// The receive ends with the first bytes.
    once: bool,
    direct: Option<Direct>,
    send: Option<Sending>,
}

/// A receive into lent memory.
#[derive(Debug)]
struct Direct {
    slot: SlotId,
    loan: Loan,
    /// What is in the memory while the receive is in flight.
    mark: u8,
    /// Where what comes behind goes.
    pad: Option<u16>,
}

impl Direct {
    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the memory is never unmapped (R1), and lent to this receive alone (R2).
        unsafe { std::slice::from_raw_parts_mut(self.loan.start().as_ptr(), self.loan.len()) }
    }
}

#[derive(Debug)]
struct Sending {
    slot: SlotId,
    cancelled: bool,
    is_zero_copy: bool,
    /// What it came to, where it was sent without a copy: the bytes are still read.
    taken: Option<usize>,
    /// Where the bytes are, and what they were when the send was submitted.
    spans: Vec<(*const u8, Vec<u8>)>,
}

impl Sending {
    fn bytes(&self) -> Vec<u8> {
        for (address, was) in &self.spans {
            // SAFETY: the bytes are of a block or a span, whose memory is never unmapped (R1).
            let is = unsafe { std::slice::from_raw_parts(*address, was.len()) };
            assert_eq!(is, was, "bytes changed while they were in flight");
        }
        self.spans.iter().flat_map(|(_, bytes)| bytes.clone()).collect()
    }
}

#[derive(Debug)]
pub struct FakeRing {
    pub chance: Chance,
    pub peers: BTreeMap<i32, Peer>,
    /// Connections that wait to be accepted.
    pub arriving: VecDeque<Peer>,
    /// The next accepts fail for want of descriptors.
    pub descriptors_short: bool,
    /// Sends of pieces.
    pub gathered: usize,
    /// Whether they are sent without a copy: then they end when the peer has what was sent.
    pub zero_copy: bool,
    /// Those that ended late for that.
    pub notified: usize,
    /// Who was received from, in order.
    pub receiving: Vec<SlotId>,
    /// Whether each listener's accept is armed.
    accepting: Vec<bool>,
    next_fd: i32,
    buffers: BufferPool,
    free_buffers: Vec<u16>,
    /// The buffer that is filled piece by piece, where buffers are.
    filling: Option<u16>,
    incremental: bool,
    /// Completions from which on multishots end.
    completions_max: usize,
    hardships: Hardships,
    buffer_count: usize,
    pads: Pads,
    blocks: BlockPool,
    ready: VecDeque<Completion>,
    turns: usize,
    /// Somebody is to be woken.
    alarm: bool,
    /// Times that the ring slept and nobody was to be woken.
    pub slept_for_ever: usize,
}

impl FakeRing {
    pub fn new(seed: u64, listeners: u32, buffers: u16, buffer_bytes: u32) -> FakeRing {
        let mut chance = Chance::new(seed);
        FakeRing {
            incremental: chance.once_in(2),
            completions_max: *chance.pick(&[4, 16, 1000]),
            chance,
            peers: BTreeMap::new(),
            arriving: VecDeque::new(),
            descriptors_short: false,
            gathered: 0,
            zero_copy: false,
            notified: 0,
            receiving: Vec::new(),
            accepting: vec![false; listeners as usize],
            next_fd: 100,
            buffers: BufferPool::map(0, buffers, buffer_bytes).unwrap(),
            free_buffers: (0..buffers).collect(),
            filling: None,
            hardships: Hardships::default(),
            buffer_count: usize::from(buffers),
            pads: Pads::map(0).unwrap(),
            blocks: BlockPool::map(0).unwrap(),
            ready: VecDeque::new(),
            turns: 0,
            alarm: false,
            slept_for_ever: 0,
        }
    }

    /// True when every buffer is with the ring.
    pub fn is_whole(&self) -> bool {
        let with_kernel = self.free_buffers.len() + usize::from(self.filling.is_some());
        with_kernel == self.buffer_count && self.buffers.held() == 0 && self.pads.is_whole()
    }

    fn accept_some(&mut self, listener: usize) {
        if !self.accepting[listener] {
            return;
        }
        let fault = match self.chance.below(16) {
            _ if self.descriptors_short => Some(Fault::NoDescriptor),
            0 => Some(Fault::NoMemory),
            1 => Some(Fault::Passing),
            _ => None,
        };
        let completion = |result, armed| {
            let listener = u32::try_from(listener).unwrap();
            Completion::Accepted { listener, result, armed }
        };
        if let Some(fault) = fault {
            self.accepting[listener] = false;
            self.ready.push_back(completion(Err(fault), false));
            return;
        }
        while let Some(peer) = self.arriving.pop_front() {
            let fd = self.next_fd;
            self.next_fd += 1;
            let is_local = peer.is_local;
            let socket = if is_local { Socket::for_test_local } else { Socket::for_test };
            self.peers.insert(fd, peer);
            let armed = !self.is_full() && !self.chance.once_in(8);
            self.accepting[listener] = armed;
            self.ready.push_back(completion(Ok(socket(fd)), armed));
            if !armed || self.chance.once_in(2) {
                return;
            }
        }
    }

    /// True when multishots end, because there is no room for completions.
    fn is_full(&self) -> bool {
        self.ready.len() >= self.completions_max
    }

    /// Puts some of `outgoing` into a buffer. `None` when there is none.
    fn fill(&mut self, outgoing: &mut VecDeque<u8>) -> Option<Filled> {
        let index = self.filling.take().or_else(|| self.free_buffers.pop())?;
        let room = self.buffers.room(index);
        let len = 1 + self.chance.below(room.min(outgoing.len()));
        let bytes: Vec<u8> = outgoing.drain(..len).collect();
        let done = !self.incremental || len == room || self.chance.once_in(8);
        if !done {
            self.filling = Some(index);
        }
        Some(self.buffers.fill(index, &bytes, done))
    }

    /// Lets something happen to one connection's receive.
    fn receive_some(&mut self, fd: i32) {
        let is_full = self.is_full();
        let peer = self.peers.get_mut(&fd).unwrap();
        let Some(slot) = peer.receive else { return };
        let has_bytes = !peer.outgoing.is_empty();
        let over = |received| (received, false);
        let (received, armed) = if peer.reset {
            over(Received::Failed(libc::ECONNRESET))
        } else if peer.shut_down {
            over(Received::End)
        } else if peer.cancelled && self.chance.once_in(2) {
            over(Received::Stopped)
        } else if has_bytes && self.chance.once_in(100) {
            over(Received::NoMemory)
        } else if has_bytes {
            let mut outgoing = std::mem::take(&mut peer.outgoing);
            let filled = self.fill(&mut outgoing);
            let armed = filled.is_some() && !is_full && !self.chance.once_in(6);
            let is_forgotten = armed && outgoing.is_empty() && !self.chance.once_in(4);
            let peer = self.peers.get_mut(&fd).unwrap();
            peer.outgoing = outgoing;
            let armed = armed && !peer.once;
            peer.end_missed = armed && peer.is_local && peer.finished && is_forgotten;
            (filled.map_or(Received::Dry, Received::Bytes), armed)
        } else if peer.finished && !peer.end_missed {
            over(Received::End)
        } else {
            return;
        };
        if !armed {
            let peer = self.peers.get_mut(&fd).unwrap();
            peer.receive = None;
            peer.cancelled = false;
        }
        self.ready.push_back(Completion::Received { slot, received, armed });
    }

    /// Lets something happen to one connection's receive into lent memory.
    fn receive_directly(&mut self, fd: i32) {
        let peer = self.peers.get_mut(&fd).unwrap();
        let Some(mut direct) = peer.direct.take() else { return };
        let mark = direct.mark;
        let is_intact = direct.bytes().iter().all(|byte| *byte == mark);
        assert!(is_intact, "memory changed while it was being received into");
        let mut behind = Vec::new();
        let arrived = if peer.reset {
            Arrived::Failed(libc::ECONNRESET)
        } else if peer.shut_down {
            Arrived::End
        } else if self.chance.once_in(16) {
            *self.chance.pick(&[Arrived::Stopped, Arrived::NoMemory])
        } else if !peer.outgoing.is_empty() {
            let most = direct.loan.len().min(peer.outgoing.len());
            let len = if self.chance.once_in(2) { most } else { 1 + self.chance.below(most) };
            let outgoing = peer.outgoing.drain(..len);
            direct.bytes().iter_mut().zip(outgoing).for_each(|(to, byte)| *to = byte);
            if len == direct.loan.len() && direct.pad.is_some() {
                let most = self.pads.room().min(peer.outgoing.len());
                behind.extend(peer.outgoing.drain(..self.chance.below(most + 1)));
            }
            Arrived::Bytes(len)
        } else if peer.finished {
            Arrived::End
        } else {
            peer.direct = Some(direct);
            return;
        };
        let Direct { slot, loan, mark: _, pad } = direct;
        let behind = pad.and_then(|pad| self.pads.fill(pad, &behind));
        self.ready.push_back(Completion::Arrived { slot, arrived, loan, behind });
    }

    fn launch(
        &mut self,
        socket: &Socket,
        slot: SlotId,
        spans: Vec<(*const u8, Vec<u8>)>,
        is_zero_copy: bool,
    ) {
        assert!(spans.iter().any(|(_, bytes)| !bytes.is_empty()), "nothing is sent");
        let peer = self.peers.get_mut(&socket.raw()).unwrap();
        assert!(peer.send.is_none(), "two sends in flight");
        peer.send = Some(Sending { slot, cancelled: false, is_zero_copy, taken: None, spans });
    }

    /// Lets something happen to one connection's send.
    fn send_some(&mut self, fd: i32) {
        let peer = self.peers.get_mut(&fd).unwrap();
        if !peer.deaf {
            peer.got.extend(peer.untaken.drain(..));
        }
        let Some(sending) = &peer.send else { return };
        let is_stuck = peer.deaf && !peer.shut_down && !peer.reset;
        if let Some(taken) = sending.taken {
            // Nobody acknowledges it, or somebody will.
            if !is_stuck && self.chance.once_in(3) {
                let (slot, _) = (sending.slot, sending.bytes());
                peer.send = None;
                peer.sent += taken as u64;
                self.notified += 1;
                self.ready.push_back(Completion::Sent {
                    slot,
                    result: Ok(taken),
                    landed: Landed(()),
                });
            }
            return;
        }
        let room = if is_stuck { peer.room - peer.untaken.len() } else { 0 };
        let room = if room < peer.room_min { 0 } else { room };
        if is_stuck && room == 0 && !sending.cancelled {
            return;
        }
        let (slot, bytes) = (sending.slot, sending.bytes());
        if room > 0 {
            let taken = bytes.len().min(room);
            peer.untaken.extend(&bytes[..taken]);
            peer.sent += taken as u64;
            peer.send = None;
            self.ready.push_back(Completion::Sent { slot, result: Ok(taken), landed: Landed(()) });
            return;
        }
        let result = if peer.reset || peer.shut_down {
            Err(Fault::Lasting(libc::EPIPE))
        } else if is_stuck {
            // What was taken before the peer went deaf, or nothing.
            if peer.room == 0 && self.chance.once_in(2) {
                Ok(1 + self.chance.below(bytes.len()))
            } else {
                Err(Fault::Passing)
            }
        } else if self.chance.once_in(100) {
            Err(*self.chance.pick(&[Fault::NoMemory, Fault::Passing]))
        } else if peer.sips {
            Ok(1)
        } else if self.chance.once_in(4) {
            Ok(1 + self.chance.below(bytes.len()))
        } else {
            Ok(bytes.len())
        };
        peer.got.extend_from_slice(&bytes[..result.unwrap_or(0)]);
        if let (Ok(taken), Some(Sending { is_zero_copy: true, .. })) = (result, &peer.send) {
            peer.send.iter_mut().for_each(|sending| sending.taken = Some(taken));
            return;
        }
        peer.sent += result.unwrap_or(0) as u64;
        peer.send = None;
        self.ready.push_back(Completion::Sent { slot, result, landed: Landed(()) });
    }
}

impl Ring for FakeRing {
    fn accept(&mut self, listener: u32) {
        let was_armed = std::mem::replace(&mut self.accepting[listener as usize], true);
        assert!(!was_armed, "an accept is armed twice");
    }

    fn cancel_accept(&mut self, listener: u32) {
        if std::mem::take(&mut self.accepting[listener as usize]) {
            let result = Err(Fault::Passing);
            self.ready.push_back(Completion::Accepted { listener, result, armed: false });
        }
    }

    fn stop_listening(&mut self, _listener: u32) {
        self.arriving.clear();
    }
    fn has_arrivals(&self) -> bool {
        !self.arriving.is_empty()
    }

    fn receive(&mut self, socket: &Socket, slot: SlotId, _cap_bytes: u32) {
        let peer = self.peers.get_mut(&socket.raw()).unwrap();
        assert!(peer.receive.is_none() && peer.direct.is_none(), "a receive is armed twice");
        assert!(!peer.closed);
        peer.receive = Some(slot);
        peer.once = false;
        self.receiving.push(slot);
        peer.cancelled = false;
        peer.end_missed = false;
    }

    fn receive_one(&mut self, socket: &Socket, slot: SlotId) {
        self.receive(socket, slot, 1);
        self.peers.get_mut(&socket.raw()).unwrap().once = true;
    }

    fn receive_into(&mut self, socket: &Socket, slot: SlotId, loan: Loan, is_last: bool) {
        let peer = self.peers.get_mut(&socket.raw()).unwrap();
        assert!(peer.receive.is_none() && peer.direct.is_none(), "two receives at a time");
        assert!(!peer.closed);
        let mark = u8::try_from(self.chance.below(256)).unwrap();
        // Sometimes there is none.
        let has_pad = is_last && !self.chance.once_in(4);
        let pad = if has_pad { self.pads.launch() } else { None };
        let mut direct = Direct { slot, loan, mark, pad };
        direct.bytes().fill(mark);
        peer.direct = Some(direct);
    }

    fn cancel_receive(&mut self, slot: SlotId) {
        for peer in self.peers.values_mut().filter(|peer| peer.receive == Some(slot)) {
            peer.cancelled = true;
        }
    }

    fn send<'b>(
        &mut self,
        socket: &Socket,
        slot: SlotId,
        blocks: impl Iterator<Item = &'b mut Block>,
        skip: usize,
    ) {
        let mut skip = skip;
        let span = |block: &'b mut Block| {
            block.launch();
            let bytes = &block.bytes()[std::mem::take(&mut skip)..];
            (bytes.as_ptr(), bytes.to_vec())
        };
        let spans: Vec<_> = blocks.take(3).map(span).collect();
        self.launch(socket, slot, spans, false);
    }

    fn send_gathered(&mut self, socket: &Socket, slot: SlotId, fill: impl FnOnce(&mut Gather)) {
        let mut gather = Gather::default();
        fill(&mut gather);
        let mut bytes = gather.read();
        let span = |piece: &libc::iovec| {
            let rest = bytes.split_off(piece.iov_len);
            (piece.iov_base.cast_const().cast(), std::mem::replace(&mut bytes, rest))
        };
        let spans = gather.pieces[..gather.count].iter().map(span).collect();
        self.gathered += 1;
        self.launch(socket, slot, spans, self.zero_copy);
    }

    fn cancel_send(&mut self, slot: SlotId) {
        let sends = self.peers.values_mut().filter_map(|peer| peer.send.as_mut());
        sends.filter(|send| send.slot == slot).for_each(|send| send.cancelled = true);
    }
    fn untaken_bytes(&self, socket: &Socket) -> usize {
        self.peers[&socket.raw()].untaken.len()
    }

    fn intake(&self, socket: &Socket) -> u64 {
        let Peer { is_local, ref untaken, sent, .. } = self.peers[&socket.raw()];
        let untaken = untaken.len() as u64;
        if is_local { untaken } else { sent - untaken }
    }
    fn is_gone(&self, socket: &Socket) -> bool {
        self.peers[&socket.raw()].reset
    }

    fn shutdown(&mut self, socket: &Socket, _slot: SlotId) {
        self.peers.get_mut(&socket.raw()).unwrap().shut_down = true;
    }

    fn close(&mut self, socket: Socket) {
        let peer = self.peers.get_mut(&socket.raw()).unwrap();
        assert!(peer.receive.is_none() && peer.send.is_none(), "closed while something names it");
        assert!(peer.direct.is_none(), "closed while it is being received into");
        assert!(!std::mem::replace(&mut peer.closed, true), "closed twice");
        if !peer.deaf {
            peer.got.extend(peer.untaken.drain(..));
        }
    }

    fn refuse(&mut self, socket: Socket, words: &[u8]) {
        self.peers.get_mut(&socket.raw()).unwrap().got.extend_from_slice(words);
        self.close(socket);
    }

    fn wake_after(&mut self, ns: u64) {
        assert!((1..1_000_000_000).contains(&ns));
        self.alarm = true;
    }

    fn enter(&mut self, wait: bool) -> io::Result<()> {
        self.turns += 1;
        self.slept_for_ever += usize::from(wait && !self.alarm);
        if std::mem::take(&mut self.alarm) {
            self.ready.push_back(Completion::Woken);
        }
        if self.turns.is_multiple_of(16) {
            self.ready.push_back(Completion::Tick);
        }
        if self.chance.once_in(16) {
            self.hardships.busy += 1;
            return Ok(());
        }
        self.hardships.overflows += u64::from(self.is_full());
        (0..self.accepting.len()).for_each(|listener| self.accept_some(listener));
        let mut fds: Vec<i32> = self.peers.keys().copied().collect();
        while !fds.is_empty() {
            let fd = fds.swap_remove(self.chance.below(fds.len()));
            match self.chance.below(4) {
                0 => {
                    self.receive_some(fd);
                    self.receive_directly(fd);
                }
                1 => self.send_some(fd),
                2 => {
                    self.send_some(fd);
                    self.receive_some(fd);
                    self.receive_some(fd);
                    self.receive_directly(fd);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Option<Completion> {
        // Some completions stay for the next turn.
        if self.chance.once_in(16) { None } else { self.ready.pop_front() }
    }

    fn provide(&mut self, filled: Filled) {
        if self.pads.owns(&filled) {
            return self.pads.give(filled);
        }
        let Some(index) = self.buffers.settle(filled) else { return };
        let place = self.chance.below(self.free_buffers.len() + 1);
        self.free_buffers.insert(place, index);
    }

    fn refill(&mut self) {}
    fn receive_bytes(&self) -> usize {
        self.buffer_count * self.buffers.buffer_bytes() as usize
    }
    fn is_dry(&self) -> bool {
        self.free_buffers.is_empty() && self.filling.is_none()
    }

    fn resize(&mut self, _connections: usize) {}
    fn blocks(&mut self) -> &mut BlockPool {
        &mut self.blocks
    }
    fn hardships(&self) -> Hardships {
        self.hardships
    }
}
