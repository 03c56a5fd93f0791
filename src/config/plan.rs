//! The checked plan, and the checks.

use std::path::Path;

use crate::base::limits::VALUE_BYTES_MAX;
use crate::base::protocol::Protocol;
use crate::net::rate::RateLimits;
use crate::net::throttle::Throttle;
use crate::store::{self, Favor};
use crate::sys::ladder::Asked;
use crate::sys::user::{self, User};

use super::admin::AdminPlan;
use super::error::StartError;
use super::extended::Extended;
use super::foreign::judge;
use super::host::Host;
use super::listen::{
    EVERYWHERE, Listeners, UnixListener, parse_entry, parse_port, resolve, split_entries,
};
use super::options::{Dispatch, Options};
use super::placement::{Pin, Placement, rings_by_default};
use super::process::ProcessPlan;
use super::speech::{AuthPlan, Speech, delimiter};
use super::throttle;

const DEFAULT_PORT: u16 = 11211;
const MIB: u64 = 1 << 20;
const ITEM_BYTES_MIN: u64 = 1024;
const ITEM_BYTES_DEFAULT: u64 = MIB;
const THREADS_MAX: u32 = 1024;
/// Descriptors that are nobody's connection: standard streams, rings, eventfds, listeners, signals.
const DESCRIPTORS_RESERVED: u64 = 64;
const DESCRIPTORS_PER_THREAD: u64 = 4;

/// All that server and admin need to know, checked.
#[derive(Clone, Debug)]
pub struct Plan {
    pub listeners: Listeners,
    /// `None` is off; `Some(0)` is a port of the system's choice.
    pub tcp_port: Option<u16>,
    pub udp_port: Option<u16>,
    /// What `-l` said; `None` is all interfaces.
    pub interfaces: Option<String>,
    /// For items, index, replies and connections.
    pub memory_bytes: u64,
    pub evict: bool,
    pub favor: Favor,
    pub connections_max: u32,
    pub rings: u32,
    /// 0 exactly when `dispatch` is `Inline`.
    pub workers: u32,
    pub dispatch: Dispatch,
    pub pin: Pin,
    /// The processors of rings and workers.
    pub placement: Placement,
    /// How to receive, as far as it was said.
    pub receive: Asked,
    /// Header, key and value of the largest item.
    pub item_bytes_max: usize,
    pub requests_per_event: u32,
    pub backlog: u32,
    pub verbosity: u8,
    pub shutdown_enabled: bool,
    /// What is spoken where an address says nothing else.
    pub protocol: Protocol,
    /// Bytes of all datagrams of a reply.
    pub udp_reply_bytes_max: usize,
    /// Who may speak; `None` is everybody.
    pub auth: Option<AuthPlan>,
    pub flush_enabled: bool,
    /// Whether keys may be listed.
    pub dumping_enabled: bool,
    pub watch_enabled: bool,
    pub cas_enabled: bool,
    /// What separates the prefix of a key from the rest.
    pub prefix_delimiter: u8,
    /// Whether statistics by prefix are kept from the start.
    pub detail_enabled: bool,
    /// What `-o` asks for.
    pub extended: Extended,
    pub process: ProcessPlan,
    pub throttle: Throttle,
    /// What the control group lets the process have.
    pub group_bytes: Option<u64>,
    /// What one peer address may have.
    pub rate: RateLimits,
    /// What connections may take of `memory_bytes`, if it is not the usual part.
    pub conn_bytes: Option<u64>,
    /// Who to become once the sockets are bound.
    pub user: Option<User>,
    pub admin: Option<AdminPlan>,
    /// What was ignored, and what is unwise: to be printed.
    pub warnings: Vec<String>,
}

