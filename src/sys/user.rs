//! Who the process is, and becoming somebody else.

use std::ffi::CString;
use std::io;

use nix::unistd::{Gid, Uid};

/// A user of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

/// Looks a user up by name; `None` when there is none.
pub fn find(name: &str) -> io::Result<Option<User>> {
    let found = nix::unistd::User::from_name(name)?;
    Ok(found.map(|user| User { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
}

pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Becomes `user` for good: supplementary groups, group, user, in the only order that works.
///
/// The kernel changes one thread at a time and libc all threads of the process; the rings, whose
/// credentials are taken when they are made, must be made afterwards.
pub fn become_user(user: &User) -> io::Result<()> {
    let name = CString::new(user.name.as_str())?;
    let gid = Gid::from_raw(user.gid);
    nix::unistd::initgroups(&name, gid)?;
    nix::unistd::setgid(gid)?;
    nix::unistd::setuid(Uid::from_raw(user.uid))?;
    if user.uid != 0 && nix::unistd::setuid(Uid::from_raw(0)).is_ok() {
        return Err(io::Error::other("root could be regained"));
    }
    Ok(())
}

/// Lets the process leave a core again, which becoming somebody else forbids.
pub fn allow_core() -> io::Result<()> {
    nix::sys::prctl::set_dumpable(true)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::resource::{Resource, setrlimit};

    #[test]
    fn root_is_known_and_nobody_else_is_invented() {
        let root = find("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(find("no such user!").unwrap(), None);
    }

    /// Set where a test runs alone in its process.
    const CHILD: &str = "RINGCACHED_TEST_CHILD";

    /// Gives up root for the test below, in a process of its own.
    #[test]
    #[ignore = "only a part: run by the test below"]
    fn as_nobody() {
        assert!(std::env::var_os(CHILD).is_some(), "would give up root for every other test");
        let nobody = find("nobody").unwrap().unwrap();
        assert_eq!(crate::sys::limits::lockable_bytes().unwrap(), u64::MAX);
        setrlimit(Resource::RLIMIT_MEMLOCK, 4096, 8192).unwrap();
        become_user(&nobody).unwrap();
        assert_eq!(crate::sys::limits::lockable_bytes().unwrap(), 4096);
        assert!(!is_root());
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let ids = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().skip(1).map(|id| id.parse::<u32>().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(ids("Uid:"), [nobody.uid; 4]);
        assert_eq!(ids("Gid:"), [nobody.gid; 4]);
        assert!(!ids("Groups:").contains(&0), "root's groups are gone too");
    }

    #[test]
    fn root_is_given_up_for_good() {
        if !is_root() {
            return eprintln!("skipped: only root can give it up");
        }
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sys::user::tests::as_nobody", "--ignored"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && output.contains("1 passed"), "{output}");
    }
}
