//! What one run consists of: a world, faults with their times, and moments at which it is judged.

use std::time::Duration;

use herald_l2::{Ablation, Profile};

use crate::Moment;
use crate::faults::Fault;

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Nodes with a speaker.
    pub nodes: usize,
    /// Clients, beside the gateway.
    pub clients: usize,
    /// Addresses, half of them IPv6.
    pub vips: usize,
    /// The pace of hellos.
    pub profile: Profile,
    /// Rules taken out.
    pub ablation: Ablation,
    /// The switch forgets an address that was silent for this long.
    pub ageing: Duration,
    /// Each host sends to each address this often.
    pub packet_every: Duration,
    /// Nodes start within this.
    pub start_within: Duration,
    /// The nodes' kernels answer echo.
    pub echo: bool,
    /// A turn of a loop may be late by this, rarely.
    pub hiccup: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            nodes: 3,
            clients: 2,
            vips: 3,
            profile: Profile::Default,
            ablation: Ablation::default(),
            ageing: Duration::from_mins(5),
            packet_every: Duration::from_millis(20),
            start_within: Duration::from_millis(300),
            echo: true,
            hiccup: Duration::from_millis(4),
        }
    }
}

/// The plan of one run.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// The world.
    pub setup: Setup,
    /// Faults, in any order.
    pub steps: Vec<(Moment, Fault)>,
    /// The nodes have started and shared out the addresses by then; before, nothing is judged.
    pub warm_at: Moment,
    /// Loss from the start on.
    pub loss: f64,
    /// Moments between faults at which holders must be right, too: of all addresses, or of the n-th.
    pub judge_at: Vec<(Moment, Option<usize>)>,
    /// How long to go on after everything has settled.
    pub tail: Duration,
}

impl Schedule {
    /// An undisturbed world.
    pub fn new(setup: Setup) -> Self {
        Self {
            setup,
            steps: Vec::new(),
            warm_at: Duration::from_millis(3_500),
            loss: 0.0,
            judge_at: Vec::new(),
            tail: Duration::from_secs(3),
        }
    }

    /// A fault, so long after the warm-up.
    pub fn at(&mut self, after: Duration, fault: Fault) {
        self.steps.push((self.warm_at + after, fault));
    }

    /// A look at the holders of all addresses, or of one, so long after the warm-up.
    pub fn judge(&mut self, after: Duration, vip: Option<usize>) {
        self.judge_at.push((self.warm_at + after, vip));
    }

    /// When the last fault strikes or is mended.
    pub fn last_fault(&self) -> Moment {
        self.steps.iter().map(|(at, _)| *at).max().unwrap_or(self.warm_at)
    }
}
