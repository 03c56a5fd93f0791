//! What connections may hold: the options of the throttle, and their check.

use crate::base::limits::IDLE_CONNECTION_BYTES;
use crate::net::throttle::{FLOOR_BYTES_MIN, Throttle};

use super::error::StartError;
use super::options::OWN;
use super::plan::parse_size;

const CONN_BYTES_MIN: u64 = 1 << 20;
/// More than a day is a slip.
const SILENCE_MS_MAX: u32 = 86_400_000;

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = OWN)]
pub struct ThrottleOptions {
    /// Part of -m for connections: their replies and requests that wait [a tenth of -m,
    /// at least 16m, at most 1g, but no more than a quarter]
    #[arg(long, value_name = "SIZE")]
    pub conn_memory: Option<String>,

    /// Percent of it in use from which on connections above their share are not received from
    #[arg(long, value_name = "PERCENT", default_value_t = Throttle::default().park_percent)]
    pub throttle_park: u8,

    /// Percent of it in use from which on nobody is let in and the largest silent peers are closed
    #[arg(long, value_name = "PERCENT", default_value_t = Throttle::default().drop_percent)]
    pub throttle_drop: u8,

    /// Share of a connection, in parts of what each would have of the free memory
    #[arg(long, value_name = "NUM", default_value_t = Throttle::default().share_factor)]
    pub throttle_share: u32,

    /// Bytes that every connection may hold always, with suffix k or m [4k]
    #[arg(long, value_name = "SIZE")]
    pub throttle_floor: Option<String>,

    /// Milliseconds of silence after which a peer may be closed for others
    #[arg(long, value_name = "MS", default_value_t = Throttle::default().silence_ms)]
    pub throttle_silence: u32,

    /// Seconds after which a peer is closed that sends on without reading
    #[arg(long, value_name = "SECONDS", default_value_t = Throttle::default().stall_s)]
    pub stall_timeout: u32,
}

impl ThrottleOptions {
    pub(super) fn check(&self) -> Result<Throttle, StartError> {
        let refuse = |option: String, cause: &str, remedy: &str| {
            Err(StartError::new("accept", option, cause, remedy))
        };
        let (park, drop) = (self.throttle_park, self.throttle_drop);
        if park > drop || drop > 100 {
            let option = format!("--throttle-park {park} --throttle-drop {drop}");
            return refuse(option, "not two percentages in order", "Use 70 and 90, or the like.");
        }
        if self.throttle_share == 0 {
            return refuse("--throttle-share 0".into(), "a share of nothing", "Use 1 or more.");
        }
        if self.stall_timeout == 0 {
            let remedy = "Use 1 or more: who sends on without reading must go some time.";
            return refuse("--stall-timeout 0".into(), "no time at all", remedy);
        }
        if self.throttle_silence > SILENCE_MS_MAX {
            let option = format!("--throttle-silence {}", self.throttle_silence);
            return refuse(option, "more than a day", "Use milliseconds: 2000 is usual.");
        }
        let floor_bytes = match self.throttle_floor.as_deref() {
            None => FLOOR_BYTES_MIN,
            Some(text) => match parse_size("--throttle-floor", text)?.try_into() {
                Ok(bytes) if bytes >= FLOOR_BYTES_MIN => bytes,
                Ok(_) | Err(_) => {
                    let option = format!("--throttle-floor {text}");
                    return refuse(option, "not from 4k to 4g", "Use 4k: it holds any command.");
                }
            },
        };
        Ok(Throttle {
            park_percent: park,
            drop_percent: drop,
            share_factor: self.throttle_share,
            floor_bytes,
            silence_ms: self.throttle_silence,
            stall_s: self.stall_timeout,
        })
    }

    /// Bytes for connections, if the operator says how many.
    pub(super) fn conn_bytes(&self, memory_bytes: u64) -> Result<Option<u64>, StartError> {
        let Some(text) = self.conn_memory.as_deref() else { return Ok(None) };
        let bytes = parse_size("--conn-memory", text)?;
        if (CONN_BYTES_MIN.min(memory_bytes / 2)..=memory_bytes / 2).contains(&bytes) {
            return Ok(Some(bytes));
        }
        let remedy = "Use 1m or more, and at most half of -m.";
        Err(StartError::new("accept", format!("--conn-memory {text}"), "out of range", remedy))
    }
}

/// Says so if so much memory for connections does not do for all that are allowed.
pub(super) fn warn_of_crowd(connections_max: u32, pool_bytes: u64, warnings: &mut Vec<String>) {
    let enough_for = pool_bytes / IDLE_CONNECTION_BYTES;
    if u64::from(connections_max) > enough_for {
        warnings.push(format!(
            "-c {connections_max}, but memory for connections ({} MiB) is enough for {enough_for} \
             idle ones, and hardly more are let in; raise -m or --conn-memory",
            pool_bytes >> 20
        ));
    }
}
