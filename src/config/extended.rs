//! What `-o` asks for: the table of what it may name is in `suboptions`.
//!
//! Values are judged as memcached judges its own, in its words, even where they have no effect: a
//! slip is a slip. What was asked for is what `stats settings` shows; what it has no effect on is
//! said in one warning at start.

use std::fmt::Write;

use super::error::StartError;
use super::suboptions::{Effect, Suboption, TABLE};

const MIB: u64 = 1 << 20;

/// What is shared by slots and pages of memcached, when nothing else is said.
const CHUNK_MAX_BYTES: u64 = 512 << 10;
const SLAB_PAGE_BYTES: u64 = 1 << 20;
const CHUNK_ALIGN_BYTES: u32 = 8;
const CLASSES_MAX: usize = 63;

/// What the `-o` list asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Extended {
    /// 0 is never.
    pub idle_timeout_s: u32,
    /// Whether a connection beyond the limit is told so and closed, or waits for its turn.
    pub maxconns_fast: bool,
    /// Whether what has expired is swept out.
    pub sweeps: bool,
    /// Whether sizes of items are to be counted from the start.
    pub track_sizes: bool,
    /// What waits for a watcher, and what a thread has written that no watcher has yet.
    pub watcher_logbuf_bytes: u32,
    pub worker_logbuf_bytes: u32,
    /// The mark of sockets (`SO_MARK`), by which a firewall knows them.
    pub socket_mark: Option<u32>,
    /// What connections may hold.
    pub(super) read_buffer_bytes: Option<u64>,
    /// Rows of `stats settings` that are as asked for; of one name, the last one holds.
    pub(super) shown: Vec<(&'static str, String)>,
    pub(super) chunk_max_bytes: Option<u64>,
    pub(super) slab_sizes: Option<String>,
    pub(super) hot_percent: i64,
    pub(super) warm_percent: i64,
    pub(super) has_temporary_ttl: bool,
    pub(super) has_maintainer: bool,
    /// Names of what has no effect, each once.
    unused: Vec<String>,
}

impl Default for Extended {
    fn default() -> Extended {
        Extended {
            idle_timeout_s: 0,
            maxconns_fast: true,
            sweeps: true,
            track_sizes: false,
            watcher_logbuf_bytes: 256 << 10,
            worker_logbuf_bytes: 64 << 10,
            socket_mark: None,
            read_buffer_bytes: None,
            shown: Vec::new(),
            chunk_max_bytes: None,
            slab_sizes: None,
            hot_percent: 20,
            warm_percent: 40,
            has_temporary_ttl: false,
            has_maintainer: true,
            unused: Vec::new(),
        }
    }
}

