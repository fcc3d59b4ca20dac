//! The classes of disturbances: what is done in each, how often, and in which weather.

use std::time::Duration;

use herald_runtime::lease::Timing;

use crate::Moment;
use crate::api::Without;
use crate::faults::{Aim, Fault};
use crate::network::Weather;
use crate::users::{Act, Flavour};
use crate::world::Happening;
use herald_seeds::Dice;

/// Disturbances of one kind.
#[derive(Debug)]
pub struct Class {
    /// Its name.
    pub name: &'static str,
    /// What happens in it, in one line.
    pub about: &'static str,
    /// What users do, beside coming and going of Services.
    acts: &'static [Act],
    faults: &'static [Fault],
    weather: Weather,
    flavour: Flavour,
}

/// One run, planned.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<(Moment, Happening)>,
    pub(crate) weather: Weather,
    pub(crate) flavour: Flavour,
    pub(crate) timing: Timing,
    pub(crate) without: Without,
    /// When the last disturbance begins.
    pub(crate) last: Moment,
}

const COMING_AND_GOING: &[Act] = &[
    Act::CreateService,
    Act::CreateService,
    Act::CreateService,
    Act::DeleteService,
    Act::RecreateService,
    Act::ServiceLabel,
];

const PLAIN: Flavour = Flavour { pins: 0.1, keys: 0.1, dual: 0.2 };

const KILLS: &[Fault] = &[Fault::Kill, Fault::Armed(Aim::Kill), Fault::Armed(Aim::Kill), Fault::Stop];
const FREEZES: &[Fault] = &[Fault::Freeze, Fault::Armed(Aim::Freeze), Fault::Armed(Aim::Freeze)];
const CUTS: &[Fault] = &[Fault::Cut, Fault::Armed(Aim::Cut), Fault::Armed(Aim::Cut)];
const LEASE: &[Fault] = &[Fault::LeaseDeleted, Fault::LeaseEdited, Fault::Armed(Aim::Lease)];
const WATCHES: &[Fault] = &[Fault::WatchesBreak, Fault::Compaction];
const ALL_FAULTS: &[Fault] = &[
    Fault::Kill,
    Fault::Armed(Aim::Kill),
    Fault::Stop,
    Fault::Freeze,
    Fault::Armed(Aim::Freeze),
    Fault::Cut,
    Fault::Armed(Aim::Cut),
    Fault::LeaseDeleted,
    Fault::LeaseEdited,
    Fault::Armed(Aim::Lease),
    Fault::WatchesBreak,
    Fault::Compaction,
];

const POOL_ACTS: &[Act] = &[
    Act::PoolAddresses,
    Act::PoolAddresses,
    Act::PoolExcluded,
    Act::PoolAllocation,
    Act::PoolTerms,
    Act::DeletePool,
    Act::CreatePool,
    Act::OverlapPool,
    Act::Namespace,
];
const SERVICE_ACTS: &[Act] = &[
    Act::ServiceType,
    Act::ServiceType,
    Act::ServicePins,
    Act::ServicePool,
    Act::ServiceFamilies,
    Act::RecreateService,
];
const HAND_ACTS: &[Act] = &[
    Act::StatusByHand,
    Act::StatusByHand,
    Act::DeleteAddress,
    Act::DeleteAddress,
    Act::EditAddress,
    Act::DoubleUser,
    Act::ForeignProblem,
    Act::Manifest,
    Act::Reserve,
    Act::Unreserve,
    Act::Finalizer,
];
const ALL_ACTS: &[Act] = &[
    Act::PoolAddresses,
    Act::PoolExcluded,
    Act::PoolAllocation,
    Act::PoolTerms,
    Act::DeletePool,
    Act::CreatePool,
    Act::OverlapPool,
    Act::ServiceType,
    Act::ServicePins,
    Act::ServicePool,
    Act::ServiceFamilies,
    Act::ServiceSharing,
    Act::StatusByHand,
    Act::DeleteAddress,
    Act::EditAddress,
    Act::DoubleUser,
    Act::ForeignProblem,
    Act::Manifest,
    Act::Reserve,
    Act::Unreserve,
    Act::Finalizer,
    Act::Advertisement,
    Act::Node,
    Act::Endpoints,
    Act::Namespace,
];

