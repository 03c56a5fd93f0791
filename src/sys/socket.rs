//! Sockets: listeners made at start, connections made by the kernel.

use std::io;
use std::mem::ManuallyDrop;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, SockAddr, SockRef, Type};

use super::poll::is_readable;

/// What the kernel keeps for a peer beyond what the peer has room for. Its own choice grows to
/// megabytes, which connections that do not read take from everybody; a sender that is told of room
/// in time needs no more than this.
const UNSENT_BYTES_MAX: u32 = 256 << 10;

#[allow(clippy::cast_possible_truncation, reason = "it is 0")]
const AF_UNSPEC: libc::sa_family_t = libc::AF_UNSPEC as libc::sa_family_t;

/// Words of `struct tcp_info` as far as the last one that is read here, `tcpi_bytes_acked`: before
/// it stand eight numbers of one byte, the first of which is the state, 24 of four, and two of
/// eight.
const TCP_INFO_WORDS: usize = 16;

/// `TCP_CLOSE`: a connection that is no more.
const TCP_CLOSE: u8 = 7;

/// A connected socket. Not `Clone`, and closed only through the ring that owns it.
#[derive(Debug)]
#[must_use = "a dropped socket is never closed"]
pub struct Socket {
    fd: ManuallyDrop<OwnedFd>,
    is_local: bool,
}

impl Socket {
    pub(super) fn from_raw(fd: RawFd) -> Socket {
        // SAFETY: an accept gave us this descriptor, and it is closed by `into_owned` alone.
        let fd = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(fd) });
        Socket { fd, is_local: false }
    }

    #[cfg(test)]
    pub fn for_test(fd: RawFd) -> Socket {
        Socket::from_raw(fd)
    }

    #[cfg(test)]
    pub fn for_test_local(fd: RawFd) -> Socket {
        Socket { is_local: true, ..Socket::from_raw(fd) }
    }

    pub(super) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// True of a Unix socket.
    pub fn is_local(&self) -> bool {
        self.is_local
    }

    /// The address of the peer, where it has one.
    pub fn peer(&self) -> Option<SocketAddr> {
        SockRef::from(&*self.fd).peer_addr().ok()?.as_socket()
    }

    /// Ends a connection at once: the peer is told by a reset, and what was sent and is not
    /// acknowledged is forgotten. The descriptor stays.
    pub(super) fn disconnect(&self) {
        let nowhere = libc::sockaddr { sa_family: AF_UNSPEC, sa_data: [0; 14] };
        let len = u32::try_from(size_of::<libc::sockaddr>()).expect("a few bytes");
        // SAFETY: the address is readable for its length. An error means that it was no connection.
        unsafe { libc::connect(self.raw(), &raw const nowhere, len) };
    }

    /// Bytes that the kernel keeps because the peer has not taken them; 0 where it does not say.
    pub(super) fn untaken_bytes(&self) -> usize {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the request writes one integer, which is borrowed for the call.
        let result = unsafe { libc::ioctl(self.raw(), libc::TIOCOUTQ, &raw mut bytes) };
        if result == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
    }

    /// A number that changes by as many bytes as the peer takes: over TCP it is how many it has
    /// acknowledged; over a Unix socket, how many it has not read, which is less and less until the
    /// kernel has room for more. Always the same where the kernel does not say.
    pub(super) fn intake(&self) -> u64 {
        if self.is_local { self.untaken_bytes() as u64 } else { self.acknowledged_bytes() }
    }

    /// True when its connection is no more, as after a reset; a Unix socket has no such state.
    pub(super) fn is_gone(&self) -> bool {
        self.tcp_info().is_some_and(|info| info[0].to_ne_bytes()[0] == TCP_CLOSE)
    }

    fn acknowledged_bytes(&self) -> u64 {
        self.tcp_info().map_or(0, |info| info[TCP_INFO_WORDS - 1])
    }

    fn tcp_info(&self) -> Option<[u64; TCP_INFO_WORDS]> {
        let mut info = [0_u64; TCP_INFO_WORDS];
        let size = size_of_val(&info);
        let mut len = u32::try_from(size).expect("a few words");
        let (info_start, len_start) = ((&raw mut info).cast(), &raw mut len);
        let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
        // SAFETY: at most `len` bytes are written, and `info` has so many; whatever they are, they
        // are numbers.
        let result = unsafe { libc::getsockopt(self.raw(), level, name, info_start, len_start) };
        (result == 0 && len as usize == size).then_some(info)
    }

    pub(super) fn into_owned(self) -> OwnedFd {
        ManuallyDrop::into_inner(self.fd)
    }
}

