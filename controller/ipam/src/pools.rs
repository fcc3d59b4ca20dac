//! All pools: what their objects say, and what is in force.
//!
//! Holds always: pools in force have no address in common. A spec that is invalid, or that overlaps a pool in
//! force, is a problem of its own pool and changes nothing: that pool's last good meaning stays in force. A problem
//! is looked at again whenever another pool changes. Who has which address is not known here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::pool::Pool;
use crate::range::to_number;
use crate::{AddressRange, Family, PoolName, PoolProblem, PoolSpec};

/// What the objects say and what is in force.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    written: BTreeMap<PoolName, Written>,
    in_force: BTreeMap<PoolName, Pool>,
    /// Last address of every range in force, to its first and its pool.
    index: BTreeMap<(Family, u128), (u128, PoolName)>,
}

#[derive(Debug)]
struct Written {
    spec: PoolSpec,
    problem: Option<PoolProblem>,
}

impl Pools {
    /// Notes what an object says, without putting it in force: before the first sync, when an older pool may
    /// still come.
    pub(crate) fn note(&mut self, spec: PoolSpec) {
        self.written.insert(spec.name.clone(), Written { spec, problem: None });
    }

    /// Puts everything noted in force, the oldest pool first. Returns the pools whose meaning changed.
    pub(crate) fn enforce_noted(&mut self) -> BTreeSet<PoolName> {
        let mut order: Vec<_> =
            self.written.values().map(|it| (it.spec.created, it.spec.name.clone())).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, name)| name).filter(|name| self.enforce(name)).collect()
    }

    /// A pool is created or edited. Returns the pools whose meaning changed; `None` if it says what it said before.
    pub(crate) fn apply(&mut self, spec: PoolSpec) -> Option<BTreeSet<PoolName>> {
        let name = spec.name.clone();
        if self.written.get(&name).is_some_and(|written| written.spec == spec) {
            return None;
        }
        self.note(spec);
        let changed = self.enforce(&name).then_some(name);
        Some(self.retry(changed.into_iter().collect()))
    }

    /// A pool is deleted. Returns the pools whose meaning changed, this one among them.
    pub(crate) fn delete(&mut self, name: &PoolName) -> BTreeSet<PoolName> {
        self.written.remove(name);
        let Some(pool) = self.in_force.remove(name) else { return BTreeSet::new() };
        self.unindex(&pool.ranges);
        self.retry([name.clone()].into())
    }

    /// A pool in force.
    pub(crate) fn get(&self, name: &PoolName) -> Option<&Pool> {
        self.in_force.get(name)
    }

    /// The same, to take from and give back to.
    pub(crate) fn get_mut(&mut self, name: &PoolName) -> Option<&mut Pool> {
        self.in_force.get_mut(name)
    }

    /// All pools in force, by name.
    pub(crate) fn in_force(&self) -> impl Iterator<Item = (&PoolName, &Pool)> {
        self.in_force.iter()
    }

    /// The names of all pools there are, in force or not.
    pub(crate) fn names(&self) -> impl Iterator<Item = &PoolName> {
        self.written.keys()
    }

    /// Whether there is an object of this name, in force or not.
    pub(crate) fn exists(&self, name: &PoolName) -> bool {
        self.written.contains_key(name)
    }

    /// What is wrong with a pool as written.
    pub(crate) fn problem(&self, name: &PoolName) -> Option<&PoolProblem> {
        self.written.get(name)?.problem.as_ref()
    }

    /// The pool in force that gives this address out.
    pub(crate) fn containing(&self, address: IpAddr) -> Option<&PoolName> {
        let (family, number) = to_number(address);
        let ((other, _), (first, name)) = self.index.range((family, number)..).next()?;
        let inside = *other == family && *first <= number && self.in_force.get(name)?.contains(address);
        inside.then_some(name)
    }

    /// Puts what is written in force, if nothing speaks against it.
    fn enforce(&mut self, name: &PoolName) -> bool {
        let Some(written) = self.written.get(name) else { return false };
        let outcome = Pool::new(written.spec.clone()).and_then(|pool| match self.overlap(&pool) {
            Some(problem) => Err(problem),
            None => Ok(pool),
        });
        let (pool, problem) = match outcome {
            Ok(pool) => (Some(pool), None),
            Err(problem) => (None, Some(problem)),
        };
        if let Some(written) = self.written.get_mut(name) {
            written.problem = problem;
        }
        let Some(pool) = pool else { return false };
        if let Some(before) = self.in_force.remove(name) {
            self.unindex(&before.ranges);
        }
        for range in &pool.ranges {
            let (first, last) = range.numbers();
            self.index.insert((range.family(), last), (first, name.clone()));
        }
        self.in_force.insert(name.clone(), pool);
        true
    }

    /// Looks again at every pool with a problem, the oldest first: what stood in its way may be gone.
    fn retry(&mut self, mut changed: BTreeSet<PoolName>) -> BTreeSet<PoolName> {
        loop {
            let mut waiting: Vec<_> = self
                .written
                .values()
                .filter(|it| matches!(it.problem, Some(PoolProblem::Overlaps { .. })))
                .map(|it| (it.spec.created, it.spec.name.clone()))
                .collect();
            waiting.sort_unstable();
            let enforced: Vec<_> =
                waiting.into_iter().map(|(_, name)| name).filter(|name| self.enforce(name)).collect();
            // A pool that was enforced may have let go of what its last good meaning held.
            if enforced.is_empty() {
                return changed;
            }
            changed.extend(enforced);
        }
    }

    /// A range of `pool` that another pool in force has addresses of.
    fn overlap(&self, pool: &Pool) -> Option<PoolProblem> {
        pool.ranges.iter().find_map(|range| {
            let (family, (first, last)) = (range.family(), range.numbers());
            self.index
                .range((family, first)..)
                .take_while(|((other, _), (other_first, _))| *other == family && *other_first <= last)
                .find(|(_, (_, name))| *name != pool.spec.name)
                .map(|((_, other_last), (other_first, name))| PoolProblem::Overlaps {
                    range: *range,
                    other: name.clone(),
                    other_range: AddressRange::from_numbers(family, *other_first, *other_last),
                })
        })
    }

    fn unindex(&mut self, ranges: &[AddressRange]) {
        for range in ranges {
            self.index.remove(&(range.family(), range.numbers().1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CreatedAt;
    use crate::pool::tests::spec;

    fn aged(created: i64, name: &str, addresses: &[&str]) -> PoolSpec {
        PoolSpec { created: CreatedAt(created), ..spec(name, addresses) }
    }

    fn containing(pools: &Pools, address: &str) -> Option<String> {
        pools.containing(address.parse().unwrap()).map(ToString::to_string)
    }

    fn problem(pools: &Pools, name: &str) -> Option<String> {
        pools.problem(&PoolName::new(name)).map(ToString::to_string)
    }

    #[test]
    fn the_older_pool_keeps_what_two_want_in_any_order_of_arrival() {
        let old = aged(1, "z-old", &["10.0.0.0/24"]);
        let new = aged(2, "a-new", &["10.0.0.128-10.0.1.9"]);
        for order in [[&old, &new], [&new, &old]] {
            let mut pools = Pools::default();
            for spec in order {
                pools.note(spec.clone());
            }
            pools.enforce_noted();
            assert_eq!(containing(&pools, "10.0.0.200").as_deref(), Some("z-old"));
            assert_eq!(containing(&pools, "10.0.1.1"), None, "no part of the newer is in force");
            assert_eq!(problem(&pools, "z-old"), None);
            let text = problem(&pools, "a-new").unwrap();
            let wanted = "10.0.0.128-10.0.1.9 overlaps 10.0.0.0-10.0.0.255 of pool 'z-old'";
            assert!(text.contains(wanted), "{text}");
        }
    }

    #[test]
    fn an_edit_that_overlaps_or_means_nothing_keeps_the_last_good_meaning() {
        let mut pools = Pools::default();
        pools.apply(aged(1, "a", &["10.0.0.0/24"]));
        pools.apply(aged(2, "b", &["10.0.1.0/24"]));
        for bad in [&["10.0.0.0/23"][..], &["10.0.0.0/99"], &[]] {
            assert_eq!(pools.apply(aged(1, "a", bad)), Some(BTreeSet::new()));
            assert!(problem(&pools, "a").is_some());
            assert_eq!(containing(&pools, "10.0.0.7").as_deref(), Some("a"));
            assert_eq!(containing(&pools, "10.0.1.7").as_deref(), Some("b"));
        }
        assert_eq!(pools.apply(aged(1, "a", &["10.0.3.0/24"])), Some([PoolName::new("a")].into()));
        assert_eq!(problem(&pools, "a"), None);
        assert_eq!(containing(&pools, "10.0.0.7"), None);
    }

    #[test]
    fn a_pool_comes_into_force_when_what_stood_in_its_way_goes() {
        let mut pools = Pools::default();
        pools.apply(aged(1, "a", &["10.0.0.0/24"]));
        pools.apply(aged(2, "b", &["10.0.0.0/25"]));
        pools.apply(aged(3, "c", &["10.0.0.0/26", "10.0.9.0/24"]));
        let changed = pools.delete(&PoolName::new("a"));
        assert_eq!(changed.into_iter().map(|name| name.to_string()).collect::<Vec<_>>(), ["a", "b"]);
        assert!(problem(&pools, "c").unwrap().contains("pool 'b'"));
        pools.apply(aged(2, "b", &["10.0.0.64-10.0.0.70"]));
        assert_eq!(containing(&pools, "10.0.9.1").as_deref(), Some("c"));
    }

    #[test]
    fn two_pools_share_a_network_by_excluding() {
        let mut pools = Pools::default();
        pools.apply(PoolSpec { excluded: vec!["10.0.0.128/25".into()], ..spec("a", &["10.0.0.0/24"]) });
        pools.apply(spec("b", &["10.0.0.128/25"]));
        assert_eq!(problem(&pools, "b"), None);
        assert_eq!(containing(&pools, "10.0.0.127").as_deref(), Some("a"));
        assert_eq!(containing(&pools, "10.0.0.128").as_deref(), Some("b"));
    }
}
