//! What the server takes from the host before it starts: limits, addresses, an identity.
//!
//! ```text
//!   descriptors, locked memory -> listeners -> another user -> memory lock
//!   \_______ may need root _________________/  \___ must not come before ___/
//! ```

use std::fmt::{Display, Write};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::config::{Host, Placement, Plan, StartError};
use crate::sys::socket::Listener;
use crate::sys::{limits, probe, socket, user};

use super::datagrams::DatagramSocket;
use super::launch::Sockets;

/// What was granted.
#[derive(Debug, Default)]
pub struct Claim {
    pub sockets: Sockets,
    /// Where they listen, for people.
    pub addresses: Vec<String>,
    /// What was not granted and can be done without.
    pub warnings: Vec<String>,
}

/// Takes what `plan` needs, and gives up root where it says so.
///
/// # Errors
/// What the host refuses.
pub fn claim(plan: &Plan) -> Result<Claim, StartError> {
    let descriptors = plan.descriptors_max();
    limits::raise_descriptors(descriptors).map_err(|shortage| {
        let remedy = format!("Lower -c, or raise ulimit -n (LimitNOFILE=) to {descriptors}.");
        let subject = format!("{} connections", plan.connections_max);
        StartError::new("allow", subject, shortage, remedy)
    })?;
    limits::raise_locked_memory();
    if plan.process.core_dumps && !limits::raise_core().unwrap_or(false) {
        let remedy = "Raise ulimit -c (LimitCORE=), or leave -r out.";
        let cause = "failed to ensure corefile creation";
        return Err(StartError::new("allow", "a core", cause, remedy));
    }
    let mut claim = bind(plan)?;
    if let Some(path) = &plan.process.port_file
        && plan.listeners.unix.is_none()
        && let Err(error) = write_ports(path, &claim.sockets)
    {
        claim.warnings.push(format!("cannot write the ports to {}: {error}", path.display()));
    }
    if let Some(user) = &plan.user {
        user::become_user(user).map_err(|error| {
            let remedy = "Start as root with CAP_SETUID and CAP_SETGID, or as that user.";
            StartError::new("become", &user.name, error, remedy)
        })?;
    }
    if plan.process.core_dumps {
        // It is a help, and no more: where it is refused, there is no core.
        let _ = user::allow_core();
    }
    if plan.process.lock_memory
        && let Err(cause) = lock_memory(plan.memory_bytes)
    {
        // As in memcached, whose operators give -k in containers that do not allow it.
        let remedy = "raise ulimit -l (LimitMEMLOCK=) above -m";
        claim.warnings.push(format!("-k has no effect: {cause}; {remedy}"));
    }
    Ok(claim)
}

/// Removes what would outlive the server: the path of its Unix socket, unless the next one is there
/// already.
pub fn give_up(plan: &Plan) {
    if let Some(unix) = &plan.listeners.unix {
        // One that stays is replaced by the next server.
        let _ = socket::remove_unix(&unix.path);
    }
}

/// Locks the process into RAM. A limit below `memory_bytes` would only show later, as a refusal of
/// the table's memory.
fn lock_memory(memory_bytes: u64) -> Result<(), String> {
    let allowed = limits::lockable_bytes().map_err(|error| error.to_string())?;
    if allowed < memory_bytes {
        return Err(format!("{} of {} MiB may be locked", allowed >> 20, memory_bytes >> 20));
    }
    limits::lock_memory().map_err(|error| error.to_string())
}

/// Names the ports that were bound, in memcached's words. The file is whole when it is there.
fn write_ports(path: &Path, sockets: &Sockets) -> io::Result<()> {
    let mut text = String::new();
    let mut add = |protocol: &str, address: SocketAddr| {
        let family = if address.is_ipv4() { "INET" } else { "INET6" };
        let _ = writeln!(text, "{protocol} {family}: {}", address.port());
    };
    for listener in &sockets.stream {
        listener.local_address()?.into_iter().for_each(|address| add("TCP", address));
    }
    for each in &sockets.datagram {
        add("UDP", each.socket.local_addr()?);
    }
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".lck");
    std::fs::write(&unfinished, text)?;
    std::fs::rename(&unfinished, path)
}

/// What this host and its kernel offer, as text, and whether the server can serve on it.
pub fn report(host: &Host, placement: &Placement) -> (String, bool) {
    let support = probe::run();
    (format!("{}{}", host.describe(placement), probe::render(&support)), support.is_ok())
}

