//! What one peer address may have: the options of the limits, and their check.

use std::net::IpAddr;

use crate::net::rate::{BURST_MS_MIN, EXEMPT_MAX, Prefix, RateLimits};

use super::error::StartError;
use super::options::OWN;
use super::plan::parse_size;

/// More than an hour is a slip.
const BURST_MS_MAX: u32 = 3_600_000;

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = OWN)]
pub struct RateOptions {
    /// Requests a second of one peer address, keys of a list each; who asks for more waits
    /// [0, no limit]
    #[arg(long, value_name = "NUM", default_value_t = 0, hide_default_value = true)]
    pub peer_requests: u64,

    /// Bytes a second received from and sent to one peer address, with suffix k, m or g
    /// [0, no limit]
    #[arg(long, value_name = "SIZE")]
    pub peer_bytes: Option<String>,

    /// Milliseconds for which a peer address may save up what it does not use of that
    #[arg(long, value_name = "MS", default_value_t = RateLimits::default().burst_ms)]
    pub peer_burst: u32,

    /// Addresses without these limits: ADDR or ADDR/BITS; use commas, at most eight
    #[arg(long, value_name = "LIST")]
    pub peer_exempt: Option<String>,
}

impl RateOptions {
    pub(super) fn check(&self) -> Result<RateLimits, StartError> {
        let bytes_per_s = match self.peer_bytes.as_deref() {
            Some(text) => parse_size("--peer-bytes", text)?,
            None => 0,
        };
        if !(BURST_MS_MIN..=BURST_MS_MAX).contains(&self.peer_burst) {
            let option = format!("--peer-burst {}", self.peer_burst);
            let cause = format!("not from {BURST_MS_MIN} to {BURST_MS_MAX}");
            let remedy = "Use milliseconds: 1000 is usual.";
            return Err(StartError::new("accept", option, cause, remedy));
        }
        Ok(RateLimits {
            requests_per_s: self.peer_requests,
            bytes_per_s,
            burst_ms: self.peer_burst,
            exempt: exempt(self.peer_exempt.as_deref().unwrap_or_default())?,
        })
    }
}

fn exempt(list: &str) -> Result<[Option<Prefix>; EXEMPT_MAX], StartError> {
    let refuse = |cause: &str| {
        let option = format!("--peer-exempt {list}");
        let remedy = "Use 10.0.0.0/8,127.0.0.1 or the like.";
        StartError::new("accept", option, cause, remedy)
    };
    let mut exempt = [None; EXEMPT_MAX];
    for (number, text) in list.split(',').filter(|text| !text.is_empty()).enumerate() {
        let place = exempt.get_mut(number).ok_or_else(|| refuse("more than eight"))?;
        let prefix = prefix(text).ok_or_else(|| refuse("not addresses, or prefixes of some"))?;
        *place = Some(prefix);
    }
    Ok(exempt)
}

fn prefix(text: &str) -> Option<Prefix> {
    let (address, len) = match text.split_once('/') {
        Some((address, len)) => (address, Some(len.parse().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    Prefix::new(address, len.unwrap_or(most))
}

#[cfg(test)]
mod tests {
    use crate::config::Plan;
    use crate::net::rate::RateLimits;

    fn limits(line: &str) -> Result<RateLimits, String> {
        let words: Vec<_> = line.split_whitespace().collect();
        Plan::parse(&words).map(|plan| plan.rate).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_limited_unless_it_is_asked_for() {
        assert_eq!(limits("").unwrap(), RateLimits::default());
        assert!(!limits("--peer-burst 50 --peer-exempt ::1").unwrap().is_on());
        let given = limits("--peer-requests 100 --peer-bytes 2m --peer-burst 250").unwrap();
        assert_eq!((given.requests_per_s, given.bytes_per_s), (100, 2 << 20));
        assert_eq!((given.burst_ms, given.is_on()), (250, true));
    }

    #[test]
    fn who_is_exempt() {
        let given = limits("--peer-exempt 10.0.0.0/8,127.0.0.1,2001:db8::/32,::1").unwrap();
        let is_exempt = |address: &str| {
            let address = address.parse().unwrap();
            given.exempt.iter().flatten().any(|prefix| prefix.contains(address))
        };
        for (address, expected) in [
            ("10.255.0.1", true),
            ("11.0.0.1", false),
            ("127.0.0.1", true),
            ("127.0.0.2", false),
            ("2001:db8:1::1", true),
            ("::1", true),
            ("::2", false),
        ] {
            assert_eq!(is_exempt(address), expected, "{address}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for line in [
            "--peer-burst 19",
            "--peer-burst 3600001",
            "--peer-bytes 5x",
            "--peer-exempt 10.0.0.0/33",
            "--peer-exempt 10.0.0.0/",
            "--peer-exempt localhost",
            "--peer-exempt 1.1.1.1,1.1.1.2,1.1.1.3,1.1.1.4,1.1.1.5,1.1.1.6,1.1.1.7,1.1.1.8,1.1.1.9",
        ] {
            let error = limits(line).expect_err(line);
            assert!(error.contains("--peer-"), "{line}: {error}");
        }
    }
}
