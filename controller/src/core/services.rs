//! Services: what their status should say, and writing it only when it says something else.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use herald_crds::{
    NodeMode,
    names::{CONDITION_ALLOCATED, CONDITION_ANNOUNCED},
};
use herald_ipam::{
    Addresses, Ingress, Input, List, Owner, Publication, PublishResult, Refusal, ServiceRef, Version,
};
use herald_runtime::watch::Change;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{Core, RETRY_MAX, Wake, relied::MayShow, state::Work, strikes::Strikes};
use crate::{
    conditions::{are_shown, condition, find},
    job::{EventJob, EventKind, Job, ServiceStatus, StatusJob, StatusResult},
    objects::{
        address::Address,
        service::{self, Service},
    },
    reasons::{Allocated, Announced},
};

/// How long an address must be without holder before its Service says so: at a move the old holder's entry may go
/// a moment before the new one comes (rule B24).
const UNHELD: Duration = Duration::from_secs(3);
/// The longest pause before a status that somebody else keeps changing is put right again.
const RESTORE_MAX: Duration = Duration::from_mins(5);

/// What is going on with one Service.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about a Service")]
pub(super) struct ServiceWork {
    /// What the allocator said last.
    publication: Option<Box<Publication>>,
    /// It waits for the result.
    awaited: bool,
    /// A job is under way.
    busy: bool,
    /// The version at which our write came too late: the watch will bring a newer one.
    stale: Option<Version>,
    /// What we wrote to ingress last: if it says something else now, somebody changed it.
    written: Option<Addresses>,
    /// Somebody else owns ingress (rule B21).
    rival: Option<Box<Rival>>,
    /// People who changed ingress by hand: to be taken back by the next write.
    restore: bool,
    /// The answer to our last write did not show what was written: another write alone would not change that.
    unheeded: bool,
    /// Changes by somebody else that we undid.
    strikes: Strikes,
    /// Since when an address that was announced has no holder.
    unheld: Option<Instant>,
    /// Since when it has been waiting for its first address; for the metric.
    asked: Option<Instant>,
}

impl ServiceWork {
    /// For people who ask.
    pub(super) fn shown(&self) -> Work<'_> {
        let publication = self.publication.as_ref();
        let wanted = publication.map(|publication| match publication.ingress {
            Ingress::Show(addresses) => addresses.iter().collect(),
            Ingress::Leave => Vec::new(),
        });
        let refusal = publication.and_then(|publication| publication.refusal.as_ref());
        Work {
            wanted: wanted.unwrap_or_default(),
            refusal: refusal.map(ToString::to_string),
            rival: self.rival.as_ref().map(|rival| rival.managers.as_str()),
            strikes: self.strikes.count(),
            writing: self.busy,
        }
    }
}

#[derive(Debug)]
struct Rival {
    managers: String,
    /// What it showed: when that changes, Herald tries again.
    ingress: Vec<service::Ingress>,
}

impl ServiceWork {
    /// The addresses that the allocator wants shown; `None` where it has none of ours.
    fn told(&self) -> Option<Addresses> {
        match self.publication.as_ref()?.ingress {
            Ingress::Show(addresses) => Some(addresses).filter(|addresses| !addresses.is_empty()),
            Ingress::Leave => None,
        }
    }

    /// Whether a write of `status` undoes what somebody else did, or does with it on its way.
    fn restores(&self, service: &Service, status: &ServiceStatus) -> bool {
        let again = status.ingress.is_none() || self.written == status.ingress;
        // A restoration under way was counted when it began.
        again && (self.unheeded || !shows_ingress(service, status)) && !self.restore
    }

    /// Whether `owner` is to show `address`.
    pub(super) fn publishes(&self, owner: &Owner, address: IpAddr) -> bool {
        self.publication.as_ref().is_some_and(|publication| {
            let shown =
                matches!(publication.ingress, Ingress::Show(addresses) if addresses.contains(address));
            &publication.owner == owner && shown
        })
    }
}

