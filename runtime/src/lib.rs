//! What both processes share, and nothing else: the API client, watches with back-off, leader
//! election, admin endpoints, metrics, readiness, telemetry and shutdown.
//!
//! What must always hold here: nothing in this crate decides anything about addresses, and nothing
//! in it ends the process on bad outside input. A missing API server, a missing right or a missing
//! CRD is said once, shows in readiness, and is retried with back-off for as long as it takes.

pub mod admin;
pub mod client;
pub mod lease;
pub mod metrics;
pub mod random;
pub mod readiness;
pub mod shutdown;
pub mod telemetry;
pub mod watch;

pub use readiness::Readiness;

use random::random;

/// The version both binaries report (user agent, metrics).
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit they were built from, as far as that is known.
pub const COMMIT: &str = env!("HERALD_COMMIT");
/// What `--version` says.
pub const LONG_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("HERALD_COMMIT"), ")");
