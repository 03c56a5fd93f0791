//! The ring on the kernel at hand, made so small that everything runs out: buffers, room for
//! completions, submissions, descriptors. Every byte must come once, in order, to whom it is for.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::IntoRawFd;
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::*;
use crate::sys::fake::Chance;
use crate::sys::ladder::FEATURES_TRIED;
use crate::sys::probe::{self, Feature};
use crate::sys::region::Span;

/// A ring of this thread; `None`, and a word about it, where there is no io_uring.
fn ring(rung: Rung, buffers: (u16, u32), listeners: Vec<Listener>) -> Option<Uring> {
    ring_of(Sizes { submissions: 4, completions: 8, buffers }, rung, listeners)
}

fn ring_of(sizes: Sizes, rung: Rung, listeners: Vec<Listener>) -> Option<Uring> {
    let doorbell = Arc::new(EventFd::new().unwrap());
    Uring::new(0, sizes, rung, listeners.into(), doorbell)
        .map_err(|error| eprintln!("skipped: no io_uring here: {error}"))
        .ok()
}

/// A connection: the far end, and ours.
fn pair() -> (TcpStream, Socket) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_nonblocking(true).unwrap();
    let (ours, _) = listener.accept().unwrap();
    (peer, Socket::from_raw(ours.into_raw_fd()))
}

/// What one peer sends at a position: another one's would differ.
fn byte(peer: usize, position: usize) -> u8 {
    u8::try_from((position * 7 + peer * 31 + (position >> 8)) % 251).unwrap()
}

/// Peers that send, and what has come of it.
struct Traffic {
    ring: Uring,
    peers: Vec<(TcpStream, Socket)>,
    sent: Vec<usize>,
    got: Vec<usize>,
    armed: Vec<bool>,
    held: VecDeque<Filled>,
    dry: usize,
    /// Receives that brought bytes and ended.
    ended: usize,
    /// Buffers that came behind another one in a bundle.
    bundled: usize,
    chance: Chance,
}

impl Traffic {
    const PEERS: usize = 12;
    const BYTES: usize = 150_000;

    fn new(ring: Uring, seed: u64) -> Traffic {
        Traffic {
            ring,
            peers: (0..Traffic::PEERS).map(|_| pair()).collect(),
            sent: vec![0; Traffic::PEERS],
            got: vec![0; Traffic::PEERS],
            armed: vec![false; Traffic::PEERS],
            held: VecDeque::new(),
            dry: 0,
            ended: 0,
            bundled: 0,
            chance: Chance::new(seed),
        }
    }

    fn slot(index: usize) -> SlotId {
        SlotId { index: u32::try_from(index).unwrap(), generation: 9 }
    }

    fn send(&mut self) {
        for (index, (peer, _)) in self.peers.iter_mut().enumerate() {
            let sent = &mut self.sent[index];
            let len = self.chance.below(9000).min(Traffic::BYTES - *sent);
            let bytes: Vec<u8> = (*sent..*sent + len).map(|at| byte(index, at)).collect();
            // What finds the socket full is sent later.
            *sent += peer.write(&bytes).unwrap_or(0);
        }
    }

    fn arm(&mut self) {
        for (index, armed) in self.armed.iter_mut().enumerate() {
            if !*armed && !self.ring.is_dry() {
                *armed = true;
                self.ring.receive(&self.peers[index].1, Traffic::slot(index), u32::MAX);
            }
        }
    }

    fn take(&mut self) {
        while let Some(completion) = self.ring.next() {
            let Completion::Received { slot, received, armed } = completion else { continue };
            assert_eq!(slot.generation, 9);
            let index = slot.index as usize;
            self.armed[index] = armed;
            match received {
                Received::Bytes(filled) => {
                    let position = self.got[index];
                    let is_right = |(at, got): (usize, &u8)| *got == byte(index, position + at);
                    assert!(filled.bytes().iter().enumerate().all(is_right), "at {position}");
                    self.got[index] += filled.bytes().len();
                    self.ended += usize::from(!armed);
                    self.bundled += usize::from(self.ring.bundle.is_some());
                    self.held.push_back(filled);
                }
                Received::Dry => self.dry += 1,
                Received::Stopped => {}
                Received::End | Received::NoMemory | Received::Failed(_) => panic!("{received:?}"),
            }
        }
    }

