//! IPAddressPools: telling the allocator of them, and writing how full they are and what is wrong with them.
//!
//! Counts change with every Service, so they are gathered for a moment before they are written.

use herald_crds::IPAddressPoolStatus;
use herald_ipam::{Input, Labels, List, PoolCounts, PoolName, PoolSpec, PoolStatus};
use herald_runtime::watch::Change;

use super::{Core, RETRY_MAX, Wake};
use crate::{
    announce,
    conditions::{are_shown, condition},
    job::Job,
    objects::{SpecError, pool::Pool},
    reasons::PoolReady,
};

/// The condition's type.
const READY: &str = "Ready";

/// What is going on with one pool.
#[derive(Debug, Default)]
pub(super) struct PoolWork {
    /// What the allocator said last.
    status: PoolStatus,
    /// What in the spec as written means nothing.
    spec: Option<SpecError>,
    /// A job is under way.
    busy: bool,
}

impl PoolWork {
    /// Notes what is wrong with the spec as written, if anything.
    pub(super) fn note_meaning(
        &mut self,
        meaning: Result<PoolSpec, SpecError>,
    ) -> Result<PoolSpec, SpecError> {
        self.spec = meaning.as_ref().err().cloned();
        meaning
    }

    /// Addresses in use and left, as the allocator said last.
    pub(super) fn counts(&self) -> PoolCounts {
        self.status.counts
    }

    /// What is wrong with the spec as written.
    pub(super) fn problem(&self) -> Option<String> {
        let problem = self.status.problem.as_ref().map(ToString::to_string);
        problem.or_else(|| self.spec.as_ref().map(ToString::to_string))
    }

    /// Whether a job is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }
}

impl Core {
    pub(super) fn pools_changed(&mut self, change: Change<Pool>) {
        match change {
            Change::Replaced(list) => {
                let mut missing: Vec<PoolName> = self.index.pools.keys().cloned().collect();
                for pool in list {
                    missing.retain(|known| *known != pool.name);
                    self.pool_seen(pool);
                }
                for pool in missing {
                    self.pool_gone(&pool);
                }
                self.pools_came();
            }
            Change::Applied(pool) => self.pool_seen(pool),
            Change::Deleted(pool) => {
                self.index.saw(pool.version);
                self.pool_gone(&pool.name);
            }
        }
    }

    /// What pools give is known when the nodes are known as well: nobody gets a node's address.
    fn pools_came(&mut self) {
        self.pools_listed = true;
        if self.index.nodes.is_some() {
            self.list_came(List::Pools);
        }
    }

    /// Nodes came, went, or have other addresses: pools mean something else where such an address lies in them.
    pub(super) fn node_addresses_changed(&mut self) {
        let specs = self.index.pools.values().filter_map(|pool| self.index.meaning_of(pool).ok());
        for spec in specs.collect::<Vec<_>>() {
            // Said by the pool's condition alone, where that is all that changed.
            self.gather(Wake::Pool(spec.name.clone()));
            // Which changes nothing if it is the spec it knows.
            self.tell_ipam(Input::PoolApplied(spec));
        }
    }

    fn pool_seen(&mut self, pool: Pool) {
        let name = pool.name.clone();
        let known = self.index.pools.get(&name);
        // Our own writes of its status come back as well, and decide nothing.
        let news = known.is_none_or(|known| {
            known.uid != pool.uid || known.spec != pool.spec || known.labels != pool.labels
        });
        let meaning = self.index.meaning_of(&pool);
        let newer = self.index.apply_pool(pool);
        self.gather(Wake::Pool(name.clone()));
        if !newer || !news {
            return;
        }
        let work = self.pools.entry(name.clone()).or_default();
        match work.note_meaning(meaning) {
            Ok(spec) => self.tell_ipam(Input::PoolApplied(spec)),
            Err(error) => tracing::warn!(pool = %name, "{error}"),
        }
        self.metrics_of_pool(&name);
        self.announce_changed();
    }

