//! Moving over from MetalLB and back on a real API server, as docs/moving-from-metallb.md has it: no Service changes its
//! address. MetalLB itself is played: objects of its kinds, and statuses written under the name of its controller.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, process::Output};

use anyhow::{Context as _, Result, ensure};
use herald_lab::{Lab, Plan, programs, services::addresses};
use k8s_openapi::api::core::v1::Service;
use kube::{Api, api::PostParams};
use serde_json::{Value, json};

/// The field manager of MetalLB's controller.
const METALLB: &str = "controller";

/// Kinds of MetalLB's with any spec; its own schemas are stricter.
fn metallb_kinds() -> String {
    let kinds = [
        ("ipaddresspools", "IPAddressPool", "v1beta1"),
        ("l2advertisements", "L2Advertisement", "v1beta1"),
        ("bgppeers", "BGPPeer", "v1beta2"),
    ];
    let crd = |(plural, kind, version): (&str, &str, &str)| {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.metallb.io")},
            "spec": {
                "group": "metallb.io", "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
                "versions": [{
                    "name": version, "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
                }],
            },
        })
        .to_string()
    };
    kinds.map(crd).join("\n---\n")
}

const METALLB_OBJECTS: &str = "
{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {namespace: metallb-system, name: lan},
 spec: {addresses: [192.168.7.0/28], autoAssign: true, avoidBuggyIPs: true}}
---
{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {namespace: metallb-system, name: reserved},
 spec: {addresses: [192.168.7.32-192.168.7.40], autoAssign: false, serviceAllocation: {priority: 10, namespaces: [shop]}}}
---
{apiVersion: metallb.io/v1beta1, kind: L2Advertisement, metadata: {namespace: metallb-system, name: all}}
---
{apiVersion: metallb.io/v1beta2, kind: BGPPeer, metadata: {namespace: metallb-system, name: router},
 spec: {myASN: 64500, peerASN: 64501, peerAddress: 192.168.7.254}}
---
{apiVersion: apps/v1, kind: Deployment,
 metadata: {namespace: metallb-system, name: controller, labels: {app: metallb, component: controller}},
 spec: {replicas: 1, selector: {matchLabels: {app: metallb, component: controller}}, template: {
   metadata: {labels: {app: metallb, component: controller}}, spec: {containers: [{name: controller, image: none}]}}}}
";

/// What Services show under MetalLB.
const SHOWN: [(&str, &str, &str); 4] = [
    ("plain", "", "192.168.7.9"),
    ("pinned", "annotations: {metallb.io/loadBalancerIPs: 192.168.7.33}", "192.168.7.33"),
    ("tcp", "annotations: {metallb.universe.tf/allow-shared-ip: both}", "192.168.7.5"),
    ("udp", "annotations: {metallb.universe.tf/allow-shared-ip: both}", "192.168.7.5"),
];

struct Move {
    lab: Lab,
}

impl Move {
    /// A cluster in which MetalLB gives the addresses, and Herald is installed without pools.
    fn begin() -> Result<Self> {
        let lab = Plan::nodes(2).start()?;
        lab.kubectl_apply(&metallb_kinds())?;
        lab.kubectl(&["wait", "--for=condition=Established", "--timeout=20s", "crd", "--all"])?;
        for namespace in ["metallb-system", "shop"] {
            lab.create_namespace(namespace)?;
        }
        lab.kubectl_apply(METALLB_OBJECTS)?;
        let it = Self { lab };
        for (name, metadata, address) in SHOWN {
            let protocol = if name == "udp" { "UDP" } else { "TCP" };
            it.lab.kubectl_apply(&format!(
                "{{apiVersion: v1, kind: Service, metadata: {{namespace: shop, name: {name}, {metadata}}}, spec: {{type: \
                 LoadBalancer, ports: [{{port: 80, protocol: {protocol}}}]}}}}"
            ))?;
            it.as_metallb(name, address)?;
        }
        Ok(it)
    }

    /// Writes a Service's status as MetalLB's controller does: a PUT of the object as it is.
    fn as_metallb(&self, name: &str, address: &str) -> Result<()> {
        self.lab.block_on(async {
            let api: Api<Service> = Api::namespaced(self.lab.kube(), "shop");
            let params = PostParams { field_manager: Some(METALLB.to_owned()), ..PostParams::default() };
            // Herald's controller writes its condition at the same time.
            for _ in 0..10 {
                let mut service = api.get(name).await?;
                let status = json!({"loadBalancer": {"ingress": [{"ip": address}]}});
                let conditions = service.status.take().and_then(|status| status.conditions);
                service.status = Some(serde_json::from_value(status)?);
                if let Some(status) = &mut service.status {
                    status.conditions = conditions;
                }
                match api.replace_status(name, &params, &service).await {
                    Err(kube::Error::Api(status)) if status.code == 409 => {}
                    answer => return answer.map(drop).context("writing a status as MetalLB"),
                }
            }
            anyhow::bail!("{name}: ten conflicts")
        })
    }

