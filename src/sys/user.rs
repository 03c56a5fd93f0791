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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_and_nobody_else_is_invented() {
        let root = find("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(find("no such user!").unwrap(), None);
    }
}
