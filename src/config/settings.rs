//! The rows of `stats settings`, in memcached's order.
//!
//! A setting of memcached's that this server does not have is shown as what is true here: there are
//! no LRU lists, so `lru_segmented` is "no", but what has expired is swept out, so `lru_crawler` is
//! "yes". Exporters need the row, not the feature. What was asked for on the command line is shown
//! as it was asked for: who compares the rows with a unit file finds them equal, and what has no
//! effect was said at start. What changes while the server runs is put into its row when it is
//! read.

use std::path::PathBuf;

use super::listen::UnixListener;
use super::plan::Plan;
use crate::store;
use crate::sys::ladder::Rung;

fn yes_no(value: bool) -> String {
    if value { "yes" } else { "no" }.into()
}

impl Plan {
    /// The rows, where the rings receive by `rung`. `verbosity` changes while the server runs; here
    /// it is as started.
    pub fn settings(&self, rung: Rung) -> Vec<(&'static str, String)> {
        let mut rows = self.own_settings();
        rows.extend([
            ("receive", rung.mode.name().to_owned()),
            ("receive_cap", rung.cap_bytes.to_string()),
            ("min_wait", rung.min_wait_us.to_string()),
            ("send_zero_copy", rung.zero_copy_bytes.to_string()),
        ]);
        rows.extend(FIXED.iter().map(|(name, value)| (*name, (*value).to_owned())));
        for (name, value) in &self.extended.shown {
            match rows.iter_mut().find(|(each, _)| each == name) {
                Some((_, shown)) => shown.clone_from(value),
                None => rows.push((*name, value.clone())),
            }
        }
        let place = |name: &str| ORDER.iter().position(|each| *each == name);
        rows.sort_by_key(|(name, _)| place(name));
        rows
    }

    fn own_settings(&self) -> Vec<(&'static str, String)> {
        let unix = self.listeners.unix.as_ref();
        let port = |port: Option<u16>| port.unwrap_or(0).to_string();
        let path = |path: &PathBuf| path.display().to_string();
        let domain_socket = |unix: &UnixListener| path(&unix.path);
        let interfaces = self.interfaces.clone();
        let auth = self.auth.as_ref();
        let ascii = auth.filter(|auth| auth.ascii);
        vec![
            ("maxbytes", self.memory_bytes.to_string()),
            ("maxconns", self.connections_max.to_string()),
            ("tcpport", port(self.tcp_port)),
            ("udpport", port(self.udp_port)),
            ("inter", interfaces.unwrap_or_else(|| "NULL".into())),
            ("verbosity", self.verbosity.to_string()),
            ("evictions", if self.evict { "on" } else { "off" }.into()),
            ("domain_socket", unix.map_or_else(|| "NULL".into(), domain_socket)),
            ("umask", format!("{:o}", unix.map_or(0o700, |unix| unix.mask))),
            ("shutdown_command", yes_no(self.shutdown_enabled)),
            ("num_threads", self.rings.to_string()),
            ("num_threads_per_udp", "1".into()),
            ("stat_key_prefix", char::from(self.prefix_delimiter).to_string()),
            ("detail_enabled", yes_no(self.detail_enabled)),
            ("cas_enabled", yes_no(self.cas_enabled)),
            ("binding_protocol", self.protocol.name().into()),
            ("auth_enabled_sasl", yes_no(auth.is_some_and(|auth| auth.sasl))),
            ("auth_enabled_ascii", ascii.map_or_else(|| "no".into(), |auth| path(&auth.file))),
            ("flush_enabled", yes_no(self.flush_enabled)),
            ("dump_enabled", yes_no(self.dumping_enabled)),
            ("reqs_per_event", self.requests_per_event.to_string()),
            ("tcp_backlog", self.backlog.to_string()),
            ("item_size_max", self.item_bytes_max.to_string()),
            ("maxconns_fast", yes_no(self.extended.maxconns_fast)),
            ("slab_chunk_max", store::slot_bytes_max(self.memory_bytes).to_string()),
            ("idle_timeout", self.extended.idle_timeout_s.to_string()),
            ("favor", self.favor.name().into()),
            ("dispatch", self.dispatch.name().into()),
            ("num_workers", self.workers.to_string()),
            ("pin", self.pin.name().into()),
            ("ring_cpus", self.placement.text()),
            ("conn_memory", store::lendable_bytes(self.memory_bytes, self.conn_bytes).to_string()),
            ("throttle_park", self.throttle.park_percent.to_string()),
            ("throttle_drop", self.throttle.drop_percent.to_string()),
            ("throttle_share", self.throttle.share_factor.to_string()),
            ("throttle_floor", self.throttle.floor_bytes.to_string()),
            ("throttle_silence", self.throttle.silence_ms.to_string()),
            ("stall_timeout", self.throttle.stall_s.to_string()),
            ("peer_requests", self.rate.requests_per_s.to_string()),
            ("peer_bytes", self.rate.bytes_per_s.to_string()),
            ("peer_burst", self.rate.burst_ms.to_string()),
            ("udp_reply_max", self.udp_reply_bytes_max.to_string()),
        ]
    }
}

