//! The chart at a real API server: every object is valid, the warnings tell what is so, uninstalling keeps what it must.

use anyhow::{Context as _, Result, bail, ensure};
use herald_lab::{HERALD_NAMESPACE, Lab, Plan, programs::Helm};
use serde_json::{Value, json};

use crate::{SETS, chart, documents, template};

/// Where a CRD says which version it is.
pub(crate) const CRD_VERSION: &str = r"jsonpath={.metadata.annotations.heraldlb\.io/crd-version}";
pub(crate) const NAMESPACE: &str = "--namespace=herald-system";

/// What a cluster looks like, and what the notes must say (or, with `!`, must not).
struct Situation {
    what: &'static str,
    /// Manifests that make it so, and kubectl commands.
    manifest: &'static str,
    commands: &'static [&'static [&'static str]],
    values: &'static [&'static str],
    says: &'static [&'static str],
    undo: &'static [&'static [&'static str]],
}

const SITUATIONS: [Situation; 11] = [
    Situation {
        what: "a plain cluster, a pool in the values",
        manifest: "",
        commands: &[],
        values: &["--set=pools[0].addresses={192.168.0.240-192.168.0.250}"],
        says: &["any Service of type LoadBalancer gets an address", ALLOW_SPEAKER, "!WARNING", "!NO POOL"],
        undo: &[],
    },
    Situation {
        what: "a namespace that helm has yet to create",
        manifest: "",
        commands: &[],
        values: &["--namespace=not-there", "--create-namespace"],
        says: &["kubectl label namespace not-there pod-security", "!WARNING"],
        undo: &[],
    },
    Situation {
        what: "no pool, in a namespace that allows the speaker",
        manifest: "",
        commands: &[&[
            "label",
            "namespace",
            HERALD_NAMESPACE,
            "pod-security.kubernetes.io/enforce=privileged",
        ]],
        values: &[],
        says: &[
            "THERE IS NO POOL YET",
            "helm upgrade herald CHART --namespace herald-system --reset-then-reuse-values --set 'pools[0].addresses={",
            "!pod-security",
        ],
        undo: &[],
    },
    Situation {
        what: "k3s with servicelb",
        manifest: "",
        commands: &[&[
            "annotate",
            "node",
            "n1",
            r#"k3s.io/node-args=["server","--disable","traefik","--servicelb-namespace","lb"]"#,
        ]],
        values: &[],
        says: &["servicelb) is on, on n1", "disable+: [servicelb]", "AnotherController"],
        undo: &[],
    },
    Situation {
        what: "k3s with servicelb, and a class of our own",
        manifest: "",
        commands: &[],
        values: &["--set=loadBalancerClass=heraldlb.io/l2"],
        says: &["!servicelb", "for Services of class heraldlb.io/l2"],
        undo: &[&["annotate", "node", "n1", "k3s.io/node-args-"]],
    },
    Situation {
        what: "k3s without servicelb",
        manifest: "",
        commands: &[&[
            "annotate",
            "node",
            "n1",
            r#"k3s.io/node-args=["server","--disable","traefik,servicelb"]"#,
        ]],
        values: &[],
        says: &["!servicelb"],
        undo: &[&["annotate", "node", "n1", "k3s.io/node-args-"]],
    },
    Situation {
        what: "MetalLB",
        manifest: METALLB,
        commands: &[],
        values: &[],
        says: &[
            "MetalLB (metallb-system/controller) serves",
            "AnotherController",
            "helm upgrade herald CHART --namespace herald-system --reset-then-reuse-values --set loadBalancerClass=heraldlb.io/l2",
        ],
        undo: &[&["delete", "namespace", "metallb-system", "--wait=false"]],
    },
    Situation {
        what: "kube-proxy in IPVS mode without strictARP",
        manifest: "{apiVersion: v1, kind: ConfigMap, metadata: {name: kube-proxy, namespace: kube-system}, data: {config.conf: \
                   \"ipvs:\\n  strictARP: false\\nmode: ipvs\\n\"}}",
        commands: &[],
        values: &[],
        says: &["IPVS mode without strictARP", "ipvs.strictARP: true"],
        undo: &[&["-n", "kube-system", "delete", "configmap", "kube-proxy"]],
    },
    Situation {
        what: "only excluded nodes, whose addresses are in the pool",
        manifest: "",
        commands: &[&["label", "node", "n1", "node.kubernetes.io/exclude-from-external-load-balancers="]],
        values: &["--set=pools[0].addresses={192.168.0.0/24,fd98::/57}"],
        says: &[
            "Every node that runs a speaker (n1) has the label",
            "192.168.0.11 of node n1 lies in 192.168.0.0/24 of pool default",
            "fd98::11 of node n1 lies in fd98::/57 of pool default",
        ],
        undo: &[&["label", "node", "n1", "node.kubernetes.io/exclude-from-external-load-balancers-"]],
    },
    Situation {
        what: "nodes' addresses excluded from the pool around them",
        manifest: "",
        commands: &[],
        values: &[
            "--set=pools[0].addresses={192.168.0.0/24},pools[0].excluded={192.168.0.1-192.168.0.9,192.168.0.8/29}",
            "--set=pools[1].name=six,pools[1].addresses={fd98::/64},pools[1].excluded={fd98::1-fd98::ff}",
        ],
        says: &["!of node n1 lies in"],
        undo: &[],
    },
    Situation {
        what: "no node for the speaker",
        manifest: "",
        commands: &[],
        values: &["--set-string=speaker.nodeSelector.rack=7"],
        says: &["No node has the labels of speaker.nodeSelector"],
        undo: &[],
    },
];

