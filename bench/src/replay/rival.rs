//! The real memcached, driven through the same trace over a socket.
//!
//! Requests go in windows: first the gets of all keys of the window, in one write, then sets of
//! those that missed. A key that comes twice in a window is asked for once, and its further
//! requests have hit: they would have found what the first one set.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::drive::Tally;
use super::request::{FILLER, KEY_BYTES, Request, Trace, key_text};
use crate::options::Labelled;
use crate::servers;

/// memcached keeps a page for every class; with less than this it measures that alone.
pub const MEMORY_BYTES_MIN: u64 = 62 << 20;
const WINDOW: usize = 64;
/// memcached wants at least as many items of the largest size to fit.
const ITEMS_OF_LARGEST_MIN: u64 = 8;
const PATIENCE: Duration = Duration::from_secs(30);

/// What memcached made of a trace.
#[derive(Clone, Debug)]
pub struct Score {
    pub tally: Tally,
    pub evictions: u64,
    /// Items at the end.
    pub items: u64,
    pub command: String,
}

/// Replays a trace against a memcached that has `memory_bytes`, rounded up to whole megabytes.
pub fn run(
    program: &Labelled,
    trace: &Trace,
    memory_bytes: u64,
    core: usize,
) -> io::Result<(String, Score)> {
    let mib = memory_bytes.div_ceil(1 << 20);
    let item_mib = (mib / ITEMS_OF_LARGEST_MIN).clamp(1, 128);
    let memory = u32::try_from(mib).map_err(io::Error::other)?;
    let more = format!("-I {item_mib}m");
    let mut server = servers::memcached(memory, program, &more).start(core)?;
    let stream = TcpStream::connect(server.address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut client =
        Client { input: BufReader::with_capacity(1 << 20, stream.try_clone()?), stream };
    let mut tally = Tally::default();
    for window in trace.requests.chunks(WINDOW) {
        client.execute(window, &mut tally)?;
    }
    let [evictions, items] = client.statistics(["evictions", "curr_items"])?;
    server.check()?;
    Ok((server.label.clone(), Score { tally, evictions, items, command: server.command.clone() }))
}

struct Client<I, O> {
    input: I,
    stream: O,
}

impl<I: BufRead, O: Write> Client<I, O> {
    fn execute(&mut self, window: &[Request], tally: &mut Tally) -> io::Result<()> {
        let firsts = firsts(window);
        let mut gets = Vec::with_capacity(firsts.len() * (KEY_BYTES + 6));
        for request in &firsts {
            gets.extend_from_slice(b"get ");
            gets.extend_from_slice(&key_text(request.key));
            gets.extend_from_slice(b"\r\n");
        }
        self.stream.write_all(&gets)?;
        let mut missed = Vec::new();
        for request in &firsts {
            if !self.is_hit()? {
                missed.push(*request);
            }
        }
        for request in window {
            tally.requests += 1;
            tally.bytes += u64::from(request.bytes);
        }
        for request in &missed {
            tally.misses += 1;
            tally.missed_bytes += u64::from(request.bytes);
        }
        self.store(&missed, tally)
    }

    fn store(&mut self, missed: &[&Request], tally: &mut Tally) -> io::Result<()> {
        let mut sets = Vec::new();
        for request in missed {
            let mut missing = request.value_bytes();
            sets.extend_from_slice(b"set ");
            sets.extend_from_slice(&key_text(request.key));
            write!(sets, " 0 0 {missing}\r\n")?;
            while missing > 0 {
                let piece = &FILLER[..missing.min(FILLER.len())];
                sets.extend_from_slice(piece);
                missing -= piece.len();
            }
            sets.extend_from_slice(b"\r\n");
        }
        self.stream.write_all(&sets)?;
        for _ in missed {
            tally.refused += u64::from(self.line()? != "STORED");
        }
        Ok(())
    }

    /// Reads the answer to a get.
    fn is_hit(&mut self) -> io::Result<bool> {
        let line = self.line()?;
        if line == "END" {
            return Ok(false);
        }
        let bytes = line.strip_prefix("VALUE ").and_then(|rest| rest.rsplit(' ').next());
        let Some(bytes) = bytes.and_then(|bytes| bytes.parse::<u64>().ok()) else {
            return Err(io::Error::other(format!("memcached said: {line}")));
        };
        io::copy(&mut self.input.by_ref().take(bytes + 2), &mut io::sink())?;
        match self.line()?.as_str() {
            "END" => Ok(true),
            line => Err(io::Error::other(format!("memcached said: {line}"))),
        }
    }

    /// What `stats` says of some names; zero of a name that it does not know.
    fn statistics<const N: usize>(&mut self, names: [&str; N]) -> io::Result<[u64; N]> {
        self.stream.write_all(b"stats\r\n")?;
        let mut values = [0; N];
        loop {
            let line = self.line()?;
            if line == "END" {
                return Ok(values);
            }
            let words: Vec<&str> = line.split(' ').collect();
            let ["STAT", name, value] = words[..] else { continue };
            if let Some(at) = names.iter().position(|each| *each == name) {
                values[at] = value.parse().map_err(io::Error::other)?;
            }
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.input.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

/// The first request of a window for each of its keys, in their order.
fn firsts(window: &[Request]) -> Vec<&Request> {
    let mut seen = BTreeMap::new();
    window.iter().filter(|request| seen.insert(request.key, ()).is_none()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(key: u64) -> Request {
        Request { time_s: 0, key, bytes: 61 }
    }

    #[test]
    fn gets_go_first_and_then_sets_of_what_missed() {
        let hit = "VALUE a-request:-0000000000000001 0 3\r\nEND\r\nEND\r\n";
        let answers = format!("{hit}END\r\nEND\r\nSTORED\r\nSERVER_ERROR object too large\r\n");
        let mut client = Client { input: answers.as_bytes(), stream: Vec::new() };
        let mut tally = Tally::default();
        let window = [request(1), request(2), request(3), request(2)];
        client.execute(&window, &mut tally).unwrap();
        let expected = Tally {
            requests: 4,
            misses: 2,
            bytes: 244,
            missed_bytes: 122,
            refused: 1,
            ..Tally::default()
        };
        assert_eq!(tally, expected);
        assert!(client.input.is_empty(), "all was read");
        let sent = String::from_utf8(client.stream).unwrap();
        let lines: Vec<&str> = sent.lines().collect();
        assert_eq!(lines.len(), 3 + 4);
        assert_eq!(lines[1], "get a-request:-0000000000000002");
        assert_eq!(lines[3..5], ["set a-request:-0000000000000002 0 0 3", "vvv"]);
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        let mut client = Client { input: &b"ERROR\r\n"[..], stream: Vec::new() };
        let said = client.execute(&[request(1)], &mut Tally::default()).unwrap_err();
        assert!(said.to_string().contains("ERROR"));
        let mut client = Client { input: &b""[..], stream: Vec::new() };
        assert!(client.execute(&[request(1)], &mut Tally::default()).is_err());
    }

    #[test]
    fn statistics_are_read_by_name() {
        let text = "STAT pid 1\r\nSTAT evictions 17\r\nSTAT version 1 a\r\nEND\r\n";
        let mut client = Client { input: text.as_bytes(), stream: Vec::new() };
        assert_eq!(client.statistics(["curr_items", "evictions"]).unwrap(), [0, 17]);
        assert_eq!(client.stream, b"stats\r\n");
    }
}
