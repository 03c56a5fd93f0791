//! Where to listen: `-l`, `-p`, `-U` and `-s` to addresses, by memcached's rules.
//!
//! An entry of `-l` is `HOST`, `HOST:PORT`, `[V6]`, `[V6]:PORT`, a bare IPv6 address, or `*`, after
//! `proto[NAME]:` and `tag[NAME]:` in any order. A name that resolves to several addresses stands
//! for all of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use super::error::StartError;
use super::speech::Speech;
use crate::base::protocol::Protocol;

/// A Unix socket to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixListener {
    pub path: PathBuf,
    /// The mode of the socket's file.
    pub mask: u32,
    pub protocol: Protocol,
}

/// An address to listen on, and what is spoken there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Port 0 is a port of the system's choice. An IPv6 address is bound for IPv6 alone
    /// (`IPV6_V6ONLY`): `0.0.0.0` and `[::]` stand side by side.
    pub address: SocketAddr,
    pub protocol: Protocol,
    /// What `tag[...]` calls it; nobody asks for it so far, as in memcached without its proxy.
    pub tag: Option<String>,
}

/// Where clients are served. With a Unix socket there is nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listeners {
    /// All of them must be bound.
    pub tcp: Vec<Bound>,
    /// As `tcp`, for memcached's datagrams.
    pub udp: Vec<Bound>,
    pub unix: Option<UnixListener>,
}

impl Listeners {
    /// What is spoken at each, in the order in which they are bound.
    pub fn protocols(&self) -> Vec<Protocol> {
        let [tcp, udp] = [&self.tcp, &self.udp].map(|all| all.iter().map(|bound| bound.protocol));
        let unix = self.unix.iter().map(|unix| unix.protocol);
        tcp.chain(unix).chain(udp).collect()
    }
}

/// One entry of `-l`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// `None` is every interface.
    host: Option<String>,
    port: Option<u16>,
    protocol: Option<Protocol>,
    tag: Option<String>,
}

const REMEDY: &str = "Use -l HOST, -l HOST:PORT, -l [V6]:PORT, if need be with tag[NAME]: or \
    proto[ascii|binary|negotiating]: before it, or leave -l out for all interfaces.";

/// The entries of one `-l`, which memcached lets stand between commas, semicolons or spaces. A list
/// of nothing is one empty entry, to be refused.
pub(super) fn split_entries(list: &str) -> Vec<&str> {
    let entries = list.split([',', ';', ' ']).filter(|entry| !entry.is_empty());
    let entries: Vec<_> = entries.collect();
    if entries.is_empty() { vec![list] } else { entries }
}

pub(super) fn parse_entry(whole: &str) -> Result<Entry, StartError> {
    let refuse = |cause: &str| Err(StartError::new("listen on", whole, cause, REMEDY));
    let (mut text, mut protocol, mut tag) = (whole, None, None);
    loop {
        text = if let Some(rest) = text.strip_prefix("notls:") {
            rest
        } else if ["btls:", "mtls:"].iter().any(|prefix| text.starts_with(prefix)) {
            return refuse("there is no TLS");
        } else if let Some(rest) = text.strip_prefix("proto[") {
            let Some((name, rest)) = rest.split_once("]:") else {
                return refuse("Invalid protocol spec");
            };
            let Some(named) = abbreviated(name) else {
                return refuse("no such protocol: it is ascii, binary or negotiating");
            };
            protocol = Some(named);
            rest
        } else if let Some((name, rest)) = tagged(text) {
            if !(1..=TAG_BYTES_MAX).contains(&name.len()) {
                return refuse("Listener tags must be between 1 and 8 characters");
            }
            tag = Some(name.to_owned());
            rest
        } else {
            break;
        }
    }
    if text.starts_with("tag[") {
        return refuse("Invalid tag in socket config");
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, rest)) => match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None => return refuse("text after the closing bracket"),
            },
            None => return refuse("no closing bracket"),
        },
        None => match text.split_once(':') {
            // More than one colon without brackets is an IPv6 address without a port.
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            Some(_) | None => (text, None),
        },
    };
    let port = match port.map(str::parse::<u16>) {
        None => None,
        Some(Ok(port)) => Some(port),
        Some(Err(_)) => return refuse("the port is not a number from 0 to 65535"),
    };
    if host.trim_matches([' ', ',', ';']).is_empty() {
        return refuse("there is no host");
    }
    Ok(Entry { host: (host != "*").then(|| host.to_owned()), port, protocol, tag })
}

