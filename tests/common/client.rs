//! A small blocking client for the text protocol that believes nothing it has not read.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

#[derive(Debug)]
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> std::io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(super::PATIENCE))?;
        stream.set_write_timeout(Some(super::PATIENCE))?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    /// A client with this address.
    pub fn connect_from(own: IpAddr, address: SocketAddr) -> std::io::Result<Client> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(own, 0).into())?;
        socket.connect(&address.into())?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(super::PATIENCE))?;
        stream.set_write_timeout(Some(super::PATIENCE))?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    /// A client that takes in little before it reads.
    pub fn connect_narrowly(address: SocketAddr) -> std::io::Result<Client> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.set_recv_buffer_size(4096)?;
        socket.connect(&address.into())?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(super::PATIENCE))?;
        stream.set_write_timeout(Some(super::PATIENCE))?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    pub fn stream(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    /// The bare socket; what was read ahead is lost.
    pub fn into_descriptor(self) -> OwnedFd {
        self.stream.into_inner().into()
    }

    /// Reads some of what comes next; nothing at the end.
    pub fn some(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        self.stream.read(bytes)
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap();
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())
    }

    /// The next line, without its end. A line that does not end in `\r\n` is a failure.
    pub fn line(&mut self) -> String {
        self.try_line().unwrap()
    }

    pub fn try_line(&mut self) -> std::io::Result<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        let Some(line) = line.strip_suffix(b"\r\n") else {
            let said = String::from_utf8_lossy(&line).into_owned();
            return Err(std::io::Error::new(
                ErrorKind::UnexpectedEof,
                format!("cut off: {said:?}"),
            ));
        };
        Ok(String::from_utf8_lossy(line).into_owned())
    }

    /// The next line, without its end, which is a line feed alone.
    #[track_caller]
    pub fn bare_line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        let bare = line.strip_suffix('\n').filter(|bare| !bare.ends_with('\r'));
        bare.unwrap_or_else(|| panic!("no bare line: {line:?}")).to_owned()
    }

    /// Exactly so many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Sends a line and asks for a reply of one line.
    #[track_caller]
    pub fn ask(&mut self, line: &str, reply: &str) {
        self.send(format!("{line}\r\n"));
        assert_eq!(self.line(), reply, "reply to {line:?}");
    }

    #[track_caller]
    pub fn set(&mut self, key: &str, value: &[u8]) {
        self.send(set_request(key, value));
        assert_eq!(self.line(), "STORED", "reply to set {key}");
    }

    #[track_caller]
    pub fn get(&mut self, key: &str) -> Option<Vec<u8>> {
        self.send(format!("get {key}\r\n"));
        let mut values = self.values();
        assert!(values.iter().all(|(name, _)| name == key), "asked for {key}: {values:?}");
        values.pop().map(|(_, value)| value)
    }

    /// The reply to a get or gets: keys and values, up to `END`.
    #[track_caller]
    pub fn values(&mut self) -> Vec<(String, Vec<u8>)> {
        let mut values = Vec::new();
        loop {
            let line = self.line();
            if line == "END" {
                return values;
            }
            let words: Vec<_> = line.split(' ').collect();
            assert!(words[0] == "VALUE" && words.len() >= 4, "in place of a value: {line:?}");
            let value = self.bytes(words[3].parse().unwrap());
            assert_eq!(self.bytes(2), b"\r\n", "end of the value of {}", words[1]);
            values.push((words[1].into(), value));
        }
    }

    pub fn stats(&mut self) -> BTreeMap<String, String> {
        self.stats_of("").into_iter().collect()
    }

    /// The rows of a group of statistics, in their order.
    pub fn stats_of(&mut self, group: &str) -> Vec<(String, String)> {
        self.send(format!("stats {group}\r\n"));
        let mut stats = Vec::new();
        loop {
            let line = self.line();
            if line == "END" {
                return stats;
            }
            let mut words = line.splitn(3, ' ');
            assert_eq!(words.next(), Some("STAT"), "in place of a figure: {line:?}");
            stats.push((words.next().unwrap().into(), words.next().unwrap_or_default().into()));
        }
    }

    pub fn stat(&mut self, name: &str) -> u64 {
        let stats = self.stats();
        let figure = stats.get(name).unwrap_or_else(|| panic!("no {name} in the statistics"));
        figure.parse().unwrap()
    }

    /// Reads to the end: what came before the server closed, or none when it keeps talking or
    /// does not close. A reset is a close.
    pub fn rest(&mut self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => Some(bytes),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Some(bytes),
            Err(_) => None,
        }
    }

    /// Makes the close that follows an abrupt one: a reset, not an end.
    pub fn reset_on_close(&self) {
        let socket = socket2::SockRef::from(self.stream());
        socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }
}

/// `set key 0 0 N` and the value.
pub fn set_request(key: &str, value: &[u8]) -> Vec<u8> {
    let mut request = format!("set {key} 0 0 {}\r\n", value.len()).into_bytes();
    request.extend_from_slice(value);
    request.extend_from_slice(b"\r\n");
    request
}
