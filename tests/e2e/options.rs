//! Started as memcached: command lines that are in use, under memcached's name and with nothing
//! changed but the port. Each must serve afterwards; what is refused must say why.

use crate::common::client::Client;
use crate::common::server::{Kind, OURS, Server, free_port, original, replacement};
use crate::common::{PATIENCE, wait_until};
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;

/// A folder of a test's own, with the server in it under the name memcached; none where another
/// program stands in for ours, or this machine has no rings.
fn folder(test: &str) -> Option<PathBuf> {
    drop(Server::start(Kind::Auto, &[]).filter(Server::is_ours)?);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("as-memcached-{test}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let program =
        std::env::var("RINGCACHED").unwrap_or_else(|_| env!("CARGO_BIN_EXE_ringcached").into());
    std::os::unix::fs::symlink(program, folder.join("memcached")).unwrap();
    Some(folder)
}

fn memcached(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(folder.join("memcached"));
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A process that is killed in the end, and what it says.
struct Process {
    child: Child,
    said: Option<JoinHandle<String>>,
}

impl Process {
    fn spawn(mut command: Command) -> Process {
        let mut child = command.spawn().unwrap();
        let mut errors = child.stderr.take().unwrap();
        let said = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = errors.read_to_string(&mut text);
            text
        });
        Process { child, said: Some(said) }
    }

    /// Ends it, and returns what it said.
    fn end(&mut self) -> String {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.said.take().map(|said| said.join().unwrap()).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// That a set and a get are served at this address, before long.
fn serves(address: SocketAddr) -> bool {
    wait_until(PATIENCE, || {
        let Ok(mut client) = Client::connect(address) else { return false };
        let asked = client.try_send("set served 0 0 3\r\nyes\r\nget served\r\n");
        let stored = client.try_line();
        asked.is_ok() && stored.is_ok_and(|line| line == "STORED") && {
            client.values() == [("served".to_owned(), b"yes".to_vec())]
        }
    })
}

fn at(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// Words as a unit file, a Dockerfile or a chart has them, each list in one line, and what must be
/// warned of. `-u root` is for tests that run as root, `-p` comes last and holds.
const LINES: &[(&str, &[&str], &[&str])] = &[
    ("bare", &[], &[]),
    ("image", &["-m", "64", "-c", "1024"], &[]),
    ("image_with_words_in_one", &["-m 64", "-c 1024", "-o modern"], &[]),
    ("verbose", &["-u", "nobody", "-vv"], &[]),
    ("rpm", &["-u", "nobody", "-m", "64", "-c", "1024", "-l", "127.0.0.1,::1"], &[]),
    ("chart", &["-m", "64", "--extended=modern,track_sizes", "-v"], &[]),
    ("chart_with_items", &["-m", "64", "-I", "1m", "-o", "modern", "-c", "1024"], &[]),
    (
        "wiki",
        &[
            "-o",
            "slab_reassign,slab_automove,lru_crawler,lru_maintainer,maxconns_fast,\
             hash_algorithm=murmur3",
        ],
        &["-o lru_maintainer, -o hash_algorithm"],
    ),
    ("tests", &["-o", "relaxed_privileges", "-A", "-U", "0"], &[]),
    (
        "long",
        &["--memory-limit=64", "--conn-limit", "4096", "--threads=2", "--listen=127.0.0.1"],
        &[],
    ),
    ("cut_short", &["--memory-l=64", "--conn=100", "--disable-ev", "--verb"], &[]),
    (
        "old",
        &["-f", "1.05", "-n", "64", "-t", "2", "-R", "50", "-b", "2048", "-C", "-F"],
        &["-f, -n"],
    ),
    ("locked", &["-k", "-r", "-m", "16"], &[]),
    ("units", &["-m", "64M", "memcached"], &["64M is read as 64", "\"memcached\" belongs to no"]),
    ("prefixes", &["-l", "proto[ascii]:tag[main]:127.0.0.1", "-D", "."], &[]),
];

#[test]
fn command_lines_in_use_serve() {
    let Some(folder) = folder("lines") else { return };
    for (name, words, warned) in LINES {
        let port = free_port();
        let mut command = memcached(&folder, &["-u", "root"]);
        command.args(*words).args(["-p", &port.to_string()]);
        let mut process = Process::spawn(command);
        let served = serves(at(port));
        let said = process.end();
        assert!(served, "{name} {words:?}: {said}");
        for words in *warned {
            assert!(said.contains(words), "{name}: {words:?} is not in {said}");
        }
        let warnings = said.lines().filter(|line| line.contains("no effect")).count();
        assert!(warnings <= 1, "{name}: {said}");
    }
}

/// Each with words of the reason.
const REFUSED: &[(&[&str], &str)] = &[
    (&["-e", "/tmp/x"], "not kept over a restart"),
    (&["-Z"], "no TLS"),
    (&["-o", "ssl_chain_cert=x"], "no TLS"),
    (&["-o", "ext_path=/x:1g"], "no storage on flash"),
    (&["-o", "proxy_config=routelib"], "no proxy"),
    (&["-o", "nonsense"], "Illegal suboption \"nonsense\""),
    (&["-o", "hashpower=5"], "Initial hashtable multiplier of 5 is too low"),
    (&["-o", "hot_lru_pct=50"], "cannot be more than 80% combined"),
    (&["-I", "512"], "Item max size cannot be less than 1024 bytes."),
    (&["-I", "60m"], "Cannot set item size limit higher than 1/2 of memory max."),
    (&["-c", "0"], "Maximum connections must be greater than 0"),
    (&["-t", "-1"], "Number of threads must be greater than 0"),
    (&["-R", "0"], "Number of requests per event must be greater than 0"),
    (&["-f", "1"], "Factor must be greater than 1"),
    (&["-B", "morse"], "Invalid value for binding protocol: morse"),
    (&["-D", ""], "No delimiter specified"),
    (&["-l", "tag[much_too_long]:127.0.0.1"], "between 1 and 8 characters"),
    (&["-l", "proto[morse]:127.0.0.1"], "no such protocol"),
    (&["-U", "11211", "-l", "0.0.0.0"], "amplify"),
    (&["-Q"], "'-Q'"),
    (&["-u"], "--user"),
];

#[test]
fn what_is_refused_says_why() {
    let Some(folder) = folder("refused") else { return };
    for (words, reason) in REFUSED {
        let port = free_port().to_string();
        let mut command = memcached(&folder, &["-u", "root", "-p", &port]);
        let Output { status, stderr, .. } = command.args(*words).output().unwrap();
        let said = String::from_utf8_lossy(&stderr);
        assert!(!status.success() && status.code().is_some(), "{words:?}: {status}");
        assert!(said.contains(reason), "{words:?}: {reason:?} is not in {said}");
    }
}

#[test]
fn help_version_and_licence_are_printed() {
    let Some(folder) = folder("help") else { return };
    let print = |word: &str| {
        let output = memcached(&folder, &[word]).output().unwrap();
        assert!(output.status.success(), "{word}");
        String::from_utf8(output.stdout).unwrap()
    };
    for word in ["-V", "--version", "-h", "--help"] {
        let text = print(word);
        let words: Vec<_> = text.split_whitespace().take(2).collect();
        assert_eq!(words, ["memcached", "1.6.45"], "{word}");
        assert!(text.contains("(ringcached "), "{word}");
    }
    assert!(print("-i").contains("MIT"));
    assert!(print("-h").contains("\n      ") && print("-h").contains("idle_timeout=SECONDS"));
}

/// What Debian's own start script makes of its own configuration.
#[test]
fn debians_wrapper_starts_it() {
    const WRAPPER: &str = "/usr/share/memcached/scripts/systemd-memcached-wrapper";
    const CONFIG: &str = "/etc/memcached.conf";
    let read = |path: &str| std::fs::read_to_string(path);
    let (Ok(wrapper), Ok(config)) = (read(WRAPPER), read(CONFIG)) else {
        return eprintln!("skipped: no {WRAPPER}");
    };
    let Some(folder) = folder("debian") else { return };
    let port = free_port();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    std::fs::write(path("wrapper"), wrapper.replace("/usr/bin/memcached", &path("memcached")))
        .unwrap();
    let config = config
        .replace("-p 11211", &format!("-p {port}"))
        .replace("/var/run/memcached/memcached.pid", &path("pid"))
        .replace("-u memcache", "-u root");
    std::fs::write(path("memcached.conf"), &config).unwrap();
    let mut command = Command::new("perl");
    command.args([path("wrapper"), path("memcached.conf")]).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut process = Process::spawn(command);
    let served = serves(at(port));
    // It is written once clients are served.
    wait_until(PATIENCE, || Path::new(&path("pid")).exists());
    let id = std::fs::read_to_string(path("pid"));
    let said = process.end();
    assert!(served, "{config}: {said}");
    assert_eq!(id.unwrap().trim(), process.child.id().to_string());
}

#[test]
fn a_daemon_is_served_when_its_starter_ends() {
    let Some(folder) = folder("daemon") else { return };
    let (port, pid_file) = (free_port(), folder.join("pid"));
    let pid_path = pid_file.to_str().unwrap();
    let words = ["-d", "-P", pid_path, "-u", "root", "-l", "127.0.0.1", "-p", &port.to_string()];
    // To its end: nobody holds the pipes once it is in the background.
    let output = memcached(&folder, &words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let id: u32 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    // At once: no waiting.
    let mut client = Client::connect(at(port)).unwrap();
    client.set("k", b"v");
    let own = |name: &str| std::fs::read_link(format!("/proc/{id}/{name}")).unwrap();
    assert_eq!(own("cwd"), Path::new("/"));
    for descriptor in ["fd/0", "fd/1", "fd/2"] {
        assert_eq!(own(descriptor), Path::new("/dev/null"));
    }
    let status = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let session = status.rsplit(')').next().unwrap().split_whitespace().nth(3).unwrap();
    assert_eq!(session, id.to_string(), "a session of its own");
    // Where the port is taken, the starter says so and fails.
    let output = memcached(&folder, &words).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("in use"));
    assert_eq!(std::fs::read_to_string(&pid_file).unwrap().trim(), id.to_string());
    let kill = Command::new("sh").arg("-c").arg(format!("kill {id}")).status().unwrap();
    assert!(kill.success());
    assert!(wait_until(PATIENCE, || !pid_file.exists()), "the file stays");
    assert!(wait_until(PATIENCE, || !Path::new(&format!("/proc/{id}/fd/0")).exists()));
}

#[test]
fn ports_are_named_where_the_environment_says() {
    let Some(folder) = folder("ports") else { return };
    let file = folder.join("ports");
    let mut command =
        memcached(&folder, &["-u", "root", "-p", "-1", "-U", "-1", "-l", "127.0.0.1"]);
    command.env("MEMCACHED_PORT_FILENAME", &file);
    let mut process = Process::spawn(command);
    assert!(wait_until(PATIENCE, || file.exists()), "{}", process.end());
    let text = std::fs::read_to_string(&file).unwrap();
    let port = |start: &str| -> u16 {
        let line = text.lines().find_map(|line| line.strip_prefix(start));
        line.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
    };
    assert!(serves(at(port("TCP INET: "))));
    assert_ne!(port("UDP INET: "), 0);
}

#[test]
fn cores_are_allowed() {
    let Some(folder) = folder("core") else { return };
    let port = free_port();
    let words = ["-r", "-u", "root", "-l", "127.0.0.1", "-p", &port.to_string()];
    let process = Process::spawn(memcached(&folder, &words));
    assert!(serves(at(port)));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.child.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let words: Vec<_> = line.split_whitespace().collect();
    assert_eq!(words[4], words[5], "the soft limit is the hard one: {line}");
}

/// All of the memory is there before anybody asks for it.
#[test]
fn memory_is_there_from_the_start() {
    if replacement().is_some() {
        return;
    }
    let Some(lazy) = Server::start(Kind::Auto, &["-m", "96"]) else { return };
    let Some(eager) = Server::start(Kind::Auto, &["-m", "96", "-L"]) else { return };
    assert!(lazy.arena_rss_bytes() < 60 << 20, "{}", lazy.arena_rss_bytes());
    // A few pages are out of use for what connections take elsewhere.
    assert!(eager.arena_rss_bytes() >= 90 << 20, "{}", eager.arena_rss_bytes());
    eager.client().set("k", b"v");
}

/// Without `maxconns_fast`, who comes too many is not refused but waits for a place.
#[test]
fn connections_beyond_the_limit_wait_if_told_to() {
    for kind in OURS {
        let options = ["-c", "3", "-o", "no_maxconns_fast"];
        let started = Server::start(kind, &options).filter(Server::is_ours);
        let Some(mut server) = started else { continue };
        let mut served: Vec<_> = (0..3).map(|_| server.client()).collect();
        served.iter_mut().for_each(|client| client.set("k", b"v"));
        let mut waiting: Vec<_> = (0..5).map(|_| server.client()).collect();
        waiting.iter_mut().for_each(|client| client.send("get k\r\n"));
        let paused = wait_until(PATIENCE, || served[0].stat("listen_disabled_num") >= 1);
        assert!(paused, "{kind:?}");
        assert_eq!(served[0].stat("accepting_conns"), 0, "{kind:?}");
        assert_eq!(served[0].stat("curr_connections"), 3, "{kind:?}");
        // Each that goes lets one in, in the order in which they came.
        for mut client in waiting {
            served.remove(1).send("quit\r\n");
            assert_eq!(client.values(), [("k".to_owned(), b"v".to_vec())], "{kind:?}");
            served.push(client);
        }
        assert_eq!(served[0].stat("rejected_connections"), 0, "{kind:?}");
        drop(served);
        let open = wait_until(PATIENCE, || server.client().stat("accepting_conns") == 1);
        assert!(open, "{kind:?}: it does not listen again");
        server.assert_serves();
    }
}

/// `stats settings` has the original's rows, in its order.
#[test]
fn settings_are_in_the_originals_order() {
    let rows = |server: &Server| -> Vec<String> {
        let rows = server.client().stats_of("settings");
        rows.into_iter().map(|(name, _)| name).collect()
    };
    if !Path::new(&original()).exists() {
        return eprintln!("skipped: no {}", original());
    }
    let Some(ours) = Server::start(Kind::Auto, &[]).filter(Server::is_ours) else { return };
    let Some(original) = Server::start(Kind::Memcached, &[]) else { return };
    let (ours, original) = (rows(&ours), rows(&original));
    // Of what is not here there are no rows; and of one the newer original has another name.
    let is_here =
        |row: &&String| !["ext_", "ssl_", "proxy_"].iter().any(|family| row.starts_with(family));
    let original: Vec<_> = original.iter().filter(is_here).collect();
    assert!(original.len() > 40, "{original:?}");
    let place = |row: &String| ours.iter().position(|each| each == row);
    let missing: Vec<_> = original.iter().filter(|row| place(row).is_none()).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(original.iter().map(|row| place(row)).is_sorted(), "{original:?}\n{ours:?}");
}
