//! Nothing of a lab is left behind, however it ends, and what a dead lab could not remove the next one does.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A `lab up` that has finished starting.
struct Up {
    child: Child,
    dir: PathBuf,
    tag: String,
}

fn up() -> Result<Up> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.args(["up", "--bare", "--nodes", "1"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut dir = None;
    for line in BufReader::new(child.stdout.take().context("its output")?).lines() {
        let line = line?;
        if let Some(path) = line.strip_prefix("files, logs: ") {
            dir = Some(PathBuf::from(path));
        } else if line.starts_with("Enter ends") {
            break;
        }
    }
    let dir = dir.context("the lab ended before it was up")?;
    let tag = format!("herald-{}-0", child.id());
    ensure!(namespaces()?.iter().any(|name| name.starts_with(&tag)), "no namespace is called {tag}");
    Ok(Up { child, dir, tag })
}

fn namespaces() -> Result<Vec<String>> {
    let output = Command::new("ip").args(["netns", "list"]).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

/// Programs whose command line names the directory, the reaper aside.
fn programs_of(dir: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Ok(command) = std::fs::read_to_string(entry?.path().join("cmdline")) else { continue };
        if command.contains(&dir.display().to_string()) && !command.contains("herald-lab-reaper") {
            found.push(command.replace('\0', " "));
        }
    }
    Ok(found)
}

/// Waits until nothing of the lab is left. The reaper is nobody's child by then, so it can only be looked for.
fn ensure_gone(up: &Up) -> Result<()> {
    let begun = Instant::now();
    loop {
        let names: Vec<String> = namespaces()?.into_iter().filter(|name| name.starts_with(&up.tag)).collect();
        let programs = programs_of(&up.dir)?;
        if names.is_empty() && programs.is_empty() && !up.dir.exists() {
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(30) {
            bail!("left behind: {names:?}, {programs:?}, {} exists: {}", up.dir.display(), up.dir.exists());
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

#[test]
fn a_lab_that_is_killed_leaves_nothing_behind() -> Result<()> {
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut up = up()?;
        kill(Pid::from_raw(i32::try_from(up.child.id())?), signal)?;
        up.child.wait()?;
        ensure_gone(&up)?;
    }
    Ok(())
}

#[test]
fn a_lab_that_ends_by_itself_leaves_nothing_behind() -> Result<()> {
    let mut up = up()?;
    drop(up.child.stdin.take());
    ensure!(up.child.wait()?.success(), "lab up failed at its end");
    let names: Vec<String> = namespaces()?.into_iter().filter(|name| name.starts_with(&up.tag)).collect();
    ensure!(names.is_empty() && !up.dir.exists(), "left behind when it had ended: {names:?}");
    ensure_gone(&up)
}
