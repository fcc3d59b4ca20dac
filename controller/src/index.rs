//! What the watches have told, the newest version of each object, and whether each list has come.
//!
//! What must always hold: an object never goes back to an older version (a write's answer may overtake the watch), and
//! an object whose latest spec means nothing keeps its last good meaning.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::IpAddr,
};

use herald_ipam::{PoolName, PoolSpec, ServiceRef, Version};

use crate::{
    announce::LabelsByName,
    core::AllEndpoints,
    objects::{
        SpecError,
        address::Address,
        advertisement::{Advertisement, Meaning},
        pool::Pool,
        service::Service,
    },
};

/// All that is known.
#[derive(Debug, Default)]
pub struct Index {
    /// Services of type LoadBalancer and of our class.
    // Boxed, as a map has room for almost twice as many as it holds.
    pub services: BTreeMap<ServiceRef, Box<Service>>,
    /// IPAddressPools.
    pub pools: BTreeMap<PoolName, Pool>,
    /// L2Advertisements; `None` until their first list.
    pub advertisements: Option<BTreeMap<String, InForce>>,
    /// LoadBalancerIPs.
    pub addresses: BTreeMap<IpAddr, Address>,
    /// Namespaces and their labels.
    pub namespaces: LabelsByName,
    /// Nodes and their labels; `None` until their first list.
    pub nodes: Option<LabelsByName>,
    /// The addresses of those that have some.
    pub node_addresses: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Addresses that this process has written, or found when it began to lead, and the watch has not told of yet: a list
    /// that lacks them may be older.
    pub untold: BTreeSet<IpAddr>,
    /// Addresses that were given back, with a version by which their object was gone, until the watch has told of it as well:
    /// what it tells in between is history.
    pub released: BTreeMap<IpAddr, Version>,
    /// Nodes with endpoints, by Service and slice; `None` until their first list.
    pub endpoints: Option<AllEndpoints>,
    /// The newest resourceVersion seen on any object: what rule B18 makes revisions from.
    pub newest: Version,
}

/// An advertisement and the meaning that is in force.
#[derive(Clone, Debug)]
pub struct InForce {
    /// As written.
    pub advertisement: Advertisement,
    /// The last good meaning; `None` if there never was one.
    pub meaning: Option<Meaning>,
}

impl Index {
    /// Remembers that this version was seen.
    pub fn saw(&mut self, version: Version) {
        self.newest = self.newest.max(version);
    }

    /// Takes in a Service. Says whether it is news, not older than what is known.
    pub fn apply_service(&mut self, service: Service) -> bool {
        self.saw(service.version);
        newer(self.services.entry(service.owner.service.clone()), Box::new(service), |service| {
            service.version
        })
    }

    /// Takes in a pool; the same.
    pub fn apply_pool(&mut self, pool: Pool) -> bool {
        self.saw(pool.version);
        newer(self.pools.entry(pool.name.clone()), pool, |pool| pool.version)
    }

    /// A pool's spec as the allocator core takes it.
    pub fn meaning_of(&self, pool: &Pool) -> Result<PoolSpec, SpecError> {
        pool.meaning_among(self.node_addresses.values().flatten().copied())
    }

    /// Nodes' own addresses that a pool has to give, and whose they are.
    pub fn nodes_in(&self, pool: &Pool) -> BTreeMap<IpAddr, &str> {
        let given = pool.given();
        let all = self.node_addresses.iter();
        let own = all.flat_map(|(node, addresses)| addresses.iter().map(|address| (*address, node.as_str())));
        own.filter(|(address, _)| given.has(*address)).collect()
    }

    /// Takes in an address; the same.
    pub fn apply_address(&mut self, mut address: Address) -> bool {
        self.saw(address.version);
        // Most often of the same pool.
        if let Some((_, neighbour)) = self.addresses.range(..=address.address).next_back() {
            address.share_announce(neighbour);
        }
        if self.released.get(&address.address).is_some_and(|released| *released >= address.version) {
            return false;
        }
        newer(self.addresses.entry(address.address), address, |address| address.version)
    }

    /// Takes in an advertisement; the same.
    pub fn apply_advertisement(&mut self, advertisement: Advertisement) -> bool {
        self.saw(advertisement.version);
        let all = self.advertisements.get_or_insert_default();
        let before = all.get(&advertisement.name);
        if before.is_some_and(|before| before.advertisement.version > advertisement.version) {
            return false;
        }
        let meaning = match &advertisement.meaning {
            Ok(meaning) => Some(meaning.clone()),
            Err(_) => before.and_then(|before| before.meaning.clone()),
        };
        all.insert(advertisement.name.clone(), InForce { advertisement, meaning });
        true
    }

    /// Whether there is an advertisement that has no meaning yet: it came invalid, and what it said before is not known.
    pub fn has_unreadable_advertisement(&self) -> bool {
        self.advertisements.iter().flat_map(BTreeMap::values).any(|in_force| in_force.meaning.is_none())
    }

    /// The advertisements' meanings in force, if their list has come.
    pub fn meanings(&self) -> Option<impl Iterator<Item = &Meaning>> {
        Some(self.advertisements.as_ref()?.values().filter_map(|in_force| in_force.meaning.as_ref()))
    }
}

fn newer<K: Ord, V>(entry: Entry<'_, K, V>, value: V, version: impl Fn(&V) -> Version) -> bool {
    match entry {
        Entry::Vacant(place) => {
            place.insert(value);
            true
        }
        Entry::Occupied(mut known) => {
            let news = version(known.get()) <= version(&value);
            if news {
                known.insert(value);
            }
            news
        }
    }
}
