//! The table of what `-o` may name: it reads the values, and makes the help.
//!
//! The order is that of memcached's help. Texts in `Err` are memcached's.

use super::extended::Extended;

/// What comes of a suboption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It does what it does in memcached.
    Obeyed,
    /// It asks for what is so in any case.
    Already,
    /// It tunes what is not here.
    Unused,
    /// It asks for what would be missed if it were silently not here.
    Refused(&'static str),
}

use Effect::{Already, Obeyed, Refused, Unused};

/// Reads a value, if there is one; the error says what is wrong with it.
type Read = fn(&mut Extended, Option<&str>) -> Result<(), String>;

pub(super) struct Suboption {
    pub(super) name: &'static str,
    /// What stands for its value in the help; empty when it takes none.
    pub(super) value: &'static str,
    pub(super) effect: Effect,
    /// Empty for what the help does not show.
    pub(super) help: &'static str,
    pub(super) read: Read,
}

impl Suboption {
    /// By its whole name; of what is refused, by the start of it.
    pub(super) fn named(name: &str) -> Option<&'static Suboption> {
        let is_it = |row: &&Suboption| match row.effect {
            Refused(_) => name.starts_with(row.name.trim_end_matches('*')),
            Obeyed | Already | Unused => row.name == name,
        };
        TABLE.iter().find(is_it)
    }
}

const fn row(
    name: &'static str,
    value: &'static str,
    effect: Effect,
    help: &'static str,
    read: Read,
) -> Suboption {
    Suboption { name, value, effect, help, read }
}

/// Of what says all by its name.
const NOTHING: Read = |_, _| Ok(());

const LRU_HELP: &str = "No effect: there are no LRU lists, see --favor";

