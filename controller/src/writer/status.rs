//! The statuses of pools and advertisements, and what is said on addresses.

use herald_crds::{IPAddressPoolStatus, LoadBalancerIP};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde::Serialize;
use serde_json::json;

use super::{Answer, MANAGER, Writer};
use crate::{
    conditions::is_shown,
    job::Done,
    objects::{
        address::Address,
        advertisement::{Advertisement, AdvertisementObject},
        pool::{Pool, PoolObject},
    },
    reasons::PROBLEM,
};

impl Writer {
    pub(super) async fn pool(&self, pool: Pool, status: IPAddressPoolStatus) -> Done {
        let api: Api<PoolObject> = Api::all(self.client.clone());
        let patch = merge(&pool.uid, pool.version.0, &status);
        let params = PatchParams::apply(MANAGER);
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
        let api: Api<AdvertisementObject> = Api::all(self.client.clone());
        let patch = merge(&advertisement.uid, advertisement.version.0, json!({"conditions": [condition]}));
        let params = PatchParams::apply(MANAGER);
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
    /// Conditions of other types stand in the same list and are left alone. A condition of ours that another field
    /// manager owns, too, would survive a server-side apply that leaves it out, so the list is written whole.
    pub(super) async fn problem(&self, address: Address, condition: Option<Box<Condition>>) -> Done {
        let name = address.name();
        let others = address.conditions().iter().filter(|it| it.type_ != PROBLEM);
        let conditions: Vec<&Condition> = others.chain(condition.as_deref()).collect();
        let patch =
            merge(address.uid().unwrap_or_default(), address.version.0, json!({"conditions": conditions}));
        let params = PatchParams::apply(MANAGER);
        let api: Api<LoadBalancerIP> = Api::all(self.client.clone());
        let written = self
            .settle("patch loadbalancerip status", &name, || api.patch_status(&name, &params, &patch))
            .await;
        let now = match written {
            Ok(object) => match Address::try_from(object) {
                Ok(now) if !is_shown(PROBLEM, condition.as_deref(), now.conditions()) => {
                    Err("the answer does not show it: an admission webhook?".to_owned())
                }
                now => now.map(Some).map_err(|error| error.to_string()),
            },
            Err(Answer::Conflict(_)) => self.read_address(address.address).await,
            Err(answer) => Err(answer.text()),
        };
        let now = now.unwrap_or_else(|error| {
            tracing::debug!(address = name, error, "status not written");
            None
        });
        Done::Problem(address.address, now.map(Box::new))
    }
}

fn merge(uid: &str, version: u64, status: impl Serialize) -> Patch<serde_json::Value> {
    Patch::Merge(json!({
        "metadata": {"uid": uid, "resourceVersion": version.to_string()},
        "status": status,
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::fake_api::{Asked, FakeApi};

    fn stored() -> Value {
        let condition = |kind: &str| {
            json!({"type": kind, "status": "True", "reason": "Said", "message": "by others",
                "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        json!({
            "apiVersion": "heraldlb.io/v1beta1", "kind": "LoadBalancerIP",
            "metadata": {"name": "192.0.2.1", "uid": "a", "resourceVersion": "7"},
            "spec": {"address": "192.0.2.1", "revision": 1, "services": []},
            "status": {"holders": [], "conditions": [condition("Problem"), condition("Other")]},
        })
    }

    async fn clear_problem(script: impl Fn(&Asked) -> Value + Send + Sync + 'static) -> (Done, Asked) {
        let api = FakeApi::new(script);
        let address = Address::try_from(serde_json::from_value::<LoadBalancerIP>(stored()).unwrap()).unwrap();
        let done = api.leading_writer().problem(address, None).await;
        (done, api.asked().pop().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_problem_that_somebody_else_put_there_is_taken_away_and_other_conditions_stay() {
        let (done, asked) = clear_problem(|asked| {
            let mut object = stored();
            object["status"]["conditions"].clone_from(&asked.body["status"]["conditions"]);
            object["metadata"]["resourceVersion"] = json!("8");
            object
        })
        .await;
        assert!(matches!(&done, Done::Problem(_, Some(now)) if now.version.0 == 8), "{done:?}");
        assert_eq!(asked.body["status"]["conditions"], json!([stored()["status"]["conditions"][1]]));
        assert_eq!(asked.body["metadata"], json!({"uid": "a", "resourceVersion": "7"}));
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_is_told_under_the_name_it_has() {
        let mut odd = stored();
        odd["metadata"]["name"] = json!("odd");
        let api = FakeApi::new(|asked: &Asked| asked.body.clone());
        let address = Address::try_from(serde_json::from_value::<LoadBalancerIP>(odd).unwrap()).unwrap();
        api.leading_writer().problem(address, None).await;
        assert!(api.asked()[0].path.contains("/loadbalancerips/odd/status"), "{:?}", api.asked());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_takes_the_write_and_shows_something_else_has_refused_it() {
        let (done, _) = clear_problem(|_| stored()).await;
        assert!(matches!(done, Done::Problem(_, None)), "written again at once: {done:?}");
    }
}
