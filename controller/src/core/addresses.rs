//! LoadBalancerIPs: carrying out what the allocator says of them, and keeping what they say up to date.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use herald_crds::{L2Announce, name_of_address};
use herald_ipam::{Input, Labels, List, Owner, PoolName, Release, ReleaseResult, Take, TakeResult, Version};
use herald_runtime::watch::Change;

use super::{Core, RETRY_MAX, Wake, edits::Edits, relied::Relied};
use crate::{
    announce::{self, About},
    desired,
    job::{Job, ReleaseJob, TakeJob, UpdateResult},
    objects::{address::Address, service::Service},
};

/// How long a new address waits, at the start, for the lists of nodes and advertisements.
const ANNOUNCE_LISTS: Duration = Duration::from_secs(2);
/// The pause before an address that could not be read is read again.
const READ_AGAIN: Duration = Duration::from_secs(10);

/// What is going on with one address.
#[derive(Debug, Default)]
pub(super) struct AddressWork {
    /// A job is under way.
    busy: bool,
    /// What the allocator wants next: after the job, or when it is known where the address may be announced.
    waiting: Option<Box<Want>>,
    /// The last revision known, also of an object that is gone (rule B18).
    revision: i64,
    /// What somebody else did to its object, of late.
    pub(super) edits: Option<Box<Edits>>,
    /// What is wrong with it could not be written: not tried again before this.
    pub(super) silent_until: Option<Instant>,
    /// The API server dropped some of what was written last: not written again before this.
    pruned_until: Option<Instant>,
    /// Whether it must be newer than a Service.
    pub(super) relied: Relied,
}

impl AddressWork {
    /// Forgets what was wanted and under way.
    pub(super) fn abandon(&mut self) {
        self.busy = false;
        self.waiting = None;
        self.edits = None;
        self.silent_until = None;
        self.pruned_until = None;
        self.relied = Relied::default();
    }

    /// Whether a job is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Whether another waits for it.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }
}

#[derive(Debug)]
enum Want {
    Take(Take),
    Release(Release),
}

impl Core {
    pub(super) fn addresses_changed(&mut self, change: Change<Address>) {
        match change {
            Change::Replaced(list) => {
                self.index.released.clear();
                let mut missing: BTreeSet<IpAddr> = self.index.addresses.keys().copied().collect();
                for address in list {
                    missing.remove(&address.address);
                    self.address_seen(address);
                }
                for address in missing {
                    if self.index.untold.contains(&address) {
                        // Written while the list was on its way, perhaps: only a live GET can tell.
                        let job = self.read_job(address);
                        self.jobs.push_back(job);
                    } else {
                        let known = self.index.addresses.get(&address).map(|known| known.version);
                        self.address_gone(address, known.unwrap_or_default());
                    }
                }
                self.list_came(List::Addresses);
            }
            Change::Applied(address) => self.address_seen(address),
            Change::Deleted(address) => {
                self.index.saw(address.version);
                let known = self.index.addresses.get(&address.address);
                if known.is_none_or(|known| known.version <= address.version) {
                    self.address_gone(address.address, address.version);
                }
            }
        }
    }

    pub(super) fn address_seen(&mut self, address: Address) {
        let (ip, record) = (address.address, address.record());
        self.note_edit(&address);
        self.index.untold.remove(&ip);
        if self.note_address(address) {
            self.tell_ipam(Input::AddressApplied(record));
        }
        self.dirty_addresses.insert(ip);
    }

    pub(super) fn address_gone(&mut self, address: IpAddr, version: Version) {
        self.note_deletion(address, version);
        self.index.released.remove(&address);
        self.index.untold.remove(&address);
        if let Some(gone) = self.index.addresses.remove(&address) {
            self.note_revision(address, gone.revision());
            self.holders_changed(&gone);
        }
        self.tell_ipam(Input::AddressDeleted { address, version });
        self.dirty_addresses.insert(address);
    }

    /// Takes an object in, wherever it was read. Says whether it is news.
    fn note_address(&mut self, address: Address) -> bool {
        self.note_revision(address.address, address.revision());
        self.holders_changed(&address);
        self.index.apply_address(address)
    }

