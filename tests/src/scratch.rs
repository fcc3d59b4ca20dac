//! Where a lab keeps what it makes, and how all of it disappears again.
//!
//! One rule: a lab's namespaces are called `herald-PID-N-…` and its directory `herald-lab-PID-N`, where PID is the process
//! that owns it. A small shell process (the reaper) waits for the end of a pipe that only the owner holds open: return,
//! panic, Ctrl-C and SIGKILL all end the pipe, so all of them lead to the same clean-up. Should the reaper itself have been
//! killed, the next lab sweeps what belongs to owners that no longer exist.

use std::{
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, bail};

use crate::netns::checked;

/// Kills what runs in the namespaces of lab `$1`, deletes them and the lab's cgroups, puts sysctls back, removes directory
/// `$2`. First waits for the owner's end.
const REAPER: &str = r#"
cat >/dev/null
for round in 1 2 3; do
    names=$(ip netns list | while read -r name _; do case $name in "$1"-*) echo "$name";; esac; done)
    [ -n "$names" ] || break
    for name in $names; do ip netns pids "$name" | while read -r pid; do kill -9 "$pid"; done; done 2>/dev/null
    for name in $names; do ip netns delete "$name"; done 2>/dev/null
done
# Cgroups stay busy until the last process in them is reaped.
for round in 1 2 3 4 5 6 7 8 9 10; do
    find /sys/fs/cgroup -depth -type d -path "*/$1-*" -exec rmdir {} + 2>/dev/null
    [ -n "$(find /sys/fs/cgroup -type d -name "$1-*" -print -quit)" ] || break
    sleep 0.2
done
[ -e "$2/sysctls" ] && while read -r file value; do echo "$value" >"$file"; done <"$2/sysctls"
rm -rf --one-file-system "$2"
"#;

/// The file in a lab's directory that says which sysctls to set to what when the lab goes.
pub(crate) const SYSCTLS: &str = "sysctls";

const LAB_DIR: &str = "herald-lab-";
const NETNS: &str = "herald-";

/// The scratch directory and the name prefix of one lab. Dropping it removes everything that carries the name.
#[derive(Debug)]
pub(crate) struct Scratch {
    tag: String,
    dir: PathBuf,
    reaper: Child,
}

impl Scratch {
    /// A directory with room for `need` bytes, and a reaper for everything that will carry its name.
    pub(crate) fn new(need: u64) -> Result<Self> {
        static LABS: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            bail!("the lab makes network namespaces and needs root: run it with sudo, or as root");
        }
        sweep()?;
        let id = format!("{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let tag = format!("{NETNS}{id}");
        let dir = with_room(&roots(), need, free)?.join(format!("{LAB_DIR}{id}"));
        std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let reaper = reaper(&tag, &dir)?;
        Ok(Self { tag, dir, reaper })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The machine-wide unique name of this lab's namespace `role`.
    pub(crate) fn netns_name(&self, role: &str) -> String {
        format!("{}-{role}", self.tag)
    }

    pub(crate) fn tag(&self) -> &str {
        &self.tag
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(self.reaper.stdin.take());
        // It ends by itself; its status says nothing that could be acted on here.
        let _ = self.reaper.wait();
    }
}

fn reaper(tag: &str, dir: &Path) -> Result<Child> {
    let mut command = Command::new("sh");
    command.args(["-c", REAPER, "herald-lab-reaper", tag]).arg(dir);
    // A group of its own, so that Ctrl-C does not end it before its work begins.
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.spawn().context("starting the clean-up process")
}

/// Removes what labs left behind whose owner and reaper both died.
fn sweep() -> Result<()> {
    let listed = checked("ip", &["netns", "list"])?;
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    let mut stale: Vec<(String, PathBuf)> = Vec::new();
    for root in roots() {
        let dir = |tag: &str| root.join(format!("{LAB_DIR}{}", tag.trim_start_matches(NETNS)));
        let dirs = lab_dirs(&root).into_iter().filter_map(|path| {
            let id = path.file_name()?.to_str()?.strip_prefix(LAB_DIR)?.to_owned();
            Some(format!("{NETNS}{id}"))
        });
        let tags = names.clone().map(str::to_owned).chain(dirs).filter_map(|name| stale_tag(&name));
        stale.extend(tags.map(|tag| (tag.clone(), dir(&tag))));
    }
    stale.sort();
    stale.dedup();
    for (tag, dir) in stale {
        let mut orphan = reaper(&tag, &dir)?;
        drop(orphan.stdin.take());
        orphan.wait()?;
    }
    Ok(())
}

fn lab_dirs(root: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(LAB_DIR))
        .map(|entry| entry.path())
        .collect()
}