/// Rows that no option changes.
const FIXED: &[(&str, &str)] = &[
    ("oldest", "0"),
    // Eight size classes a doubling, on average.
    ("growth_factor", "1.09"),
    // Key and value of the smallest slot.
    ("chunk_size", "8"),
    ("hashpower_init", "0"),
    ("slab_reassign", "yes"),
    ("slab_automove", "1"),
    // A class loses a page to one that makes a quarter more of its own, whenever that evicts.
    ("slab_automove_ratio", "0.80"),
    ("slab_automove_window", "0"),
    // The sweep: microseconds between two of its turns, each of which looks at a few pages.
    ("lru_crawler", "yes"),
    ("lru_crawler_sleep", "100000"),
    ("lru_crawler_tocrawl", "0"),
    ("tail_repair_time", "0"),
    ("hash_algorithm", "rapidhash"),
    ("lru_maintainer_thread", "no"),
    ("lru_segmented", "no"),
    ("hot_lru_pct", "0"),
    ("warm_lru_pct", "0"),
    ("hot_max_factor", "0.00"),
    ("warm_max_factor", "0.00"),
    ("temp_lru", "no"),
    ("temporary_ttl", "0"),
    // Bytes of lines that wait for one who watches.
    ("watcher_logbuf_size", "262144"),
    ("worker_logbuf_size", "0"),
    ("read_buf_mem_limit", "0"),
    ("track_sizes", "no"),
    ("inline_ascii_response", "no"),
    // A filter of system calls; the systemd unit has one.
    ("drop_privileges", "no"),
    // A tenth of the pages is on probation, and none is kept free.
    ("slab_automove_freeratio", "0.000"),
    // Of storage behind the memory, which is not there: as where nobody chose any.
    ("ext_item_size", "512"),
    ("ext_item_age", "4294967295"),
    ("ext_low_ttl", "0"),
    ("ext_recache_rate", "2000"),
    ("ext_wbuf_size", "4194304"),
    ("ext_compact_under", "0"),
    ("ext_drop_under", "0"),
    ("ext_max_sleep", "1000000"),
    ("ext_max_frag", "0.80"),
    ("ext_drop_unread", "no"),
    ("num_napi_ids", "0"),
    ("memory_file", "(null)"),
    ("client_flags_size", "4"),
];

