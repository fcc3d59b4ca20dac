//! Applying the plan, and watching Herald's controller take the Services over.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use herald_controller::objects::{
    address::Address,
    service::{Service, ServiceObject},
};
use herald_crds::names::CONDITION_ALLOCATED;
use herald_ipam::{Owner, ServiceRef};
use herald_runtime::client::describe;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
    core::GroupVersionKind,
};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    convert::{Manifest, POOL},
    live,
    plan::Plan,
};
use crate::{
    Failure,
    cluster::{Cluster, list},
};

/// Who applies: fields that somebody else applied are not taken from them.
const MANAGER: &str = "herald-import";
/// How often the cluster is asked whether the controller is done.
const LOOK: Duration = Duration::from_secs(1);

/// Applies Herald's objects, in order.
pub async fn apply(cluster: &Cluster, manifests: &[Manifest]) -> Result<(), Failure> {
    for manifest in manifests {
        let plural = if manifest.kind == POOL { "ipaddresspools" } else { "l2advertisements" };
        let kind = GroupVersionKind::gvk("heraldlb.io", "v1beta1", manifest.kind);
        let resource = ApiResource::from_gvk_with_plural(&kind, plural);
        let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource);
        let params = PatchParams::apply(MANAGER).validation_strict();
        let applied = api.patch(&manifest.name, &params, &Patch::Apply(manifest.value())).await;
        if let Err(error) = applied {
            let advice = match &error {
                kube::Error::Api(status) if status.code == 403 => {
                    format!("; it takes the rights to create and patch {plural}.heraldlb.io")
                }
                kube::Error::Api(status) if status.code == 409 => {
                    "; somebody else applied these fields: change them there, or delete the object first"
                        .to_owned()
                }
                _ => String::new(),
            };
            let (kind, name) = (manifest.kind, &manifest.name);
            let said = describe(&error);
            return Err(Failure::cluster(format!(
                "can't apply {kind} {name}: {said}{advice}; what came before it was applied"
            )));
        }
    }
    Ok(())
}

/// How far the controller is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// It lists these as owners of what they show, and they show what they did.
    pub taken: Vec<Owner>,
    /// These show what they did, and are not listed yet; with what their condition says.
    pub pending: Vec<(ServiceRef, String)>,
    /// These show something else now.
    pub changed: Vec<(ServiceRef, Vec<IpAddr>, Vec<IpAddr>)>,
}

impl Progress {
    /// Of the Services that were to keep their addresses; those that are gone meanwhile don't count.
    pub fn of(plan: &Plan, services: &[Service], addresses: &[Address]) -> Self {
        let mut progress = Self::default();
        for (name, before) in plan.kept() {
            let Some(service) = services.iter().find(|service| service.owner.service == *name) else {
                continue;
            };
            let now = &service.shown;
            let listed = |shown: &IpAddr| {
                let object = addresses.iter().find(|address| address.address == *shown);
                object.is_some_and(|address| address.users().contains(&service.owner))
            };
            if BTreeSet::from_iter(now) != BTreeSet::from_iter(before) {
                progress.changed.push((name.clone(), before.to_vec(), now.clone()));
            } else if now.iter().all(listed) {
                progress.taken.push(service.owner.clone());
            } else {
                progress.pending.push((name.clone(), says(service)));
            }
        }
        progress
    }
}

fn says(service: &Service) -> String {
    let allocated = service.conditions.iter().find(|condition| condition.type_ == CONDITION_ALLOCATED);
    match allocated {
        Some(condition) => format!("{}: {}", condition.reason, condition.message),
        None => "Herald's controller has not looked at it; does it run?".to_owned(),
    }
}

/// Looks until every Service was taken over, one changed, or the time is over.
pub async fn settle(cluster: &Cluster, plan: &Plan, wait: Duration) -> Result<Progress, Failure> {
    let until = Instant::now() + wait;
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let services: Api<ServiceObject> = Api::all(cluster.client.clone());
        let params = ListParams::default().fields("spec.type=LoadBalancer");
        let services: Vec<Service> =
            list(&services, "services", params).await?.into_iter().map(Into::into).collect();
        let addresses = live::addresses(cluster).await?;
        let progress = Progress::of(plan, &services, &addresses);
        if progress.pending.is_empty() || !progress.changed.is_empty() || Instant::now() >= until {
            return Ok(progress);
        }
    }
}
