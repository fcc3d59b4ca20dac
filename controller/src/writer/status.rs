//! The statuses of pools and advertisements, and what is said on addresses.

use herald_crds::{IPAddressPool, IPAddressPoolStatus, L2Advertisement, LoadBalancerIP, name_of_address};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api, Resource as _,
    api::{Patch, PatchParams},
};
use serde::Serialize;
use serde_json::json;

use super::{Answer, MANAGER, Writer};
use crate::{
    job::Done,
    objects::{address::Address, advertisement::Advertisement, pool::Pool},
};

impl Writer {
    pub(super) async fn pool(&self, pool: Pool, status: IPAddressPoolStatus) -> Done {
        let api: Api<IPAddressPool> = Api::all(self.client.clone());
        let patch = merge(&pool.uid, pool.version.0, &status);
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let name = pool.name.as_str();
        let written =
            self.settle("patch ipaddresspool status", name, || api.patch_status(name, &params, &patch)).await;
        let now = match written {
            Ok(object) => Some(Box::new(object.into())),
            Err(answer) => {
                tracing::debug!(pool = name, error = answer.text(), "status not written");
                None
            }
        };
        Done::Pool(pool.name, now)
    }

    pub(super) async fn advertisement(&self, advertisement: Advertisement, condition: Condition) -> Done {
        let api: Api<L2Advertisement> = Api::all(self.client.clone());
        let patch = merge(&advertisement.uid, advertisement.version.0, json!({"conditions": [condition]}));
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let name = advertisement.name.as_str();
        let written = self
            .settle("patch l2advertisement status", name, || api.patch_status(name, &params, &patch))
            .await;
        let now = match written {
            Ok(object) => Some(Box::new(object.into())),
            Err(answer) => {
                tracing::debug!(advertisement = name, error = answer.text(), "status not written");
                None
            }
        };
        Done::Advertisement(advertisement.name, now)
    }
}

impl Writer {
    /// By server-side apply: holders and conditions of the speakers stand in the same status, and are theirs.
    pub(super) async fn problem(&self, address: Address, condition: Option<Box<Condition>>) -> Done {
        let name = name_of_address(address.address);
        let patch = Patch::Apply(json!({
            "apiVersion": LoadBalancerIP::api_version(&()), "kind": LoadBalancerIP::kind(&()),
            "metadata": {
                "name": name, "uid": address.uid(), "resourceVersion": address.version.0.to_string(),
            },
            "status": {"conditions": condition.into_iter().collect::<Vec<_>>()},
        }));
        // Forced: the condition's type is the controller's alone.
        let params =
            PatchParams { field_manager: Some(MANAGER.to_owned()), force: true, ..PatchParams::default() };
        let api: Api<LoadBalancerIP> = Api::all(self.client.clone());
        let written = self
            .settle("apply loadbalancerip status", &name, || api.patch_status(&name, &params, &patch))
            .await;
        let now = match written {
            Ok(object) => Address::try_from(object).map(Some).map_err(|error| error.to_string()),
            Err(Answer::Conflict(_)) => self.read_address(address.address).await,
            Err(answer) => Err(answer.text()),
        };
        let now = now.unwrap_or_else(|error| {
            tracing::debug!(address = name, error, "status not written");
            None
        });
        let now = now.map(Box::new);
        Done::Problem(address.address, now)
    }
}

fn merge(uid: &str, version: u64, status: impl Serialize) -> Patch<serde_json::Value> {
    Patch::Merge(json!({
        "metadata": {"uid": uid, "resourceVersion": version.to_string()},
        "status": status,
    }))
}