impl Extended {
    /// Reads lists of `NAME` and `NAME=VALUE`.
    pub(super) fn parse(lists: &[String]) -> Result<Extended, StartError> {
        let mut extended = Extended::default();
        let entries = lists.iter().flat_map(|list| list.split(','));
        for entry in entries.filter(|entry| !entry.is_empty()) {
            let (name, value) = match entry.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (entry, None),
            };
            let Some(row) = Suboption::named(name) else {
                let cause = format!("Illegal suboption \"{entry}\"");
                return Err(refusal(entry, cause, "See -h for what there is."));
            };
            let remedy = match row.value {
                "" => format!("Use -o {name}."),
                value => format!("Use -o {name}={value}; see -h for what it means."),
            };
            (row.read)(&mut extended, value).map_err(|cause| refusal(entry, cause, remedy))?;
            match row.effect {
                Effect::Obeyed | Effect::Already => {}
                Effect::Unused => extended.has_no_effect(&format!("-o {}", row.name)),
                Effect::Refused(cause) => return Err(refusal(entry, cause, "Leave it out.")),
            }
        }
        Ok(extended)
    }

    pub(super) fn show(&mut self, row: &'static str, value: impl ToString) {
        self.shown.push((row, value.to_string()));
    }

    /// Remembers what is to be said to have no effect.
    pub(super) fn has_no_effect(&mut self, option: &str) {
        if !self.unused.iter().any(|each| each == option) {
            self.unused.push(option.to_owned());
        }
    }

    /// One line on all that has no effect.
    pub(super) fn warning(&self) -> Option<String> {
        let all = self.unused.join(", ");
        (!all.is_empty())
            .then(|| format!("no effect here, where there is nothing of the kind to tune: {all}"))
    }

    /// Judges what needs more than one option, as memcached does.
    pub(super) fn check(
        &self,
        item_bytes_max: u64,
        chunk_bytes_min: u32,
    ) -> Result<(), StartError> {
        if let Some(chunk) = self.chunk_max_bytes {
            let entry = format!("slab_chunk_max={}", chunk >> 10);
            let refuse = |cause: String| {
                Err(refusal(&entry, cause, "Leave it out: there are no chunks to be sized here."))
            };
            if chunk > item_bytes_max {
                return refuse(format!(
                    "slab_chunk_max (bytes: {chunk}) cannot be larger than -I \
                     (item_size_max {item_bytes_max})"
                ));
            }
            if !item_bytes_max.is_multiple_of(chunk) {
                return refuse(format!(
                    "-I (item_size_max: {item_bytes_max}) must be evenly divisible by \
                     slab_chunk_max (bytes: {chunk})"
                ));
            }
            if !SLAB_PAGE_BYTES.is_multiple_of(chunk) {
                return refuse(format!(
                    "slab_chunk_max (bytes: {chunk}) must divide evenly into {SLAB_PAGE_BYTES} \
                     (slab_page_size)"
                ));
            }
        }
        if let Some(sizes) = &self.slab_sizes {
            let chunk_bytes_max = self.chunk_max_bytes.unwrap_or(CHUNK_MAX_BYTES);
            check_sizes(sizes, chunk_bytes_min, chunk_bytes_max).map_err(|cause| {
                let remedy = "Leave it out: there are no such classes here.";
                refusal(&format!("slab_sizes={sizes}"), cause, remedy)
            })?;
        }
        if self.hot_percent + self.warm_percent > 80 {
            let entry =
                format!("hot_lru_pct={},warm_lru_pct={}", self.hot_percent, self.warm_percent);
            let cause = "hot_lru_pct + warm_lru_pct cannot be more than 80% combined";
            return Err(refusal(&entry, cause, "Leave them out: there are no such lists here."));
        }
        if self.has_temporary_ttl && !self.has_maintainer {
            let cause = "temporary_ttl requires lru_maintainer to be enabled";
            return Err(refusal("temporary_ttl", cause, "Leave it out, or no_lru_maintainer."));
        }
        Ok(())
    }

    /// What connections may hold of `memory_bytes`, if that was said, and whether that is less than
    /// what was said.
    pub(super) fn conn_bytes(&self, memory_bytes: u64) -> Option<(u64, Option<String>)> {
        let asked = self.read_buffer_bytes?;
        let most = memory_bytes / 2;
        let warning = (asked > most).then(|| {
            format!(
                "-o read_buf_mem_limit={} is more than half of -m, of which it is a part here: \
                 connections get {} MiB",
                asked / MIB,
                most / MIB
            )
        });
        Some((asked.min(most), warning))
    }
}

fn refusal(entry: &str, cause: impl ToString, remedy: impl Into<String>) -> StartError {
    StartError::new("accept", format!("-o {entry}"), cause.to_string(), remedy)
}

/// Sizes with dashes in between, each so much more than the one before.
fn check_sizes(text: &str, bytes_min: u32, bytes_max: u64) -> Result<(), String> {
    let mut last = 0;
    for (index, word) in text.split('-').filter(|word| !word.is_empty()).enumerate() {
        let size = word.parse::<u32>().unwrap_or(0);
        if size < bytes_min || u64::from(size) > bytes_max {
            return Err(format!("slab size {size} is out of valid range"));
        }
        if last >= size {
            return Err(format!(
                "slab size {size} cannot be lower than or equal to a previous class size"
            ));
        }
        if size <= last + CHUNK_ALIGN_BYTES {
            return Err(format!(
                "slab size {size} must be at least {CHUNK_ALIGN_BYTES} bytes larger than previous \
                 class"
            ));
        }
        last = size;
        if index + 1 >= CLASSES_MAX {
            return Err("too many slab classes specified".into());
        }
    }
    Ok(())
}

