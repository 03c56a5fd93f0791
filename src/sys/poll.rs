//! Waiting for a few descriptors at once, for the thread that has no ring, and a look at one, for
//! those that have.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};

/// Waits until one of `descriptors` is readable or broken, or `timeout` is over.
///
/// The reply says for each whether to read it. An interrupted wait is one that found nothing.
pub fn readable<const N: usize>(
    descriptors: [BorrowedFd<'_>; N],
    timeout: Duration,
) -> io::Result<[bool; N]> {
    let mut polled = descriptors.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
    // A part of a millisecond more, so that a deadline is not polled for with timeout 0.
    let timeout = timeout + Duration::from_micros(999);
    match nix::poll::poll(&mut polled, PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX)) {
        Ok(_) => Ok(polled.map(|each| each.any().unwrap_or(true))),
        Err(Errno::EINTR) => Ok([false; N]),
        Err(errno) => Err(errno.into()),
    }
}

/// True when a descriptor is readable, or broken, at this moment.
pub(super) fn is_readable(descriptor: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(descriptor, PollFlags::POLLIN)];
    matches!(nix::poll::poll(&mut polled, PollTimeout::ZERO), Ok(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;

    #[test]
    fn only_what_is_readable_is_said_to_be() {
        let (mut one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        let wait = || readable([one.as_fd(), other.as_fd()], Duration::from_millis(1)).unwrap();
        assert_eq!(wait(), [false, false]);
        (&one).write_all(b"x").unwrap();
        assert_eq!(wait(), [false, true]);
        one.flush().unwrap();
        drop(other);
        assert!(readable([one.as_fd()], Duration::ZERO).unwrap()[0], "the end is readable");
    }
}
