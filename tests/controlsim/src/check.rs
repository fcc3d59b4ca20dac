//! What must hold at every write, judged on the API server's own state, never on a controller's.
//!
//! Of each write of a controller:
//! - a Service comes to show an address only while its LoadBalancerIP lists it, and beside nobody with whom it may not
//!   share; a LoadBalancerIP comes to list several only if they may share, and whom its claimRef admits;
//! - a Service that shows an address is not left without the LoadBalancerIP's word for it;
//! - an address leaves a status only if the Service's own request no longer accepts it;
//! - a revision is greater than every earlier one of the address; a reservation is never deleted.
//!
//! While two lead, or a request comes late, the last two may fail for a moment, and are only counted: both may choose an
//! address for one Service, one shows its own, and the other takes it back; and who had slept creates by the revisions it
//! knew. What a Service shows is its own even then (rule B28).
//!
//! "May share" is judged generously: by any spec that the two ever had, as a user may edit one while it is joined.
//! An address that somebody laid hands on (deleted its LoadBalancerIP, edited its users, wrote or took it in a
//! status) is exempt here from then on, and judged when everything is quiet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;

use crate::Moment;
use crate::api::{Actor, Api, Asked, Commit, Key, Kind, Object, address_of, condition, listed, shown};
use crate::run::Measured;
use crate::users::Flavour;
use crate::wish::{Sharing, Wish, may_share};

/// What is remembered of a Service, also when it is gone.
#[derive(Debug)]
struct Life {
    key: Key,
    sharing: Vec<Sharing>,
}

/// The checker.
#[derive(Debug, Default)]
pub(crate) struct Check {
    pub(crate) flavour: Flavour,
    pub(crate) measured: Measured,
    lives: BTreeMap<String, Life>,
    /// Addresses that somebody laid hands on.
    hands: BTreeSet<IpAddr>,
    revisions: BTreeMap<IpAddr, i64>,
    /// Until then writes of two leaders may meet.
    pub(crate) contested: Moment,
    /// What is being written comes from a request that was long on its way.
    pub(crate) belated: bool,
    /// Whether a pool ever let all namespaces share.
    open: bool,
    /// Whether somebody was told in other words, of which events tell as well.
    retold: bool,
    /// While nothing is to be written: why.
    quiet: Option<&'static str>,
    /// Requests meanwhile, of either controller, but for the Lease.
    asked: BTreeMap<String, u32>,
    /// A finalizer that nobody takes away.
    pub(crate) held: Option<Key>,
    violations: Vec<String>,
}

impl Check {
    /// Something is wrong.
    pub(crate) fn violation(&mut self, now: Moment, text: &str) {
        self.violations.push(format!("at {:.3} s: {text}", now.as_secs_f64()));
    }

    pub(crate) fn into_violations(self) -> Vec<String> {
        self.violations
    }

    /// From here on controllers have nothing to write.
    pub(crate) fn begin_quiet(&mut self, why: &'static str) {
        self.quiet = Some(why);
        self.asked.clear();
        self.retold = false;
    }

    /// What was asked for in it, and how often.
    pub(crate) fn end_quiet(&mut self) -> BTreeMap<String, u32> {
        self.quiet = None;
        std::mem::take(&mut self.asked)
    }

    /// A request was answered, other than by a watch.
    pub(crate) fn answered(&mut self, asked: &Asked, code: u16) {
        if asked.path.contains("/leases") {
            return;
        }
        if asked.writes() {
            self.measured.writes += 1;
            self.measured.conflicts += u64::from(code == 409);
        }
        if self.quiet.is_some() {
            let (path, _) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
            *self.asked.entry(format!("{} {path}", asked.method)).or_default() += 1;
        }
    }

    /// Whether somebody laid hands on an address.
    pub(crate) fn is_handled(&self, address: IpAddr) -> bool {
        self.hands.contains(&address)
    }

    /// Something was written. Gives what is wrong with it.
    pub(crate) fn commit(&mut self, now: Moment, api: &Api, commit: &Commit) -> Vec<String> {
        let mut wrong = Vec::new();
        self.remember(commit);
        if let Actor::Controller(who) = commit.actor {
            let mut unasked = Vec::new();
            match commit.key.kind {
                Kind::Service => self.status_written(api, commit, &mut wrong, &mut unasked),
                Kind::Address => self.address_written(api, commit, &mut wrong, &mut unasked),
                _ => {}
            }
            if now < self.contested || self.belated {
                self.measured.contested += u64::try_from(unasked.len()).unwrap_or_default();
            } else {
                wrong.append(&mut unasked);
            }
            if self.quiet.is_some() && (is_retold(commit) || is_forgotten(commit) || self.is_refiled(commit))
            {
                self.measured.retold += 1;
                self.retold = true;
            } else if self.retold && commit.key.kind == Kind::Event {
                // An event tells of it, too.
            } else if let Some(why) = self.quiet
                && commit.key.kind != Kind::Lease
            {
                wrong.push(format!("{who} writes {why}: {}", crate::trace::commit(commit)));
            }
        }
        for text in &wrong {
            self.violation(now, text);
        }
        wrong
    }

