//! The whole lab, put together.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use futures::future::try_join_all;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::ServiceAccount};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    runtime::wait::await_condition,
};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::{
    backend::Backend,
    control_plane::ControlPlane,
    lan::{Host, Lan},
    netns::Netns,
    node::{Node, ProxyMode},
    process::Process,
    programs::{Kubernetes, Program},
    progress::Progress,
    scratch::Scratch,
};

/// Host numbers on the LAN (see [`Lan`]); nodes come after `FIRST_NODE`.
const CONTROL_PLANE: u8 = 1;
const FIRST_NODE: u8 = 10;
const CLIENT: u8 = 100;

/// What a lab shall consist of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many nodes: n1, n2, ...
    pub nodes: u8,
    /// How kube-proxy works.
    pub proxy: ProxyMode,
    /// Whether Herald is installed and started.
    pub herald: bool,
    /// Extra flags of the controller.
    pub controller_flags: Vec<String>,
    /// Extra flags of every speaker.
    pub speaker_flags: Vec<String>,
    /// Who hears about progress.
    pub progress: Progress,
}

impl Plan {
    /// `nodes` nodes with Herald on them.
    pub fn nodes(nodes: u8) -> Self {
        Self {
            nodes,
            proxy: ProxyMode::default(),
            herald: true,
            controller_flags: Vec::new(),
            speaker_flags: Vec::new(),
            progress: Progress::new(),
        }
    }

    /// The same without Herald.
    #[must_use]
    pub fn without_herald(mut self) -> Self {
        self.herald = false;
        self
    }

    /// The same with another kube-proxy mode.
    #[must_use]
    pub fn with_proxy(mut self, mode: ProxyMode) -> Self {
        self.proxy = mode;
        self
    }

    /// Builds it.
    pub fn start(self) -> Result<Lab> {
        Lab::start(self)
    }
}

/// A running lab. Dropping it removes every trace of it; so does the end of the process, however it comes.
// Fields drop in this order: programs before the namespaces they run in, the scratch directory last.
#[derive(Debug)]
pub struct Lab {
    controller: Mutex<Option<Process>>,
    nodes: Vec<Node>,
    client: Host,
    gateway: Host,
    control_plane: ControlPlane,
    kube: KubeHandle,
    runtime: Runtime,
    lan: Lan,
    kubernetes: Kubernetes,
    plan: Plan,
    scratch: Scratch,
}

/// kube's client does not print itself.
struct KubeHandle(Client);

impl std::fmt::Debug for KubeHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Lab {
    fn start(plan: Plan) -> Result<Self> {
        let scratch = Scratch::new()?;
        let progress = plan.progress.clone();
        let kubernetes = Kubernetes::find_or_build(&progress)?;
        let netns = |role: &str| Netns::create(&scratch.netns_name(role));

        let lan = Lan::new(netns("lan")?)?;
        let gateway = lan.plug_gateway(netns("gw")?)?;
        let control_plane = ControlPlane::start(
            lan.plug("cp", netns("cp")?, CONTROL_PLANE)?,
            scratch.dir(),
            kubernetes.clone(),
        )?;
        let client = lan.plug("client", netns("client")?, CLIENT)?;
        let runtime = runtime_inside(&control_plane.host().netns)?;

        let mut nodes = Vec::new();
        for index in 1..=plan.nodes {
            let name = format!("n{index}");
            let host = lan.plug(&name, netns(&name)?, FIRST_NODE + index)?;
            host.netns.sysctl("ipv4/ip_forward", "1")?;
            host.netns.sysctl("ipv6/conf/all/forwarding", "1")?;
            let backend = Backend::start(runtime.handle(), &host, index, netns(&format!("{name}-pod"))?)?;
            nodes.push(Node::new(host, backend, index, scratch.dir())?);
        }
        route_pods(&nodes, &[control_plane.host(), &client])?;

        let kube = inside(&control_plane.host().netns, &runtime, control_plane.client())??;
        let lab = Self {
            controller: Mutex::default(),
            nodes,
            client,
            gateway,
            control_plane,
            kube: KubeHandle(kube),
            runtime,
            lan,
            kubernetes,
            plan,
            scratch,
        };
        lab.bring_up(&progress)?;
        Ok(lab)
    }

