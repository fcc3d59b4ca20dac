//! Asking the cluster for all that an explanation needs; what may not be read is noted as such.

use std::time::Duration;

use herald_controller::objects::{
    address::Address,
    advertisement::AdvertisementObject,
    node::own_address,
    pool::PoolObject,
    service::{Service, ServiceObject},
};
use herald_crds::LoadBalancerIP;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Namespace, Node as FullNode},
    },
    jiff::Timestamp,
};
use kube::{Api, api::ListParams};
use tokio::time::sleep;

use super::{Facts, Leader, Node, Seen};
use crate::{
    Failure,
    cluster::{Cluster, Unseen, labelled, list},
};

/// The Lease among Herald's controllers.
const LEASE: &str = "herald-controller";
/// Within this time whoever leads renews it (every 2 s by default).
const A_RENEWAL: Duration = Duration::from_secs(3);

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
        pools: list(&Api::<PoolObject>::all(client.clone()), "ipaddresspools.heraldlb.io", all())
            .await
            .map(into),
        advertisements: list(
            &Api::<AdvertisementObject>::all(client.clone()),
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

/// Where this machine's clock says that nobody leads, the Lease is looked at twice: it may be the clock that is wrong.
async fn leader(cluster: &Cluster, namespace: &str) -> Seen<Option<Leader>> {
    let first = read_leader(cluster, namespace).await?;
    let Some(leader) = &first else { return Ok(None) };
    if leader.holder.is_none() || leader.is_fresh(Timestamp::now()) {
        return Ok(first);
    }
    sleep(A_RENEWAL).await;
    let second = read_leader(cluster, namespace).await?;
    let renews = second.as_ref().is_some_and(|second| second.renewed != leader.renewed);
    Ok(second.map(|second| Leader { renews, ..second }))
}

async fn read_leader(cluster: &Cluster, namespace: &str) -> Seen<Option<Leader>> {
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), namespace);
    let lease = leases.get_opt(LEASE).await;
    let lease = lease.map_err(|error| Unseen::of(&error, "get", "leases.coordination.k8s.io"))?;
    Ok(lease.and_then(|lease| lease.spec).map(|spec| Leader {
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        renewed: spec.renew_time.map(|time| time.0),
        seconds: spec.lease_duration_seconds.unwrap_or_default(),
        renews: false,
    }))
}

impl From<FullNode> for Node {
    fn from(node: FullNode) -> Self {
        let spec = node.spec.unwrap_or_default();
        let taints = spec.taints.unwrap_or_default();
        let status = node.status.unwrap_or_default();
        let addresses = status.addresses.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let holds = |kind: &str| conditions.iter().any(|it| it.type_ == kind && it.status == "True");
        let labels = node.metadata.labels.unwrap_or_default();
        Self {
            name: node.metadata.name.unwrap_or_default(),
            excluded: labels.contains_key("node.kubernetes.io/exclude-from-external-load-balancers"),
            cordoned: spec.unschedulable.unwrap_or_default(),
            out_of_service: taints.iter().any(|taint| taint.key == "node.kubernetes.io/out-of-service"),
            ready: holds("Ready"),
            no_network: holds("NetworkUnavailable"),
            addresses: addresses.iter().filter_map(|it| own_address(&it.type_, &it.address)).collect(),
        }
    }
}
