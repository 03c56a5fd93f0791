//! Whether `madvise(2)` turns a touched range of a memfd into a huge page.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const HUGE_BYTES: usize = 2 << 20;

/// Not in every libc that the `libc` crate knows.
const MADV_COLLAPSE: libc::c_int = 25;

/// Room for an aligned huge page wherever the mapping begins.
const RESERVED_BYTES: usize = 2 * HUGE_BYTES;

/// Addresses that are given back on drop, with whatever is mapped there. The kernel writes to them
/// only while we are in `madvise`, so rule R1 does not ask to keep them, and a huge page would be
/// much to leave behind.
struct Reservation {
    base: *mut c_void,
}

impl Reservation {
    fn new() -> io::Result<Reservation> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let (anywhere, access) = (std::ptr::null_mut(), libc::PROT_NONE);
        // SAFETY: a mapping at an address of the kernel's choice overlaps nothing.
        match unsafe { libc::mmap(anywhere, RESERVED_BYTES, access, flags, -1, 0) } {
            libc::MAP_FAILED => Err(io::Error::last_os_error()),
            base => Ok(Reservation { base }),
        }
    }

    /// Maps `memfd` at the multiple of 2 MiB inside: a huge page wants address and file offset
    /// aligned, and mmap(2) aligns neither by itself where `shmem_enabled` is `never`.
    fn map(&self, memfd: &OwnedFd) -> io::Result<*mut u8> {
        let skip = self.base.addr().next_multiple_of(HUGE_BYTES) - self.base.addr();
        // SAFETY: `skip` is less than a huge page, and the reservation is two.
        let aligned = unsafe { self.base.add(skip) };
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let (flags, fd) = (libc::MAP_SHARED | libc::MAP_FIXED, memfd.as_raw_fd());
        // SAFETY: what it replaces is inside our own reservation, where nothing lives.
        match unsafe { libc::mmap(aligned, HUGE_BYTES, access, flags, fd, 0) } {
            libc::MAP_FAILED => Err(io::Error::last_os_error()),
            mapped => Ok(mapped.cast()),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: exactly what was reserved, and no reference into it is ever made.
        unsafe { libc::munmap(self.base, RESERVED_BYTES) };
    }
}

fn memfd() -> io::Result<OwnedFd> {
    // SAFETY: the name is a C string.
    let fd = unsafe { libc::memfd_create(c"ringcached-probe".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Touches one byte of a 2-MiB range of a memfd, as an arena would, and collapses the range.
pub(super) fn collapse() -> io::Result<()> {
    let file = std::fs::File::from(memfd()?);
    file.set_len(HUGE_BYTES as u64)?;
    let reservation = Reservation::new()?;
    let range = reservation.map(&file.into())?;
    // SAFETY: the first byte of a writable mapping.
    unsafe { range.write_volatile(1) };
    // SAFETY: exactly the mapped range; collapsing it does not change its bytes.
    match unsafe { libc::madvise(range.cast(), HUGE_BYTES, MADV_COLLAPSE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
