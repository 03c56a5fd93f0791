//! Runs programs as clients: on the client's core, to their end, and not for ever.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringcached_load::clock::Clock;
use ringcached_load::cpu::{self, CpuTime};

use crate::cores;
use crate::servers::{because, pause};

const POLL: Duration = Duration::from_millis(5);

/// Runs programs, one at a time.
#[derive(Debug)]
pub struct Launcher<'a> {
    pub core: usize,
    /// Set by a signal: end soon.
    pub stop: &'a AtomicBool,
    /// For what programs write to files.
    pub folder: PathBuf,
}

impl Launcher<'_> {
    /// Runs a program to its end; says what it printed and used.
    pub fn finish(&self, mut command: Command, patience_s: f64) -> io::Result<(Output, CpuTime)> {
        let name = command.get_program().to_string_lossy().into_owned();
        let (out, err) = (self.folder.join("stdout"), self.folder.join("stderr"));
        command.stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&err)?);
        let mut child =
            Killed(cores::on(self.core, || command.spawn().map_err(|e| because(&name, &e)))?);
        let clock = Clock::start();
        let mut used = CpuTime::default();
        let patience = Duration::from_secs_f64(patience_s);
        while child.0.try_wait()?.is_none() {
            // The last look before it ends; a process that has ended has no threads to ask.
            used = cpu::of_process(child.0.id()).unwrap_or(used);
            self.check()?;
            if Duration::from_nanos(clock.ns()) > patience {
                return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{name} hangs")));
            }
            pause(POLL);
        }
        let status = child.0.wait()?;
        let output = Output { status, stdout: fs::read(&out)?, stderr: fs::read(&err)? };
        // 1 is how the load generator says that there were errors; its report has them.
        if !status.success() && status.code() != Some(1) {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(format!("{name}: {status}\n{text}")));
        }
        Ok((output, used))
    }

    /// Fails when a signal has asked for the end.
    pub fn check(&self) -> io::Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted"));
        }
        Ok(())
    }
}

/// What SIGINT and SIGTERM set from now on.
pub fn stop_on_signals() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// A process that does not outlive this.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended already; there is nobody to tell.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
