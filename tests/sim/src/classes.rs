//! The classes of faults, each with what it promises: one table.
//!
//! Rules marked "now" in docs/protocol.md are what is promised here. Classes that come with those marked "failover":
//! a drain without a hole (OFFER, rule A43), one-way links and cut pairs without flapping while they last (VOUCH, A20;
//! TELL, A40), the greater side winning after a split (reach, A27). Until then: a leaving node's addresses move at
//! once, with a gap that is bounded; one-way links and cut pairs may flap while they last and must be right after they
//! are mended.

use std::time::Duration;

use crate::check::{Bounds, Moves};
use crate::schedule::Schedule;
use crate::{disasters, disturbances};
use herald_seeds::Dice;

/// One class.
#[derive(Clone, Copy, Debug)]
pub struct Class {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What happens in it.
    pub about: &'static str,
    /// What it promises.
    pub bounds: Bounds,
    /// After the last fault everything is right and stays so within this.
    pub settle: Duration,
    /// Frames are lost: a client's last packets prove nothing.
    pub lossy: bool,
    /// One seed of it takes as long as so many of the others: so many fewer are run.
    pub cost: u64,
    /// Makes the schedule of one seed.
    pub schedule: fn(&mut Dice) -> Schedule,
}

const fn class(
    name: &'static str,
    about: &'static str,
    moves: Moves,
    dual_ms: u64,
    gap_ms: Option<u64>,
    schedule: fn(&mut Dice) -> Schedule,
) -> Class {
    let gap = match gap_ms {
        Some(ms) => Some(Duration::from_millis(ms)),
        None => None,
    };
    let bounds = Bounds { moves, dual: Duration::from_millis(dual_ms), gap, takeover: None };
    Class { name, about, bounds, settle: Duration::from_secs(2), lossy: false, cost: 1, schedule }
}

impl Class {
    const fn settles_in(self, ms: u64) -> Self {
        Self { settle: Duration::from_millis(ms), ..self }
    }

    /// What a dead node held is taken over within this.
    const fn taken_over_in(self, ms: u64) -> Self {
        Self { bounds: Bounds { takeover: Some(Duration::from_millis(ms)), ..self.bounds }, ..self }
    }

    const fn costing(self, cost: u64) -> Self {
        Self { cost, ..self }
    }

    const fn with_loss(self) -> Self {
        Self { lossy: true, ..self }
    }
}

const ONCE: Moves = Moves::FromStruck(1);
const STRUCK: Moves = Moves::FromStruck(u32::MAX);

