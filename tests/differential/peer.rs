//! One of the two servers, as the requests see it.

use super::common::PATIENCE;
use super::common::client::Client;
use super::common::server::Server;
use super::generate::{Choice, Dialect, KEYS, Piece, Request};
use super::reply::{self, Ordinals, Reply};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

/// A cas that no server gives.
const FOREIGN_CAS: u64 = 9_876_543_210_123_456_789;

pub const CLOSED: &[u8] = b"[closed]";
pub const NO_MORE: &[u8] = b"[no more comes]";

pub struct Peer {
    pub server: Server,
    connections: BTreeMap<Dialect, TcpStream>,
    /// Asks what no request of a step asks.
    curious: Client,
    /// The last cas that was seen of each key, and the one before it.
    cas: BTreeMap<Vec<u8>, (u64, u64)>,
    ordinals: Ordinals,
}

impl Peer {
    pub fn new(server: Server) -> Peer {
        let (connections, cas, ordinals) = Default::default();
        let curious = server.client();
        let mut peer = Peer { server, connections, curious, cas, ordinals };
        peer.reset();
        peer
    }

    /// Begins again: with other connections, and none of the keys.
    pub fn reset(&mut self) {
        self.cas.clear();
        self.ordinals = Ordinals::default();
        self.forget(&KEYS.map(|(plain, _)| plain.to_vec()));
    }

    /// Does away with keys, of which the two servers may not know the same any more.
    pub fn forget(&mut self, keys: &[Vec<u8>]) {
        self.connections.clear();
        for key in keys {
            let mut delete = vec![0x80, 0x04, 0, 0];
            delete[3] = u8::try_from(key.len()).unwrap();
            delete.extend_from_slice(&[0; 7]);
            delete.push(delete[3]);
            delete.extend_from_slice(&[0; 12]);
            delete.extend_from_slice(key);
            let mut request = Request::new(Dialect::Binary);
            request.pieces.push(Piece::Bytes(delete));
            self.ask(&[request]);
            self.ordinals.forget(key);
            self.cas.remove(key);
        }
    }

    /// What the request is for this server.
    pub fn bytes(&self, request: &Request) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in &request.pieces {
            let (key, choice) = match piece {
                Piece::Bytes(these) => {
                    bytes.extend_from_slice(these);
                    continue;
                }
                Piece::Cas { key, choice } => (key, choice),
            };
            let cas = match (self.cas.get(key), choice) {
                (Some((last, _)), Choice::Last) => *last,
                (Some((_, former)), Choice::Former) if *former != 0 => *former,
                _ => FOREIGN_CAS,
            };
            match request.dialect {
                Dialect::Text | Dialect::Meta => {
                    bytes.extend_from_slice(cas.to_string().as_bytes());
                }
                Dialect::Binary => bytes.extend_from_slice(&cas.to_be_bytes()),
            }
        }
        bytes
    }

    /// The replies to requests of one dialect that are sent at once, each followed by a mark.
    pub fn ask(&mut self, requests: &[Request]) -> Vec<Reply> {
        let dialect = requests[0].dialect;
        let mut bytes = Vec::new();
        for request in requests {
            bytes.extend(self.bytes(request));
            bytes.extend_from_slice(dialect.mark());
        }
        let mut stream = match self.connections.remove(&dialect) {
            Some(stream) => stream,
            None => self.connect(),
        };
        // It may close before it has read all.
        let _ = stream.write_all(&bytes);
        let (mut unread, mut end) = (Vec::new(), None);
        let mut replies = Vec::new();
        for request in requests {
            let said = until_mark(dialect, &mut stream, &mut unread, &mut end);
            let reply = reply::comparable(request, &said, &mut self.ordinals);
            for (key, cas) in &reply.cas {
                let (last, former) = self.cas.entry(key.clone()).or_default();
                if *last != *cas {
                    (*last, *former) = (*cas, *last);
                }
            }
            replies.push(reply);
        }
        if end.is_none() {
            self.connections.insert(dialect, stream);
        }
        replies
    }

    /// The value of a key, which is asked for by that; none of a key that is more than a word.
    pub fn value(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let is_word = !key.is_empty() && key.len() <= 250 && !key.contains(&b' ');
        self.curious
            .send([&b"get "[..], if is_word { key } else { &b"none"[..] }, b"\r\n"].concat());
        self.curious.values().pop().map(|(_, value)| value)
    }

    /// The size of an item, which is as if nobody had asked.
    pub fn size(&mut self, key: &[u8]) -> Option<usize> {
        let (plain, coded) = KEYS.iter().find(|(plain, _)| *plain == key)?;
        let (key, b) = if coded.is_empty() { (plain, &b""[..]) } else { (coded, &b" b"[..]) };
        self.curious.send([b"me ", *key, b, b"\r\n"].concat());
        let line = self.curious.line();
        let size = line.split(' ').find_map(|word| word.strip_prefix("size="))?;
        size.parse().ok()
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.server.address()).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

/// What comes before the next mark, which is taken, too. After the end of the stream: why it ended.
fn until_mark(
    dialect: Dialect,
    stream: &mut TcpStream,
    unread: &mut Vec<u8>,
    end: &mut Option<&'static [u8]>,
) -> Vec<u8> {
    let mut piece = [0; 1 << 16];
    let mut seen = 0;
    loop {
        if let Some((start, after)) = reply::mark(dialect, unread, seen) {
            let mut said: Vec<u8> = unread.drain(..after).collect();
            said.truncate(start);
            return said;
        }
        if let Some(end) = end {
            let mut said = std::mem::take(unread);
            said.extend_from_slice(end);
            return said;
        }
        seen = unread.len();
        match stream.read(&mut piece) {
            Ok(0) => *end = Some(CLOSED),
            Ok(count) => unread.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => *end = Some(NO_MORE),
            Err(_) => *end = Some(CLOSED),
        }
    }
}
