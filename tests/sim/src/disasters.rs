//! Schedules in which machines, cables and switches fail, alone and mixed with everything else.

use std::time::Duration;

use crate::disturbances::{lossy_world, newcomers, soon, spec_change, world};
use crate::faults::{Fault, Who};
use crate::schedule::Schedule;
use herald_seeds::Dice;

pub(crate) fn crash(dice: &mut Dice) -> Schedule {
    let mut schedule = world(dice);
    let link = dice.chance(0.5);
    schedule.at(soon(dice), Fault::Crash { who: Who::HolderOf(0), link });
    schedule
}

pub(crate) fn crash_no_echo(dice: &mut Dice) -> Schedule {
    let mut schedule = crash(dice);
    schedule.setup.echo = false;
    schedule
}

pub(crate) fn grace_crash(dice: &mut Dice) -> Schedule {
    let mut schedule = world(dice);
    let at = soon(dice);
    let who = Who::HolderOf(0);
    schedule.at(at, if dice.chance(0.5) { Fault::Kill(who) } else { Fault::Leave(who) });
    let link = dice.chance(0.5);
    schedule.at(at + dice.ms(0, 4_500), Fault::Crash { who: Who::Slot(0), link });
    schedule
}

/// The same while clients come that don't know the address: deputies tell them where it was.
pub(crate) fn grace_crash_cold(dice: &mut Dice) -> Schedule {
    let mut schedule = world(dice);
    let at = soon(dice);
    schedule.at(at, Fault::Leave(Who::HolderOf(0)));
    let dies = at + dice.ms(5, 4_500);
    let link = dice.chance(0.5);
    newcomers(&mut schedule, dice, at + Duration::from_millis(2), dies + Duration::from_secs(1));
    schedule.at(dies, Fault::Crash { who: Who::Slot(0), link });
    schedule
}

pub(crate) fn grace_crash_no_echo(dice: &mut Dice) -> Schedule {
    let mut schedule = grace_crash(dice);
    schedule.setup.echo = false;
    schedule
}

/// A machine whose speaker is away answers late, now and then: a snapshot, another machine's turn on the same host.
pub(crate) fn grace_hiccup(dice: &mut Dice) -> Schedule {
    let mut schedule = world(dice);
    let mut at = soon(dice);
    let who = Who::HolderOf(0);
    schedule.at(at, if dice.chance(0.5) { Fault::Kill(who) } else { Fault::Leave(who) });
    // Not while the speaker itself is being missed: then it is a machine that answers nothing.
    at += Duration::from_millis(130);
    for _ in 0..dice.number(1, 6) {
        at += dice.ms(30, 500);
        schedule.at(at, Fault::Pause(Who::Slot(0)));
        at += dice.ms(5, 100);
        schedule.at(at, Fault::Continue(Who::Slot(0)));
    }
    schedule.at(at + dice.ms(50, 500), Fault::Start(Who::Slot(0)));
    schedule
}

pub(crate) fn crash_two_loss(dice: &mut Dice) -> Schedule {
    let mut schedule = lossy_world(dice, &[0.1, 0.2, 0.3]);
    two_crashes(&mut schedule, dice);
    schedule
}

pub(crate) fn crash_loss(dice: &mut Dice) -> Schedule {
    let mut schedule = lossy_world(dice, &[0.1, 0.2, 0.3]);
    let link = dice.chance(0.5);
    schedule.at(soon(dice), Fault::Crash { who: Who::HolderOf(0), link });
    schedule
}

pub(crate) fn crash_two(dice: &mut Dice) -> Schedule {
    let mut schedule = world(dice);
    two_crashes(&mut schedule, dice);
    schedule
}

fn two_crashes(schedule: &mut Schedule, dice: &mut Dice) {
    schedule.setup.nodes = dice.number(3, 6);
    let at = soon(dice);
    schedule.at(at, Fault::Crash { who: Who::HolderOf(0), link: true });
    schedule.at(at + dice.ms(0, 150), Fault::Crash { who: Who::Idle, link: true });
}

pub(crate) fn comes_back(dice: &mut Dice) -> Schedule {
    let mut schedule = world(dice);
    let at = soon(dice);
    let link = dice.chance(0.5);
    schedule.at(at, Fault::Crash { who: Who::HolderOf(0), link });
    schedule.at(at + dice.ms(300, 6_000), Fault::Return(Who::Slot(0)));
    schedule
}

/// The victim's cable, or the way behind it.
pub(crate) fn isolate(dice: &mut Dice) -> Schedule {
    let mut schedule = world(dice);
    let at = soon(dice);
    let end = at + dice.ms(100, 6_000);
    let who = Who::HolderOf(0);
    if dice.chance(0.5) {
        schedule.at(at, Fault::Cable { who, up: false });
        schedule.at(end, Fault::Cable { who: Who::Slot(0), up: true });
    } else {
        schedule.at(at, Fault::Uplink { who, up: false });
        schedule.at(end, Fault::Uplink { who: Who::Slot(0), up: true });
    }
    schedule
}

/// Interfaces come and go with drivers, bonds and container networks; not always under their old index and address.
pub(crate) fn interface(dice: &mut Dice) -> Schedule {
    let mut schedule = world(dice);
    let at = soon(dice);
    let back = at + if dice.chance(0.3) { dice.ms(0, 20) } else { dice.ms(20, 4_000) };
    let renumbered = dice.chance(0.5);
    schedule.at(at, Fault::Interface { who: Who::HolderOf(0), present: false, renumbered });
    schedule.at(back, Fault::Interface { who: Who::Slot(0), present: true, renumbered });
    schedule
}

