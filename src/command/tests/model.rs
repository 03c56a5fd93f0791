//! What memcached's text commands mean, in the simplest words: the oracle of the tests.

use std::collections::BTreeMap;

use crate::base::clock::{Now, TICKS_PER_S};

#[derive(Clone, Debug)]
struct Entry {
    flags: u32,
    value: Vec<u8>,
    /// The tick at which it is gone.
    gone_at: Option<u64>,
}

/// A command, whose key and value are small numbers.
#[derive(Clone, Debug)]
pub enum Command {
    Store {
        verb: &'static str,
        key: u8,
        flags: u32,
        exptime: i64,
        value: Vec<u8>,
        noreply: bool,
    },
    /// `cas` with the cas that the item has, or with another one.
    Cas {
        key: u8,
        right: bool,
        value: Vec<u8>,
        noreply: bool,
    },
    Get {
        keys: Vec<u8>,
    },
    Gat {
        exptime: i64,
        keys: Vec<u8>,
    },
    Touch {
        key: u8,
        exptime: i64,
        noreply: bool,
    },
    Delete {
        key: u8,
        noreply: bool,
    },
    Arithmetic {
        up: bool,
        key: u8,
        delta: u64,
        noreply: bool,
    },
    FlushAll {
        delay: u32,
        noreply: bool,
    },
    /// A value without the line end that is due.
    BadChunk {
        key: u8,
        noreply: bool,
    },
    TooLarge {
        verb: &'static str,
        key: u8,
        bytes: usize,
        noreply: bool,
    },
    Pass {
        ticks: u64,
    },
}

#[derive(Debug, Default)]
pub struct Model {
    entries: BTreeMap<u8, Entry>,
    flush_at: Option<u64>,
    tick: u64,
    epoch_unix_s: u64,
}

const MONTH_S: i64 = 30 * 24 * 60 * 60;

impl Model {
    pub fn at(now: Now) -> Model {
        Model { tick: now.ticks, epoch_unix_s: now.epoch_unix_s, ..Model::default() }
    }

    /// Lets time do its work.
    fn settle(&mut self) {
        if self.flush_at.is_some_and(|at| at <= self.tick) {
            self.entries.clear();
            self.flush_at = None;
        }
        let tick = self.tick;
        self.entries.retain(|_, entry| entry.gone_at.is_none_or(|at| at > tick));
    }

    fn gone_at(&self, exptime: i64) -> Option<u64> {
        match exptime {
            0 => None,
            ..0 => Some(0),
            1..=MONTH_S => Some(self.tick + exptime.unsigned_abs() * TICKS_PER_S),
            _ => Some(exptime.unsigned_abs().saturating_sub(self.epoch_unix_s) * TICKS_PER_S),
        }
    }

    fn put(&mut self, key: u8, flags: u32, exptime: i64, value: &[u8]) -> &'static str {
        let gone_at = self.gone_at(exptime);
        self.entries.insert(key, Entry { flags, value: value.to_vec(), gone_at });
        "STORED"
    }

    /// The reply, without the line end of its last line; empty for none. `cas` says whether the cas
    /// that was sent is the item's.
    pub fn execute(&mut self, command: &Command) -> Vec<u8> {
        self.settle();
        let (reply, noreply): (String, bool) = match command {
            Command::Pass { ticks } => {
                self.tick += ticks;
                (String::new(), true)
            }
            Command::Get { keys } => return self.get(keys),
            Command::Gat { exptime, keys } => {
                let mut reply = Vec::new();
                // One by one: a key that expires at once is gone for the next.
                for key in keys {
                    let gone_at = self.gone_at(*exptime);
                    reply.extend(self.value(*key));
                    if let Some(entry) = self.entries.get_mut(key) {
                        entry.gone_at = gone_at;
                    }
                    self.settle();
                }
                reply.extend(b"END\r\n");
                return reply;
            }
            Command::Store { verb, key, flags, exptime, value, noreply } => {
                (self.store(verb, *key, *flags, *exptime, value).into(), *noreply)
            }
            Command::Cas { key, right, value, noreply } => {
                let reply = match (self.entries.contains_key(key), right) {
                    (false, _) => "NOT_FOUND",
                    (true, false) => "EXISTS",
                    (true, true) => self.put(*key, 3, 0, value),
                };
                (reply.into(), *noreply)
            }
            Command::Touch { key, exptime, noreply } => {
                let gone_at = self.gone_at(*exptime);
                let reply = match self.entries.get_mut(key) {
                    Some(entry) => {
                        entry.gone_at = gone_at;
                        "TOUCHED"
                    }
                    None => "NOT_FOUND",
                };
                (reply.into(), *noreply)
            }
            Command::Delete { key, noreply } => {
                let found = self.entries.remove(key).is_some();
                (if found { "DELETED" } else { "NOT_FOUND" }.into(), *noreply)
            }
            Command::Arithmetic { up, key, delta, noreply } => {
                (self.arithmetic(*up, *key, *delta), *noreply)
            }
            Command::FlushAll { delay, noreply } => {
                self.flush_at = Some(self.tick + u64::from(*delay) * TICKS_PER_S);
                self.settle();
                ("OK".into(), *noreply)
            }
            Command::BadChunk { noreply, .. } => ("CLIENT_ERROR bad data chunk".into(), *noreply),
            Command::TooLarge { verb, key, noreply, .. } => {
                if *verb == "set" {
                    self.entries.remove(key);
                }
                ("SERVER_ERROR object too large for cache".into(), *noreply)
            }
        };
        if noreply { Vec::new() } else { format!("{reply}\r\n").into_bytes() }
    }

    fn store(
        &mut self,
        verb: &str,
        key: u8,
        flags: u32,
        exptime: i64,
        value: &[u8],
    ) -> &'static str {
        match (verb, self.entries.get_mut(&key)) {
            ("set", _) | ("add", None) | ("replace", Some(_)) => {
                self.put(key, flags, exptime, value)
            }
            ("append", Some(entry)) => {
                entry.value.extend_from_slice(value);
                "STORED"
            }
            ("prepend", Some(entry)) => {
                entry.value.splice(0..0, value.iter().copied());
                "STORED"
            }
            _ => "NOT_STORED",
        }
    }

    fn arithmetic(&mut self, up: bool, key: u8, delta: u64) -> String {
        let Some(entry) = self.entries.get_mut(&key) else { return "NOT_FOUND".into() };
        let text = String::from_utf8_lossy(entry.value.trim_ascii_end());
        let is_number = entry.value.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit());
        let Some(old) = text.parse::<u64>().ok().filter(|_| is_number) else {
            return "CLIENT_ERROR cannot increment or decrement non-numeric value".into();
        };
        let new = if up { old.wrapping_add(delta) } else { old.saturating_sub(delta) };
        let text = new.to_string();
        // A shorter number keeps the room, with spaces in it.
        let shrinks = text.len() < entry.value.len();
        let len = if shrinks { entry.value.len() } else { text.len() };
        entry.value = format!("{text:<len$}").into_bytes();
        text
    }

    fn value(&self, key: u8) -> Vec<u8> {
        let Some(entry) = self.entries.get(&key) else { return Vec::new() };
        let head = format!("VALUE k{key} {} {}\r\n", entry.flags, entry.value.len());
        [head.as_bytes(), &entry.value, b"\r\n"].concat()
    }

    fn get(&self, keys: &[u8]) -> Vec<u8> {
        let values = keys.iter().map(|key| self.value(*key));
        values.chain([b"END\r\n".to_vec()]).collect::<Vec<_>>().concat()
    }
}
