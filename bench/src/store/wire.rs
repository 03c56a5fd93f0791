//! One blocking connection that stores fast: many sets in one write, then one look at what came
//! back.
//!
//! Sets of memcache are quiet and end with `version`, whose answer says that all were executed;
//! those of RESP have an answer each. The answers to one write fit the buffers of a socket, so that
//! neither side waits for the other for ever.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Written at once; a single larger set is written alone.
const WRITE_BYTES: usize = 128 << 10;
/// A server that says nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Memcache,
    Resp,
}

/// What a server says it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    pub items: u64,
    pub evictions: u64,
}

#[derive(Debug)]
pub struct Wire {
    stream: BufReader<TcpStream>,
    dialect: Dialect,
    out: Vec<u8>,
    /// Sets that have not been answered or confirmed.
    pending: u64,
    /// Sets that were refused.
    pub refused: u64,
    pub first_refusal: Option<String>,
}

impl Wire {
    pub fn connect(address: SocketAddr, dialect: Dialect) -> io::Result<Wire> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Wire {
            stream: BufReader::new(stream),
            dialect,
            out: Vec::with_capacity(2 * WRITE_BYTES),
            pending: 0,
            refused: 0,
            first_refusal: None,
        })
    }

    /// Stores an item, some time before `sync` returns. An exptime of 0 is none.
    pub fn set(&mut self, key: &[u8], value: &[u8], exptime_s: u64) -> io::Result<()> {
        let out = &mut self.out;
        match self.dialect {
            Dialect::Memcache => {
                out.extend_from_slice(b"set ");
                out.extend_from_slice(key);
                write!(out, " 0 {exptime_s} {} noreply\r\n", value.len())?;
                out.extend_from_slice(value);
                out.extend_from_slice(b"\r\n");
            }
            Dialect::Resp => {
                let words = if exptime_s == 0 { 3 } else { 5 };
                write!(out, "*{words}\r\n$3\r\nSET\r\n${}\r\n", key.len())?;
                out.extend_from_slice(key);
                write!(out, "\r\n${}\r\n", value.len())?;
                out.extend_from_slice(value);
                out.extend_from_slice(b"\r\n");
                if exptime_s != 0 {
                    let digits = exptime_s.to_string();
                    write!(out, "$2\r\nEX\r\n${}\r\n{digits}\r\n", digits.len())?;
                }
            }
        }
        self.pending += 1;
        if self.out.len() >= WRITE_BYTES { self.sync() } else { Ok(()) }
    }

    /// Waits until everything was stored or refused.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.pending == 0 {
            return Ok(());
        }
        if self.dialect == Dialect::Memcache {
            self.out.extend_from_slice(b"version\r\n");
        }
        self.send()?;
        loop {
            let line = self.line()?;
            match self.dialect {
                Dialect::Memcache if line.starts_with("VERSION ") => break,
                Dialect::Memcache => self.refuse(line),
                Dialect::Resp => {
                    self.pending -= 1;
                    if line != "+OK" {
                        self.refuse(line);
                    }
                    if self.pending == 0 {
                        break;
                    }
                }
            }
        }
        self.pending = 0;
        Ok(())
    }

    fn refuse(&mut self, line: String) {
        self.refused += 1;
        self.first_refusal.get_or_insert(line);
    }

    /// Stores an item and waits for the answer. For memcache alone.
    pub fn set_one(&mut self, key: &[u8], value: &[u8]) -> io::Result<bool> {
        self.sync()?;
        self.out.extend_from_slice(b"set ");
        self.out.extend_from_slice(key);
        write!(self.out, " 0 0 {}\r\n", value.len())?;
        self.out.extend_from_slice(value);
        self.out.extend_from_slice(b"\r\n");
        self.send()?;
        let line = self.line()?;
        let stored = line == "STORED";
        if !stored {
            self.refuse(line);
        }
        Ok(stored)
    }

    /// Which of the keys are there. `check` sees each value with the position of its key. For
    /// memcache alone.
    pub fn get(
        &mut self,
        keys: &[Vec<u8>],
        mut check: impl FnMut(usize, &[u8]),
    ) -> io::Result<Vec<bool>> {
        self.sync()?;
        self.out.extend_from_slice(b"get");
        for key in keys {
            self.out.push(b' ');
            self.out.extend_from_slice(key);
        }
        self.out.extend_from_slice(b"\r\n");
        self.send()?;
        let mut hits = vec![false; keys.len()];
        let (mut at, mut value) = (0, Vec::new());
        loop {
            let line = self.line()?;
            if line == "END" {
                return Ok(hits);
            }
            let (key, bytes) = value_head(&line).ok_or_else(|| unexpected(&line))?;
            // Values come in the order of the keys.
            let found = keys[at..].iter().position(|wanted| wanted == key.as_bytes());
            at += found.ok_or_else(|| unexpected(&line))?;
            value.resize(bytes + 2, 0);
            self.stream.read_exact(&mut value)?;
            check(at, &value[..bytes]);
            hits[at] = true;
            at += 1;
        }
    }

    /// All lines of `stats`. For memcache alone.
    pub fn stats(&mut self) -> io::Result<Vec<(String, String)>> {
        self.sync()?;
        self.out.extend_from_slice(b"stats\r\n");
        self.send()?;
        let mut all = Vec::new();
        loop {
            let line = self.line()?;
            if line == "END" {
                return Ok(all);
            }
            let row = line.strip_prefix("STAT ").and_then(|row| row.split_once(' '));
            let (name, value) = row.ok_or_else(|| unexpected(&line))?;
            all.push((name.to_owned(), value.to_owned()));
        }
    }

    pub fn census(&mut self) -> io::Result<Census> {
        match self.dialect {
            Dialect::Memcache => {
                let stats = self.stats()?;
                let items = number(&stats, "curr_items");
                let evictions = number(&stats, "evictions");
                items.zip(evictions).map(|(items, evictions)| Census { items, evictions })
            }
            Dialect::Resp => {
                self.sync()?;
                self.out.extend_from_slice(b"DBSIZE\r\nINFO stats\r\n");
                self.send()?;
                let size = self.line()?;
                let head = self.line()?;
                let bytes = head.strip_prefix('$').and_then(|bytes| bytes.parse::<usize>().ok());
                let mut info = vec![0; bytes.ok_or_else(|| unexpected(&head))? + 2];
                self.stream.read_exact(&mut info)?;
                let info = String::from_utf8_lossy(&info).into_owned();
                let evictions = info.lines().find_map(|line| line.strip_prefix("evicted_keys:"));
                let items = size.strip_prefix(':').and_then(|items| items.parse().ok());
                let evictions = evictions.and_then(|number| number.trim().parse().ok());
                items.zip(evictions).map(|(items, evictions)| Census { items, evictions })
            }
        }
        .ok_or_else(|| io::Error::other("the server does not say what it holds"))
    }

    fn send(&mut self) -> io::Result<()> {
        self.stream.get_mut().write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// The next line, without its end.
    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server has closed"));
        }
        line.truncate(line.trim_end_matches(['\r', '\n']).len());
        Ok(line)
    }
}

