//! What the checks ask of the host.

use std::net::UdpSocket;
use std::path::PathBuf;

use crate::sys::cgroup::{self, Limits};
use crate::sys::topology::{self, Processor};
use crate::sys::user;

use super::placement::Placement;

#[derive(Clone, Debug)]
pub struct Host {
    /// Those that this process may use.
    pub processors: Vec<Processor>,
    /// What its control group lets it have.
    pub limits: Limits,
    pub is_root: bool,
    pub has_ipv6: bool,
    /// The file of users that the environment names for `-S`, as it does for memcached.
    pub sasl_file: Option<PathBuf>,
    /// `MEMCACHED_PORT_FILENAME`: the file that is to name the ports that are bound.
    pub port_file: Option<PathBuf>,
}

impl Host {
    /// This host, as this process sees it.
    pub fn here() -> Host {
        Host {
            processors: topology::processors(),
            limits: cgroup::limits(),
            is_root: user::is_root(),
            has_ipv6: UdpSocket::bind("[::]:0").is_ok(),
            sasl_file: std::env::var_os("MEMCACHED_SASL_PWDB").map(PathBuf::from),
            port_file: std::env::var_os("MEMCACHED_PORT_FILENAME").map(PathBuf::from),
        }
    }

    /// What it lets this process have, and where rings would be, in words.
    pub fn describe(&self, placement: &Placement) -> String {
        let numbers: Vec<_> = self.processors.iter().map(|each| each.number.to_string()).collect();
        let quota = match self.limits.processors {
            Some(quota) => format!("time of {quota:.2} of them"),
            None => "no quota".into(),
        };
        let memory = match self.limits.memory_bytes {
            Some(bytes) => format!("{} MiB", bytes >> 20),
            None => "no limit".into(),
        };
        format!(
            "processors that may be used: {} ({quota}); {} rings, on {}\n\
             memory that the control group may use: {memory}\n",
            numbers.join(","),
            placement.rings.len(),
            placement.text(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::placement::Pin;

    #[test]
    fn limits_and_places_are_told() {
        let processor = |number| Processor { number, core: (0, number), node: 0 };
        let limits = Limits { processors: Some(1.5), memory_bytes: Some(512 << 20) };
        let processors = vec![processor(1), processor(3)];
        let (is_root, has_ipv6, port_file, sasl_file) = (false, false, None, None);
        let mut host = Host { processors, limits, is_root, has_ipv6, port_file, sasl_file };
        let tell = |host: &Host| {
            let rings = (2, 0);
            host.describe(&Placement::of(&host.processors, &host.limits, Pin::Auto, rings))
        };
        assert_eq!(
            tell(&host),
            "processors that may be used: 1,3 (time of 1.50 of them); 2 rings, on any\n\
             memory that the control group may use: 512 MiB\n"
        );
        host.limits = Limits::default();
        assert!(tell(&host).contains("1,3 (no quota); 2 rings, on 1,3\n"), "{}", tell(&host));
        assert!(tell(&host).ends_with("use: no limit\n"));
    }
}
