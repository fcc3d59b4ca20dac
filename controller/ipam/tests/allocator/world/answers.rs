//! What the API server answers to the writer.

use super::*;

/// The API server's answers.
impl World {
    pub(super) fn do_take(&mut self, take: Take) -> Input {
        let Take { address, pool, owner, how, sharing } = take;
        let found = self.lbips.get(&address).cloned();
        let result = match (found, &how) {
            (Some(record), _) if record.services.contains(&owner) => TakeResult::Taken(record.version),
            (Some(record), TakeHow::Claim | TakeHow::Join { .. })
                if record.services.iter().all(|other| may_stand_beside(&how, other))
                    && record.services.len() < 64
                    && !record.terminating
                    && record.claim.as_ref().is_none_or(|claim| {
                        claim.admits(&owner.service, sharing.as_ref().map(|terms| &terms.key))
                    }) =>
            {
                let version = self.next_version();
                let pool = Some(pool);
                let mut services = record.services.clone();
                services.push(owner.clone());
                self.lbips.insert(address, AddressRecord { version, pool, services, sharing, ..record });
                self.tell_address(address);
                TakeResult::Taken(version)
            }
            (Some(record), _) => TakeResult::Held(record.into()),
            (None, _) => {
                let version = self.next_version();
                let services = vec![owner.clone()];
                let record = AddressRecord {
                    address,
                    version,
                    pool: Some(pool),
                    services,
                    claim: None,
                    sharing,
                    terminating: false,
                };
                self.lbips.insert(address, record);
                self.tell_address(address);
                TakeResult::Taken(version)
            }
        };
        Input::TakeDone { address, owner, result }
    }

    pub(super) fn do_publish(&mut self, publication: &Publication) -> Input {
        let owner = publication.owner.clone();
        let version = self.next_version();
        let api = self.services.get_mut(&owner.service);
        let asks_for_more =
            api.as_ref().and_then(|api| api.refusal.as_ref()).is_some_and(|refusal| !refusal.is_complaint());
        let result = match api.filter(|api| api.request.owner == owner && api.balanced) {
            None => PublishResult::Gone,
            Some(api) if api.request.version != publication.version => PublishResult::Stale,
            Some(api) => {
                let shown = match publication.ingress {
                    Ingress::Show(addresses) => addresses.iter().collect(),
                    Ingress::Leave => api.request.shown.clone(),
                };
                let same = shown == api.request.shown
                    && api.refusal == publication.refusal
                    && api.pool == publication.pool;
                api.request.shown = shown;
                api.refusal.clone_from(&publication.refusal);
                api.pool.clone_from(&publication.pool);
                if same {
                    PublishResult::Published(api.request.version)
                } else {
                    api.request.version = version;
                    self.tell_service(&owner.service);
                    PublishResult::Published(version)
                }
            }
        };
        if let (Ingress::Show(addresses), PublishResult::Published(_)) = (publication.ingress, &result) {
            self.check_settled(&owner.service, addresses, asks_for_more);
        }
        Input::PublishDone { owner, result }
    }

    pub(super) fn do_release(&mut self, release: Release) -> Input {
        let Release { address, owner, when, then } = release;
        let alive =
            self.services.get(&owner.service).filter(|api| api.request.owner == owner && api.balanced);
        let in_use = match (alive, when) {
            (Some(api), ReleaseWhen::NotShown) => api.request.shown.contains(&address),
            (alive, _) => alive.is_some(),
        };
        if in_use {
            return Input::ReleaseDone { address, result: ReleaseResult::StillInUse };
        }
        let dead =
            self.services.get_mut(&owner.service).filter(|api| api.request.owner == owner && !api.balanced);
        if let Some(api) = dead {
            api.request.shown.retain(|shown| *shown != address);
        }
        let version = self.next_version();
        let result = match self.lbips.get_mut(&address) {
            None => ReleaseResult::Released(Version::default()),
            Some(record)
                if !record.services.contains(&owner)
                    || (then == ReleaseThen::Leave) == (record.services.len() == 1) =>
            {
                ReleaseResult::Changed(record.clone().into())
            }
            Some(record) => {
                record.services.retain(|other| *other != owner);
                let last = record.version;
                match then {
                    ReleaseThen::Delete => {
                        self.lbips.remove(&address);
                        self.tell_deleted(address);
                        ReleaseResult::Released(last)
                    }
                    then => {
                        if let ReleaseThen::Reserve(claim) = then {
                            record.claim = Some(claim);
                        }
                        record.version = version;
                        self.tell_address(address);
                        ReleaseResult::Released(version)
                    }
                }
            }
        };
        Input::ReleaseDone { address, result }
    }

    pub(super) fn tell_service(&mut self, service: &ServiceRef) {
        if let Some(api) = self.services.get(service).filter(|api| api.balanced) {
            self.lagging[SERVICES].push_back(Input::ServiceApplied(api.request.clone().into()));
        }
    }

    pub(super) fn tell_address(&mut self, address: IpAddr) {
        let record = self.lbips.get(&address).cloned();
        self.lagging[ADDRESSES].extend(record.map(|it| Input::AddressApplied(it.into())));
    }

    pub(super) fn tell_deleted(&mut self, address: IpAddr) {
        let version = self.next_version();
        self.lagging[ADDRESSES].push_back(Input::AddressDeleted { address, version });
    }

    pub(super) fn next_version(&mut self) -> Version {
        self.version += 1;
        Version(self.version)
    }
}

fn may_stand_beside(how: &TakeHow, other: &Owner) -> bool {
    matches!(how, TakeHow::Join { beside } if beside.contains(other))
}
