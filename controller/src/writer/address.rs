//! LoadBalancerIPs: taking, updating, giving back (rules B3, B6, B8, B15).

use std::net::IpAddr;

use herald_crds::{LoadBalancerIP, name_of_address};
use herald_ipam::{
    Claim, Owner, Release, ReleaseResult, ReleaseThen, ReleaseWhen, Take, TakeHow, TakeResult,
};
use kube::{
    Api,
    api::{DeleteParams, PostParams, Preconditions},
};

use super::{Answer, CONFLICTS, MANAGER, Writer};
use crate::{
    desired,
    job::{Done, ReleaseJob, TakeJob, UpdateResult},
    objects::{address::Address, service::Service, version},
};

impl Writer {
    fn addresses(&self) -> Api<LoadBalancerIP> {
        Api::all(self.client.clone())
    }

    pub(super) async fn read_address(&self, address: IpAddr) -> Result<Option<Address>, String> {
        self.read_named(&name_of_address(address)).await
    }

    async fn read_named(&self, name: &str) -> Result<Option<Address>, String> {
        let api = self.addresses();
        match self.settle("get loadbalancerip", name, || api.get(name)).await {
            Ok(object) => Address::try_from(object).map(Some).map_err(|error| error.to_string()),
            Err(Answer::NotFound) => Ok(None),
            Err(answer) => Err(answer.text()),
        }
    }

    async fn put(&self, object: &LoadBalancerIP) -> Result<Address, Answer> {
        let name = object.metadata.name.clone().unwrap_or_default();
        let api = self.addresses();
        let params = post();
        let put = self.settle("update loadbalancerip", &name, || api.replace(&name, &params, object)).await?;
        Address::try_from(put).map_err(|error| Answer::Refused(error.to_string()))
    }

    pub(super) async fn take(&self, job: TakeJob) -> Done {
        let (result, object) = match self.try_take(&job).await {
            Ok((result, object)) => (result, object),
            Err(text) => (TakeResult::Refused(text), None),
        };
        Done::Take { take: job.take, result, object: object.map(Box::new) }
    }

    async fn try_take(&self, job: &TakeJob) -> Result<(TakeResult, Option<Address>), String> {
        let TakeJob { take, l2, revision } = job;
        let Take { address, pool, owner, how, sharing } = take;
        let sharing = sharing.as_ref();
        let mut read = *how != TakeHow::Create;
        for _ in 0..CONFLICTS {
            let found = if read { self.read_address(*address).await? } else { None };
            let written = match found {
                None => {
                    let object = desired::created(*address, owner, pool, l2.clone(), sharing, *revision);
                    self.create(&object).await
                }
                Some(found) if lists(&found, owner) => {
                    return Ok((TakeResult::Taken(found.version), Some(found)));
                }
                Some(found) if may_take(&found, take) => {
                    let revision = (*revision).max(found.revision().saturating_add(1));
                    self.put(&desired::given(found.object(), owner, pool, l2.clone(), sharing, revision))
                        .await
                }
                Some(found) => return Ok((TakeResult::Held(found.record()), Some(found))),
            };
            match written {
                Ok(object) => return Ok((TakeResult::Taken(object.version), Some(object))),
                // Exists already, was changed, or is gone: what is there now decides.
                Err(Answer::Conflict(_)) => read = true,
                Err(Answer::NotFound) => read = false,
                Err(answer) => return Err(answer.text()),
            }
        }
        Err("the object keeps changing".to_owned())
    }

    async fn create(&self, object: &LoadBalancerIP) -> Result<Address, Answer> {
        let api = self.addresses();
        let params = post();
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let created = self.settle("create loadbalancerip", name, || api.create(&params, object)).await?;
        Address::try_from(created).map_err(|error| Answer::Refused(error.to_string()))
    }

    pub(super) async fn read(&self, address: IpAddr, name: &str) -> Done {
        Done::Read(address, self.read_named(name).await.map(|found| found.map(Box::new)))
    }

    pub(super) async fn update(&self, address: IpAddr, object: LoadBalancerIP) -> Done {
        let (version, revision) = (version(&object.metadata), object.spec.revision);
        let result = match self.put(&object).await {
            Ok(now) => UpdateResult::written(&object, now),
            // Most often a speaker noted itself as holder meanwhile.
            Err(Answer::Conflict(_)) => match self.read_address(address).await {
                // Carried out already, before an answer that was lost.
                Ok(Some(now)) if now.revision() == revision => UpdateResult::written(&object, now),
                Ok(Some(now)) => UpdateResult::Found(Box::new(now)),
                Ok(None) => UpdateResult::Gone(version),
                Err(text) => UpdateResult::Refused(text),
            },
            Err(Answer::NotFound) => UpdateResult::Gone(version),
            Err(answer) => UpdateResult::Refused(answer.text()),
        };
        Done::Update { address, result }
    }

