//! A program running in a namespace: started, stopped, killed by its own process id and never by name.
//!
//! Whatever happens to the lab, no program outlives it: the kernel sends SIGKILL when the namespace's thread is gone
//! (`setpriv --pdeathsig`), and [`Process`] kills and reaps on drop.

use std::{
    fs::File,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::netns::Netns;

/// A running (or ended) program.
#[derive(Debug)]
pub struct Process {
    what: String,
    pid: Pid,
    log: PathBuf,
    child: Mutex<Child>,
}

impl Process {
    /// Starts `program` in `netns`; both its outputs are appended to `log`.
    pub fn start<S: AsRef<std::ffi::OsStr>>(
        netns: &Netns,
        what: &str,
        program: &Path,
        args: impl IntoIterator<Item = S>,
        log: &Path,
    ) -> Result<Self> {
        let out = File::options().create(true).append(true).open(log)?;
        let err = out.try_clone()?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(args);
        // A group of its own: Ctrl-C in the terminal reaches the lab, which then ends its children in order.
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        let child = netns.run(move || command.spawn())?.with_context(|| format!("starting {what}"))?;
        let pid = Pid::from_raw(i32::try_from(child.id()).context("a process id beyond i32")?);
        Ok(Self { what: what.to_owned(), pid, log: log.to_owned(), child: Mutex::new(child) })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Sends a signal; an ended program takes none.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.exited()?.is_none() {
            kill(self.pid, signal).with_context(|| format!("sending {signal} to {}", self.what))?;
        }
        Ok(())
    }

    /// Freezes it (SIGSTOP): it keeps its sockets and answers nothing.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets a frozen one go on.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Kills it without a chance to say good-bye, and reaps it.
    pub fn kill(&self) -> Result<()> {
        let mut child = self.child();
        child.kill().with_context(|| format!("killing {}", self.what))?;
        child.wait()?;
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub fn terminate(&self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait()
    }

    /// Waits until it has ended.
    pub fn wait(&self) -> Result<ExitStatus> {
        Ok(self.child().wait()?)
    }

    /// Its exit status, if it has ended.
    pub fn exited(&self) -> Result<Option<ExitStatus>> {
        Ok(self.child().try_wait()?)
    }

    /// Waits until its output holds `words`.
    pub fn await_words(&self, words: &str, patience: Duration) -> Result<()> {
        let begun = Instant::now();
        while !std::fs::read_to_string(&self.log)?.contains(words) {
            let what = &self.what;
            ensure!(
                begun.elapsed() < patience,
                "{what} does not say {words:?} within {patience:?} but:\n{}",
                self.last_words()
            );
            // A file has no event that a plain read could wait for.
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The last lines it wrote: what an error message should show.
    pub fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(8)..).unwrap_or_default().join("\n")
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.kill();
    }
}