/// The order of memcached 1.6, with ours at the end.
const ORDER: &[&str] = &[
    "maxbytes",
    "maxconns",
    "tcpport",
    "udpport",
    "inter",
    "verbosity",
    "oldest",
    "evictions",
    "domain_socket",
    "umask",
    "shutdown_command",
    "growth_factor",
    "chunk_size",
    "num_threads",
    "num_threads_per_udp",
    "stat_key_prefix",
    "detail_enabled",
    "reqs_per_event",
    "cas_enabled",
    "tcp_backlog",
    "binding_protocol",
    "auth_enabled_sasl",
    "auth_enabled_ascii",
    "item_size_max",
    "maxconns_fast",
    "hashpower_init",
    "slab_reassign",
    "slab_automove",
    "slab_automove_ratio",
    "slab_automove_window",
    "slab_chunk_max",
    "lru_crawler",
    "lru_crawler_sleep",
    "lru_crawler_tocrawl",
    "tail_repair_time",
    "flush_enabled",
    "dump_enabled",
    "hash_algorithm",
    "lru_maintainer_thread",
    "lru_segmented",
    "hot_lru_pct",
    "warm_lru_pct",
    "hot_max_factor",
    "warm_max_factor",
    "temp_lru",
    "temporary_ttl",
    "idle_timeout",
    "watcher_logbuf_size",
    "worker_logbuf_size",
    "read_buf_mem_limit",
    "track_sizes",
    "inline_ascii_response",
    "drop_privileges",
    "ext_item_size",
    "ext_item_age",
    "ext_low_ttl",
    "ext_recache_rate",
    "ext_wbuf_size",
    "ext_compact_under",
    "ext_drop_under",
    "ext_max_sleep",
    "ext_max_frag",
    "slab_automove_freeratio",
    "ext_drop_unread",
    "num_napi_ids",
    "memory_file",
    "client_flags_size",
    "favor",
    "dispatch",
    "num_workers",
    "pin",
    "ring_cpus",
    "conn_memory",
    "throttle_park",
    "throttle_drop",
    "throttle_share",
    "throttle_floor",
    "throttle_silence",
    "stall_timeout",
    "peer_requests",
    "peer_bytes",
    "peer_burst",
    "udp_reply_max",
    "receive",
    "receive_cap",
    "min_wait",
    "send_zero_copy",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_once_and_in_order() {
        let plan =
            Plan::parse(&["-p", "0", "-U", "7", "-l", "127.0.0.1", "-m", "2", "-A"]).unwrap();
        let rows = plan.settings(Rung::LOWEST);
        let names: Vec<_> = rows.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ORDER);
        let value = |name| &rows.iter().find(|(each, _)| *each == name).unwrap().1;
        assert_eq!(value("maxbytes"), "2097152");
        assert_eq!((value("tcpport").as_str(), value("udpport").as_str()), ("0", "7"));
        assert_eq!(value("inter"), "127.0.0.1");
        assert_eq!(value("umask"), "700");
        assert_eq!(value("shutdown_command"), "yes");
        assert_eq!((value("receive").as_str(), value("min_wait").as_str()), ("multishot", "0"));
        assert_eq!(value("slab_chunk_max"), "4096", "an eighth of a page of 32 KiB");
        assert!(rows.iter().all(|(_, value)| !value.contains([' ', '\r', '\n'])));
    }

    #[test]
    fn what_was_asked_for_is_shown() {
        let words = ["-f", "1.5", "-n", "64", "-C", "-D", "/", "-o", "hashpower=20,no_modern"];
        let rows = Plan::parse(&words).unwrap().settings(Rung::LOWEST);
        let names: Vec<_> = rows.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ORDER, "no row twice");
        let value = |name| rows.iter().find(|(each, _)| *each == name).unwrap().1.as_str();
        assert_eq!((value("growth_factor"), value("chunk_size")), ("1.50", "64"));
        assert_eq!((value("cas_enabled"), value("stat_key_prefix")), ("no", "/"));
        assert_eq!((value("hashpower_init"), value("maxconns_fast")), ("20", "no"));
        assert_eq!((value("slab_automove"), value("hash_algorithm")), ("0", "jenkins"));
    }
}
