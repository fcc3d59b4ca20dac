//! What must hold when everything is quiet: nobody shares who may not, nothing leaks, whoever can have an address has
//! one, everybody else is told why not; and nothing is written any more, not even after a restart.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use crate::api::{Key, Kind, Object, address_of, condition, listed, shown};
use crate::check::lbip;
use crate::network::Weather;
use crate::process::Process;
use crate::wish::{Wish, addresses, contains};
use crate::world::{Happening, World, name};

const ALLOCATED: &str = "heraldlb.io/Allocated";
/// Requests a minute that are no loop: what is refused for good is tried again within a minute.
const ASKED_A_MINUTE: u32 = 30;
/// And so many beside them: a process that starts lists everything, and reads who may have gone meanwhile.
const ASKED_AT_A_START: u32 = 80;

impl World {
    /// Nothing more happens to anybody, and everybody runs.
    pub(crate) fn calm_down(&mut self) {
        self.clear_plans();
        self.weather = Weather::FAIR;
        self.keep_one_finalizer();
        self.finalize();
        self.cloud_stops();
        for index in 0..self.seats.len() {
            let Some(seat) = self.seats.get_mut(index) else { continue };
            let (life, cut) = (seat.life, seat.cut);
            if let Some(cut) = cut {
                self.heal(index, cut);
            }
            self.wake(index, life);
            let runs =
                self.seats.get(index).is_some_and(|seat| seat.process.as_ref().is_some_and(Process::stays));
            if !runs {
                self.start(index);
            }
        }
        self.committed();
        self.trace.event(self.now, "world", || "calms down".to_owned());
    }

    /// Now and then somebody's finalizer is never taken away.
    fn keep_one_finalizer(&mut self) {
        let mut all = self.api.all(Kind::Address);
        let held =
            all.find(|(_, it)| !it.value["metadata"]["finalizers"].is_null()).map(|(key, _)| key.clone());
        drop(all);
        self.check.held = held.filter(|_| self.dice.chance(0.7));
        if self.check.held.is_none() && self.dice.chance(0.1) {
            self.check.held = self.hold_one();
        }
    }

    /// For this long controllers must write nothing but the Lease.
    pub(crate) fn stay_quiet(&mut self, time: Duration, why: &'static str) {
        self.trace.event(self.now, "world", || format!("nothing is to be written: {why}"));
        self.check.begin_quiet(why);
        self.run_until(self.now + time);
        let asked = self.check.end_quiet();
        let minutes = u32::try_from(time.as_secs() / 60 + 1).unwrap_or(u32::MAX);
        let total: u32 = asked.values().sum();
        if total > ASKED_AT_A_START + ASKED_A_MINUTE * minutes {
            let most = asked.iter().max_by_key(|(_, times)| **times);
            let most = most.map(|(what, times)| format!("{times} times {what}")).unwrap_or_default();
            let text = format!("{total} requests in {time:?} {why}, {most}");
            self.trace.event(self.now, "BROKEN", || text.clone());
            self.check.violation(self.now, &text);
        }
    }

    /// Both controllers anew. Gives whether nothing is to be written then: of a spec that is not in force the former
    /// controllers may have known an earlier one that was.
    pub(crate) fn restart_all(&mut self) -> bool {
        let in_force = self
            .api
            .all(Kind::Pool)
            .all(|(_, pool)| condition(&pool.value, "Ready").is_some_and(|ready| ready["status"] == "True"));
        for seat in 0..self.seats.len() {
            self.start(seat);
        }
        in_force
    }

    /// Judges what there is.
    pub(crate) fn judge(&mut self) {
        let mut wrong = Vec::new();
        let (mut addresses, mut pending) = (0, 0);
        for (key, service) in self.api.all(Kind::Service) {
            self.judge_service(key, service, &mut wrong);
            let shown = shown(&service.value).len();
            addresses += u64::try_from(shown).unwrap_or_default();
            pending += u64::from(shown == 0 && service.is_load_balancer());
        }
        (self.check.measured.addresses, self.check.measured.pending) = (addresses, pending);
        for (key, record) in self.api.all(Kind::Address) {
            self.judge_address(key, &record.value, &mut wrong);
        }
        self.judge_controllers(&mut wrong);
        for text in wrong {
            self.trace.event(self.now, "BROKEN", || text.clone());
            self.check.violation(self.now, &text);
        }
    }

    fn judge_controllers(&self, wrong: &mut Vec<String>) {
        let leaders =
            self.seats.iter().filter(|seat| seat.process.as_ref().is_some_and(Process::leads)).count();
        if leaders != 1 {
            wrong.push(format!("{leaders} controllers lead"));
        }
        for (index, seat) in self.seats.iter().enumerate() {
            let reasons =
                seat.process.as_ref().map(|process| process.readiness.reasons()).unwrap_or_default();
            if !reasons.is_empty() {
                wrong.push(format!("{} is not ready: {reasons:?}", name(index)));
            }
        }
    }

