//! Where the UDP statistics listen, and who may ask.
//!
//! The rule for the port, when nothing is said: the first TCP port plus 10000, on 127.0.0.1, so
//! that 11211 is read at 21211 and two servers on one host do not meet. Where that is not a port,
//! or is taken, the system chooses one; the server prints it, and systemd's STATUS shows it.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::Path;

use super::error::StartError;

/// What is added to the first TCP port.
pub const ADMIN_PORT_OFFSET: u16 = 10_000;

/// Bytes of a key: fewer can be guessed, more is not a key.
const KEY_BYTES_MIN: usize = 16;
const KEY_BYTES_MAX: usize = 1024;

/// Bytes that are read of a file with a key.
const FILE_BYTES_MAX: u64 = 4096;

/// A shared secret.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminKey(Vec<u8>);

impl AdminKey {
    /// A key of 16 to 1024 bytes.
    pub fn new(bytes: &[u8]) -> Option<AdminKey> {
        (KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&bytes.len()).then(|| AdminKey(bytes.to_vec()))
    }

    /// Reads a key; white space at the end of the file does not count.
    pub fn read(path: &Path) -> Result<AdminKey, StartError> {
        let doing = "read the key";
        let mut bytes = Vec::new();
        // No more than tells that it is too long.
        let read =
            File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
        read.map_err(|error| {
            let remedy = "Name a file that this user may read.";
            StartError::new(doing, path.display(), error, remedy)
        })?;
        AdminKey::new(bytes.trim_ascii_end()).ok_or_else(|| {
            let cause = format!("{} bytes, not 16 to 1024", bytes.trim_ascii_end().len());
            let remedy = "Make one: head -c 32 /dev/urandom | base64 > FILE";
            StartError::new(doing, path.display(), cause, remedy)
        })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for AdminKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminKey(..)")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminPlan {
    pub address: SocketAddr,
    /// True when nobody asked for this port: if it is taken, another one will do.
    pub may_move: bool,
    /// Always there unless `address` is on loopback.
    pub key: Option<AdminKey>,
    /// True when who asks may be told keys.
    pub tells_keys: bool,
}

impl AdminPlan {
    /// `first_tcp` is what the default is derived from; `udp_port` is what it must not be.
    pub(super) fn check(
        option: Option<&str>,
        key_file: Option<&Path>,
        tells_keys: bool,
        first_tcp: Option<u16>,
        udp_port: Option<u16>,
    ) -> Result<Option<AdminPlan>, StartError> {
        let key = key_file.map(AdminKey::read).transpose()?;
        let plan = match option {
            Some("off") => return Ok(None),
            Some(text) => AdminPlan { address: parse(text)?, may_move: false, key, tells_keys },
            None => {
                let port = first_tcp
                    .filter(|port| *port != 0)
                    .and_then(|port| port.checked_add(ADMIN_PORT_OFFSET))
                    .filter(|port| Some(*port) != udp_port);
                let address = (IpAddr::V4(Ipv4Addr::LOCALHOST), port.unwrap_or(0)).into();
                AdminPlan { address, may_move: true, key, tells_keys }
            }
        };
        if plan.key.is_none() && !plan.address.ip().is_loopback() {
            return Err(StartError::new(
                "serve statistics on",
                plan.address,
                "off loopback, datagrams must be signed, and there is no key",
                "Give --admin-key-file FILE, or use --admin 127.0.0.1:PORT, or --admin off.",
            ));
        }
        Ok(Some(plan))
    }
}

/// `ADDR:PORT`, or a port of 127.0.0.1.
fn parse(text: &str) -> Result<SocketAddr, StartError> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    let remedy = "Use --admin ADDR:PORT, --admin PORT for 127.0.0.1, or --admin off.";
    let refuse = |cause: String| StartError::new("serve statistics on", text, cause, remedy);
    let mut found = text.to_socket_addrs().map_err(|error| refuse(error.to_string()))?;
    found.next().ok_or_else(|| refuse("the name has no address".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(option: Option<&str>, tcp: Option<u16>, udp: Option<u16>) -> Option<AdminPlan> {
        AdminPlan::check(option, None, true, tcp, udp).unwrap()
    }

    #[test]
    fn the_default_port_follows_the_first_tcp_port() {
        let port = |tcp, udp| check(None, tcp, udp).unwrap().address.port();
        assert_eq!(port(Some(11211), None), 21211);
        assert_eq!(port(Some(55535), None), 65535);
        assert_eq!(port(Some(55536), None), 0);
        assert_eq!(port(Some(0), None), 0);
        assert_eq!(port(None, None), 0);
        assert_eq!(port(Some(11211), Some(21211)), 0);
    }

    #[test]
    fn an_asked_port_is_kept() {
        let plan = check(Some("127.0.0.1:5"), Some(11211), None).unwrap();
        assert_eq!((plan.address.to_string().as_str(), plan.may_move), ("127.0.0.1:5", false));
        assert_eq!(check(Some("7"), None, None).unwrap().address.to_string(), "127.0.0.1:7");
        assert_eq!(check(Some("off"), Some(11211), None), None);
        assert!(AdminPlan::check(Some("x"), None, true, None, None).is_err());
    }

    #[test]
    fn off_loopback_needs_a_key() {
        let open = |key: Option<&Path>| AdminPlan::check(Some("0.0.0.0:9"), key, true, None, None);
        assert!(open(None).unwrap_err().cause.contains("no key"));
        let path = std::env::temp_dir().join(format!("ringcached-key-{}", std::process::id()));
        std::fs::write(&path, "short\n").unwrap();
        assert!(open(Some(&path)).unwrap_err().cause.starts_with("5 bytes"));
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        let plan = open(Some(&path)).unwrap().unwrap();
        std::fs::remove_file(&path).unwrap();
        let key = plan.key.unwrap();
        assert_eq!(key.bytes(), b"0123456789abcdef");
        assert_eq!(format!("{key:?}"), "AdminKey(..)");
        assert!(open(Some(&path)).unwrap_err().doing.contains("read"));
    }
}