/// The help of `-o`: what it may name, and what that does here.
pub(super) fn help() -> String {
    let mut text = String::from("Extended options, with commas in between, or repeated:");
    for row in TABLE.iter().filter(|row| !row.help.is_empty()) {
        let name = match row.value {
            "" => row.name.to_owned(),
            value => format!("{}={value}", row.name),
        };
        let _ = write!(text, "\n{name:<28} {}", row.help);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Extended, String> {
        let lists: Vec<_> = line.split_whitespace().map(String::from).collect();
        let read = Extended::parse(&lists);
        let read = read.and_then(|each| each.check(MIB, 48).map(|()| each));
        read.map_err(|error| error.to_string())
    }

    fn shown(line: &str) -> Vec<(&'static str, String)> {
        parse(line).unwrap().shown
    }

    #[test]
    fn what_has_an_effect() {
        assert_eq!(parse(""), Ok(Extended::default()));
        let all = "idle_timeout=7,no_maxconns_fast,track_sizes watcher_logbuf_size=1,\
            worker_logbuf_size=2 read_buf_mem_limit=3,sock_cookie_id=5,";
        let all = parse(all).unwrap();
        assert_eq!((all.idle_timeout_s, all.maxconns_fast, all.track_sizes), (7, false, true));
        assert_eq!((all.watcher_logbuf_bytes, all.worker_logbuf_bytes), (1024, 2048));
        assert_eq!((all.socket_mark, all.read_buffer_bytes), (Some(5), Some(3 << 20)));
        assert!(parse("no_maxconns_fast,maxconns_fast").unwrap().maxconns_fast);
        assert!(!parse("no_modern").unwrap().maxconns_fast);
        for (line, sweeps) in
            [("no_lru_crawler", false), ("no_modern", false), ("no_modern,lru_crawler", true)]
        {
            let all = parse(line).unwrap();
            assert_eq!((all.sweeps, all.warning().is_some()), (sweeps, line != "no_lru_crawler"));
        }
        assert_eq!(parse("idle_timeout=60s").unwrap().idle_timeout_s, 60, "as atoi(3) reads it");
    }

    #[test]
    fn what_has_no_effect_is_said_in_one_line() {
        for line in [
            "modern",
            "maxconns_fast,slab_reassign,slab_automove,slab_automove=1,lru_crawler",
            "no_inline_ascii_resp,inline_ascii_resp,relaxed_privileges,no_drop_privileges",
        ] {
            assert_eq!(parse(line).unwrap().warning(), None, "{line}");
        }
        let warning = parse("hashpower=20,lru_maintainer,hashpower=21 slab_automove=2").unwrap();
        let warning = warning.warning().unwrap();
        assert!(
            warning.ends_with(": -o hashpower, -o lru_maintainer, -o slab_automove"),
            "{warning}"
        );
    }

    #[test]
    fn what_was_asked_for_is_shown() {
        for (line, row, value) in [
            ("hashpower=20", "hashpower_init", "20"),
            ("slab_automove=0", "slab_automove", "0"),
            ("slab_automove_ratio=0.5", "slab_automove_ratio", "0.50"),
            ("slab_automove_freeratio=.02", "slab_automove_freeratio", "0.020"),
            ("slab_automove_window=30", "slab_automove_window", "30"),
            ("tail_repair_time=10", "tail_repair_time", "10"),
            ("hash_algorithm=murmur3", "hash_algorithm", "murmur3"),
            ("slab_chunk_max=512", "slab_chunk_max", "524288"),
            ("no_lru_crawler", "lru_crawler", "no"),
            ("lru_crawler_sleep=0", "lru_crawler_sleep", "0"),
            ("lru_crawler_tocrawl=4294967295", "lru_crawler_tocrawl", "4294967295"),
            ("hot_lru_pct=10", "hot_lru_pct", "10"),
            ("warm_lru_pct=60", "warm_lru_pct", "60"),
            ("hot_max_factor=.1", "hot_max_factor", "0.10"),
            ("warm_max_factor=3", "warm_max_factor", "3.00"),
            ("temporary_ttl=5", "temporary_ttl", "5"),
            ("watcher_logbuf_size=1", "watcher_logbuf_size", "1024"),
            ("read_buf_mem_limit=2", "read_buf_mem_limit", "2097152"),
        ] {
            assert!(shown(line).contains(&(row, value.to_owned())), "{line}: {:?}", shown(line));
        }
    }

    /// Each with words of the original's.
    #[test]
    fn what_makes_no_sense_is_refused() {
        for (line, words) in [
            ("xyz", "Illegal suboption \"xyz\""),
            ("ext_path=/x:1g", "flash"),
            ("ext_item_size=512", "flash"),
            ("ssl_key=k", "TLS"),
            ("proxy_config=routelib", "proxy"),
            ("hashpower", "Missing numeric argument for hashpower"),
            ("hashpower=11", "multiplier of 11 is too low"),
            ("hashpower=33", "multiplier of 33 is too high"),
            ("slab_automove=3", "slab_automove must be between 0 and 2"),
            ("slab_automove_ratio=0", "slab_automove_ratio must be > 0 and < 1"),
            ("slab_automove_ratio=1.5", "slab_automove_ratio must be > 0 and < 1"),
            ("slab_automove_ratio", "Missing slab_automove_ratio argument"),
            ("slab_automove_freeratio=x", "could not parse argument to slab_automove_freeratio"),
            ("slab_automove_window=2", "slab_automove_window must be > 2 and < 1800"),
            ("tail_repair_time=9", "less than 10 seconds"),
            ("hash_algorithm=md5", "Unknown hash_algorithm option (jenkins, murmur3, xxh3)"),
            ("hash_algorithm", "Missing hash_algorithm argument"),
            ("lru_crawler_sleep=1000001", "between 0 and 1 second"),
            ("lru_crawler_sleep", "Missing lru_crawler_sleep value"),
            ("lru_crawler_tocrawl=-1", "lru_crawler_tocrawl takes a numeric 32bit value"),
            ("hot_lru_pct=0", "hot_lru_pct must be > 1 and < 80"),
            ("warm_lru_pct=80", "warm_lru_pct must be > 1 and < 80"),
            ("hot_lru_pct=41", "cannot be more than 80% combined"),
            ("hot_max_factor=0", "hot_max_factor must be > 0"),
            ("warm_max_factor", "Missing warm_max_factor argument"),
            ("temporary_ttl=5,no_lru_maintainer", "requires lru_maintainer to be enabled"),
            ("idle_timeout", "Missing numeric argument for idle_timeout"),
            ("idle_timeout=x", "\"x\" is not a number"),
            ("idle_timeout=-1", "out of range"),
            ("slab_chunk_max=0", "slab_chunk_max must be >= 0"),
            ("slab_chunk_max=1025", "slab_chunk_max must be specified in kilobytes"),
            ("slab_chunk_max=x", "could not parse argument to slab_chunk_max"),
            ("slab_chunk_max=3", "must be evenly divisible by slab_chunk_max (bytes: 3072)"),
            ("slab_sizes=40-100", "slab size 40 is out of valid range"),
            ("slab_sizes=100-100", "slab size 100 cannot be lower than or equal to"),
            ("slab_sizes=100-104", "slab size 104 must be at least 8 bytes larger"),
            ("watcher_logbuf_size=1k", "could not parse argument to watcher_logbuf_size"),
            ("read_buf_mem_limit=x", "could not parse argument to read_buf_mem_limit"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(words), "{line}: {error}");
        }
    }

    #[test]
    fn memory_for_connections_is_a_part_of_memory() {
        let bytes = |line: &str| parse(line).unwrap().conn_bytes(64 << 20);
        assert_eq!(bytes(""), None);
        assert_eq!(bytes("read_buf_mem_limit=0"), None, "0 is no limit of its own");
        assert_eq!(bytes("read_buf_mem_limit=8"), Some((8 << 20, None)));
        let (most, warning) = bytes("read_buf_mem_limit=40").unwrap();
        assert!(most == 32 << 20 && warning.unwrap().contains("32 MiB"));
    }

    #[test]
    fn the_readme_names_each() {
        let readme = include_str!("../../README.md");
        for row in TABLE.iter().filter(|row| !row.help.is_empty()) {
            let ways = ["`", "="].map(|end| format!("`{}{end}", row.name));
            assert!(ways.iter().any(|way| readme.contains(way)), "{}", row.name);
        }
    }

    #[test]
    fn the_help_names_each_once() {
        let help = help();
        for row in TABLE.iter().filter(|row| !row.help.is_empty()) {
            let lines = help.lines().filter(|line| {
                let name = line.split([' ', '=']).next();
                name == Some(row.name)
            });
            assert_eq!(lines.count(), 1, "{}", row.name);
        }
    }
}
