//! Memory that is mapped once and never unmapped (rule R1).
//!
//! The kernel may write to it at any time, readers without a lock may look at it at any time, and a
//! later process may map it again: so it is addressed by offset, and there is no `Drop`.
//!
//! A `Loan` is a part of it that has one owner: who lends does not look at it until it comes back.
//! A `Span` is a part that nobody writes to until it comes back.

mod span;

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

pub use span::Span;

/// Bytes of a huge page, on the machines that have them.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A zero-filled mapping that lives as long as the process.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a `Region` is an address and a length. Reading or writing through it takes `unsafe` code
// of its own, which has to argue about threads itself.
unsafe impl Send for Region {}
// SAFETY: as for `Send`; no method changes the region.
unsafe impl Sync for Region {}

impl Region {
    /// Maps `len` bytes of private memory.
    ///
    /// # Errors
    /// What mmap(2) says, which refuses a `len` of 0 as well.
    pub fn map(len: usize) -> io::Result<Region> {
        Region::mmap(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE, None)
    }

    /// Maps `len` bytes of a new memfd, and returns the memfd too: it names the memory to others.
    ///
    /// The address is a multiple of `HUGE_PAGE_BYTES`, and huge pages are asked for: whether they
    /// come is the system's choice (`shmem_enabled`).
    ///
    /// # Errors
    /// What `memfd_create(2)`, `ftruncate(2)` and `mmap(2)` say.
    pub fn map_memfd(name: &CStr, len: usize) -> io::Result<(Region, OwnedFd)> {
        let fd = memfd(name, len)?;
        let region = Region::map_aligned(len, fd.as_fd())?;
        Ok((region, fd))
    }

