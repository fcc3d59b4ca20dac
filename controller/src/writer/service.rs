//! Services: their status, by server-side apply under uid and resourceVersion (rules B3 and B21).
//!
//! The annotation `ip-allocated-from-pool` travels in the same write: the status subresource of a Service takes
//! metadata as well, so that no right to change Services themselves is needed, nor a second write.

use std::collections::BTreeSet;

use herald_crds::names::{ANNOTATION_PREFIXES, IP_ALLOCATED_FROM_POOL, RELEASED_ANNOTATION};
use herald_ipam::{Families, Owner, PublishResult, ServiceRef};
use k8s_openapi::api::core::v1::Service as FullService;
use kube::{
    Api,
    api::{Patch, PatchParams},
    core::Status,
};
use serde_json::{Map, Value, json};

use super::{Answer, MANAGER, Writer};
use crate::{
    job::{Done, ServiceStatus, StatusJob, StatusResult},
    objects::{
        address::Address,
        service::{Ingress, Service, ServiceObject},
    },
};

impl Writer {
    fn services(&self, namespace: &str) -> Api<ServiceObject> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// A live GET: what rule B8 asks for before anything is given back.
    pub(super) async fn read_service(&self, service: &ServiceRef) -> Result<Option<Service>, String> {
        let api = self.services(&service.namespace);
        match self.settle("get service", &service.name, || api.get(&service.name)).await {
            Ok(object) => Ok(Some(object.into())),
            Err(Answer::NotFound) => Ok(None),
            Err(answer) => Err(answer.text()),
        }
    }

    pub(super) async fn status(&self, job: Box<StatusJob>) -> Done {
        let result = self.try_status(&job).await;
        Done::Status { job, result }
    }

    async fn try_status(&self, job: &StatusJob) -> StatusResult {
        let StatusJob { service, status, restore } = job;
        let (owner, ingress) = (&service.owner, service.ingress());
        // What an apply leaves out, it takes away, if this field manager has put it there: in an earlier life, or as
        // another leader. What is not to be touched must be said then (rule B2).
        let kept = if status.ingress.is_none() && !ingress.is_empty() {
            match self.owns_ingress(&owner.service).await {
                Ok(ours) => ours.then_some(ingress),
                Err(Answer::NotFound) => return StatusResult::Not(PublishResult::Gone),
                Err(answer) => return StatusResult::Not(PublishResult::Refused(answer.text())),
            }
        } else {
            None
        };
        let body = body(owner, service.version.0, Some((status, service.families)), kept);
        let mut written = self.apply(&owner.service, &body, *restore).await;
        // Conditional as before: what came in between is not taken.
        if let Err(Answer::Conflict(status)) = &written
            && conflict(status) == Conflict::OverOurs
            && !restore
        {
            written = self.apply(&owner.service, &body, true).await;
        }
        match written {
            Ok(service) => StatusResult::Written(Box::new(service)),
            Err(Answer::NotFound) => StatusResult::Not(PublishResult::Gone),
            Err(Answer::Conflict(status)) => match conflict(&status) {
                Conflict::Rivals(managers) => StatusResult::Owned { managers },
                Conflict::OverOurs | Conflict::Version => StatusResult::Not(PublishResult::Stale),
            },
            // Another uid under the name reads as an attempt to change an immutable field.
            Err(Answer::Invalid(text)) => match self.read_service(&owner.service).await {
                Ok(Some(service)) if service.owner == *owner => {
                    StatusResult::Not(PublishResult::Refused(text))
                }
                Ok(_) => StatusResult::Not(PublishResult::Gone),
                Err(_) => StatusResult::Not(PublishResult::Refused(text)),
            },
            Err(answer) => StatusResult::Not(PublishResult::Refused(answer.text())),
        }
    }

    /// Whether `status.loadBalancer.ingress` is there by our word.
    async fn owns_ingress(&self, service: &ServiceRef) -> Result<bool, Answer> {
        let api: Api<FullService> = Api::namespaced(self.client.clone(), &service.namespace);
        let read = self.settle("get service", &service.name, || api.get_metadata(&service.name)).await?;
        Ok(read.metadata.managed_fields.iter().flatten().any(|entry| {
            let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
            let ours =
                entry.manager.as_deref() == Some(MANAGER) && entry.operation.as_deref() == Some("Apply");
            ours && fields
                .is_some_and(|fields| fields.pointer("/f:status/f:loadBalancer/f:ingress").is_some())
        }))
    }

