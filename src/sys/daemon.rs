//! Going into the background, as daemon(3) does; but who started it learns how the start went.
//!
//! ```text
//!   program --fork--> waits for a word ........... ends with 0, or as the start did
//!                \--> session of its own, serves, says the word, lets go of the terminal
//! ```

use std::fs::File;
use std::io::{self, PipeWriter, Read, Write};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid};

/// Which of the two processes this is.
#[derive(Debug)]
pub enum Detached {
    /// The one that was started, when the other one serves, or has ended: the exit code.
    Starter(u8),
    /// The one that is to serve.
    Server(Starter),
}

/// Who waits to hear that it is served.
#[derive(Debug)]
pub struct Starter {
    word: PipeWriter,
}

/// Forks. The server is in a session of its own, and in the root directory unless it is to
/// `stay_here`, where it may leave a core.
///
/// There must be no other thread yet: it would not be there in the server.
///
/// # Errors
/// What pipe(2), fork(2), setsid(2) and chdir(2) say.
pub fn detach(stay_here: bool) -> io::Result<Detached> {
    let (mut hearing, word) = io::pipe()?;
    // SAFETY: this process has one thread, so the child has all that the parent has.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            drop(word);
            let served = hearing.read_exact(&mut [0]).is_ok();
            if served {
                return Ok(Detached::Starter(0));
            }
            let code = match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, code)) => u8::try_from(code).unwrap_or(u8::MAX),
                Ok(_) | Err(_) => u8::MAX,
            };
            Ok(Detached::Starter(code))
        }
        ForkResult::Child => {
            drop(hearing);
            setsid()?;
            if !stay_here {
                std::env::set_current_dir("/")?;
            }
            Ok(Detached::Server(Starter { word }))
        }
    }
}

impl Starter {
    /// Says that clients are served, and lets go of the terminal unless it is to be written to.
    ///
    /// # Errors
    /// Where there is no `/dev/null`; that the starter is gone is none.
    pub fn release(mut self, keep_terminal: bool) -> io::Result<()> {
        let silenced = if keep_terminal { Ok(()) } else { silence() };
        let _ = self.word.write_all(&[1]);
        silenced
    }
}

fn silence() -> io::Result<()> {
    let nowhere = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&nowhere)?;
    dup2_stdout(&nowhere)?;
    dup2_stderr(&nowhere)?;
    Ok(())
}
