//! A node's cgroups: one in every hierarchy, made before the node and removed after it; the freezer makes it hang.
//!
//! On cgroup v1 they lie below the lab's own cgroups, on v2 directly below the root: only there may controllers be handed
//! down while processes are about.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

/// Where both versions are mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// The cgroups of one node.
#[derive(Debug)]
pub(crate) struct Cgroups {
    /// v1: each hierarchy's controllers as the kernel names them (`cpu,cpuacct`, `name=systemd`); v2: none.
    hierarchies: Vec<String>,
    paths: Vec<PathBuf>,
}

impl Cgroups {
    /// Makes them, called `name`.
    pub(crate) fn create(name: &str) -> Result<Self> {
        if Path::new(ROOT).join("cgroup.controllers").exists() {
            return Self::unified(name);
        }
        let mut made = Self { hierarchies: Vec::new(), paths: Vec::new() };
        let own = fs::read_to_string("/proc/self/cgroup").context("reading /proc/self/cgroup")?;
        for line in own.lines() {
            // hierarchy-ID:controllers:path; the ID 0 has no controllers and is v2's, which nobody uses beside v1.
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
            let mounted = Path::new(ROOT).join(controllers.trim_start_matches("name="));
            if controllers.is_empty() || !mounted.is_dir() {
                continue;
            }
            let parent = mounted.join(path.trim_start_matches('/'));
            let cgroup = make(&parent, name)?;
            if controllers.split(',').any(|controller| controller == "cpuset") {
                // An empty set takes no processes.
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    let value = fs::read_to_string(parent.join(file))?;
                    fs::write(cgroup.join(file), value.trim())?;
                }
            }
            made.hierarchies.push(controllers.to_owned());
            made.paths.push(cgroup);
        }
        if made.paths.is_empty() {
            bail!("no cgroup hierarchy is mounted below {ROOT}: kubelets need cgroups");
        }
        Ok(made)
    }

    fn unified(name: &str) -> Result<Self> {
        let root = Path::new(ROOT);
        let controllers = fs::read_to_string(root.join("cgroup.controllers"))?;
        for controller in controllers.split_whitespace() {
            fs::write(root.join("cgroup.subtree_control"), format!("+{controller}"))
                .with_context(|| format!("handing cgroup controller {controller} down from {ROOT}"))?;
        }
        Ok(Self { hierarchies: Vec::new(), paths: vec![make(root, name)?] })
    }

    /// The v1 hierarchies, separated by blanks; empty for v2.
    pub(crate) fn hierarchies(&self) -> String {
        self.hierarchies.join(" ")
    }

    /// The files that a process writes itself into to enter, separated by blanks.
    pub(crate) fn doors(&self) -> String {
        let doors: Vec<String> =
            self.paths.iter().map(|path| path.join("cgroup.procs").display().to_string()).collect();
        doors.join(" ")
    }

    /// Stops every process in them, or lets them go on.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<()> {
        for path in &self.paths {
            for (file, on, off) in [("freezer.state", "FROZEN", "THAWED"), ("cgroup.freeze", "1", "0")] {
                let file = path.join(file);
                if file.exists() {
                    let wrote = fs::write(&file, if frozen { on } else { off });
                    return wrote.with_context(|| format!("writing {}", file.display()));
                }
            }
        }
        bail!("no freezer cgroup is mounted below {ROOT}")
    }

    /// Removes what pods left below them. A node that starts again must not find old pods' cgroups: the kubelet looks
    /// into each, for seconds.
    pub(crate) fn clear(&self) {
        for path in &self.paths {
            remove_below(path);
        }
    }
}

fn make(parent: &Path, name: &str) -> Result<PathBuf> {
    let cgroup = parent.join(name);
    fs::create_dir(&cgroup).with_context(|| format!("creating cgroup {}", cgroup.display()))?;
    Ok(cgroup)
}

/// Removes the empty cgroups below `path`, deepest first. One with processes stays, as the kernel will have it.
fn remove_below(path: &Path) {
    let Ok(entries) = fs::read_dir(path) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
            let _ = fs::remove_dir(entry.path());
        }
    }
}