/// A listening socket, shared by whoever accepts from it.
#[derive(Debug)]
pub struct Listener {
    socket: socket2::Socket,
    is_local: bool,
}

impl Listener {
    /// Listens on TCP. Connections inherit `TCP_NODELAY`, keep-alive and the bound on what the
    /// kernel keeps unsent.
    ///
    /// # Errors
    /// What socket(2), bind(2) and listen(2) say.
    pub fn tcp(address: SocketAddr, backlog: i32) -> io::Result<Listener> {
        let domain = Domain::for_address(address);
        let socket = socket2::Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_keepalive(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
        socket.bind(&address.into())?;
        socket.listen(backlog)?;
        Ok(Listener { socket, is_local: false })
    }

    /// Listens on a Unix socket with the given permissions, in place of a stale one. Whatever else
    /// is at the path stays: a slip of the operator, who may be root, must cost no file.
    ///
    /// # Errors
    /// What the kernel says; "in use" when another server is there; "exists" when what is there is
    /// no socket.
    pub fn unix(path: &Path, mode: u32, backlog: i32) -> io::Result<Listener> {
        let address = SockAddr::unix(path)?;
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => remove_stale(path, &address)?,
            Ok(_) => {
                let cause = "what is there is no socket, and is left alone";
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, cause));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&address)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        socket.listen(backlog)?;
        Ok(Listener { socket, is_local: true })
    }

    /// The address that the kernel gave, where port 0 was asked for.
    ///
    /// # Errors
    /// What getsockname(2) says.
    pub fn local_address(&self) -> io::Result<Option<SocketAddr>> {
        Ok(self.socket.local_addr()?.as_socket())
    }

    /// The path of a Unix socket.
    pub fn path(&self) -> Option<PathBuf> {
        let address = self.socket.local_addr().ok()?;
        address.as_pathname().map(Path::to_path_buf)
    }

    /// Marks what comes from it for firewalls; connections inherit it.
    ///
    /// # Errors
    /// What setsockopt(2) says: it takes CAP_NET_ADMIN.
    pub fn mark(&self, mark: u32) -> io::Result<()> {
        self.socket.set_mark(mark)
    }

    /// Listens no more: who connects is refused at once, and who waits to be accepted is told.
    pub(super) fn stop(&self) {
        // An error means that it does not listen.
        let _ = self.socket.shutdown(std::net::Shutdown::Read);
        if self.is_local && self.socket.set_nonblocking(true).is_ok() {
            // A Unix socket goes on to hand out who came before, and tells nobody of its end.
            while self.socket.accept().is_ok() {}
        }
    }

    /// True when somebody waits to be accepted.
    pub(super) fn has_arrivals(&self) -> bool {
        is_readable(self.socket.as_fd())
    }

    /// The connection that an accept from it gave.
    pub(super) fn accepted(&self, fd: RawFd) -> Socket {
        Socket { is_local: self.is_local, ..Socket::from_raw(fd) }
    }

    pub(super) fn raw(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// What the kernel keeps of requests in datagrams until they are received, if it may: about a
/// thousand of 1 KiB each, which it counts as 2,304 bytes each. Its own choice is a tenth of that,
/// and what comes on top is lost.
const DATAGRAM_BYTES_KEPT: usize = 1 << 20;

/// Binds for datagrams; an address of IPv6 for IPv6 alone.
///
/// # Errors
/// What socket(2) and bind(2) say.
pub fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let domain = Domain::for_address(address);
    let socket = socket2::Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
    }
    socket.set_recv_buffer_size(DATAGRAM_BYTES_KEPT)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// As `Listener::mark`.
