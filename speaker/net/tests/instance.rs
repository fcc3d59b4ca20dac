//! One speaker per network namespace. Needs root, touches only its own namespaces.

#![cfg(test)]

mod namespace;

use herald_net::instance::{InstanceLock, LockError};

#[test]
fn a_second_speaker_is_turned_away_until_the_first_is_gone() {
    namespace::in_a_new_one(|| {
        let first = InstanceLock::take().unwrap();
        let error = InstanceLock::take().unwrap_err();
        assert!(matches!(error, LockError::Taken), "{error}");
        assert!(error.to_string().contains("another speaker runs"), "{error}");
        drop(first);
        InstanceLock::take().unwrap();
    });
}

#[test]
fn speakers_in_two_namespaces_do_not_meet() {
    namespace::in_a_new_one(|| {
        let _here = InstanceLock::take().unwrap();
        namespace::in_a_new_one(|| drop(InstanceLock::take().unwrap()));
    });
}