impl Core {
    pub(super) fn services_changed(&mut self, change: Change<Service>) {
        match change {
            Change::Replaced(list) => {
                let mut missing: BTreeSet<ServiceRef> = self.index.services.keys().cloned().collect();
                for service in list {
                    if self.is_ours(&service) {
                        missing.remove(&service.owner.service);
                    }
                    self.service_seen(service);
                }
                for service in missing {
                    self.service_gone(&service);
                }
                self.list_came(List::Services);
            }
            Change::Applied(service) => self.service_seen(service),
            Change::Deleted(service) => {
                self.index.saw(service.version);
                let known = self.index.services.get(&service.owner.service);
                if known.is_some_and(|known| known.version <= service.version) {
                    self.service_gone(&service.owner.service);
                }
            }
        }
    }

    fn is_ours(&self, service: &Service) -> bool {
        service.is_load_balancer && service.class == self.class
    }

    fn service_seen(&mut self, service: Service) {
        let name = service.owner.service.clone();
        if !self.is_ours(&service) {
            self.index.saw(service.version);
            if self.index.services.contains_key(&name) {
                self.service_gone(&name);
            }
            return;
        }
        let before = self.index.services.get(&name);
        if before.is_some_and(|before| before.owner != service.owner) {
            self.services.remove(&name);
        }
        // Its labels decide which advertisements are for it, its policy whether its endpoints count, its request and
        // its ports who may share its address.
        if before.is_some_and(|before| {
            before.labels != service.labels
                || before.wanted != service.wanted
                || before.exposure != service.exposure
        }) {
            self.dirty_addresses.extend(self.addresses_of(&name));
        }
        self.note_policy(&service);
        let work = self.services.entry(name.clone()).or_default();
        if service.ingress().is_empty() && work.asked.is_none() && work.written.is_none() {
            work.asked = Some(self.now.monotonic);
        }
        let request = service.request();
        if self.index.apply_service(service) {
            self.tell_ipam(Input::ServiceApplied(request));
        }
        self.dirty_services.insert(name);
    }

    /// Deleted, or of another type or class: which of these, only a live GET can tell (rules B8 and B9).
    fn service_gone(&mut self, name: &ServiceRef) {
        let Some(service) = self.index.services.remove(name) else { return };
        self.tell_ipam(Input::ServiceDeleted(name.clone()));
        // With an address of ours, its release cleans up; without, the conditions that said why would stay behind.
        let told = self.services.get(name).and_then(|work| work.told());
        if told.is_none() && service.bears_our_marks() {
            self.jobs.push_back(Job::Clear(service.owner.clone()));
        }
        self.dirty_services.insert(name.clone());
    }

    /// The addresses that a Service shows or is to show.
    pub(super) fn addresses_of(&self, name: &ServiceRef) -> Vec<IpAddr> {
        let told = self.services.get(name).and_then(|work| work.told()).unwrap_or_default();
        let shown = self.index.services.get(name).map(|service| service.shown.clone()).unwrap_or_default();
        told.iter().chain(shown).collect()
    }

    pub(super) fn publish(&mut self, publication: Publication) {
        let name = publication.owner.service.clone();
        let work = self.services.entry(name.clone()).or_default();
        // Where it is announced is looked at once its owner is settled.
        if let Ingress::Show(addresses) = publication.ingress {
            self.dirty_addresses.extend(addresses.iter());
        }
        work.publication = Some(Box::new(publication));
        work.awaited = true;
        self.dirty_services.insert(name);
    }

