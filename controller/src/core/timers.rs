//! What is to be looked at again, and when.
//!
//! What must always hold: the two orders tell of the same timers. One says what is due next, the other whether something
//! is due by a moment anyway: ten thousand edited objects have a timer each.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use super::Wake;

#[derive(Debug, Default)]
pub(super) struct Timers {
    by_time: BTreeSet<(Instant, Wake)>,
    by_wake: BTreeMap<Wake, BTreeSet<Instant>>,
}

impl Timers {
    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    pub(super) fn set(&mut self, at: Instant, wake: Wake) {
        self.by_wake.entry(wake.clone()).or_default().insert(at);
        self.by_time.insert((at, wake));
    }

    /// Whether one for this is due by then.
    pub(super) fn is_due_by(&self, moment: Instant, wake: &Wake) -> bool {
        self.by_wake.get(wake).and_then(BTreeSet::first).is_some_and(|first| *first <= moment)
    }

    /// Takes the next one that is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Wake> {
        self.next().filter(|at| *at <= now)?;
        let (at, wake) = self.by_time.pop_first()?;
        if let Some(moments) = self.by_wake.get_mut(&wake) {
            moments.remove(&at);
            if moments.is_empty() {
                self.by_wake.remove(&wake);
            }
        }
        Some(wake)
    }

    /// Forgets all that are for this.
    pub(super) fn cancel(&mut self, wake: &Wake) {
        for at in self.by_wake.remove(wake).unwrap_or_default() {
            self.by_time.remove(&(at, wake.clone()));
        }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