pub(super) const TABLE: &[Suboption] = &[
    row("maxconns_fast", "", Obeyed, "Close connections beyond -c [so it is]", |all, _| {
        all.maxconns_fast = true;
        Ok(())
    }),
    row("no_maxconns_fast", "", Obeyed, "Let connections beyond -c wait for a place", |all, _| {
        all.maxconns_fast = false;
        Ok(())
    }),
    row("hashpower", "NUM", Unused, "No effect: the index grows by itself", |all, value| {
        let power = number(value, "Missing numeric argument for hashpower")?;
        if power < 12 {
            return Err(format!("Initial hashtable multiplier of {power} is too low"));
        }
        if power > 32 {
            return Err(format!("Initial hashtable multiplier of {power} is too high"));
        }
        all.show("hashpower_init", power);
        Ok(())
    }),
    row("no_hashexpand", "", Unused, "", NOTHING),
    row("tail_repair_time", "SECONDS", Unused, "No effect", |all, value| {
        let seconds = number(value, "Missing numeric argument for tail_repair_time")?;
        if seconds < 10 {
            return Err("Cannot set tail_repair_time to less than 10 seconds".into());
        }
        all.show("tail_repair_time", seconds);
        Ok(())
    }),
    row("hash_algorithm", "NAME", Unused, "No effect: it is rapidhash", |all, value| {
        let name = value.ok_or("Missing hash_algorithm argument")?;
        if !["jenkins", "murmur3", "xxh3"].contains(&name) {
            return Err("Unknown hash_algorithm option (jenkins, murmur3, xxh3)".into());
        }
        all.show("hash_algorithm", name);
        Ok(())
    }),
    row("lru_crawler", "", Already, "Sweep out what has expired [so it is]", |all, _| {
        crawled(all, true);
        Ok(())
    }),
    row("no_lru_crawler", "", Obeyed, "Leave it until it is asked for or makes room", |all, _| {
        crawled(all, false);
        Ok(())
    }),
    row("lru_crawler_sleep", "US", Unused, "No effect", |all, value| {
        let micros = number(value, "Missing lru_crawler_sleep value")?;
        if !(0..=1_000_000).contains(&micros) {
            return Err("LRU crawler sleep must be between 0 and 1 second".into());
        }
        all.show("lru_crawler_sleep", micros);
        Ok(())
    }),
    row("lru_crawler_tocrawl", "NUM", Unused, "No effect", |all, value| {
        let value = value.ok_or("Missing lru_crawler_tocrawl value")?;
        let wrong = "lru_crawler_tocrawl takes a numeric 32bit value";
        let items = value.parse::<u32>().map_err(|_| wrong)?;
        all.show("lru_crawler_tocrawl", items);
        Ok(())
    }),
    row(
        "read_buf_mem_limit",
        "MIB",
        Obeyed,
        "Memory for connections, a part of -m: see --conn-memory",
        |all, value| {
            let mib = whole("read_buf_mem_limit", value)?;
            all.read_buffer_bytes = (mib > 0).then_some(u64::from(mib) << 20);
            all.show("read_buf_mem_limit", u64::from(mib) << 20);
            Ok(())
        },
    ),
    row("resp_obj_mem_limit", "MIB", Unused, "", NOTHING),
    row("lru_maintainer", "", Unused, LRU_HELP, |all, _| maintained(all, true)),
    row("no_lru_maintainer", "", Unused, LRU_HELP, |all, _| maintained(all, false)),
    row("hot_lru_pct", "PERCENT", Unused, LRU_HELP, |all, value| {
        all.hot_percent = percent(all, "hot_lru_pct", value)?;
        Ok(())
    }),
    row("warm_lru_pct", "PERCENT", Unused, LRU_HELP, |all, value| {
        all.warm_percent = percent(all, "warm_lru_pct", value)?;
        Ok(())
    }),
    row("hot_max_factor", "NUM", Unused, LRU_HELP, |all, value| {
        factor(all, "hot_max_factor", value)
    }),
    row("warm_max_factor", "NUM", Unused, LRU_HELP, |all, value| {
        factor(all, "warm_max_factor", value)
    }),
    row("temporary_ttl", "SECONDS", Unused, LRU_HELP, |all, value| {
        let seconds = number(value, "Missing temporary_ttl argument")?;
        all.has_temporary_ttl = true;
        all.show("temp_lru", "yes");
        all.show("temporary_ttl", in_range(seconds)?);
        Ok(())
    }),
    row("idle_timeout", "SECONDS", Obeyed, "Close connections that are silent [0, off]", idle),
    row("slab_reassign", "", Already, "Let pages follow their use [so it is]", |all, _| {
        all.show("slab_reassign", "yes");
        Ok(())
    }),
    row("no_slab_reassign", "", Unused, "No effect: they do in any case", |all, _| {
        all.show("slab_reassign", "no");
        Ok(())
    }),
    row("slab_automove", "[0|1|2]", Already, "The same; what it is given has no effect", automove),
    row("no_slab_automove", "", Unused, "", |all, _| {
        all.show("slab_automove", 0);
        Ok(())
    }),
    row("slab_automove_ratio", "NUM", Unused, "No effect", |all, value| {
        let ratio = real(value, "Missing slab_automove_ratio argument")?;
        if ratio <= 0.0 || ratio > 1.0 {
            return Err("slab_automove_ratio must be > 0 and < 1".into());
        }
        all.show("slab_automove_ratio", format!("{ratio:.2}"));
        Ok(())
    }),
    row("slab_automove_window", "NUM", Unused, "No effect", |all, value| {
        let window = number(value, "Missing slab_automove_window argument")?;
        if !(3..=1800).contains(&window) {
            return Err("slab_automove_window must be > 2 and < 1800".into());
        }
        all.show("slab_automove_window", window);
        Ok(())
    }),
    row("slab_automove_freeratio", "NUM", Unused, "No effect", |all, value| {
        let value = value.ok_or("Missing slab_automove_freeratio argument")?;
        let wrong = "could not parse argument to slab_automove_freeratio";
        let ratio = value.parse::<f64>().map_err(|_| wrong)?;
        all.show("slab_automove_freeratio", format!("{ratio:.3}"));
        Ok(())
    }),
    row("slab_chunk_max", "KIB", Unused, "No effect: there is no such limit", chunk_max),
    row("slab_sizes", "NUM-NUM-...", Unused, "No effect: size classes are what they are", sizes),
    row("no_chunked_items", "", Unused, "", |all, _| {
        all.show("slab_chunk_max", 1 << 20);
        Ok(())
    }),
    row("watcher_logbuf_size", "KIB", Unused, "No effect", |all, value| {
        all.watcher_logbuf_bytes = kib(all, "watcher_logbuf_size", value)?;
        Ok(())
    }),
    row("worker_logbuf_size", "KIB", Unused, "No effect", |all, value| {
        all.worker_logbuf_bytes = kib(all, "worker_logbuf_size", value)?;
        Ok(())
    }),
    row(
        "track_sizes",
        "",
        Obeyed,
        "stats sizes tells how many items there are of each size",
        |all, _| {
            all.track_sizes = true;
            Ok(())
        },
    ),
    row("modern", "", Already, "What is modern is so in any case", NOTHING),
    row("no_modern", "", Unused, "As no_maxconns_fast and no_lru_crawler", no_modern),
    row("inline_ascii_resp", "", Already, "", NOTHING),
    row("no_inline_ascii_resp", "", Already, "", NOTHING),
    row(
        "sock_cookie_id",
        "NUM",
        Obeyed,
        "Mark of the sockets, for firewalls (SO_MARK)",
        |all, value| {
            all.socket_mark = Some(whole("sock_cookie_id", value)?);
            Ok(())
        },
    ),
    row("drop_privileges", "", Unused, "No effect: see the systemd unit", NOTHING),
    row("no_drop_privileges", "", Already, "", NOTHING),
    row("relaxed_privileges", "", Already, "", NOTHING),
    row("ext_*", "VALUE", Refused("there is no storage on flash"), "Refused: no flash", NOTHING),
    row("ssl_*", "VALUE", Refused("there is no TLS"), "Refused: no TLS", NOTHING),
    row("proxy_*", "VALUE", Refused("there is no proxy in here"), "Refused: no proxy", NOTHING),
];