    #[cfg(not(miri))]
    fn map_aligned(len: usize, fd: BorrowedFd<'_>) -> io::Result<Region> {
        let room = len.checked_add(HUGE_PAGE_BYTES).ok_or(io::ErrorKind::InvalidInput)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let reserved = Region::mmap_at(std::ptr::null_mut(), room, libc::PROT_NONE, flags, None)?;
        let start = reserved.base.as_ptr().addr().next_multiple_of(HUGE_PAGE_BYTES);
        let base = reserved.at(start - reserved.base.as_ptr().addr());
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE | libc::MAP_FIXED;
        let region = Region::mmap_at(base.as_ptr().cast(), len, access, flags, Some(fd))?;
        // SAFETY: the range was mapped just now. A refusal leaves small pages, which serve as well.
        unsafe { libc::madvise(region.base.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        Ok(region)
    }

    /// Miri knows no mappings of files.
    #[cfg(miri)]
    fn map_aligned(len: usize, fd: BorrowedFd<'_>) -> io::Result<Region> {
        Region::mmap(len, 0, Some(fd))
    }

    #[cfg(not(miri))]
    fn mmap(len: usize, flags: libc::c_int, fd: Option<BorrowedFd<'_>>) -> io::Result<Region> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        Region::mmap_at(std::ptr::null_mut(), len, access, flags, fd)
    }

    /// Maps at an address of the kernel's choice, or with `MAP_FIXED` in place of a reservation.
    #[cfg(not(miri))]
    fn mmap_at(
        at: *mut libc::c_void,
        len: usize,
        access: libc::c_int,
        flags: libc::c_int,
        fd: Option<BorrowedFd<'_>>,
    ) -> io::Result<Region> {
        use std::os::fd::AsRawFd;
        let fd = fd.map_or(-1, |fd| fd.as_raw_fd());
        // SAFETY: the mapping overlaps nothing, or a reservation of ours that nothing refers to.
        let base = unsafe { libc::mmap(at, len, access, flags, fd, 0) };
        match base {
            libc::MAP_FAILED => Err(io::Error::last_os_error()),
            base => Ok(Region { base: NonNull::new(base.cast()).expect("mmap(2) of NULL"), len }),
        }
    }

    /// Miri knows no mappings of files; leaked zero-filled memory has the same guarantees.
    #[cfg(miri)]
    fn mmap(len: usize, _: libc::c_int, _: Option<BorrowedFd<'_>>) -> io::Result<Region> {
        let layout = std::alloc::Layout::from_size_align(len, 4096).expect("a small test region");
        assert!(len > 0, "mmap(2) refuses it");
        // SAFETY: the layout is not empty.
        let base = unsafe { std::alloc::alloc_zeroed(layout) };
        Ok(Region { base: NonNull::new(base).ok_or(io::ErrorKind::OutOfMemory)?, len })
    }

    #[allow(clippy::len_without_is_empty, reason = "a region is never empty")]
    pub fn len(self) -> usize {
        self.len
    }

    /// The address of byte `offset`.
    ///
    /// # Panics
    /// If `offset` is outside.
    #[inline]
    pub fn at(self, offset: usize) -> NonNull<u8> {
        assert!(offset < self.len);
        // SAFETY: `offset` is inside the one mapping that `base` points to.
        unsafe { self.base.add(offset) }
    }

    /// The address of the first of `len` bytes at `offset`.
    ///
    /// # Panics
    /// If any of them is outside.
    #[inline]
    pub fn span(self, offset: usize, len: usize) -> NonNull<u8> {
        assert!(offset <= self.len && len <= self.len - offset);
        // SAFETY: `offset` is inside the one mapping that `base` points to, or one past its end.
        unsafe { self.base.add(offset) }
    }
}

impl Region {
    /// Makes one huge page of the `HUGE_PAGE_BYTES` at `offset`, whatever is in them. They become
    /// memory if they were none; bytes and addresses stay as they are.
    ///
    /// # Errors
    /// What madvise(2) says: EINVAL where the kernel does not do it, ENOMEM or EAGAIN where it
    /// finds no huge page now.
    ///
    /// # Panics
    /// If the range is outside.
    pub fn collapse(self, offset: usize) -> io::Result<()> {
        let _ = self.span(offset, HUGE_PAGE_BYTES);
        // A range without any page is refused, so it is given its first.
        self.advise(offset, 4096, libc::MADV_POPULATE_WRITE)?;
        self.advise(offset, HUGE_PAGE_BYTES, libc::MADV_COLLAPSE)?;
        // It is mapped here and not by who uses it first, who would wait for the next collapse.
        self.advise(offset, 4096, libc::MADV_POPULATE_WRITE)
    }

    /// Takes `len` bytes at `offset` from the system, as if each page of them were written to.
    ///
    /// # Errors
    /// What madvise(2) says: ENOMEM where there is no memory.
    ///
    /// # Panics
    /// If the range is outside.
    pub fn populate(self, offset: usize, len: usize) -> io::Result<()> {
        self.advise(offset, len, libc::MADV_POPULATE_WRITE)
    }

    /// Gives an advice that changes no byte.
    fn advise(self, offset: usize, len: usize, advice: libc::c_int) -> io::Result<()> {
        let start: *mut libc::c_void = self.span(offset, len).as_ptr().cast();
        // SAFETY: the range is inside the mapping, and no such advice changes a byte of it.
        match unsafe { libc::madvise(start, len, advice) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Bytes of a region that belong to the holder alone. Not `Clone`.
#[derive(Debug)]
#[must_use = "a dropped loan is memory lost for ever"]
pub struct Loan {
    region: Region,
    offset: usize,
    len: usize,
}

impl Loan {
    /// Lends `len` bytes at `offset` out.
    ///
    /// # Panics
    /// If any of them is outside.
    ///
    /// # Safety
    /// Nobody else may refer to these bytes until the lender has this loan back.
    pub unsafe fn of(region: Region, offset: usize, len: usize) -> Loan {
        let _ = region.span(offset, len);
        Loan { region, offset, len }
    }

    /// New private memory, lent by nobody.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub fn map(len: usize) -> io::Result<Loan> {
        let region = Region::map(len)?;
        Ok(Loan { region, offset: 0, len })
    }

    #[allow(clippy::len_without_is_empty, reason = "no region is empty, and nothing else is lent")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Where the bytes begin in `region`; `None` when they are of another.
    pub fn offset_in(&self, region: Region) -> Option<usize> {
        (self.region.base == region.base).then_some(self.offset)
    }

    /// The address of the first byte.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.span(0, self.len)
    }

    /// The address of the first of `len` bytes at `offset` of the loan.
    ///
    /// # Panics
    /// If any of them is outside.
    #[inline]
    pub(super) fn span(&self, offset: usize, len: usize) -> NonNull<u8> {
        assert!(offset <= self.len && len <= self.len - offset);
        self.region.span(self.offset + offset, len)
    }

    /// Gives the memory back to the system, of a file in memory too. The addresses stay ours, and
    /// the bytes read as zeros.
    ///
    /// # Errors
    /// What madvise(2) says: EINVAL where the memory is locked, for one.
    pub fn empty(&mut self) -> io::Result<()> {
        let start: *mut libc::c_void = self.span(0, self.len).as_ptr().cast();
        let advise = |advice| {
            // SAFETY: the range is inside the mapping, which stays, and ours alone; zeros are as
            // initialised as what was there.
            match unsafe { libc::madvise(start, self.len, advice) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        // A file is told to forget its pages; private memory has no file, and is dropped.
        advise(libc::MADV_REMOVE).or_else(|_| advise(libc::MADV_DONTNEED))
    }
}

#[cfg(not(miri))]
fn memfd(name: &CStr, len: usize) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    let bytes = i64::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: `name` is a C string.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, for us alone.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the descriptor is open.
    match unsafe { libc::ftruncate(std::os::fd::AsRawFd::as_raw_fd(&fd), bytes) } {
        0 => Ok(fd),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(miri)]
fn memfd(_: &CStr, _: usize) -> io::Result<OwnedFd> {
    Ok(std::fs::File::open("/dev/null")?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_zero_filled_and_checked() {
        let (memfd, _fd) = Region::map_memfd(c"test", 8192).unwrap();
        for region in [Region::map(8192).unwrap(), memfd] {
            assert_eq!(region.len(), 8192);
            let last = region.at(8191);
            // SAFETY: the byte is inside the mapping, and nobody else knows the mapping.
            assert_eq!(unsafe { last.read() }, 0);
            assert_eq!(
                region.span(8192, 0),
                region.span(0, 8192).map_addr(|at| at.saturating_add(8192))
            );
        }
    }

    #[cfg(not(miri))]
    #[test]
    fn a_huge_page_keeps_what_was_there() {
        let (region, _fd) = Region::map_memfd(c"test", 2 * HUGE_PAGE_BYTES).unwrap();
        let at = region.at(HUGE_PAGE_BYTES + 77);
        // SAFETY: the byte is inside the mapping, and nobody else knows the mapping.
        unsafe { at.write(7) };
        if let Err(error) = region.collapse(HUGE_PAGE_BYTES) {
            return eprintln!("no huge pages here: {error}");
        }
        // SAFETY: as above.
        assert_eq!(unsafe { at.read() }, 7);
    }

    #[cfg(not(miri))]
    #[test]
    fn an_emptied_loan_is_zeros_in_a_file_too() {
        let (memfd, _fd) = Region::map_memfd(c"test", 3 * 4096).unwrap();
        // SAFETY: nobody else knows the region.
        let part = unsafe { Loan::of(memfd, 4096, 4096) };
        assert_eq!((part.offset_in(memfd), part.len()), (Some(4096), 4096));
        for mut loan in [part, Loan::map(4096).unwrap()] {
            let last = loan.span(4095, 1);
            // SAFETY: the byte is inside the loan, which is ours.
            unsafe { last.write(7) };
            loan.empty().unwrap();
            // SAFETY: as above.
            assert_eq!(unsafe { last.read() }, 0);
        }
    }

    #[test]
    #[should_panic(expected = "offset < self.len")]
    fn outside_is_refused() {
        let _ = Region::map(4096).unwrap().at(4096);
    }
}
