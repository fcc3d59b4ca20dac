//! What the watches tell of pools, namespaces and Services, and the gate: nothing is given before every list is
//! there (rule B11).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Allocator;
use crate::service::Service;
use crate::{Labels, List, Owner, PoolName, PoolSpec, ServiceRef, ServiceRequest};

impl Allocator {
    pub(super) fn pool_applied(&mut self, spec: PoolSpec) {
        if !self.is_open() {
            self.ledger.pools.note(spec);
            return;
        }
        let name = spec.name.clone();
        if let Some(changed) = self.ledger.pools.apply(spec) {
            self.pools_changed(name, &changed);
        }
    }

    pub(super) fn pool_deleted(&mut self, name: &PoolName) {
        let changed = self.ledger.pools.delete(name);
        if self.is_open() {
            self.pools_changed(name.clone(), &changed);
        }
    }

    fn pools_changed(&mut self, cause: PoolName, changed: &BTreeSet<PoolName>) {
        self.ledger.touch(cause);
        self.ledger.reindex(changed);
        self.all_due();
    }

    pub(super) fn namespace_changed(&mut self, name: String, labels: Option<Labels>) {
        if labels.as_ref() == self.namespaces.get(&name) {
            return;
        }
        let inside = ServiceRef::new(&name, "");
        let services = self.services.range(inside..).map(|(_, service)| service);
        let inside = services.take_while(|service| *service.request.owner.service.namespace == *name);
        self.due.extend(inside.map(|service| service.rank()));
        match labels {
            Some(labels) => self.namespaces.insert(name, labels),
            None => self.namespaces.remove(&name),
        };
    }

    pub(super) fn service_applied(&mut self, request: Arc<ServiceRequest>) {
        let owner = request.owner.clone();
        let known = self.services.get_mut(&owner.service);
        let mut shares_otherwise = true;
        match known {
            Some(known) if known.request.owner == owner => {
                if request.version < known.request.version {
                    return;
                }
                shares_otherwise =
                    known.request.exposure != request.exposure || known.request.key() != request.key();
                known.renew(request);
            }
            other => {
                if other.is_some() {
                    self.service_deleted(&owner.service);
                }
                let publishing = self.orphaned.remove(&owner);
                let service = Service::new(request, publishing);
                self.services.insert(owner.service.clone(), Box::new(service));
            }
        }
        if self.is_open() {
            self.keep_for(&owner);
            self.is_due(&owner.service);
            if shares_otherwise {
                self.shares_otherwise(&owner);
            }
        }
    }

    /// What an owner names or exposes decides who can join it.
    fn shares_otherwise(&mut self, owner: &Owner) {
        let addresses: Vec<_> = self.ledger.owned(owner).collect();
        for address in addresses {
            self.rekey(address);
            self.news_of(address);
        }
    }

    pub(super) fn service_deleted(&mut self, service: &ServiceRef) {
        if let Some(gone) = self.services.remove(service) {
            if let Some((rank, waits)) = gone.waits.as_deref() {
                self.waiting.remove(waits, rank);
            }
            self.orphaned.extend(gone.into_unfinished());
        }
        self.refused_services.remove(service);
        if self.is_open() {
            for owner in self.ledger.owners_named(service) {
                self.give_back_all(&owner);
            }
        }
    }

    pub(super) fn list_synced(&mut self, list: List) {
        let was_open = self.is_open();
        self.synced.insert(list);
        if was_open && list == List::Services {
            // A Service that came and went between two lists is never told of as deleted.
            let unknown: Vec<_> =
                self.ledger.owners().filter(|owner| !self.is_known(owner)).cloned().collect();
            for owner in &unknown {
                self.give_back_all(owner);
            }
        } else if !was_open && self.is_open() {
            self.open();
        }
    }

    /// Everything is there: adopt what exists, then serve explicit requests, then the rest, oldest first.
    fn open(&mut self) {
        let changed = self.ledger.pools.enforce_noted();
        self.ledger.reindex(&changed);
        let names: Vec<_> = self.ledger.pools.names().cloned().collect();
        for name in names {
            self.ledger.touch(name);
        }
        for address in self.ledger.addresses() {
            self.reconcile(address);
        }
        self.due.clear();
        let has: Vec<_> =
            self.services.iter().map(|(name, it)| (name.clone(), self.possessions(it))).collect();
        for (name, has) in has {
            if let Some(service) = self.services.get_mut(&name) {
                service.target = has;
            }
        }
        self.all_due();
    }
}