/// Binds all that the plan names. Where the system chooses the port, it is the same everywhere.
fn bind(plan: &Plan) -> Result<Claim, StartError> {
    let backlog = i32::try_from(plan.backlog).unwrap_or(i32::MAX);
    let mut claim = Claim::default();
    let mut chosen = 0;
    for planned in plan.listeners.tcp.iter().map(|bound| bound.address) {
        let port = if planned.port() == 0 { chosen } else { planned.port() };
        let (listener, address) = bind_tcp(SocketAddr::new(planned.ip(), port), backlog)?;
        if planned.port() == 0 {
            chosen = address.port();
        }
        claim.sockets.stream.push(listener);
        claim.addresses.push(address.to_string());
    }
    if let Some(unix) = &plan.listeners.unix {
        let path = unix.path.display();
        let listener = patiently(|| Listener::unix(&unix.path, unix.mask, backlog));
        claim.sockets.stream.push(listener.map_err(|error| refused(&path, error))?);
        claim.addresses.push(path.to_string());
    }
    bind_udp(plan, &mut claim)?;
    if let Some(mark) = plan.extended.socket_mark
        && let Err(error) = mark_all(&claim.sockets, mark)
    {
        claim.warnings.push(format!("-o sock_cookie_id={mark} has no effect: {error}"));
    }
    Ok(claim)
}

fn mark_all(sockets: &Sockets, mark: u32) -> io::Result<()> {
    sockets.stream.iter().try_for_each(|listener| listener.mark(mark))?;
    sockets.datagram.iter().try_for_each(|each| socket::mark(&each.socket, mark))
}

/// Binds for datagrams, after all that connections come from: they are numbered on.
fn bind_udp(plan: &Plan, claim: &mut Claim) -> Result<(), StartError> {
    let mut chosen = 0;
    for bound in &plan.listeners.udp {
        let is_chosen = bound.address.port() == 0;
        let port = if is_chosen { chosen } else { bound.address.port() };
        let address = SocketAddr::new(bound.address.ip(), port);
        let refused = |error| refused(&format!("udp {address}"), error);
        let socket = socket::bind_udp(address).map_err(refused)?;
        let address = socket.local_addr().map_err(refused)?;
        if is_chosen {
            chosen = address.port();
        }
        let listeners = claim.sockets.stream.len() + claim.sockets.datagram.len();
        claim.sockets.datagram.push(DatagramSocket {
            socket,
            listener: u32::try_from(listeners).expect("fewer than 2^32 listeners"),
            protocol: bound.protocol,
            reply_bytes_max: plan.udp_reply_bytes_max,
        });
        claim.addresses.push(format!("udp {address}"));
    }
    Ok(())
}

fn bind_tcp(address: SocketAddr, backlog: i32) -> Result<(Listener, SocketAddr), StartError> {
    let bind = || {
        let listener = Listener::tcp(address, backlog)?;
        let local = listener.local_address()?.unwrap_or(address);
        Ok((listener, local))
    };
    patiently(bind).map_err(|error| refused(&address, error))
}

/// Tries for a second to have an address that is taken: the rings of a server that was killed hold
/// its listeners until the kernel has taken them apart.
#[allow(clippy::disallowed_methods, reason = "nothing is served yet")]
fn patiently<T>(mut bind: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..20 {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                std::thread::sleep(Duration::from_millis(50));
            }
            result => return result,
        }
    }
    bind()
}

