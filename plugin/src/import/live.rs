//! What the cluster has: MetalLB's objects, Services, and what there is of Herald's.

use herald_controller::objects::{
    address::Address,
    node::{KnownNode, NodeObject},
    pool::PoolObject,
    service::ServiceObject,
};
use herald_crds::LoadBalancerIP;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Namespace};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, ListParams},
    core::GroupVersionKind,
};

use super::{
    convert::METALLB,
    source::{BadInput, Object},
};
use crate::{
    Failure,
    cluster::{Cluster, Unseen, labelled, list},
    judge::World,
};

/// MetalLB's kinds: plural, kind and versions, the newest first.
const KINDS: [(&str, &str, &[&str]); 7] = [
    ("ipaddresspools", "IPAddressPool", &["v1beta1"]),
    ("l2advertisements", "L2Advertisement", &["v1beta1"]),
    ("bgpadvertisements", "BGPAdvertisement", &["v1beta1"]),
    ("bgppeers", "BGPPeer", &["v1beta2", "v1beta1"]),
    ("bfdprofiles", "BFDProfile", &["v1beta1"]),
    ("communities", "Community", &["v1beta1"]),
    ("addresspools", "AddressPool", &["v1beta1"]),
];

/// How the Deployment of MetalLB's controller is labelled: by its manifests, and by its Helm chart.
const CONTROLLER_LABELS: [&str; 2] = [
    "app=metallb,component=controller",
    "app.kubernetes.io/name=metallb,app.kubernetes.io/component=controller",
];

/// MetalLB's objects in all namespaces.
pub async fn metallb(cluster: &Cluster) -> Result<Vec<Object>, Failure> {
    let (mut objects, mut known) = (Vec::new(), false);
    for (plural, kind, versions) in KINDS {
        for version in versions {
            let resource =
                ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(METALLB, version, kind), plural);
            let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource);
            let found = match list(&api, &format!("{plural}.{METALLB}"), ListParams::default()).await {
                Ok(found) => found,
                Err(Unseen::NotInstalled(_)) => continue,
                Err(unseen) => return Err(unseen.into()),
            };
            known = true;
            for mut item in found {
                item.types = Some(kube::api::TypeMeta {
                    api_version: resource.api_version.clone(),
                    kind: kind.to_owned(),
                });
                objects.push(object(&item).map_err(|error| Failure::cluster(error.to_string()))?);
            }
            break;
        }
    }
    if known {
        Ok(objects)
    } else {
        Err(Failure::input(
            "this cluster does not know MetalLB's kinds (metallb.io): is it the right one? -f FILE reads them from \
             manifests",
        ))
    }
}

fn object(item: &DynamicObject) -> Result<Object, BadInput> {
    let value =
        serde_json::to_value(item).map_err(|error| BadInput::new("the API server's answer", &error))?;
    Object::new("", value)
}

/// What Herald's controller would find, and whether Herald's CRDs are there.
pub async fn world(cluster: &Cluster, class: Option<String>) -> Result<(World, bool), Failure> {
    let client = &cluster.client;
    let services: Api<ServiceObject> = Api::all(client.clone());
    let services =
        list(&services, "services", ListParams::default().fields("spec.type=LoadBalancer")).await?;
    let namespaces = labelled::<Namespace>(client, "namespaces").await?;
    let (pools, installed) = installed(
        list(&Api::<PoolObject>::all(client.clone()), "ipaddresspools.heraldlb.io", ListParams::default())
            .await,
    )?;
    let addresses = addresses(cluster).await?;
    let nodes = list(&Api::<NodeObject>::all(client.clone()), "nodes", ListParams::default()).await?;
    let world = World {
        pools: pools.into_iter().map(Into::into).collect(),
        namespaces: namespaces.into_iter().map(Into::into).collect(),
        node_addresses: nodes.into_iter().flat_map(|node| KnownNode::from(node).addresses).collect(),
        services: services.into_iter().map(Into::into).collect(),
        all_services: true,
        addresses,
        class,
    };
    Ok((world, installed))
}

/// The LoadBalancerIPs; none where the kind is not known.
pub async fn addresses(cluster: &Cluster) -> Result<Vec<Address>, Failure> {
    let api: Api<LoadBalancerIP> = Api::all(cluster.client.clone());
    let (found, _) = installed(list(&api, "loadbalancerips.heraldlb.io", ListParams::default()).await)?;
    // One whose address can't be read is nobody's: the controller leaves it alone too.
    Ok(found.into_iter().filter_map(|object| Address::try_from(object).ok()).collect())
}

fn installed<K>(found: Result<Vec<K>, Unseen>) -> Result<(Vec<K>, bool), Unseen> {
    match found {
        Ok(found) => Ok((found, true)),
        Err(Unseen::NotInstalled(_)) => Ok((Vec::new(), false)),
        Err(unseen) => Err(unseen),
    }
}

/// The Deployments of MetalLB's controller that are not scaled to nothing.
pub async fn running_controllers(cluster: &Cluster) -> Result<Vec<String>, Unseen> {
    let api: Api<Deployment> = Api::all(cluster.client.clone());
    let mut running = Vec::new();
    for labels in CONTROLLER_LABELS {
        for deployment in list(&api, "deployments.apps", ListParams::default().labels(labels)).await? {
            let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
            let there = deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or_default();
            if wanted > 0 || there > 0 {
                let metadata = deployment.metadata;
                let name = metadata.name.unwrap_or_default();
                running.push(format!("{}/{name}", metadata.namespace.unwrap_or_default()));
            }
        }
    }
    running.dedup();
    Ok(running)
}