    fn shown(&self) -> Result<BTreeMap<String, Vec<IpAddr>>> {
        let show = |(name, _, _): (&str, &str, &str)| {
            Ok((name.to_owned(), addresses(&self.lab.service("shop", name)?)))
        };
        SHOWN.into_iter().map(show).collect()
    }

    /// Runs `kubectl herald`.
    fn herald(&self, kubeconfig: PathBuf, args: &[&str]) -> Result<Output> {
        let binary = programs::herald("kubectl-herald")?;
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let ran = self.lab.control_plane().host().netns.run(move || {
            std::process::Command::new(binary).arg("--kubeconfig").arg(kubeconfig).args(args).output()
        })?;
        Ok(ran?)
    }

    /// Runs it as the administrator; what it printed, if it ended with `code`.
    fn admin(&self, code: i32, args: &[&str]) -> Result<(String, String)> {
        let output = self.herald(self.lab.control_plane().admin_kubeconfig(), args)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        ensure!(output.status.code() == Some(code), "{args:?}: {}\n{out}\n{err}", output.status);
        Ok((out, err))
    }

    /// The managers that claim the Service's `status.loadBalancer`.
    fn claims(&self, name: &str) -> Result<Vec<String>> {
        let service = self.lab.service("shop", name)?;
        let fields = service.metadata.managed_fields.unwrap_or_default();
        let claims = fields.into_iter().filter(|entry| {
            let fields = entry.fields_v1.as_ref();
            fields.is_some_and(|fields| fields.0.pointer("/f:status/f:loadBalancer/f:ingress").is_some())
        });
        Ok(claims.filter_map(|entry| entry.manager).collect())
    }
}