    /// Whether a Service only names another pool, as somebody has written on its LoadBalancerIP that no pool contains.
    fn is_refiled(&self, commit: &Commit) -> bool {
        let (Some(before), Some(after)) = (&commit.before, &commit.after) else { return false };
        let shown = shown(&after.value);
        commit.key.kind == Kind::Service
            && before.value["status"]["loadBalancer"] == after.value["status"]["loadBalancer"]
            && before.value["metadata"]["annotations"] != after.value["metadata"]["annotations"]
            && shown.iter().any(|address| self.is_handled(*address))
    }

    fn remember(&mut self, commit: &Commit) {
        let by_hand = commit.actor == Actor::User;
        match commit.key.kind {
            Kind::Service => {
                let Some(after) = &commit.after else { return };
                let sharing = Wish::of(&after.value).sharing;
                let key = commit.key.clone();
                let life =
                    self.lives.entry(after.uid.clone()).or_insert_with(|| Life { key, sharing: Vec::new() });
                if life.sharing.last() != Some(&sharing) {
                    life.sharing.push(sharing);
                }
                if by_hand && after.is_load_balancer() {
                    let before =
                        commit.before.as_ref().map(|before| shown(&before.value)).unwrap_or_default();
                    let after = shown(&after.value);
                    self.hands.extend(before.iter().filter(|address| !after.contains(address)));
                    self.hands.extend(after.iter().filter(|address| !before.contains(address)));
                }
            }
            Kind::Address => {
                let Some(address) = address_of(&commit.key) else { return };
                let users = |object: &Option<Arc<Object>>| {
                    object.as_ref().map(|it| listed(&it.value)).unwrap_or_default()
                };
                let ends =
                    |object: &Option<Arc<Object>>| object.as_ref().is_none_or(|object| object.terminating);
                let revision = |object: &Option<Arc<Object>>| {
                    object.as_ref().map(|it| it.value["spec"]["revision"].clone())
                };
                let laid = users(&commit.before) != users(&commit.after)
                    || revision(&commit.before) != revision(&commit.after)
                    || (ends(&commit.after) && !users(&commit.before).is_empty());
                if commit.actor != Actor::User && !matches!(commit.actor, Actor::Cluster) {
                    return;
                }
                if laid && commit.before.is_some() {
                    self.hands.insert(address);
                }
            }
            Kind::Pool => {
                let open = |object: &Arc<Object>| object.value["spec"]["sharingScope"] == "Cluster";
                self.open |= commit.after.as_ref().is_some_and(open);
            }
            _ => {}
        }
    }

    /// Whether two Services may share, by any spec they ever had.
    pub(crate) fn ever_shared(&self, one: &str, other: &str) -> bool {
        let of = |uid: &str| self.lives.get(uid).map(|life| life.sharing.as_slice()).unwrap_or_default();
        of(one).iter().any(|one| of(other).iter().any(|other| may_share(one, other, self.open)))
    }

    fn status_written(
        &mut self,
        api: &Api,
        commit: &Commit,
        wrong: &mut Vec<String>,
        unasked: &mut Vec<String>,
    ) {
        let (Some(before), Some(after)) = (&commit.before, &commit.after) else { return };
        let (was, is) = (shown(&before.value), shown(&after.value));
        for address in is.iter().filter(|address| !was.contains(address) && !self.is_handled(**address)) {
            self.comes_to_show(api, &commit.key, &after.uid, *address, wrong);
        }
        let wish = Wish::of(&after.value);
        for address in was.iter().filter(|address| !is.contains(address) && !self.is_handled(**address)) {
            let record = lbip(api, *address);
            let pool = record.and_then(|record| record.value["spec"]["pool"].as_str());
            if after.is_load_balancer() && wish.accepts(api, *address, pool) {
                unasked.push(format!("{} loses {address}, and did not ask for that", commit.key.text()));
            }
        }
    }

    fn comes_to_show(&self, api: &Api, key: &Key, uid: &str, address: IpAddr, wrong: &mut Vec<String>) {
        let record = lbip(api, address).map(|record| listed(&record.value)).unwrap_or_default();
        if !record.iter().any(|listed| listed == uid) {
            wrong.push(format!(
                "{} comes to show {address}, whose LoadBalancerIP does not list it",
                key.text()
            ));
        }
        for (other, service) in api.all(Kind::Service) {
            let shows = service.is_load_balancer() && shown(&service.value).contains(&address);
            if other != key && shows && !self.ever_shared(uid, &service.uid) {
                wrong.push(format!("{address} has two owners: {} and {}", key.text(), other.text()));
            }
        }
    }

