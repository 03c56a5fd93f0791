//! What the figures were measured on.

use std::{fmt, fs};

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub kernel: String,
    pub virtualised: bool,
    /// It paces what is sent over loopback too.
    pub congestion_control: String,
}

impl Machine {
    pub fn this() -> Machine {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let sysctl = |name| {
            let text = fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default();
            text.trim().to_owned()
        };
        let flags = field(&info, "flags").unwrap_or_default();
        Machine {
            processor: field(&info, "model name").unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: sysctl("kernel/osrelease"),
            virtualised: flags.split_ascii_whitespace().any(|flag| flag == "hypervisor"),
            congestion_control: sysctl("net/ipv4/tcp_congestion_control"),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.virtualised { " (virtual)" } else { "" };
        write!(f, "{}{kind}, {} cores, Linux {}", self.processor, self.cores, self.kernel)
    }
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        (field.trim() == name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let info = "vendor_id\t: X\nmodel\t\t: 1\nmodel name\t: Fast One\nflags\t\t: a b\n";
        assert_eq!(field(info, "model name"), Some("Fast One"));
        assert_eq!(field(info, "model"), Some("1"));
        assert_eq!(field(info, "bogus"), None);
        assert!(!Machine::this().kernel.is_empty());
    }
}