impl Plan {
    pub fn check(options: &Options, host: &Host) -> Result<Plan, StartError> {
        let mut warnings = options.notes.clone();
        let mut extended = Extended::parse(&options.extended)?;
        let (tcp_port, udp_port) = ports(options)?;
        let speech = Speech::check(options, host, udp_port)?;
        let listeners = listeners(options, &speech, (tcp_port, udp_port), host)?;
        let udp_reply_bytes_max = options.own.datagrams.check(&listeners.udp, &mut warnings)?;
        let first_tcp = listeners.tcp.first().map(|bound| bound.address.port());
        let key_file = options.own.admin_key_file.as_deref();
        let tells_keys = !options.disable_dumping && !speech.asks_who();
        let admin = options.own.admin.as_deref();
        let admin = AdminPlan::check(admin, key_file, tells_keys, first_tcp, udp_port)?;
        let memory_bytes = memory_bytes(options.memory_limit)?;
        let item_bytes_max = item_bytes_max(options.max_item_size.as_deref(), memory_bytes)?;
        judge(options, item_bytes_max as u64, &mut extended)?;
        warnings.extend(extended.warning());
        let rings = rings(options.threads, host, &mut warnings)?;
        let workers = workers(options, rings, &mut warnings)?;
        let connections_max = positive("-c", options.conn_limit, CONNECTIONS_WORDS)?;
        let conn_bytes = conn_bytes(options, &extended, memory_bytes, &mut warnings)?;
        let pool_bytes = store::lendable_bytes(memory_bytes, conn_bytes);
        throttle::warn_of_crowd(connections_max, pool_bytes, &mut warnings);
        let (pin, threads) = (options.own.pin, (rings as usize, workers as usize));
        Ok(Plan {
            listeners,
            tcp_port,
            udp_port,
            interfaces: (!options.listen.is_empty()).then(|| options.listen.join(",")),
            memory_bytes,
            evict: !options.disable_evictions,
            favor: options.own.favor.favor(),
            connections_max,
            rings,
            workers,
            dispatch: options.own.dispatch,
            pin,
            placement: Placement::of(&host.processors, &host.limits, pin, threads),
            receive: receive(options)?,
            item_bytes_max,
            requests_per_event: positive("-R", options.max_reqs_per_event, REQUESTS_WORDS)?,
            backlog: positive("-b", options.listen_backlog, "out of range")?,
            verbosity: options.verbose,
            shutdown_enabled: options.enable_shutdown,
            protocol: speech.protocol,
            udp_reply_bytes_max,
            auth: speech.auth()?,
            flush_enabled: !options.disable_flush_all,
            dumping_enabled: !options.disable_dumping,
            watch_enabled: !options.disable_watch,
            cas_enabled: !options.disable_cas,
            prefix_delimiter: delimiter(options.prefix_delimiter.as_deref())?,
            detail_enabled: options.prefix_delimiter.is_some(),
            extended,
            process: ProcessPlan::of(options, host),
            throttle: options.own.throttle.check()?,
            group_bytes: host.limits.memory_bytes,
            rate: options.own.rate.check()?,
            conn_bytes,
            user: find_user(options.user.as_deref(), host, &mut warnings)?,
            admin,
            warnings,
        })
    }

    /// The plan of a command line without the program's name, on this host. For tests and tools.
    pub fn parse(arguments: &[&str]) -> Result<Plan, StartError> {
        let arguments = std::iter::once("ringcached").chain(arguments.iter().copied());
        let options = Options::read(arguments.map(Into::into)).map_err(|error| {
            StartError::new("parse", "the command line", error, "See ringcached -h.")
        })?;
        Plan::check(&options, &Host::here())
    }

    /// How many descriptors the process may have open at a time: what RLIMIT_NOFILE must allow.
    pub fn descriptors_max(&self) -> u64 {
        let Listeners { tcp, udp, .. } = &self.listeners;
        u64::from(self.connections_max)
            + (tcp.len() + udp.len()) as u64
            + DESCRIPTORS_RESERVED
            + DESCRIPTORS_PER_THREAD * u64::from(self.rings + self.workers)
    }
}

fn ports(options: &Options) -> Result<(Option<u16>, Option<u16>), StartError> {
    if options.unix_socket.is_some() {
        return Ok((None, None));
    }
    let udp = parse_port("-U", options.udp_port.unwrap_or(0))?;
    let tcp = match options.port {
        Some(port) => parse_port("-p", port)?,
        None => udp.or(Some(DEFAULT_PORT)),
    };
    Ok((tcp, udp))
}

