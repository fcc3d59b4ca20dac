//! Readiness as named reasons: who asks why a process is not ready gets the list of what is missing.
//!
//! A condition that nobody has reported is not there; so a component registers what it will need
//! with [`Readiness::missing`] before it starts, and clears each with [`Readiness::ready`].

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A shared set of named reasons for not being ready; empty means ready. Clones share the set.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    reasons: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Readiness {
    /// An empty set: ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that `name` is missing and why; replaces an earlier reason of the same name.
    pub fn missing(&self, name: impl Into<String>, why: impl Into<String>) {
        self.lock().insert(name.into(), why.into());
    }

    /// Clears the reason called `name`.
    pub fn ready(&self, name: &str) {
        self.lock().remove(name);
    }

    /// What is missing, sorted by name.
    pub fn reasons(&self) -> Vec<(String, String)> {
        let held = self.lock();
        held.iter().map(|(name, why)| (name.clone(), why.clone())).collect()
    }

    /// Whether nothing is missing.
    pub fn is_ready(&self) -> bool {
        self.lock().is_empty()
    }

    // A panic while the lock was held can't leave the map half-changed: each call is one map operation.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)
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