/// Longest name of an address.
const TAG_BYTES_MAX: usize = 8;

/// The name in `tag[NAME]:` or `tag_NAME_:`, and what follows.
fn tagged(text: &str) -> Option<(&str, &str)> {
    let in_brackets = text.strip_prefix("tag[").and_then(|rest| rest.split_once("]:"));
    in_brackets.or_else(|| text.strip_prefix("tag_").and_then(|rest| rest.split_once("_:")))
}

/// A protocol by its name in `-l`, or the start of one.
fn abbreviated(name: &str) -> Option<Protocol> {
    let names = [
        ("ascii", Protocol::Ascii),
        ("binary", Protocol::Binary),
        ("negotiating", Protocol::Negotiating),
        // As -B has it.
        ("auto", Protocol::Negotiating),
    ];
    let mut found = names.iter().filter(|(each, _)| !name.is_empty() && each.starts_with(name));
    match (found.next(), found.next()) {
        (Some((_, protocol)), None) => Some(*protocol),
        // "a" is the start of two; memcached knows the first alone.
        (Some(_), Some(_)) => Some(Protocol::Ascii),
        (None, _) => None,
    }
}

/// The addresses of all entries, in their order, each once.
///
/// `port` is for entries that name none; `has_ipv6` says whether "every interface" includes `[::]`.
pub(super) fn resolve(
    entries: &[Entry],
    port: u16,
    speech: &Speech,
    has_ipv6: bool,
) -> Result<Vec<Bound>, StartError> {
    let mut all: Vec<Bound> = Vec::new();
    for entry in entries {
        let protocol = speech.at(entry.protocol)?;
        for address in addresses(entry, port, has_ipv6)? {
            match all.iter().find(|bound| bound.address == address) {
                None => all.push(Bound { address, protocol, tag: entry.tag.clone() }),
                Some(bound) if bound.protocol == protocol => {}
                Some(bound) => {
                    let (one, other) = (bound.protocol.name(), protocol.name());
                    let cause = format!("it is to speak {one}, and to speak {other}");
                    let remedy = "Name the address once, or give each protocol a port of its own.";
                    return Err(StartError::new("listen on", address, cause, remedy));
                }
            }
        }
    }
    Ok(all)
}

fn addresses(entry: &Entry, port: u16, has_ipv6: bool) -> Result<Vec<SocketAddr>, StartError> {
    let port = entry.port.unwrap_or(port);
    let Some(host) = entry.host.as_deref() else {
        let all = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let usable = all.into_iter().filter(|ip| ip.is_ipv4() || has_ipv6);
        return Ok(usable.map(|ip| (ip, port).into()).collect());
    };
    let found = (host, port).to_socket_addrs().map_err(|error| {
        let remedy = "Check the name, or give an address in digits.";
        StartError::new("find the address of", host, error, remedy)
    })?;
    Ok(found.collect())
}

pub(super) const EVERYWHERE: Entry = Entry { host: None, port: None, protocol: None, tag: None };