#[test]
fn services_move_over_from_metallb_and_back_without_a_change_of_address() -> Result<()> {
    let it = Move::begin()?;
    let lab = &it.lab;
    let before = it.shown()?;
    // One node answers for an address already, as MetalLB's speaker would.
    let (announced, node) = ("192.168.7.5", "n2");
    lab.node(node)?.host.netns.ip(&[&format!("addr add {announced}/32 dev lo")])?;

    // A look: prints, changes nothing.
    let (printed, report) = it.admin(0, &["import", "metallb"])?;
    ensure!(report.contains("of 4 Services with an address 4 keep it"), "{report}");
    ensure!(report.contains("BGPPeer metallb-system/router"), "the report is silent on BGP:\n{report}");
    ensure!(
        !lab.kubectl(&["get", "pools.heraldlb.io", "-o", "name"])?.contains("lan"),
        "a look created something"
    );
    let dir = lab.dir().join("herald.yaml");
    std::fs::write(&dir, printed)?;
    lab.kubectl(&["apply", "--dry-run=server", "--validate=strict", "-f", &dir.display().to_string()])?;

    // While MetalLB's controller runs nothing is applied, whoever says what.
    let (_, refused) = it.admin(3, &["import", "metallb", "--apply"])?;
    ensure!(
        refused.contains("kubectl -n metallb-system scale deployment controller --replicas=0"),
        "{refused}"
    );
    it.admin(
        3,
        &["import", "metallb", "--apply", "--despite-problems", "--take-over", "--i-stopped-metallb"],
    )?;
    ensure!(
        !lab.kubectl(&["get", "pools.heraldlb.io", "-o", "name"])?.contains("lan"),
        "a refusal created something"
    );

    lab.kubectl(&["-n", "metallb-system", "scale", "deployment", "controller", "--replicas=0"])?;
    lab.kubectl(&[
        "-n",
        "metallb-system",
        "wait",
        "--for=jsonpath={.spec.replicas}=0",
        "--timeout=20s",
        "deployment/controller",
    ])?;
    lab.kubectl(&["-n", "metallb-system", "rollout", "status", "deployment/controller", "--timeout=20s"])?;
    let (_, done) = it.admin(0, &["import", "metallb", "--apply", "--take-over", "--i-stopped-metallb"])?;
    ensure!(done.contains("4 Services taken over"), "{done}");
    ensure!(it.shown()? == before, "addresses changed: {:?} was {before:?}", it.shown()?);
    for (name, _, address) in SHOWN {
        let address: IpAddr = address.parse()?;
        lab.await_holder(address).with_context(|| format!("{name} is announced by nobody"))?;
        let claims = it.claims(name)?;
        ensure!(claims == ["herald-controller"], "{name}: {claims:?} claim its status");
    }
    lab.await_holder_is(announced.parse()?, node)
        .context("the address left the node that answered for it")?;
    lab.node(node)?.host.netns.ip(&[&format!("addr del {announced}/32 dev lo")])?;

    // The same again finds nothing to do.
    let (_, again) = it.admin(0, &["import", "metallb", "--apply", "--take-over", "--i-stopped-metallb"])?;
    ensure!(again.contains("status.loadBalancer of 0 Services"), "{again}");

    // Herald may change now what MetalLB had written.
    let set_type = |kind: &str| {
        let spec = format!(r#"{{"spec":{{"type":"{kind}"}}}}"#);
        lab.kubectl(&["-n", "shop", "patch", "service", "plain", "--type=merge", "-p", &spec])
    };
    set_type("ClusterIP")?;
    lab.await_service("shop", "plain", "without address", |service| addresses(service).is_empty())?;
    set_type("LoadBalancer")?;
    lab.await_addresses("shop", "plain")?;

    // Back: Herald stops, MetalLB's controller writes what it finds.
    let before = it.shown()?;
    lab.controller(herald_lab::Process::terminate)?;
    lab.kubectl(&["-n", "metallb-system", "scale", "deployment", "controller", "--replicas=1"])?;
    for (name, shown) in &before {
        let address = shown.first().context("an address")?.to_string();
        it.as_metallb(name, &address)?;
    }
    ensure!(it.shown()? == before, "addresses changed on the way back");

    // And over again, as if nothing had been.
    lab.kubectl(&["-n", "metallb-system", "scale", "deployment", "controller", "--replicas=0"])?;
    lab.kubectl(&["-n", "metallb-system", "rollout", "status", "deployment/controller", "--timeout=20s"])?;
    lab.start_controller_again()?;
    it.admin(0, &["import", "metallb", "--apply", "--take-over", "--i-stopped-metallb"])?;
    ensure!(it.shown()? == before, "addresses changed on the second move");
    Ok(())
}

/// The commands of a section of the page, as it has them.
fn commands(section: &str) -> Result<Vec<String>> {
    let page = std::fs::read_to_string(programs::workspace().join("docs/moving-from-metallb.md"))?;
    let (_, section) = page.split_once(section).with_context(|| format!("the page has no {section:?}"))?;
    let section = section.split("\n## ").next().unwrap_or_default();
    Ok(section.lines().filter_map(|line| line.strip_prefix("$ kubectl ")).map(str::to_owned).collect())
}

#[test]
fn what_the_way_back_does_to_herald_is_undone_by_the_commands_to_come_again() -> Result<()> {
    let lab = Plan::nodes(1).without_herald().start()?;
    lab.apply_manifests()?;
    for workload in ["controller.yaml", "speaker.yaml"] {
        lab.kubectl_apply_file(&programs::workspace().join("manifests").join(workload))?;
    }
    let specs = || -> Result<(Value, Value)> {
        let spec = |object: &str| -> Result<Value> {
            let text = lab.kubectl(&["-n", herald_lab::HERALD_NAMESPACE, "get", object, "-o", "json"])?;
            Ok(serde_json::from_str::<Value>(&text)?["spec"].clone())
        };
        Ok((spec("deployment/herald-controller")?, spec("daemonset/herald-speaker")?))
    };
    // Those that change Herald's workloads; what is waited for needs kubelets.
    let play = |section: &str| -> Result<()> {
        let lines = commands(section)?;
        let changes = |line: &&String| line.contains(" scale ") || line.contains(" patch ");
        let ours: Vec<&String> =
            lines.iter().filter(changes).filter(|line| line.starts_with("-n herald-system ")).collect();
        ensure!(ours.len() == 2, "{section}: {ours:?}");
        for line in ours {
            let words: Vec<&str> = line.split(' ').map(|word| word.trim_matches('\'')).collect();
            lab.kubectl(&words).with_context(|| line.clone())?;
        }
        Ok(())
    };
    let before = specs()?;
    ensure!(before.0["replicas"] == 2, "{}", before.0);
    play("## The way back")?;
    let back = specs()?;
    ensure!(back.0["replicas"] == 0, "{}", back.0);
    ensure!(back.1["template"]["spec"]["nodeSelector"]["heraldlb.io/moved"] == "true", "{}", back.1);
    play("\n## To come again")?;
    ensure!(specs()? == before, "{:?} after {before:?}", specs()?);
    Ok(())
}

#[test]
fn explain_tells_the_whole_chain_and_names_the_rights_that_are_missing() -> Result<()> {
    let it = Move::begin()?;
    let lab = &it.lab;
    let explain = |service: &str, more: &[&str]| -> Result<Value> {
        let (out, _) = it.admin(0, &[&["explain", service, "-n", "shop", "-o", "json"], more].concat())?;
        Ok(serde_json::from_str(&out)?)
    };
    let link = |explanation: &Value, step: &str| -> String {
        let chain = explanation["chain"].as_array().cloned().unwrap_or_default();
        let links = chain.iter().filter(|link| link["step"] == step);
        links.map(|link| format!("{} {}", link["state"], link["what"])).collect::<Vec<_>>().join("\n")
    };

    // Before: MetalLB's address, which Herald has not given.
    let told = explain("svc/plain", &[])?;
    ensure!(link(&told, "Address").contains("192.168.7.9, which Herald has not given"), "{told:#}");

    lab.kubectl(&["-n", "metallb-system", "scale", "deployment", "controller", "--replicas=0"])?;
    lab.kubectl(&["-n", "metallb-system", "rollout", "status", "deployment/controller", "--timeout=20s"])?;
    it.admin(0, &["import", "metallb", "--apply"])?;
    let holder = lab.await_holder("192.168.7.5".parse()?)?;
    lab.await_service_condition("shop", "tcp", "heraldlb.io/Announced", "True")?;
    // Counted when there is nothing more urgent to write.
    lab.kubectl(&["wait", "ipaddresspool/lan", "--for=jsonpath={.status.assignedIPv4}=2", "--timeout=30s"])?;
    let told = explain("svc/tcp", &[])?;
    for (step, words) in [
        ("Request", "to be shared by key"),
        ("Address", "192.168.7.5, shared with shop/udp"),
        ("Pool", "lan: 2 IPv4 in use"),
        ("Advertisement", "all"),
        ("Nodes", "n1, n2 may announce 192.168.7.5"),
        ("Holder", &format!("{holder} answers for 192.168.7.5")),
        ("Condition", "Allocated=True"),
    ] {
        ensure!(link(&told, step).contains(words), "{step}: {words}?\n{told:#}");
    }

    // A class that is not ours: nobody but explain speaks of it.
    lab.kubectl_apply(
        "{apiVersion: v1, kind: Service, metadata: {namespace: shop, name: foreign}, spec: {type: LoadBalancer, \
         loadBalancerClass: other, ports: [{port: 80}]}}",
    )?;
    let told = explain("foreign", &[])?;
    ensure!(link(&told, "Service").contains("class 'other'"), "{told:#}");

    // No controller: what one would say.
    lab.controller(herald_lab::Process::terminate)?;
    lab.kubectl_apply(
        "{apiVersion: v1, kind: Service, metadata: {namespace: shop, name: late}, spec: {type: LoadBalancer, \
         ports: [{port: 80}]}}",
    )?;
    let told = explain("late", &[])?;
    ensure!(told["advice"].to_string().contains("a controller would give it 192.168.7."), "{told:#}");

    // Somebody who may see no more than the namespace is told which rights the rest takes.
    lab.kubectl(&["-n", herald_lab::HERALD_NAMESPACE, "create", "serviceaccount", "tenant"])?;
    let account = format!("--serviceaccount={}:tenant", herald_lab::HERALD_NAMESPACE);
    lab.kubectl(&["-n", "shop", "create", "rolebinding", "tenant", "--clusterrole=view", &account])?;
    let kubeconfig = lab.account_kubeconfig("tenant")?;
    let output = it.herald(kubeconfig, &["explain", "svc/tcp", "-n", "shop"])?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(text.contains("no right to list loadbalancerips.heraldlb.io"), "{text}");
    ensure!(text.contains("Allocated=True"), "the Service's own condition is missing:\n{text}");

    // What is not there is named.
    let (_, error) = it.admin(2, &["explain", "svc/nobody", "-n", "shop"])?;
    ensure!(error.contains("there is no Service shop/nobody"), "{error}");
    Ok(())
}