fn maintained(all: &mut Extended, is_on: bool) -> Result<(), String> {
    let word = if is_on { "yes" } else { "no" };
    all.has_maintainer = is_on;
    all.show("lru_maintainer_thread", word);
    all.show("lru_segmented", word);
    Ok(())
}

fn idle(all: &mut Extended, value: Option<&str>) -> Result<(), String> {
    let seconds = number(value, "Missing numeric argument for idle_timeout")?;
    all.idle_timeout_s = in_range(seconds)?;
    Ok(())
}

fn automove(all: &mut Extended, value: Option<&str>) -> Result<(), String> {
    let mode = if value.is_some() { number(value, "")? } else { 1 };
    if !(0..=2).contains(&mode) {
        return Err("slab_automove must be between 0 and 2".into());
    }
    if mode != 1 {
        all.has_no_effect("-o slab_automove");
    }
    all.show("slab_automove", mode);
    Ok(())
}

fn chunk_max(all: &mut Extended, value: Option<&str>) -> Result<(), String> {
    let value = value.ok_or("Missing slab_chunk_max argument")?;
    let wrong = "could not parse argument to slab_chunk_max";
    let kib = value.parse::<i32>().map_err(|_| wrong)?;
    let Ok(kib @ 1..) = u64::try_from(kib) else {
        return Err("slab_chunk_max must be >= 0".into());
    };
    if kib > 1 << 10 {
        return Err("slab_chunk_max must be specified in kilobytes.".into());
    }
    all.chunk_max_bytes = Some(kib << 10);
    all.show("slab_chunk_max", kib << 10);
    Ok(())
}

fn sizes(all: &mut Extended, value: Option<&str>) -> Result<(), String> {
    let value = value.filter(|value| !value.is_empty()).ok_or("Missing slab_sizes argument")?;
    all.slab_sizes = Some(value.to_owned());
    Ok(())
}

/// Whether what has expired is looked for, which peers may change.
fn crawled(all: &mut Extended, sweeps: bool) {
    all.sweeps = sweeps;
    all.show("lru_crawler", if sweeps { "yes" } else { "no" });
}

/// The defaults of memcached 1.4, as far as they can be seen.
fn no_modern(all: &mut Extended, _: Option<&str>) -> Result<(), String> {
    all.maxconns_fast = false;
    all.show("slab_reassign", "no");
    all.show("slab_automove", 0);
    crawled(all, false);
    all.show("hash_algorithm", "jenkins");
    maintained(all, false)
}

fn percent(all: &mut Extended, name: &'static str, value: Option<&str>) -> Result<i64, String> {
    let percent = number(value, &format!("Missing {name} argument"))?;
    if !(1..80).contains(&percent) {
        return Err(format!("{name} must be > 1 and < 80"));
    }
    all.show(name, percent);
    Ok(percent)
}

fn factor(all: &mut Extended, name: &'static str, value: Option<&str>) -> Result<(), String> {
    let factor = real(value, &format!("Missing {name} argument"))?;
    if factor <= 0.0 {
        return Err(format!("{name} must be > 0"));
    }
    all.show(name, format!("{factor:.2}"));
    Ok(())
}

/// KiB, as bytes.
fn kib(all: &mut Extended, name: &'static str, value: Option<&str>) -> Result<u32, String> {
    let bytes = whole(name, value)?.checked_mul(1 << 10).ok_or("out of range")?;
    all.show(name, bytes);
    Ok(bytes)
}

/// The number at the start of a value, as atoi(3) reads it; but what has none is none.
fn number(value: Option<&str>, missing: &str) -> Result<i64, String> {
    let value = value.ok_or(missing)?.trim_start();
    let sign = usize::from(value.starts_with(['-', '+']));
    let digits = value[sign..].bytes().take_while(u8::is_ascii_digit).count();
    value[..sign + digits].parse().map_err(|_| format!("{value:?} is not a number"))
}

/// The number at the start of a value, as atof(3) reads it.
fn real(value: Option<&str>, missing: &str) -> Result<f64, String> {
    let value = value.ok_or(missing)?.trim_start();
    let is_part = |c: char| c.is_ascii_digit() || ['.', '-', '+'].contains(&c);
    let end = value.find(|c| !is_part(c)).unwrap_or(value.len());
    value[..end].parse().map_err(|_| format!("{value:?} is not a number"))
}

/// A value that is a number and nothing else.
fn whole(name: &str, value: Option<&str>) -> Result<u32, String> {
    let value = value.ok_or_else(|| format!("Missing {name} argument"))?;
    value.parse().map_err(|_| format!("could not parse argument to {name}"))
}

/// As a number that is not negative.
fn in_range(number: i64) -> Result<u32, String> {
    u32::try_from(number).map_err(|_| format!("{number} is out of range"))
}
