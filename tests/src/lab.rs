//! The whole lab, put together.

use std::{
    ops::Deref,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use futures::future::try_join_all;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    backend::Backend,
    control_plane::Purpose,
    lan::Host,
    node::{Node, ProxyMode},
    process::Process,
    programs,
    progress::Progress,
    site::Site,
};

/// What a lab shall consist of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many nodes: n1, n2, ...
    pub nodes: u8,
    /// How kube-proxy works.
    pub proxy: ProxyMode,
    /// Whether Herald is installed and started.
    pub herald: bool,
    /// The directory of Herald's binaries, where it is not the usual one.
    pub binaries: Option<PathBuf>,
    /// Whether there is nothing beside the API server: no controller manager, no kube-proxy.
    pub api_only: bool,
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
            binaries: None,
            api_only: false,
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

    /// The same without controller manager and kube-proxy, and with room for tens of thousands of objects: what is measured
    /// is Herald and the API server alone.
    #[must_use]
    pub fn with_api_only(mut self) -> Self {
        self.api_only = true;
        self
    }

    /// The same with another kube-proxy mode.
    #[must_use]
    pub fn with_proxy(mut self, mode: ProxyMode) -> Self {
        self.proxy = mode;
        self
    }

    /// The same with the binaries in `dir`: another build, to be compared.
    #[must_use]
    pub fn with_binaries(mut self, dir: PathBuf) -> Self {
        self.binaries = Some(dir);
        self
    }

    /// Herald's own program `name`.
    pub(crate) fn program(&self, name: &str) -> Result<PathBuf> {
        self.binaries.as_ref().map_or_else(|| programs::herald(name), |dir| Ok(dir.join(name)))
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
    plan: Plan,
    site: Site,
}

impl Deref for Lab {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl Lab {
    fn start(plan: Plan) -> Result<Self> {
        let site =
            Site::start(plan.progress.clone(), &Purpose { api_only: plan.api_only, ..Purpose::default() })?;
        let mut nodes = Vec::new();
        for index in 1..=plan.nodes {
            let host = site.plug_node(index)?;
            let pod = site.netns(&format!("{}-pod", host.name))?;
            let backend = Backend::start(site.runtime().handle(), &host, index, pod)?;
            nodes.push(Node::new(host, backend, index, site.dir())?);
        }
        site.route_pods(&nodes.iter().map(|node| &node.host).collect::<Vec<&Host>>())?;
        let lab = Self { controller: Mutex::default(), nodes, plan, site };
        lab.bring_up()?;
        Ok(lab)
    }

    fn bring_up(&self) -> Result<()> {
        self.site.bring_up()?;
        let registered = try_join_all(self.nodes.iter().map(|node| node.register(self.kube())));
        self.block_on(registered)?;
        for node in &self.nodes {
            if !self.plan.api_only {
                self.start_proxy(node)?;
                self.site.runtime().spawn(heartbeat(self.kube(), node.name().to_owned()));
            }
        }
        let progress = self.progress();
        let proxies = if self.plan.api_only { "" } else { ", kube-proxy started on each" };
        progress.say(&format!("{} nodes registered{proxies}", self.nodes.len()));
        if self.plan.herald {
            self.apply_manifests()?;
            self.start_controller()?;
            self.start_speakers()?;
            progress.say("Herald's CRDs and rights applied, controller and speakers started");
        }
        Ok(())
    }

    fn start_proxy(&self, node: &Node) -> Result<()> {
        node.start_proxy(self.kubernetes(), &self.control_plane().proxy_kubeconfig(), self.plan.proxy)
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
        self.node(name)?.power_off(self.lan())
    }

    /// Gives node `name` its power back: kube-proxy and, where Herald is installed, its speaker start afresh.
    pub fn power_on(&self, name: &str) -> Result<()> {
        let node = self.node(name)?;
        self.lan().mend(name)?;
        self.start_proxy(node)?;
        if self.plan.herald { node.start_speaker() } else { Ok(()) }
    }

    /// Makes everything whole that a test may have broken: cables, switch, API server, nodes, speakers. Gives the
    /// names of the nodes whose speakers had to be woken or started.
    pub fn repair(&self) -> Result<Vec<String>> {
        self.lan().heal()?;
        self.control_plane().resume_api()?;
        let mut repaired = Vec::new();
        for node in &self.nodes {
            self.lan().mend(node.name())?;
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
