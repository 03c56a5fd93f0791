//! The file of users: `-Y`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::error::StartError;
use crate::base::users::{USER_BYTES_MAX, USERS_MAX, Users};

/// A longer file is not one of users.
const FILE_BYTES_MAX: u64 = 64 << 10;

const _: () = assert!(FILE_BYTES_MAX > 4 * (USERS_MAX * USER_BYTES_MAX) as u64);

/// Reads who may use the server.
///
/// # Errors
/// If the file cannot be read, or does not say it.
pub fn read_users(path: &Path) -> Result<Users, StartError> {
    let refuse = |cause: &dyn std::fmt::Display, remedy: &str| {
        StartError::new("read the users of", path.display(), cause, remedy)
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes))
        .map_err(|error| refuse(&error, "Name a file that this user may read."))?;
    Users::parse(&bytes).map_err(|error| {
        let remedy = format!("Put one user on each line, as name:password; {USERS_MAX} at most.");
        refuse(&error, &remedy)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_users_or_what_is_wrong_with_it() {
        let path = std::env::temp_dir().join(format!("ringcached-users-{}", std::process::id()));
        std::fs::write(&path, "alice:secret\n").unwrap();
        assert!(read_users(&path).unwrap().admit(b"alice", b"secret"));
        std::fs::write(&path, "alice\n").unwrap();
        let error = read_users(&path).unwrap_err();
        assert!(error.cause.contains("line 1") && error.remedy.contains("name:password"));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read_users(&path).unwrap_err().subject, path.display().to_string());
        // What has no end is not read to its end.
        assert!(read_users(Path::new("/dev/zero")).unwrap_err().cause.contains("line 1"));
    }
}
