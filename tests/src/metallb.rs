//! The rival that does the same work: MetalLB in its own layer-2 mode, as its own manifest installs it.
//!
//! As with Herald, the programs run on the lab's hosts with the tokens of their own ServiceAccounts, and no kubelet runs
//! pods; MetalLB wants to see its own, so the lab creates the Pod objects. Left out is what layer 2 does without: the
//! admission webhook (and its certificates), and the list of interfaces that speakers shall not announce on.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::{
    lab::Lab,
    node::Node,
    process::Process,
    programs::{self, MetallbPrograms},
};

/// MetalLB's namespace.
const NAMESPACE: &str = "metallb-system";
const API_PORT: u16 = 6443;
/// How speakers find each other among the Pods.
const SPEAKER_LABELS: &str = "app=metallb,component=speaker";
/// What the manifest holds for pods and for the admission webhook.
const LEFT_OUT: [&str; 5] =
    ["DaemonSet", "Deployment", "Secret", "Service", "ValidatingWebhookConfiguration"];
/// How long a program may take to come up.
const PATIENCE: Duration = Duration::from_secs(30);

/// MetalLB in a lab: the controller beside the control plane, a speaker on every node.
#[derive(Debug)]
pub struct Metallb {
    programs: MetallbPrograms,
    secret_dir: PathBuf,
    kubeconfig: PathBuf,
    _controller: Process,
    speakers: Vec<(String, Process)>,
    starts: usize,
}

impl Metallb {
    /// Installs and starts it in a lab without Herald, with `addresses` as its pool.
    pub fn start(lab: &Lab, addresses: &str) -> Result<Self> {
        let programs = programs::metallb(lab.progress())?;
        install(lab, &programs.manifest)?;
        lab.kubectl_apply(&pool(addresses))?;
        create_pod(lab, "controller", "controller", lab.control_plane().host().v4)?;
        for node in lab.nodes() {
            create_pod(lab, &pod_of(node), "speaker", node.host.v4)?;
        }
        let secret_dir = lab.dir().join("metallb-memberlist");
        std::fs::create_dir_all(&secret_dir)?;
        // Inside a lab that nobody outside can reach; what matters is that frames are encrypted as they are elsewhere.
        std::fs::write(secret_dir.join("secretkey"), "a secret of the lab")?;
        let controller = start_controller(lab, &programs)?;
        let kubeconfig = lab.account_kubeconfig_in(NAMESPACE, "speaker")?;
        let mut metallb = Self {
            programs,
            secret_dir,
            kubeconfig,
            _controller: controller,
            speakers: Vec::new(),
            starts: 0,
        };
        for node in lab.nodes() {
            metallb.start_speaker(node)?;
        }
        metallb.await_members(lab.nodes().len())?;
        let version = &metallb.programs.version;
        lab.progress().say(&format!("MetalLB {version} applied, controller and speakers started"));
        Ok(metallb)
    }

    /// Its version, as in `v0.16.1`.
    pub fn version(&self) -> &str {
        &self.programs.version
    }

    /// Cuts the power of a node with everything on it.
    pub fn power_off(&mut self, lab: &Lab, node: &Node) -> Result<()> {
        lab.power_off(node.name())?;
        self.speakers.retain(|(name, _)| name != node.name());
        Ok(())
    }

    /// Gives it its power back, and waits until its speaker is a member again.
    pub fn power_on(&mut self, lab: &Lab, node: &Node) -> Result<()> {
        lab.power_on(node.name())?;
        await_api(lab, node)?;
        self.start_speaker(node)?;
        self.await_members(lab.nodes().len())
    }

    fn start_speaker(&mut self, node: &Node) -> Result<()> {
        // A log of its own each time: what it says once it is a member must not be an earlier one's.
        self.starts += 1;
        let log = node.dir().join(format!("metallb-speaker-{}.log", self.starts));
        let variables = [
            ("METALLB_NODE_NAME", node.name().to_owned()),
            ("METALLB_POD_NAME", pod_of(node)),
            ("METALLB_HOST", node.host.v4.to_string()),
            ("METALLB_ML_BIND_ADDR", node.host.v4.to_string()),
            ("METALLB_ML_LABELS", SPEAKER_LABELS.to_owned()),
            ("METALLB_ML_SECRET_KEY_PATH", self.secret_dir.display().to_string()),
        ];
        let args = arguments(&variables, &self.kubeconfig, &self.programs.speaker, &[]);
        let speaker = Process::start(&node.host.netns, "MetalLB's speaker", Path::new("env"), args, &log)?;
        self.speakers.push((node.name().to_owned(), speaker));
        Ok(())
    }

