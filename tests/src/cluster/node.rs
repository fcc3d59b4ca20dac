//! A node of the full cluster: a host on the LAN whose namespaces hold containerd, a kubelet, kube-proxy and pods.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    cluster::{cgroups::Cgroups, files},
    lan::{Host, Lan},
    netns::checked,
    process::Process,
    programs::{Kubernetes, Program},
};

/// What process 1 of a node runs.
const INIT: &str = include_str!("node-init.sh");
/// Enters the node's cgroups (`$DOORS`), then becomes `unshare`, whose child is process 1 of the node.
const ENTER: &str = r#"
for door in $DOORS; do echo $$ >"$door"; done
exec unshare --mount --pid --fork --kill-child --uts --cgroup --ipc --propagation private --mount-proc sh "$TOP/node-init.sh"
"#;
/// For things that take a fraction of it on two busy cores.
const PATIENCE: Duration = Duration::from_secs(30);

/// A node with a real kubelet.
#[derive(Debug)]
pub struct ClusterNode {
    /// The host it is.
    pub host: Host,
    dir: PathBuf,
    top: PathBuf,
    cgroups: Cgroups,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    /// `unshare`, which ends when the last process of the node has.
    parent: Process,
    init: Pid,
}

impl ClusterNode {
    /// Writes what the node `host` needs and makes its cgroups.
    pub(crate) fn new(host: Host, tag: &str, settings: &files::Settings<'_>) -> Result<Self> {
        files::write(settings)?;
        let cgroups = Cgroups::create(&format!("{tag}-{}", host.name))?;
        let (dir, top) = (settings.dir.to_owned(), settings.top.to_owned());
        Ok(Self { host, dir, top, cgroups, running: Mutex::default() })
    }

    /// Its name, in Kubernetes and on the LAN.
    pub fn name(&self) -> &str {
        &self.host.name
    }

    /// Its logs (`containerd.log`, `kubelet.log`, `kube-proxy.log`) and files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Switches it on.
    pub(crate) fn start(&self) -> Result<()> {
        self.cgroups.clear();
        let name = self.name();
        let variables = [
            ("NODE", name.to_owned()),
            ("DIR", self.dir.display().to_string()),
            ("TOP", self.top.display().to_string()),
            ("DOORS", self.cgroups.doors()),
            ("HIERARCHIES", self.cgroups.hierarchies()),
            ("ADDRESSES", format!("{},{}", self.host.v4, self.host.v6)),
        ];
        let mut args: Vec<String> =
            variables.iter().map(|(variable, value)| format!("{variable}={value}")).collect();
        args.extend(["sh", "-c", ENTER].map(str::to_owned));
        let log = self.dir.join("init.log");
        let parent = Process::start(&self.host.netns, &format!("node {name}"), Path::new("env"), args, &log)?;
        let init = self.await_init(&parent)?;
        *self.running() = Some(Running { parent, init });
        Ok(())
    }