/// A port as memcached takes it: `None` is off, `Some(0)` a port of the system's choice.
pub(super) fn parse_port(option: &str, port: i64) -> Result<Option<u16>, StartError> {
    match port {
        0 => Ok(None),
        -1 => Ok(Some(0)),
        port => u16::try_from(port).map(Some).map_err(|_| {
            let remedy = "Use a port from 1 to 65535, 0 for off, or -1 for any free port.";
            StartError::new("use", format!("{option} {port}"), "not a port", remedy)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEECH: Speech = Speech::open(Protocol::Negotiating);

    fn bound(text: &str) -> Result<Vec<Bound>, StartError> {
        let entries = split_entries(text).into_iter().map(parse_entry);
        resolve(&entries.collect::<Result<Vec<_>, _>>()?, 11211, &SPEECH, true)
    }

    fn all(text: &str) -> Vec<String> {
        bound(text).unwrap().iter().map(|bound| bound.address.to_string()).collect()
    }

    #[test]
    fn entries() {
        assert_eq!(all("127.0.0.1"), ["127.0.0.1:11211"]);
        assert_eq!(all("127.0.0.1:80"), ["127.0.0.1:80"]);
        assert_eq!(all("::1"), ["[::1]:11211"]);
        assert_eq!(all("[::1]"), ["[::1]:11211"]);
        assert_eq!(all("[::1]:0"), ["[::1]:0"]);
        assert_eq!(all("*"), ["0.0.0.0:11211", "[::]:11211"]);
        assert_eq!(all("*:80"), ["0.0.0.0:80", "[::]:80"]);
        assert_eq!(all("notls:10.0.0.1:5"), ["10.0.0.1:5"]);
        assert!(all("localhost").contains(&"127.0.0.1:11211".to_owned()));
        assert_eq!(resolve(&[EVERYWHERE], 1, &SPEECH, false).unwrap().len(), 1);
    }

    #[test]
    fn what_is_no_entry() {
        for text in ["", ":80", "[::1", "[::1]80", "a:b", "a:65536", "a:-1", "mtls:h:1", "btls:h"] {
            assert!(parse_entry(text).is_err(), "{text:?}");
        }
        for text in ["proto[x]:h", "proto[]:h", "proto[ascii:h", "proto[ascii]h", "proto[proxy]:h"]
        {
            assert!(parse_entry(text).is_err(), "{text:?}");
        }
        for text in ["tag[]:h", "tag[x:h", "tag[123456789]:h", "tag[x]h", "tag[x]:"] {
            assert!(parse_entry(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn prefixes_in_any_order() {
        for text in [
            "proto[binary]:tag[tools]:127.0.0.1:5",
            "tag[tools]:proto[binary]:127.0.0.1:5",
            "tag_tools_:proto[bin]:notls:127.0.0.1:5",
            "notls:proto[b]:tag_tools_:[127.0.0.1]:5",
        ] {
            let address = "127.0.0.1:5".parse().unwrap();
            let tag = Some("tools".to_owned());
            let wanted = Bound { address, protocol: Protocol::Binary, tag };
            assert_eq!(bound(text).unwrap(), [wanted], "{text}");
        }
        let list =
            "proto[ascii]:h1:1,proto[negotiating]:[::1]:2,127.0.0.1".replace("h1", "127.1.1.1");
        let spoken = bound(&list).unwrap();
        let spoken: Vec<_> = spoken.iter().map(|bound| bound.protocol).collect();
        assert_eq!(spoken, [Protocol::Ascii, Protocol::Negotiating, Protocol::Negotiating]);
    }

    #[test]
    fn an_address_speaks_one_protocol() {
        assert_eq!(bound("127.0.0.1,127.0.0.1:11211").unwrap().len(), 1);
        assert!(bound("proto[ascii]:127.0.0.1:5,proto[binary]:127.0.0.1:5").is_err());
    }

    #[test]
    fn lists() {
        assert_eq!(split_entries("a, b;[::1]:5 c"), ["a", "b", "[::1]:5", "c"]);
        assert!(split_entries(" ,").into_iter().any(|entry| parse_entry(entry).is_err()));
        assert!(split_entries("").into_iter().any(|entry| parse_entry(entry).is_err()));
    }

    #[test]
    fn ports() {
        assert_eq!(parse_port("-p", 0), Ok(None));
        assert_eq!(parse_port("-p", -1), Ok(Some(0)));
        assert_eq!(parse_port("-p", 65535), Ok(Some(65535)));
        assert!(parse_port("-p", 65536).is_err());
        assert!(parse_port("-p", -2).is_err());
    }
}
