//! Packets of the binary protocol, as lines of a transcript.
//!
//! ```text
//!   set key=a flags=7 exptime=0 value=hello cas=$one opaque=9
//!   incr key=n delta=1 initial=5 exptime=0
//!   get status=01 text=Not found
//! ```
//!
//! The first word is the opcode, by its name or as `#1f`. Extras are written in the order of their
//! fields. What is not given is empty or 0, lengths are those of what is there; `keylen`, `extlen`,
//! `bodylen`, `magic` and `datatype` say otherwise. `text` takes the rest of the line. A cas may be
//! `*` for any but 0, or `$name`: a reply gives the name its meaning.

use std::collections::BTreeMap;

pub const HEAD_BYTES: usize = 24;

const NAMES: &[(&str, u8)] = &[
    ("get", 0x00),
    ("set", 0x01),
    ("add", 0x02),
    ("replace", 0x03),
    ("delete", 0x04),
    ("incr", 0x05),
    ("decr", 0x06),
    ("quit", 0x07),
    ("flush", 0x08),
    ("getq", 0x09),
    ("noop", 0x0a),
    ("version", 0x0b),
    ("getk", 0x0c),
    ("getkq", 0x0d),
    ("append", 0x0e),
    ("prepend", 0x0f),
    ("stat", 0x10),
    ("setq", 0x11),
    ("addq", 0x12),
    ("replaceq", 0x13),
    ("deleteq", 0x14),
    ("incrq", 0x15),
    ("decrq", 0x16),
    ("quitq", 0x17),
    ("flushq", 0x18),
    ("appendq", 0x19),
    ("prependq", 0x1a),
    ("verbosity", 0x1b),
    ("touch", 0x1c),
    ("gat", 0x1d),
    ("gatq", 0x1e),
    ("sasl_list", 0x20),
    ("sasl_auth", 0x21),
    ("sasl_step", 0x22),
    ("gatk", 0x23),
    ("gatkq", 0x24),
];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Cas {
    Is(u64),
    Any,
    Named(String),
}

/// One packet, but for what is known of its cas only later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    bytes: Vec<u8>,
    cas: Cas,
}

/// What the names of cas uniques mean.
pub type Names = BTreeMap<String, u64>;

impl Packet {
    /// A request or a reply, by its magic.
    pub fn parse(line: &str, magic: u8) -> Option<Packet> {
        let (line, text) = match line.split_once(" text=") {
            Some((line, text)) => (line, Some(text)),
            None => (line, None),
        };
        let mut words = line.split(' ');
        let opcode = words.next()?;
        let opcode = match opcode.strip_prefix('#') {
            Some(digits) => u8::from_str_radix(digits, 16).ok()?,
            None => NAMES.iter().find(|(name, _)| *name == opcode)?.1,
        };
        let mut draft = Draft { magic, ..Draft::default() };
        draft.value.extend(text.unwrap_or_default().bytes());
        for word in words {
            let (name, field) = word.split_once('=')?;
            draft.take(name, field)?;
        }
        Some(draft.finish(opcode))
    }

    /// True if it can only be sent once a reply has been read.
    pub fn awaits_reply(&self) -> bool {
        matches!(self.cas, Cas::Named(_))
    }

    /// The bytes to send. `None` if a name has no meaning yet.
    pub fn to_send(&self, names: &Names) -> Option<Vec<u8>> {
        let cas = match &self.cas {
            Cas::Is(cas) => *cas,
            Cas::Any => return None,
            Cas::Named(name) => *names.get(name)?,
        };
        let mut bytes = self.bytes.clone();
        bytes[16..24].copy_from_slice(&cas.to_be_bytes());
        Some(bytes)
    }

    /// Whether these bytes are this packet; if so, a name gets its meaning.
    pub fn is(&self, bytes: &[u8], names: &mut Names) -> bool {
        let Some(cas) = bytes.get(16..24) else { return false };
        let cas = u64::from_be_bytes(cas.try_into().unwrap());
        let rest = |bytes: &[u8]| [&bytes[..16], &bytes[24..]].concat();
        let is_cas = match &self.cas {
            Cas::Is(wanted) => *wanted == cas,
            Cas::Any => cas != 0,
            Cas::Named(name) => {
                names.insert(name.clone(), cas);
                cas != 0
            }
        };
        is_cas && rest(bytes) == rest(&self.bytes)
    }
}

/// The length of the body of a packet that begins so.
pub fn body_bytes(head: &[u8]) -> usize {
    u32::from_be_bytes(head[8..12].try_into().unwrap()) as usize
}

/// Bytes as people read them.
pub fn show(bytes: &[u8]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (head, body) = bytes.split_at(bytes.len().min(HEAD_BYTES));
    format!("[{}] {:?}", hex(head), String::from_utf8_lossy(body))
}

#[derive(Default)]
struct Draft {
    magic: u8,
    datatype: u8,
    status: u16,
    opaque: u32,
    key: Vec<u8>,
    extras: Vec<u8>,
    value: Vec<u8>,
    key_bytes: Option<u16>,
    extras_bytes: Option<u8>,
    body_bytes: Option<u32>,
    cas: Option<Cas>,
}

impl Draft {
    fn take(&mut self, name: &str, field: &str) -> Option<()> {
        match name {
            "key" => self.key = super::unescape(field)?,
            "value" => self.value = super::unescape(field)?,
            "number" => self.value.extend(field.parse::<u64>().ok()?.to_be_bytes()),
            "flags" | "exptime" | "delay" | "level" => {
                self.extras.extend(field.parse::<u32>().ok()?.to_be_bytes());
            }
            "delta" | "initial" => self.extras.extend(field.parse::<u64>().ok()?.to_be_bytes()),
            "extras" => self.extras = super::unescape(field)?,
            "status" => self.status = u16::from_str_radix(field, 16).ok()?,
            "opaque" => self.opaque = field.parse().ok()?,
            "cas" => self.cas = Some(cas(field)?),
            "keylen" => self.key_bytes = Some(field.parse().ok()?),
            "extlen" => self.extras_bytes = Some(field.parse().ok()?),
            "bodylen" => self.body_bytes = Some(field.parse().ok()?),
            "magic" => self.magic = u8::from_str_radix(field, 16).ok()?,
            "datatype" => self.datatype = field.parse().ok()?,
            _ => return None,
        }
        Some(())
    }

    fn finish(self, opcode: u8) -> Packet {
        let Draft { key, extras, value, .. } = &self;
        let body = u32::try_from(key.len() + extras.len() + value.len()).unwrap();
        let key_bytes = self.key_bytes.unwrap_or_else(|| key.len().try_into().unwrap());
        let extras_bytes = self.extras_bytes.unwrap_or_else(|| extras.len().try_into().unwrap());
        let mut bytes = vec![self.magic, opcode];
        bytes.extend(key_bytes.to_be_bytes());
        bytes.extend([extras_bytes, self.datatype]);
        bytes.extend(self.status.to_be_bytes());
        bytes.extend(self.body_bytes.unwrap_or(body).to_be_bytes());
        bytes.extend(self.opaque.to_be_bytes());
        bytes.extend([0; 8]);
        for part in [extras, key, value] {
            bytes.extend(part);
        }
        Packet { bytes, cas: self.cas.unwrap_or(Cas::Is(0)) }
    }
}

fn cas(field: &str) -> Option<Cas> {
    match field.strip_prefix('$') {
        Some(name) => Some(Cas::Named(name.to_owned())),
        None if field == "*" => Some(Cas::Any),
        None => field.parse().ok().map(Cas::Is),
    }
}
