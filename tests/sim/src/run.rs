//! One seed of one class from start to end, and many of them on all processors.

use std::time::Duration;

use herald_l2::Ablation;

use crate::check::Measured;
use crate::classes::Class;
use crate::trace::{Detail, Trace};
use crate::world::World;
use herald_seeds::Dice;

/// What came out of one run.
pub type Outcome = herald_seeds::Outcome<Measured>;

/// Runs one seed.
pub fn run(class: &Class, seed: u64, ablation: Ablation, detail: Detail) -> Outcome {
    let mut dice = Dice::new(class.name, seed);
    let mut schedule = (class.schedule)(&mut dice);
    schedule.setup.ablation = ablation;
    let warm_at = schedule.warm_at;
    let settled = schedule.last_fault() + class.settle;
    let mut world = World::new(schedule.setup, class.bounds, warm_at, dice, Trace::new(detail));
    world.switch.set_loss(schedule.loss);
    for (at, fault) in schedule.steps {
        world.plan(at, fault);
    }
    for (at, vip) in schedule.judge_at {
        world.run_until(at);
        world.judge_holders(vip);
    }
    world.run_until(settled);
    world.judge_holders(None);
    world.check.settle(settled);
    world.run_until(settled + schedule.tail);
    world.judge_holders(None);
    world.judge_clients(class.lossy);
    let (measured, violations) = world.check.finish(world.now);
    Outcome { seed, measured, violations, history: world.trace.into_lines() }
}

/// What came out of many.
#[derive(Debug, Default)]
pub struct Summary {
    /// How many.
    pub runs: u64,
    /// The seeds that broke a promise, lowest first.
    pub failed: Vec<u64>,
    /// The most moves of one address in one run.
    pub moves: usize,
    /// The longest time two connected nodes held one address.
    pub dual: Duration,
    /// The longest time a client reached nobody.
    pub gap: Duration,
    /// The longest time until what a dead node held was somebody else's.
    pub takeover: Duration,
    /// Questions of clients that two nodes answered.
    pub answered_by_two: usize,
    /// Clients that ended with packets to the wrong node, where frames are lost.
    pub stale: usize,
    /// Questions of clients that deputies answered.
    pub deputised: usize,
}

impl Summary {
    fn take(&mut self, outcome: &Outcome) {
        let moves = |vip| outcome.measured.moves.iter().filter(|step| step.vip == vip).count();
        let most = outcome.measured.moves.iter().map(|step| moves(step.vip)).max();
        self.runs += 1;
        self.moves = self.moves.max(most.unwrap_or(0));
        self.dual = self.dual.max(outcome.measured.dual);
        self.takeover = self.takeover.max(outcome.measured.takeover);
        self.gap = self.gap.max(outcome.measured.gap);
        self.answered_by_two += outcome.measured.answered_by_two;
        self.stale += outcome.measured.stale;
        self.deputised += outcome.measured.deputised;
        if !outcome.violations.is_empty() {
            self.failed.push(outcome.seed);
        }
    }
}

/// Runs seeds `first .. first + count` on so many threads. Stops early once `enough` of them have failed.
pub fn run_many(
    class: &Class,
    first: u64,
    count: u64,
    threads: usize,
    ablation: Ablation,
    enough: usize,
) -> Summary {
    let mut summary = Summary::default();
    let one = |seed| run(class, seed, ablation, Detail::Off);
    herald_seeds::run_many(first..first.saturating_add(count), threads, one, |outcome| {
        summary.take(&outcome);
        summary.failed.len() < enough
    });
    summary.failed.sort_unstable();
    summary
}

/// The history of one failed seed with the command that replays it, for people.
pub fn report(class: &Class, seed: u64, ablation: Ablation) -> String {
    run(class, seed, ablation, Detail::Events).report(&replay(class, seed))
}

/// The command that replays a seed.
pub fn replay(class: &Class, seed: u64) -> String {
    format!("cargo run -p herald-sim -- --class {} --seed {seed} --trace", class.name)
}
