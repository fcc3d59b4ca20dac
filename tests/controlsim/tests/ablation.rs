//! What single guarantees of the API server are good for, and the checks that lean on them: without one, its class
//! breaks within a few hundred seeds that hold with it. And so the invariants are seen to notice.

use herald_controlsim::Without;
use herald_controlsim::classes::find;
use herald_controlsim::run::{replay, run_many};
use herald_seeds::processors;

const SEEDS: u64 = 300;

/// The class breaks without the guarantee, at a seed up to which it holds with all of them, and in such words.
fn needs(class: &str, without: Without, words: &str) -> Result<(), String> {
    let class = find(class).ok_or_else(|| format!("no class {class}"))?;
    let broken = run_many(class, 0, SEEDS, processors(), without, 1);
    let Some((seed, violation)) = broken.first.first() else {
        return Err(format!("{} holds {SEEDS} seeds without it", class.name));
    };
    if !violation.contains(words) {
        return Err(format!("{} breaks, but in other words: {violation}", class.name));
    }
    match run_many(class, 0, seed + 1, processors(), Without::default(), 1).failed.first() {
        None => Ok(()),
        Some(seed) => {
            Err(format!("{} breaks with every guarantee in place: {}", class.name, replay(class, *seed)))
        }
    }
}

#[test]
fn two_leaders_need_the_fence() {
    assert_eq!(needs("faults", Without { fence: true, ..Without::default() }, "10.0."), Ok(()));
}

#[test]
fn two_leaders_need_conditional_writes() {
    assert_eq!(
        needs("freeze", Without { conditions: true, ..Without::default() }, "2 controllers lead"),
        Ok(())
    );
}
