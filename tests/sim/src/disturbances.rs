//! Schedules in which no machine and no cable fails: starts, loss, restarts, stops, and what the API does.

use std::time::Duration;

use herald_l2::NodeState;

use crate::faults::{Fault, Who};
use crate::schedule::{Schedule, Setup};
use herald_seeds::Dice;

/// A world of ordinary size.
pub(crate) fn world(dice: &mut Dice) -> Schedule {
    let ages = [Duration::from_mins(5), Duration::from_secs(2)];
    Schedule::new(Setup {
        nodes: dice.number(2, 5),
        clients: dice.number(1, 3),
        vips: dice.number(1, 4),
        ageing: dice.pick(&ages).copied().unwrap_or_default(),
        ..Setup::default()
    })
}

/// The same, with loss from the start. Loss is measured over 64 hellos, so it takes longer to warm up.
pub(crate) fn lossy_world(dice: &mut Dice, losses: &[f64]) -> Schedule {
    let mut schedule = world(dice);
    schedule.loss = dice.pick(losses).copied().unwrap_or_default();
    schedule.warm_at = Duration::from_secs(8);
    schedule.tail = Duration::from_secs(8);
    schedule
}

/// Sometime within the first second after the warm-up.
pub(crate) fn soon(dice: &mut Dice) -> Duration {
    dice.ms(0, 1_000)
}

pub(crate) fn start(dice: &mut Dice) -> Schedule {
    let mut schedule = world(dice);
    schedule.setup.start_within = Duration::from_secs(5);
    schedule.warm_at = Duration::from_secs(3);
    schedule.steps.push((Duration::from_secs(7), Fault::Loss(0.0)));
    schedule
}

pub(crate) fn loss(dice: &mut Dice) -> Schedule {
    let mut schedule = lossy_world(dice, &[0.3]);
    schedule.tail = Duration::from_secs(18);
    schedule
}

pub(crate) fn restart_quick(dice: &mut Dice) -> Schedule {
    let mut schedule = world(dice);
    let at = soon(dice);
    schedule.at(at, Fault::Kill(Who::HolderOf(0)));
    schedule.at(at + dice.ms(5, 50), Fault::Start(Who::Slot(0)));
    schedule
}

pub(crate) fn restart(dice: &mut Dice) -> Schedule {
    let mut schedule = world(dice);
    let at = soon(dice);
    schedule.at(at, Fault::Kill(Who::HolderOf(0)));
    schedule.at(at + dice.ms(50, 4_000), Fault::Start(Who::Slot(0)));
    schedule
}

pub(crate) fn restart_all(dice: &mut Dice) -> Schedule {
    let mut schedule = world(dice);
    let at = soon(dice);
    for node in 0..schedule.setup.nodes {
        // Together: one that outlives the others by its detection time is rightly their successor.
        schedule.at(at + dice.ms(0, 20), Fault::Kill(Who::Node(node)));
        schedule.at(at + dice.ms(100, 1_000), Fault::Start(Who::Node(node)));
    }
    schedule
}

pub(crate) fn restart_loss(dice: &mut Dice) -> Schedule {
    let mut schedule = lossy_world(dice, &[0.1, 0.2, 0.3]);
    let at = soon(dice);
    schedule.at(at, Fault::Kill(Who::HolderOf(0)));
    schedule.at(at + dice.ms(5, 2_000), Fault::Start(Who::Slot(0)));
    schedule
}

pub(crate) fn restart_late(dice: &mut Dice) -> Schedule {
    let mut schedule = world(dice);
    let at = soon(dice);
    schedule.at(at, Fault::Kill(Who::HolderOf(0)));
    schedule.at(at + dice.ms(6_000, 8_000), Fault::Start(Who::Slot(0)));
    schedule
}

/// Clients that know nothing, from now and then until `end`.
pub(crate) fn newcomers(schedule: &mut Schedule, dice: &mut Dice, from: Duration, end: Duration) {
    for _ in 0..dice.number(1, 4) {
        schedule.at(dice.time(from, end), Fault::Forget);
    }
}

pub(crate) fn restart_cold(dice: &mut Dice) -> Schedule {
    let mut schedule = world(dice);
    let at = soon(dice);
    let back = at + dice.ms(50, 4_000);
    schedule.at(at, Fault::Kill(Who::HolderOf(0)));
    newcomers(&mut schedule, dice, at, back + Duration::from_secs(1));
    schedule.at(back, Fault::Start(Who::Slot(0)));
    schedule
}

fn ends(mut schedule: Schedule, dice: &mut Dice, back: (u64, u64)) -> (Schedule, Duration, Duration) {
    let at = soon(dice);
    let back = at + dice.ms(back.0, back.1);
    schedule.at(at, Fault::Leave(Who::HolderOf(0)));
    schedule.at(back, Fault::Start(Who::Slot(0)));
    (schedule, at, back)
}

