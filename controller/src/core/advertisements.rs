//! L2Advertisements: what they select, and a condition on each that says whether that exists.

use std::time::Duration;

use herald_ipam::{Labels, PoolName};
use herald_runtime::watch::Change;

use super::{Core, RETRY_MAX, Wake};
use crate::{
    announce::LISTED,
    conditions::{condition, is_shown},
    index::{InForce, Index},
    job::Job,
    objects::advertisement::{Advertisement, Meaning},
    reasons::AdvertisementReady,
};

/// The condition's type.
const READY: &str = "Ready";
/// How long a deleted advertisement stays in force where no other is about its pools. Whoever replaces one by another
/// deletes it first, and for that moment its pools' addresses must not be announced from everywhere.
pub(super) const DEPARTED: Duration = Duration::from_secs(30);

impl Core {
    pub(super) fn advertisements_changed(&mut self, change: Change<Advertisement>) {
        match change {
            Change::Replaced(list) => {
                let known = self.index.advertisements.get_or_insert_default().keys().cloned();
                let gone: Vec<String> =
                    known.filter(|name| !list.iter().any(|listed| &listed.name == name)).collect();
                for name in gone {
                    self.depart(&name);
                }
                for advertisement in list {
                    self.index.apply_advertisement(advertisement);
                }
            }
            Change::Applied(advertisement) => {
                let known = self.index.advertisements.as_ref().and_then(|all| all.get(&advertisement.name));
                let same = known.is_some_and(|known| known.advertisement.meaning == advertisement.meaning);
                if !same && let Err(error) = &advertisement.meaning {
                    tracing::warn!(advertisement = advertisement.name, "{error}");
                }
                self.index.apply_advertisement(advertisement);
                // Our own writes of its status come back as well, and decide nothing.
                if same {
                    self.gather(Wake::Advertisements);
                    return;
                }
            }
            Change::Deleted(advertisement) => {
                self.index.saw(advertisement.version);
                self.depart(&advertisement.name);
            }
        }
        self.candidates_changed();
        self.announce_changed();
    }

    fn depart(&mut self, name: &str) {
        let gone = self.index.advertisements.as_mut().and_then(|all| all.remove(name));
        if let Some(meaning) = gone.and_then(|gone| gone.meaning) {
            self.departed.insert(name.to_owned(), (self.now.monotonic, meaning));
            self.wake(DEPARTED, Wake::Announce);
        }
    }

    /// Whether there was one to forget.
    pub(super) fn forget_departed(&mut self) -> bool {
        let (now, before) = (self.now.monotonic, self.departed.len());
        self.departed.retain(|_, (since, _)| now.saturating_duration_since(*since) < DEPARTED);
        self.departed.len() < before
    }

    /// Whether an address of one pool lies in another by now that no advertisement selects yet, though one may be about
    /// the former: a pool that is renamed is deleted and made anew, and its advertisement edited last. What is announced
    /// stays so until then (rule B25).
    pub(super) fn is_being_renamed(&self, former: &PoolName, pool: &PoolName) -> bool {
        let none = Labels::default();
        let labels = self.index.pools.get(pool).map_or(&none, |pool| &pool.labels);
        let selected = self.meanings_for(pool, labels).is_none_or(|meanings| !meanings.is_empty());
        let all = self.index.meanings().into_iter().flatten();
        let mut all = all.chain(self.departed.values().map(|(_, meaning)| meaning));
        let about_former = |meaning: &Meaning| {
            meaning.pools.iter().any(|name| name == former.as_str()) || !meaning.pool_selectors.is_empty()
        };
        former != pool && !selected && !self.index.pools.contains_key(former) && all.any(about_former)
    }

    /// The meanings that decide about a pool, or `None` while they are not known: not listed yet, or none selects the
    /// pool and there is one that can't be read, which may be the one that did (no advertisement at all would mean
    /// every node). One that was deleted a moment ago still decides where no other does.
    pub(super) fn meanings_for(&self, pool: &PoolName, labels: &Labels) -> Option<Vec<&Meaning>> {
        let about = |meaning: &&Meaning| meaning.selects_pool(pool.as_str(), labels);
        let mut deciding: Vec<&Meaning> = self.index.meanings()?.filter(about).collect();
        if deciding.is_empty() {
            deciding = self.departed.values().map(|(_, meaning)| meaning).filter(about).collect();
        }
        let unsure = deciding.is_empty() && self.index.has_unreadable_advertisement();
        (!unsure).then_some(deciding)
    }

    /// Writes the conditions of those that say something else.
    pub(super) fn check_advertisements(&mut self) {
        let now = self.now.wall;
        let Some(all) = self.index.advertisements.as_ref().filter(|_| self.ipam.is_open()) else {
            self.gather(Wake::Advertisements);
            return;
        };
        let mut jobs = Vec::new();
        let mut again = false;
        for in_force in all.values() {
            let InForce { advertisement, .. } = in_force;
            let Some(ready) = ready(in_force, &self.index) else { continue };
            let wanted = condition(READY, &ready, advertisement.generation, &advertisement.conditions, now);
            if is_shown(READY, Some(&wanted), &advertisement.conditions) {
                continue;
            }
            if self.advertisements_busy.insert(advertisement.name.clone()) {
                jobs.push(Job::Advertisement {
                    advertisement: Box::new(advertisement.clone()),
                    condition: Box::new(wanted),
                });
            } else {
                again = true;
            }
        }
        self.jobs.extend(jobs);
        if again {
            self.gather(Wake::Advertisements);
        }
    }

    pub(super) fn advertisement_written(&mut self, name: &str, advertisement: Option<Box<Advertisement>>) {
        self.advertisements_busy.remove(name);
        // If nothing was written, somebody else was quicker, or it is gone: the watch tells which. Or the server would
        // not: it is asked again later.
        let Some(advertisement) = advertisement else {
            self.gather_after(RETRY_MAX, Wake::Advertisements);
            return;
        };
        // The answer may come after the news that it was deleted.
        let known = self.index.advertisements.as_ref().and_then(|all| all.get(name));
        if known.is_some_and(|known| known.advertisement.uid == advertisement.uid) {
            self.index.apply_advertisement(*advertisement);
        }
    }
}

/// What to say of an advertisement, or `None` while the nodes it selects among are unknown.
fn ready(in_force: &InForce, index: &Index) -> Option<AdvertisementReady> {
    let meaning = match &in_force.advertisement.meaning {
        Ok(meaning) => meaning,
        Err(error) => return Some(AdvertisementReady::Meaningless(error.clone())),
    };
    let exists = |name: &&String| index.pools.keys().any(|pool| pool.as_str() == name.as_str());
    let unknown: Vec<String> = meaning.pools.iter().filter(|name| !exists(name)).cloned().collect();
    if !unknown.is_empty() {
        return Some(AdvertisementReady::UnknownPools(unknown));
    }
    let selected = |pool: &crate::objects::pool::Pool| meaning.selects_pool(pool.name.as_str(), &pool.labels);
    if !meaning.pool_selectors.is_empty() && !index.pools.values().any(selected) {
        return Some(AdvertisementReady::NoPool);
    }
    if meaning.node_selectors.is_empty() {
        return Some(AdvertisementReady::Yes);
    }
    Some(match index.nodes.as_ref()?.values().filter(|labels| meaning.selects_node(labels)).count() {
        0 => AdvertisementReady::NoNode,
        count if count > LISTED => AdvertisementReady::TooManyNodes(count),
        _ => AdvertisementReady::Yes,
    })
}