    /// Issues a write if the Service does not show what it should.
    pub(super) fn check_service(&mut self, name: &ServiceRef) {
        let Some(work) = self.services.get(name).filter(|work| !work.busy) else { return };
        let Some(service) = self.index.services.get(name).cloned() else {
            if let Some(publication) = work.publication.clone() {
                self.answer(&publication.owner, PublishResult::Gone);
            }
            self.services.remove(name);
            return;
        };
        let Some(publication) = work.publication.clone() else { return };
        if publication.owner != service.owner {
            self.answer(&publication.owner, PublishResult::Gone);
            return;
        }
        if self.services.get(name).is_some_and(|work| work.stale == Some(service.version)) {
            return;
        }
        self.note_rival(name, &service);
        let status = self.status(&publication, &service);
        if shows(&service, &status) {
            let rival = self.services.get(name).and_then(|work| work.rival.as_ref());
            let result = match rival {
                Some(rival) => PublishResult::Refused(rival.managers.clone()),
                None => PublishResult::Published(service.version),
            };
            self.answer(&publication.owner, result);
            return;
        }
        let Some(work) = self.services.get(name) else { return };
        let restores = work.restores(&service, &status);
        // At once the first time, then more and more slowly, so that two programs never fight over a Service.
        let pause = work.strikes.pause(self.now.monotonic, RESTORE_MAX).filter(|_| restores);
        if let Some(pause) = pause {
            self.wake(pause, Wake::Service(name.clone()));
            return;
        }
        match self.may_come_to_show(&service, &status) {
            MayShow::Yes => {}
            MayShow::Later => return,
            MayShow::No => {
                let lost = "the LoadBalancerIP does not list it".to_owned();
                self.answer(&publication.owner, PublishResult::Refused(lost));
                return;
            }
        }
        let Some(work) = self.services.get_mut(name) else { return };
        if restores {
            work.strikes.strike(self.now.monotonic);
            tracing::warn!(service = %name, "somebody changed what Herald wrote of this Service; putting it right");
        }
        work.busy = true;
        let restore = std::mem::take(&mut work.restore);
        let job = StatusJob { service: *service, status, restore };
        self.jobs.push_back(Job::Status(Box::new(job)));
    }

    fn answer(&mut self, owner: &Owner, result: PublishResult) {
        let Some(work) = self.services.get_mut(&owner.service) else { return };
        // A result for a former Service of that name answers nothing that its successor waits for.
        let former = work.publication.as_ref().is_some_and(|publication| publication.owner != *owner);
        if former || std::mem::take(&mut work.awaited) {
            self.tell_ipam(Input::PublishDone { owner: owner.clone(), result });
        }
    }

    /// A rival that has let go is one no longer.
    fn note_rival(&mut self, name: &ServiceRef, service: &Service) {
        if let Some(work) = self.services.get_mut(name)
            && work.rival.as_ref().is_some_and(|rival| rival.ingress != service.ingress())
        {
            work.rival = None;
        }
    }

    /// What the Service's status should say.
    fn status(&mut self, publication: &Publication, service: &Service) -> ServiceStatus {
        let (addresses, mine) = match publication.ingress {
            Ingress::Show(addresses) => (addresses, true),
            Ingress::Leave => (Addresses::default(), false),
        };
        let rival = self.services.get(&service.owner.service).and_then(|work| work.rival.as_ref());
        let (allocated, ingress) = match (rival, &publication.refusal) {
            (Some(rival), _) => {
                let managers = rival.managers.clone();
                let service = service.owner.service.clone();
                (Allocated::AnotherController { managers, addresses, service }, None)
            }
            (None, refusal) => {
                let name = service.owner.service.clone();
                let allocated = match refusal.clone() {
                    Some(refusal) if addresses.is_empty() => {
                        Allocated::Refused { refusal: *refusal, service: name }
                    }
                    Some(refusal) if refusal.is_complaint() => Allocated::Outside(*refusal),
                    Some(refusal) => Allocated::Otherwise { addresses, refusal: *refusal, service: name },
                    None if addresses.is_empty() => Allocated::Pending,
                    None => Allocated::Yes { addresses, pool: publication.pool.clone() },
                };
                (allocated, mine.then_some(addresses))
            }
        };
        let announced = match ingress {
            Some(addresses) if !addresses.is_empty() => self.announced(addresses, service.is_local()),
            _ => Announced::NoAddress,
        };
        let existing = &service.conditions;
        let mut announced = condition(CONDITION_ANNOUNCED, &announced, None, existing, self.now.wall);
        self.debounce(&service.owner.service, &mut announced, existing);
        let pool = ingress.filter(|addresses| !addresses.is_empty()).and(publication.pool.clone());
        ServiceStatus {
            ingress,
            pool,
            conditions: vec![
                condition(CONDITION_ALLOCATED, &allocated, None, existing, self.now.wall),
                announced,
            ],
        }
    }

