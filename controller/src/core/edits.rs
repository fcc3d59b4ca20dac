//! LoadBalancerIPs that somebody else writes: what was changed is put right, said on the object, and never fought over
//! (rules B16 and B17). And what else an object says that nobody's Service shows.
//!
//! Users may put labels, annotations and a claimRef on an object; the rest of its spec is the controller's. What it reads
//! there and has not written itself, nor is writing, somebody else did.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use herald_ipam::{Input, Version};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{
    Core, RETRY_MAX, Wake,
    strikes::{CALM, Strikes},
};
use crate::{
    conditions::{condition, find, is_shown},
    desired,
    job::Job,
    objects::address::Address,
    reasons::{AddressProblem, PROBLEM},
};

/// The longest pause before an object that somebody else keeps changing is put right again. Short: who deletes it
/// takes the address from its users for that time.
const LONGEST: Duration = Duration::from_secs(10);

/// What somebody else did to one object.
#[derive(Debug)]
pub(super) struct Edits {
    /// The fields; none: an earlier process knew them.
    fields: BTreeSet<&'static str>,
    strikes: Strikes,
    /// The last of it.
    at: Instant,
    /// It is not put right yet.
    open: bool,
}

impl Core {
    /// Looks whether `new`, which the watch has brought, was changed by somebody else.
    pub(super) fn note_edit(&mut self, new: &Address) {
        let Some(known) = self.index.addresses.get(&new.address) else { return };
        let same = known.uid() == new.uid() && known.version < new.version;
        // Every write of this process's has a revision of its own.
        let foreign = known.revision() == new.revision() || !self.is_busy(new.address);
        if !same || !foreign || !self.decides_since(new.version) {
            return;
        }
        let fields = desired::differences(&known.object(), &new.object());
        if !fields.is_empty() {
            tracing::warn!(address = %new.address, ?fields, "somebody else changed a LoadBalancerIP");
            self.note(new.address, fields);
        }
    }

    /// Looks whether an object that is gone was in use.
    pub(super) fn note_deletion(&mut self, address: IpAddr, version: Version) {
        let known = self.index.addresses.get(&address);
        let used = known.is_some_and(|known| !known.users().is_empty());
        if used && self.decides_since(version) && !self.is_busy(address) {
            self.note(address, BTreeSet::new());
        }
    }

    fn is_busy(&self, address: IpAddr) -> bool {
        self.addresses.get(&address).is_some_and(|work| work.is_busy())
    }

    /// Whether this process is the one that writes, and was so at that version: before it, another did.
    fn decides_since(&self, version: Version) -> bool {
        self.leads && self.ipam.is_open() && version > self.leads_from
    }

    fn note(&mut self, address: IpAddr, fields: BTreeSet<&'static str>) {
        let at = self.now.monotonic;
        let work = self.addresses.entry(address).or_default();
        let edits = work.edits.get_or_insert_with(|| {
            Box::new(Edits { fields: BTreeSet::new(), strikes: Strikes::default(), at, open: true })
        });
        edits.fields.extend(fields);
        edits.at = at;
        edits.open = true;
    }

    /// Whether it is too early to put the object right again.
    pub(super) fn pauses(&mut self, address: IpAddr) -> bool {
        let now = self.now.monotonic;
        let edits = self.addresses.get(&address).and_then(|work| work.edits.as_ref()).filter(|it| it.open);
        let Some(pause) = edits.and_then(|edits| edits.strikes.pause(now, LONGEST)) else { return false };
        self.wake(pause, Wake::Address(address));
        true
    }

    /// A write of it is begun.
    pub(super) fn undoes_edit(&mut self, address: IpAddr) {
        let now = self.now.monotonic;
        let edits = self.addresses.get_mut(&address).and_then(|work| work.edits.as_mut());
        if let Some(edits) = edits.filter(|edits| edits.open) {
            edits.open = false;
            edits.strikes.strike(now);
        }
    }

    /// A write of what is wrong with the object, if it says something else.
    pub(super) fn problem_job(&mut self, address: IpAddr) -> Option<Job> {
        if !self.ipam.is_open() || !self.is_idle(address) {
            return None;
        }
        let silent = self.addresses.get(&address).and_then(|work| work.silent_until);
        if let Some(left) = silent.map(|until| until.saturating_duration_since(self.now.monotonic))
            && !left.is_zero()
        {
            self.gather_after(left, Wake::Address(address));
            return None;
        }
        let known = self.index.addresses.get(&address)?.clone();
        if known.is_terminating() {
            return None;
        }
        let shown = known.conditions();
        let before = find(shown, PROBLEM);
        let said = before.is_some_and(|before| before.reason == AddressProblem::edited());
        let edited = self.forget_edits(address, before);
        // That its object was deleted is nothing to say on it; what an earlier process has said stays for a while.
        let deleted = matches!(&edited, Some(AddressProblem::Edited(fields)) if fields.is_empty() && !said);
        let problem = edited.filter(|_| !deleted).or_else(|| self.idle_problem(&known));
        let wanted = match problem {
            Some(AddressProblem::Edited(fields)) if fields.is_empty() => return None,
            Some(problem) => Some(condition(PROBLEM, &problem, known.generation(), shown, self.now.wall)),
            None => None,
        };
        (!is_shown(PROBLEM, wanted.as_ref(), shown))
            .then(|| Job::Problem { address: Box::new(known), condition: wanted.map(Box::new) })
    }

    /// What others did of late, forgotten after a calm.
    fn forget_edits(&mut self, address: IpAddr, shown: Option<&Condition>) -> Option<AddressProblem> {
        let now = self.now.monotonic;
        let work = self.addresses.entry(address).or_default();
        if work.edits.is_none() && shown.is_some_and(|shown| shown.reason == AddressProblem::edited()) {
            let strikes = Strikes::default();
            work.edits = Some(Box::new(Edits { fields: BTreeSet::new(), strikes, at: now, open: false }));
        }
        let edits = work.edits.as_ref()?;
        let left = (edits.at + CALM).saturating_duration_since(now);
        if left.is_zero() {
            work.edits = None;
            return None;
        }
        let fields = edits.fields.clone();
        self.gather_after(left, Wake::Address(address));
        Some(AddressProblem::Edited(fields))
    }

    /// What is wrong with an object that lists nobody.
    fn idle_problem(&self, known: &Address) -> Option<AddressProblem> {
        if !known.users().is_empty() {
            return None;
        }
        if !known.is_reserved() {
            return Some(AddressProblem::Unused(known.address));
        }
        (!self.ipam.is_in_a_pool(known.address)).then_some(AddressProblem::OutsidePools(known.address))
    }

    pub(super) fn problem_told(&mut self, address: IpAddr, now: Option<Box<Address>>) {
        let Some(object) = now else {
            // It is gone, which the watch will tell, or the server would not, or could not: not at once again.
            self.job_ended(address, None);
            self.addresses.entry(address).or_default().silent_until = Some(self.now.monotonic + RETRY_MAX);
            self.gather_after(RETRY_MAX, Wake::Address(address));
            return;
        };
        // Perhaps somebody else was quicker: then this is what was written.
        self.note_edit(&object);
        let record = object.record();
        self.job_ended(address, Some(object));
        self.tell_ipam(Input::AddressApplied(record));
    }
}