    /// The child that `unshare` made.
    fn await_init(&self, parent: &Process) -> Result<Pid> {
        let pid = parent.pid();
        let begun = Instant::now();
        loop {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            if let Some(child) = children.split_whitespace().next() {
                return Ok(Pid::from_raw(child.parse()?));
            }
            if let Some(status) = parent.exited()? {
                bail!("node {} did not start ({status}):\n{}", self.name(), parent.last_words());
            }
            ensure!(begun.elapsed() < PATIENCE, "node {} has no process 1 after {PATIENCE:?}", self.name());
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Whether it has power.
    pub fn is_on(&self) -> bool {
        self.running().is_some()
    }

    /// Waits until containerd answers on its socket.
    pub(crate) fn await_containerd(&self) -> Result<()> {
        let begun = Instant::now();
        let socket = self.inside("/run/containerd/containerd.sock")?;
        while !socket.exists() {
            if let Some(words) = self.last_words()? {
                bail!("node {} ended:\n{words}", self.name());
            }
            ensure!(begun.elapsed() < PATIENCE, "containerd on {}: no {}", self.name(), socket.display());
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Ok(())
    }

    /// What the node said last, if it has ended.
    pub(crate) fn last_words(&self) -> Result<Option<String>> {
        let running = self.running();
        let running = running.as_ref().with_context(|| format!("node {} is switched off", self.host.name))?;
        Ok(running.parent.exited()?.map(|_| running.parent.last_words()))
    }

    /// Gives containerd an image archive.
    pub(crate) fn import(&self, archive: &Path) -> Result<()> {
        let file = archive.display().to_string();
        self.exec(&["ctr", "--namespace", "k8s.io", "images", "import", &file])
            .with_context(|| format!("importing {file} on {}", self.name()))?;
        Ok(())
    }

    /// Runs a command in all of the node's namespaces and gives its output.
    pub fn exec(&self, command: &[&str]) -> Result<String> {
        let init = self.init()?.to_string();
        checked("nsenter", &[&["--target", &init, "--all", "--"], command].concat())
    }

    /// Cuts the power: the cable is dead and every process gone at once, and what the kernel knew is forgotten.
    pub fn power_cut(&self, lan: &Lan) -> Result<()> {
        lan.cut(self.name())?;
        let Some(running) = self.running().take() else { bail!("node {} is off already", self.name()) };
        // A frozen process is killed only when it is thawed.
        kill(running.init, Signal::SIGKILL).with_context(|| format!("killing node {}", self.name()))?;
        self.cgroups.freeze(false)?;
        // Ends when all processes of the namespace are gone.
        running.parent.wait()?;
        drop(running);
        self.host.netns.nft("flush ruleset")?;
        self.host.forget_neighbours()?;
        // Connection tracking and the pods' bridge are of the kernel that lost its power.
        self.host.netns.output("conntrack", &["-F"])?;
        // There is none where no pod ever ran.
        let _ = self.host.netns.ip(&["link delete cni0"]);
        Ok(())
    }

    /// Makes the node hang: no process runs any more, while its kernel goes on forwarding.
    pub fn pause(&self) -> Result<()> {
        self.cgroups.freeze(true)
    }

    /// Ends [`Self::pause`].
    pub fn resume(&self) -> Result<()> {
        self.cgroups.freeze(false)
    }

    /// The processes of the node whose program is called `name`, also in its pods.
    pub fn processes(&self, name: &str) -> Result<BTreeSet<i32>> {
        let mut found = BTreeSet::new();
        // One file for all processes of the node and its pods, whose PID namespaces are below the node's.
        for pid in self.pids()? {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let program = command.split(|&byte| byte == 0).next().unwrap_or_default();
            let program = String::from_utf8_lossy(program);
            if Path::new(program.as_ref()).file_name().is_some_and(|file| file == name) {
                found.insert(pid);
            }
        }
        Ok(found)
    }

    /// Every process below the node's first, by the tree of parents: a pod's orphans become its own process 1's children.
    fn pids(&self) -> Result<Vec<i32>> {
        let mut all = vec![self.init()?.as_raw()];
        let mut next = 0;
        while let Some(pid) = all.get(next) {
            for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
                all.extend(children.split_whitespace().filter_map(|child| child.parse::<i32>().ok()));
            }
            next += 1;
        }
        Ok(all)
    }

    /// Sends a signal to every process of that name; there must be one.
    pub fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        let found = self.processes(name)?;
        ensure!(!found.is_empty(), "no {name} runs on {}", self.name());
        for pid in found {
            kill(Pid::from_raw(pid), signal).with_context(|| format!("sending {signal} to {name}"))?;
        }
        Ok(())
    }

    /// A path of the node's file system as the lab sees it.
    fn inside(&self, path: &str) -> Result<PathBuf> {
        Ok(PathBuf::from(format!("/proc/{}/root{path}", self.init()?)))
    }

    /// Its process 1, as this machine numbers it.
    pub(crate) fn init(&self) -> Result<Pid> {
        let running = self.running();
        let running = running.as_ref().with_context(|| format!("node {} is switched off", self.name()))?;
        Ok(running.init)
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts what all nodes share into the lab's directory: process 1's script, the programs by their own names.
pub(crate) fn share(top: &Path, kubernetes: &Kubernetes) -> Result<()> {
    fs::write(top.join("node-init.sh"), INIT)?;
    let programs = top.join("bin");
    fs::create_dir(&programs)?;
    for program in [Program::Kubelet, Program::Proxy] {
        // The multi-call binary goes by the name it is called by.
        symlink(kubernetes.program(program).0, programs.join(program.name()))?;
    }
    Ok(())
}