/// What the notes advise at an install into a namespace that says nothing of Pod Security.
const ALLOW_SPEAKER: &str =
    "kubectl label namespace herald-system pod-security.kubernetes.io/enforce=privileged";

const METALLB: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: metallb-system}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ipaddresspools.metallb.io}
spec:
  group: metallb.io
  names: {kind: IPAddressPool, plural: ipaddresspools, singular: ipaddresspool}
  scope: Namespaced
  versions: [{name: v1beta1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: controller, namespace: metallb-system, labels: {app: metallb}}
spec:
  selector: {matchLabels: {app: metallb}}
  template:
    metadata: {labels: {app: metallb}}
    spec: {containers: [{name: controller, image: metallb, args: [--port=7472]}]}
";

/// A control plane and a node, without Herald.
pub(crate) fn lab() -> Result<Lab> {
    let lab = Plan::nodes(1).without_herald().start()?;
    lab.kubectl(&["label", "node", "n1", "kubernetes.io/os=linux"])?;
    lab.create_namespace(HERALD_NAMESPACE)?;
    Ok(lab)
}

fn install(lab: &Lab, more: &[&str]) -> Result<String> {
    install_by(Helm::Four, lab, more)
}

fn install_by(helm: Helm, lab: &Lab, more: &[&str]) -> Result<String> {
    let chart = chart().display().to_string();
    lab.helm_of(helm, &[&["install", "herald", &chart, NAMESPACE], more].concat())
}

/// The kubectl file of a text.
fn file(lab: &Lab, name: &str, text: &str) -> Result<String> {
    let path = lab.dir().join(name);
    std::fs::write(&path, text)?;
    Ok(path.display().to_string())
}

#[test]
fn every_object_is_valid_to_the_letter_at_a_real_api_server() -> Result<()> {
    let lab = lab()?;
    lab.kubectl_apply_file(&chart().join("crds"))?;
    lab.kubectl_apply(include_str!("monitoring-crds.yaml"))?;
    for crd in ["ipaddresspools.heraldlb.io", "prometheusrules.monitoring.coreos.com"] {
        lab.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "crd", crd])?;
    }
    for (set, args) in SETS {
        let rendered = file(&lab, "rendered.yaml", &template(args)?)?;
        let answer = lab.kubectl(&["apply", "--dry-run=server", "--validate=strict", "-f", &rendered]);
        answer.with_context(|| set.to_owned())?;
    }
    let manifests = herald_lab::programs::workspace().join("manifests").display().to_string();
    lab.kubectl(&["apply", "--dry-run=server", "--validate=strict", "-k", &manifests])?;
    only_the_speaker_needs_more_than_restricted(&lab)
}

/// Creates the pods in a namespace that enforces `restricted`.
fn only_the_speaker_needs_more_than_restricted(lab: &Lab) -> Result<()> {
    lab.create_namespace("restricted")?;
    lab.kubectl(&["label", "namespace", "restricted", "pod-security.kubernetes.io/enforce=restricted"])?;
    let mut seen = 0;
    for each in documents(&template(&[])?)? {
        let Some(mut spec) = each.pointer("/spec/template/spec").cloned() else { continue };
        seen += 1;
        if let Some(spec) = spec.as_object_mut() {
            spec.insert("serviceAccountName".to_owned(), json!("default"));
        }
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "x", "namespace": "restricted" }, "spec": spec });
        let pod = file(lab, "pod.json", &pod.to_string())?;
        let answer = lab.kubectl(&["create", "--dry-run=server", "--validate=strict", "-f", &pod]);
        match (each.get("kind").and_then(Value::as_str), answer) {
            (Some("DaemonSet"), Err(error)) => {
                let error = format!("{error:#}");
                ensure!(error.contains("violates PodSecurity") && error.contains("NET_RAW"), "{error}");
                ensure!(!error.contains("runAsNonRoot") && !error.contains("seccomp"), "{error}");
            }
            (Some("DaemonSet"), Ok(_)) => bail!("restricted allows NET_RAW?"),
            (kind, answer) => {
                answer.with_context(|| format!("{kind:?} in a restricted namespace"))?;
            }
        }
    }
    ensure!(seen == 3, "{seen} kinds of pods: Deployment, DaemonSet and the Job were expected");
    Ok(())
}

