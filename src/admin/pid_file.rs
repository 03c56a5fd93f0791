//! The file with the id of this process, for as long as it runs.

use std::io;
use std::path::{Path, PathBuf};

/// A file that was written and is to go with the process.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    text: String,
}

impl PidFile {
    /// Writes the file whole, under another name first: nobody finds it empty. `warn` is told who
    /// else runs by what stands there already.
    ///
    /// # Errors
    /// What open(2), write(2) and rename(2) say.
    pub fn write(path: &Path, warn: impl FnOnce(String)) -> io::Result<PidFile> {
        let other = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
        if let Some(other) = other.filter(|other: &u32| is_running(*other)) {
            let path = path.display();
            warn(format!("{path} named process {other}, which runs, and names this one now"));
        }
        let text = format!("{}\n", std::process::id());
        let mut new = path.as_os_str().to_owned();
        new.push(".tmp");
        std::fs::write(&new, &text)?;
        if let Err(error) = std::fs::rename(&new, path) {
            let _ = std::fs::remove_file(&new);
            return Err(error);
        }
        Ok(PidFile { path: path.to_owned(), text })
    }

    /// Removes it, unless another process has taken it over.
    ///
    /// # Errors
    /// What unlink(2) says.
    pub fn remove(self) -> io::Result<()> {
        match std::fs::read_to_string(&self.path) {
            Ok(text) if text == self.text => std::fs::remove_file(&self.path),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn is_running(id: u32) -> bool {
    Path::new("/proc").join(id.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_as_long_as_it_is_ours() {
        let path = std::env::temp_dir().join(format!("ringcached-pid-{}", std::process::id()));
        let mut warnings = Vec::new();
        let file = PidFile::write(&path, |warning| warnings.push(warning)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        assert!(warnings.is_empty());
        file.remove().unwrap();
        assert!(!path.exists());
        std::fs::write(&path, "1\n").unwrap();
        let file = PidFile::write(&path, |warning| warnings.push(warning)).unwrap();
        assert!(warnings[0].contains("process 1,"), "{warnings:?}");
        std::fs::write(&path, "1\n").unwrap();
        file.remove().unwrap();
        assert!(path.exists(), "another process has it");
        std::fs::remove_file(&path).unwrap();
        assert!(PidFile::write(Path::new("/nowhere/pid"), drop).is_err());
    }
}
