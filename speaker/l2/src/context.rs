//! What every part of the core works with: the clock's reading, randomness, what goes out.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use herald_wire::{Boot, Counter, Salt};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::config::Config;
use crate::input::NodeState;
use crate::output::{Event, Output};
use crate::snapshot::Counters;
use crate::time::Instant;

/// Boots of this process that are remembered.
const OLD_BOOTS: usize = 16;

/// Shared by all segments of a node.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: Config,
    #[cfg(feature = "ablation")]
    pub(crate) ablation: crate::config::Ablation,
    pub(crate) now: Instant,
    pub(crate) boot: Boot,
    /// The boots before, of this process: frames of theirs may still be on their way.
    pub(crate) old_boots: Vec<Boot>,
    /// Frames sent by (this boot, ifindex), for the replay window of everybody else and for rule A52.
    pub(crate) sent: BTreeMap<u32, u64>,
    /// The table version with which an interface that went begins when it is back in this boot.
    pub(crate) versions: BTreeMap<u32, u64>,
    pub(crate) node: NodeState,
    pub(crate) random: Random,
    pub(crate) counters: Counters,
    pub(crate) outputs: VecDeque<Output>,
}

impl Context {
    pub(crate) fn new(config: Config, now: Instant) -> Self {
        let mut random = Random(ChaCha12Rng::from_seed(config.seed));
        Self {
            config,
            #[cfg(feature = "ablation")]
            ablation: crate::config::Ablation::default(),
            now,
            boot: random.boot(),
            old_boots: Vec::new(),
            sent: BTreeMap::new(),
            versions: BTreeMap::new(),
            node: NodeState::default(),
            random,
            counters: Counters::default(),
            outputs: VecDeque::new(),
        }
    }

    pub(crate) fn transmit(&mut self, ifindex: u32, bytes: Vec<u8>) {
        self.outputs.push_back(Output::Transmit { ifindex, bytes });
    }

    /// A new life (rule A3).
    pub(crate) fn new_boot(&mut self) {
        let boot = self.random.boot();
        self.old_boots.push(std::mem::replace(&mut self.boot, boot));
        if self.old_boots.len() > OLD_BOOTS {
            self.old_boots.remove(0);
        }
        self.sent.clear();
        self.versions.clear();
    }

    /// The number of the next frame on an interface.
    pub(crate) fn next_counter(&mut self, ifindex: u32) -> Counter {
        let sent = self.sent.entry(ifindex).or_default();
        *sent += 1;
        Counter(*sent)
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    /// Is this rule taken out? Only simulations can.
    #[cfg(feature = "ablation")]
    pub(crate) fn lacks(&self, rule: Rule) -> bool {
        let ablation = self.ablation;
        match rule {
            Rule::Proof => ablation.no_proof,
            Rule::Reservation => ablation.no_reservation,
            Rule::Hints => ablation.no_hints,
            Rule::Drop => ablation.no_drop,
            Rule::FastSuspicion => ablation.no_fast_suspicion,
            Rule::Grace => ablation.no_grace,
            Rule::KernelProbe => ablation.no_kernel_probe,
            Rule::Deputies => ablation.no_deputies,
            Rule::Vouching => ablation.no_vouching,
        }
    }

    /// Is this rule taken out? Only simulations can.
    #[cfg(not(feature = "ablation"))]
    #[expect(
        clippy::unused_self,
        reason = "the simulation's twin of this function looks at the configuration"
    )]
    pub(crate) const fn lacks(&self, _: Rule) -> bool {
        false
    }

    /// h of rule A15.
    pub(crate) fn h(&self) -> Duration {
        self.config.profile.hello()
    }

    /// f of rule A15.
    pub(crate) fn f(&self) -> Duration {
        self.config.profile.fast()
    }
}

/// Rules that a simulation can take out, to see what they are good for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rule {
    Proof,
    Reservation,
    Hints,
    Drop,
    FastSuspicion,
    Grace,
    KernelProbe,
    Deputies,
    Vouching,
}

/// The only source of randomness.
#[derive(Debug)]
pub(crate) struct Random(ChaCha12Rng);

impl Random {
    pub(crate) fn boot(&mut self) -> Boot {
        Boot(self.0.next_u64())
    }

    pub(crate) fn salt(&mut self) -> Salt {
        Salt(self.0.next_u64())
    }

    /// One of `0..n`; 0 when there is none.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        let n = u64::try_from(n).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.0.next_u64() % n).unwrap_or_default()
    }

    /// Somewhere from `low` up to, not including, `high`.
    pub(crate) fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = u64::try_from(high.saturating_sub(low).as_nanos()).unwrap_or(u64::MAX);
        low + Duration::from_nanos(self.0.next_u64() % span.max(1))
    }
}