    fn judge_service(&self, key: &Key, service: &Object, wrong: &mut Vec<String>) {
        let value = &service.value;
        let shows = shown(value);
        let allocated = condition(value, ALLOCATED);
        if !service.is_load_balancer() {
            return;
        }
        let Some(allocated) = allocated else {
            wrong.push(format!("{} has no condition Allocated", key.text()));
            return;
        };
        let reason = allocated["reason"].as_str().unwrap_or_default();
        let message = allocated["message"].as_str().unwrap_or_default();
        if reason.is_empty() || message.is_empty() || reason == "Pending" {
            wrong.push(format!("{} is told {reason:?}: {message:?}", key.text()));
        }
        let has = allocated["status"] == "True";
        // What somebody else has put there stays, and is not Herald's (rules B2 and B21).
        let strange = shows.iter().any(|address| self.check.is_handled(*address));
        if has && shows.is_empty() || !has && !shows.is_empty() && !strange {
            wrong.push(format!(
                "{} shows {shows:?} and has Allocated={}: {reason}",
                key.text(),
                allocated["status"]
            ));
        }
        for address in &shows {
            let lists =
                lbip(&self.api, *address).is_some_and(|record| listed(&record.value).contains(&service.uid));
            if has && !lists {
                wrong.push(format!("{} shows {address}, whose LoadBalancerIP does not list it", key.text()));
            }
            for (other, rival) in self.api.all(Kind::Service).filter(|(other, _)| *other > key) {
                let both = rival.is_load_balancer()
                    && shown(&rival.value).contains(address)
                    && !self.check.ever_shared(&service.uid, &rival.uid)
                    && has
                    && condition(&rival.value, ALLOCATED)
                        .is_some_and(|condition| condition["status"] == "True");
                if both {
                    wrong.push(format!("at the end {} and {} both show {address}", key.text(), other.text()));
                }
            }
        }
        if shows.is_empty()
            && let Some((pool, free)) = self.could_have(&Wish::of(value))
        {
            wrong
                .push(format!("{} waits ({reason}: {message}), though {pool} has {free:?} free", key.text()));
        }
    }

    /// A pool that could give what is asked for without any doubt.
    fn could_have(&self, wish: &Wish) -> Option<(String, Vec<IpAddr>)> {
        self.api.all(Kind::Pool).find_map(|(key, pool)| {
            let found = self.could_give(wish, &key.name, pool)?;
            Some((key.name.clone(), found))
        })
    }

    fn could_give(&self, wish: &Wish, name: &str, pool: &Object) -> Option<Vec<IpAddr>> {
        let spec = &pool.value["spec"];
        let asked = wish.pool.as_deref() == Some(name) || wish.pins.len() == 1;
        let ready = condition(&pool.value, "Ready").is_some_and(|ready| {
            ready["status"] == "True" && ready["observedGeneration"] == pool.value["metadata"]["generation"]
        });
        let refuses = !ready
            || !spec["limitPerNamespace"].is_null()
            || !self.is_open_to(&spec["serviceAllocation"], &wish.namespace)
            || wish.pool.as_deref().is_some_and(|asked| asked != name)
            || (spec["autoAssign"] == false && !asked)
            || wish.pins.len() > 1;
        if refuses {
            return None;
        }
        let free = |address: &IpAddr| lbip(&self.api, *address).is_none();
        let families =
            if wish.both_or_nothing { wish.families.as_slice() } else { wish.families.get(..1)? };
        if let [pin] = wish.pins.as_slice() {
            let alone = families == [pin.is_ipv6()] && free(pin) && contains(&pool.value, *pin);
            return alone.then(|| vec![*pin]);
        }
        families
            .iter()
            .map(|v6| addresses(&pool.value, *v6).into_iter().find(|address| free(address)))
            .collect()
    }

    fn is_open_to(&self, allocation: &Value, namespace: &str) -> bool {
        let Some(object) = self.api.get(&Key::of(Kind::Namespace, "", namespace)) else { return false };
        let team = &object.value["metadata"]["labels"]["team"];
        let named = allocation["namespaces"].as_array();
        let selected = allocation["namespaceSelectors"].as_array();
        if named.is_none() && selected.is_none() {
            return true;
        }
        named.into_iter().flatten().any(|name| name == namespace)
            || selected.into_iter().flatten().any(|selector| selector["matchLabels"]["team"] == *team)
    }

    fn judge_address(&self, key: &Key, record: &Value, wrong: &mut Vec<String>) {
        let Some(address) = address_of(key) else { return };
        if self.check.held.as_ref() == Some(key) {
            return;
        }
        let users = listed(record);
        // Emptied by hand it stays until somebody deletes it: nobody can tell whom it was meant for.
        if users.is_empty() && record["spec"]["claimRef"].is_null() && !self.check.is_handled(address) {
            wrong.push(format!("{address} leaks: nobody uses it, and it is not reserved"));
        }
        if !record["metadata"]["deletionTimestamp"].is_null() {
            wrong.push(format!("{address} is still being deleted"));
        }
        for uid in users {
            let user = self.api.all(Kind::Service).find(|(_, service)| service.uid == uid);
            let Some((user, service)) = user.filter(|(_, service)| service.is_load_balancer()) else {
                wrong.push(format!("{address} leaks: its user {uid} is gone"));
                continue;
            };
            if !shown(&service.value).contains(&address) && !self.check.is_handled(address) {
                wrong.push(format!("{address} leaks: its user {} does not show it", user.text()));
            }
        }
    }

    /// Nothing of the world's own goes on.
    pub(crate) fn is_planned(what: &Happening) -> bool {
        matches!(what, Happening::Act(_) | Happening::Fault(_) | Happening::Start(_) | Happening::Cluster)
    }
}
