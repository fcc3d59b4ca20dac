//! A network namespace, and the one thread that lives in it.
//!
//! Everything the lab does inside a namespace (opening sockets, starting programs, writing sysctls) is a job for that
//! namespace's thread, so no other thread of the lab ever leaves the machine's own network. Sockets stay in the
//! namespace they were opened in, and programs stay in the one they were started in, wherever they are used from later.
//! The thread lives as long as the last clone of its [`Netns`]: children are told by the kernel when it ends.

use std::{
    fs::File,
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

type Job = Box<dyn FnOnce() + Send>;

/// A named network namespace. Clones share its thread.
#[derive(Clone, Debug)]
pub struct Netns {
    name: String,
    jobs: mpsc::Sender<Job>,
}

impl Netns {
    /// Creates the namespace under `/run/netns` (so that `ip netns exec` works for a person, too) and brings `lo` up.
    pub fn create(name: &str) -> Result<Self> {
        checked("ip", &["netns", "add", name])?;
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (entered, outcome) = mpsc::channel();
        let file = File::open(path(name)).with_context(|| format!("opening namespace {name}"))?;
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            let entry = setns(&file, CloneFlags::CLONE_NEWNET);
            let usable = entry.is_ok();
            if entered.send(entry).is_err() || !usable {
                return;
            }
            for job in inbox {
                job();
            }
        })?;
        outcome.recv()?.with_context(|| format!("entering namespace {name}"))?;
        let netns = Self { name: name.to_owned(), jobs };
        netns.ip(&["link set lo up"])?;
        Ok(netns)
    }

    /// The name `ip netns` knows it by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `job` on the namespace's thread and waits for its result.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (done, result) = mpsc::channel();
        let wrapped = move || {
            // The caller may have given up; its result is then nobody's.
            let _ = done.send(job());
        };
        self.jobs
            .send(Box::new(wrapped))
            .map_err(|_| anyhow!("the thread of namespace {} is gone", self.name))?;
        result.recv().with_context(|| format!("a job in namespace {} panicked", self.name))
    }

    /// Moves the calling thread into the namespace, for good.
    pub fn enter(&self) -> Result<()> {
        let file =
            File::open(path(&self.name)).with_context(|| format!("opening namespace {}", self.name))?;
        setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering namespace {}", self.name))
    }

    /// Runs `ip` commands (without the leading `ip`) in one process, in order; the first that fails stops it.
    pub fn ip(&self, commands: &[&str]) -> Result<()> {
        self.fed("ip", &["-batch", "-"], commands.join("\n"))
    }

    /// Loads an nftables script; all of it or nothing.
    pub fn nft(&self, script: &str) -> Result<()> {
        self.fed("nft", &["-f", "-"], script.to_owned())
    }

    /// Writes a sysctl of this namespace; `key` is a path below `/proc/sys/net`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let (file, text) = (format!("/proc/sys/net/{key}"), value.to_owned());
        let wrote = {
            let file = file.clone();
            self.run(move || std::fs::write(file, text))?
        };
        wrote.with_context(|| format!("setting {file} to {value} in {}", self.name))
    }

    /// Runs a short command in the namespace and gives its standard output.
    pub fn output(&self, program: &str, args: &[&str]) -> Result<String> {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null());
        let ran = self.run(move || command.output())?;
        text(program, args, ran)
    }

    /// Kills every process in the namespace, also grandchildren that no [`crate::Process`] stands for.
    pub(crate) fn kill_everything(&self) -> Result<()> {
        for pid in checked("ip", &["netns", "pids", &self.name])?.split_whitespace() {
            // It may have ended in the meantime.
            let _ = kill(Pid::from_raw(pid.parse()?), Signal::SIGKILL);
        }
        Ok(())
    }

    fn fed(&self, program: &'static str, args: &'static [&'static str], input: String) -> Result<()> {
        let ran = self.run(move || -> std::io::Result<std::process::Output> {
            let mut command = Command::new(program);
            command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                std::io::Write::write_all(&mut stdin, input.as_bytes())?;
            }
            child.wait_with_output()
        })?;
        text(program, args, ran).with_context(|| format!("in namespace {}", self.name)).map(drop)
    }
}

/// Runs a short command in the machine's own namespace and gives its standard output.
pub(crate) fn checked(program: &str, args: &[&str]) -> Result<String> {
    text(program, args, Command::new(program).args(args).stdin(Stdio::null()).output())
}

fn text(program: &str, args: &[&str], ran: std::io::Result<std::process::Output>) -> Result<String> {
    let output =
        ran.with_context(|| format!("starting {program} (is it installed? `make deps` does that)"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}
