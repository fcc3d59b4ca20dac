//! Asking the cluster for all that an explanation needs; what may not be read is noted as such.

use herald_controller::objects::{
    address::Address,
    service::{Service, ServiceObject},
};
use herald_crds::{IPAddressPool, L2Advertisement, LoadBalancerIP};
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Namespace, Node as FullNode},
    },
    jiff::Timestamp,
};
use kube::{Api, api::ListParams};

use super::{Facts, Leader, Node, Seen};
use crate::{
    Failure,
    cluster::{Cluster, Unseen, labelled, list},
};

/// The Lease among Herald's controllers.
const LEASE: &str = "herald-controller";

/// Looks at everything; only without the Service itself there is nothing to explain.
pub async fn gather(
    cluster: &Cluster,
    name: &str,
    class: Option<String>,
    herald_namespace: &str,
) -> Result<Facts, Failure> {
    let client = &cluster.client;
    let services: Api<ServiceObject> = Api::namespaced(client.clone(), &cluster.namespace);
    let service: Service = match services.get_opt(name).await {
        Ok(Some(service)) => service.into(),
        Ok(None) => {
            let namespace = &cluster.namespace;
            return Err(Failure::input(format!("there is no Service {namespace}/{name}; see -n NAMESPACE")));
        }
        Err(error) => return Err(Unseen::of(&error, "get", "services").into()),
    };
    let all = ListParams::default;
    Ok(Facts {
        service,
        class,
        pools: list(&Api::<IPAddressPool>::all(client.clone()), "ipaddresspools.heraldlb.io", all())
            .await
            .map(into),
        advertisements: list(
            &Api::<L2Advertisement>::all(client.clone()),
            "l2advertisements.heraldlb.io",
            all(),
        )
        .await
        .map(into),
        addresses: list(&Api::<LoadBalancerIP>::all(client.clone()), "loadbalancerips.heraldlb.io", all())
            .await
            .map(|found| found.into_iter().filter_map(|object| Address::try_from(object).ok()).collect()),
        namespaces: labelled::<Namespace>(client, "namespaces").await.map(into),
        nodes: list(&Api::<FullNode>::all(client.clone()), "nodes", all()).await.map(into),
        leader: leader(cluster, herald_namespace).await,
        herald_namespace: herald_namespace.to_owned(),
        now: Timestamp::now(),
    })
}

fn into<A, B: From<A>>(found: Vec<A>) -> Vec<B> {
    found.into_iter().map(Into::into).collect()
}

async fn leader(cluster: &Cluster, namespace: &str) -> Seen<Option<Leader>> {
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), namespace);
    let lease = leases.get_opt(LEASE).await;
    let lease = lease.map_err(|error| Unseen::of(&error, "get", "leases.coordination.k8s.io"))?;
    Ok(lease.and_then(|lease| lease.spec).map(|spec| Leader {
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        renewed: spec.renew_time.map(|time| time.0),
        seconds: spec.lease_duration_seconds.unwrap_or_default(),
    }))
}

impl From<FullNode> for Node {
    fn from(node: FullNode) -> Self {
        let spec = node.spec.unwrap_or_default();
        let taints = spec.taints.unwrap_or_default();
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        let labels = node.metadata.labels.unwrap_or_default();
        Self {
            name: node.metadata.name.unwrap_or_default(),
            excluded: labels.contains_key("node.kubernetes.io/exclude-from-external-load-balancers"),
            cordoned: spec.unschedulable.unwrap_or_default(),
            out_of_service: taints.iter().any(|taint| taint.key == "node.kubernetes.io/out-of-service"),
            ready: conditions
                .iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        }
    }
}
