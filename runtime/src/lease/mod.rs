//! Leader election by a Lease object: one of several candidates may write, the others stand by.
//!
//! What must always hold, with clocks that may differ in rate by as much as a candidate's deadline differs from its
//! lease, and with any clock on any wall:
//! - a candidate takes a Lease from another only after it has itself *observed* the same record unchanged for the
//!   whole lease duration on its own monotonic clock; times in the record are for people to read;
//! - every write replaces exactly the version that was looked at, so that of two candidates one gets a conflict;
//! - a leader believes in itself until `renew deadline` after the *beginning* of the last write that it knows to have
//!   succeeded; a write whose answer was lost counts for nothing.
//!
//! So two candidates never both lead, unless somebody edits or deletes the Lease by hand; then, and for requests that
//! are under way when a deadline passes, conditional writes do the rest (rules B3 and B14). The clock is
//! `CLOCK_MONOTONIC`, which stands still while a machine sleeps: also a case for conditional writes.
//!
//! [`Elector`] decides, without I/O and without a clock; [`Election`] carries out. Neither knows what is led.

mod election;
mod elector;
mod timing;

pub use self::{
    election::{Election, Settings},
    elector::{Answer, Elector, Now, Request},
    timing::{Timing, TimingError},
};

use std::time::Instant;

/// Whether this process may write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// It may not.
    Standby {
        /// Who may, as far as that is known.
        leader: Option<String>,
    },
    /// It may begin to write until this instant; each renewal moves it forward.
    Leading {
        /// The deadline.
        until: Instant,
    },
}

impl Leadership {
    /// Whether a write may begin now. Ask before each, as the deadline may pass while a process stands still.
    pub fn may_write(&self, now: Instant) -> bool {
        matches!(self, Self::Leading { until } if now < *until)
    }
}
