//! The full cluster: as [`crate::Lab`], with real kubelets, containerd, CNI, pods and helm.
//!
//! A node is a set of namespaces (network, mount, PID, UTS, cgroup, IPC) on the LAN. What it mounts and runs is in them;
//! beyond them it needs cgroups and has the kubelet set machine-wide sysctls: `scratch.rs` removes the ones and puts the
//! others back, whatever the end.

mod cgroups;
mod files;
mod helm;
pub mod herald;
mod image;
mod node;
pub mod shared;
mod sysctls;
mod user;

use std::{
    fmt::Write as _,
    ops::Deref,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::{Api, runtime::wait::await_condition};

pub use self::{
    image::{POD_IMAGE, STAND_IN},
    node::ClusterNode,
};
use crate::{
    control_plane::Purpose,
    lan::Host,
    node::ProxyMode,
    programs::{self, Program},
    progress::Progress,
    site::Site,
};

/// From the first kubelet's start to the last node Ready.
const NODES_READY: Duration = Duration::from_mins(2);

/// What a full cluster shall consist of.
#[derive(Clone, Debug)]
pub struct ClusterPlan {
    /// How many nodes: n1, n2, ...
    pub nodes: u8,
    /// How kube-proxy works.
    pub proxy: ProxyMode,
    /// Image archives that every node shall have, beside the lab's own [`POD_IMAGE`].
    pub images: Vec<PathBuf>,
    /// Names of public images that the lab's backend stands in for: the cluster reaches no registry.
    pub stand_ins: Vec<String>,
    /// How long a node may be silent before it is NotReady.
    pub node_grace: Duration,
    /// Who hears about progress.
    pub progress: Progress,
}

impl ClusterPlan {
    /// `nodes` nodes without any image but the lab's own.
    pub fn nodes(nodes: u8) -> Self {
        Self {
            nodes,
            proxy: ProxyMode::default(),
            images: Vec::new(),
            stand_ins: Vec::new(),
            node_grace: Duration::from_secs(12),
            progress: Progress::new(),
        }
    }

    /// The same with more images on every node.
    #[must_use]
    pub fn with_images(mut self, images: impl IntoIterator<Item = PathBuf>) -> Self {
        self.images.extend(images);
        self
    }

    /// The same with the lab's backend in the place of image `name`.
    #[must_use]
    pub fn with_stand_in(mut self, name: &str) -> Self {
        self.stand_ins.push(name.to_owned());
        self
    }

    /// Builds it; the nodes are Ready.
    pub fn start(self) -> Result<Cluster> {
        Cluster::start(&self)
    }
}

/// A running full cluster. Dropping it removes every trace of it; so does the end of the process, however it comes.
// Nodes drop before the namespaces they run in.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<ClusterNode>,
    images: Vec<PathBuf>,
    site: Site,
}

impl Deref for Cluster {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl Cluster {
    fn start(plan: &ClusterPlan) -> Result<Self> {
        let purpose = Purpose {
            kubelets: (1..=plan.nodes).map(|index| format!("n{index}")).collect(),
            node_grace: Some(plan.node_grace),
            audit: true,
            api_only: false,
        };
        let site = Site::start(plan.progress.clone(), &purpose)?;
        let top = site.dir().to_owned();
        site.kubernetes().clone().with(&[Program::Kubelet, Program::Scheduler], site.progress())?;
        sysctls::save(&top)?;
        node::share(&top, site.kubernetes())?;
        let mut images = plan.images.clone();
        let own = [(POD_IMAGE, "pause")].into_iter();
        for (name, argument) in own.chain(plan.stand_ins.iter().map(|name| (name.as_str(), "serve"))) {
            let archive = top.join(format!("{}.tar", images.len()));
            image::write(&archive, &programs::pod()?, name, argument)?;
            images.push(archive);
        }
        let mut nodes = Vec::new();
        for index in 1..=plan.nodes {
            let host = site.plug_node(index)?;
            let dir = top.join(&host.name);
            let name = host.name.clone();
            let lease_seconds = u32::try_from(plan.node_grace.as_secs() / 2)?;
            let proxy = plan.proxy;
            let settings = files::Settings { name: &name, index, dir: &dir, top: &top, proxy, lease_seconds };
            nodes.push(ClusterNode::new(host, site.tag(), &settings)?);
        }
        site.route_pods(&nodes.iter().map(|node| &node.host).collect::<Vec<&Host>>())?;
        let cluster = Self { nodes, images, site };
        cluster.site.bring_up()?;
        cluster.bring_up()?;
        Ok(cluster)
    }

