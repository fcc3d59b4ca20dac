//! The naive model: every address of every pool one by one, and what must be true of them once all is quiet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use herald_ipam::{AddressRange, Claim, Family, FamilyPolicy, PoolName, PoolSpec, Refusal, SharingScope};

use crate::world::{ApiService, World, may_share};

/// All addresses of a pool in the order in which they are given out.
pub(crate) fn members(spec: &PoolSpec) -> Vec<IpAddr> {
    let excluded: BTreeSet<IpAddr> = spec.excluded.iter().flat_map(|entry| expand(entry)).collect();
    let buggy = |address: &IpAddr| match address {
        IpAddr::V4(v4) => spec.avoid_buggy_ips && matches!(v4.octets()[3], 0 | 255),
        IpAddr::V6(_) => false,
    };
    let all = spec.addresses.iter().flat_map(|entry| expand(entry));
    all.filter(|address| !excluded.contains(address) && !buggy(address)).collect()
}

fn expand(entry: &str) -> Vec<IpAddr> {
    let range: AddressRange = entry.parse().unwrap();
    let mut addresses = vec![range.first()];
    while addresses.last() != Some(&range.last()) {
        addresses.push(match addresses.last().unwrap() {
            IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() + 1).into()),
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() + 1).into()),
        });
    }
    addresses
}

/// What is free in each pool, in order.
pub(crate) fn free(world: &World) -> BTreeMap<PoolName, Vec<IpAddr>> {
    let is_free = |address: &IpAddr| !world.lbips.contains_key(address);
    world
        .pools
        .iter()
        .map(|(name, spec)| (name.clone(), members(spec).into_iter().filter(is_free).collect()))
        .collect()
}

/// What must be true when nothing is under way any more.
pub(crate) fn check_quiet(world: &World) {
    let story = || world.story();
    for (service, api) in world.services.iter().filter(|(_, api)| api.balanced) {
        let lists = |it: &&IpAddr| world.lbips[it].services.contains(&api.request.owner);
        let has: BTreeSet<IpAddr> = world.lbips.keys().filter(lists).copied().collect();
        let shown: BTreeSet<IpAddr> = api.request.shown.iter().copied().collect();
        if matches!(api.refusal.as_deref(), Some(Refusal::AdoptionRefused { .. })) {
            assert!(has.is_empty(), "{service} has {has:?} though its adoption was refused\n{}", story());
            continue;
        }
        // An address put there by hand stays until there is one of ours.
        if !(has.is_empty() && shown.iter().all(|address| api.by_hand.contains(address))) {
            assert_eq!(shown, has, "{service} shows what it has\n{}", story());
        }
        if let Some(missing) = could_have(world, api, &has) {
            panic!("{service} has {has:?} and could have {missing}\n{}", story());
        }
    }
    for (address, record) in &world.lbips {
        let alive = |owner: &herald_ipam::Owner| {
            world.services.get(&owner.service).is_some_and(|api| api.balanced && api.request.owner == *owner)
        };
        assert!(record.services.iter().all(alive), "{address} has a dead owner: {record:?}\n{}", story());
        assert!(!record.services.is_empty() || record.claim.is_some(), "{address} is lost\n{}", story());
    }
    for (name, spec) in &world.pools {
        let members = members(spec);
        let of = |family| members.iter().filter(move |it| Family::of(**it) == family);
        let assigned = |family| {
            let used = |it: &&IpAddr| world.lbips.get(it).is_some_and(|record| !record.services.is_empty());
            i64::try_from(of(family).filter(used).count()).unwrap()
        };
        let available =
            |family| i64::try_from(of(family).filter(|it| !world.lbips.contains_key(it)).count()).unwrap();
        let counts = world.statuses[name].counts;
        assert_eq!(
            (counts.assigned_v4, counts.assigned_v6, counts.available_v4, counts.available_v6),
            (assigned(Family::V4), assigned(Family::V6), available(Family::V4), available(Family::V6)),
            "counts of {name}\n{}",
            story()
        );
    }
}