///
/// # Errors
/// As there.
pub fn mark(socket: &UdpSocket, mark: u32) -> io::Result<()> {
    SockRef::from(socket).set_mark(mark)
}

/// Removes the path of a Unix socket that has stopped, unless another server is behind it by now.
///
/// # Errors
/// What the kernel says; "in use" when somebody is there.
pub fn remove_unix(path: &Path) -> io::Result<()> {
    remove_stale(path, &SockAddr::unix(path)?)
}

/// Removes the socket at a path if nobody is behind it, which the kernel says in one way only: a
/// socket of another type, or one that this user may not speak to, lives.
fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Whoever lets nobody in just now is there all the same.
    socket.set_nonblocking(true)?;
    match socket.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        Ok(()) | Err(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_connection_inherits_the_bound_on_what_is_unsent() {
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap(), 8).unwrap();
        let address = listener.local_address().unwrap().unwrap();
        let _peer = std::net::TcpStream::connect(address).unwrap();
        let (connection, _) = listener.socket.accept().unwrap();
        assert_eq!(connection.tcp_notsent_lowat().unwrap(), UNSENT_BYTES_MAX);
    }

    #[test]
    fn who_comes_is_seen_before_it_is_let_in() {
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap(), 8).unwrap();
        assert!(!listener.has_arrivals());
        let address = listener.local_address().unwrap().unwrap();
        let _peer = std::net::TcpStream::connect(address).unwrap();
        assert!(listener.has_arrivals());
        let _ = listener.socket.accept().unwrap();
        assert!(!listener.has_arrivals());
    }

    #[test]
    fn what_a_peer_has_not_taken_is_counted() {
        let (mut ours, mut peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let socket = Socket::for_test_local(ours.as_raw_fd());
        assert_eq!(socket.untaken_bytes(), 0);
        ours.write_all(&[1; 100]).unwrap();
        assert!(socket.untaken_bytes() > 0, "it was not read");
        peer.read_exact(&mut [0; 100]).unwrap();
        assert_eq!(socket.untaken_bytes(), 0);
    }

    /// Both ends of a connection over loopback, ours first.
    fn connected() -> (socket2::Socket, std::net::TcpStream) {
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap(), 8).unwrap();
        let address = listener.local_address().unwrap().unwrap();
        let peer = std::net::TcpStream::connect(address).unwrap();
        (listener.socket.accept().unwrap().0, peer)
    }

    #[test]
    fn what_a_peer_has_no_room_for_it_has_not_taken() {
        let (mut ours, mut peer) = connected();
        ours.set_nonblocking(true).unwrap();
        let socket = Socket::for_test(ours.as_raw_fd());
        let mut sent = 0;
        while let Ok(bytes) = ours.write(&[1; 1 << 16]) {
            sent += bytes;
        }
        assert!(socket.untaken_bytes() > 0, "{sent} bytes do not fit into its window");
        let mut read = vec![0; sent];
        peer.read_exact(&mut read).unwrap();
        // The acknowledgement of the last of them may be a moment away.
        let mut looks = std::iter::repeat_with(|| socket.untaken_bytes()).take(10_000_000);
        assert!(looks.any(|bytes| bytes == 0));
    }

    #[test]
    fn what_a_peer_takes_moves_its_intake_and_nothing_else_does() {
        let (mut ours, mut peer) = connected();
        ours.set_nonblocking(true).unwrap();
        let socket = Socket::for_test(ours.as_raw_fd());
        let before = socket.intake();
        let mut sent = 0;
        while let Ok(bytes) = ours.write(&[1; 1 << 16]) {
            sent += bytes as u64;
        }
        let at_rest = socket.intake();
        assert!((1..sent).contains(&(at_rest - before)), "{before}, {at_rest} of {sent}");
        assert_eq!(socket.intake(), at_rest, "it does not read");
        peer.read_exact(&mut vec![0; usize::try_from(sent).unwrap()]).unwrap();
        let mut looks = std::iter::repeat_with(|| socket.intake()).take(10_000_000);
        assert!(looks.any(|intake| intake == before + sent), "each byte once");
        let (mut ours, mut peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let socket = Socket::for_test_local(ours.as_raw_fd());
        ours.write_all(&[1; 5000]).unwrap();
        let before = socket.intake();
        peer.read_exact(&mut [0; 5000]).unwrap();
        assert!(before.abs_diff(socket.intake()) >= 5000);
    }

    #[test]
    fn nobody_connects_to_a_listener_that_has_stopped() {
        let folder = std::env::temp_dir().join(format!("ringcached-stop-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("socket");
        let tcp = Listener::tcp("127.0.0.1:0".parse().unwrap(), 8).unwrap();
        let unix = Listener::unix(&path, 0o700, 8).unwrap();
        let address = tcp.local_address().unwrap().unwrap();
        let _waits = std::net::TcpStream::connect(address).unwrap();
        let mut waits_too = std::os::unix::net::UnixStream::connect(&path).unwrap();
        [&tcp, &unix].into_iter().for_each(Listener::stop);
        let refused = |result: io::Result<()>| {
            result.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        };
        assert!(refused(std::net::TcpStream::connect(address).map(drop)));
        assert!(refused(std::os::unix::net::UnixStream::connect(&path).map(drop)));
        assert_eq!(waits_too.read(&mut [0]).unwrap(), 0, "it is told");
        let successor = Listener::unix(&path, 0o700, 8).unwrap();
        assert!(remove_unix(&path).is_err() && path.exists(), "it is the successor's");
        successor.stop();
        assert!(remove_unix(&path).is_ok() && !path.exists());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn who_has_reset_is_gone_and_who_sends_no_more_is_not() {
        let (ours, peer) = connected();
        let socket = Socket::for_test(ours.as_raw_fd());
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(!socket.is_gone(), "it may read on");
        let (ours, peer) = connected();
        let socket = Socket::for_test(ours.as_raw_fd());
        assert!(!socket.is_gone());
        SockRef::from(&peer).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(peer);
        let mut looks = std::iter::repeat_with(|| socket.is_gone()).take(10_000_000);
        assert!(looks.any(|is_gone| is_gone));
        let (ours, peer) = std::os::unix::net::UnixStream::pair().unwrap();
        drop(peer);
        assert!(!Socket::for_test_local(ours.as_raw_fd()).is_gone(), "it does not say");
    }

    #[test]
    fn only_a_socket_that_nobody_is_behind_is_replaced() {
        let folder = std::env::temp_dir().join(format!("ringcached-stale-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("socket");
        // It cannot be spoken to as to a stream, but lives.
        let living = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        assert!(Listener::unix(&path, 0o700, 8).is_err());
        assert!(path.exists());
        drop(living);
        let listener = Listener::unix(&path, 0o700, 0).unwrap();
        let kind = |result: io::Result<Listener>| result.err().map(|error| error.kind());
        let in_use = Some(io::ErrorKind::AddrInUse);
        assert_eq!(kind(Listener::unix(&path, 0o700, 8)), in_use);
        // The one before has filled its backlog.
        assert_eq!(kind(Listener::unix(&path, 0o700, 8)), in_use);
        drop(listener);
        assert!(Listener::unix(&path, 0o700, 8).is_ok());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
