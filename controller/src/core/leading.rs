//! Leading and standing by (rules B11 and B14).
//!
//! Who stands by keeps its index warm and decides nothing: there is no allocator then. Who begins to lead builds one
//! from the index, the way a process does that has just started: what exists is adopted, every address's users are
//! checked by a live read before the address can be given out, and nothing of an earlier leadership is carried on.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use herald_ipam::{Allocator, Input, List, Version};

use super::{Core, Wake, advertisements::DEPARTED};
use crate::watch::Present;

impl Core {
    /// Begins to lead.
    pub(super) fn lead(&mut self) {
        if std::mem::replace(&mut self.leads, true) {
            return;
        }
        self.leads_from = self.index.newest;
        for pool in self.index.pools.values() {
            let meaning = self.index.meaning_of(pool);
            let work = self.pools.entry(pool.name.clone()).or_default();
            match work.note_meaning(meaning) {
                Ok(spec) => self.ipam.handle(Input::PoolApplied(spec)),
                Err(error) => tracing::warn!(pool = %pool.name, "{error}"),
            }
        }
        for (name, labels) in &self.index.namespaces {
            self.ipam.handle(Input::NamespaceApplied { name: name.clone(), labels: labels.clone() });
        }
        for service in self.index.services.values() {
            self.ipam.handle(Input::ServiceApplied(service.request()));
        }
        for address in self.index.addresses.values() {
            self.ipam.handle(Input::AddressApplied(address.record()));
        }
        // Not told of by the watch: only a live GET can tell.
        let untold: Vec<_> = self.index.untold.iter().map(|address| self.read_job(*address)).collect();
        self.jobs.extend(untold);
        for list in &self.listed {
            self.ipam.handle(Input::Synced(*list));
        }
        self.dirty_services.extend(self.index.services.keys().cloned());
        let pools: Vec<_> = self.index.pools.keys().cloned().collect();
        for pool in pools {
            self.metrics_of_pool(&pool);
            self.gather(Wake::Pool(pool));
        }
        self.forget_departed();
        if !self.departed.is_empty() {
            self.wake(DEPARTED, Wake::Announce);
        }
        self.announce_changed();
    }

    /// Which LoadBalancerIPs the watch has told of, and in which version; `None` before its first list.
    pub fn versions(&self) -> Option<BTreeMap<IpAddr, Version>> {
        let known = || self.index.addresses.values().map(|known| (known.address, known.version));
        self.listed.contains(&List::Addresses).then(|| known().collect())
    }

    /// Takes in what there is. The watch of Services may have told of what a former leader wrote last before that of
    /// LoadBalancerIPs does: what a Service shows would look like nobody's then.
    pub(super) fn present(&mut self, present: Present) {
        let Present { version, all, news } = present;
        self.index.saw(version);
        let known = self.index.addresses.iter().filter(|(_, known)| known.version <= version);
        let known = known.map(|(address, _)| *address);
        let gone: BTreeSet<IpAddr> = known.filter(|address| !all.contains(address)).collect();
        self.index.untold.retain(|address| !all.contains(address));
        for object in news {
            let address = object.address;
            let is_new = !self.index.addresses.contains_key(&address);
            self.address_seen(object);
            // Or the watch has told already that it is gone since.
            if is_new {
                self.index.untold.insert(address);
            }
        }
        for address in gone {
            self.address_gone(address, version);
            // What the watch still has to tell of it is history.
            self.index.released.insert(address, version);
        }
    }

    /// Leads no longer: whatever was under way is nobody's business any more, and its results are not wanted.
    pub(super) fn stand_by(&mut self) {
        if !std::mem::replace(&mut self.leads, false) {
            return;
        }
        self.ipam = Allocator::new();
        self.open = None;
        self.services.clear();
        // Revisions are kept: they must go on growing (rule B18).
        self.addresses.values_mut().for_each(|work| work.abandon());
        for pool in std::mem::take(&mut self.pools).into_keys() {
            self.metrics.forget_pool(&pool);
        }
        self.advertisements_busy.clear();
        self.retries = 0;
        self.failed = 0;
        self.calm_since = None;
        self.rest();
    }

    /// Drops what only a leader would do.
    pub(super) fn rest(&mut self) {
        self.dirty_addresses.clear();
        self.dirty_services.clear();
        self.timers.clear();
        self.jobs.clear();
    }

    /// Tells the allocator, if there is one.
    pub(super) fn tell_ipam(&mut self, input: Input) {
        if self.leads {
            self.ipam.handle(input);
        }
    }

    /// A list that decides who may have what is there.
    pub(super) fn list_came(&mut self, list: List) {
        self.listed.insert(list);
        self.tell_ipam(Input::Synced(list));
    }
}
