//! The command line, as text that parses: memcached's letters, names and order, then ours.
//!
//! Nothing is judged here that needs two options or the host; that is `plan`'s business. Words are
//! read as getopt_long(3) reads them, see `getopt`; clap knows the options, their values and help.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::{ArgAction, Command, CommandFactory, FromArgMatches, Parser, ValueEnum};

use super::datagrams::DatagramOptions;
use super::extended;
use super::getopt::Words;
use super::placement::Pin;
use super::rate::RateOptions;
use super::throttle::ThrottleOptions;
use crate::store::Favor;
use crate::sys::ladder::Mode;

/// What is kept when not everything fits: the words for `store::Favor`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FavorName {
    #[default]
    Objects,
    Balanced,
    Bytes,
}

impl FavorName {
    pub fn favor(self) -> Favor {
        match self {
            FavorName::Objects => Favor::Objects,
            FavorName::Balanced => Favor::Balanced,
            FavorName::Bytes => Favor::Bytes,
        }
    }
}

/// Who executes a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Dispatch {
    /// The ring that received it.
    Inline,
    /// Always a worker.
    Queue,
    /// The ring, or a worker when the batch is long.
    #[default]
    Auto,
}

impl Dispatch {
    pub fn name(self) -> &'static str {
        match self {
            Dispatch::Inline => "inline",
            Dispatch::Queue => "queue",
            Dispatch::Auto => "auto",
        }
    }
}

/// How bytes are received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ReceiveName {
    /// What was measured to be best.
    #[default]
    Auto,
    /// A buffer for each receive.
    Multishot,
    /// A run of buffers for each receive.
    Bundle,
    /// Large buffers that receives share.
    Incremental,
}

impl ReceiveName {
    pub fn mode(self) -> Option<Mode> {
        match self {
            ReceiveName::Auto => None,
            ReceiveName::Multishot => Some(Mode::Multishot),
            ReceiveName::Bundle => Some(Mode::Bundle),
            ReceiveName::Incremental => Some(Mode::Incremental),
        }
    }
}

/// What stands above our own options in the help.
pub(super) const OWN: &str = "Options of ringcached";

/// The version of this server, and that of the memcached whose words it speaks: scripts that run
/// something of the name memcached read the second word.
const VERSION: &str = env!("CARGO_PKG_VERSION");
const VERSION_AS_MEMCACHED: &str = concat!("1.6.45 (ringcached ", env!("CARGO_PKG_VERSION"), ")");

const TEMPLATE: &str = "{name} {version}\n{about}\n\n{usage-heading} {usage}\n\n{all-args}\n";

/// An in-memory cache on io_uring that speaks memcached's protocols.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "ringcached",
    version = VERSION,
    help_template = TEMPLATE,
    disable_help_flag = true,
    disable_version_flag = true,
    args_override_self = true,
    next_help_heading = "Options, as in memcached"
)]
pub struct Options {
    /// TCP port to listen on; 0 is off, -1 a port of the system's choice [11211]
    #[arg(short = 'p', long, value_name = "NUM", allow_hyphen_values = true)]
    pub port: Option<i64>,

    /// UDP port, on loopback (-l 127.0.0.1) unless --udp-beyond-loopback is given, too; without -p
    /// it sets the TCP port as well [0, off]
    #[arg(short = 'U', long, value_name = "NUM", allow_hyphen_values = true)]
    pub udp_port: Option<i64>,

    /// Unix socket to listen on; disables TCP and UDP
    #[arg(short = 's', long, value_name = "FILE")]
    pub unix_socket: Option<PathBuf>,

    /// Access mask of the Unix socket, in octal
    #[arg(short = 'a', long, value_name = "MASK", default_value = "0700")]
    pub unix_mask: String,

    /// Enable the command "shutdown"
    #[arg(short = 'A', long)]
    pub enable_shutdown: bool,