    fn announced(&self, addresses: Addresses, is_local: bool) -> Announced {
        let record = |address: &IpAddr| self.index.addresses.get(address);
        let unheld: Vec<IpAddr> =
            addresses.iter().filter(|address| !record(address).is_some_and(Address::is_held)).collect();
        if unheld.is_empty() {
            return Announced::Yes(addresses);
        }
        let nobody = |address: &&IpAddr| {
            let l2 = record(address).and_then(Address::l2);
            l2.is_some_and(|l2| l2.nodes.mode == NodeMode::Listed && l2.nodes.names.is_empty())
        };
        let impossible: Vec<IpAddr> = unheld.iter().filter(nobody).copied().collect();
        if impossible.is_empty() {
            Announced::NoHolder(unheld)
        } else if is_local {
            Announced::NoEndpoint(impossible)
        } else {
            Announced::NoNodeQualifies(impossible)
        }
    }

    /// Keeps "announced" in force for a moment when the last holder goes (rule B24).
    fn debounce(&mut self, name: &ServiceRef, announced: &mut Condition, existing: &[Condition]) {
        let now = self.now.monotonic;
        let Some(work) = self.services.get_mut(name) else { return };
        let before = find(existing, CONDITION_ANNOUNCED).filter(|before| before.status == "True");
        let Some(before) = before.filter(|_| announced.status != "True" && announced.reason == "NoHolder")
        else {
            work.unheld = None;
            return;
        };
        let since = *work.unheld.get_or_insert(now);
        let left = (since + UNHELD).saturating_duration_since(now);
        if !left.is_zero() {
            *announced = before.clone();
            self.wake(left, Wake::Service(name.clone()));
        }
    }

    pub(super) fn status_written(&mut self, job: &StatusJob, result: StatusResult) {
        let name = job.service.owner.service.clone();
        if let Some(work) = self.services.get_mut(&name) {
            work.busy = false;
        }
        self.dirty_services.insert(name.clone());
        if self.index.services.get(&name).is_none_or(|known| known.owner != job.service.owner) {
            self.answer(&job.service.owner, PublishResult::Gone);
            return;
        }
        match result {
            StatusResult::Written(service) => self.status_shown(job, *service),
            StatusResult::Owned { managers } => {
                let service = self.index.services.get(&name);
                let ingress = service.map(|service| service.ingress().to_vec()).unwrap_or_default();
                let Some(work) = self.services.get_mut(&name) else { return };
                // Who edits with kubectl is a person, not a program that will write again.
                let by_hand = managers.iter().all(|manager| manager.starts_with("kubectl"));
                if by_hand && !job.restore {
                    work.restore = true;
                } else {
                    let managers = managers.join(", ");
                    tracing::warn!(service = %name, managers, "another controller writes this Service's status");
                    work.rival = Some(Box::new(Rival { managers, ingress }));
                }
            }
            StatusResult::Not(result) => {
                match &result {
                    PublishResult::Stale => {
                        if let Some(work) = self.services.get_mut(&name) {
                            work.stale = Some(job.service.version);
                        }
                    }
                    PublishResult::Refused(error) => {
                        tracing::error!(service = %name, error, "the API server refused a Service's status");
                        self.dirty_services.remove(&name);
                        self.gather_after(RETRY_MAX, Wake::Service(name));
                    }
                    PublishResult::Published(_) | PublishResult::Gone => {
                        self.dirty_services.remove(&name);
                    }
                }
                self.answer(&job.service.owner, result);
            }
        }
    }