    /// Waits until the speaker that was started last has seen all `members` join, itself among them.
    fn await_members(&self, members: usize) -> Result<()> {
        let (_, speaker) = self.speakers.last().context("no speaker was started")?;
        let begun = Instant::now();
        loop {
            let text = std::fs::read_to_string(speaker.log())?;
            if text.matches("\"NodeJoin\"").count() >= members {
                return Ok(());
            }
            ensure!(
                speaker.exited()?.is_none() && begun.elapsed() < PATIENCE,
                "MetalLB's speaker does not see {members} members; its last words:\n{}",
                speaker.last_words()
            );
            // A file has no event that a plain read could wait for.
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

/// Waits until `node` reaches the API server, as its kubelet would before it starts a pod: the speaker ends at once when it
/// can't, and a node that has just come back can't for a moment.
fn await_api(lab: &Lab, node: &Node) -> Result<()> {
    let target = SocketAddr::from((lab.control_plane().host().v4, API_PORT));
    let deadline = Instant::now() + PATIENCE;
    let reached = node.host.netns.run(move || {
        loop {
            match TcpStream::connect_timeout(&target, Duration::from_secs(1)) {
                Err(_) if Instant::now() < deadline => std::thread::park_timeout(Duration::from_millis(10)),
                done => return done,
            }
        }
    })?;
    reached.with_context(|| format!("{} does not reach the API server", node.name())).map(drop)
}

fn start_controller(lab: &Lab, programs: &MetallbPrograms) -> Result<Process> {
    let kubeconfig = lab.account_kubeconfig_in(NAMESPACE, "controller")?;
    let variables = [("METALLB_POD_NAME", "controller".to_owned())];
    let flags = ["--webhook-mode=disabled", "--disable-cert-rotation"];
    let args = arguments(&variables, &kubeconfig, &programs.controller, &flags);
    let netns = &lab.control_plane().host().netns;
    let log = lab.dir().join("metallb-controller.log");
    Process::start(netns, "MetalLB's controller", Path::new("env"), args, &log)
}

/// For `env`: variables, the program, its flags.
fn arguments(variables: &[(&str, String)], kubeconfig: &Path, program: &Path, flags: &[&str]) -> Vec<String> {
    let mut args = vec![format!("KUBECONFIG={}", kubeconfig.display())];
    args.extend(variables.iter().map(|(name, value)| format!("{name}={value}")));
    args.push(program.display().to_string());
    args.push(format!("--namespace={NAMESPACE}"));
    // As the manifest has it.
    args.extend(["--port=9120", "--log-level=info"].map(str::to_owned));
    args.extend(flags.iter().map(|&flag| flag.to_owned()));
    args
}

/// Applies CRDs and rights.
fn install(lab: &Lab, manifest: &Path) -> Result<()> {
    let text = std::fs::read_to_string(manifest)?;
    let mut items = Vec::new();
    for document in serde_yaml::Deserializer::from_str(&text) {
        let object =
            Value::deserialize(document).with_context(|| format!("reading {}", manifest.display()))?;
        let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
        if !kind.is_empty() && !LEFT_OUT.contains(&kind) {
            items.push(object);
        }
    }
    let file = lab.dir().join("metallb.json");
    std::fs::write(&file, json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string())?;
    lab.kubectl_apply_file(&file)?;
    lab.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"])?;
    Ok(())
}

fn pool(addresses: &str) -> String {
    format!(
        "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{name: bench, namespace: {NAMESPACE}}}\n\
         spec: {{addresses: [{addresses}]}}\n---\n\
         apiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata: {{name: bench, namespace: {NAMESPACE}}}\n"
    )
}

fn pod_of(node: &Node) -> String {
    format!("speaker-{}", node.name())
}

/// The object of a pod that the lab runs itself: programs look themselves up, and speakers find each other by it.
fn create_pod(lab: &Lab, name: &str, component: &str, address: Ipv4Addr) -> Result<()> {
    let node = lab.nodes().iter().find(|node| node.host.v4 == address).or(lab.nodes().first());
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": name, "labels": { "app": "metallb", "component": component } },
        "spec": {
            "serviceAccountName": component, "hostNetwork": true, "nodeName": node.map(Node::name),
            "containers": [{ "name": component, "image": format!("metallb/{component}") }],
        },
    }))?;
    let status = json!({ "status": {
        "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }], "hostIP": address,
        "conditions": [{ "type": "Ready", "status": "True" }],
    }});
    let created = lab.block_on(async {
        let pods: Api<Pod> = Api::namespaced(lab.kube(), NAMESPACE);
        pods.create(&PostParams::default(), &pod).await?;
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await
    });
    created.with_context(|| format!("Pod {NAMESPACE}/{name}")).map(drop)
}