    fn note_revision(&mut self, address: IpAddr, revision: i64) {
        let work = self.addresses.entry(address).or_default();
        work.revision = work.revision.max(revision);
    }

    /// Services show whether some node holds their addresses.
    fn holders_changed(&mut self, address: &Address) {
        let owners = address.users().iter().map(|owner| owner.service.clone());
        self.dirty_services.extend(owners);
    }

    pub(super) fn take(&mut self, take: Take) {
        let address = take.address;
        self.addresses.entry(address).or_default().waiting = Some(Box::new(Want::Take(take)));
        self.dirty_addresses.insert(address);
    }

    pub(super) fn release(&mut self, release: Release) {
        let address = release.address;
        self.addresses.entry(address).or_default().waiting = Some(Box::new(Want::Release(release)));
        self.dirty_addresses.insert(address);
    }

    /// Issues what is to be done for an address next, if anything.
    pub(super) fn check_address(&mut self, address: IpAddr) {
        let Some(work) = self.addresses.get_mut(&address) else { return };
        if work.busy {
            return;
        }
        let paused = self.pauses(address);
        let Some(work) = self.addresses.get_mut(&address) else { return };
        let job = match work.waiting.take_if(|_| !paused).map(|want| *want) {
            Some(Want::Take(take)) => self.take_job(take),
            Some(Want::Release(release)) => {
                let revision = self.next_revision(address);
                let known = self.index.addresses.get(&address).map(|known| known.version);
                let job = ReleaseJob { release, revision, known: known.unwrap_or_default() };
                Some(Job::Release(Box::new(job)))
            }
            None if paused || self.is_pruned(address) => None,
            None => self.update_job(address).or_else(|| self.renew_job(address)),
        };
        if job.is_some() {
            self.undoes_edit(address);
        }
        if let Some(job) = job.or_else(|| self.problem_job(address)) {
            self.addresses.entry(address).or_default().busy = true;
            self.jobs.push_back(job);
        } else if !self.index.addresses.contains_key(&address) && self.is_idle(address) {
            self.addresses.remove(&address);
        }
    }

    /// Whether another write would be dropped like the last one.
    fn is_pruned(&mut self, address: IpAddr) -> bool {
        let until = self.addresses.get(&address).and_then(|work| work.pruned_until);
        let left = until.map(|until| until.saturating_duration_since(self.now.monotonic));
        let Some(left) = left.filter(|left| !left.is_zero()) else { return false };
        self.gather_after(left, Wake::Address(address));
        true
    }

    /// Whether nothing is under way for it, and nothing wanted.
    pub(super) fn is_idle(&self, address: IpAddr) -> bool {
        self.addresses.get(&address).is_none_or(|work| !work.busy && work.waiting.is_none())
    }

    fn take_job(&mut self, take: Take) -> Option<Job> {
        let address = take.address;
        // Those whom it joins are heard as well: the address is announced once, for all of them.
        let mut users = self.users(address);
        if !users.contains(&take.owner) {
            users.push(take.owner.clone());
        }
        let l2 = self.where_announced(&users, &take.pool, self.l2_of(address));
        if l2.is_none() && self.may_still_come() {
            self.addresses.entry(address).or_default().waiting = Some(Box::new(Want::Take(take)));
            return None;
        }
        let revision = self.next_revision(address);
        Some(Job::Take(Box::new(TakeJob { take, l2, revision })))
    }

    /// An update of an object that is in use and does not say what it should.
    fn update_job(&self, address: IpAddr) -> Option<Job> {
        let known = self.index.addresses.get(&address)?;
        let users = self.users(address);
        if users.is_empty() {
            return self.file_job(known);
        }
        let published = users.iter().any(|user| self.is_published(user, address));
        if known.is_terminating() || !published {
            return None;
        }
        let pool = self.ipam.pool_of(address)?.clone();
        // A pool that is gone decides nothing any more: what was announced stays announced (rule B25).
        if !self.index.pools.contains_key(&pool) {
            return None;
        }
        if known.pool().is_some_and(|former| self.is_being_renamed(former, &pool)) {
            return None;
        }
        let l2 = self.where_announced(&users, &pool, self.l2_of(address))?;
        let object = known.object();
        let sharing = self.ipam.sharing(address);
        let revision = self.next_revision(address);
        let wanted = desired::refreshed(object.clone(), &pool, Some(l2), sharing.as_ref(), revision);
        let same = desired::says_the_same(&wanted, &object);
        // A leader that had slept may have made it anew by what it knew: speakers that have seen more refuse it.
        let outdated = self.addresses.get(&address).is_some_and(|it| it.revision > known.revision());
        (!same || outdated).then(|| Job::Update { address, object: Box::new(wanted) })
    }

