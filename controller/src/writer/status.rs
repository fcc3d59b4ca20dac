//! The statuses of pools and advertisements.

use herald_crds::{IPAddressPool, IPAddressPoolStatus, L2Advertisement};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde::Serialize;
use serde_json::json;

use super::{MANAGER, Writer};
use crate::{
    job::Done,
    objects::{advertisement::Advertisement, pool::Pool},
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

fn merge(uid: &str, version: u64, status: impl Serialize) -> Patch<serde_json::Value> {
    Patch::Merge(json!({
        "metadata": {"uid": uid, "resourceVersion": version.to_string()},
        "status": status,
    }))
}
