//! What single rules are good for: without one, its class breaks within a few hundred seeds that hold with it.

use herald_l2::Ablation;
use herald_seeds::processors;
use herald_sim::classes::find;
use herald_sim::run::{replay, run_many};

const SEEDS: u64 = 300;

/// The class breaks without the rule, at a seed up to which it holds with every rule in place.
fn needs(class: &str, without: Ablation) -> Result<(), String> {
    let class = find(class).ok_or_else(|| format!("no class {class}"))?;
    let first = |count, without| run_many(class, 0, count, processors(), without, 1).failed.first().copied();
    let Some(broken) = first(SEEDS, without) else {
        return Err(format!("{} holds {SEEDS} seeds without it", class.name));
    };
    match first(broken + 1, Ablation::default()) {
        None => Ok(()),
        Some(seed) => Err(format!("{} breaks with every rule in place: {}", class.name, replay(class, seed))),
    }
}

#[test]
fn an_isolated_node_needs_two_way_proof() {
    assert_eq!(needs("isolate", Ablation { no_proof: true, ..Ablation::default() }), Ok(()));
}

#[test]
fn a_bouncing_switch_needs_two_way_proof() {
    assert_eq!(needs("bounce", Ablation { no_proof: true, ..Ablation::default() }), Ok(()));
}

#[test]
fn a_quick_restart_needs_the_reservation() {
    assert_eq!(needs("restart-quick", Ablation { no_reservation: true, ..Ablation::default() }), Ok(()));
}

#[test]
fn a_restart_needs_grace() {
    for class in ["restart", "term", "rollout", "stop"] {
        assert_eq!(needs(class, Ablation { no_grace: true, ..Ablation::default() }), Ok(()));
    }
}

#[test]
fn a_power_cut_needs_kernel_probes() {
    for class in ["crash", "grace-crash"] {
        assert_eq!(needs(class, Ablation { no_kernel_probe: true, ..Ablation::default() }), Ok(()));
    }
}

#[test]
fn a_client_that_comes_during_a_restart_needs_deputies() {
    assert_eq!(needs("term-cold", Ablation { no_deputies: true, ..Ablation::default() }), Ok(()));
}

#[test]
fn two_restarts_at_a_time_need_the_word_of_those_who_know() {
    assert_eq!(needs("rollout-wide", Ablation { no_vouching: true, ..Ablation::default() }), Ok(()));
}

#[test]
fn a_restart_of_all_needs_hints() {
    assert_eq!(needs("restart-all", Ablation { no_hints: true, ..Ablation::default() }), Ok(()));
}

#[test]
fn a_split_needs_drop_and_the_announcements_after_it() {
    assert_eq!(needs("partition", Ablation { no_drop: true, ..Ablation::default() }), Ok(()));
}

#[test]
fn a_crash_under_loss_needs_quick_hellos() {
    assert_eq!(needs("crash-loss", Ablation { no_fast_suspicion: true, ..Ablation::default() }), Ok(()));
}