    /// Runs until everything has come.
    fn run(&mut self) {
        for turn in 0.. {
            assert!(turn < 200_000, "stuck: {:?} of {:?} have come", self.got, self.sent);
            self.send();
            self.arm();
            self.ring.enter(false).unwrap();
            self.take();
            if self.chance.once_in(4) {
                let index = self.chance.below(Traffic::PEERS);
                self.ring.cancel_receive(Traffic::slot(index));
            }
            // Some are given back late, in another order than they came in.
            while self.held.len() > self.chance.below(4) {
                let filled = match self.chance.once_in(2) {
                    true => self.held.pop_front(),
                    false => self.held.pop_back(),
                };
                filled.into_iter().for_each(|filled| self.ring.provide(filled));
            }
            if self.got.iter().all(|got| *got == Traffic::BYTES) {
                return;
            }
        }
    }
}

/// Every rung, with and without a cap, where buffers and completions run out all the time: a
/// completion that came out of order would bring another peer's bytes.
#[test]
fn every_rung_brings_every_byte_in_order() {
    let Ok(support) = probe::try_out(&FEATURES_TRIED) else { return };
    let has = |feature: Feature| support.answer(feature).is_yes();
    for (mode, is_there, buffers) in [
        (Mode::Multishot, true, (4, 1024)),
        (Mode::Bundle, has(Feature::ReceiveBundle), (16, 512)),
        (Mode::Incremental, has(Feature::IncrementalBuffers), (2, 16384)),
    ] {
        for cap_bytes in [0, 700, 5000] {
            if !is_there || (cap_bytes > 0 && !has(Feature::ReceiveCap)) {
                eprintln!("skipped: this kernel has no {mode:?} with a cap of {cap_bytes}");
                continue;
            }
            let rung = Rung { mode, cap_bytes, ..Rung::LOWEST };
            let Some(ring) = ring(rung, buffers, Vec::new()) else { return };
            let mut traffic = Traffic::new(ring, u64::from(cap_bytes) + 1);
            traffic.run();
            assert!(traffic.ended > 0, "{rung:?}: room for completions never ran out");
            if mode == Mode::Multishot {
                assert!(traffic.dry > 0, "buffers never ran out");
            }
            if mode == Mode::Bundle && cap_bytes != 700 {
                assert!(traffic.bundled > 0, "one buffer a completion");
            }
            traffic.held.drain(..).for_each(|filled| traffic.ring.provide(filled));
            for (_, socket) in traffic.peers {
                traffic.ring.shutdown(&socket, NOBODY);
                traffic.ring.close(socket);
            }
        }
    }
}

/// A receive with a cap ends soon after it has reached it, and not before.
#[test]
fn a_cap_ends_a_receive() {
    let Ok(support) = probe::try_out(&FEATURES_TRIED) else { return };
    let has = |feature: Feature| support.answer(feature).is_yes();
    for (mode, is_there, buffers, end) in [
        (Mode::Multishot, true, (64, 1024), 10_000 + 1024),
        (Mode::Bundle, has(Feature::ReceiveBundle), (64, 1024), 10_000 + 1024),
        (Mode::Incremental, has(Feature::IncrementalBuffers), (2, 65_536), 20_000),
    ] {
        if !is_there || !has(Feature::ReceiveCap) {
            eprintln!("skipped: this kernel has no {mode:?} with a cap");
            continue;
        }
        let rung = Rung { mode, cap_bytes: 10_000, ..Rung::LOWEST };
        let sizes = Sizes { submissions: 4, completions: 256, buffers };
        let Some(ring) = ring_of(sizes, rung, Vec::new()) else { return };
        let got = bytes_of_one_receive(ring);
        assert!((10_000..end).contains(&got), "{mode:?}: {got} bytes came");
    }
}

/// Of a peer that has sent much more.
fn bytes_of_one_receive(mut ring: Uring) -> usize {
    let (mut peer, socket) = pair();
    let sent = peer.write(&[5; 60_000]).unwrap();
    assert!(sent > 30_000, "{sent}");
    ring.receive(&socket, NOBODY, u32::MAX);
    let (mut got, mut is_armed) = (0, true);
    for turn in 0.. {
        assert!(turn < 100_000, "{got} bytes came");
        ring.enter(false).unwrap();
        while let Some(completion) = ring.next() {
            let Completion::Received { received, armed, .. } = completion else { continue };
            let Received::Bytes(filled) = received else { panic!("{received:?}") };
            assert!(is_armed, "something came after the end");
            is_armed = armed;
            got += filled.bytes().len();
            ring.provide(filled);
        }
        if !is_armed {
            break;
        }
    }
    ring.shutdown(&socket, NOBODY);
    ring.close(socket);
    got
}