/// Hellos never pass; those who claimed in ignorance of each other have sorted it out when a holder dies.
pub(crate) fn filtered(dice: &mut Dice) -> Schedule {
    let mut schedule = world(dice);
    schedule.warm_at = Duration::from_secs(15);
    schedule.steps.push((Duration::ZERO, Fault::Filter(true)));
    schedule.at(soon(dice), Fault::Crash { who: Who::HolderOf(0), link: true });
    schedule
}

/// Hellos pass, do not for a while, and pass again.
pub(crate) fn filter(dice: &mut Dice) -> Schedule {
    let mut schedule = world(dice);
    let at = soon(dice);
    let lasts = dice.ms(200, 30_000);
    schedule.at(at, Fault::Filter(true));
    schedule.at(at + lasts, Fault::Filter(false));
    schedule
}

fn switch_restart(dice: &mut Dice, back_within: Duration) -> Schedule {
    let mut schedule = world(dice);
    let at = soon(dice);
    schedule.at(at, Fault::SwitchOff);
    let first = at + dice.ms(500, 3_000);
    let ports = schedule.setup.nodes + schedule.setup.clients + 1;
    for port in 0..ports {
        let back = first + dice.time(Duration::ZERO, back_within);
        let forwarding = dice.chance(0.5);
        schedule.at(back, Fault::PortUp { port, forwarding });
        if !forwarding {
            let rest = (first + back_within).saturating_sub(back);
            schedule.at(back + dice.time(Duration::ZERO, rest), Fault::Forward { port });
        }
    }
    schedule
}

pub(crate) fn bounce(dice: &mut Dice) -> Schedule {
    switch_restart(dice, Duration::from_millis(400))
}

pub(crate) fn bounce_slow(dice: &mut Dice) -> Schedule {
    switch_restart(dice, Duration::from_secs(4))
}

fn split(dice: &mut Dice, ports: usize) -> Fault {
    Fault::Split((0..ports).map(|_| u8::from(dice.chance(0.5))).collect())
}

pub(crate) fn partition(dice: &mut Dice) -> Schedule {
    let mut schedule = world(dice);
    schedule.setup.nodes = dice.number(2, 6);
    let ports = schedule.setup.nodes + schedule.setup.clients + 1;
    let at = soon(dice);
    schedule.at(at, split(dice, ports));
    let lasts = dice.ms(50, 6_000);
    if lasts > Duration::from_millis(2_500) {
        schedule.judge(at + Duration::from_millis(2_500), None);
    }
    schedule.at(at + lasts, Fault::Heal);
    schedule
}

fn path(dice: &mut Dice, both: bool) -> Schedule {
    let mut schedule = world(dice);
    schedule.setup.nodes = dice.number(3, 5);
    let at = soon(dice);
    let end = at + dice.ms(100, 5_000);
    let (a, b) = (Who::HolderOf(0), Who::Idle);
    let (found_a, found_b) = (Who::Slot(0), Who::Slot(9));
    schedule.at(at, Fault::Path { from: a, to: b, cut: true });
    schedule.at(end, Fault::Path { from: found_a, to: found_b, cut: false });
    if both {
        schedule.at(at, Fault::Path { from: found_b, to: found_a, cut: true });
        schedule.at(end, Fault::Path { from: found_b, to: found_a, cut: false });
    }
    schedule
}

pub(crate) fn one_way(dice: &mut Dice) -> Schedule {
    path(dice, false)
}

pub(crate) fn pair(dice: &mut Dice) -> Schedule {
    path(dice, true)
}

pub(crate) fn pause(dice: &mut Dice) -> Schedule {
    let mut schedule = world(dice);
    let at = soon(dice);
    schedule.at(at, Fault::Pause(Who::HolderOf(0)));
    schedule.at(at + dice.ms(50, 4_000), Fault::Continue(Who::Slot(0)));
    schedule
}

/// One fault and its mending, from `at` on.
fn any_fault(schedule: &mut Schedule, dice: &mut Dice, at: Duration) {
    let node = Who::Node(dice.number(0, schedule.setup.nodes - 1));
    let end = at + dice.ms(20, 3_000);
    let ports = schedule.setup.nodes + schedule.setup.clients + 1;
    let (fault, mended) = match dice.number(0, 9) {
        0 => (Fault::Crash { who: node, link: dice.chance(0.5) }, Fault::Return(node)),
        1 => (Fault::Kill(node), Fault::Start(node)),
        2 => (Fault::Leave(node), Fault::Start(node)),
        3 => (Fault::Stop(node), Fault::Continue(node)),
        4 => (Fault::Pause(node), Fault::Continue(node)),
        5 => (Fault::Cable { who: node, up: false }, Fault::Cable { who: node, up: true }),
        6 => (Fault::Uplink { who: node, up: false }, Fault::Uplink { who: node, up: true }),
        7 => (split(dice, ports), Fault::Heal),
        8 => (Fault::ApiCut(node), Fault::ApiBack(node)),
        _ => (spec_change(dice, &schedule.setup), spec_change(dice, &schedule.setup)),
    };
    schedule.at(at, fault);
    schedule.at(end, mended);
}

pub(crate) fn mix(dice: &mut Dice) -> Schedule {
    let mut schedule = world(dice);
    mixed(&mut schedule, dice);
    schedule
}

pub(crate) fn mix_loss(dice: &mut Dice) -> Schedule {
    let mut schedule = lossy_world(dice, &[0.01, 0.1, 0.3]);
    mixed(&mut schedule, dice);
    schedule
}

fn mixed(schedule: &mut Schedule, dice: &mut Dice) {
    let mut at = soon(dice);
    for _ in 0..dice.number(2, 6) {
        any_fault(schedule, dice, at);
        at += dice.ms(0, 2_000);
    }
}