    fn address_written(
        &mut self,
        api: &Api,
        commit: &Commit,
        wrong: &mut Vec<String>,
        unasked: &mut Vec<String>,
    ) {
        let Some(address) = address_of(&commit.key) else { return };
        let users =
            |object: &Option<Arc<Object>>| object.as_ref().map(|it| listed(&it.value)).unwrap_or_default();
        let (was, is) = (users(&commit.before), users(&commit.after));
        let handled = self.is_handled(address);
        for left in was.iter().filter(|uid| !is.contains(uid) && !handled) {
            let shows = api.all(Kind::Service).find(|(_, service)| {
                service.uid == **left
                    && service.is_load_balancer()
                    && shown(&service.value).contains(&address)
            });
            if let Some((key, _)) = shows {
                wrong.push(format!("{address} is taken from {}, which shows it", key.text()));
            }
        }
        for joined in is.iter().filter(|uid| !was.contains(uid) && !handled) {
            for other in is.iter().filter(|other| *other != joined && is_live(api, other)) {
                if !self.ever_shared(joined, other) {
                    wrong.push(format!(
                        "{address} is given to {joined} beside {other}, and they may not share"
                    ));
                }
            }
            if let Some(claim) = commit.after.as_ref().map(|after| &after.value["spec"]["claimRef"])
                && !self.admits(claim, joined)
            {
                wrong.push(format!("{address} is given to {joined}, and reserved for {claim}"));
            }
        }
        let reserved =
            commit.before.as_ref().is_some_and(|before| !before.value["spec"]["claimRef"].is_null());
        if commit.after.is_none() && reserved {
            wrong.push(format!("the reservation of {address} is deleted"));
        }
        self.revision_written(address, commit, unasked);
    }

    fn revision_written(&mut self, address: IpAddr, commit: &Commit, unasked: &mut Vec<String>) {
        let Some(after) = &commit.after else { return };
        let (before, after) =
            (commit.before.as_ref().map(|before| &before.value["spec"]), &after.value["spec"]);
        let revision = after["revision"].as_i64().unwrap_or_default();
        let handled = self.is_handled(address);
        let known = self.revisions.entry(address).or_insert(-1);
        let says = |spec: &Value| ["pool", "services", "announce"].map(|part| spec[part].clone());
        let same = before.is_some_and(|before| says(before) == says(after));
        if !same && revision <= *known && !handled {
            unasked.push(format!("{address} gets revision {revision} after {known}"));
        }
        *known = revision.max(*known);
    }

    fn admits(&self, claim: &Value, uid: &str) -> bool {
        let Some(life) = self.lives.get(uid).filter(|_| !claim.is_null()) else { return true };
        let named = claim["name"].as_str().is_none_or(|name| name == life.key.name);
        let keyed = claim["sharingKey"]
            .as_str()
            .is_none_or(|key| life.sharing.iter().any(|sharing| sharing.key.as_deref() == Some(key)));
        claim["namespace"] == life.key.namespace.as_str() && named && keyed
    }
}

/// The LoadBalancerIP of an address.
pub(crate) fn lbip(api: &Api, address: IpAddr) -> Option<&Arc<Object>> {
    api.get(&Key::of(Kind::Address, "", &herald_crds::name_of_address(address)))
}

/// Whether what somebody did to an address is held against nobody any more: that is forgotten after ten minutes.
fn is_forgotten(commit: &Commit) -> bool {
    let (Some(before), Some(after)) = (&commit.before, &commit.after) else { return false };
    let problem = |object: &Arc<Object>| {
        condition(&object.value, "Problem").is_some_and(|problem| problem["status"] == "True")
    };
    commit.key.kind == Kind::Address
        && before.value["spec"] == after.value["spec"]
        && problem(before)
        && !problem(after)
}

/// Whether a Service that does not get what it asks for goes on without it, and is only told why in other words: why is
/// looked at anew when the Service is, and not whenever something changes that would not help it.
fn is_retold(commit: &Commit) -> bool {
    let waits = |object: &Option<Arc<Object>>| {
        let object = object.as_ref()?;
        let allocated = condition(&object.value, "heraldlb.io/Allocated")?;
        let unmet = allocated["status"] == "False" || allocated["reason"] == "RequestUnmet";
        unmet.then(|| (allocated["status"].clone(), shown(&object.value)))
    };
    let before = waits(&commit.before);
    commit.key.kind == Kind::Service && before.is_some() && before == waits(&commit.after)
}

fn is_live(api: &Api, uid: &str) -> bool {
    api.all(Kind::Service).any(|(_, service)| service.uid == uid && service.is_load_balancer())
}