    fn pool_gone(&mut self, name: &PoolName) {
        self.index.pools.remove(name);
        // The allocator never heard of one that was never valid, and says nothing of its end.
        self.pools.remove(name);
        self.metrics.forget_pool(name);
        self.tell_ipam(Input::PoolDeleted(name.clone()));
        self.announce_changed();
    }

    pub(super) fn pool_status(&mut self, name: PoolName, status: Option<PoolStatus>) {
        let Some(status) = status else {
            self.pools.remove(&name);
            self.metrics.forget_pool(&name);
            return;
        };
        let work = self.pools.entry(name.clone()).or_default();
        if work.status.problem != status.problem
            && let Some(problem) = &status.problem
        {
            tracing::warn!(pool = %name, "{problem}");
        }
        work.status = status;
        self.metrics_of_pool(&name);
        self.gather(Wake::Pool(name));
    }

    pub(super) fn metrics_of_pool(&self, name: &PoolName) {
        if self.leads
            && let Some(work) = self.pools.get(name)
        {
            let valid = work.status.problem.is_none() && work.spec.is_none();
            self.metrics.pool(name, &work.status.counts, valid);
        }
    }

    /// Writes a pool's status if it says something else.
    pub(super) fn check_pool(&mut self, name: &PoolName) {
        let open = self.ipam.is_open();
        let now = self.now.wall;
        let excluded = self.candidates_are_excluded(name);
        let (Some(work), Some(pool)) = (self.pools.get_mut(name), self.index.pools.get(name)) else { return };
        if work.busy || !open {
            self.gather(Wake::Pool(name.clone()));
            return;
        }
        let status = pool.status.clone().unwrap_or_default();
        let nodes = self.index.nodes_in(pool);
        let ready = PoolReady::of(&work.status, work.spec.as_ref(), &nodes, excluded);
        let ready = condition(READY, &ready, pool.generation, &status.conditions, now);
        let counts = &work.status.counts;
        let wanted = IPAddressPoolStatus {
            assigned_ipv4: counts.assigned_v4,
            assigned_ipv6: counts.assigned_v6,
            available_ipv4: counts.available_v4,
            available_ipv6: counts.available_v6,
            conditions: vec![ready],
        };
        let same_counts = IPAddressPoolStatus { conditions: Vec::new(), ..wanted.clone() }
            == IPAddressPoolStatus { conditions: Vec::new(), ..status.clone() };
        if pool.status.is_some() && same_counts && are_shown(&wanted.conditions, &status.conditions) {
            return;
        }
        work.busy = true;
        self.jobs.push_back(Job::Pool { pool: Box::new(pool.clone()), status: Box::new(wanted) });
    }

    /// Which nodes may announce a pool's addresses, or what they say of themselves, has changed.
    pub(super) fn candidates_changed(&mut self) {
        let pools: Vec<PoolName> = self.index.pools.keys().cloned().collect();
        for pool in pools {
            self.gather(Wake::Pool(pool));
        }
    }

    /// Whether every node that could announce the pool's addresses bears the label that excludes it, so that the label
    /// is ignored (rule B26).
    fn candidates_are_excluded(&self, name: &PoolName) -> bool {
        let (Some(pool), Some(nodes)) = (self.index.pools.get(name), &self.index.nodes) else { return false };
        let Some(meanings) = self.meanings_for(name, &pool.labels) else { return false };
        let may = |labels: &&Labels| {
            meanings.is_empty() || meanings.iter().any(|meaning| meaning.selects_node(labels))
        };
        announce::all_excluded(nodes.values().filter(may))
    }

    pub(super) fn pool_written(&mut self, name: &PoolName, pool: Option<Box<Pool>>) {
        if let Some(work) = self.pools.get_mut(name) {
            work.busy = false;
        }
        // If nothing was written, somebody else was quicker, or it is gone: the watch tells which. Or the server would
        // not: it is asked again later.
        let Some(pool) = pool else {
            self.gather_after(RETRY_MAX, Wake::Pool(name.clone()));
            return;
        };
        // The answer may come after the news that it was deleted.
        if self.index.pools.get(name).is_some_and(|known| known.uid == pool.uid) {
            self.index.apply_pool(*pool);
        }
    }
}
