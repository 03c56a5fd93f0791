//! Requests in datagrams: what the operator allows them, and its check.

use std::net::SocketAddr;

use super::error::StartError;
use super::listen::Bound;
use super::options::OWN;
use super::plan::parse_size;

/// On loopback nobody else can be made to receive a reply, and the limit only keeps replies whole:
/// a client that sets nothing has a receive buffer of 212,992 bytes, in which a full datagram
/// counts as 2,304. One such reply fits, with room to spare.
const REPLY_BYTES_DEFAULT: usize = 64 << 10;
/// Beyond loopback, whoever forges a source sends somebody else the reply: one datagram.
const REPLY_BYTES_DEFAULT_BEYOND: usize = 1400;
/// Any error fits.
const REPLY_BYTES_MIN: usize = 64;
/// More than any client's buffer takes.
const REPLY_BYTES_MAX: usize = 4 << 20;

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = OWN)]
pub struct DatagramOptions {
    /// Largest reply over UDP, all its datagrams together, with suffix k or m; a larger one is an
    /// error instead [64k, and 1400 beyond loopback]
    #[arg(long, value_name = "SIZE")]
    pub udp_reply_max: Option<String>,

    /// Let -U listen on other addresses than loopback's, where the source of requests may be forged
    #[arg(long)]
    pub udp_beyond_loopback: bool,
}

impl DatagramOptions {
    /// Bytes of the largest reply from these addresses.
    pub(super) fn check(
        &self,
        addresses: &[Bound],
        warnings: &mut Vec<String>,
    ) -> Result<usize, StartError> {
        let mut addresses = addresses.iter().map(|bound| bound.address);
        let beyond = addresses.find(|address| !address.ip().is_loopback());
        let bytes = match (&self.udp_reply_max, beyond) {
            (Some(text), _) => reply_bytes_max(text)?,
            (None, None) => REPLY_BYTES_DEFAULT,
            (None, Some(_)) => REPLY_BYTES_DEFAULT_BEYOND,
        };
        match beyond {
            Some(address) if !self.udp_beyond_loopback => return Err(refused(address)),
            Some(address) => warnings.push(format!(
                "udp {address} answers whoever forges the source of a request with up to {bytes} \
                 bytes to that source: let only known clients reach it"
            )),
            None => {}
        }
        Ok(bytes)
    }
}

fn refused(address: SocketAddr) -> StartError {
    let cause = "beyond loopback, replies to forged requests amplify attacks on others";
    let remedy = "Add -l 127.0.0.1; or leave -U out: clients reach everything over TCP; or, behind \
        a firewall, add --udp-beyond-loopback.";
    StartError::new("listen on", format!("udp {address}"), cause, remedy)
}

fn reply_bytes_max(text: &str) -> Result<usize, StartError> {
    let bytes = parse_size("--udp-reply-max", text)?;
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    if (REPLY_BYTES_MIN..=REPLY_BYTES_MAX).contains(&bytes) {
        return Ok(bytes);
    }
    let cause = format!("not from {REPLY_BYTES_MIN} bytes to 4m");
    let remedy = "Use 1400, which is one datagram, or as much as clients can receive at a time.";
    Err(StartError::new("accept", format!("--udp-reply-max {text}"), cause, remedy))
}

#[cfg(test)]
mod tests {
    use crate::config::Plan;

    fn plan(line: &str) -> Result<Plan, String> {
        let words: Vec<_> = line.split_whitespace().collect();
        Plan::parse(&words).map_err(|error| error.to_string())
    }

    fn warnings_of_udp(plan: &Plan) -> Vec<&String> {
        plan.warnings.iter().filter(|warning| warning.starts_with("udp ")).collect()
    }

    #[test]
    fn loopback_is_left_only_when_that_is_asked_for_twice() {
        for line in ["-U 5", "-U 5 -l 192.0.2.1", "-U 5 -l 127.0.0.1,192.0.2.1", "-U 5 -l ::"] {
            let error = plan(line).expect_err(line);
            assert!(
                error.contains("amplify") && error.contains("--udp-beyond-loopback"),
                "{error}"
            );
            let plan = plan(&format!("{line} --udp-beyond-loopback")).unwrap();
            assert_eq!(plan.udp_reply_bytes_max, 1400, "{line}");
            assert!(warnings_of_udp(&plan)[0].contains("1400 bytes"), "{:?}", plan.warnings);
        }
        for line in ["", "-U 0", "--udp-beyond-loopback", "-U 5 -l 127.3.2.1,[::1]:7", "-U 5 -s x"]
        {
            let plan = plan(line).expect(line);
            assert_eq!((plan.udp_reply_bytes_max, warnings_of_udp(&plan).len()), (64 << 10, 0));
        }
    }

    #[test]
    fn the_operator_sets_the_limit_of_a_reply() {
        let limit = |text: &str| {
            plan(&format!("-U 5 -l 127.0.0.1 --udp-reply-max {text}"))
                .map(|plan| plan.udp_reply_bytes_max)
        };
        assert_eq!((limit("64"), limit("16k"), limit("4m")), (Ok(64), Ok(16 << 10), Ok(4 << 20)));
        for text in ["0", "63", "5m", "-1", "x", "1400b"] {
            assert!(limit(text).is_err(), "{text}");
        }
        let given = plan("-U 5 -l 192.0.2.1 --udp-beyond-loopback --udp-reply-max 8k").unwrap();
        assert!(warnings_of_udp(&given)[0].contains("8192 bytes"));
    }
}