/// Whether everybody who has the address would share it with this Service.
fn joinable(world: &World, api: &ApiService, address: IpAddr) -> bool {
    let Some(record) = world.lbips.get(&address) else { return false };
    let mine = &api.request;
    let Some(key) = mine.wanted.as_ref().ok().and_then(|wanted| wanted.sharing.as_ref()) else {
        return false;
    };
    let open = world
        .pools
        .values()
        .any(|spec| spec.sharing_scope == SharingScope::Cluster && members(spec).contains(&address));
    let claimed = record.claim.as_ref().is_none_or(|claim| claim.admits(&mine.owner.service, Some(key)));
    let willing = |owner: &herald_ipam::Owner| {
        let other = world.services.get(&owner.service).filter(|it| it.balanced && it.request.owner == *owner);
        other.is_some_and(|other| may_share(mine, &other.request, open))
    };
    !record.services.is_empty() && claimed && record.services.iter().all(willing)
}

/// Whether a namespace may have one more address of a pool, if it is one more.
fn within_limit(world: &World, pool: &PoolName, address: IpAddr, namespace: &str) -> bool {
    let Some(limit) = world.pools[pool].limit_per_namespace else { return true };
    let counts = |it: &IpAddr| {
        world.lbips.get(it).is_some_and(|record| match &record.claim {
            Some(Claim::Service(service)) if record.services.is_empty() => &*service.namespace == namespace,
            Some(Claim::Key { namespace: claimed, .. }) if record.services.is_empty() => {
                &**claimed == namespace
            }
            _ => record.services.iter().any(|owner| &*owner.service.namespace == namespace),
        })
    };
    let of_family =
        members(&world.pools[pool]).into_iter().filter(|it| Family::of(*it) == Family::of(address));
    counts(&address) || of_family.filter(counts).count() < usize::try_from(limit).unwrap()
}

/// Something a Service asks for, does not have, and could have.
fn could_have(world: &World, api: &ApiService, has: &BTreeSet<IpAddr>) -> Option<String> {
    let wanted = api.request.wanted.as_ref().ok()?;
    let families: Vec<Family> = api.request.families.wanted().collect();
    let free = free(world);
    let namespace = &api.request.owner.service.namespace;
    let of = |pool: &PoolName, family: Family| {
        let of_pool = |address: &IpAddr| Family::of(*address) == family;
        let lowest = free[pool].iter().copied().find(of_pool);
        let shared =
            || members(&world.pools[pool]).into_iter().filter(of_pool).find(|it| joinable(world, api, *it));
        let allowed = |address: &IpAddr| within_limit(world, pool, *address, namespace);
        lowest.filter(allowed).or_else(|| shared().filter(allowed))
    };
    if let Some(address) = wanted.addresses.iter().next() {
        let (pool, _) = world.pools.iter().find(|(_, spec)| members(spec).contains(&address))?;
        let there = free[pool].contains(&address) || joinable(world, api, address);
        let there = there && within_limit(world, pool, address, namespace);
        let alone = wanted.addresses.iter().count() == 1 && families.contains(&Family::of(address));
        let right = wanted.pool.as_ref().is_none_or(|asked| asked == pool);
        let enough = families.len() == 1 || api.request.families.policy == FamilyPolicy::PreferDualStack;
        return (alone && right && enough && there && !has.contains(&address)).then(|| format!("{address}"));
    }
    let may = |name: &&PoolName| match &wanted.pool {
        Some(asked) => asked == *name,
        None => world.pools[*name].auto_assign,
    };
    for pool in free.keys().filter(may) {
        let offers: Vec<IpAddr> = families.iter().filter_map(|family| of(pool, *family)).collect();
        let all = offers.len() == families.len();
        let primary = offers.first().is_some_and(|first| Family::of(*first) == families[0]);
        let prefers = api.request.families.policy == FamilyPolicy::PreferDualStack;
        if has.is_empty() && (all || (prefers && primary)) {
            return Some(format!("{offers:?} of {pool}"));
        }
    }
    // The second address comes from the pool of the first.
    let first = has.iter().next().filter(|_| has.len() == 1 && families.len() == 2)?;
    let (pool, _) = world.pools.iter().find(|(_, spec)| members(spec).contains(first))?;
    let asked = wanted.pool.as_ref().is_none_or(|asked| asked == pool);
    let second = families.iter().filter(|_| asked).find(|family| **family != Family::of(*first))?;
    of(pool, *second).map(|address| format!("{address} as well"))
}