pub(crate) fn term(dice: &mut Dice) -> Schedule {
    let schedule = world(dice);
    let longest = if dice.chance(0.8) { 6_000 } else { 30_000 };
    ends(schedule, dice, (50, longest)).0
}

pub(crate) fn term_cold(dice: &mut Dice) -> Schedule {
    let schedule = world(dice);
    let (mut schedule, at, back) = ends(schedule, dice, (50, 6_000));
    // The first goodbye is on its way for a moment.
    newcomers(&mut schedule, dice, at + Duration::from_millis(2), back + Duration::from_secs(1));
    schedule
}

/// While a speaker is away the address is given to others: to all of them, or to one that has started anew meanwhile and
/// never heard the one that is away.
pub(crate) fn restart_excluded(dice: &mut Dice) -> Schedule {
    let mut schedule = world(dice);
    schedule.setup.nodes = dice.number(3, 5);
    let mut at = soon(dice);
    schedule.at(at, Fault::Leave(Who::HolderOf(0)));
    at += dice.ms(20, 500);
    let mut without = vec![Who::Slot(0)];
    if dice.chance(0.5) {
        let heir = Who::Slot(9);
        schedule.at(at, Fault::Leave(Who::Idle));
        at += dice.ms(50, 1_000);
        schedule.at(at, Fault::Start(heir));
        without = vec![Who::AllBut(9)];
    }
    at += dice.ms(0, 3_000);
    schedule.at(at, Fault::Assign { vip: 0, without });
    // Rule A42, and the time that a new speaker listens.
    schedule.judge(at + Duration::from_millis(2_500), Some(0));
    newcomers(&mut schedule, dice, at, at + Duration::from_secs(4));
    let back = at + dice.ms(50, 10_000);
    schedule.at(back, Fault::Start(Who::Slot(0)));
    schedule
}

pub(crate) fn term_late(dice: &mut Dice) -> Schedule {
    let schedule = world(dice);
    ends(schedule, dice, (61_000, 63_000)).0
}

pub(crate) fn term_loss(dice: &mut Dice) -> Schedule {
    let schedule = lossy_world(dice, &[0.1, 0.2, 0.3]);
    ends(schedule, dice, (50, 3_500)).0
}

pub(crate) fn term_no_echo(dice: &mut Dice) -> Schedule {
    let mut schedule = world(dice);
    schedule.setup.echo = false;
    let at = soon(dice);
    let who = Who::HolderOf(0);
    // What answers ARP may be a switch: nothing is kept for as long as where echo passes (rule A23).
    let (end, longest) =
        if dice.chance(0.5) { (Fault::Leave(who), 9_000) } else { (Fault::Kill(who), 1_900) };
    schedule.at(at, end);
    schedule.at(at + dice.ms(50, longest), Fault::Start(Who::Slot(0)));
    schedule
}

pub(crate) fn term_all(dice: &mut Dice) -> Schedule {
    let mut schedule = world(dice);
    let at = soon(dice);
    for node in (0..schedule.setup.nodes).map(Who::Node) {
        let end = at + dice.ms(0, 500);
        schedule.at(end, if dice.chance(0.5) { Fault::Leave(node) } else { Fault::Kill(node) });
        schedule.at(end + dice.ms(100, 2_000), Fault::Start(node));
    }
    schedule
}

/// A `DaemonSet`'s rolling update: the next goes when the last is ready again.
pub(crate) fn rollout(dice: &mut Dice) -> Schedule {
    let mut schedule = world(dice);
    let mut at = soon(dice);
    for node in 0..schedule.setup.nodes {
        let longest = if dice.chance(0.8) { 3_000 } else { 10_000 };
        let back = at + dice.ms(100, longest);
        schedule.at(at, Fault::Leave(Who::Node(node)));
        schedule.at(back, Fault::Start(Who::Node(node)));
        at = back + dice.ms(1_700, 5_000);
    }
    schedule
}

pub(crate) fn rollout_wide(dice: &mut Dice) -> Schedule {
    let mut schedule = world(dice);
    schedule.setup.nodes = dice.number(3, 5);
    let at = soon(dice);
    let second = at + dice.ms(0, 500);
    let first_back = second + dice.ms(100, 2_000);
    schedule.at(at, Fault::Leave(Who::Node(0)));
    schedule.at(second, Fault::Leave(Who::Node(1)));
    schedule.at(first_back, Fault::Start(Who::Node(0)));
    schedule.at(first_back + dice.ms(0, 10_000), Fault::Start(Who::Node(1)));
    schedule
}

pub(crate) fn drain(dice: &mut Dice) -> Schedule {
    let mut schedule = world(dice);
    let at = soon(dice);
    let state = NodeState { cordoned: true, ..NodeState::default() };
    schedule.at(at, Fault::Node { who: Who::HolderOf(0), state });
    let end = at + dice.ms(100, 1_000);
    schedule.at(end, Fault::Leave(Who::Slot(0)));
    // It is back, still cordoned, or stays away.
    if dice.chance(0.5) {
        schedule.at(end + dice.ms(300, 3_000), Fault::Start(Who::Slot(0)));
    }
    schedule
}

