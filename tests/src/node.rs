//! A node: a host on the LAN with a Node object, kube-proxy, a backend behind it and Herald's speaker.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::{
    backend::Backend,
    control_plane::POD_RANGES,
    lan::{Host, Lan},
    process::Process,
    programs::{Kubernetes, Program},
};

/// How kube-proxy rewrites packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ProxyMode {
    /// nftables
    #[default]
    Nftables,
    /// iptables
    Iptables,
}

impl ProxyMode {
    fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

/// A node of the cluster.
#[derive(Debug)]
pub struct Node {
    /// The host it is.
    pub host: Host,
    /// What runs behind it.
    pub backend: Backend,
    pub(crate) index: u8,
    dir: PathBuf,
    proxy: Mutex<Option<Process>>,
    speaker: Mutex<Option<Process>>,
    speaker_start: Mutex<Option<SpeakerStart>>,
}

/// What is needed to start a node's speaker, again and again.
#[derive(Clone, Debug)]
struct SpeakerStart {
    program: PathBuf,
    kubeconfig: PathBuf,
    flags: Vec<String>,
}

impl Node {
    pub(crate) fn new(host: Host, backend: Backend, index: u8, dir: &Path) -> Result<Self> {
        let dir = dir.join(&host.name);
        std::fs::create_dir_all(&dir)?;
        Ok(Self {
            host,
            backend,
            index,
            dir,
            proxy: Mutex::default(),
            speaker: Mutex::default(),
            speaker_start: Mutex::default(),
        })
    }

    /// Its name, in Kubernetes and on the LAN.
    pub fn name(&self) -> &str {
        &self.host.name
    }

    /// Creates its Node object, or brings an existing one up to date.
    pub(crate) async fn register(&self, client: Client) -> Result<()> {
        let api: Api<NodeObject> = Api::all(client);
        let index = self.index;
        let object = serde_json::from_value(json!({
            "metadata": { "name": self.name(), "labels": { "kubernetes.io/hostname": self.name() } },
            "spec": {
                "podCIDR": format!("10.244.{index}.0/24"),
                "podCIDRs": [format!("10.244.{index}.0/24"), format!("fd00:244:{index}::/64")],
            },
        }))?;
        api.create(&PostParams::default(), &object)
            .await
            .with_context(|| format!("creating Node {}", self.name()))?;
        let status = json!({ "status": {
            "addresses": [
                { "type": "InternalIP", "address": self.host.v4 },
                { "type": "InternalIP", "address": self.host.v6 },
                { "type": "Hostname", "address": self.name() },
            ],
            "conditions": [
                { "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "a node of the lab" },
                { "type": "NetworkUnavailable", "status": "False", "reason": "RouteCreated", "message": "routes are set" },
            ],
            "nodeInfo": {
                "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "lab://1", "kernelVersion": "",
                "kubeProxyVersion": "", "kubeletVersion": "v1.36.0-lab", "machineID": "", "operatingSystem": "linux",
                "osImage": "namespace", "systemUUID": "",
            },
        }});
        api.patch_status(self.name(), &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }

    /// Starts kube-proxy.
    pub(crate) fn start_proxy(
        &self,
        kubernetes: &Kubernetes,
        kubeconfig: &Path,
        mode: ProxyMode,
    ) -> Result<()> {
        let config = self.dir.join("kube-proxy.yaml");
        std::fs::write(&config, proxy_configuration(self.name(), kubeconfig, mode))?;
        let (binary, first) = kubernetes.program(Program::Proxy);
        let args = first.into_iter().chain([format!("--config={}", config.display())]);
        let log = self.dir.join("kube-proxy.log");
        *locked(&self.proxy) = Some(Process::start(&self.host.netns, "kube-proxy", &binary, args, &log)?);
        Ok(())
    }

    /// Where the speaker's key files belong.
    pub fn key_dir(&self) -> PathBuf {
        self.dir.join("keys")
    }

    /// The files and logs of this node.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts the speaker for the first time.
    pub(crate) fn install_speaker(
        &self,
        program: PathBuf,
        kubeconfig: PathBuf,
        flags: &[String],
    ) -> Result<()> {
        *locked(&self.speaker_start) = Some(SpeakerStart { program, kubeconfig, flags: flags.to_vec() });
        self.start_speaker()
    }

    /// Starts the speaker (again).
    pub fn start_speaker(&self) -> Result<()> {
        let start = locked(&self.speaker_start).clone();
        let Some(start) = start else { bail!("node {} has no speaker installed", self.name()) };
        let mut args = vec![
            "--node-name".to_owned(),
            self.name().to_owned(),
            "--key-dir".to_owned(),
            self.key_dir().display().to_string(),
            "--kubeconfig".to_owned(),
            start.kubeconfig.display().to_string(),
        ];
        args.extend(start.flags);
        let speaker = Process::start(
            &self.host.netns,
            "herald-speaker",
            &start.program,
            args,
            &self.dir.join("herald-speaker.log"),
        )?;
        *locked(&self.speaker) = Some(speaker);
        Ok(())
    }

    /// Does something with the running speaker.
    pub fn speaker<T>(&self, act: impl FnOnce(&Process) -> Result<T>) -> Result<T> {
        match locked(&self.speaker).as_ref() {
            Some(speaker) => act(speaker),
            None => bail!("no speaker runs on node {}", self.name()),
        }
    }

    /// Does something with the running kube-proxy.
    pub fn proxy<T>(&self, act: impl FnOnce(&Process) -> Result<T>) -> Result<T> {
        match locked(&self.proxy).as_ref() {
            Some(proxy) => act(proxy),
            None => bail!("no kube-proxy runs on node {}", self.name()),
        }
    }

    /// Cuts the power: cable dead and every process gone at once, no good-bye on any connection.
    pub fn power_off(&self, lan: &Lan) -> Result<()> {
        lan.cut(self.name())?;
        self.host.netns.kill_everything()?;
        // Dropping reaps.
        drop(locked(&self.speaker).take());
        drop(locked(&self.proxy).take());
        // What the kernel kept dies with the power as well: kube-proxy's rules, connections, neighbours.
        self.host.netns.nft("flush ruleset")?;
        self.host.forget_neighbours()
    }
}

/// kube-proxy's configuration on node `node`.
pub(crate) fn proxy_configuration(node: &str, kubeconfig: &Path, mode: ProxyMode) -> String {
    // minSyncPeriod: with the default of 1 s every latency measured here would be kube-proxy's.
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\n\
         kind: KubeProxyConfiguration\n\
         mode: {mode}\n\
         hostnameOverride: {node}\n\
         clientConnection: {{kubeconfig: {kubeconfig}}}\n\
         clusterCIDR: '{POD_RANGES}'\n\
         conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}\n\
         nftables: {{minSyncPeriod: 10ms, syncPeriod: 30s}}\n\
         iptables: {{minSyncPeriod: 10ms, syncPeriod: 30s}}\n\
         nodePortAddresses: [primary]\n",
        mode = mode.name(),
        kubeconfig = kubeconfig.display(),
    )
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
