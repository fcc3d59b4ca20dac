//! Herald on a full cluster, as a user has it: installed by helm from the chart, with the images that `make` built.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{Api, ResourceExt as _, api::ListParams};

use super::Cluster;
use crate::{
    herald::NAMESPACE,
    programs,
    services::{addresses, holders},
    site::Site,
};

/// The addresses that [`Cluster::install_herald`] gives to the pool.
pub const POOL: &str = "192.168.1.240-192.168.1.250";

/// The chart's directory.
pub fn chart() -> PathBuf {
    programs::workspace().join("charts/herald")
}

impl Cluster {
    /// `helm install herald`, with [`POOL`], and with more arguments; waits until all pods are ready.
    pub fn install_herald(&self, more: &[&str]) -> Result<Duration> {
        self.helm_herald("install", more)
    }

    /// `helm upgrade herald`, with the values as they are and more arguments; waits until all pods are ready.
    pub fn upgrade_herald(&self, more: &[&str]) -> Result<Duration> {
        self.helm_herald("upgrade", &[&["--reuse-values"], more].concat())
    }

    fn helm_herald(&self, verb: &str, more: &[&str]) -> Result<Duration> {
        let begun = Instant::now();
        let chart = chart().display().to_string();
        let pool = format!("pools[0].addresses={{{POOL}}}");
        let mut args = vec![verb, "herald", &chart, "--namespace", NAMESPACE, "--wait", "--timeout", "120s"];
        if verb == "install" {
            args.extend(["--create-namespace", "--set", &pool]);
        }
        args.extend(more);
        let outcome = self.helm(&args);
        if outcome.is_err() {
            self.report(&[
                "get",
                "pods,events",
                "--namespace",
                NAMESPACE,
                "--sort-by=.metadata.creationTimestamp",
            ]);
        }
        outcome?;
        Ok(begun.elapsed())
    }

    /// Shows what kubectl says on standard error: what a failure can't say by itself.
    fn report(&self, args: &[&str]) {
        let said = self.kubectl(args).unwrap_or_else(|error| format!("{error:#}"));
        self.progress().say(&said);
    }

    /// The speaker pods, by node; not those that are about to end.
    pub fn speakers(&self) -> Result<BTreeMap<String, Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.kube(), NAMESPACE);
        let list = ListParams::default().labels("app.kubernetes.io/component=speaker");
        let pods = self.block_on(pods.list(&list))?.items.into_iter();
        let pods = pods.filter(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(pods.filter_map(|pod| Some((pod.spec.as_ref()?.node_name.clone()?, pod))).collect())
    }

    /// The speaker pod's name on `node`.
    pub fn speaker_pod(&self, node: &str) -> Result<String> {
        let speakers = self.speakers()?;
        Ok(speakers.get(node).with_context(|| format!("no speaker pod on {node}"))?.name_any())
    }

    /// A Deployment of the lab's backend, `replicas` of it spread over `nodes`, and a Service of type LoadBalancer in
    /// front of it, HTTP and UDP echo on port 80; waits until all its pods are ready.
    pub fn run_backend(&self, namespace: &str, name: &str, nodes: &[&str], spec: &str) -> Result<()> {
        self.deploy_backend(namespace, name, nodes)?;
        self.kubectl_apply(&format!(
            "{{apiVersion: v1, kind: Service, metadata: {{namespace: {namespace}, name: {name}}}, spec: {{type: LoadBalancer, \
             selector: {{app: {name}}}, ports: [{{name: http, port: 80, targetPort: 8080}}, {{name: echo, port: 80, \
             targetPort: 8080, protocol: UDP}}], {spec}}}}}"
        ))?;
        Ok(())
    }

    /// The Deployment alone: one replica on each of `nodes`.
    pub fn deploy_backend(&self, namespace: &str, name: &str, nodes: &[&str]) -> Result<()> {
        let (replicas, nodes) = (nodes.len(), nodes.join(", "));
        let image = super::POD_IMAGE;
        self.kubectl_apply(&format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{namespace: {namespace}, name: {name}}}, spec: {{\
               replicas: {replicas}, selector: {{matchLabels: {{app: {name}}}}}, \
               template: {{metadata: {{labels: {{app: {name}}}}}, spec: {{\
                 affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: [\
                   {{matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [{nodes}]}}]}}]}}}}}}, \
                 topologySpreadConstraints: [{{maxSkew: 1, topologyKey: kubernetes.io/hostname, \
                   whenUnsatisfiable: ScheduleAnyway, labelSelector: {{matchLabels: {{app: {name}}}}}}}], \
                 tolerations: [{{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 5}}], \
                 containers: [{{name: backend, image: '{image}', imagePullPolicy: Never, args: [serve], \
                   env: [{{name: NODE, valueFrom: {{fieldRef: {{fieldPath: spec.nodeName}}}}}}], \
                   readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}}}]}}}}}}}}"
        ))?;
        let deployment = format!("deployment/{name}");
        self.kubectl(&["rollout", "status", "--namespace", namespace, &deployment, "--timeout=60s"])?;
        Ok(())
    }

    /// Waits until all pods of Herald are ready.
    pub fn await_herald(&self) -> Result<()> {
        for object in ["deployment/herald-controller", "daemonset/herald-speaker"] {
            let status =
                self.kubectl(&["rollout", "status", "--namespace", NAMESPACE, object, "--timeout=90s"]);
            if status.is_err() {
                self.report(&["describe", "pods", "--namespace", NAMESPACE]);
            }
            status?;
        }
        Ok(())
    }
}

/// What a Service has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its EXTERNAL-IPs.
    pub addresses: Vec<IpAddr>,
    /// The nodes that hold them.
    pub holders: Vec<String>,
}

impl Site {
    /// Every Service of type LoadBalancer, by `namespace/name`, with what it has.
    pub fn address_book(&self) -> Result<BTreeMap<String, Listed>> {
        let services: Api<Service> = Api::all(self.kube());
        let mut book = BTreeMap::new();
        for service in
            self.block_on(services.list(&ListParams::default().fields("spec.type=LoadBalancer")))?
        {
            let addresses = addresses(&service);
            let mut held = Vec::new();
            for &address in &addresses {
                held.extend(self.lbip(address)?.iter().flat_map(holders));
            }
            let name = format!("{}/{}", service.namespace().unwrap_or_default(), service.name_any());
            book.insert(name, Listed { addresses, holders: held });
        }
        Ok(book)
    }
}
