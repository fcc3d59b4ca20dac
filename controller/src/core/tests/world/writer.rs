//! What the writer would do, and the API server answer.

use std::net::IpAddr;

use herald_crds::LoadBalancerIP;
use herald_ipam::{
    Owner, PublishResult, ReleaseResult, ReleaseThen, ReleaseWhen, ServiceRef, TakeHow, TakeResult, Version,
};
use herald_runtime::watch::Change;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{Dropped, World};
use crate::{
    core::Event,
    desired,
    job::{Done, Job, ReleaseJob, StatusJob, StatusResult, TakeJob, UpdateResult},
    objects::{address::Address, service::Ingress},
};

impl World {
    pub(super) fn carry_out(&mut self, job: Job) {
        let done = match job {
            Job::Event(event) => {
                self.events.push(event);
                return;
            }
            Job::Take(job) => self.take(*job),
            Job::Update { address, object } => self.update(address, *object),
            Job::Read { address, .. } => {
                Done::Read(address, Ok(self.addresses.get(&address).cloned().map(Box::new)))
            }
            Job::Problem { address, .. } if self.refuses => Done::Problem(address.address, None),
            Job::Problem { address, condition } => self.tell_problem(&address, condition.map(|it| *it)),
            Job::Release(job) => self.release(*job),
            Job::Status(job) => self.status(job),
            Job::Clear(owner) => {
                self.clear(&owner.service);
                Done::Clear(owner.service)
            }
            Job::Pool { pool, .. } if self.refuses => Done::Pool(pool.name, None),
            Job::Advertisement { advertisement, .. } if self.refuses => {
                Done::Advertisement(advertisement.name, None)
            }
            Job::Pool { pool, status } => {
                self.writes.push("pool status");
                let version = self.next_version();
                let known = self.pools.get_mut(pool.name.as_str()).unwrap();
                known.status = Some(*status);
                known.version = version;
                Done::Pool(pool.name, Some(Box::new(known.clone())))
            }
            Job::Advertisement { advertisement, condition } => {
                self.writes.push("advertisement status");
                let version = self.next_version();
                let object = self.advertisements.get_mut(&advertisement.name).unwrap();
                object.status = Some(herald_crds::L2AdvertisementStatus { conditions: vec![*condition] });
                object.metadata.resource_version = Some(version.0.to_string());
                Done::Advertisement(advertisement.name, Some(Box::new(object.clone().into())))
            }
        };
        self.handle(Event::Done(done));
    }

    fn take(&mut self, TakeJob { take, l2, revision }: TakeJob) -> Done {
        let sharing = take.sharing.as_ref();
        let key = sharing.map(|terms| &terms.key);
        let found = self.addresses.get(&take.address).cloned();
        let vacant = found.as_ref().is_some_and(|it| {
            let record = it.record();
            let beside = match &take.how {
                TakeHow::Join { beside } => beside.as_slice(),
                TakeHow::Create | TakeHow::Claim => &[],
            };
            let mine = record.claim.as_ref().is_none_or(|claim| claim.admits(&take.owner.service, key));
            mine && record.services.iter().all(|other| *other != take.owner && beside.contains(other))
        });
        let object = match found {
            None => desired::created(take.address, &take.owner, &take.pool, l2, sharing, revision),
            Some(found) if vacant => {
                desired::given(found.object(), &take.owner, &take.pool, l2, sharing, revision)
            }
            Some(found) => {
                let mine = found.users().contains(&take.owner);
                let result =
                    if mine { TakeResult::Taken(found.version) } else { TakeResult::Held(found.record()) };
                return Done::Take { take, result, object: Some(Box::new(found)) };
            }
        };
        self.writes.push("take");
        let stored = self.store(object);
        Done::Take { take, result: TakeResult::Taken(stored.version), object: Some(Box::new(stored)) }
    }

    fn update(&mut self, address: IpAddr, mut object: LoadBalancerIP) -> Done {
        let result = match self.addresses.get(&address) {
            _ if self.refuses => UpdateResult::Refused("not now".to_owned()),
            None => UpdateResult::Gone(crate::objects::version(&object.metadata)),
            Some(known) if known.object().metadata.resource_version != object.metadata.resource_version => {
                UpdateResult::Found(Box::new(known.clone()))
            }
            Some(known) => {
                assert!(object.spec.revision > known.revision(), "revisions only grow (B18)");
                self.writes.push("update");
                object.status = known.object().status;
                let sent = object.clone();
                if self.drops == Some(Dropped::Announce) {
                    object.spec.announce = None;
                }
                UpdateResult::written(&sent, self.store(object))
            }
        };
        Done::Update { address, result }
    }

