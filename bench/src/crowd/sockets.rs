//! Many sockets to one server: limits of open files, source addresses, and what the kernel takes.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, SockRef, Socket, Type};

/// An emulated machine is slow, and its host may be busy.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Ports of one source address that are used, well below what the kernel has by default.
const PORTS: u32 = 10_000;
/// Source addresses, from 127.0.0.2 on; afterwards the first comes again.
const ADDRESSES: u32 = 250;

const END: &[u8] = b"END\r\n";

/// A get, and how long the reply to it is.
#[derive(Clone, Debug)]
pub struct Question {
    get: Vec<u8>,
    reply: Vec<u8>,
}

impl Question {
    /// For a key that nobody has stored.
    pub fn miss() -> Question {
        Question { get: b"get nobody\r\n".to_vec(), reply: vec![0; END.len()] }
    }

    /// For a key with a value of so many bytes.
    pub fn hit(key: &str, value_bytes: u32) -> Question {
        let head = format!("VALUE {key} 0 {value_bytes}\r\n\r\n");
        let reply_bytes = head.len() + value_bytes as usize + END.len();
        Question { get: format!("get {key}\r\n").into_bytes(), reply: vec![0; reply_bytes] }
    }

    pub fn ask(&self, stream: &mut TcpStream) -> io::Result<()> {
        stream.write_all(&self.get)
    }

    /// Takes the reply.
    pub fn hear(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        stream.read_exact(&mut self.reply)?;
        match self.reply.ends_with(END) {
            true => Ok(()),
            false => Err(io::Error::other(format!("what is this: {}", self.reply.escape_ascii()))),
        }
    }
}

/// Raises the limit of open files as far as this process may; says how many it may have.
pub fn allow_files(wanted: u64) -> io::Result<u64> {
    let resource = Resource::RLIMIT_NOFILE;
    let (soft, hard) = getrlimit(resource)?;
    if soft < wanted && setrlimit(resource, wanted, hard.max(wanted)).is_err() {
        setrlimit(resource, hard, hard)?;
    }
    Ok(getrlimit(resource)?.0)
}

/// Connects from one of many addresses, by the number of the connection.
pub fn connect(server: SocketAddr, number: u32) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&SocketAddr::from((source(number / PORTS), 0)).into())?;
    socket.connect_timeout(&server.into(), CONNECT_TIMEOUT)?;
    socket.set_read_timeout(Some(READ_TIMEOUT))?;
    Ok(socket.into())
}

/// Connects from the next address each time, so that ports that are closing are no matter.
pub fn connect_from_next(server: SocketAddr, number: u32) -> io::Result<TcpStream> {
    connect(server, (number % ADDRESSES) * PORTS)
}

fn source(address: u32) -> Ipv4Addr {
    let low = u8::try_from(2 + address % ADDRESSES).unwrap_or(2);
    Ipv4Addr::new(127, 0, 0, low)
}

/// Ends a connection at once, without a wait for its address afterwards.
pub fn reset(stream: TcpStream) {
    // What cannot be reset is closed.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}

/// What the kernel takes for all sockets of this machine: buffers of TCP, and all of its own
/// objects, in bytes.
pub fn kernel_bytes() -> Option<(u64, u64)> {
    let sockets = fs::read_to_string("/proc/net/sockstat").ok()?;
    let memory = fs::read_to_string("/proc/meminfo").ok()?;
    Some((buffers(&sockets)?, slab(&memory)?))
}

/// Pages of 4 KiB, by the field `mem` of TCP.
fn buffers(sockstat: &str) -> Option<u64> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let mut words = line.split_ascii_whitespace().skip_while(|word| *word != "mem");
    words.nth(1)?.parse::<u64>().ok().map(|pages| pages << 12)
}

fn slab(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("Slab:"))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        let text =
            "sockets: used 9\nTCP: inuse 5 orphan 0 tw 3 alloc 7 mem 11\nUDP: inuse 2 mem 4\n";
        assert_eq!(buffers(text), Some(11 << 12));
        assert_eq!(slab("MemFree: 1 kB\nSlab:  77 kB\n"), Some(77 << 10));
        assert!(kernel_bytes().is_some());
    }

    #[test]
    fn connections_come_from_many_addresses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let from = |stream: &TcpStream| match stream.local_addr().unwrap() {
            SocketAddr::V4(v4) => v4.ip().octets(),
            SocketAddr::V6(_) => unreachable!("connected by IPv4"),
        };
        let (first, second) = (connect(address, PORTS - 1), connect(address, PORTS));
        assert_eq!(from(&first.unwrap()), [127, 0, 0, 2]);
        assert_eq!(from(&second.unwrap()), [127, 0, 0, 3]);
        let next = connect_from_next(address, ADDRESSES + 5).unwrap();
        assert_eq!(from(&next), [127, 0, 0, 7]);
    }

    #[test]
    fn a_reply_is_taken_whole_and_another_one_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = connect(listener.local_addr().unwrap(), 0).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let (mut miss, mut hit) = (Question::miss(), Question::hit("k", 3));
        hit.ask(&mut stream).unwrap();
        let mut asked = [0; b"get k\r\n".len()];
        server.read_exact(&mut asked).unwrap();
        assert_eq!(&asked, b"get k\r\n");
        server.write_all(b"VALUE k 0 3\r\nabc\r\nEND\r\nEND\r\nERROR\r\n").unwrap();
        assert!(hit.hear(&mut stream).is_ok());
        assert!(miss.hear(&mut stream).is_ok());
        assert!(miss.hear(&mut stream).unwrap_err().to_string().contains("ERROR"));
        reset(stream);
    }

    #[test]
    fn files_are_allowed_as_far_as_they_may_be() {
        let allowed = allow_files(100).unwrap();
        assert!(allowed >= 100);
        // More than any kernel allows by default, and than this process may have.
        assert!(allow_files(1 << 40).unwrap() >= allowed);
    }
}
