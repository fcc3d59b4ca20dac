//! Every class of faults keeps its promises for many seeds: `HERALD_SIM_SEEDS` of each class, a hundred by default.
//! A failed seed prints its history and the command that replays it.

use herald_l2::Ablation;
use herald_seeds::processors;
use herald_sim::classes::CLASSES;
use herald_sim::run::{self, report};

#[test]
fn every_class_keeps_its_promises() {
    let seeds: u64 = std::env::var("HERALD_SIM_SEEDS").map_or(100, |text| {
        text.parse().expect("HERALD_SIM_SEEDS is the number of seeds of each class, for example 1000")
    });
    let mut broken = Vec::new();
    for class in CLASSES {
        let summary =
            run::run_many(class, 0, seeds.div_ceil(class.cost), processors(), Ablation::default(), 1);
        if let Some(seed) = summary.failed.first() {
            broken.push(format!("class {}\n{}", class.name, report(class, *seed, Ablation::default())));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n\n"));
}

#[test]
fn clients_that_come_while_a_speaker_is_away_are_answered_by_deputies() {
    for name in ["term-cold", "restart-cold", "grace-crash-cold", "restart-excluded"] {
        let class = herald_sim::classes::find(name).unwrap();
        let answers = |without| run::run_many(class, 0, 20, processors(), without, usize::MAX).deputised;
        assert!(answers(Ablation::default()) > 20, "{name}");
        assert_eq!(answers(Ablation { no_deputies: true, ..Ablation::default() }), 0, "{name}");
    }
}

#[test]
fn one_seed_has_one_history() {
    for name in ["mix", "mix-loss"] {
        let class = herald_sim::classes::find(name).unwrap();
        assert_eq!(report(class, 3, Ablation::default()), report(class, 3, Ablation::default()));
        assert_ne!(report(class, 3, Ablation::default()), report(class, 4, Ablation::default()));
    }
}