    async fn apply(&self, service: &ServiceRef, body: &Value, force: bool) -> Result<Service, Answer> {
        let api = self.services(&service.namespace);
        let params = PatchParams { force, ..PatchParams::apply(MANAGER) };
        let patch = Patch::Apply(body);
        let applied = self
            .settle("apply service status", &service.name, || {
                api.patch_status(&service.name, &params, &patch)
            })
            .await?;
        Ok(applied.into())
    }

    /// Takes everything off a Service that is ours. `false`: it changed meanwhile and must be read again.
    pub(super) async fn clear(&self, service: &Service) -> Result<bool, String> {
        if !service.bears_our_marks() {
            return Ok(true);
        }
        let body = body(&service.owner, service.version.0, None, None);
        match self.apply(&service.owner.service, &body, false).await {
            Ok(_) | Err(Answer::NotFound) => Ok(true),
            Err(Answer::Conflict(_)) => Ok(false),
            Err(answer) => Err(answer.text()),
        }
    }

    /// Sees to it that the Service is newer than a LoadBalancerIP that lists it: a write that is to make it show the
    /// address, and was decided when it was older, fails then (rule B28). `false`: it changed meanwhile and must be read
    /// again.
    pub(super) async fn overtake(&self, service: &Service, address: &Address) -> Result<bool, String> {
        if service.version > address.version {
            return Ok(true);
        }
        let ServiceRef { namespace, name } = &service.owner.service;
        let patch = Patch::Merge(json!({"metadata": {
            "uid": service.owner.uid.as_str(),
            "resourceVersion": service.version.0.to_string(),
            "annotations": {RELEASED_ANNOTATION: format!("{}@{}", address.address, address.version.0)},
        }}));
        let api = self.services(namespace);
        let params = PatchParams::apply(MANAGER);
        match self.settle("patch service status", name, || api.patch_status(name, &params, &patch)).await {
            Ok(_) => Ok(true),
            Err(Answer::NotFound | Answer::Conflict(_)) => Ok(false),
            Err(answer) => Err(answer.text()),
        }
    }

    /// Clears a Service that stopped being ours before it had an address, if it is still there and not ours.
    pub(super) async fn clear_marks(&self, owner: Owner) -> Done {
        for _ in 0..super::CONFLICTS {
            let cleared = match self.read_service(&owner.service).await {
                Ok(Some(service)) if service.owner == owner && !service.is_load_balancer => {
                    self.clear(&service).await
                }
                Ok(_) => break,
                Err(text) => Err(text),
            };
            match cleared {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(service = %owner.service, error, "can't clear the conditions");
                    break;
                }
            }
        }
        Done::Clear(owner.service)
    }
}

/// What a 409 is about.
#[derive(Debug, PartialEq, Eq)]
enum Conflict {
    /// These own `status.loadBalancer` (rule B21).
    Rivals(Vec<String>),
    /// Somebody owns our annotation or conditions, which bear our name: a manifest that was exported and applied.
    OverOurs,
    /// The object has changed.
    Version,
}

fn conflict(status: &Status) -> Conflict {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let (ingress, ours): (Vec<_>, Vec<_>) = causes
        .filter(|cause| cause.reason == "FieldManagerConflict")
        .partition(|cause| cause.field.starts_with(".status.loadBalancer"));
    let managers: BTreeSet<String> =
        ingress.iter().filter_map(|cause| cause.message.split('"').nth(1).map(str::to_owned)).collect();
    if !managers.is_empty() {
        Conflict::Rivals(managers.into_iter().collect())
    } else if ingress.is_empty() && !ours.is_empty() {
        Conflict::OverOurs
    } else {
        Conflict::Version
    }
}

/// What server-side apply sends: everything of ours that should be there; what is left out is taken away. `kept`: the
/// ingress that stays as it is, where that is ours.
fn body(
    owner: &Owner,
    version: u64,
    content: Option<(&ServiceStatus, Families)>,
    kept: Option<&[Ingress]>,
) -> Value {
    let mut metadata = Map::new();
    metadata.insert("namespace".to_owned(), json!(&*owner.service.namespace));
    metadata.insert("name".to_owned(), json!(&*owner.service.name));
    metadata.insert("uid".to_owned(), json!(owner.uid.as_str()));
    metadata.insert("resourceVersion".to_owned(), json!(version.to_string()));
    let mut status = Map::new();
    if let Some((content, families)) = content {
        status.insert("conditions".to_owned(), json!(content.conditions));
        if let Some(addresses) = content.ingress.filter(|addresses| !addresses.is_empty()) {
            status.insert("loadBalancer".to_owned(), json!({"ingress": Ingress::of(addresses, families)}));
        } else if let Some(kept) = kept {
            status.insert("loadBalancer".to_owned(), json!({"ingress": kept}));
        }
        if let Some(pool) = &content.pool {
            let [ours, ..] = ANNOTATION_PREFIXES;
            let annotation = json!({format!("{ours}{IP_ALLOCATED_FROM_POOL}"): pool.as_str()});
            metadata.insert("annotations".to_owned(), annotation);
        }
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "status": status})
}