fn listeners(
    options: &Options,
    speech: &Speech,
    (tcp_port, udp_port): (Option<u16>, Option<u16>),
    host: &Host,
) -> Result<Listeners, StartError> {
    let mask = unix_mask(&options.unix_mask)?;
    if let Some(path) = &options.unix_socket {
        check_unix_path(path)?;
        let unix = Some(UnixListener { path: path.clone(), mask, protocol: speech.protocol });
        return Ok(Listeners { unix, ..Listeners::default() });
    }
    let mut entries = Vec::new();
    for list in &options.listen {
        for entry in split_entries(list) {
            entries.push(parse_entry(entry)?);
        }
    }
    if entries.is_empty() {
        entries.push(EVERYWHERE);
    }
    let resolve = |port: Option<u16>| match port {
        Some(port) => resolve(&entries, port, speech, host.has_ipv6),
        None => Ok(Vec::new()),
    };
    let listeners = Listeners { tcp: resolve(tcp_port)?, udp: resolve(udp_port)?, unix: None };
    if listeners.tcp.is_empty() && listeners.udp.is_empty() {
        let remedy = "Give a TCP port (-p), a UDP port (-U) or a Unix socket (-s).";
        return Err(StartError::new("listen on", "anything", "all ports are off", remedy));
    }
    Ok(listeners)
}

fn unix_mask(text: &str) -> Result<u32, StartError> {
    u32::from_str_radix(text, 8).ok().filter(|mask| *mask <= 0o777).ok_or_else(|| {
        let remedy = "Use octal digits, 777 at most, as in -a 0700.";
        StartError::new("accept", format!("-a {text}"), "not an access mask", remedy)
    })
}

/// Longest path of a Unix socket: `sun_path` holds 108 bytes, one of them the final zero.
const UNIX_PATH_BYTES_MAX: usize = 107;

fn check_unix_path(path: &Path) -> Result<(), StartError> {
    let bytes = path.as_os_str().len();
    if (1..=UNIX_PATH_BYTES_MAX).contains(&bytes) {
        return Ok(());
    }
    let cause = format!("the path has {bytes} bytes, not 1 to {UNIX_PATH_BYTES_MAX}");
    Err(StartError::new("listen on", path.display(), cause, "Use a shorter path."))
}

fn memory_bytes(mib: u64) -> Result<u64, StartError> {
    mib.checked_mul(MIB).filter(|bytes| *bytes > 0).ok_or_else(|| {
        let remedy = "Give a number of MiB, as in -m 1024. There is no \"unlimited\".";
        StartError::new("take", format!("-m {mib}"), "not a memory limit", remedy)
    })
}

fn item_bytes_max(text: Option<&str>, memory_bytes: u64) -> Result<usize, StartError> {
    let half = memory_bytes / 2;
    let Some(text) = text else {
        let bytes = ITEM_BYTES_DEFAULT.min(half);
        return Ok(usize::try_from(bytes).unwrap_or(VALUE_BYTES_MAX));
    };
    let refuse = |cause: &str, remedy: &str| {
        Err(StartError::new("accept", format!("-I {text}"), cause, remedy))
    };
    let bytes = parse_size("-I", text)?;
    match usize::try_from(bytes) {
        _ if bytes < ITEM_BYTES_MIN => {
            refuse("Item max size cannot be less than 1024 bytes.", "Use -I 1k or more.")
        }
        Ok(size) if size <= VALUE_BYTES_MAX && bytes <= half => Ok(size),
        Ok(size) if size <= VALUE_BYTES_MAX => {
            let words = "Cannot set item size limit higher than 1/2 of memory max.";
            refuse(words, "Raise -m, or lower -I.")
        }
        Ok(_) | Err(_) => {
            let words = "Cannot set item size limit higher than a gigabyte.";
            refuse(words, "Use -I 1g or less.")
        }
    }
}

/// A number of bytes, with suffix k, m or g.
pub(super) fn parse_size(option: &str, text: &str) -> Result<u64, StartError> {
    let refuse = |cause: &str| {
        let remedy = "Use bytes, or a number with k, m or g.";
        Err(StartError::new("accept", format!("{option} {text}"), cause, remedy))
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => return refuse("unknown suffix"),
    };
    match digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)) {
        Some(bytes) => Ok(bytes),
        None => refuse("not a size"),
    }
}

fn rings(threads: Option<i64>, host: &Host, warnings: &mut Vec<String>) -> Result<u32, StartError> {
    let usual = rings_by_default(&host.processors, &host.limits);
    let Some(given) = threads else { return Ok(usual.min(THREADS_MAX)) };
    let Some(threads) = u32::try_from(given).ok().filter(|n| (1..=THREADS_MAX).contains(n)) else {
        let remedy = "Use one thread per core, which is the default.";
        let cause = match given {
            ..=0 => "Number of threads must be greater than 0".into(),
            _ => format!("more than {THREADS_MAX} threads"),
        };
        return Err(StartError::new("start", format!("-t {given}"), cause, remedy));
    };
    if threads > usual {
        warnings.push(format!("-t {threads} is more than the {usual} cores this process may use"));
    }
    Ok(threads)
}

