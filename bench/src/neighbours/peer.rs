//! A connection of a bad neighbour: never blocks, and is made anew when the server has closed it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Received at a time.
const READ_BYTES: usize = 256 << 10;

/// What a neighbour got done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Deeds {
    /// Requests that were answered to their end.
    pub replies: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub connects: u64,
    /// Connections that the server ended, or refused.
    pub closed: u64,
}

/// What came of an attempt to move bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "whoever is gone must be connected anew"]
pub enum Moved {
    Some(usize),
    Nothing,
    /// The server has closed the connection.
    Gone,
}

/// The way to the server, and what is counted of it.
pub struct Road {
    server: SocketAddr,
    /// Fixed, so that the kernel does not keep what the server should; its own choice when `None`.
    receive_buffer: Option<usize>,
    pub deeds: Deeds,
    buffer: Vec<u8>,
}

impl Road {
    pub fn to(server: SocketAddr) -> Road {
        let buffer = vec![0; READ_BYTES];
        Road { server, receive_buffer: None, deeds: Deeds::default(), buffer }
    }

    pub fn server(&self) -> SocketAddr {
        self.server
    }

    pub fn receive_buffer(&mut self, bytes: usize) {
        self.receive_buffer = Some(bytes);
    }

    /// A connection to the server, which does not block.
    pub fn connect(&mut self) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(self.server), Type::STREAM, None)?;
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.set_tcp_nodelay(true)?;
        socket.connect_timeout(&self.server.into(), CONNECT_TIMEOUT)?;
        socket.set_nonblocking(true)?;
        self.deeds.connects += 1;
        Ok(socket.into())
    }

    /// Puts a new connection in place of one that the server has closed.
    pub fn reconnect(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        self.deeds.closed += 1;
        *stream = self.connect()?;
        Ok(())
    }

    pub fn send(&mut self, stream: &mut TcpStream, bytes: &[u8]) -> Moved {
        let moved = moved(stream.write(bytes));
        if let Moved::Some(count) = moved {
            self.deeds.bytes_sent += count as u64;
        }
        moved
    }

    /// Receives at most `most` bytes, which `look` is shown.
    pub fn receive(
        &mut self,
        stream: &mut TcpStream,
        most: usize,
        look: impl FnOnce(&[u8]),
    ) -> Moved {
        let end = most.min(self.buffer.len());
        let moved = moved(stream.read(&mut self.buffer[..end]));
        if let Moved::Some(count) = moved {
            self.deeds.bytes_received += count as u64;
            look(&self.buffer[..count]);
        }
        moved
    }

    /// Receives at most `most` bytes without copying them: who asks for much does not work for it.
    pub fn discard(&mut self, stream: &TcpStream, most: usize) -> Moved {
        let end = most.min(self.buffer.len());
        let received = recv(stream.as_raw_fd(), &mut self.buffer[..end], MsgFlags::MSG_TRUNC);
        let moved = moved(received.map_err(io::Error::from));
        if let Moved::Some(count) = moved {
            self.deeds.bytes_received += count as u64;
        }
        moved
    }
}

fn moved(result: io::Result<usize>) -> Moved {
    match result {
        Ok(0) => Moved::Gone,
        Ok(count) => Moved::Some(count),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Moved::Nothing
        }
        Err(_) => Moved::Gone,
    }
}
