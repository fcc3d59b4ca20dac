//! What single rules are good for: without one, its class breaks within a few hundred seeds that hold with it.

use herald_l2::Ablation;
use herald_sim::classes::find;
use herald_sim::run::{processors, run_many};

const SEEDS: u64 = 300;

/// The class holds as it is and breaks without the rule.
fn needs(class: &str, without: Ablation) {
    let class = find(class).unwrap();
    let broken = run_many(class, 0, SEEDS, processors(), without, 1).failed;
    assert!(!broken.is_empty(), "{} holds {SEEDS} seeds without {without:?}", class.name);
    let whole = run_many(class, 0, broken[0] + 1, processors(), Ablation::default(), 1).failed;
    assert!(whole.is_empty(), "{} seed {whole:?} breaks with every rule in place", class.name);
}

#[test]
fn an_isolated_node_needs_two_way_proof() {
    needs("isolate", Ablation { no_proof: true, ..Ablation::default() });
}

#[test]
fn a_bouncing_switch_needs_two_way_proof() {
    needs("bounce", Ablation { no_proof: true, ..Ablation::default() });
}

#[test]
fn a_quick_restart_needs_the_reservation() {
    needs("restart-quick", Ablation { no_reservation: true, ..Ablation::default() });
}

#[test]
fn a_restart_of_all_needs_hints() {
    needs("restart-all", Ablation { no_hints: true, ..Ablation::default() });
}

#[test]
fn a_split_needs_drop_and_the_announcements_after_it() {
    needs("partition", Ablation { no_drop: true, ..Ablation::default() });
}

#[test]
fn a_crash_under_loss_needs_quick_hellos() {
    needs("crash-loss", Ablation { no_fast_suspicion: true, ..Ablation::default() });
}