fn workers(options: &Options, rings: u32, warnings: &mut Vec<String>) -> Result<u32, StartError> {
    let (dispatch, workers) = (options.own.dispatch, options.own.workers);
    match (dispatch, workers) {
        (Dispatch::Inline, None | Some(0)) => Ok(0),
        (Dispatch::Inline, Some(_)) => {
            warnings.push("--workers has no effect with --dispatch inline".into());
            Ok(0)
        }
        (Dispatch::Queue | Dispatch::Auto, None) => Ok(rings),
        (Dispatch::Queue | Dispatch::Auto, Some(workers @ 1..=THREADS_MAX)) => Ok(workers),
        (Dispatch::Queue | Dispatch::Auto, Some(workers)) => Err(StartError::new(
            "start",
            format!("--workers {workers}"),
            format!("--dispatch {} needs 1 to {THREADS_MAX} workers", dispatch.name()),
            "Leave --workers out for one per ring, or use --dispatch inline.",
        )),
    }
}

/// A wait this long would be seen by every client.
const MIN_WAIT_US_MAX: u32 = 10_000;

fn receive(options: &Options) -> Result<Asked, StartError> {
    let own = &options.own;
    if let Some(wait_us) = own.min_wait.filter(|wait_us| *wait_us > MIN_WAIT_US_MAX) {
        let remedy = format!("Use a number of microseconds from 0 to {MIN_WAIT_US_MAX}.");
        return Err(StartError::new(
            "accept",
            format!("--min-wait {wait_us}"),
            "out of range",
            remedy,
        ));
    }
    let mode = own.receive.mode();
    let zero_copy_bytes = own.send_zero_copy;
    Ok(Asked { mode, cap_bytes: own.receive_cap, min_wait_us: own.min_wait, zero_copy_bytes })
}

const CONNECTIONS_WORDS: &str = "Maximum connections must be greater than 0";
const REQUESTS_WORDS: &str = "Number of requests per event must be greater than 0";

/// A number that memcached and the kernel take as signed, and that is to be more than 0: what
/// memcached says where it is not, is `words`.
fn positive(option: &str, value: i64, words: &str) -> Result<u32, StartError> {
    if value > 0 && i32::try_from(value).is_ok() {
        return Ok(u32::try_from(value).expect("as positive as an i32"));
    }
    let cause = if value > 0 { "out of range" } else { words };
    let remedy = "Use a number from 1 to 2147483647.";
    Err(StartError::new("accept", format!("{option} {value}"), cause, remedy))
}

/// What connections may hold: our own option knows best.
fn conn_bytes(
    options: &Options,
    extended: &Extended,
    memory_bytes: u64,
    warnings: &mut Vec<String>,
) -> Result<Option<u64>, StartError> {
    let own = options.own.throttle.conn_bytes(memory_bytes)?;
    if own.is_some() {
        return Ok(own);
    }
    let Some((bytes, warning)) = extended.conn_bytes(memory_bytes) else { return Ok(None) };
    warnings.extend(warning);
    Ok(Some(bytes))
}

fn find_user(
    name: Option<&str>,
    host: &Host,
    warnings: &mut Vec<String>,
) -> Result<Option<User>, StartError> {
    match (name, host.is_root) {
        (None, true) => {
            let advice = "give -u USER, or start ringcached as that user";
            warnings.push(format!("running as root, which serving does not need: {advice}"));
            Ok(None)
        }
        (None, false) => Ok(None),
        // As in memcached: only root can become somebody else, and who is not root need not.
        (Some(_), false) => Ok(None),
        (Some(name), true) => match user::find(name) {
            Ok(Some(user)) => Ok(Some(user)),
            Ok(None) => {
                let remedy = "Create the user, or name another with -u.";
                Err(StartError::new("become", name, "there is no such user", remedy))
            }
            Err(error) => {
                let remedy = "Check the user database of this host.";
                Err(StartError::new("become", name, error, remedy))
            }
        },
    }
}
