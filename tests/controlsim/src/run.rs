//! One seed of one class from start to end, and many of them on all processors.

use std::time::Duration;

use crate::api::Without;
use crate::classes::Class;
use crate::trace::Trace;
use crate::world::World;
use herald_seeds::Dice;

/// When everything has settled: whatever was refused is tried again within a minute, and watches within ten seconds.
const SETTLE: Duration = Duration::from_secs(100);

/// What came out of one run.
pub type Outcome = herald_seeds::Outcome<Measured>;

/// Figures of one run, or of many.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// Writes that controllers sent.
    pub writes: u64,
    /// Those that the server refused by their condition (409).
    pub conflicts: u64,
    /// Addresses shown on Services at the end.
    pub addresses: u64,
    /// Services without one at the end.
    pub pending: u64,
    /// Addresses that one of two leaders took back which the other had shown.
    pub contested: u64,
    /// Services that don't get what they ask for and were told so in other words after a restart.
    pub retold: u64,
}

/// Runs one seed.
pub fn run(class: &Class, seed: u64, without: Without, history: bool) -> Outcome {
    let mut dice = Dice::new(class.name, seed);
    let plan = class.plan(&mut dice, without);
    let last = plan.last;
    let long = dice.chance(0.05);
    let mut world = World::new(plan, dice, Trace::new(history));
    world.run_until(last);
    world.calm_down();
    world.run_until(last + Duration::from_secs(40));
    world.step = Duration::from_millis(250);
    world.run_until(last + SETTLE);
    world.judge();
    let quiet = if long { Duration::from_mins(20) } else { Duration::from_secs(50) };
    world.stay_quiet(quiet, "with nothing to do");
    let again = Duration::from_secs(35);
    if world.restart_all() {
        world.stay_quiet(again, "after a restart with nothing to do");
    } else {
        world.run_until(world.now + again);
    }
    world.judge();
    let World { check, trace, .. } = world;
    Outcome {
        seed,
        measured: check.measured,
        violations: check.into_violations(),
        history: trace.into_lines(),
    }
}

/// What came out of many.
#[derive(Debug, Default)]
pub struct Summary {
    /// How many.
    pub runs: u64,
    /// The seeds that broke a promise, lowest first.
    pub failed: Vec<u64>,
    /// The first violation of each.
    pub first: Vec<(u64, String)>,
    /// Figures of all.
    pub measured: Measured,
}

impl Summary {
    fn take(&mut self, outcome: Outcome) {
        self.runs += 1;
        self.measured.writes += outcome.measured.writes;
        self.measured.conflicts += outcome.measured.conflicts;
        self.measured.addresses += outcome.measured.addresses;
        self.measured.pending += outcome.measured.pending;
        self.measured.contested += outcome.measured.contested;
        self.measured.retold += outcome.measured.retold;
        if let Some(violation) = outcome.violations.into_iter().next() {
            self.failed.push(outcome.seed);
            self.first.push((outcome.seed, violation));
        }
    }
}

/// Runs seeds `first .. first + count` on so many threads. Stops early once `enough` of them have failed.
pub fn run_many(
    class: &Class,
    first: u64,
    count: u64,
    threads: usize,
    without: Without,
    enough: usize,
) -> Summary {
    let mut summary = Summary::default();
    let one = |seed| run(class, seed, without, false);
    herald_seeds::run_many(first..first.saturating_add(count), threads, one, |outcome| {
        summary.take(outcome);
        summary.failed.len() < enough
    });
    summary.failed.sort_unstable();
    summary.first.sort_unstable();
    summary
}

/// The history of one failed seed with the command that replays it, for people.
pub fn report(class: &Class, seed: u64, without: Without) -> String {
    run(class, seed, without, true).report(&replay(class, seed))
}

/// The command that replays a seed.
pub fn replay(class: &Class, seed: u64) -> String {
    format!("cargo run -p herald-controlsim -- --class {} --seed {seed}", class.name)
}
