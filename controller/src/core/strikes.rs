//! How often somebody else's change of what is ours was undone, and how long to wait before the next time: at once the
//! first time, then more and more slowly, so that two programs never fight over an object.

use std::time::{Duration, Instant};

/// The pause after the first undoing; doubled each time.
const MIN: Duration = Duration::from_millis(500);
/// After this time without another they are forgotten.
pub(super) const CALM: Duration = Duration::from_mins(10);

/// Changes by somebody else that were undone.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Strikes {
    count: u32,
    last: Option<Instant>,
}

impl Strikes {
    /// How many, since the last calm.
    pub(super) fn count(self) -> u32 {
        self.count
    }

    /// How long it is to be waited before the next change is undone; `longest`: at most.
    pub(super) fn pause(self, now: Instant, longest: Duration) -> Option<Duration> {
        let since = now.saturating_duration_since(self.last?);
        let doublings = self.count.checked_sub(1).filter(|_| since < CALM)?;
        let pause = MIN.saturating_mul(1 << doublings.min(16)).min(longest);
        Some(pause.saturating_sub(since)).filter(|left| !left.is_zero())
    }

    /// One is undone now.
    pub(super) fn strike(&mut self, now: Instant) {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) >= CALM) {
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(10);

    #[test]
    fn pauses_double_up_to_the_longest_and_a_calm_forgets_them() {
        let mut strikes = Strikes::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let pause = strikes.pause(now, LONGEST).unwrap_or_default();
            pauses.push(pause.as_millis());
            now += pause;
            strikes.strike(now);
        }
        assert_eq!(pauses, [0, 500, 1000, 2000, 4000, 8000, 10_000]);
        assert_eq!(strikes.pause(now + CALM, LONGEST), None);
        strikes.strike(now + CALM);
        assert_eq!(strikes.count(), 1);
    }
}
