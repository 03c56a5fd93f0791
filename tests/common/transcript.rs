//! Transcripts: conversations as text, to be held against any server.
//!
//! ```text
//! $ -F -c 5              first of all: the options that the server is started with
//! # a comment
//! > get k                sends the line and CR LF
//! >| get k\r\nge\x00     sends exactly this; \r \n \0 \t \\ and \xNN are bytes
//! >| get \*300:k\r\n     sends 300 times k
//! < END                  expects the line and CR LF
//! <~ VERSION *           expects a line in which * is any run of bytes but spaces
//! <- key=* exp=*         the same, of a line that ends with a line feed alone
//! >b get key=k           sends a packet of the binary protocol, see `packet`
//! <b get flags=0 value=v cas=*
//!                        expects a packet
//! <rows stat             expects packets of statistics, up to the empty one
//! ! close                expects that the server closes; what follows is a new connection
//! @ +2                   lets 2 seconds pass
//! = differs: why         up to the next blank line, the original answers otherwise
//! = since 1.6.45: why    up to the next blank line, older originals answer otherwise
//! ```
//!
//! A blank line ends an exchange.

#[path = "packet.rs"]
pub mod packet;

use packet::Packet;

/// One line of a transcript that is not a comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Send(Vec<u8>),
    /// A reply without its line end.
    Expect(Vec<u8>),
    /// A reply without its line end; `*` is any run of bytes but spaces.
    Match(Vec<u8>),
    /// As `Match`, of a line that ends with a line feed alone.
    MatchBare(Vec<u8>),
    SendPacket(Packet),
    ExpectPacket(Packet),
    /// Packets like this one, and then this one.
    ExpectRows(Packet),
    Close,
    /// Seconds.
    Pass(u32),
}

/// Why an exchange is not for the original.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    Intended,
    /// The first version that answers so.
    Since(Version),
}

pub type Version = [u32; 3];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// Each with the number of its line.
    pub steps: Vec<(usize, Step)>,
    pub difference: Option<Difference>,
}

impl Exchange {
    /// How long it waits at least.
    pub fn seconds(&self) -> u32 {
        let passes = self.steps.iter().map(|(_, step)| match step {
            Step::Pass(seconds) => *seconds,
            Step::Send(_)
            | Step::Expect(_)
            | Step::Match(_)
            | Step::MatchBare(_)
            | Step::SendPacket(_)
            | Step::ExpectPacket(_)
            | Step::ExpectRows(_)
            | Step::Close => 0,
        });
        passes.sum()
    }

    /// True if all can be sent before any reply is read.
    pub fn is_blind(&self) -> bool {
        let waits = |step: &Step| matches!(step, Step::SendPacket(packet) if packet.awaits_reply());
        !self.steps.iter().any(|(_, step)| waits(step))
    }

    /// Whether memcached of this version should answer so.
    pub fn holds_for(&self, version: Version) -> bool {
        match &self.difference {
            None => true,
            Some(Difference::Intended) => false,
            Some(Difference::Since(since)) => version >= *since,
        }
    }
}

/// The options of the server that a transcript is about.
pub fn options(text: &str) -> Vec<&str> {
    let first = text.lines().next().and_then(|line| line.strip_prefix("$ "));
    first.unwrap_or_default().split_whitespace().collect()
}

/// Parses a transcript; an error names the line.
pub fn parse(text: &str) -> Result<Vec<Exchange>, String> {
    let mut exchanges = vec![Exchange::default()];
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let fail = |what: &str| format!("line {number}: {what}: {line:?}");
        let exchange = exchanges.last_mut().unwrap();
        if line.trim().is_empty() {
            exchanges.push(Exchange::default());
            continue;
        }
        if line.starts_with('#') || (index == 0 && line.starts_with("$ ")) {
            continue;
        }
        if let Some(mark) = line.strip_prefix("= ") {
            exchange.difference = Some(difference(mark).ok_or_else(|| fail("unknown mark"))?);
            continue;
        }
        exchange.steps.push((number, step(line).ok_or_else(|| fail("unknown step"))?));
    }
    exchanges.retain(|exchange| !exchange.steps.is_empty());
    Ok(exchanges)
}

fn step(line: &str) -> Option<Step> {
    // An editor may have taken the space from an empty line's end.
    let (sign, rest) = line.split_once(' ').unwrap_or((line, ""));
    match sign {
        ">" => Some(Step::Send(format!("{rest}\r\n").into_bytes())),
        ">|" => unescape(rest).map(Step::Send),
        "<" => Some(Step::Expect(rest.into())),
        "<~" => Some(Step::Match(rest.into())),
        "<-" => Some(Step::MatchBare(rest.into())),
        ">b" => Packet::parse(rest, 0x80).map(Step::SendPacket),
        "<b" => Packet::parse(rest, 0x81).map(Step::ExpectPacket),
        "<rows" => Packet::parse(rest, 0x81).map(Step::ExpectRows),
        "!" if rest == "close" => Some(Step::Close),
        "@" => rest.strip_prefix('+')?.parse().ok().map(Step::Pass),
        _ => None,
    }
}

fn difference(mark: &str) -> Option<Difference> {
    let (kind, reason) = mark.split_once(':')?;
    if reason.trim().is_empty() {
        return None;
    }
    match kind.strip_prefix("since ") {
        Some(version) => parse_version(version).map(Difference::Since),
        None => (kind == "differs").then_some(Difference::Intended),
    }
}

/// `1.6.18`, with anything after it.
pub fn parse_version(text: &str) -> Option<Version> {
    let mut parts = text.trim().splitn(3, '.').map(|part| {
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..digits].parse().ok()
    });
    Some([parts.next()??, parts.next()??, parts.next()??])
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let (escape, after) = rest.split_first()?;
        rest = after;
        bytes.push(match escape {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'0' => 0,
            b'\\' => b'\\',
            b'x' => {
                let (digits, after) = rest.split_at_checked(2)?;
                rest = after;
                let digits = std::str::from_utf8(digits).ok().filter(|d| !d.starts_with('+'))?;
                u8::from_str_radix(digits, 16).ok()?
            }
            b'*' => {
                let colon = rest.iter().position(|byte| *byte == b':')?;
                let count: usize = std::str::from_utf8(&rest[..colon]).ok()?.parse().ok()?;
                let (byte, after) = rest[colon + 1..].split_first()?;
                rest = after;
                bytes.resize(bytes.len() + count, *byte);
                continue;
            }
            _ => return None,
        });
    }
    Some(bytes)
}

/// Whether a pattern, in which `*` is any run of bytes but spaces, covers the whole line.
pub fn matches(pattern: &[u8], line: &[u8]) -> bool {
    match (pattern.split_first(), line.split_first()) {
        (None, None) => true,
        (Some((b'*', after)), next) => {
            matches(after, line)
                || next.is_some_and(|(byte, rest)| *byte != b' ' && matches(pattern, rest))
        }
        (Some((wanted, after)), Some((byte, rest))) => wanted == byte && matches(after, rest),
        _ => false,
    }
}
