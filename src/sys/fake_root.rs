//! A root directory of a test's own, with files as `/proc` and `/sys` have them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// It is gone when the test is.
#[derive(Debug)]
pub struct FakeRoot(PathBuf);

impl FakeRoot {
    /// Files by their paths from the root, and the line that stands in each.
    pub fn new(files: &[(&str, &str)]) -> FakeRoot {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // Relaxed: only the number counts.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringcached-root-{}-{number}", std::process::id());
        let root = FakeRoot(std::env::temp_dir().join(name));
        for (path, line) in files {
            let path = root.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{line}\n")).unwrap();
        }
        root
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for FakeRoot {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