    fn status_shown(&mut self, job: &StatusJob, service: Service) {
        let name = &job.service.owner.service;
        let version = service.version;
        self.tell(&job.service, &service, &job.status);
        let unheeded = !shows(&service, &job.status);
        let known = self.index.services.get(name);
        if known.is_some_and(|known| known.owner == service.owner) {
            let request = service.request();
            if self.index.apply_service(service) {
                self.tell_ipam(Input::ServiceApplied(request));
            }
        }
        let mut first = None;
        if let Some(work) = self.services.get_mut(name) {
            // While another program has the field, what was ours is remembered.
            work.written = job.status.ingress.or(work.written);
            work.unheeded = unheeded;
            if job.status.ingress.is_some_and(|addresses| !addresses.is_empty()) {
                first = work.asked.take();
            }
        }
        if let Some(asked) = first {
            self.metrics.allocated(self.now.monotonic.saturating_duration_since(asked));
        }
        // An older publication's result must not pass for the newer one's: that is checked again first.
        let current = self.services.get(name).and_then(|work| work.publication.as_ref());
        let is_current = current.is_some_and(|publication| match publication.ingress {
            Ingress::Show(addresses) => job.status.ingress == Some(addresses),
            Ingress::Leave => job.status.ingress.is_none(),
        });
        if is_current {
            self.answer(&job.service.owner, PublishResult::Published(version));
        }
    }

    /// Events for what this write changed.
    fn tell(&mut self, before: &Service, after: &Service, status: &ServiceStatus) {
        let (old, new) = (&before.shown, &after.shown);
        let mut tell =
            |kind, note| self.jobs.push_back(Job::Event(EventJob { owner: after.owner.clone(), kind, note }));
        let allocated = find(&after.conditions, CONDITION_ALLOCATED);
        let message = allocated.map(|condition| condition.message.clone()).unwrap_or_default();
        for address in old.iter().filter(|address| !new.contains(address)) {
            tracing::info!(service = %after.owner.service, %address, "withdrawn from the Service");
            tell(EventKind::Released, format!("{address} is no longer this Service's"));
        }
        if new.iter().any(|address| !old.contains(address)) {
            tracing::info!(service = %after.owner.service, addresses = ?new, "allocated");
            let pool = status.pool.as_ref().map(|pool| format!(" from pool '{pool}'")).unwrap_or_default();
            let addresses: Addresses = new.iter().copied().collect();
            tell(EventKind::Allocated, format!("{addresses}{pool}"));
        }
        let was = find(&before.conditions, CONDITION_ALLOCATED);
        let is = allocated.map(|condition| condition.reason.clone());
        let unmet = allocated
            .is_some_and(|condition| condition.status != "True" || condition.reason == "RequestUnmet");
        if unmet {
            let refusal = self
                .services
                .get(&after.owner.service)
                .and_then(|work| work.publication.as_ref()?.refusal.as_deref());
            // Another wrong request is news, though it be wrong in the same way.
            let asks = refusal.is_some_and(Refusal::is_about_the_request);
            let same =
                |was: &Condition| Some(&was.reason) == is.as_ref() && (!asks || was.message == message);
            if was.is_some_and(same) {
                return;
            }
            let invalid = refusal.is_some_and(Refusal::is_invalid_request);
            tracing::warn!(service = %after.owner.service, reason = is.as_deref(), "{message}");
            let kind = if invalid { EventKind::Invalid } else { EventKind::Failed };
            self.jobs.push_back(Job::Event(EventJob { owner: after.owner.clone(), kind, note: message }));
        }
    }

    pub(super) fn cleared(&mut self, name: &ServiceRef) {
        self.dirty_services.insert(name.clone());
    }
}

/// Whether a write of `status` would change nothing.
fn shows(service: &Service, status: &ServiceStatus) -> bool {
    let pool = status.pool.as_ref().map(herald_ipam::PoolName::as_str);
    // Without an address of ours the annotation is not ours to judge: it may have come with a manifest, and then belongs
    // to who applied that.
    let same_pool = pool.is_none() || service.pool_shown.as_deref() == pool;
    same_pool && shows_ingress(service, status) && are_shown(&status.conditions, &service.conditions)
}

fn shows_ingress(service: &Service, status: &ServiceStatus) -> bool {
    let Some(addresses) = status.ingress else { return true };
    let wanted: Vec<service::Ingress> = service::Ingress::of(addresses, service.families);
    service.ingress() == wanted
}
