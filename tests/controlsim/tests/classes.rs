//! Every class of disturbances keeps its promises for many seeds: `HERALD_SIM_SEEDS` of each class, 140 by default.
//! A failed seed prints its history and the command that replays it.

use herald_controlsim::Without;
use herald_controlsim::classes::{CLASSES, find};
use herald_controlsim::run::{self, report};
use herald_seeds::processors;

#[test]
fn every_class_keeps_its_promises() {
    let seeds: u64 = std::env::var("HERALD_SIM_SEEDS").map_or(140, |text| {
        text.parse().expect("HERALD_SIM_SEEDS is the number of seeds of each class, for example 1000")
    });
    let mut broken = Vec::new();
    for class in CLASSES {
        let summary = run::run_many(class, 0, seeds, processors(), Without::default(), 1);
        if let Some((seed, _)) = summary.first.first() {
            broken.push(format!("class {}\n{}", class.name, report(class, *seed, Without::default())));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n\n"));
}

#[test]
fn one_seed_has_one_history() {
    for name in ["mix", "faults"] {
        let class = find(name).unwrap();
        for seed in [3, 4, 5] {
            assert_eq!(report(class, seed, Without::default()), report(class, seed, Without::default()));
        }
        assert_ne!(report(class, 3, Without::default()), report(class, 4, Without::default()));
    }
}