pub(crate) fn stop(dice: &mut Dice) -> Schedule {
    let mut schedule = world(dice);
    let at = soon(dice);
    schedule.at(at, Fault::Stop(Who::HolderOf(0)));
    schedule.at(at + dice.ms(50, 4_000), Fault::Continue(Who::Slot(0)));
    schedule
}

/// One change of what the API says.
pub(crate) fn spec_change(dice: &mut Dice, setup: &Setup) -> Fault {
    let vip = dice.number(0, setup.vips.saturating_sub(1));
    let without = if dice.chance(0.5) {
        vec![Who::HolderOf(vip)]
    } else {
        let node = dice.number(0, setup.nodes.saturating_sub(1));
        vec![Who::Node(node)]
    };
    match dice.number(0, 5) {
        0 => Fault::Delete { vip },
        1 => Fault::Create { vip, without: Vec::new() },
        2 => Fault::Create { vip, without },
        3 => Fault::Assign { vip, without: Vec::new() },
        4 => Fault::Touch { vip },
        _ => Fault::Assign { vip, without },
    }
}

pub(crate) fn churn(dice: &mut Dice) -> Schedule {
    let mut schedule = world(dice);
    let mut at = soon(dice);
    for _ in 0..dice.number(2, 8) {
        let change = spec_change(dice, &schedule.setup);
        schedule.at(at, change);
        at += dice.ms(0, 1_500);
    }
    if dice.chance(0.5) {
        let who = Who::Node(dice.number(0, schedule.setup.nodes - 1));
        let state = NodeState {
            cordoned: dice.chance(0.3),
            excluded: dice.chance(0.3),
            out_of_service: dice.chance(0.3),
        };
        schedule.at(at, Fault::Node { who, state });
        if dice.chance(0.5) {
            at += dice.ms(100, 3_000);
            schedule.at(at, Fault::Node { who, state: NodeState::default() });
        }
    }
    schedule
}

pub(crate) fn api_cut(dice: &mut Dice) -> Schedule {
    let mut schedule = world(dice);
    let nodes = schedule.setup.nodes;
    for node in 0..nodes {
        if dice.chance(0.5) {
            schedule.at(dice.ms(0, 300), Fault::ApiCut(Who::Node(node)));
            if dice.chance(0.5) {
                schedule.at(dice.ms(1_000, 5_000), Fault::ApiBack(Who::Node(node)));
            }
        }
    }
    for _ in 0..dice.number(1, 4) {
        let change = spec_change(dice, &schedule.setup);
        schedule.at(dice.ms(100, 3_000), change);
    }
    if dice.chance(0.3) {
        let node = Who::Node(dice.number(0, nodes - 1));
        let link = dice.chance(0.5);
        schedule.at(dice.ms(500, 4_000), Fault::Crash { who: node, link });
    }
    schedule
}

pub(crate) fn reuse(dice: &mut Dice) -> Schedule {
    let mut schedule = world(dice);
    let at = soon(dice);
    let node = dice.number(0, schedule.setup.nodes - 1);
    let without = match dice.number(0, 2) {
        0 => vec![Who::HolderOf(0)],
        1 => vec![Who::Node(node)],
        _ => Vec::new(),
    };
    schedule.at(at, Fault::Delete { vip: 0 });
    schedule.at(at + dice.ms(1, 4_000), Fault::Create { vip: 0, without });
    schedule
}

fn crowded(mut schedule: Schedule, dice: &mut Dice) -> Schedule {
    schedule.setup.nodes = dice.number(2, 3);
    schedule.setup.clients = 0;
    schedule.setup.vips = 150;
    schedule.setup.packet_every = Duration::from_secs(1);
    let at = soon(dice);
    let who = Who::HolderOf(0);
    if dice.chance(0.5) {
        schedule.at(at, Fault::Kill(who));
        schedule.at(at + dice.ms(5, 2_000), Fault::Start(Who::Slot(0)));
    } else {
        schedule.at(at, Fault::Stop(who));
        schedule.at(at + dice.ms(100, 2_000), Fault::Continue(Who::Slot(0)));
    }
    for _ in 0..dice.number(0, 20) {
        let vip = dice.number(0, 149);
        let step = at + dice.ms(0, 4_000);
        schedule.at(step, if dice.chance(0.7) { Fault::Delete { vip } } else { Fault::Touch { vip } });
    }
    schedule
}

pub(crate) fn many(dice: &mut Dice) -> Schedule {
    let schedule = world(dice);
    crowded(schedule, dice)
}

pub(crate) fn many_loss(dice: &mut Dice) -> Schedule {
    let schedule = lossy_world(dice, &[0.1, 0.3]);
    crowded(schedule, dice)
}
