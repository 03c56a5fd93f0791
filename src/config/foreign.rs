//! The options of memcached that this server has no use for, or does not have.
//!
//! A unit file that works with memcached should work here: what only tunes memcached's insides is
//! accepted, and said to have no effect. What would change what a client sees, or who may see it,
//! is refused with the reason, because a server that silently ignores it is worse than none.

use super::error::StartError;
use super::extended::Extended;
use super::options::Options;

/// `-n` where it is not given.
const SLAB_MIN_BYTES: u32 = 48;

/// Judges what has no effect as memcached does, and refuses what must not be ignored.
pub(super) fn judge(
    options: &Options,
    item_bytes_max: u64,
    extended: &mut Extended,
) -> Result<(), StartError> {
    let refuse = |option: String, cause: String, remedy: &str| {
        Err(StartError::new("accept", option, cause, remedy))
    };
    if options.enable_ssl {
        let remedy = "Put a TLS proxy in front, or listen on a private address (-l).";
        return refuse("-Z".into(), "there is no TLS".into(), remedy);
    }
    if let Some(file) = &options.memory_file {
        let option = format!("-e {}", file.display());
        let cause = "the cache is not kept over a restart".into();
        return refuse(option, cause, "Leave -e out.");
    }
    if let Some(text) = &options.slab_growth_factor {
        let Some(factor) = text.trim().parse::<f64>().ok().filter(|factor| *factor > 1.0) else {
            let cause = "Factor must be greater than 1".into();
            return refuse(format!("-f {text}"), cause, "Leave -f out: it has no effect.");
        };
        extended.show("growth_factor", format!("{factor:.2}"));
        extended.has_no_effect("-f");
    }
    let chunk_bytes_min = match options.slab_min_size.map(u32::try_from) {
        None => SLAB_MIN_BYTES,
        Some(Ok(bytes @ 1..)) => {
            extended.show("chunk_size", bytes);
            extended.has_no_effect("-n");
            bytes
        }
        Some(Ok(0) | Err(_)) => {
            let cause = "Chunk size must be greater than 0".into();
            return refuse("-n".into(), cause, "Leave -n out: it has no effect.");
        }
    };
    if let Some(ids) = options.napi_ids {
        let threads = options.threads.filter(|threads| ids > *threads);
        let cause = match threads {
            _ if ids <= 0 => "Maximum number of NAPI IDs must be greater than 0".into(),
            Some(threads) => format!(
                "Number of napi_ids({ids}) cannot be greater than number of threads({threads})"
            ),
            None => String::new(),
        };
        if !cause.is_empty() {
            return refuse(format!("-N {ids}"), cause, "Leave -N out: it has no effect.");
        }
        extended.show("num_napi_ids", ids);
        extended.has_no_effect("-N");
    }
    extended.check(item_bytes_max, chunk_bytes_min)
}