    /// A reservation that a user made says no pool: the one it counts to is filled in.
    fn file_job(&self, known: &Address) -> Option<Job> {
        let idle = known.users().is_empty() && known.pool().is_none();
        if !idle || !known.is_reserved() || known.is_terminating() {
            return None;
        }
        let pool = self.ipam.pool_of(known.address)?;
        let object = desired::filed(known.object(), pool, self.next_revision(known.address));
        Some(Job::Update { address: known.address, object: Box::new(object) })
    }

    /// Whether the allocator has said that this address is to be shown by its owner.
    fn is_published(&self, owner: &Owner, address: IpAddr) -> bool {
        self.services.get(&owner.service).is_some_and(|work| work.publishes(owner, address))
    }

    /// Whether the lists that decide where addresses may be announced are likely to come in a moment. Nobody waits
    /// for them longer: they gate announcing, not allocating (rule B11).
    fn may_still_come(&mut self) -> bool {
        let since = self.open.unwrap_or(self.now.monotonic);
        let left = (since + ANNOUNCE_LISTS).saturating_duration_since(self.now.monotonic);
        if !left.is_zero() {
            self.wake(left, Wake::Announce);
        }
        !left.is_zero()
    }

    /// Those who have an address, as its object says.
    pub(super) fn users(&self, address: IpAddr) -> Vec<Owner> {
        let known = self.index.addresses.get(&address);
        known.map(|known| known.users().to_vec()).unwrap_or_default()
    }

    /// Where its object has it announced.
    fn l2_of(&self, address: IpAddr) -> Option<&L2Announce> {
        self.index.addresses.get(&address).and_then(Address::l2)
    }

    /// Where an address may be announced for its users, or `None` while a list that decides it has not come. `before`:
    /// where it is announced so far.
    fn where_announced(
        &self,
        users: &[Owner],
        pool: &PoolName,
        before: Option<&L2Announce>,
    ) -> Option<L2Announce> {
        let nodes = self.index.nodes.as_ref()?;
        let none = Labels::default();
        let known = self.index.pools.get(pool);
        let meanings = self.meanings_for(pool, known.map_or(&none, |pool| &pool.labels))?;
        let service = |user: &Owner| Some(&**self.index.services.get(&user.service)?);
        let services: Vec<&Service> = users.iter().filter_map(service).collect();
        let endpoints = self.endpoint_nodes(&services).ok()?;
        let mut labels: Vec<&Labels> = services.iter().map(|service| &service.labels).collect();
        if labels.is_empty() {
            labels.push(&none);
        }
        let about = About {
            conflict_detection: match known.map(|pool| &pool.spec) {
                Some(Ok(spec)) => spec.conflict_detection,
                // What can't be read changes nothing.
                _ => before.map(|before| before.conflict_detection).unwrap_or_default(),
            },
            service_labels: &labels,
            endpoints: endpoints.as_ref(),
        };
        let listed = before.map(|before| before.nodes.names.as_slice()).unwrap_or_default();
        Some(announce::l2(about, &meanings, nodes, listed))
    }

    pub(super) fn next_revision(&self, address: IpAddr) -> i64 {
        let known = self.addresses.get(&address).map_or(0, |work| work.revision);
        desired::next_revision(known, self.index.newest)
    }

    pub(super) fn taken(&mut self, take: Take, result: TakeResult, object: Option<Box<Address>>) {
        let Take { address, owner, .. } = take;
        self.job_ended(address, object);
        self.tell_ipam(Input::TakeDone { address, owner, result });
    }

    /// Only a live GET can tell whether it is gone.
    pub(super) fn read_untold(&mut self, address: IpAddr) {
        if self.index.untold.contains(&address) {
            let job = self.read_job(address);
            self.jobs.push_back(job);
        }
    }

