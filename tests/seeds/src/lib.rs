//! What simulations from seeds share: the dice of one run, what comes out of it, and many runs on all processors.
//!
//! What is simulated, and what is promised of it, is theirs: `tests/sim` (speakers on a LAN) and `tests/controlsim`
//! (controllers before an API server).

mod dice;

use std::io::{self, Write};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

pub use dice::Dice;

/// What came out of one run.
#[derive(Debug)]
pub struct Outcome<M> {
    /// Its seed.
    pub seed: u64,
    /// Figures.
    pub measured: M,
    /// Broken promises; empty is what we want.
    pub violations: Vec<String>,
    /// What happened, if that was asked for.
    pub history: Vec<String>,
}

impl<M> Outcome<M> {
    fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let broken = self.violations.iter().map(|violation| format!("BROKEN {violation}"));
        self.history.iter().cloned().chain(broken)
    }

    /// Prints it for who asked for this seed. Whether it holds.
    ///
    /// # Errors
    /// When it can't be printed.
    pub fn print(&self, out: &mut impl Write, class: &str) -> io::Result<bool> {
        for line in self.lines() {
            writeln!(out, "{line}")?;
        }
        let holds = self.violations.is_empty();
        writeln!(out, "{class} seed {}: {}", self.seed, if holds { "holds" } else { "BROKEN" })?;
        Ok(holds)
    }

    /// The history of a failed seed with the command that replays it, for people.
    pub fn report(&self, replay: &str) -> String {
        self.lines().chain([format!("replay: {replay}")]).collect::<Vec<_>>().join("\n")
    }
}

/// Runs these seeds on so many threads, each as it comes. Stops early once `take` says no to what came out of one.
pub fn run_many<M: Send>(
    seeds: Range<u64>,
    threads: usize,
    run: impl Fn(u64) -> Outcome<M> + Sync,
    mut take: impl FnMut(Outcome<M>) -> bool,
) {
    let next = AtomicU64::new(seeds.start);
    let (sender, receiver) = mpsc::sync_channel(64);
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            let (sender, next, run) = (sender.clone(), &next, &run);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || sender.send(run(seed)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        // Consumed here, so that breaking off drops the receiver and ends the threads.
        for outcome in receiver {
            if !take(outcome) {
                break;
            }
        }
    });
}

/// How many threads there are processors for.
pub fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn odd_ones_fail(seed: u64) -> Outcome<u64> {
        let violations = if seed % 2 == 1 { vec!["odd".to_owned()] } else { Vec::new() };
        Outcome { seed, measured: seed, violations, history: vec!["began".to_owned()] }
    }

    #[test]
    fn every_seed_runs_once() {
        let mut seen = Vec::new();
        run_many(5..105, 3, odd_ones_fail, |outcome| {
            seen.push(outcome.measured);
            true
        });
        seen.sort_unstable();
        assert_eq!(seen, (5..105).collect::<Vec<_>>());
    }

    #[test]
    fn who_has_seen_enough_ends_the_runs() {
        let mut taken = 0;
        run_many(0..u64::MAX, 3, odd_ones_fail, |_| {
            taken += 1;
            taken < 10
        });
        assert_eq!(taken, 10);
    }

    #[test]
    fn a_failed_seed_is_told_with_its_history_and_how_to_replay_it() {
        assert_eq!(odd_ones_fail(3).report("again 3"), "began\nBROKEN odd\nreplay: again 3");
        let mut out = Vec::new();
        assert!(!odd_ones_fail(3).print(&mut out, "class").unwrap());
        assert_eq!(String::from_utf8(out).unwrap(), "began\nBROKEN odd\nclass seed 3: BROKEN\n");
    }
}