#[test]
fn the_notes_warn_of_what_is_wrong_in_the_cluster_and_of_nothing_else() -> Result<()> {
    let lab = lab()?;
    lab.kubectl_apply_file(&chart().join("crds"))?;
    let mut wrong = Vec::new();
    for situation in &SITUATIONS {
        if !situation.manifest.is_empty() {
            lab.kubectl_apply(situation.manifest)?;
        }
        for command in situation.commands {
            lab.kubectl(command)?;
        }
        let text = install(&lab, &[&["--dry-run=server"], situation.values].concat());
        let text = text.with_context(|| situation.what.to_owned())?;
        let notes = text.split_once("NOTES:").context("no notes")?.1;
        for word in situation.says {
            let (word, expected) = word.strip_prefix('!').map_or((*word, true), |word| (word, false));
            if notes.contains(word) != expected {
                let verb = if expected { "lack" } else { "hold" };
                wrong.push(format!("{}: the notes {verb} {word:?}:\n{notes}", situation.what));
            }
        }
        for command in situation.undo {
            lab.kubectl(command)?;
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn a_namespace_that_would_refuse_the_speaker_is_named_with_the_command_that_allows_it() -> Result<()> {
    let lab = lab()?;
    lab.kubectl(&[
        "label",
        "namespace",
        HERALD_NAMESPACE,
        "pod-security.kubernetes.io/enforce=baseline",
        "--overwrite",
    ])?;
    let Err(error) = install(&lab, &["--dry-run=server"]) else { bail!("it was installed") };
    let error = format!("{error:#}");
    ensure!(error.contains(&format!("{ALLOW_SPEAKER} --overwrite")), "{error}");
    Ok(())
}

#[test]
fn one_release_per_cluster_and_uninstalling_keeps_addresses_and_crds() -> Result<()> {
    install_change_and_uninstall(Helm::Four)
}

#[test]
fn helm_3_installs_changes_and_uninstalls_as_helm_4_does() -> Result<()> {
    install_change_and_uninstall(Helm::Three)
}

fn install_change_and_uninstall(helm: Helm) -> Result<()> {
    let lab = lab()?;
    let pool = ["--set=pools[0].addresses={192.168.0.240-192.168.0.250}"];
    let notes = install_by(helm, &lab, &pool)?;
    ensure!(notes.contains(ALLOW_SPEAKER), "{notes}");

    let chart = chart().display().to_string();
    // As the notes have it: one value changes, and the pool stays.
    let change = ["--reset-then-reuse-values", "--set=loadBalancerClass=heraldlb.io/l2", "--dry-run=server"];
    let upgrade = lab.helm_of(helm, &[&["upgrade", "herald", &chart, NAMESPACE][..], &change].concat())?;
    ensure!(upgrade.contains("192.168.0.240-192.168.0.250"), "{upgrade}");
    ensure!(!upgrade.contains(ALLOW_SPEAKER), "the speakers run, and yet:\n{upgrade}");
    ensure!(!upgrade.contains("deleted"), "{upgrade}");
    // And as many type it, for other charts.
    let change = ["--set=controller.replicas=3", "--dry-run=server"];
    let upgrade = lab.helm_of(helm, &[&["upgrade", "herald", &chart, NAMESPACE][..], &change].concat())?;
    for word in
        ["so it is deleted:\n  IPAddressPool default\n", "helm rollback herald", "THERE IS NO POOL YET"]
    {
        ensure!(upgrade.contains(word), "the notes lack {word:?}:\n{upgrade}");
    }

    let second =
        lab.helm_of(helm, &["install", "second", &chart, "--namespace=elsewhere", "--create-namespace"]);
    let Err(error) = second else { bail!("a second release was installed") };
    let error = format!("{error:#}");
    ensure!(error.contains("release \"herald\" in namespace \"herald-system\""), "{error}");

    lab.kubectl_apply(
        "{apiVersion: heraldlb.io/v1beta1, kind: LoadBalancerIP, metadata: {name: 192.168.0.240}, \
         spec: {address: 192.168.0.240, claimRef: {namespace: shop, name: web}}}",
    )?;
    lab.helm_of(helm, &["uninstall", "herald", NAMESPACE])?;
    lab.kubectl(&["get", "loadbalancerip", "192.168.0.240"])?;
    let kinds = "clusterroles,clusterrolebindings,roles,rolebindings";
    let left = lab.kubectl(&["get", kinds, "--all-namespaces", "-o", "name"])?;
    ensure!(!left.contains("herald"), "{left}");

    // Helm 3 leaves the CRDs of an earlier release as they are; the Job does not.
    let hooks = hooks(&install_by(helm, &lab, &["--dry-run=server"])?)?;
    ensure!(hooks == "pre-upgrade", "{hooks}");
    let version = lab.kubectl(&["get", "crd", "loadbalancerips.heraldlb.io", "-o", CRD_VERSION])?;
    lab.kubectl(&[
        "annotate",
        "crd",
        "loadbalancerips.heraldlb.io",
        "heraldlb.io/crd-version=0",
        "--overwrite",
    ])?;
    let hooks = self::hooks(&install_by(helm, &lab, &["--dry-run=server"])?)?;
    ensure!(hooks == "pre-install,pre-upgrade", "older CRDs, but: {hooks}");
    let version = format!("heraldlb.io/crd-version={version}");
    lab.kubectl(&["annotate", "crd", "loadbalancerips.heraldlb.io", &version, "--overwrite"])?;

    install_by(helm, &lab, &pool)?;
    Ok(())
}

#[test]
fn plain_manifests_and_a_release_are_told_apart() -> Result<()> {
    let lab = lab()?;
    lab.apply_manifests()?;
    let Err(error) = install(&lab, &["--dry-run=server"]) else { bail!("it was installed") };
    let error = format!("{error:#}");
    ensure!(error.contains("from plain manifests"), "{error}");
    Ok(())
}

#[test]
fn a_speaker_may_write_no_other_node_among_the_holders() -> Result<()> {
    let lab = lab()?;
    install(&lab, &["--set=speaker.admissionPolicy=true"])?;
    lab.kubectl_apply(
        "{apiVersion: heraldlb.io/v1beta1, kind: LoadBalancerIP, metadata: {name: 192.168.0.240}, \
         spec: {address: 192.168.0.240, claimRef: {namespace: shop, name: web}}}",
    )?;
    let holder = |node: &str| json!({ "node": node, "interface": "eth0", "mac": "02:00:00:00:00:01", "since": "2026-01-01T00:00:00Z" });
    // Not by kubectl, which reads the status first: a speaker has no right to that, and does not.
    let write = |node: Option<&str>, holders: Value| -> Result<String> {
        let path = "/apis/heraldlb.io/v1beta1/loadbalancerips/192.168.0.240/status";
        let request = http::Request::patch(path)
            .header("Content-Type", "application/merge-patch+json")
            .header("Impersonate-User", "system:serviceaccount:herald-system:herald-speaker");
        let extra = "Impersonate-Extra-authentication.kubernetes.io%2Fnode-name";
        let request = node.into_iter().fold(request, |request, node| request.header(extra, node));
        let request = request.body(json!({ "status": { "holders": holders } }).to_string().into_bytes())?;
        let client = lab.kube();
        Ok(lab.block_on(async move { client.request_text(request).await })?)
    };
    // A policy is in force a moment after it was written.
    let refused = (0..2000).find_map(|_| write(None, json!([holder("n1")])).err());
    let error = format!("{:#}", refused.context("a token without a node was accepted")?);
    ensure!(error.contains("token names no node"), "{error}");
    write(Some("n1"), json!([holder("n1")]))?;
    let Err(error) = write(Some("n2"), json!([holder("n1"), holder("n3")])) else { bail!("n2 wrote n3") };
    ensure!(format!("{error:#}").contains("the speaker of node n2 may write no other node"), "{error:#}");
    write(Some("n2"), json!([holder("n1"), holder("n2")]))?;
    write(Some("n2"), json!([holder("n2")]))?;
    Ok(())
}

/// When the Job that applies CRDs would run.
fn hooks(text: &str) -> Result<String> {
    let text = text.split_once("HOOKS:").context("no hooks")?.1;
    let text = text.split_once("MANIFEST:").map_or(text, |(hooks, _)| hooks);
    let job = documents(text)?
        .into_iter()
        .find(|each| each.get("kind").is_some_and(|kind| kind == "Job"))
        .context("no Job")?;
    let hooks = job.pointer("/metadata/annotations/helm.sh~1hook").and_then(Value::as_str).map(str::to_owned);
    hooks.context("the Job is no hook")
}