    /// Addresses to listen on: HOST, HOST:PORT, [V6]:PORT, and before it, in any order, what is
    /// spoken there, proto[ascii|binary|negotiating]:, and a name, tag[NAME]:; repeat it or use
    /// commas [all]
    #[arg(short = 'l', long, value_name = "ADDR")]
    pub listen: Vec<String>,

    /// Go into the background; the program that was started ends once clients are served
    #[arg(short = 'd', long)]
    pub daemon: bool,

    /// Raise the limit of core files as far as it goes
    #[arg(short = 'r', long)]
    pub enable_coredumps: bool,

    /// User to become once the sockets are bound, when started as root
    #[arg(short = 'u', long, value_name = "USER")]
    pub user: Option<String>,

    /// Memory for items, index, replies and connections, in MiB; the start says what is on top
    #[arg(short = 'm', long, value_name = "NUM", default_value_t = 64)]
    pub memory_limit: u64,

    /// Answer an error when memory is full, instead of evicting items
    #[arg(short = 'M', long)]
    pub disable_evictions: bool,

    /// Most connections at a time
    #[arg(short = 'c', long, value_name = "NUM", default_value_t = 1024)]
    pub conn_limit: i64,

    /// Lock all memory into RAM, as it comes into use
    #[arg(short = 'k', long)]
    pub lock_memory: bool,

    /// Log trouble once a second; -vv logs what was served, too, and -vvv no more than that
    #[arg(short = 'v', long, action = ArgAction::Count)]
    pub verbose: u8,

    /// Print this help
    #[arg(short = 'h', long, action = ArgAction::Help)]
    pub help: Option<bool>,

    /// Print the licence
    #[arg(short = 'i', long)]
    pub license: bool,

    /// Print the version
    #[arg(short = 'V', long, action = ArgAction::Version)]
    pub version: Option<bool>,

    /// File to write the process id to, for as long as the server runs
    #[arg(short = 'P', long, value_name = "FILE")]
    pub pidfile: Option<PathBuf>,

    /// No effect: size classes are what they are
    #[arg(short = 'f', long, value_name = "NUM")]
    pub slab_growth_factor: Option<String>,

    /// No effect: a slot is as small as its item
    #[arg(short = 'n', long, value_name = "NUM", allow_hyphen_values = true)]
    pub slab_min_size: Option<i64>,

    /// Take all of -m from the system at start, in huge pages as far as there are any
    #[arg(short = 'L', long)]
    pub enable_largepages: bool,

    /// What separates a key's prefix from the rest, for statistics by prefix, which it turns on [:]
    #[arg(short = 'D', long, value_name = "CHAR")]
    pub prefix_delimiter: Option<String>,

    /// Threads that serve connections, one ring each [one per allowed core]
    #[arg(short = 't', long, value_name = "NUM")]
    pub threads: Option<i64>,

    /// Most requests of one connection in a row, in steps of 32
    #[arg(short = 'R', long, value_name = "NUM", default_value_t = 20)]
    pub max_reqs_per_event: i64,

    /// Show 0 in place of each CAS value; cas never succeeds then
    #[arg(short = 'C', long)]
    pub disable_cas: bool,

    /// Connections that may wait to be accepted
    #[arg(short = 'b', long, value_name = "NUM", default_value_t = 1024)]
    pub listen_backlog: i64,

    /// What clients speak: ascii, binary, or auto, what they begin with [auto]
    #[arg(short = 'B', long, value_name = "NAME")]
    pub protocol: Option<String>,

    /// Largest item, with suffix k, m or g [1m, or half of -m if that is less]
    #[arg(short = 'I', long, value_name = "SIZE")]
    pub max_item_size: Option<String>,

    /// Ask for a name and a password, by SASL: binary protocol only
    #[arg(short = 'S', long)]
    pub enable_sasl: bool,

    /// Answer an error to flush_all
    #[arg(short = 'F', long)]
    pub disable_flush_all: bool,

    /// Answer an error to what tells keys: stats cachedump, detail, hotkeys and hotprefixes, and
    /// lru_crawler metadump and mgdump
    #[arg(short = 'X', long)]
    pub disable_dumping: bool,

