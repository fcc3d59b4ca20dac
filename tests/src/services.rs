//! Services: giving them endpoints, and waiting for what becomes of them.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, bail};
use futures::{StreamExt as _, TryStreamExt as _};
use herald_crds::{IPAddressPool, LoadBalancerIP, name_of_address};
use k8s_openapi::{
    api::{
        core::v1::{Event, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
    runtime::{WatchStreamExt as _, wait::await_condition, watcher},
};
use serde_json::json;

use crate::{backend::BACKEND_PORT, lab::Lab, site::Site};

/// How long anything in the API may take before a test calls it missing. Generous: two cores, many labs.
pub const PATIENCE: Duration = Duration::from_secs(40);

impl Lab {
    /// Gives a Service the backends behind `nodes`, and takes away those it had.
    pub fn set_endpoints(&self, namespace: &str, name: &str, nodes: &[&str]) -> Result<()> {
        let service = self.service(namespace, name)?;
        let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
        let ports: Vec<_> = ports
            .iter()
            .map(|port| json!({ "name": port.name.as_deref().unwrap_or(""), "protocol": port.protocol, "port": BACKEND_PORT }))
            .collect();
        for family in ["IPv4", "IPv6"] {
            let mut endpoints = Vec::new();
            for node in nodes {
                let backend = &self.node(node)?.backend;
                let address: IpAddr = if family == "IPv4" { backend.v4.into() } else { backend.v6.into() };
                let conditions = json!({ "ready": true, "serving": true, "terminating": false });
                endpoints.push(json!({ "addresses": [address], "nodeName": node, "conditions": conditions }));
            }
            let slice_name = format!("{name}-lab-{}", family.to_lowercase());
            let slice = json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": { "name": slice_name, "labels": {
                    "kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": "lab.heraldlb.io",
                } },
                "addressType": family, "endpoints": endpoints, "ports": ports,
            });
            let slices: Api<EndpointSlice> = Api::namespaced(self.kube(), namespace);
            let parameters = PatchParams::apply("lab").force();
            self.block_on(slices.patch(&slice_name, &parameters, &Patch::Apply(slice)))
                .with_context(|| format!("EndpointSlice {namespace}/{slice_name}"))?;
        }
        Ok(())
    }
}

impl Site {
    /// The Service as it is now.
    pub fn service(&self, namespace: &str, name: &str) -> Result<Service> {
        let api: Api<Service> = Api::namespaced(self.kube(), namespace);
        self.block_on(api.get(name)).with_context(|| format!("getting Service {namespace}/{name}"))
    }

    /// Waits until the Service is as `wanted` says; `what` names that in the error.
    pub fn await_service(
        &self,
        namespace: &str,
        name: &str,
        what: &str,
        wanted: impl Fn(&Service) -> bool + Send + Sync,
    ) -> Result<Service> {
        let waited = self.block_on(async {
            let api: Api<Service> = Api::namespaced(self.kube(), namespace);
            let condition = |service: Option<&Service>| service.is_some_and(&wanted);
            tokio::time::timeout(PATIENCE, await_condition(api, name, condition)).await
        });
        let Ok(service) = waited else {
            let now = self.kubectl(&["describe", "service", "-n", namespace, name])?;
            bail!("Service {namespace}/{name}: not {what} within {PATIENCE:?}; it is\n{now}")
        };
        service?.context("a Service that was there and is not")
    }

    /// Waits for the Service's EXTERNAL-IPs.
    pub fn await_addresses(&self, namespace: &str, name: &str) -> Result<Vec<IpAddr>> {
        let service = self
            .await_service(namespace, name, "given an address", |service| !addresses(service).is_empty())?;
        Ok(addresses(&service))
    }

    /// Waits until the Service's condition `kind` has `status`, and gives it.
    pub fn await_service_condition(
        &self,
        namespace: &str,
        name: &str,
        kind: &str,
        status: &str,
    ) -> Result<Condition> {
        let found = |service: &Service| condition(service, kind).filter(|found| found.status == status);
        let what = format!("{kind}={status}");
        let service = self.await_service(namespace, name, &what, |service| found(service).is_some())?;
        found(&service).context("a condition that was there and is not")
    }

    /// Herald's events about an object, oldest first, as (reason, message). Kubernetes itself has its own to tell.
    pub fn herald_events(&self, namespace: &str, kind: &str, name: &str) -> Result<Vec<(String, String)>> {
        let api: Api<Event> = Api::namespaced(self.kube(), namespace);
        let selector = format!("involvedObject.kind={kind},involvedObject.name={name}");
        let list = self.block_on(api.list(&ListParams::default().fields(&selector)))?;
        let ours =
            |event: &Event| event.reporting_component.as_deref().is_some_and(|by| by.contains("herald"));
        let mut events: Vec<Event> = list.items.into_iter().filter(ours).collect();
        events.sort_by_key(|event| event.creation_timestamp().map(|time| time.0));
        Ok(events
            .into_iter()
            .map(|event| (event.reason.unwrap_or_default(), event.message.unwrap_or_default()))
            .collect())
    }