fn refused(subject: &dyn Display, error: io::Error) -> StartError {
    // An error made by us, as for a Unix socket that answers, has a kind and no errno.
    let is_taken = error.kind() == io::ErrorKind::AddrInUse;
    let errno = if is_taken { Some(libc::EADDRINUSE) } else { error.raw_os_error() };
    let remedy = match errno {
        Some(libc::EADDRINUSE) => "Stop what listens there (ss -ltnxp), or use another -p or -s.",
        Some(libc::EADDRNOTAVAIL) => "Use an address of this host with -l.",
        Some(libc::EACCES) => "Use a port from 1024 on, or a place that this user may write to.",
        Some(_) | None => "Use another address with -l, or another path with -s.",
    };
    StartError::new("listen on", subject, error, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::protocol::Protocol;
    use std::os::unix::fs::PermissionsExt;

    fn plan(line: &str) -> Plan {
        let words: Vec<_> = line.split_whitespace().collect();
        Plan::parse(&words).unwrap()
    }

    #[test]
    fn a_chosen_port_is_the_same_everywhere() {
        let claim = bind(&plan("-p -1 -l 127.0.0.1,127.0.0.2,127.0.0.3:0")).unwrap();
        let port = |address: &String| address.split_once(':').unwrap().1.to_owned();
        let ports: Vec<_> = claim.addresses.iter().map(port).collect();
        assert_eq!(claim.sockets.stream.len(), 3);
        assert_ne!(ports[0], "0");
        assert!(ports.iter().all(|port| *port == ports[0]), "{ports:?}");
    }

    #[test]
    fn a_taken_address_names_itself_and_a_way_out() {
        let taken = bind(&plan("-p -1 -l 127.0.0.1")).unwrap();
        let port = taken.addresses[0].split_once(':').unwrap().1;
        let error = bind(&plan(&format!("-p {port} -l 127.0.0.1"))).unwrap_err();
        assert_eq!(error.subject, taken.addresses[0]);
        assert!(error.remedy.contains("another -p"), "{error}");
        assert!(bind(&plan("-p 9 -l 192.0.2.1")).unwrap_err().remedy.contains("of this host"));
    }

    #[test]
    fn datagrams_come_in_everywhere_at_one_port() {
        let line = "-p -1 -U -1 --udp-beyond-loopback -B ascii -l *,proto[binary]:127.0.0.1";
        let Ok(claim) = bind(&plan(line)) else {
            // The port that was chosen for one address was taken at another.
            return;
        };
        let bound = &claim.sockets.datagram;
        let ports: Vec<_> =
            bound.iter().map(|each| each.socket.local_addr().unwrap().port()).collect();
        assert!(ports[0] != 0 && ports.iter().all(|port| *port == ports[0]), "{ports:?}");
        let numbers: Vec<_> = bound.iter().map(|each| each.listener as usize).collect();
        let first = claim.sockets.stream.len();
        assert_eq!(numbers, (first..first + bound.len()).collect::<Vec<_>>());
        assert_eq!(bound.last().unwrap().protocol, Protocol::Binary);
    }

    #[test]
    fn a_unix_socket_has_its_mask_and_one_server() {
        let path = std::env::temp_dir().join(format!("ringcached-claim-{}", std::process::id()));
        let line = format!("-s {} -a 0640", path.display());
        let claim = bind(&plan(&line)).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!((mode & 0o777, claim.addresses[0].as_str()), (0o640, path.to_str().unwrap()));
        assert!(bind(&plan(&line)).unwrap_err().remedy.contains("-s"));
        drop(claim);
        assert!(bind(&plan(&line)).is_ok(), "what nobody answers at is replaced");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_file_where_the_unix_socket_should_be_is_left_alone() {
        let path = std::env::temp_dir().join(format!("ringcached-file-{}", std::process::id()));
        std::fs::write(&path, "precious").unwrap();
        let error = bind(&plan(&format!("-s {}", path.display()))).unwrap_err();
        assert!(error.cause.contains("no socket") && error.remedy.contains("-s"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn ports_are_named_in_a_file() {
        let path = std::env::temp_dir().join(format!("ringcached-ports-{}", std::process::id()));
        let mut plan = plan("-p -1 -U -1 -l 127.0.0.1");
        plan.process.port_file = Some(path.clone());
        let claim = claim(&plan).unwrap();
        let port = |address: &String| address.rsplit_once(':').unwrap().1.to_owned();
        let ports: Vec<_> = claim.addresses.iter().map(port).collect();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("TCP INET: {}\nUDP INET: {}\n", ports[0], ports[1]));
        assert_ne!(ports[1], "0");
        std::fs::remove_file(&path).unwrap();
        plan.process.port_file = Some("/nowhere/ports".into());
        let claim = super::claim(&plan).unwrap();
        assert!(claim.warnings[0].contains("/nowhere/ports"), "{:?}", claim.warnings);
    }

    #[test]
    fn more_connections_than_descriptors_are_refused() {
        let error = claim(&plan("-p -1 -l 127.0.0.1 -c 2147483647")).unwrap_err();
        assert!(error.remedy.contains("-c"), "{error}");
        assert_eq!(error.subject, "2147483647 connections");
    }

    #[test]
    fn the_report_says_whether_this_host_will_do() {
        let (text, good) = report(&Host::here(), &plan("-p 9").placement);
        assert!(!text.is_empty());
        assert_eq!(good, probe::run().is_ok());
    }
}