/// What follows the last part of a value comes with it, and what follows another part does not.
#[test]
fn a_few_bytes_come_behind_the_end_of_a_value() {
    for (is_last, behind) in [(false, 0), (true, 300)] {
        let Some(mut ring) = ring(Rung::LOWEST, (1, 64), Vec::new()) else { return };
        let (mut peer, socket) = pair();
        let sent: Vec<u8> = (0..1300).map(|position| byte(1, position)).collect();
        assert_eq!(peer.write(&sent).unwrap(), sent.len());
        let (mut got, mut turns) = (None, 0);
        ring.receive_into(&socket, NOBODY, Loan::map(1000).unwrap(), is_last);
        while got.is_none() {
            turns += 1;
            assert!(turns < 100_000, "nothing came");
            ring.enter(false).unwrap();
            while let Some(completion) = ring.next() {
                let Completion::Arrived { arrived, loan, behind, .. } = completion else {
                    continue;
                };
                assert_eq!(arrived, Arrived::Bytes(1000));
                // SAFETY: the loan has come back, so nobody else knows its bytes.
                let start = unsafe { std::slice::from_raw_parts(loan.start().as_ptr(), 1000) };
                got = Some((start.to_vec(), behind));
            }
        }
        let (mut bytes, filled) = got.unwrap();
        bytes.extend(filled.iter().flat_map(|filled| filled.bytes()));
        assert_eq!(bytes, sent[..1000 + behind]);
        filled.into_iter().for_each(|filled| ring.provide(filled));
        ring.shutdown(&socket, NOBODY);
        ring.close(socket);
    }
}

/// What a socket takes of a gathering send that nobody reads, until it is cancelled: what is said
/// to be sent is what comes, and the rest can be sent again.
#[test]
fn a_send_that_is_cancelled_says_what_was_taken() {
    let Some(mut ring) = ring(Rung::LOWEST, (4, 1024), Vec::new()) else { return };
    let (peer, socket) = pair();
    let bytes: Vec<u8> = (0..1_000_003).map(|at| byte(1, at)).collect();
    let mut spans: Vec<_> = (0..20).map(|note| Span::for_test(&bytes, note)).collect();
    let (slot, all) = (Traffic::slot(3), 20 * bytes.len());
    let (mut sent, mut got, mut cancelled) = (0, 0, 0);
    let mut buffer = vec![0; 1 << 20];
    while sent < all {
        ring.send_gathered(&socket, slot, |gather| {
            for (number, span) in spans.iter_mut().enumerate() {
                let skip = sent.saturating_sub(number * bytes.len());
                let _ = skip >= bytes.len() || gather.span(span, skip);
            }
        });
        (0..3).for_each(|_| ring.enter(false).unwrap());
        ring.cancel_send(slot);
        let (taken, landed) = loop {
            ring.enter(false).unwrap();
            if let Some(Completion::Sent { result, landed, .. }) = ring.next() {
                assert!(result.is_ok() || result == Err(Fault::Passing), "{result:?}");
                break (result.unwrap_or(0), landed);
            }
        };
        spans.iter_mut().for_each(|span| span.land(&landed));
        cancelled += usize::from(sent + taken < all);
        sent += taken;
        while let Ok(len) = io::Read::read(&mut &peer, &mut buffer) {
            let right = |(at, got_byte): (usize, &u8)| *got_byte == bytes[(got + at) % bytes.len()];
            assert!(buffer[..len].iter().enumerate().all(right), "after {got} bytes");
            got += len;
        }
    }
    for _ in 0..1000 {
        match io::Read::read(&mut &peer, &mut buffer) {
            Ok(len) => got += len,
            Err(_) => std::thread::yield_now(),
        }
    }
    assert!(cancelled > 0, "the socket took everything at once");
    assert_eq!(got, sent);
    ring.shutdown(&socket, NOBODY);
    ring.close(socket);
}