    /// Waits until an event with one of these reasons is there about an object: events come after what they tell of.
    pub fn await_event(&self, namespace: &str, kind: &str, name: &str, reasons: &[&str]) -> Result<()> {
        let api: Api<Event> = Api::namespaced(self.kube(), namespace);
        let about = format!("involvedObject.kind={kind},involvedObject.name={name}");
        let told = |event: &Event| event.reason.as_deref().is_some_and(|reason| reasons.contains(&reason));
        let seen = self.block_on(async {
            let events = watcher(api, watcher::Config::default().fields(&about)).applied_objects();
            let mut wanted = std::pin::pin!(events.try_filter(|event| std::future::ready(told(event))));
            tokio::time::timeout(PATIENCE, wanted.next()).await
        });
        match seen {
            Ok(Some(event)) => event.map(drop).context("watching events"),
            Ok(None) | Err(_) => {
                bail!("no event {reasons:?} about {kind} {namespace}/{name} within {PATIENCE:?}")
            }
        }
    }

    /// The `LoadBalancerIP` of an address as it is now.
    pub fn lbip(&self, address: IpAddr) -> Result<Option<LoadBalancerIP>> {
        let api: Api<LoadBalancerIP> = Api::all(self.kube());
        Ok(self.block_on(api.get_opt(&name_of_address(address)))?)
    }

    /// Waits until the `LoadBalancerIP` of `address` is as `wanted` says (`None`: it does not exist).
    pub fn await_lbip(
        &self,
        address: IpAddr,
        what: &str,
        wanted: impl Fn(Option<&LoadBalancerIP>) -> bool + Send + Sync,
    ) -> Result<Option<LoadBalancerIP>> {
        let name = name_of_address(address);
        let waited = self.block_on(async {
            let api: Api<LoadBalancerIP> = Api::all(self.kube());
            tokio::time::timeout(
                PATIENCE,
                await_condition(api, &name, |lbip: Option<&LoadBalancerIP>| wanted(lbip)),
            )
            .await
        });
        let Ok(lbip) = waited else {
            let now = self.kubectl(&["get", "lbip", &name, "-o", "yaml", "--ignore-not-found"])?;
            bail!("LoadBalancerIP {name}: not {what} within {PATIENCE:?}; it is\n{now}")
        };
        Ok(lbip?)
    }

    /// Waits until the pool's condition `Ready` has this reason, and gives both.
    pub fn await_pool(&self, name: &str, reason: &str) -> Result<(IPAddressPool, Condition)> {
        let ready = |pool: &IPAddressPool| {
            let conditions = pool.status.iter().flat_map(|status| &status.conditions);
            conditions.into_iter().find(|found| found.type_ == "Ready" && found.reason == reason).cloned()
        };
        let waited = self.block_on(async {
            let pools: Api<IPAddressPool> = Api::all(self.kube());
            let says =
                await_condition(pools, name, |pool: Option<&IPAddressPool>| pool.and_then(ready).is_some());
            tokio::time::timeout(PATIENCE, says).await
        });
        let Ok(pool) = waited else {
            let now = self.kubectl(&["get", "pool", name, "-o", "yaml", "--ignore-not-found"])?;
            bail!("IPAddressPool {name}: not {reason} within {PATIENCE:?}; it is\n{now}")
        };
        let pool = pool?.context("a pool that was there and is not")?;
        let said = ready(&pool).context("a condition that was there and is not")?;
        Ok((pool, said))
    }

    /// Waits until exactly one node is reported as holder of `address`, and names it.
    pub fn await_holder(&self, address: IpAddr) -> Result<String> {
        let lbip = self.await_lbip(address, "held by one node", |lbip| {
            lbip.is_some_and(|lbip| holders(lbip).len() == 1)
        })?;
        let holder = lbip.as_ref().map(holders).and_then(|holders| holders.into_iter().next());
        holder.context("a holder that was there and is not")
    }

    /// Waits until `node` is reported as the only holder of `address`.
    pub fn await_holder_is(&self, address: IpAddr, node: &str) -> Result<()> {
        let what = format!("held by {node}");
        self.await_lbip(address, &what, |lbip| lbip.is_some_and(|lbip| holders(lbip) == [node]))?;
        Ok(())
    }

    /// All addresses that exist, with the Services that have them (`namespace/name`).
    pub fn all_lbips(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let api: Api<LoadBalancerIP> = Api::all(self.kube());
        let list = self.block_on(api.list(&ListParams::default()))?;
        let users = |lbip: &LoadBalancerIP| {
            lbip.spec.services.iter().map(|user| format!("{}/{}", user.namespace, user.name)).collect()
        };
        Ok(list.items.iter().map(|lbip| (lbip.spec.address.clone(), users(lbip))).collect())
    }
}

/// The Service's EXTERNAL-IPs.
pub fn addresses(service: &Service) -> Vec<IpAddr> {
    let ingress =
        service.status.iter().flat_map(|status| &status.load_balancer).flat_map(|lb| &lb.ingress).flatten();
    ingress.filter_map(|ingress| ingress.ip.as_deref()?.parse().ok()).collect()
}

/// The Service's condition of that type.
pub fn condition(service: &Service, kind: &str) -> Option<Condition> {
    let conditions = service.status.iter().flat_map(|status| &status.conditions).flatten();
    conditions.into_iter().find(|condition| condition.type_ == kind).cloned()
}

/// The nodes that report to hold the address.
pub fn holders(lbip: &LoadBalancerIP) -> Vec<String> {
    lbip.status.iter().flat_map(|status| &status.holders).map(|holder| holder.node.clone()).collect()
}
