//! The heap: what the allocator keeps although nobody uses it.

/// Gives free memory of the heap back to the system, where the allocator knows how.
pub fn trim() {
    #[cfg(all(target_env = "gnu", not(miri)))]
    // SAFETY: it takes the allocator's own locks, and touches nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Bytes of the files that are mapped into this process: its code and libraries. `None` where the
/// system does not say.
pub fn code_bytes() -> Option<u64> {
    std::fs::read_to_string("/proc/self/maps").ok().map(|maps| files_of(&maps))
}

fn files_of(maps: &str) -> u64 {
    let bytes = |line: &str| {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let path = words.nth(4)?;
        if !path.starts_with('/') || path.starts_with("/memfd:") {
            return None;
        }
        let address = |text| u64::from_str_radix(text, 16).ok();
        address(end)?.checked_sub(address(start)?)
    };
    maps.lines().filter_map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_are_code() {
        let maps = "\
55d000-55f000 r--p 00000000 fe:00 247282                     /usr/bin/head
55f000-560000 r-xp 00002000 fe:00 247282                     /usr/bin/a program
561000-571000 rw-p 00000000 00:00 0                          [heap]
571000-581000 rw-p 00000000 00:00 0
7f0000-800000 rw-s 00000000 00:01 5                          /memfd:ringcached (deleted)
800000-900000 rw-s 00000000 00:0e 7                          anon_inode:[io_uring]
";
        assert_eq!(files_of(maps), 3 << 12);
        assert!(code_bytes().is_none_or(|bytes| bytes > 100_000));
    }
}
