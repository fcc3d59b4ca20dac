//! What every lab has: the LAN, a control plane, a client, a gateway, and the ways to talk to the API.
//!
//! [`crate::Lab`] adds nodes that are network namespaces, [`crate::Cluster`] nodes with real kubelets; both are used
//! through this where the difference does not matter.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client, runtime::wait::await_condition};
use tokio::runtime::Runtime;

use crate::{
    control_plane::{ControlPlane, Purpose},
    lan::{Host, Lan},
    netns::Netns,
    programs::{Kubernetes, Program},
    progress::Progress,
    scratch::Scratch,
};

/// Host numbers on the LAN (see [`Lan`]); nodes come after `FIRST_NODE`.
const CONTROL_PLANE: u8 = 1;
const FIRST_NODE: u8 = 10;
const CLIENT: u8 = 100;
/// What a lab's directory may grow to, in bytes: etcd sets 128 MiB aside at once; images are kept and unpacked on every node.
const LAB_ROOM: u64 = 256 << 20;
const CLUSTER_ROOM: u64 = 1 << 30;
/// 10,000 Services and their addresses, each in some versions.
const CROWD_ROOM: u64 = 2 << 30;

/// The common ground of a lab. Dropping it removes every trace of it.
// Fields drop in this order: programs before the namespaces they run in, the scratch directory last.
#[derive(Debug)]
pub struct Site {
    client: Host,
    gateway: Host,
    control_plane: ControlPlane,
    kube: KubeHandle,
    runtime: Runtime,
    lan: Lan,
    kubernetes: Kubernetes,
    progress: Progress,
    scratch: Scratch,
}

/// kube's client does not print itself.
struct KubeHandle(Client);

impl std::fmt::Debug for KubeHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Site {
    /// Builds the LAN and starts the control plane, without waiting for it.
    pub(crate) fn start(progress: Progress, purpose: &Purpose) -> Result<Self> {
        let room = match purpose {
            Purpose { api_only: true, .. } => CROWD_ROOM,
            Purpose { kubelets, .. } if !kubelets.is_empty() => CLUSTER_ROOM,
            _ => LAB_ROOM,
        };
        let scratch = Scratch::new(room)?;
        let kubernetes = Kubernetes::find_or_build(&progress)?;
        let netns = |role: &str| Netns::create(&scratch.netns_name(role));
        let lan = Lan::new(netns("lan")?)?;
        let gateway = lan.plug_gateway(netns("gw")?)?;
        let control_plane = ControlPlane::start(
            lan.plug("cp", netns("cp")?, CONTROL_PLANE)?,
            scratch.dir(),
            kubernetes.clone(),
            purpose,
        )?;
        let client = lan.plug("client", netns("client")?, CLIENT)?;
        let runtime = runtime_inside(&control_plane.host().netns)?;
        let kube = inside(&control_plane.host().netns, &runtime, control_plane.client())??;
        let kube = KubeHandle(kube);
        Ok(Self { client, gateway, control_plane, kube, runtime, lan, kubernetes, progress, scratch })
    }

    /// A namespace of this lab.
    pub(crate) fn netns(&self, role: &str) -> Result<Netns> {
        Netns::create(&self.scratch.netns_name(role))
    }

    /// Plugs the `index`-th node in, a host that forwards.
    pub(crate) fn plug_node(&self, index: u8) -> Result<Host> {
        let name = format!("n{index}");
        let host = self.lan.plug(&name, self.netns(&name)?, FIRST_NODE + index)?;
        host.netns.sysctl("ipv4/ip_forward", "1")?;
        host.netns.sysctl("ipv6/conf/all/forwarding", "1")?;
        Ok(host)
    }

    /// Everybody finds the pods of these nodes, a /24 and a /64 each, behind their nodes. In the order of their indices,
    /// from 1.
    pub(crate) fn route_pods(&self, nodes: &[&Host]) -> Result<()> {
        let others = [self.control_plane.host(), &self.client];
        for host in nodes.iter().chain(&others) {
            let foreign = (1_u8..).zip(nodes).filter(|(_, node)| node.name != host.name);
            let routes: Vec<String> = foreign
                .flat_map(|(index, node)| {
                    [
                        format!("route add 10.244.{index}.0/24 via {}", node.v4),
                        format!("route add fd00:244:{index}::/64 via {}", node.v6),
                    ]
                })
                .collect();
            let routes: Vec<&str> = routes.iter().map(String::as_str).collect();
            host.netns.ip(&routes)?;
        }
        Ok(())
    }