    pub(super) fn read_job(&self, address: IpAddr) -> Job {
        let known = self.index.addresses.get(&address);
        let name = known.map_or_else(|| name_of_address(address), Address::name);
        Job::Read { address, name: name.into() }
    }

    pub(super) fn reread(&mut self, address: IpAddr, read: Result<Option<Box<Address>>, String>) {
        match read {
            Ok(Some(object)) => self.address_seen(*object),
            // The watch has told of it since.
            Ok(None) if !self.index.untold.contains(&address) => {}
            Ok(None) => {
                let known = self.index.addresses.get(&address).map(|known| known.version);
                self.address_gone(address, known.unwrap_or_default());
            }
            // Without a known outcome nothing may be concluded.
            Err(error) => {
                tracing::warn!(%address, error, "can't read a LoadBalancerIP; trying again");
                self.wake(READ_AGAIN, Wake::Read(address));
            }
        }
    }

    pub(super) fn updated(&mut self, address: IpAddr, result: UpdateResult) {
        let ours = matches!(result, UpdateResult::Now(_) | UpdateResult::Pruned(_));
        if let UpdateResult::Found(object) = &result {
            self.addresses.entry(address).or_default().busy = false;
            self.note_edit(object);
        }
        if let UpdateResult::Pruned(_) = &result {
            tracing::error!(%address, "the API server dropped some of what was written to a LoadBalancerIP: its CRDs are of another \
                version; apply those of this one (kubectl apply --server-side -f manifests/crds.yaml)");
            self.addresses.entry(address).or_default().pruned_until = Some(self.now.monotonic + RETRY_MAX);
        }
        match result {
            UpdateResult::Now(object) | UpdateResult::Pruned(object) | UpdateResult::Found(object) => {
                let record = object.record();
                self.addresses.entry(address).or_default().relied.seen(object.version, ours);
                self.job_ended(address, Some(object));
                self.tell_ipam(Input::AddressApplied(record));
            }
            // The watch will tell, too, but the update must not be tried again until then. The allocator decides what
            // becomes of it (rule B17). Whatever was told since is newer than this answer.
            UpdateResult::Gone(version) => {
                self.job_ended(address, None);
                if self.index.addresses.get(&address).is_some_and(|known| known.version == version) {
                    self.address_gone(address, version);
                }
            }
            UpdateResult::Refused(error) => {
                tracing::error!(%address, error, "the API server refused to update a LoadBalancerIP");
                self.job_ended(address, None);
                // Not at once: a refusal would only repeat itself.
                self.dirty_addresses.remove(&address);
                self.gather_after(RETRY_MAX, Wake::Announce);
            }
        }
    }

    pub(super) fn released(
        &mut self,
        release: &Release,
        mut result: ReleaseResult,
        object: Option<Box<Address>>,
    ) {
        let address = release.address;
        // Another leader made it anew meanwhile, and the watch has told of that before this answer came: what was released
        // is what was there before.
        if let ReleaseResult::Released(version) = result
            && object.is_none()
            && let Some(known) = self.index.addresses.get(&address).filter(|known| known.version > version)
        {
            result = ReleaseResult::Changed(known.record());
        }
        match &result {
            ReleaseResult::Released(version) => {
                if object.is_none() {
                    self.index.addresses.remove(&address);
                    self.index.released.insert(address, *version);
                }
                tracing::info!(%address, service = %release.owner.service, "released");
            }
            ReleaseResult::StillInUse => {
                tracing::info!(%address, service = %release.owner.service, "still in use, not released");
            }
            ReleaseResult::Changed(_) => {}
            ReleaseResult::Refused(error) => {
                tracing::error!(%address, error, "the API server refused the release");
            }
        }
        self.job_ended(address, object);
        self.tell_ipam(Input::ReleaseDone { address, result });
    }

    pub(super) fn job_ended(&mut self, address: IpAddr, object: Option<Box<Address>>) {
        self.addresses.entry(address).or_default().busy = false;
        if let Some(object) = object {
            // The watch may have been quicker than the answer.
            let known = self.index.addresses.get(&address).map(|known| known.version);
            let told = known.is_some_and(|known| known >= object.version);
            if self.note_address(*object) && !told {
                self.index.untold.insert(address);
            }
        }
        self.dirty_addresses.insert(address);
    }
}
