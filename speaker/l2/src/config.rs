//! What the core is told once, at its start, and the times it works with.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use herald_wire::hello::Keyring;
use herald_wire::{ClusterId, NodeId};

/// Everything that stays the same while the process lives.
#[derive(Clone, Debug)]
pub struct Config {
    /// First 8 bytes of SHA-256 of the Node's UID (rule A1).
    pub node: NodeId,
    /// The Node's name, as specs and status name it.
    pub name: NodeName,
    /// Which cluster this is: hellos of another are counted and dropped (rule A5).
    pub cluster: ClusterId,
    /// The keys that hellos are sealed with.
    pub keys: Keyring,
    /// How fast hellos are.
    pub profile: Profile,
    /// All randomness of the core comes from this seed, so that it must be unpredictable in production
    /// (boot numbers and salts guard against replay) and fixed in tests.
    pub seed: [u8; 32],
}

/// The pace of hellos and of everything that is measured in them (rule A15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Profile {
    /// h = 40 ms: a lost node is noticed after about 100 ms.
    #[default]
    Default,
    /// h = 8 ms: after about 22 ms, for five times the frames.
    Fast,
}

impl Profile {
    /// h: a holder's hello interval.
    pub const fn hello(self) -> Duration {
        match self {
            Self::Default => Duration::from_millis(40),
            Self::Fast => Duration::from_millis(8),
        }
    }

    /// f: the interval while somebody is suspected.
    pub const fn fast(self) -> Duration {
        match self {
            Self::Default => Duration::from_millis(5),
            Self::Fast => Duration::from_millis(1),
        }
    }
}

/// A Node's name. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for NodeName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for NodeName {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Rules that a simulation takes out to see its class fail. `true` means: the rule is gone.
#[cfg(feature = "ablation")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a set of independent switches, one per rule")]
pub struct Ablation {
    /// Two-way proof (rules A21, A25, A26): silence alone is evidence.
    pub no_proof: bool,
    /// Reservation for a previous boot's claims (rule A31).
    pub no_reservation: bool,
    /// `status.holders` as a hint at start (rules A31, A32).
    pub no_hints: bool,
    /// DROP and the re-announcement when a partition heals (rules A37-39).
    pub no_drop: bool,
    /// Quick hellos under suspicion (rules A18, A19).
    pub no_fast_suspicion: bool,
    /// Grace for a speaker whose kernel answers (rules A23, A45): dead is gone.
    pub no_grace: bool,
    /// Deputies (rule A45).
    pub no_deputies: bool,
    /// Others' word for a kernel that answers them (rule A31).
    pub no_vouching: bool,
    /// Kernel probes (rule A22): every machine is taken to run.
    pub no_kernel_probe: bool,
}
