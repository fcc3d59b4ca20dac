//! What befalls the processes, the Lease and the network.

use std::time::Duration;

use serde_json::json;

use crate::api::{Actor, Key, Kind};
use crate::process::Process;
use crate::world::{End, Happening, World, name};

/// A fault. The seat it is about is found when it strikes: the leader's, mostly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL, and a new process after some time.
    Kill,
    /// SIGTERM, and a new process once it has ended.
    Stop,
    /// It stands still for some time; its clock goes on meanwhile (SIGSTOP), or does not (the machine sleeps).
    Freeze,
    /// No frame passes between it and the API server for some time.
    Cut,
    /// Somebody deletes the Lease.
    LeaseDeleted,
    /// Somebody writes another holder into the Lease, or nobody.
    LeaseEdited,
    /// All watches of one controller end.
    WatchesBreak,
    /// The API server forgets its history, and all watches with it.
    Compaction,
    /// The next fault strikes at one of the next writes.
    Armed(Aim),
}

/// What strikes in the middle of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    Kill,
    Freeze,
    Cut,
    Lease,
}

impl World {
    /// Whoever leads, else anybody who runs.
    fn victim(&mut self) -> Option<usize> {
        let runs = |seat: &usize| {
            self.seats.get(*seat).is_some_and(|seat| seat.process.is_some() && seat.frozen.is_none())
        };
        let leads = |seat: &usize| {
            self.seats.get(*seat).is_some_and(|seat| seat.process.as_ref().is_some_and(Process::leads))
        };
        let all: Vec<usize> = (0..self.seats.len()).filter(runs).collect();
        let leaders: Vec<usize> = all.iter().copied().filter(leads).collect();
        let from = if leaders.is_empty() || self.dice.chance(0.15) { all } else { leaders };
        self.dice.pick(&from).copied()
    }

    pub(crate) fn strikes_now(&mut self) -> bool {
        match &mut self.armed {
            Some((0, _)) => true,
            Some((left, _)) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    pub(crate) fn strike_armed(&mut self) {
        if let Some((_, fault)) = self.armed.take() {
            self.strike(fault);
        }
    }

    pub(crate) fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::Armed(aim) => {
                let fault = match aim {
                    Aim::Kill => Fault::Kill,
                    Aim::Freeze => Fault::Freeze,
                    Aim::Cut => Fault::Cut,
                    Aim::Lease => Fault::LeaseDeleted,
                };
                let left = u32::try_from(self.dice.number(0, 6)).unwrap_or_default();
                self.armed = Some((left, fault));
            }
            Fault::Kill => self.kill(),
            Fault::Stop => self.stop(),
            Fault::Freeze => self.freeze(),
            Fault::Cut => self.cut(),
            Fault::LeaseDeleted => self.api.delete(Actor::User, &lease()),
            Fault::LeaseEdited => self.edit_lease(),
            Fault::WatchesBreak => {
                if let Some(victim) = self.victim() {
                    let within = self.dice.whole_ms(1, 2_000);
                    self.end_watches(End::Broken, |seat, _| seat == victim, within);
                }
            }
            Fault::Compaction => {
                self.trace.event(self.now, "cluster", || "compaction".to_owned());
                self.api.compact();
                self.end_watches(End::Expired, |_, _| true, Duration::from_secs(1));
            }
        }
    }

    fn kill(&mut self) {
        let Some(seat) = self.victim() else { return };
        self.trace.event(self.now, name(seat), || "KILLED".to_owned());
        self.end_process(seat);
        let pause = if self.dice.chance(0.5) {
            self.dice.whole_ms(100, 3_000)
        } else {
            self.dice.whole_ms(3_000, 25_000)
        };
        self.after(pause, Happening::Start(seat));
    }

    fn stop(&mut self) {
        let Some(seat) = self.victim() else { return };
        self.trace.event(self.now, name(seat), || "SIGTERM".to_owned());
        if let Some(process) = self.seats.get(seat).and_then(|seat| seat.process.as_ref()) {
            process.ask_to_stop();
        }
        // As kubelet: not before the old one has ended, by force if need be.
        let pause = self.dice.whole_ms(10_000, 20_000);
        self.after(pause, Happening::Start(seat));
    }

    pub(crate) fn start(&mut self, index: usize) {
        let (now, timing) = (self.now, self.timing);
        let Some(seat) = self.seats.get_mut(index) else { return };
        if seat.frozen.is_some() {
            return;
        }
        if seat.process.is_some() {
            self.end_process(index);
        }
        let Some(seat) = self.seats.get_mut(index) else { return };
        seat.life += 1;
        let identity = format!("{}{}", name(index), seat.life);
        // A runtime without I/O needs nothing of the machine that could be lacking.
        seat.process = Process::start(now, &identity, timing).ok();
        self.trace.event(now, name(index), || format!("starts as {identity}"));
    }

    fn freeze(&mut self) {
        let Some(index) = self.victim() else { return };
        let goes_on = self.dice.chance(0.5);
        let pause = if self.dice.chance(0.3) {
            self.dice.whole_ms(50, 3_000)
        } else {
            self.dice.whole_ms(3_000, 45_000)
        };
        let Some(seat) = self.seats.get_mut(index) else { return };
        seat.frozen = Some(goes_on);
        let life = seat.life;
        self.trace.event(self.now, name(index), || {
            let clock = if goes_on { "goes on" } else { "stands still" };
            format!("STANDS STILL for {pause:?}, its clock {clock}")
        });
        self.after(pause, Happening::Wake { seat: index, life });
    }

    pub(crate) fn wake(&mut self, index: usize, life: u32) {
        let now = self.now;
        let Some(seat) = self.seats.get_mut(index) else { return };
        if seat.life != life {
            return;
        }
        let Some(goes_on) = seat.frozen.take() else { return };
        if let Some(process) = &mut seat.process {
            process.wake(now, goes_on);
        }
        let held = std::mem::take(&mut seat.held);
        self.trace.event(now, name(index), || "wakes".to_owned());
        for request in held {
            self.resend(request);
        }
    }

    fn cut(&mut self) {
        let Some(index) = self.victim() else { return };
        let pause = if self.dice.chance(0.3) {
            self.dice.whole_ms(50, 3_000)
        } else {
            self.dice.whole_ms(3_000, 40_000)
        };
        let Some(seat) = self.seats.get_mut(index) else { return };
        if seat.cut.is_some() {
            return;
        }
        seat.cuts += 1;
        let cut = seat.cuts;
        seat.cut = Some(cut);
        self.trace.event(self.now, name(index), || format!("CUT OFF for {pause:?}"));
        // Keepalives find it out, if it lasts.
        if pause > Duration::from_secs(11) {
            self.end_watches(End::Broken, |seat, _| seat == index, Duration::from_secs(11));
        }
        self.after(pause, Happening::Heal { seat: index, cut });
    }

    pub(crate) fn heal(&mut self, index: usize, cut: u32) {
        let Some(seat) = self.seats.get_mut(index) else { return };
        if seat.cut == Some(cut) {
            seat.cut = None;
            self.trace.event(self.now, name(index), || "connected again".to_owned());
            self.feed_all(index);
        }
    }

    fn edit_lease(&mut self) {
        let holder = if self.dice.chance(0.5) { "" } else { "somebody" };
        self.api.change(Actor::User, &lease(), |lease| lease["spec"]["holderIdentity"] = json!(holder));
    }
}

fn lease() -> Key {
    Key::of(Kind::Lease, "herald-system", "herald-controller")
}
