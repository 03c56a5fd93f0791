//! One trial a feature: do on sockets of our own what the server would do, and look at the bytes.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use io_uring::EnterFlags;
use socket2::{Domain, SockAddr, Socket, Type};

use super::collapse::collapse;
use super::feature::{Answer, Feature};
use super::rig::{Operation, Pool, Rig, SMALL, Token, base};
use crate::base::clock::Clock;
use crate::sys::buffers::INCREMENTAL;

/// `IORING_NOTIF_USAGE_ZC_COPIED`, in the result of a notification.
const COPIED: u32 = 1 << 31;

/// What travels through the sockets. A byte tells its position, so that a wrong one shows.
static PATTERN: [u8; 4096] = pattern();

const fn pattern() -> [u8; 4096] {
    let mut bytes = [0; 4096];
    let mut index = 0;
    while index < bytes.len() {
        bytes[index] = (index % 251).to_le_bytes()[0];
        index += 1;
    }
    bytes
}

impl From<io::Error> for Answer {
    fn from(error: io::Error) -> Answer {
        Answer::No(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

fn expect(held: bool, otherwise: &'static str) -> Result<(), Answer> {
    if held { Ok(()) } else { Err(Answer::Differs(otherwise)) }
}

/// Tries one feature on a ring that stands.
pub(super) fn answer(rig: &mut Rig, feature: Feature) -> Answer {
    let tried = match feature {
        Feature::SetUp => Ok(()),
        Feature::CqSize => cq_size(rig),
        Feature::SubmitAll => submit_all(rig),
        Feature::AcceptMultishot => accept_multishot(rig),
        Feature::ReceiveMultishot => receive_multishot(rig),
        Feature::NoSqArray => no_sq_array(),
        Feature::NoIoWait => no_iowait(rig),
        Feature::RegisteredRing => rig.nop_through_registered_descriptor().map_err(Answer::from),
        Feature::MinWait => min_wait(rig),
        Feature::ReceiveCap => receive_cap(rig),
        Feature::ReceiveBundle => receive_bundle(rig),
        Feature::IncrementalBuffers => incremental_buffers(rig),
        Feature::SendZeroCopy => return send_zero_copy(rig).unwrap_or_else(|answer| answer),
        Feature::CollapseMemfd => collapse().map_err(Answer::from),
    };
    tried.map_or_else(|answer| answer, |()| Answer::Yes)
}

fn cq_size(rig: &Rig) -> Result<(), Answer> {
    expect(rig.ring.params().cq_entries() == SMALL.completions, "another size than asked for")
}

fn submit_all(rig: &mut Rig) -> Result<(), Answer> {
    let (socket, _peer) = UnixStream::pair()?;
    let refused = rig.queue(Operation::refused(socket.as_fd()))?;
    let behind = rig.queue(Operation::nop())?;
    let submitted = rig.ring.submit()?;
    expect(rig.wait(refused)?.result == -libc::EINVAL, "a bad submission was taken")?;
    rig.wait(behind)?.count()?;
    expect(submitted == 2, "one enter stopped at a refused submission")
}

fn no_sq_array() -> Result<(), Answer> {
    Rig::build(base().setup_no_sqarray(), SMALL)?;
    Ok(())
}

fn no_iowait(rig: &mut Rig) -> Result<(), Answer> {
    let nop = rig.queue(Operation::nop())?;
    let flags = (EnterFlags::GETEVENTS | EnterFlags::NO_IOWAIT).bits();
    let submitter = rig.ring.submitter();
    // SAFETY: the one queued submission names no memory, and there is no argument.
    let entered = unsafe { submitter.enter::<()>(1, 1, flags, None) };
    rig.wait(nop)?.count()?;
    entered?;
    Ok(())
}

/// One completion is there, two are wanted: the wait must last `MIN_WAIT_US`, not end at once and
/// not last until the deadline.
fn min_wait(rig: &mut Rig) -> Result<(), Answer> {
    const MIN_WAIT_US: u32 = 1000;
    let nop = rig.submit(Operation::nop())?;
    let clock = Clock::start();
    let waited = rig.enter(2, MIN_WAIT_US);
    let waited_us = clock.elapsed_ns() / 1000;
    rig.wait(nop)?.count()?;
    waited?;
    expect(waited_us >= u64::from(MIN_WAIT_US) / 2, "taken, but it does not wait")
}

/// A listening socket with an address of its own, that needs neither a file nor an interface.
fn listener() -> io::Result<(Socket, SockAddr)> {
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // No path at all: the kernel picks an unused abstract name.
    listener.bind(&SockAddr::unix("")?)?;
    listener.listen(4)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn connected(address: &SockAddr) -> io::Result<Socket> {
    let client = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    client.connect(address)?;
    Ok(client)
}

/// Two ends of a connection over loopback; a read from either gives up after a while.
fn tcp_pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    for end in [&client, &server] {
        end.set_read_timeout(Some(Duration::from_millis(100)))?;
    }
    Ok((client, server))
}

fn accept_multishot(rig: &mut Rig) -> Result<(), Answer> {
    let (listener, address) = listener()?;
    let accept = rig.submit(Operation::accept(listener.as_fd()))?;
    for byte in [1, 2] {
        let mut client = connected(&address)?;
        let completion = rig.wait(accept)?;
        completion.count()?;
        // SAFETY: the kernel has just made this descriptor, for us alone.
        let accepted = unsafe { OwnedFd::from_raw_fd(completion.result) };
        expect(completion.more(), "ended after one connection")?;
        client.write_all(&[byte])?;
        drop(client);
        let mut got = Vec::new();
        UnixStream::from(accepted).read_to_end(&mut got)?;
        expect(got == [byte], "accepted another connection")?;
    }
    rig.cancel(accept)?;
    Ok(())
}

/// What the completions of one receive reported, while `total` bytes came.
struct Received {
    bytes: Vec<u8>,
    /// (buffer, bytes) of each completion.
    shots: Vec<(u16, usize)>,
}

fn received(
    rig: &mut Rig,
    receive: Token,
    pool: &mut Pool,
    total: usize,
) -> Result<Received, Answer> {
    let mut got = Received { bytes: Vec::new(), shots: Vec::new() };
    while got.bytes.len() < total {
        let completion = rig.wait(receive)?;
        let len = completion.count()?;
        expect(len > 0, "the stream ended early")?;
        let (buffer, bytes) =
            pool.take(completion).ok_or(Answer::Differs("bytes outside of the buffers"))?;
        got.bytes.extend_from_slice(bytes);
        got.shots.push((buffer, len));
    }
    Ok(got)
}

fn receive_multishot(rig: &mut Rig) -> Result<(), Answer> {
    let (mut peer, socket) = UnixStream::pair()?;
    let mut pool = rig.pool(8, 1024, 0)?;
    let receive = rig.submit(Operation::receive(socket.as_fd(), &pool, 0))?;
    let mut got = Vec::new();
    for piece in [&PATTERN[..100], &PATTERN[100..400], &PATTERN[400..3400]] {
        peer.write_all(piece)?;
        got.extend(received(rig, receive, &mut pool, piece.len())?.bytes);
    }
    expect(got == PATTERN[..3400], "other bytes than were sent")?;
    drop(peer);
    let last = rig.wait(receive)?;
    expect(last.result == 0 && !last.more(), "no end of the stream")?;
    Ok(rig.close(pool)?)
}

/// The receive must end by itself with the buffer in which it has brought `CAP` bytes, and what is
/// left must come with the next one.
fn receive_cap(rig: &mut Rig) -> Result<(), Answer> {
    const CAP: u32 = 300;
    const BUFFER_BYTES: u32 = 256;
    let (mut peer, socket) = UnixStream::pair()?;
    let mut pool = rig.pool(8, BUFFER_BYTES, 0)?;
    peer.write_all(&PATTERN[..1000])?;
    let (mut got, mut ended) = (Vec::new(), 0);
    let mut receive = rig.submit(Operation::receive(socket.as_fd(), &pool, CAP))?;
    let mut since = 0;
    while got.len() < 1000 {
        let completion = rig.wait(receive)?;
        let differs = Answer::Differs("bytes outside of the buffers");
        let (_, bytes) = pool.take(completion).ok_or(differs)?;
        since += bytes.len();
        got.extend_from_slice(bytes);
        expect(since < (CAP + BUFFER_BYTES) as usize, "taken, but it does not cap")?;
        if !completion.more() {
            (since, ended) = (0, ended + 1);
            receive = rig.submit(Operation::receive(socket.as_fd(), &pool, CAP))?;
        }
    }
    expect(got == PATTERN[..1000], "other bytes than were sent")?;
    expect(ended > 0, "taken, but it does not cap")?;
    rig.cancel(receive)?;
    Ok(rig.close(pool)?)
}

/// Over TCP: other sockets learned late to tell how many bytes wait, which a bundle goes by.
fn receive_bundle(rig: &mut Rig) -> Result<(), Answer> {
    const BUFFER_BYTES: u32 = 512;
    let (mut peer, socket) = tcp_pair()?;
    let mut pool = rig.pool(8, BUFFER_BYTES, 0)?;
    let receive = rig.submit(Operation::receive_bundle(socket.as_fd(), &pool))?;
    peer.write_all(&PATTERN[..100])?;
    let head = received(rig, receive, &mut pool, 100)?;
    peer.write_all(&PATTERN[100..2100])?;
    let rest = received(rig, receive, &mut pool, 2000)?;
    let same = [head.bytes, rest.bytes].concat() == PATTERN[..2100];
    expect(same, "other bytes than were sent")?;
    let bundled = rest.shots.iter().any(|&(_, len)| len > BUFFER_BYTES as usize);
    expect(bundled, "taken, but one buffer a completion")?;
    rig.cancel(receive)?;
    Ok(rig.close(pool)?)
}

fn incremental_buffers(rig: &mut Rig) -> Result<(), Answer> {
    let (mut peer, socket) = UnixStream::pair()?;
    let mut pool = rig.pool(2, 1024, INCREMENTAL)?;
    let receive = rig.submit(Operation::receive(socket.as_fd(), &pool, 0))?;
    let mut got = Received { bytes: Vec::new(), shots: Vec::new() };
    for piece in [&PATTERN[..100], &PATTERN[100..400], &PATTERN[400..1200]] {
        peer.write_all(piece)?;
        let part = received(rig, receive, &mut pool, piece.len())?;
        got.bytes.extend(part.bytes);
        got.shots.extend(part.shots);
    }
    expect(got.bytes == PATTERN[..1200], "other bytes than were sent")?;
    let shared = got.shots.iter().filter(|&&(buffer, _)| buffer == 0).count() >= 3;
    expect(shared, "taken, but one receive a buffer")?;
    rig.cancel(receive)?;
    rig.close(pool)?;
    incremental_order(rig)
}

/// Where a completion's bytes begin in a buffer is told by the completions before it alone: those
/// of several sockets must come in the order in which the buffer was filled.
fn incremental_order(rig: &mut Rig) -> Result<(), Answer> {
    const SOCKETS: usize = 6;
    const EACH: usize = 300;
    let mut pool = rig.pool(4, 1024, INCREMENTAL)?;
    let mut pairs = Vec::new();
    for index in 0..SOCKETS {
        let (mut peer, socket) = UnixStream::pair()?;
        peer.write_all(&PATTERN[index * EACH..][..EACH / 2])?;
        pairs.push((peer, socket));
    }
    let mut receives = Vec::new();
    for (_, socket) in &pairs {
        receives.push(rig.queue(Operation::receive(socket.as_fd(), &pool, 0))?);
    }
    let (mut got, mut total, mut halves) = (vec![Vec::new(); SOCKETS], 0, 1);
    while total < SOCKETS * EACH {
        if total == SOCKETS * EACH / 2 && halves == 1 {
            halves = 2;
            for (index, (peer, _)) in pairs.iter_mut().enumerate().rev() {
                peer.write_all(&PATTERN[index * EACH + EACH / 2..][..EACH / 2])?;
            }
        }
        let (token, completion) = rig.next()?;
        let Some(index) = receives.iter().position(|each| *each == token) else { continue };
        let differs = Answer::Differs("bytes outside of the buffers");
        let (_, bytes) = pool.take(completion).ok_or(differs)?;
        total += bytes.len();
        got[index].extend_from_slice(bytes);
    }
    let is_right = |(index, got): (usize, &Vec<u8>)| got[..] == PATTERN[index * EACH..][..EACH];
    expect(got.iter().enumerate().all(is_right), "taken, but out of order")?;
    for receive in receives {
        rig.cancel(receive)?;
    }
    Ok(rig.close(pool)?)
}

/// Over TCP, because nothing else takes it.
fn send_zero_copy(rig: &mut Rig) -> Result<Answer, Answer> {
    let (mut peer, socket) = tcp_pair()?;
    let pieces = PATTERN.split_at(1000);
    let send = rig.submit(Operation::send_zero_copy(socket.as_fd(), pieces))?;
    let sent = rig.wait(send)?;
    expect(sent.count()? == PATTERN.len(), "a short send")?;
    expect(sent.more(), "no notification is due")?;
    let mut got = [0; PATTERN.len()];
    peer.read_exact(&mut got)?;
    expect(got == PATTERN, "other bytes than were sent")?;
    let notification = rig.wait(send)?;
    expect(!notification.more(), "a third completion")?;
    let copied = notification.result.cast_unsigned() & COPIED != 0;
    Ok(if copied { Answer::YesBut("loopback copies") } else { Answer::Yes })
}
