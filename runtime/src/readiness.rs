//! Readiness as named reasons: who asks why a process is not ready gets the list of what is missing.
//!
//! A condition that nobody has reported is not there; so a component registers what it will need
//! with [`Readiness::missing`] before it starts, and clears each with [`Readiness::ready`].

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A shared set of named reasons for not being ready; empty means ready. Clones share the set.
///
/// Beside that it knows how each watch does, for metrics: one that had its first list and is interrupted is down, and
/// yet no reason.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    board: Arc<Mutex<Board>>,
}

#[derive(Debug, Default)]
struct Board {
    reasons: BTreeMap<String, String>,
    watches: BTreeMap<&'static str, WatchState>,
}

/// How a watch does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchState {
    /// It has its first list, and nothing is wrong now.
    pub up: bool,
    /// How often it failed, by reason.
    pub failures: BTreeMap<&'static str, u64>,
}

impl Readiness {
    /// An empty set: ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that `name` is missing and why; replaces an earlier reason of the same name.
    pub fn missing(&self, name: impl Into<String>, why: impl Into<String>) {
        self.lock().reasons.insert(name.into(), why.into());
    }

    /// Clears the reason called `name`.
    pub fn ready(&self, name: &str) {
        self.lock().reasons.remove(name);
    }

    /// What is missing, sorted by name.
    pub fn reasons(&self) -> Vec<(String, String)> {
        let held = self.lock();
        held.reasons.iter().map(|(name, why)| (name.clone(), why.clone())).collect()
    }

    /// Whether nothing is missing.
    pub fn is_ready(&self) -> bool {
        self.lock().reasons.is_empty()
    }

    /// The watches and how they do.
    pub fn watches(&self) -> BTreeMap<&'static str, WatchState> {
        self.lock().watches.clone()
    }

    pub(crate) fn watch_starts(&self, name: &'static str) {
        self.lock().watches.entry(name).or_default();
    }

    pub(crate) fn watch_works(&self, name: &'static str) {
        self.lock().watches.entry(name).or_default().up = true;
    }

    pub(crate) fn watch_fails(&self, name: &'static str, reason: &'static str) {
        let mut board = self.lock();
        let watch = board.watches.entry(name).or_default();
        watch.up = false;
        let failures = watch.failures.entry(reason).or_default();
        *failures = failures.saturating_add(1);
    }

    // A panic while the lock was held can't leave anything half-changed: nothing in here panics midway.
    fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_ready_only_when_every_named_reason_is_cleared() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        readiness.missing("watch pools", "first list");
        readiness.missing("watch services", "forbidden");
        readiness.ready("watch pools");
        assert_eq!(readiness.reasons(), [("watch services".to_owned(), "forbidden".to_owned())]);
        readiness.clone().ready("watch services");
        assert!(readiness.is_ready());
    }
}