    fn tell_problem(&mut self, seen: &Address, condition: Option<Condition>) -> Done {
        let Some(known) = self.addresses.get(&seen.address) else { return Done::Problem(seen.address, None) };
        if known.version != seen.version {
            return Done::Problem(seen.address, Some(Box::new(known.clone())));
        }
        self.writes.push("problem");
        let mut object = known.object();
        object.status.get_or_insert_default().conditions = condition.into_iter().collect();
        Done::Problem(seen.address, Some(Box::new(self.store(object))))
    }

    pub(super) fn release(&mut self, ReleaseJob { release, revision, known }: ReleaseJob) -> Done {
        let service = self.services.get(&release.owner.service).filter(|it| it.owner == release.owner);
        let in_use = service.filter(|it| it.is_load_balancer).is_some_and(|it| match release.when {
            ReleaseWhen::ServiceGone => true,
            ReleaseWhen::NotShown => it.shows(release.address),
        });
        if in_use {
            return Done::Release { release, result: ReleaseResult::StillInUse, object: None };
        }
        self.clear(&release.owner.service.clone());
        let Some(found) = self.addresses.get(&release.address).cloned() else {
            let result = ReleaseResult::Released(known);
            return Done::Release { release, result, object: None };
        };
        self.overtake(&release.owner, found.version);
        self.writes.push("release");
        match release.then.clone() {
            ReleaseThen::Delete => {
                self.addresses.remove(&release.address);
                self.next_version();
                Done::Release { release, result: ReleaseResult::Released(found.version), object: None }
            }
            ReleaseThen::Reserve(claim) => {
                let stored = self.store(desired::reserved(found.object(), &claim, revision));
                let result = ReleaseResult::Released(stored.version);
                Done::Release { release, result, object: Some(Box::new(stored)) }
            }
            ReleaseThen::Leave => {
                let stored = self.store(desired::left(found.object(), &release.owner, revision));
                let result = ReleaseResult::Released(stored.version);
                Done::Release { release, result, object: Some(Box::new(stored)) }
            }
        }
    }

    /// A Service that lives is newer than what it leaves (rule B28).
    fn overtake(&mut self, owner: &Owner, version: Version) {
        let next = self.next_version();
        if let Some(service) = self.services.get_mut(&owner.service)
            && service.owner == *owner
            && service.is_load_balancer
            && service.version <= version
        {
            service.set_version(next);
            self.writes.push("overtake");
            let service = service.clone();
            self.handle(Event::Services(Change::Applied(service)));
        }
    }

    fn status(&mut self, job: Box<StatusJob>) -> Done {
        let result = self.try_status(&job);
        Done::Status { job, result }
    }

    fn try_status(&mut self, job: &StatusJob) -> StatusResult {
        if self.refuses {
            self.refused += 1;
            return StatusResult::Not(PublishResult::Refused("not now".to_owned()));
        }
        let name = &job.service.owner.service;
        let rival = self.rivals.get(name).cloned();
        let version = self.next_version();
        let Some(service) = self.services.get_mut(name).filter(|it| it.owner == job.service.owner) else {
            return StatusResult::Not(PublishResult::Gone);
        };
        if service.version != job.service.version {
            return StatusResult::Not(PublishResult::Stale);
        }
        let entries = job.status.ingress.map(|addresses| Ingress::of(addresses, service.families));
        match (rival, entries) {
            (Some(rival), Some(_)) if !job.restore => {
                self.refused += 1;
                return StatusResult::Owned { managers: vec![rival] };
            }
            (_, Some(entries)) => {
                service.set_ingress(entries);
                self.rivals.remove(name);
            }
            _ => {}
        }
        self.writes.push("status");
        service.conditions.clone_from(&job.status.conditions);
        match &job.status.pool {
            _ if self.drops == Some(Dropped::Pool) => {}
            None if self.manifests.contains(name) => {}
            pool => service.pool_shown = pool.as_ref().map(ToString::to_string),
        }
        service.set_version(version);
        let service = service.clone();
        // The watch is often quicker than the answer.
        self.handle(Event::Services(Change::Applied(service.clone())));
        StatusResult::Written(Box::new(service))
    }

    fn clear(&mut self, name: &ServiceRef) {
        let version = self.next_version();
        if let Some(service) = self.services.get_mut(name)
            && service.bears_our_marks()
            && !service.is_load_balancer
        {
            self.writes.push("clear");
            service.set_version(version);
            service.conditions.clear();
            service.pool_shown = None;
            service.set_ingress(Vec::new());
        }
    }
}