const fn class(
    name: &'static str,
    about: &'static str,
    acts: &'static [Act],
    faults: &'static [Fault],
    weather: Weather,
    flavour: Flavour,
) -> Class {
    Class { name, about, acts, faults, weather, flavour }
}

/// All classes.
pub static CLASSES: &[Class] = &[
    class("calm", "Services come and go, nothing goes wrong", &[], &[], Weather::FAIR, PLAIN),
    class(
        "kill",
        "controllers are killed, mostly in the middle of a write, or stopped",
        &[],
        KILLS,
        Weather::FAIR,
        PLAIN,
    ),
    class(
        "freeze",
        "a leader stands still beyond its lease and wakes with writes under way",
        &[],
        FREEZES,
        Weather::FAIR,
        PLAIN,
    ),
    class(
        "slow",
        "the same, and every request and answer takes up to half a second",
        &[],
        FREEZES,
        Weather::SLOW,
        PLAIN,
    ),
    class(
        "partition",
        "a controller and the API server don't reach each other",
        &[],
        CUTS,
        Weather::FAIR,
        PLAIN,
    ),
    class("lease", "the Lease is deleted or edited: two lead", &[], LEASE, Weather::FAIR, PLAIN),
    class("answers", "requests and answers are lost, late or refused", &[], &[], Weather::ANSWERS, PLAIN),
    class("watches", "watches lag, stall, break and begin anew", &[], WATCHES, Weather::WATCHES, PLAIN),
    class("pools", "pools are edited under their users", POOL_ACTS, &[], Weather::FAIR, PLAIN),
    class(
        "services",
        "Services change type, request and families",
        SERVICE_ACTS,
        &[],
        Weather::FAIR,
        Flavour { pins: 0.3, ..PLAIN },
    ),
    class(
        "sharing",
        "Services share addresses, change keys, ports and policies",
        &[Act::ServiceSharing, Act::ServiceSharing, Act::ServicePins],
        &[],
        Weather::FAIR,
        Flavour { pins: 0.3, keys: 0.8, dual: 0.1 },
    ),
    class(
        "dual",
        "dual-stack Services, pools that gain and lose a family",
        &[Act::ServiceFamilies, Act::ServiceFamilies, Act::PoolAddresses],
        &[],
        Weather::FAIR,
        Flavour { dual: 0.9, ..PLAIN },
    ),
    class(
        "hands",
        "statuses and LoadBalancerIPs are edited by hand, reservations come and go",
        HAND_ACTS,
        &[],
        Weather::FAIR,
        PLAIN,
    ),
    class("faults", "every fault of processes, network and watches", &[], ALL_FAULTS, Weather::MIXED, PLAIN),
    class(
        "mix",
        "everything",
        ALL_ACTS,
        ALL_FAULTS,
        Weather::MIXED,
        Flavour { pins: 0.2, keys: 0.3, dual: 0.3 },
    ),
];

/// The class of this name.
pub fn find(name: &str) -> Option<&'static Class> {
    CLASSES.iter().find(|class| class.name == name)
}

impl Class {
    pub(crate) fn plan(&self, dice: &mut Dice, without: Without) -> Plan {
        let mut steps = Vec::new();
        let first = Duration::from_secs(1);
        let long = dice.whole_ms(15_000, 45_000);
        let mut add = |dice: &mut Dice, count: usize, what: &dyn Fn(&mut Dice) -> Option<Happening>| {
            for _ in 0..count {
                let at = dice.whole_time(first, long);
                if let Some(what) = what(dice) {
                    steps.push((at, what));
                }
            }
        };
        let comings = dice.number(4, 14);
        add(dice, comings, &|dice| dice.pick(COMING_AND_GOING).copied().map(Happening::Act));
        let acts = if self.acts.is_empty() { 0 } else { dice.number(2, 12) };
        add(dice, acts, &|dice| dice.pick(self.acts).copied().map(Happening::Act));
        let faults = if self.faults.is_empty() { 0 } else { dice.number(1, 5) };
        add(dice, faults, &|dice| dice.pick(self.faults).copied().map(Happening::Fault));
        let short =
            Timing::new(Duration::from_secs(2), Duration::from_millis(1_500), Duration::from_millis(500));
        let timing = if dice.chance(0.8) { Timing::default() } else { short.unwrap_or_default() };
        Plan { steps, weather: self.weather, flavour: self.flavour, timing, without, last: long }
    }
}
