//! Where to listen: `-l`, `-p`, `-U` and `-s` to addresses, by memcached's rules.
//!
//! An entry of `-l` is `HOST`, `HOST:PORT`, `[V6]`, `[V6]:PORT`, a bare IPv6 address, or `*`. A
//! name that resolves to several addresses stands for all of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use super::error::StartError;

/// A Unix socket to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixListener {
    pub path: PathBuf,
    /// The mode of the socket's file.
    pub mask: u32,
}

/// Where clients are served. With a Unix socket there is nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listeners {
    /// All of them must be bound. Port 0 is a port of the system's choice. An IPv6 address is bound
    /// for IPv6 alone (`IPV6_V6ONLY`): `0.0.0.0` and `[::]` stand side by side.
    pub tcp: Vec<SocketAddr>,
    /// As `tcp`, for memcached's datagrams.
    pub udp: Vec<SocketAddr>,
    pub unix: Option<UnixListener>,
}

/// One entry of `-l`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// `None` is every interface.
    host: Option<String>,
    port: Option<u16>,
}

const REMEDY: &str = "Use -l HOST, -l HOST:PORT, -l [V6]:PORT, or leave -l out for all interfaces.";

/// The entries of one `-l`, which memcached lets stand between commas, semicolons or spaces. A list
/// of nothing is one empty entry, to be refused.
pub(super) fn split_entries(list: &str) -> Vec<&str> {
    let entries = list.split([',', ';', ' ']).filter(|entry| !entry.is_empty());
    let entries: Vec<_> = entries.collect();
    if entries.is_empty() { vec![list] } else { entries }
}

pub(super) fn parse_entry(text: &str) -> Result<Entry, StartError> {
    let refuse = |cause: &str| Err(StartError::new("listen on", text, cause, REMEDY));
    if ["proto[", "tag[", "btls:", "mtls:"].iter().any(|prefix| text.starts_with(prefix)) {
        return refuse("prefixes of an address are not supported");
    }
    let text = text.strip_prefix("notls:").unwrap_or(text);
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
    Ok(Entry { host: (host != "*").then(|| host.to_owned()), port })
}

/// The addresses of all entries, in their order, each once.
///
/// `port` is for entries that name none; `has_ipv6` says whether "every interface" includes `[::]`.
pub(super) fn resolve(
    entries: &[Entry],
    port: u16,
    has_ipv6: bool,
) -> Result<Vec<SocketAddr>, StartError> {
    let mut addresses = Vec::new();
    let mut add = |address: SocketAddr| {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    };
    for entry in entries {
        let port = entry.port.unwrap_or(port);
        let Some(host) = entry.host.as_deref() else {
            add((IpAddr::V4(Ipv4Addr::UNSPECIFIED), port).into());
            if has_ipv6 {
                add((IpAddr::V6(Ipv6Addr::UNSPECIFIED), port).into());
            }
            continue;
        };
        let found = (host, port).to_socket_addrs().map_err(|error| {
            let remedy = "Check the name, or give an address in digits.";
            StartError::new("find the address of", host, error, remedy)
        })?;
        found.for_each(&mut add);
    }
    Ok(addresses)
}

pub(super) const EVERYWHERE: Entry = Entry { host: None, port: None };

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

    fn all(text: &str) -> Vec<String> {
        let entries = [parse_entry(text).unwrap()];
        resolve(&entries, 11211, true).unwrap().iter().map(ToString::to_string).collect()
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
        assert_eq!(resolve(&[EVERYWHERE], 1, false).unwrap().len(), 1);
    }

    #[test]
    fn what_is_no_entry() {
        for text in ["", ":80", "[::1", "[::1]80", "a:b", "a:65536", "a:-1", "mtls:h:1", "tag[x]:h"]
        {
            assert!(parse_entry(text).is_err(), "{text:?}");
        }
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