    pub(super) async fn release(&self, job: ReleaseJob) -> Done {
        let (result, object) = match self.try_release(&job).await {
            Ok(done) => done,
            Err(text) => (ReleaseResult::Refused(text), None),
        };
        Done::Release { release: job.release, result, object: object.map(Box::new) }
    }

    async fn try_release(&self, job: &ReleaseJob) -> Result<(ReleaseResult, Option<Address>), String> {
        let Release { address, owner, when, then } = &job.release;
        for _ in 0..CONFLICTS {
            // Before the Service (rule B28): whoever relies on a newer state of it changes what is written below.
            let found = self.read_address(*address).await?;
            let service = self.read_service(&owner.service).await?.filter(|service| service.owner == *owner);
            if let Some(service) = service {
                if self.keeps(&service, *when, *address) {
                    return Ok((ReleaseResult::StillInUse, None));
                }
                // First no one shows the address any more, nor can, and then it is free.
                if !self.serves(&service) && !self.clear(&service).await? {
                    continue;
                }
                if let Some(found) = &found
                    && service.is_load_balancer
                    && !self.overtake(&service, found).await?
                {
                    continue;
                }
            }
            let Some(found) = found else {
                return Ok((ReleaseResult::Released(job.known), None));
            };
            // Somebody may have written the same user twice, or its uid under another name: that is another user, who
            // does not exist.
            let others = found.users().iter().any(|user| user != owner);
            if !lists(&found, owner) || others != (*then == ReleaseThen::Leave) {
                return Ok((ReleaseResult::Changed(found.record()), Some(found)));
            }
            let version = found.version;
            let revision = job.revision.max(found.revision().saturating_add(1));
            let written = match then {
                ReleaseThen::Leave => {
                    let object = desired::left(found.object(), owner, revision);
                    self.put(&object).await.map(Some)
                }
                ReleaseThen::Reserve(claim) => {
                    let object = desired::reserved(found.object(), claim, revision);
                    self.put(&object).await.map(Some)
                }
                // A reservation that somebody put on it meanwhile is kept.
                ReleaseThen::Delete if found.is_reserved() => {
                    let kept = Claim::Service(owner.service.clone());
                    let object = desired::reserved(found.object(), &kept, revision);
                    self.put(&object).await.map(Some)
                }
                ReleaseThen::Delete => self.delete(found).await,
            };
            match written {
                Ok(Some(object)) if object.is_terminating() => {
                    return Ok((ReleaseResult::Changed(object.record()), Some(object)));
                }
                Ok(Some(object)) => return Ok((ReleaseResult::Released(object.version), Some(object))),
                Ok(None) | Err(Answer::NotFound) => return Ok((ReleaseResult::Released(version), None)),
                Err(Answer::Conflict(_)) => {}
                Err(answer) => return Err(answer.text()),
            }
        }
        Err("the Service or its LoadBalancerIP keeps changing".to_owned())
    }

    /// Whether the Service, as just read, keeps the address.
    fn keeps(&self, service: &Service, when: ReleaseWhen, address: IpAddr) -> bool {
        if !service.is_load_balancer {
            return false;
        }
        // A class can change only together with the type, which empties the status; one that is foreign because this
        // controller's flag changed keeps what it shows (rule B25).
        if !self.serves(service) {
            return service.shows(address);
        }
        match when {
            ReleaseWhen::ServiceGone => true,
            ReleaseWhen::NotShown => service.shows(address),
        }
    }

    /// Whether the Service is of our type and class.
    fn serves(&self, service: &Service) -> bool {
        service.is_load_balancer && service.class == self.class
    }

    /// The object if it is still there, waiting for a finalizer.
    async fn delete(&self, found: Address) -> Result<Option<Address>, Answer> {
        let metadata = found.object().metadata;
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: metadata.uid.clone(),
                resource_version: metadata.resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        let name = metadata.name.clone().unwrap_or_default();
        let api = self.addresses();
        let deleted = self.settle("delete loadbalancerip", &name, || api.delete(&name, &params)).await?;
        let waiting = deleted
            .left()
            .filter(|object| object.metadata.finalizers.as_ref().is_some_and(|f| !f.is_empty()));
        Ok(waiting.and_then(|object| Address::try_from(object).ok()))
    }
}

fn post() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

fn lists(found: &Address, who: &Owner) -> bool {
    found.users().contains(who)
}