/// Over loopback the kernel copies all the same: it is asked once, and every byte comes.
#[test]
fn a_send_without_a_copy_ends_late_and_is_given_up_over_loopback() {
    let Ok(support) = probe::try_out(&[Feature::SendZeroCopy]) else { return };
    if !support.answer(Feature::SendZeroCopy).is_yes() {
        eprintln!("skipped: this kernel has no SENDMSG_ZC");
        return;
    }
    let rung = Rung { zero_copy_bytes: 10_000, ..Rung::LOWEST };
    let Some(mut ring) = ring(rung, (4, 1024), Vec::new()) else { return };
    let (peer, socket) = pair();
    let bytes: Vec<u8> = (0..20_000).map(|at| byte(2, at)).collect();
    let mut span = Span::for_test(&bytes, 0);
    let (slot, mut got) = (Traffic::slot(1), 0);
    let mut buffer = vec![0; 1 << 16];
    for (skip, expected) in [(15_000, 0), (0, 1), (0, 1)] {
        ring.send_gathered(&socket, slot, |gather| {
            let _ = gather.span(&mut span, skip);
        });
        let mut sent = None;
        for _ in 0..100_000 {
            ring.enter(false).unwrap();
            // The far end acknowledges what it has, read or not.
            if let Ok(len) = io::Read::read(&mut &peer, &mut buffer) {
                let right = |at: usize| buffer[at] == bytes[skip + (got + at) % bytes.len()];
                assert!((0..len).all(right));
                got += len;
            }
            if let Some(Completion::Sent { result, landed, .. }) = ring.next() {
                span.land(&landed);
                sent = Some(result);
                break;
            }
        }
        assert_eq!(sent, Some(Ok(bytes.len() - skip)));
        while got < bytes.len() - skip {
            got += io::Read::read(&mut &peer, &mut buffer).unwrap_or(0);
        }
        got = 0;
        let Hardships { zero_copy_sends, zero_copy_copied, .. } = ring.hardships();
        assert_eq!((zero_copy_sends, zero_copy_copied), (expected, expected));
    }
    ring.shutdown(&socket, slot);
    ring.close(socket);
}

/// What a peer does not acknowledge would be kept from us for minutes: to shut down is to forget
/// it.
#[test]
fn a_send_without_a_copy_ends_when_its_connection_is_shut_down() {
    let Ok(support) = probe::try_out(&[Feature::SendZeroCopy]) else { return };
    if !support.answer(Feature::SendZeroCopy).is_yes() {
        eprintln!("skipped: this kernel has no SENDMSG_ZC");
        return;
    }
    let rung = Rung { zero_copy_bytes: 1, ..Rung::LOWEST };
    let Some(mut ring) = ring(rung, (4, 1024), Vec::new()) else { return };
    let (peer, socket) = pair();
    let bytes = vec![7; 1 << 20];
    let mut spans: Vec<_> = (0..40).map(|note| Span::for_test(&bytes, note)).collect();
    let slot = Traffic::slot(1);
    ring.send_gathered(&socket, slot, |gather| {
        let _ = spans.iter_mut().all(|span| gather.span(span, 0));
    });
    for _ in 0..1000 {
        ring.enter(false).unwrap();
        assert!(!matches!(ring.next(), Some(Completion::Sent { .. })), "nobody has read it");
    }
    ring.shutdown(&socket, slot);
    let mut landed = None;
    for _ in 0..100_000 {
        ring.enter(false).unwrap();
        if let Some(Completion::Sent { landed: proof, .. }) = ring.next() {
            landed = Some(proof);
            break;
        }
    }
    let landed = landed.expect("it is still in flight");
    spans.iter_mut().for_each(|span| span.land(&landed));
    ring.close(socket);
    drop(peer);
}

/// More completions than there is room for, and more submissions: none is lost, and the shortage
/// is counted.
#[test]
fn completions_that_find_no_room_come_later() {
    const COUNT: usize = 14;
    let Some(mut ring) = ring(Rung::LOWEST, (4, 1024), Vec::new()) else { return };
    let mut connections: Vec<_> = (0..COUNT).map(|_| (pair(), None)).collect();
    for (index, ((_, socket), block)) in connections.iter_mut().enumerate() {
        let mut words = ring.blocks().take();
        words.space()[..5].copy_from_slice(b"hello");
        words.advance(5);
        let words = block.insert(words);
        ring.send(socket, Traffic::slot(index), std::iter::once(words), 0);
    }
    let mut sent = 0;
    for _ in 0..1000 {
        ring.enter(false).unwrap();
        while let Some(completion) = ring.next() {
            let Completion::Sent { slot, result, landed } = completion else { continue };
            assert_eq!(result, Ok(5));
            let block = &mut connections[slot.index as usize].1;
            let mut block = block.take().expect("sent once");
            block.land(&landed);
            ring.blocks().give(block);
            sent += 1;
        }
    }
    assert_eq!(sent, COUNT);
    assert!(ring.hardships().overflows > 0, "{:?}", ring.hardships());
    for ((peer, socket), _) in connections {
        let mut got = [0; 8];
        assert_eq!(io::Read::read(&mut &peer, &mut got).unwrap(), 5);
        ring.close(socket);
    }
}