#[cfg(test)]
mod tests {
    use herald_ipam::{Family, FamilyPolicy, PoolName, Uid};

    use super::*;
    use crate::fake_api::{Asked, FakeApi};

    const DUAL: Families =
        Families { policy: FamilyPolicy::RequireDualStack, primary: Family::V6, dual: true };

    fn web() -> Owner {
        Owner { service: ServiceRef::new("shop", "web"), uid: Uid::new("u1") }
    }

    #[test]
    fn a_write_is_conditional_on_identity_and_version_and_shows_the_primary_family_first() {
        let addresses = ["10.0.0.1", "fd00::1"].map(|text| text.parse().unwrap()).into_iter().collect();
        let status = ServiceStatus {
            ingress: Some(addresses),
            pool: Some(PoolName::new("default")),
            conditions: vec![],
        };
        assert_eq!(
            body(&web(), 7, Some((&status, DUAL)), None),
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {
                    "namespace": "shop", "name": "web", "uid": "u1", "resourceVersion": "7",
                    "annotations": {"heraldlb.io/ip-allocated-from-pool": "default"},
                },
                "status": {
                    "conditions": [],
                    "loadBalancer": {"ingress": [{"ip": "fd00::1", "ipMode": "VIP"}, {"ip": "10.0.0.1", "ipMode": "VIP"}]},
                },
            })
        );
    }

    fn refused(causes: &[(&str, &str)]) -> Status {
        let causes: Vec<Value> = causes
            .iter()
            .map(|(manager, field)| {
                let message = format!("conflict with \"{manager}\" using v1");
                json!({"reason": "FieldManagerConflict", "message": message, "field": field})
            })
            .collect();
        let details = serde_json::from_value(json!({"causes": causes})).unwrap();
        Status { code: 409, details: Some(details), ..Status::default() }
    }

    #[test]
    fn only_who_owns_ingress_is_a_rival() {
        let ingress = ".status.loadBalancer.ingress";
        let pool = ".metadata.annotations.heraldlb.io/ip-allocated-from-pool";
        let condition = ".status.conditions[type=\"heraldlb.io/Allocated\"].status";
        let cloud = || Conflict::Rivals(vec!["cloud".to_owned()]);
        assert_eq!(conflict(&refused(&[("argocd", pool), ("argocd", condition)])), Conflict::OverOurs);
        assert_eq!(conflict(&refused(&[("argocd", pool), ("cloud", ingress)])), cloud());
        assert_eq!(conflict(&refused(&[("cloud", ingress), ("cloud", ingress)])), cloud(), "named once");
        assert_eq!(conflict(&refused(&[])), Conflict::Version);
    }

    /// What the writer says of an ingress that is to stay, when the Service's managedFields say that `manager` put it
    /// there.
    async fn left_alone(manager: &str) -> Value {
        let managed = json!([{"manager": manager, "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:status": {"f:loadBalancer": {"f:ingress": {}}}}}]);
        let object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "shop", "name": "web", "uid": "u1", "resourceVersion": "7", "managedFields": managed},
            "spec": {"type": "LoadBalancer"},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
        });
        let answer = object.clone();
        let api = FakeApi::new(move |_: &Asked| answer.clone());
        let writer = api.leading_writer();
        let service = serde_json::from_value::<ServiceObject>(object).unwrap().into();
        let status = ServiceStatus { ingress: None, pool: None, conditions: vec![] };
        writer.status(Box::new(StatusJob { service, status, restore: false })).await;
        api.asked().last().unwrap().body["status"]["loadBalancer"]["ingress"].clone()
    }

    #[tokio::test(start_paused = true)]
    async fn an_ingress_that_is_not_to_be_touched_stays_although_it_was_ours() {
        assert_eq!(left_alone(MANAGER).await, json!([{"ip": "192.0.2.1"}]));
        assert_eq!(left_alone("cloud").await, Value::Null, "what is another's is not claimed");
    }

    #[test]
    fn what_is_not_ours_to_write_is_left_out() {
        let status = ServiceStatus { ingress: None, pool: None, conditions: vec![] };
        let body = body(&web(), 7, Some((&status, DUAL)), None);
        assert!(
            body["status"].get("loadBalancer").is_none() && body["metadata"].get("annotations").is_none()
        );
    }
}