/// Whether the owner may be listed beside those who are: nobody, or those whom the sharing rule was asked about
/// (rule B4). What is reserved for others is not for it.
fn may_take(found: &Address, take: &Take) -> bool {
    let record = found.record();
    let beside = match &take.how {
        TakeHow::Join { beside } => beside.as_slice(),
        TakeHow::Create | TakeHow::Claim => &[],
    };
    let key = take.sharing.as_ref().map(|terms| &terms.key);
    let mine = record.claim.as_ref().is_none_or(|claim| claim.admits(&take.owner.service, key));
    record.services.iter().all(|other| beside.contains(other)) && mine && !record.terminating
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use herald_ipam::{ServiceRef, Uid, Version};
    use serde_json::json;

    use super::*;
    use crate::fake_api::{Asked, FakeApi, refusal};

    #[tokio::test(start_paused = true)]
    async fn one_uid_under_two_names_is_two_users_and_the_one_that_is_not_there_leaves() {
        let stored = Mutex::new(json!({
            "apiVersion": "heraldlb.io/v1beta1", "kind": "LoadBalancerIP",
            "metadata": {"name": "10.0.0.1", "uid": "a", "resourceVersion": "7"},
            "spec": {"address": "10.0.0.1", "revision": 1, "services": [
                {"namespace": "shop", "name": "web", "uid": "u1"}, {"namespace": "shop", "name": "other", "uid": "u1"},
            ]},
        }));
        let api = FakeApi::new(move |asked: &Asked| {
            if asked.name() == "other" {
                let mut absent = refusal(404, "NotFound", "services \"other\" not found");
                absent["details"] = json!({"kind": "services", "name": "other"});
                return absent;
            }
            let mut stored = stored.lock().unwrap();
            if asked.method == "PUT" {
                stored.clone_from(&asked.body);
                stored["metadata"]["resourceVersion"] = json!("8");
            }
            stored.clone()
        });
        let writer = api.leading_writer();
        let owner = Owner { service: ServiceRef::new("shop", "other"), uid: Uid::new("u1") };
        let address = "10.0.0.1".parse().unwrap();
        let release = Release { address, owner, when: ReleaseWhen::ServiceGone, then: ReleaseThen::Leave };
        let done = writer.release(ReleaseJob { release, revision: 2, known: Version(9) }).await;
        assert!(
            matches!(done, Done::Release { result: ReleaseResult::Released(Version(8)), .. }),
            "{done:?}"
        );
        let written = api.asked().last().unwrap().body["spec"]["services"].clone();
        assert_eq!(written, json!([{"namespace": "shop", "name": "web", "uid": "u1"}]));
    }

    /// What is asked for to give an address back whose Service lives and does not show it.
    async fn gives_back(service_version: &str) -> Vec<String> {
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "shop", "name": "web", "uid": "u1", "resourceVersion": service_version},
            "spec": {"type": "LoadBalancer"},
        });
        let api = FakeApi::new(move |asked: &Asked| {
            if asked.path.contains("services/") {
                return service.clone();
            }
            json!({
                "apiVersion": "heraldlb.io/v1beta1", "kind": "LoadBalancerIP",
                "metadata": {"name": "10.0.0.1", "uid": "a", "resourceVersion": "9"},
                "spec": {"address": "10.0.0.1", "revision": 1,
                    "services": [{"namespace": "shop", "name": "web", "uid": "u1"}]},
            })
        });
        let writer = api.leading_writer();
        let owner = Owner { service: ServiceRef::new("shop", "web"), uid: Uid::new("u1") };
        let address = "10.0.0.1".parse().unwrap();
        let release = Release { address, owner, when: ReleaseWhen::NotShown, then: ReleaseThen::Delete };
        writer.release(ReleaseJob { release, revision: 2, known: Version(9) }).await;
        let condition = |asked: &Asked| match asked.body["metadata"].clone() {
            metadata if metadata.is_null() => String::new(),
            metadata => metadata.to_string(),
        };
        let all = api.asked();
        all.iter().map(|asked| format!("{} {}{}", asked.method, asked.name(), condition(asked))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_could_still_come_to_show_what_it_loses_is_made_newer_first() {
        let made_newer = r#"PATCH status{"annotations":{"heraldlb.io/released":"10.0.0.1@9"},"resourceVersion":"7","uid":"u1"}"#;
        assert_eq!(gives_back("7").await, ["GET 10.0.0.1", "GET web", made_newer, "DELETE 10.0.0.1"]);
        assert_eq!(gives_back("10").await, ["GET 10.0.0.1", "GET web", "DELETE 10.0.0.1"], "it is newer");
    }
}