    /// Waits for the API server and starts what needs it, unless that is to be alone.
    pub(crate) fn bring_up(&self) -> Result<()> {
        self.block_on(self.control_plane.wait_ready(&self.kube.0, &self.progress))?;
        self.progress.say("API server ready");
        if self.control_plane.is_alone() {
            return Ok(());
        }
        self.control_plane.start_clients()?;
        self.kubectl(&[
            "create",
            "clusterrolebinding",
            "lab-proxy",
            "--clusterrole=system:node-proxier",
            "--user=system:kube-proxy",
        ])?;
        Ok(())
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub(crate) fn kubernetes(&self) -> &Kubernetes {
        &self.kubernetes
    }

    /// Tells the person who reads a test's output a figure. Tests assert no times: machines differ.
    pub fn measured(&self, what: &str) {
        self.progress.say(&format!("measured: {what}"));
    }

    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Runs a future to its end on the lab's runtime, inside the control plane's namespace.
    pub fn block_on<F>(&self, future: F) -> F::Output
    where
        F: Future + Send,
        F::Output: Send,
    {
        match inside(&self.control_plane.host().netns, &self.runtime, future) {
            Ok(output) => output,
            Err(error) => std::panic::resume_unwind(Box::new(error.to_string())),
        }
    }

    /// A client with all rights, for use within [`Self::block_on`].
    pub fn kube(&self) -> Client {
        self.kube.0.clone()
    }

    /// The host that uses the Services.
    pub fn client(&self) -> &Host {
        &self.client
    }

    /// The default gateway.
    pub fn gateway(&self) -> &Host {
        &self.gateway
    }

    /// The LAN, for faults.
    pub fn lan(&self) -> &Lan {
        &self.lan
    }

    /// etcd, API server and controller manager.
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// Where logs and kubeconfigs are.
    pub fn dir(&self) -> &Path {
        self.scratch.dir()
    }

    /// The prefix of the lab's namespace names.
    pub fn tag(&self) -> &str {
        self.scratch.tag()
    }

    /// Starts a killed API server again and waits until it is ready.
    pub fn restart_api(&self) -> Result<()> {
        self.control_plane.restart_api()?;
        self.block_on(self.control_plane.wait_ready(&self.kube.0, &self.progress))
    }

    /// The path of the kubectl program and the arguments before its own.
    pub fn kubectl_program(&self) -> (PathBuf, Vec<String>) {
        let (binary, mut args) = self.kubernetes.program(Program::Kubectl);
        args.push(format!("--kubeconfig={}", self.control_plane.admin_kubeconfig().display()));
        (binary, args)
    }

    /// Runs kubectl as the administrator and gives what it printed.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.kubectl_fed(args, "")
    }

    /// Applies a manifest given as text.
    pub fn kubectl_apply(&self, manifest: &str) -> Result<String> {
        // Without the mark kubectl takes YAML that begins with a brace for JSON.
        self.kubectl_fed(&["apply", "-f", "-"], &format!("---\n{manifest}"))
    }

    /// Applies a manifest, or all in a directory.
    pub fn kubectl_apply_file(&self, path: &Path) -> Result<String> {
        self.kubectl(&["apply", "--server-side", "-f", &path.display().to_string()])
    }

    fn kubectl_fed(&self, args: &[&str], input: &str) -> Result<String> {
        let (binary, mut all) = self.kubectl_program();
        all.extend(args.iter().map(|&arg| arg.to_owned()));
        let (home, input) = (self.dir().to_owned(), input.to_owned());
        let ran = self.control_plane.host().netns.run(move || -> std::io::Result<_> {
            let mut command = std::process::Command::new(binary);
            // kubectl keeps a discovery cache in its home: this lab's, not the person's.
            command
                .args(all)
                .env("HOME", home)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let mut child = command.spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(input.as_bytes())?;
            }
            child.wait_with_output()
        })?;
        let output = ran.context("starting kubectl")?;
        if !output.status.success() {
            bail!("kubectl {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Creates a Kubernetes namespace and waits until it is usable.
    pub fn create_namespace(&self, name: &str) -> Result<()> {
        self.kubectl(&["create", "namespace", name])?;
        let usable = self.block_on(async {
            let accounts: Api<ServiceAccount> = Api::namespaced(self.kube(), name);
            let made =
                await_condition(accounts, "default", |account: Option<&ServiceAccount>| account.is_some());
            tokio::time::timeout(Duration::from_secs(30), made).await
        });
        usable.with_context(|| format!("namespace {name} got no default ServiceAccount within 30 s"))??;
        Ok(())
    }
}

/// A runtime all of whose threads live in `netns`, so that clients connect from there.
fn runtime_inside(netns: &Netns) -> Result<Runtime> {
    let home = netns.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .thread_name("lab")
        .on_thread_start(move || {
            if let Err(error) = home.enter() {
                // Without the namespace every connection would be refused, far from the cause.
                std::panic::resume_unwind(Box::new(error.to_string()));
            }
        })
        .build()?;
    Ok(runtime)
}

/// Polls `future` on a thread inside `netns`: a connection is opened by whoever polls for it.
fn inside<F>(netns: &Netns, runtime: &Runtime, future: F) -> Result<F::Output>
where
    F: Future + Send,
    F::Output: Send,
{
    std::thread::scope(|scope| {
        let poller = scope.spawn(|| {
            netns.enter()?;
            Ok(runtime.block_on(future))
        });
        poller.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