/// A wait for company ends with it, or when its time is over, and never lasts without end.
#[test]
fn a_busy_ring_waits_for_company() {
    let Ok(support) = probe::try_out(&FEATURES_TRIED) else { return };
    if !support.answer(Feature::MinWait).is_yes() {
        eprintln!("skipped: this kernel has no min_wait");
        return;
    }
    let rung = Rung { min_wait_us: 2000, ..Rung::LOWEST };
    let Some(mut ring) = ring(rung, (64, 1024), Vec::new()) else { return };
    let mut peers: Vec<_> = (0..2).map(|_| pair()).collect();
    for (index, (_, socket)) in peers.iter().enumerate() {
        ring.receive(socket, Traffic::slot(index), u32::MAX);
    }
    ring.enter(false).unwrap();
    let turn = |ring: &mut Uring, peers: &mut [(TcpStream, Socket)], talkers: usize| {
        for (peer, _) in &mut peers[..talkers] {
            peer.write_all(b"x").unwrap();
        }
        ring.enter(true).unwrap();
        let mut got = 0;
        while let Some(completion) = ring.next() {
            let Completion::Received { received: Received::Bytes(filled), armed, .. } = completion
            else {
                continue;
            };
            assert!(armed);
            ring.provide(filled);
            got += 1;
        }
        got
    };
    assert_eq!(turn(&mut ring, &mut peers, 1), 1);
    // As if many had come lately, so that ten are waited for.
    (0..1000).for_each(|_| ring.pace.found(10));
    assert_eq!(turn(&mut ring, &mut peers, 2), 2, "after a while fewer will do");
    // Where nobody comes in that time it is not busy any more; the next tick is much later.
    assert!(ring.pace.company().is_some());
    assert_eq!(turn(&mut ring, &mut peers, 0), 0);
    assert_eq!(ring.pace.company(), None);
    peers.into_iter().for_each(|(_, socket)| ring.close(socket));
}

/// Runs a test of this file that takes something from its process, in a process of its own.
fn in_a_child(name: &str) {
    let name = format!("sys::uring::tests::{name}");
    let child = Command::new(std::env::current_exe().unwrap())
        .args([&name, "--exact", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = [child.stdout, child.stderr].concat();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn descriptors_that_run_out_end_the_accept_and_no_more() {
    in_a_child("with_few_descriptors");
}

#[test]
#[ignore = "a part of the test above, which starts it in a process of its own"]
fn with_few_descriptors() {
    const FREE: usize = 8;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = Listener::tcp(any, 64).unwrap();
    let address = listener.local_address().unwrap().unwrap();
    let Some(mut ring) = ring(Rung::LOWEST, (4, 1024), vec![listener]) else { return };
    let clients: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    // The lowest free number is how many there are, for nothing was closed.
    let open = std::fs::File::open("/dev/null").unwrap().into_raw_fd();
    let limit = u64::try_from(open).unwrap() + 1 + FREE as u64;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, limit, hard).unwrap();
    let (mut sockets, mut refusals) = (Vec::new(), 0);
    let mut is_armed = false;
    for turn in 0.. {
        assert!(turn < 10_000, "{} of 20 accepted", sockets.len());
        if !std::mem::replace(&mut is_armed, true) {
            ring.accept(0);
        }
        ring.enter(false).unwrap();
        while let Some(completion) = ring.next() {
            let Completion::Accepted { listener: 0, result, armed } = completion else { continue };
            is_armed = armed;
            match result {
                Ok(socket) => sockets.push(socket),
                Err(fault) => {
                    assert_eq!((fault, armed), (Fault::NoDescriptor, false));
                    assert!(sockets.len() >= FREE, "{} accepted", sockets.len());
                    refusals += 1;
                    // One goes, and one more may come.
                    ring.close(sockets.swap_remove(0));
                }
            }
        }
        if refusals + sockets.len() == clients.len() {
            break;
        }
    }
    assert!(refusals > 0, "there were enough");
}
