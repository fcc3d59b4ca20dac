//! Conditions, put together so that nothing is written when nothing is new.
//!
//! What must always hold: `lastTransitionTime` changes with the status and with nothing else, and two conditions that
//! differ only in it are the same.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

use crate::reasons::Verdict;

/// The API server's limit for a condition's message.
const MESSAGE: usize = 32 * 1024;

/// The condition `kind` as `verdict` has it, continuing the one in `existing` if there is one.
pub fn condition(
    kind: &str,
    verdict: &impl Verdict,
    generation: Option<i64>,
    existing: &[Condition],
    now: Timestamp,
) -> Condition {
    let status = if verdict.holds() { "True" } else { "False" };
    let before = find(existing, kind).filter(|before| before.status == status);
    let mut message = verdict.message();
    if message.len() > MESSAGE {
        let end = (0..=MESSAGE).rev().find(|&at| message.is_char_boundary(at)).unwrap_or_default();
        message.truncate(end);
    }
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason().to_owned(),
        message,
        observed_generation: generation,
        last_transition_time: before.map_or_else(|| Time(now), |before| before.last_transition_time.clone()),
    }
}

/// The condition of this type.
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether writing `wanted` over `existing` would change nothing. Conditions of other types don't matter.
pub fn are_shown(wanted: &[Condition], existing: &[Condition]) -> bool {
    wanted.iter().all(|wanted| {
        find(existing, &wanted.type_).is_some_and(|existing| {
            let Condition { type_: _, status, reason, message, observed_generation, last_transition_time: _ } = wanted;
            status == &existing.status
                && reason == &existing.reason
                && message == &existing.message
                && observed_generation == &existing.observed_generation
        })
    })
}

/// The same for one type: as `wanted`, or absent where nothing is.
pub fn is_shown(kind: &str, wanted: Option<&Condition>, existing: &[Condition]) -> bool {
    match wanted {
        Some(wanted) => are_shown(std::slice::from_ref(wanted), existing),
        None => find(existing, kind).is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reasons::Announced;

    const KIND: &str = "heraldlb.io/Announced";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_transition_time_changes_with_the_status_only() {
        let waiting = Announced::NoHolder(vec!["10.0.0.1".parse().unwrap()]);
        let first = condition(KIND, &waiting, None, &[], at(1));
        let later = condition(KIND, &Announced::NoAddress, None, std::slice::from_ref(&first), at(2));
        assert_eq!(later.last_transition_time, Time(at(1)), "False as before");
        let held = Announced::Yes([("10.0.0.1".parse().unwrap())].into_iter().collect());
        let now = condition(KIND, &held, None, &[later], at(3));
        assert_eq!((now.status.as_str(), now.last_transition_time), ("True", Time(at(3))));
    }

    #[test]
    fn a_condition_that_only_repeats_itself_is_shown_already() {
        let first = condition(KIND, &Announced::NoAddress, None, &[], at(1));
        let again = condition(KIND, &Announced::NoAddress, None, &[], at(2));
        assert!(are_shown(std::slice::from_ref(&again), std::slice::from_ref(&first)));
        assert!(!are_shown(std::slice::from_ref(&again), &[]));
        let other = condition(KIND, &Announced::NoHolder(vec![]), None, &[], at(2));
        assert!(!are_shown(&[other], &[first]));
    }
}