    /// Answer an error to watch
    #[arg(short = 'W', long)]
    pub disable_watch: bool,

    /// File with lines NAME:PASSWORD, one of which clients must know: text protocol only
    #[arg(short = 'Y', long, value_name = "FILE")]
    pub auth_file: Option<PathBuf>,

    /// Refused: the cache is not kept over a restart
    #[arg(short = 'e', long, value_name = "FILE")]
    pub memory_file: Option<PathBuf>,

    /// Refused: there is no TLS
    #[arg(short = 'Z', long)]
    pub enable_ssl: bool,

    // Its help is made from the table of what it may name.
    #[arg(short = 'o', long, value_name = "NAME[=VALUE],...")]
    pub extended: Vec<String>,

    /// No effect: connections go to the ring with the fewest
    #[arg(short = 'N', long, alias = "napi_ids", value_name = "NUM", allow_hyphen_values = true)]
    pub napi_ids: Option<i64>,

    #[command(flatten)]
    pub own: Own,

    /// What was passed over when the words were read.
    #[arg(skip)]
    pub(super) notes: Vec<String>,
}

impl Options {
    /// Reads a command line, the name of the program first.
    ///
    /// # Errors
    /// What is to be printed in place of serving: what is wrong, or the help or the version that
    /// was asked for.
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Options, clap::Error> {
        let mut words = words.into_iter();
        let program = words.next().unwrap_or_default();
        let command = command(&program);
        let Words { words, notes } = Words::read(words, &command, OWN);
        let matches = command.try_get_matches_from(std::iter::once(program).chain(words))?;
        let options = Options::from_arg_matches(&matches)?;
        Ok(Options { notes, ..options })
    }
}

/// The command for a program of this name: under memcached's, it has memcached's version.
fn command(program: &OsStr) -> Command {
    let command = Options::command().mut_arg("extended", |arg| arg.help(extended::help()));
    if Path::new(program).file_name() == Some(OsStr::new("memcached")) {
        return command.name("memcached").version(VERSION_AS_MEMCACHED);
    }
    command
}

/// The options that memcached does not have.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = OWN)]
pub struct Own {
    /// Who executes a batch of requests
    #[arg(long, value_name = "WHO", value_enum, default_value_t)]
    pub dispatch: Dispatch,

    /// Threads that execute long batches [one per ring]
    #[arg(long, value_name = "NUM")]
    pub workers: Option<u32>,

    /// Tie rings and workers to processors; auto: unless a quota says that these are shared
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    pub pin: Pin,

    /// What to keep when not all fits: as many items as are asked for, as many bytes, or in between
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    pub favor: FavorName,

    /// How bytes are received: into a buffer a receive, a run of buffers, or large shared ones
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    pub receive: ReceiveName,

    /// Bytes that a connection brings before others have their turn; 0 is no cap [256 KiB]
    #[arg(long, value_name = "BYTES")]
    pub receive_cap: Option<u32>,

    /// Microseconds that a busy ring waits for more to do; 0 is not at all [0]
    #[arg(long, value_name = "US")]
    pub min_wait: Option<u32>,

    /// Bytes from which replies with large values in them are sent without a copy; 0 is never [0]
    #[arg(long, value_name = "BYTES")]
    pub send_zero_copy: Option<u32>,

    #[command(flatten)]
    pub datagrams: DatagramOptions,

    /// Address of the UDP statistics, or "off" [127.0.0.1, TCP port + 10000]
    #[arg(long, value_name = "ADDR:PORT")]
    pub admin: Option<String>,

    /// File with the key that the UDP statistics ask for
    #[arg(long, value_name = "FILE")]
    pub admin_key_file: Option<PathBuf>,

    #[command(flatten)]
    pub throttle: ThrottleOptions,

    #[command(flatten)]
    pub rate: RateOptions,

    /// Print what this kernel offers, and exit
    #[arg(long)]
    pub check: bool,
}
