//! The options of memcached that this server has no use for, or does not have.
//!
//! A unit file that works with memcached should work here: what only tunes memcached's insides is
//! accepted with a warning. What would change what a client sees, or who may see it, is refused
//! with the reason, because a server that silently ignores it is worse than none.

use super::error::StartError;

/// Hidden from the help, which shows what there is.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Foreign {
    #[arg(short = 'd', long = "daemon", hide = true)]
    daemon: bool,
    #[arg(short = 'P', long = "pidfile", hide = true)]
    pidfile: Option<String>,
    #[arg(short = 'r', long = "enable-coredumps", hide = true)]
    enable_coredumps: bool,
    #[arg(short = 'f', long = "slab-growth-factor", hide = true)]
    slab_growth_factor: Option<String>,
    #[arg(short = 'n', long = "slab-min-size", hide = true)]
    slab_min_size: Option<String>,
    #[arg(short = 'L', long = "enable-largepages", hide = true)]
    enable_largepages: bool,
    #[arg(short = 'e', long = "memory-file", hide = true)]
    memory_file: Option<String>,
    #[arg(short = 'Z', long = "enable-ssl", hide = true)]
    enable_ssl: bool,
    #[arg(short = 'N', long = "napi_ids", hide = true)]
    napi_ids: Option<String>,
}

/// What `-o` may name. Those that only tune memcached's allocator, LRU and log are ignored.
const TUNING: &[&str] = &[
    "maxconns_fast",
    "no_maxconns_fast",
    "hashpower",
    "no_hashexpand",
    "slab_reassign",
    "no_slab_reassign",
    "slab_automove",
    "slab_automove_ratio",
    "slab_automove_window",
    "slab_automove_freeratio",
    "tail_repair_time",
    "hash_algorithm",
    "slab_sizes",
    "slab_chunk_max",
    "track_sizes",
    "no_chunked_items",
    "lru_crawler",
    "no_lru_crawler",
    "lru_crawler_sleep",
    "lru_crawler_tocrawl",
    "lru_maintainer",
    "no_lru_maintainer",
    "hot_lru_pct",
    "warm_lru_pct",
    "hot_max_factor",
    "warm_max_factor",
    "temporary_ttl",
    "watcher_logbuf_size",
    "worker_logbuf_size",
    "read_buf_mem_limit",
    "resp_obj_mem_limit",
    "modern",
    "no_modern",
    "inline_ascii_resp",
    "no_inline_ascii_resp",
    "drop_privileges",
    "no_drop_privileges",
    "relaxed_privileges",
    "sock_cookie_id",
];

/// Families of `-o` that change what clients get: refused.
const REFUSED: &[&str] = &["ssl_", "ext_", "proxy_"];

impl Foreign {
    /// Refuses what must not be ignored; adds a line to `warnings` for what is ignored.
    pub(super) fn judge(&self, warnings: &mut Vec<String>) -> Result<(), StartError> {
        for (given, option, cause, remedy) in self.refusals() {
            if given {
                return Err(StartError::new("accept", option, cause, remedy));
            }
        }
        for (given, option) in [
            (self.slab_growth_factor.is_some(), "-f"),
            (self.slab_min_size.is_some(), "-n"),
            (self.enable_largepages, "-L"),
            (self.enable_coredumps, "-r"),
            (self.napi_ids.is_some(), "-N"),
        ] {
            if given {
                warnings.push(format!("{option} has no effect here and is ignored"));
            }
        }
        Ok(())
    }

    fn refusals(&self) -> [(bool, &'static str, &'static str, &'static str); 4] {
        [
            (
                self.daemon,
                "-d",
                "ringcached does not put itself into the background",
                "Leave -d out and let systemd run it (systemd/ringcached.service).",
            ),
            (
                self.pidfile.is_some(),
                "-P",
                "ringcached writes no PID file",
                "Leave -P out; systemd knows the PID (systemctl show -p MainPID ringcached).",
            ),
            (
                self.enable_ssl,
                "-Z",
                "there is no TLS yet",
                "Put a TLS proxy in front, or listen on a private address (-l).",
            ),
            (
                self.memory_file.is_some(),
                "-e",
                "the cache is not kept over a restart yet",
                "Leave -e out.",
            ),
        ]
    }
}

/// What the `-o` list asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extended {
    pub(super) idle_timeout_s: u32,
}

impl Extended {
    pub(super) fn parse(
        list: &[String],
        warnings: &mut Vec<String>,
    ) -> Result<Extended, StartError> {
        let mut extended = Extended::default();
        for entry in list.iter().filter(|entry| !entry.is_empty()) {
            let (name, value) = match entry.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (entry.as_str(), None),
            };
            if name == "idle_timeout" {
                extended.idle_timeout_s =
                    value.and_then(|text| text.parse().ok()).ok_or_else(|| {
                        let remedy = "Use -o idle_timeout=SECONDS; 0 is off.";
                        StartError::new("accept", format!("-o {entry}"), "not a number", remedy)
                    })?;
            } else if REFUSED.iter().any(|family| name.starts_with(family)) {
                return Err(StartError::new(
                    "accept",
                    format!("-o {entry}"),
                    "TLS, storage on flash and the proxy are not part of ringcached",
                    "Leave it out.",
                ));
            } else if TUNING.contains(&name) {
                warnings.push(format!("-o {name} has no effect here and is ignored"));
            } else {
                warnings.push(format!("-o {name} is unknown and is ignored"));
            }
        }
        Ok(extended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extended(list: &[&str]) -> (Result<Extended, StartError>, Vec<String>) {
        let mut warnings = Vec::new();
        let list: Vec<_> = list.iter().map(ToString::to_string).collect();
        (Extended::parse(&list, &mut warnings), warnings)
    }

    #[test]
    fn tuning_is_ignored_aloud() {
        let (parsed, warnings) =
            extended(&["idle_timeout=7", "lru_crawler", "hashpower=20", "xyz"]);
        assert_eq!(parsed.unwrap().idle_timeout_s, 7);
        assert_eq!(warnings.len(), 3);
        assert!(warnings[2].contains("xyz is unknown"));
    }

    #[test]
    fn what_changes_the_service_is_refused() {
        for entry in
            ["ssl_key=k", "ext_path=/x:1g", "proxy_config=x", "idle_timeout", "idle_timeout=-1"]
        {
            assert!(extended(&[entry]).0.is_err(), "{entry}");
        }
    }
}