/// A statistic that is a number.
pub fn number(stats: &[(String, String)], name: &str) -> Option<u64> {
    stats.iter().find(|(label, _)| label == name)?.1.parse().ok()
}

/// Key and length in `VALUE key flags bytes`.
fn value_head(line: &str) -> Option<(&str, usize)> {
    let mut words = line.strip_prefix("VALUE ")?.split(' ');
    let key = words.next()?;
    Some((key, words.nth(1)?.parse().ok()?))
}

fn unexpected(line: &str) -> io::Error {
    io::Error::other(format!("unexpected answer: {line:?}"))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread::JoinHandle;

    use super::*;

    /// A server that reads `asked` bytes and answers, so often as there are pairs. What it read.
    fn server(script: Vec<(usize, &'static str)>) -> (SocketAddr, JoinHandle<Vec<u8>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut read = Vec::new();
            for (asked, answer) in script {
                let mut bytes = vec![0; asked];
                stream.read_exact(&mut bytes).unwrap();
                read.extend(bytes);
                stream.write_all(answer.as_bytes()).unwrap();
            }
            read
        });
        (address, thread)
    }

    #[test]
    fn quiet_sets_are_confirmed_and_refusals_counted() {
        let sets = "set a 0 0 2 noreply\r\nxy\r\nset b 0 5 0 noreply\r\n\r\nversion\r\n";
        let stats = "STAT curr_items 1\r\nSTAT evictions 7\r\nEND\r\n";
        let script = vec![(sets.len(), "SERVER_ERROR out of memory\r\nVERSION 1\r\n"), (7, stats)];
        let (address, thread) = server(script);
        let mut wire = Wire::connect(address, Dialect::Memcache).unwrap();
        wire.set(b"a", b"xy", 0).unwrap();
        wire.set(b"b", b"", 5).unwrap();
        assert_eq!(wire.census().unwrap(), Census { items: 1, evictions: 7 });
        assert_eq!(wire.refused, 1);
        assert_eq!(wire.first_refusal.as_deref(), Some("SERVER_ERROR out of memory"));
        assert_eq!(thread.join().unwrap(), format!("{sets}stats\r\n").as_bytes());
    }

    #[test]
    fn every_set_of_resp_is_answered() {
        let sets = "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$2\r\nxy\r\n\
                    *5\r\n$3\r\nSET\r\n$1\r\nb\r\n$1\r\nz\r\n$2\r\nEX\r\n$2\r\n15\r\n";
        let info = "# Stats\r\nevicted_keys:3\r\nmore:1\r\n";
        assert_eq!(info.len(), 33);
        let census = ":41\r\n$33\r\n# Stats\r\nevicted_keys:3\r\nmore:1\r\n\r\n";
        let script = vec![(sets.len(), "+OK\r\n-OOM\r\n"), (20, census)];
        let (address, thread) = server(script);
        let mut wire = Wire::connect(address, Dialect::Resp).unwrap();
        wire.set(b"a", b"xy", 0).unwrap();
        wire.set(b"b", b"z", 15).unwrap();
        assert_eq!(wire.census().unwrap(), Census { items: 41, evictions: 3 });
        assert_eq!((wire.refused, wire.first_refusal.as_deref()), (1, Some("-OOM")));
        assert!(thread.join().unwrap().starts_with(sets.as_bytes()));
    }

    #[test]
    fn hits_are_told_from_misses() {
        let script = vec![
            (11, "VALUE b 0 3\r\n\r\n\n\r\nVALUE c 0 1\r\nx\r\nEND\r\n"),
            (16, "SERVER_ERROR no\r\n"),
        ];
        let (address, thread) = server(script);
        let mut wire = Wire::connect(address, Dialect::Memcache).unwrap();
        let keys = [b"a".to_vec(), b"b".to_vec(), b"c".to_vec()];
        let mut seen = Vec::new();
        let hits = wire.get(&keys, |at, value| seen.push((at, value.to_vec()))).unwrap();
        assert_eq!(hits, [false, true, true]);
        assert_eq!(seen, [(1, b"\r\n\n".to_vec()), (2, b"x".to_vec())]);
        assert!(!wire.set_one(b"a", b"v").unwrap());
        assert_eq!(wire.refused, 1);
        assert_eq!(thread.join().unwrap(), b"get a b c\r\nset a 0 0 1\r\nv\r\n");
    }
}
