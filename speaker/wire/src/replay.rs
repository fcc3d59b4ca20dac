//! The replay window of rule A6: 64 counters wide, one per (node, boot, interface).

use crate::Counter;

/// Counters seen from one sender.
///
/// Holds the highest and which of the 63 below it came; frames may arrive out of order within that width and
/// are taken once each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayWindow {
    highest: u64,
    /// Bit i: `highest - i` was seen. Bit 0 is always set.
    seen: u64,
}

/// Why a counter was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Replay {
    /// This very counter was seen before.
    #[error("counter seen before")]
    Seen,
    /// Below the window: seen or not can't be told.
    #[error("counter below the replay window")]
    Old,
}

impl ReplayWindow {
    /// Counters the window spans.
    pub const WIDTH: u64 = 64;

    /// A window that has seen `first` and takes nothing below it: what came before the sender proved itself
    /// (rule A7) may be a recording.
    pub const fn starting_at(first: Counter) -> Self {
        Self { highest: first.0, seen: u64::MAX }
    }

    /// The highest counter taken.
    pub const fn highest(&self) -> Counter {
        Counter(self.highest)
    }

    /// Takes `counter` if it is fresh. Call it only for frames whose tag was verified.
    pub fn take(&mut self, counter: Counter) -> Result<(), Replay> {
        let Counter(counter) = counter;
        if let Some(ahead) = counter.checked_sub(self.highest).filter(|ahead| *ahead > 0) {
            let shift = u32::try_from(ahead).unwrap_or(u32::MAX);
            self.seen = self.seen.checked_shl(shift).unwrap_or(0) | 1;
            self.highest = counter;
            return Ok(());
        }
        let behind = self.highest - counter;
        if behind >= Self::WIDTH {
            return Err(Replay::Old);
        }
        let bit = 1 << behind;
        if self.seen & bit != 0 {
            return Err(Replay::Seen);
        }
        self.seen |= bit;
        Ok(())
    }
}
