//! What command lines mean.

use super::{Bound, Dispatch, Host, Options, Plan, ProcessPlan, StartError};
use crate::base::protocol::Protocol;
use crate::sys::cgroup::Limits;
use crate::sys::topology::Processor;

fn host() -> Host {
    let processors = (0..4).map(|number| Processor { number, core: (0, number), node: 0 });
    let limits = Limits::default();
    let (is_root, has_ipv6, sasl_file, port_file) = (false, true, None, None);
    Host { processors: processors.collect(), limits, is_root, has_ipv6, sasl_file, port_file }
}

fn on(host: Host, line: &str) -> Result<Plan, StartError> {
    let words = std::iter::once("ringcached").chain(line.split_whitespace());
    let options = Options::read(words.map(Into::into)).expect(line);
    Plan::check(&options, &host)
}

fn plan(line: &str) -> Plan {
    on(host(), line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn addresses(line: &str) -> Vec<String> {
    plan(line).listeners.tcp.iter().map(|bound| bound.address.to_string()).collect()
}

#[test]
fn defaults_are_memcacheds() {
    let plan = plan("");
    assert_eq!(addresses(""), ["0.0.0.0:11211", "[::]:11211"]);
    assert!(plan.listeners.udp.is_empty());
    assert_eq!((plan.memory_bytes, plan.connections_max), (64 << 20, 1024));
    assert_eq!((plan.requests_per_event, plan.backlog), (20, 1024));
    assert_eq!((plan.item_bytes_max, plan.extended.idle_timeout_s), (1 << 20, 0));
    assert!(plan.evict && !plan.process.lock_memory && !plan.shutdown_enabled);
    assert_eq!((plan.rings, plan.workers, plan.dispatch), (4, 4, Dispatch::Auto));
    assert_eq!(plan.admin.as_ref().unwrap().address.to_string(), "127.0.0.1:21211");
    assert!(plan.warnings.is_empty());
    assert!(plan.descriptors_max() > 1024);
}

#[test]
fn every_way_of_writing_an_option() {
    for line in ["-m1024", "-m 1024", "--memory-limit=1024", "--memory-limit 1024", "-m 1 -m 1024"]
    {
        assert_eq!(plan(line).memory_bytes, 1 << 30, "{line}");
    }
    for line in ["-vvv", "-v -v -v", "-vv -v"] {
        assert_eq!(plan(line).verbosity, 3, "{line}");
    }
    assert_eq!(addresses("--port=5 -l 127.0.0.1"), ["127.0.0.1:5"]);
    assert_eq!(addresses("-p-1 -l 127.0.0.1"), ["127.0.0.1:0"]);
    assert_eq!(addresses("-p -1 -l 127.0.0.1"), ["127.0.0.1:0"]);
    assert!(plan("-MkA").process.lock_memory);
    assert!(!plan("-MkA").evict);
    let line = "-p 1 -U 0 -l 127.0.0.1 -m 64 -c 9 -t 2 -I 2m -R 7 -b 5 -k -v -u nobody";
    let plan = plan(line);
    assert_eq!((plan.rings, plan.workers, plan.connections_max), (2, 2, 9));
    assert_eq!((plan.requests_per_event, plan.backlog, plan.item_bytes_max), (7, 5, 2 << 20));
    assert_eq!(plan.user, None, "who is not root stays who they are");
}

#[test]
fn where_to_listen() {
    assert_eq!(
        addresses("-l 127.0.0.1,127.0.0.2:5 -l [::1]:6"),
        ["127.0.0.1:11211", "127.0.0.2:5", "[::1]:6"]
    );
    assert_eq!(addresses("-l 127.0.0.1 -l 127.0.0.1"), ["127.0.0.1:11211"]);
    assert_eq!(addresses("-p 0 -U 5 -l ::1"), Vec::<String>::new());
    assert_eq!(plan("-U 5 -l 127.0.0.1").tcp_port, Some(5), "-U without -p sets both");
    assert_eq!(plan("-U 5 -p 6 -l 127.0.0.1").udp_port, Some(5));
    assert_eq!(on(Host { has_ipv6: false, ..host() }, "").unwrap().listeners.tcp.len(), 1);
    let unix = plan("-s /tmp/x -a 0755 -p 5 -U 6");
    assert!(unix.listeners.tcp.is_empty() && unix.listeners.udp.is_empty());
    assert_eq!(unix.listeners.unix.unwrap().mask, 0o755);
    assert_eq!(unix.admin.unwrap().address.port(), 0);
}

#[test]
fn items_are_at_most_half_of_memory() {
    for (text, bytes) in [("1k", 1024), ("1024", 1024), ("32m", 32 << 20), ("512K", 512 << 10)] {
        assert_eq!(plan(&format!("-I {text}")).item_bytes_max, bytes);
    }
    assert_eq!(plan("-m 2048 -I 1g").item_bytes_max, 1 << 30);
    assert_eq!(plan("-m 1").item_bytes_max, 1 << 19, "the default gives way");
    for line in ["-I 1023", "-I 33m", "-m 9999 -I 1025m", "-I 1x", "-I k", "-I 99999999999g"] {
        assert_eq!(on(host(), line).unwrap_err().doing, "accept", "{line}");
    }
}

#[test]
fn threads_and_workers() {
    assert_eq!(plan("--dispatch inline").workers, 0);
    assert_eq!(plan("--dispatch inline --workers 3").warnings.len(), 1);
    assert_eq!(plan("--dispatch queue --workers 3").workers, 3);
    assert_eq!(plan("-t 8").warnings.len(), 1, "more threads than cores");
    for line in ["-t 0", "-t 1025", "--workers 0", "--dispatch queue --workers 1025"] {
        assert_eq!(on(host(), line).unwrap_err().doing, "start", "{line}");
    }
}

/// Each refusal names its subject and a way out.
#[test]
fn refusals() {
    let long = format!("-s /{}", "x".repeat(107));
    for line in [
        "-p 0",
        "-p 65536",
        "-p -2",
        "-U 65536",
        "-m 0",
        "-m 99999999999999999",
        "-c 0",
        "-R 0",
        "-b 0",
        "-b 4000000000",
        "-a 9",
        "-a 1000",
        "-l :5",
        "-l 127.0.0.1:x",
        "-f 1",
        "-n 0",
        "-N 0",
        "-t 2 -N 3",
        "-o xyz",
        "-o hashpower=9",
        "-B ASCII",
        "-S",
        "-Y f",
        "-Z",
        "-e f",
        "-o idle_timeout=x",
        "-o ext_path=x",
        "--admin x",
        "--admin 0.0.0.0:1",
        "--admin-key-file /nowhere",
        &long,
    ] {
        let Err(error) = on(host(), line) else { panic!("{line} was accepted") };
        let parts = [error.doing, &error.subject, &error.cause, &error.remedy];
        assert!(parts.iter().all(|part| !part.is_empty()), "{line}: {error:?}");
        assert!(error.remedy.ends_with('.'), "{line}: {error:?}");
    }
}

#[test]
fn what_peers_may_do() {
    let plain = plan("");
    assert!(plain.flush_enabled && plain.dumping_enabled && plain.watch_enabled);
    assert!(
        plain.cas_enabled
            && !plain.detail_enabled
            && plain.auth.is_none()
            && !plain.shutdown_enabled
    );
    assert_eq!((plain.prefix_delimiter, plain.protocol), (b':', Protocol::Negotiating));
    let strict = plan("-FXWC -D .x -B ascii");
    assert!(!strict.flush_enabled && !strict.dumping_enabled && !strict.watch_enabled);
    assert!(!strict.cas_enabled && strict.detail_enabled && strict.warnings.is_empty());
    assert_eq!((strict.prefix_delimiter, strict.protocol), (b'.', Protocol::Ascii));
}

#[test]
fn each_address_speaks_its_own() {
    let plan = plan("-B ascii -l proto[negotiating]:127.0.0.1:5 -l tag[x]:127.0.0.1:6 -U 7");
    let spoken = |bounds: &[Bound]| -> Vec<_> {
        bounds.iter().map(|bound| (bound.address.port(), bound.protocol)).collect()
    };
    let wanted = [(5, Protocol::Negotiating), (6, Protocol::Ascii)];
    assert_eq!(spoken(&plan.listeners.tcp), wanted);
    assert_eq!(spoken(&plan.listeners.udp), wanted);
    assert_eq!(plan.listeners.tcp[1].tag.as_deref(), Some("x"));
}

#[test]
fn what_is_ignored_is_said() {
    let line = "x -f 1.1 -n 48 -m 64mb -B auto -N 1 -o modern,idle_timeout=3 -o hashpower=20";
    let plan = plan(line);
    assert_eq!(plan.extended.idle_timeout_s, 3);
    let [passed_over, not_read, unused] = plan.warnings.as_slice() else {
        panic!("{:?}", plan.warnings)
    };
    assert!(passed_over.contains("\"x\""), "{passed_over}");
    assert!(not_read.contains("64mb is read as 64"), "{not_read}");
    assert!(unused.ends_with(": -o hashpower, -f, -n, -N"), "{unused}");
}

#[test]
fn what_the_process_is_to_do() {
    assert_eq!(plan("").process, ProcessPlan::default());
    let process = ProcessPlan {
        pid_file: Some("f".into()),
        port_file: Some("p".into()),
        core_dumps: true,
        lock_memory: true,
        populate: true,
    };
    let host = Host { port_file: Some("p".into()), ..host() };
    assert_eq!(on(host, "-d -P f -rkL").unwrap().process, process);
}

#[test]
fn memory_for_connections_by_either_name() {
    assert_eq!(plan("").conn_bytes, None);
    assert_eq!(plan("-o read_buf_mem_limit=8").conn_bytes, Some(8 << 20));
    assert_eq!(plan("-o read_buf_mem_limit=8 --conn-memory 9m").conn_bytes, Some(9 << 20));
    let most = plan("-o read_buf_mem_limit=99");
    assert_eq!((most.conn_bytes, most.warnings.len()), (Some(32 << 20), 1));
}

#[test]
fn a_crowd_that_memory_for_connections_does_not_do_for_is_warned_of() {
    let plan = plan("-m 128 -c 100000");
    assert_eq!(plan.warnings.len(), 1, "{:?}", plan.warnings);
    assert!(plan.warnings[0].contains("(16 MiB) is enough for 17476 "), "{:?}", plan.warnings);
    for enough in ["-m 1024 -c 100000", "-m 256 -c 100000 --conn-memory 96m", "-m 128 -c 17476"] {
        assert!(on(host(), enough).unwrap().warnings.is_empty(), "{enough}");
    }
}

#[test]
fn rings_are_as_many_as_the_host_is_good_for_and_have_their_places() {
    let all = plan("");
    assert_eq!((all.placement.text().as_str(), all.placement.workers.len()), ("0,1,2,3", 4));
    assert_eq!(plan("-t 2 --pin never").placement.text(), "any");
    let limits = Limits { processors: Some(2.5), memory_bytes: Some(1 << 30) };
    let limited = |line| on(Host { limits, ..host() }, line).unwrap();
    let half = limited("");
    assert_eq!((half.rings, half.placement.text().as_str()), (2, "any"));
    assert_eq!((half.group_bytes, half.warnings.len()), (Some(1 << 30), 0));
    assert_eq!(limited("--pin always").placement.text(), "0,1");
    assert_eq!(limited("-t 3").warnings.len(), 1);
}

#[test]
fn root_is_warned_and_may_leave() {
    let root = || Host { is_root: true, ..host() };
    assert_eq!(on(root(), "").unwrap().warnings.len(), 1);
    assert_eq!(on(root(), "-u root").unwrap().user.unwrap().uid, 0);
    assert_eq!(on(root(), "-u no-such-user").unwrap_err().doing, "become");
}

#[test]
fn the_command_is_well_formed() {
    use clap::CommandFactory;
    Options::command().debug_assert();
    let help = Options::command().render_help().to_string();
    let places: Vec<_> =
        ["-p,", "-U,", "-s,", "-a,", "-A,", "-l,", "-d,", "-r,", "-u,", "-m,", "-M,", "-c,"]
            .iter()
            .chain(&["-k,", "-v,", "-h,", "-i,", "-V,", "-P,", "-f,", "-n,", "-L,", "-D,", "-t,"])
            .chain(&["-R,", "-C,", "-b,", "-B,", "-I,", "-S,", "-F,", "-X,", "-W,", "-Y,", "-e,"])
            .chain(&["-Z,", "-o,", "-N,", "--dispatch"])
            .map(|option| help.find(option).unwrap_or_else(|| panic!("{option} in {help}")))
            .collect();
    assert!(places.is_sorted(), "{help}");
    let version = |program: &str| {
        let words = [program, "-V"].map(Into::into);
        Options::read(words).unwrap_err().to_string()
    };
    let own = env!("CARGO_PKG_VERSION");
    assert_eq!(version("/usr/bin/ringcached"), format!("ringcached {own}\n"));
    assert_eq!(version("memcached"), format!("memcached 1.6.45 (ringcached {own})\n"));
    assert_eq!(version("./memcached"), version("memcached"));
}