/// The directories of all labs but the one in `dir`.
pub(crate) fn other_labs(dir: &Path) -> Vec<PathBuf> {
    roots().iter().flat_map(|root| lab_dirs(root)).filter(|other| other != dir).collect()
}

/// `herald-PID-N` of a name that begins so, if no process PID exists any more.
fn stale_tag(name: &str) -> Option<String> {
    let mut parts = name.strip_prefix(NETNS)?.splitn(3, '-');
    let pid: u32 = parts.next()?.parse().ok()?;
    let number: u32 = parts.next()?.parse().ok()?;
    (!Path::new(&format!("/proc/{pid}")).exists()).then(|| format!("{NETNS}{pid}-{number}"))
}

/// Where a lab's directory may be: memory rather than a disk, because etcd writes a lot.
fn roots() -> Vec<PathBuf> {
    vec![PathBuf::from("/dev/shm"), std::env::temp_dir()]
}

/// The first of `roots` with room for `need` bytes. Containers often have a /dev/shm of 64 MiB: etcd would fail there
/// later, far from the cause.
fn with_room(roots: &[PathBuf], need: u64, free: impl Fn(&Path) -> Option<u64>) -> Result<PathBuf> {
    let found: Vec<(&PathBuf, Option<u64>)> = roots.iter().map(|root| (root, free(root))).collect();
    if let Some((root, _)) = found.iter().find(|(_, free)| free.is_some_and(|free| free >= need)) {
        return Ok((*root).clone());
    }
    let mebibytes = |bytes: u64| bytes / (1024 * 1024);
    let seen: Vec<String> = found
        .iter()
        .map(|(root, free)| match free {
            Some(free) => format!("{} has {} MiB free", root.display(), mebibytes(*free)),
            None => format!("{} is not there", root.display()),
        })
        .collect();
    bail!(
        "the lab needs {} MiB for etcd's data, logs and images: {}. Make room there, or set TMPDIR to a directory that has it",
        mebibytes(need),
        seen.join(", ")
    )
}

fn free(directory: &Path) -> Option<u64> {
    let found = nix::sys::statvfs::statvfs(directory).ok()?;
    found.blocks_available().checked_mul(found.fragment_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_without_room_is_passed_by_and_each_is_named_when_none_has_room() {
        let roots = [PathBuf::from("/small"), PathBuf::from("/large"), PathBuf::from("/absent")];
        let free = |root: &Path| match root.to_str() {
            Some("/small") => Some(64 << 20),
            Some("/large") => Some(512 << 20),
            _ => None,
        };
        assert_eq!(with_room(&roots, 256 << 20, free).unwrap(), Path::new("/large"));
        let error = with_room(&roots, 1 << 30, free).unwrap_err().to_string();
        for words in ["1024 MiB", "/small has 64 MiB", "/large has 512 MiB", "/absent is not there", "TMPDIR"]
        {
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn only_names_of_dead_owners_are_stale() {
        assert_eq!(stale_tag("herald-4194304000-2-n1").as_deref(), Some("herald-4194304000-2"));
        assert_eq!(stale_tag(&format!("herald-{}-0-n1", std::process::id())), None);
        assert_eq!(stale_tag("herald-system"), None);
        assert_eq!(stale_tag("somebody-else-1"), None);
    }
}