/// All of them.
pub const CLASSES: &[Class] = &[
    class("start", "nodes start one by one over 5 s", Moves::None, 250, Some(300), disturbances::start),
    class("loss", "30 % loss on every path for 20 s", Moves::None, 1_000, None, disturbances::loss)
        .with_loss(),
    class("crash", "a holder dies", ONCE, 250, Some(250), disasters::crash).taken_over_in(130),
    class(
        "crash-no-echo",
        "a holder dies, no node answers echo",
        ONCE,
        250,
        Some(250),
        disasters::crash_no_echo,
    )
    .taken_over_in(130),
    // About 400 ms at 30 % loss; 600 more where both survivors had no proof for 60 ms (rule A26), once in thousands.
    class("crash-loss", "a holder dies at 10 to 30 % loss", ONCE, 1_000, None, disasters::crash_loss)
        .with_loss()
        .taken_over_in(1_100),
    class(
        "crash-two",
        "two nodes die within 150 ms",
        Moves::FromStruck(2),
        250,
        Some(450),
        disasters::crash_two,
    )
    .taken_over_in(300),
    class(
        "crash-two-loss",
        "two nodes die within 150 ms, at 10 to 30 % loss",
        Moves::FromStruck(2),
        1_000,
        None,
        disasters::crash_two_loss,
    )
    .with_loss()
    .taken_over_in(1_300),
    class("return", "a holder dies and comes back", ONCE, 250, Some(250), disasters::comes_back),
    class(
        "restart-quick",
        "a speaker is killed and back before it is missed",
        Moves::None,
        250,
        Some(100),
        disturbances::restart_quick,
    ),
    class(
        "restart",
        "a speaker is killed and back within 4 s",
        Moves::None,
        250,
        Some(100),
        disturbances::restart,
    ),
    class(
        "restart-late",
        "a speaker is killed and back after 6 to 8 s",
        ONCE,
        250,
        Some(100),
        disturbances::restart_late,
    ),
    class(
        "restart-cold",
        "a speaker is killed and back within 4 s, while clients come that don't know it",
        Moves::None,
        250,
        // Who asks within the first 120 ms, before anybody knows, asks again a second later.
        Some(1_250),
        disturbances::restart_cold,
    ),
    class(
        "term",
        "a speaker ends by SIGTERM and is back within 30 s",
        Moves::None,
        250,
        Some(100),
        disturbances::term,
    ),
    class(
        "term-cold",
        "the same, while clients come that don't know it",
        Moves::None,
        250,
        Some(100),
        disturbances::term_cold,
    ),
    class(
        "term-late",
        "a speaker ends by SIGTERM and is not back within its 60 s",
        ONCE,
        250,
        Some(100),
        disturbances::term_late,
    )
    .costing(4),
    class(
        "term-loss",
        "a speaker ends by SIGTERM and is back within 4 s, at 10 to 30 % loss",
        Moves::None,
        1_000,
        None,
        disturbances::term_loss,
    )
    .settles_in(4_000)
    .with_loss(),
    class(
        "term-no-echo",
        "a speaker ends by SIGTERM and is back within 9 s, or is killed and back within 2 s, no node answers echo",
        Moves::None,
        250,
        Some(100),
        disturbances::term_no_echo,
    ),
    class(
        "term-all",
        "all speakers end by SIGTERM or are killed within half a second, and are back within 2 s",
        Moves::None,
        250,
        Some(100),
        disturbances::term_all,
    )
    .settles_in(4_000),
    class(
        "rollout",
        "one speaker after the other ends by SIGTERM and is back within 10 s",
        Moves::None,
        250,
        Some(100),
        disturbances::rollout,
    )
    .settles_in(3_000),
    class(
        "rollout-wide",
        "two speakers are replaced at a time: one that is back first has never heard the other",
        Moves::None,
        250,
        Some(100),
        disturbances::rollout_wide,
    )
    .settles_in(3_000),
    class(
        "grace-crash",
        "a speaker ends or is killed, then its machine dies",
        ONCE,
        250,
        Some(250),
        disasters::grace_crash,
    )
    .taken_over_in(170),
    class(
        "grace-crash-cold",
        "a speaker ends, clients come that don't know it, then its machine dies",
        ONCE,
        250,
        // Who asks between the death and the claim asks again a second later.
        Some(1_250),
        disasters::grace_crash_cold,
    )
    .taken_over_in(170),
    class(
        "grace-crash-no-echo",
        "a speaker ends or is killed, then its machine dies, no node answers echo",
        ONCE,
        250,
        Some(1_350),
        disasters::grace_crash_no_echo,
    )
    .taken_over_in(1_300),
    class(
        "grace-hiccup",
        "a speaker ends or is killed, and its machine answers late now and then",
        Moves::None,
        250,
        Some(200),
        disasters::grace_hiccup,
    ),
    class(
        "restart-excluded",
        "an address is given to others while the speaker that held it is away",
        STRUCK,
        250,
        Some(1_250),
        disturbances::restart_excluded,
    )
    .settles_in(3_000),
    class(
        "restart-all",
        "all speakers are killed and back within a second",
        Moves::None,
        250,
        Some(100),
        disturbances::restart_all,
    )
    .settles_in(3_000),
    class(
        "restart-loss",
        "a speaker is killed and back within 2 s at 10 to 30 % loss",
        Moves::None,
        1_000,
        None,
        disturbances::restart_loss,
    )
    .settles_in(4_000)
    .with_loss(),
    class(
        "drain",
        "a node is cordoned, then its speaker ends by SIGTERM",
        ONCE,
        250,
        Some(200),
        disturbances::drain,
    ),
    class("isolate", "a node is cut off for 0.1 to 6 s", ONCE, 250, Some(300), disasters::isolate),
    class(
        "bounce",
        "the switch restarts, its ports come back within 400 ms",
        Moves::None,
        250,
        None,
        disasters::bounce,
    ),
    class(
        "bounce-slow",
        "the switch restarts, its ports come back over 4 s",
        STRUCK,
        250,
        None,
        disasters::bounce_slow,
    ),
    class(
        "partition",
        "the network splits, clients on both sides, and heals",
        Moves::Any,
        250,
        None,
        disasters::partition,
    ),
    class(
        "one-way",
        "frames from one node to another are lost for a while",
        Moves::Any,
        250,
        None,
        disasters::one_way,
    ),
    class("pair", "two nodes don't hear each other for a while", Moves::Any, 250, None, disasters::pair),
    class(
        "stop",
        "a speaker is stopped (SIGSTOP) for 0.05 to 4 s",
        Moves::None,
        250,
        Some(100),
        disturbances::stop,
    ),
    class(
        "pause",
        "a machine is paused, its clock with it, for 0.05 to 4 s",
        ONCE,
        250,
        Some(250),
        disasters::pause,
    ),
    class(
        "interface",
        "a holder's interface goes and is back, perhaps with another index and MAC address",
        ONCE,
        250,
        Some(300),
        disasters::interface,
    ),
    class("filtered", "hellos never pass, ARP does; a holder dies", ONCE, 250, None, disasters::filtered)
        .taken_over_in(20_000)
        .settles_in(25_000),
    class("filter", "hellos do not pass for a while, ARP does", Moves::Any, 10_000, None, disasters::filter)
        .settles_in(5_000),
    class(
        "churn",
        "addresses are made, deleted, made again, assigned to other nodes; nodes excluded",
        STRUCK,
        1_500,
        None,
        disturbances::churn,
    )
    .settles_in(5_000),
    class(
        "api-cut",
        "nodes without API keep older copies while specs change; one dies",
        STRUCK,
        1_500,
        None,
        disturbances::api_cut,
    )
    .settles_in(15_000),
    class(
        "reuse",
        "an address is deleted and made again for other nodes",
        STRUCK,
        1_500,
        None,
        disturbances::reuse,
    )
    .settles_in(5_000),
    class("mix", "any faults, one after another", STRUCK, 1_500, None, disasters::mix).settles_in(5_000),
    class("mix-loss", "any faults, at up to 30 % loss", STRUCK, 2_000, None, disasters::mix_loss)
        .settles_in(5_000)
        .with_loss(),
    class(
        "many",
        "a node returns to 150 addresses, more than a frame holds, while some are deleted",
        STRUCK,
        250,
        None,
        disturbances::many,
    )
    .settles_in(5_000)
    .costing(3),
    // A table of four frames may be unknown for a second at 30 % loss, and then holds up no claim (rule A33): such a
    // claim never wins, yet it is one.
    class("many-loss", "the same at 10 to 30 % loss", Moves::Any, 250, None, disturbances::many_loss)
        .settles_in(5_000)
        .with_loss()
        .costing(3),
];

/// The class of this name.
pub fn find(name: &str) -> Option<&'static Class> {
    CLASSES.iter().find(|class| class.name == name)
}