    fn bring_up(&self) -> Result<()> {
        for node in &self.nodes {
            node.start()?;
        }
        for node in &self.nodes {
            self.import_images(node)?;
        }
        self.progress().say(&format!(
            "{} nodes started, {} images on each",
            self.nodes.len(),
            self.images.len()
        ));
        self.await_ready()?;
        self.progress().say("all nodes Ready");
        Ok(())
    }

    fn import_images(&self, node: &ClusterNode) -> Result<()> {
        node.await_containerd()?;
        self.images.iter().try_for_each(|image| node.import(image))
    }

    /// Waits until every node that is switched on is Ready and pods can be created.
    fn await_ready(&self) -> Result<()> {
        let ready = self.block_on(async {
            let nodes = self
                .nodes
                .iter()
                .map(|node| await_condition(Api::<Node>::all(self.kube()), node.name(), is_ready));
            let account: Api<ServiceAccount> = Api::namespaced(self.kube(), "default");
            let all = async {
                try_join_all(nodes).await?;
                await_condition(account, "default", |found: Option<&ServiceAccount>| found.is_some()).await
            };
            tokio::time::timeout(NODES_READY, all).await
        });
        if let Ok(waited) = ready {
            waited?;
            return Ok(());
        }
        let mut report = String::new();
        for node in &self.nodes {
            let log = std::fs::read_to_string(node.dir().join("kubelet.log")).unwrap_or_default();
            let errors: Vec<&str> = log.lines().filter(|line| line.starts_with('E')).collect();
            let last = errors.get(errors.len().saturating_sub(3)..).unwrap_or_default();
            writeln!(report, "{}: {}", node.name(), last.join("\n"))?;
        }
        bail!("not all nodes were Ready within {NODES_READY:?}; the kubelets' last errors:\n{report}")
    }

    /// The nodes, n1 first.
    pub fn nodes(&self) -> &[ClusterNode] {
        &self.nodes
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> Result<&ClusterNode> {
        self.nodes
            .iter()
            .find(|node| node.name() == name)
            .with_context(|| format!("the cluster has no node {name}"))
    }

    /// Makes everything whole that a test may have broken: cables, API server, nodes, cordons.
    pub fn repair(&self) -> Result<()> {
        self.lan().heal()?;
        self.control_plane().resume_api()?;
        for node in &self.nodes {
            node.resume()?;
            if node.is_on() {
                self.lan().mend(node.name())?;
            } else {
                self.power_on(node.name())?;
            }
            self.kubectl(&["uncordon", node.name()])?;
        }
        self.await_ready()
    }

    /// Cuts the power of node `name`.
    pub fn power_cut(&self, name: &str) -> Result<()> {
        self.node(name)?.power_cut(self.lan())
    }

    /// Gives node `name` its power back and waits until it is Ready.
    pub fn power_on(&self, name: &str) -> Result<Duration> {
        let begun = Instant::now();
        let node = self.node(name)?;
        self.lan().mend(name)?;
        node.start()?;
        self.import_images(node)?;
        self.await_ready()?;
        Ok(begun.elapsed())
    }
}

fn is_ready(node: Option<&Node>) -> bool {
    let conditions = node.and_then(|node| node.status.as_ref()).and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
