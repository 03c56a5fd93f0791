//! Arrays of atomics in mapped memory: the buckets of the index, and its directory.

use std::io;

use super::{Arena, Ref};
use crate::base::sync::atomic::AtomicU32;
use crate::store::index::{Bucket, SEGMENT_BUCKETS, SEGMENT_BYTES};
use crate::sys::region::Region;

const _: () = assert!(cfg!(loom) || size_of::<[Bucket; SEGMENT_BUCKETS]>() == SEGMENT_BYTES);

impl Arena {
    /// The buckets of a segment of the index. `segment` counts segments from the arena's start.
    ///
    /// # Panics
    /// If it is outside the arena, or under loom, whose atomics do not fit into plain memory.
    #[inline]
    pub(in crate::store) fn buckets(&self, segment: u32) -> &[Bucket; SEGMENT_BUCKETS] {
        not_under_loom();
        let at = self.region.span(segment as usize * SEGMENT_BYTES, SEGMENT_BYTES);
        // SAFETY: in bounds, aligned to 64 bytes, and never unmapped. The page was given to the
        // index when all its slots were free, and the index accesses it only atomically; it gives
        // it back after grace, when nobody holds what is returned here.
        unsafe { at.cast().as_ref() }
    }

    #[inline]
    pub(in crate::store) fn prefetch_bucket(&self, segment: u32, bucket: usize) {
        self.prefetch_at(segment as usize * SEGMENT_BYTES + bucket * 64);
    }

    /// Asks for a line of the index.
    #[inline]
    pub(in crate::store) fn prefetch_line(&self, line: &Bucket) {
        let offset = std::ptr::from_ref(line).addr() - self.region.at(0).addr().get();
        self.prefetch_at(offset);
    }

    /// The number of the first segment of a page that is handed to the index.
    pub(in crate::store) fn first_segment(page: Ref) -> u32 {
        u32::try_from(page.offset() / SEGMENT_BYTES).expect("2 TiB are 2^27 segments")
    }
}

/// loom's atomics do not lie in plain memory; a model brings its own.
#[inline]
fn not_under_loom() {
    #[cfg(loom)]
    panic!("buckets and directories of a model are its own");
}

/// A zero-filled array that takes memory only where it is used.
#[derive(Debug)]
pub(in crate::store) struct Words {
    region: Region,
    len: usize,
}

impl Words {
    pub(in crate::store) fn map(len: usize) -> io::Result<Words> {
        Ok(Words { region: Region::map(len * size_of::<u32>())?, len })
    }

    /// Bytes of it, used or not.
    pub(in crate::store) fn bytes(&self) -> usize {
        self.len * size_of::<u32>()
    }

    #[inline]
    pub(in crate::store) fn as_slice(&self) -> &[AtomicU32] {
        not_under_loom();
        let at = self.region.at(0).cast();
        // SAFETY: in bounds, as `map` made the region for just these; aligned, zero-filled, never
        // unmapped, and known only to this value, which gives it out as atomics only.
        unsafe { std::slice::from_raw_parts(at.as_ptr(), self.len) }
    }
}
