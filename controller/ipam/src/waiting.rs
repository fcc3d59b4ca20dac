//! Who waits for what, and in which order: explicit requests before others, then the oldest first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use crate::{CreatedAt, Family, PoolName, ServiceRef, SharingKey};

/// Place of a Service among those to be served.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) turn: Turn,
    pub(crate) created: CreatedAt,
    pub(crate) service: ServiceRef,
}

/// Which kind of Service comes first when several can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Turn {
    /// Its status shows an address that can be adopted: traffic may flow to it already.
    Adoption,
    /// It can have that address only.
    Explicit,
    /// Any address will do.
    Rest,
}

/// What may help a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wait {
    /// This address comes free.
    Address(IpAddr),
    /// Some address of that family in that pool comes free.
    Pool(PoolName, Family),
    /// The namespace comes below the pool's limit.
    Limit(PoolName, Family, Arc<str>),
    /// Something changes among those who share under the key.
    Sharers(SharingKey),
}

/// All that wait.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    by_wait: BTreeMap<Wait, BTreeSet<Rank>>,
}

impl Waiting {
    /// `rank` waits for any of `waits`.
    pub(crate) fn add(&mut self, waits: &[Wait], rank: &Rank) {
        for wait in waits {
            self.by_wait.entry(wait.clone()).or_default().insert(rank.clone());
        }
    }

    /// It no longer does.
    pub(crate) fn remove(&mut self, waits: &[Wait], rank: &Rank) {
        for wait in waits {
            if let Some(ranks) = self.by_wait.get_mut(wait) {
                ranks.remove(rank);
                if ranks.is_empty() {
                    self.by_wait.remove(wait);
                }
            }
        }
    }

    /// The first that waits for `wait`, behind `after`.
    pub(crate) fn next(&self, wait: &Wait, after: Option<&Rank>) -> Option<&Rank> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_wait.get(wait)?.range((from, Bound::Unbounded)).next()
    }
}
