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

const NAMESPACES: [&str; 4] = ["up", "--bare", "--nodes", "1"];
const KUBELETS: [&str; 3] = ["cluster", "--nodes", "2"];

fn up(arguments: &[&str]) -> Result<Up> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
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

/// Cgroups that carry the lab's name, wherever they are.
fn cgroups_of(tag: &str, below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(below).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name().to_string_lossy().starts_with(tag) {
                found.push(entry.path());
            } else {
                found.extend(cgroups_of(tag, &entry.path()));
            }
        }
    }
    found
}

/// What a kubelet sets for the whole machine, and to what.
const SYSCTLS: [(&str, &str); 4] = [
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("vm/overcommit_memory", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
];

fn sysctls() -> Result<Vec<String>> {
    let read = |(file, _)| Ok(std::fs::read_to_string(Path::new("/proc/sys").join(file))?.trim().to_owned());
    SYSCTLS.into_iter().map(read).collect()
}

#[test]
#[ignore = "a full cluster: make test-cluster"]
fn a_full_cluster_that_is_killed_leaves_no_process_cgroup_or_sysctl_behind() -> Result<()> {
    let before = sysctls()?;
    let kubelets = SYSCTLS.map(|(_, value)| value);
    if before == kubelets {
        eprintln!(
            "This machine's sysctls are a kubelet's already: that they are put back can't be seen here."
        );
    }
    for signal in [Signal::SIGKILL, Signal::SIGINT] {
        let mut up = up(&KUBELETS)?;
        ensure!(
            !cgroups_of(&up.tag, Path::new("/sys/fs/cgroup")).is_empty(),
            "no cgroup is called {}",
            up.tag
        );
        ensure!(sysctls()? == kubelets, "the kubelets set other sysctls: {:?}", sysctls()?);
        kill(Pid::from_raw(i32::try_from(up.child.id())?), signal)?;
        up.child.wait()?;
        ensure_gone(&up)?;
        ensure!(sysctls()? == before, "{:?} after {before:?}", sysctls()?);
    }
    Ok(())
}

/// Waits until nothing of the lab is left. The reaper is nobody's child by then, so it can only be looked for.
fn ensure_gone(up: &Up) -> Result<()> {
    let begun = Instant::now();
    loop {
        let names: Vec<String> = namespaces()?.into_iter().filter(|name| name.starts_with(&up.tag)).collect();
        let (programs, cgroups) = (programs_of(&up.dir)?, cgroups_of(&up.tag, Path::new("/sys/fs/cgroup")));
        if names.is_empty() && programs.is_empty() && cgroups.is_empty() && !up.dir.exists() {
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(30) {
            let there = up.dir.exists();
            bail!("left behind: {names:?}, {programs:?}, {cgroups:?}, {} exists: {there}", up.dir.display());
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

#[test]
fn a_lab_that_is_killed_leaves_nothing_behind() -> Result<()> {
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut up = up(&NAMESPACES)?;
        kill(Pid::from_raw(i32::try_from(up.child.id())?), signal)?;
        up.child.wait()?;
        ensure_gone(&up)?;
    }
    Ok(())
}

#[test]
fn a_lab_that_ends_by_itself_leaves_nothing_behind() -> Result<()> {
    let mut up = up(&NAMESPACES)?;
    drop(up.child.stdin.take());
    ensure!(up.child.wait()?.success(), "lab up failed at its end");
    let names: Vec<String> = namespaces()?.into_iter().filter(|name| name.starts_with(&up.tag)).collect();
    ensure!(names.is_empty() && !up.dir.exists(), "left behind when it had ended: {names:?}");
    ensure_gone(&up)
}