    fn bring_up(&self, progress: &Progress) -> Result<()> {
        self.block_on(self.control_plane.wait_ready(&self.kube.0, progress))?;
        progress.say("API server ready");
        self.control_plane.start_manager()?;
        self.kubectl(&[
            "create",
            "clusterrolebinding",
            "lab-proxy",
            "--clusterrole=system:node-proxier",
            "--user=system:kube-proxy",
        ])?;
        let registered = try_join_all(self.nodes.iter().map(|node| node.register(self.kube())));
        self.block_on(registered)?;
        for node in &self.nodes {
            node.start_proxy(&self.kubernetes, &self.control_plane.proxy_kubeconfig(), self.plan.proxy)?;
            self.runtime.spawn(heartbeat(self.kube(), node.name().to_owned()));
        }
        progress.say(&format!("{} nodes registered, kube-proxy started on each", self.nodes.len()));
        if self.plan.herald {
            self.apply_manifests()?;
            self.start_controller()?;
            self.start_speakers()?;
            progress.say("Herald's CRDs and rights applied, controller and speakers started");
        }
        Ok(())
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

    /// The nodes, n1 first.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes
            .iter()
            .find(|node| node.name() == name)
            .with_context(|| format!("the lab has no node {name}"))
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

    /// What it was built from.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(crate) fn set_controller(&self, controller: Option<Process>) {
        *self.controller.lock().unwrap_or_else(PoisonError::into_inner) = controller;
    }

    /// Does something with the running controller.
    pub fn controller<T>(&self, act: impl FnOnce(&Process) -> Result<T>) -> Result<T> {
        match self.controller.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some(controller) => act(controller),
            None => bail!("no controller runs in this lab"),
        }
    }

    /// Cuts the power of node `name`.
    pub fn power_off(&self, name: &str) -> Result<()> {
        self.node(name)?.power_off(&self.lan)
    }

    /// Gives node `name` its power back: kube-proxy and, where Herald is installed, its speaker start afresh.
    pub fn power_on(&self, name: &str) -> Result<()> {
        let node = self.node(name)?;
        self.lan.mend(name)?;
        node.start_proxy(&self.kubernetes, &self.control_plane.proxy_kubeconfig(), self.plan.proxy)?;
        if self.plan.herald { node.start_speaker() } else { Ok(()) }
    }

    /// Makes everything whole that a test may have broken: cables, switch, API server, nodes, speakers. Gives the
    /// names of the nodes whose speakers had to be woken or started.
    pub fn repair(&self) -> Result<Vec<String>> {
        self.lan.heal()?;
        self.control_plane.resume_api()?;
        let mut repaired = Vec::new();
        for node in &self.nodes {
            self.lan.mend(node.name())?;
            if node.proxy(Process::exited).is_ok_and(|ended| ended.is_none()) {
                node.speaker(Process::resume)?;
                if node.speaker(Process::exited)?.is_none() {
                    continue;
                }
                node.start_speaker()?;
            } else {
                self.power_on(node.name())?;
            }
            repaired.push(node.name().to_owned());
        }
        Ok(repaired)
    }

    /// Starts a killed API server again and waits until it is ready.
    pub fn restart_api(&self) -> Result<()> {
        self.control_plane.restart_api()?;
        self.block_on(self.control_plane.wait_ready(&self.kube.0, &self.plan.progress))
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

/// Everybody finds every pod behind its node.
fn route_pods(nodes: &[Node], others: &[&Host]) -> Result<()> {
    for host in nodes.iter().map(|node| &node.host).chain(others.iter().copied()) {
        let foreign = nodes.iter().filter(|node| node.name() != host.name);
        let routes: Vec<String> = foreign
            .flat_map(|node| {
                let (index, v4, v6) = (node.index, node.host.v4, node.host.v6);
                [
                    format!("route add 10.244.{index}.0/24 via {v4}"),
                    format!("route add fd00:244:{index}::/64 via {v6}"),
                ]
            })
            .collect();
        let routes: Vec<&str> = routes.iter().map(String::as_str).collect();
        host.netns.ip(&routes)?;
    }
    Ok(())
}

/// What a kubelet does so that its node stays Ready.
async fn heartbeat(client: Client, node: String) {
    let leases: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    let mut tick = tokio::time::interval(Duration::from_secs(10));
    loop {
        tick.tick().await;
        let now = k8s_openapi::jiff::Timestamp::now();
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": node },
            "spec": { "holderIdentity": node, "leaseDurationSeconds": 40, "renewTime": format!("{now:.6}") },
        });
        // The API server may be away: that is what some tests are about.
        let _ = leases.patch(&node, &PatchParams::apply("lab").force(), &Patch::Apply(lease)).await;
    }
}
