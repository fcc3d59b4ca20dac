//! The three durations of an election, and what must hold between them.

use std::time::Duration;

/// Longest lease: a record that claims more is somebody's mistake, and would keep every candidate out.
pub(super) const LONGEST: Duration = Duration::from_mins(10);
/// Shortest pause between attempts: the API server has other things to do.
const SHORTEST_RETRY: Duration = Duration::from_millis(100);

/// How long a lease lasts, when its holder gives up, and how often it is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    lease: Duration,
    renew: Duration,
    retry: Duration,
}

impl Default for Timing {
    /// Kubernetes' own: 15, 10 and 2 seconds.
    fn default() -> Self {
        Self { lease: Duration::from_secs(15), renew: Duration::from_secs(10), retry: Duration::from_secs(2) }
    }
}

/// Durations that don't go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// Out of bounds.
    #[error("--lease-duration is {0:?}; expected 1 s to 10 min")]
    Lease(Duration),
    /// No time between a leader's end and its successor's beginning.
    #[error(
        "--lease-duration ({lease:?}) must exceed --renew-deadline ({renew:?}) by at least --retry-period ({retry:?}): in between the former leader's last writes end"
    )]
    Margin {
        /// As given.
        lease: Duration,
        /// As given.
        renew: Duration,
        /// As given.
        retry: Duration,
    },
    /// No second chance to renew.
    #[error(
        "--renew-deadline ({renew:?}) must be at least twice --retry-period ({retry:?}), and that at least 100 ms"
    )]
    Retry {
        /// As given.
        renew: Duration,
        /// As given.
        retry: Duration,
    },
}

impl Timing {
    /// Checked durations.
    pub fn new(lease: Duration, renew: Duration, retry: Duration) -> Result<Self, TimingError> {
        if lease < Duration::from_secs(1) || lease > LONGEST {
            Err(TimingError::Lease(lease))
        } else if lease < renew.saturating_add(retry) {
            Err(TimingError::Margin { lease, renew, retry })
        } else if retry < SHORTEST_RETRY || renew < retry.saturating_mul(2) {
            Err(TimingError::Retry { renew, retry })
        } else {
            Ok(Self { lease, renew, retry })
        }
    }

    /// How long a record must be seen unchanged before another may take it.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// How long after the beginning of a renewal its leader may write.
    pub fn renew(&self) -> Duration {
        self.renew
    }

    /// Pause between attempts.
    pub fn retry(&self) -> Duration {
        self.retry
    }

    /// Longest time that a write may take which began in time: it ends before another can lead, and below half the lease
    /// (rule B14).
    pub fn write_limit(&self) -> Duration {
        self.lease.saturating_sub(self.renew).min(self.lease / 2).min(Duration::from_secs(5))
    }

    /// Longest wait for an answer about the Lease: a second attempt must fit before the deadline.
    pub(super) fn request_limit(&self) -> Duration {
        self.renew / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_ends_before_another_can_lead_and_within_five_seconds_and_half_the_lease() {
        let limit = |lease, renew, retry| {
            let [lease, renew, retry] = [lease, renew, retry].map(Duration::from_millis);
            Timing::new(lease, renew, retry).map(|timing| timing.write_limit().as_millis())
        };
        assert_eq!(limit(15_000, 10_000, 2_000), Ok(5_000));
        assert_eq!(limit(3_000, 1_000, 500), Ok(1_500), "half the lease");
        assert_eq!(limit(3_000, 2_000, 500), Ok(1_000), "what is left of it");
        assert_eq!(limit(60_000, 10_000, 2_000), Ok(5_000));
    }

    #[test]
    fn durations_that_leave_no_margin_are_refused_with_the_flags_names() {
        let seconds = Duration::from_secs_f64;
        let new = |lease, renew, retry| Timing::new(seconds(lease), seconds(renew), seconds(retry));
        assert_eq!(new(15.0, 10.0, 2.0), Ok(Timing::default()));
        assert!(new(2.0, 1.5, 0.5).is_ok());
        for (durations, flag) in [
            ((0.5, 0.3, 0.1), "--lease-duration"),
            ((601.0, 10.0, 2.0), "--lease-duration"),
            ((15.0, 15.0, 2.0), "--renew-deadline"),
            ((15.0, 14.0, 2.0), "--retry-period"),
            ((15.0, 3.0, 2.0), "--renew-deadline"),
            ((15.0, 1.0, 0.0), "--retry-period"),
        ] {
            let error = new(durations.0, durations.1, durations.2).unwrap_err().to_string();
            assert!(error.contains(flag), "{durations:?}: {error}");
        }
    }
}
