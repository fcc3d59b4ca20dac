//! Taking `status.loadBalancer` over from the controller that wrote it (rule B21).
//!
//! Herald's controller shows the same addresses, so both are noted as owners of the field; any later change by Herald
//! would be refused in the other's name. Here the other's note is taken away: `metadata.managedFields` is rewritten,
//! and nothing else. What must always hold: only the named manager's claim to this one field goes, and only from the
//! object as it was just read.

use herald_ipam::Owner;
use herald_runtime::client::describe;
use k8s_openapi::{api::core::v1::Service, apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{Failure, cluster::Cluster};

/// How often an object that changes under our hands is read again.
const ATTEMPTS: usize = 5;

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// How many Services were rewritten.
    pub written: usize,
    /// How many had nothing to take.
    pub already: usize,
    /// Those that somebody else still claims, with who does.
    pub others: Vec<(String, String)>,
}

/// Takes the field over on these Services.
pub async fn take_over(cluster: &Cluster, services: &[Owner], manager: &str) -> Result<Taken, Failure> {
    let mut taken = Taken::default();
    for owner in services {
        let api: Api<Service> = Api::namespaced(cluster.client.clone(), &owner.service.namespace);
        let failed = |error: kube::Error| {
            Failure::cluster(format!(
                "Service {}: can't take status.loadBalancer over: {} (it takes the rights to get and to patch \
                 services); the Services before it are done, run the same again for the rest",
                owner.service,
                describe(&error)
            ))
        };
        for attempt in 1.. {
            let Some(service) = api.get_metadata_opt(&owner.service.name).await.map_err(failed)? else {
                break;
            };
            let metadata = service.metadata;
            if metadata.uid.as_deref() != Some(owner.uid.as_str()) {
                break;
            }
            let fields = metadata.managed_fields.unwrap_or_default();
            let Some(left) = without_claim(&fields, manager) else {
                taken.already += 1;
                taken.note_others(owner, &fields);
                break;
            };
            let body =
                json!({"metadata": {"resourceVersion": metadata.resource_version, "managedFields": left}});
            // Not by the status subresource: there the API server ignores managedFields.
            match api.patch_metadata(&owner.service.name, &PatchParams::default(), &Patch::Merge(body)).await
            {
                Ok(service) => {
                    let fields = service.metadata.managed_fields.unwrap_or_default();
                    if without_claim(&fields, manager).is_none() {
                        taken.written += 1;
                    }
                    taken.note_others(owner, &fields);
                    break;
                }
                Err(kube::Error::Api(status)) if status.code == 409 && attempt < ATTEMPTS => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
    Ok(taken)
}

impl Taken {
    fn note_others(&mut self, owner: &Owner, fields: &[ManagedFieldsEntry]) {
        let claims =
            fields.iter().filter(|entry| entry.fields_v1.as_ref().is_some_and(|fields| claims(&fields.0)));
        let others =
            claims.filter_map(|entry| entry.manager.as_deref()).filter(|name| *name != "herald-controller");
        let others: Vec<&str> = others.collect();
        if !others.is_empty() {
            self.others.push((owner.service.to_string(), others.join(", ")));
        }
    }
}

fn claims(fields: &Value) -> bool {
    fields.pointer("/f:status/f:loadBalancer").is_some()
}

/// These without `manager`'s claim to `status.loadBalancer`; `None` when it makes none.
fn without_claim(fields: &[ManagedFieldsEntry], manager: &str) -> Option<Vec<ManagedFieldsEntry>> {
    let mut left = Vec::new();
    let mut found = false;
    for entry in fields {
        let mut entry = entry.clone();
        let claimed = entry.fields_v1.as_mut().filter(|fields| claims(&fields.0));
        if let Some(fields) = claimed.filter(|_| entry.manager.as_deref() == Some(manager)) {
            found = true;
            if remove(&mut fields.0) {
                continue;
            }
        }
        left.push(entry);
    }
    found.then_some(left)
}

/// Takes the claim away; whether nothing is left.
fn remove(fields: &mut Value) -> bool {
    let Some(fields) = fields.as_object_mut() else { return false };
    if let Some(status) = fields.get_mut("f:status").and_then(Value::as_object_mut) {
        status.remove("f:loadBalancer");
        if status.keys().all(|key| key == ".") {
            fields.remove("f:status");
        }
    }
    fields.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(manager: &str, fields: &Value) -> ManagedFieldsEntry {
        serde_json::from_value(json!({"manager": manager, "operation": "Update", "fieldsV1": fields}))
            .unwrap()
    }

    fn status(more: &Value) -> Value {
        let mut status = json!({"f:loadBalancer": {"f:ingress": {}}});
        status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"f:status": status})
    }

    #[test]
    fn only_the_named_managers_claim_goes_and_only_that() {
        let none = json!({});
        let ours = entry("herald-controller", &status(&none));
        let cloud = entry("cloud", &status(&none));
        let conditions = json!({"f:conditions": {}});
        for (theirs, left) in [
            (status(&none), None),
            (status(&json!({".": {}})), None),
            (status(&conditions), Some(json!({"f:status": conditions}))),
            (json!({"f:metadata": {}, "f:status": {"f:loadBalancer": {}}}), Some(json!({"f:metadata": {}}))),
        ] {
            let before = [ours.clone(), entry("controller", &theirs), cloud.clone()];
            let after = without_claim(&before, "controller").unwrap();
            let left = left.map(|left| entry("controller", &left));
            let wanted: Vec<_> =
                [Some(ours.clone()), left, Some(cloud.clone())].into_iter().flatten().collect();
            assert_eq!(after, wanted, "{theirs}");
        }
        assert_eq!(without_claim(&[ours, cloud], "controller"), None, "nothing to take");
    }

    #[test]
    fn who_else_claims_the_field_is_named() {
        let owner =
            Owner { service: herald_ipam::ServiceRef::new("shop", "web"), uid: herald_ipam::Uid::new("u1") };
        let mut taken = Taken::default();
        taken.note_others(
            &owner,
            &[entry("herald-controller", &status(&json!({}))), entry("cloud", &status(&json!({})))],
        );
        assert_eq!(taken.others, [("shop/web".to_owned(), "cloud".to_owned())]);
    }
}
