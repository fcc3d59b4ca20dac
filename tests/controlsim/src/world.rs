//! Lets virtual time pass: carries requests and answers between the processes and the API server, feeds watches, and
//! does what is planned. What users do is in `users`, what befalls processes and the network in `faults`.
//!
//! Must always hold: the server carries requests out in the order in which they arrive, and nothing is carried out
//! before every process that runs has come as far as that moment. A process may be ahead of the others by as much as
//! `STEP` while nothing is on its way; what reaches it then comes that much later.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use herald_runtime::lease::Timing;
use hyper::body::{Bytes, Frame};
use tokio::sync::oneshot;

use crate::Moment;
use crate::api::{Actor, Answer, Api, Asked, Kind, WatchFrom};
use crate::check::Check;
use crate::classes::Plan;
use crate::faults::Fault;
use crate::network::{AnswerFate, Fate, Weather};
use crate::process::{Lines, Process, Reply, response, stream};
use crate::trace::{self, Trace};
use crate::users::Act;
use herald_seeds::Dice;

/// The controllers' names.
pub(crate) const NAMES: [&str; 2] = ["A", "B"];

/// A request that is on its way for longer may have been repeated, and all that followed undone again.
const BELATED: Duration = Duration::from_millis(500);

/// So long after two led the writes of both may be under way.
const CONTESTED: Duration = Duration::from_secs(10);

/// Something that is to happen.
#[derive(Debug)]
pub(crate) enum Happening {
    Act(Act),
    Fault(Fault),
    Arrives(Request),
    Answered {
        seat: usize,
        life: u32,
        number: u64,
        reply: oneshot::Sender<Reply>,
        answer: Reply,
    },
    /// The client learns that there will be no answer.
    Silence(oneshot::Sender<Reply>),
    Told(u64),
    WatchEnds {
        watch: u64,
        how: End,
    },
    Wake {
        seat: usize,
        life: u32,
    },
    Heal {
        seat: usize,
        cut: u32,
    },
    Start(usize),
    /// Speakers note who holds what; Kubernetes compacts its history.
    Cluster,
}

/// How a watch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Its time is over.
    Quietly,
    Broken,
    /// What it should be told next is forgotten.
    Expired,
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Request {
    seat: usize,
    life: u32,
    number: u64,
    asked: Asked,
    sent: Moment,
    fate: Fate,
    reply: oneshot::Sender<Reply>,
}

/// A watch.
#[derive(Debug)]
struct Watch {
    seat: usize,
    life: u32,
    from: WatchFrom,
    lines: Lines,
    /// What is on its way arrives no earlier than what was sent before.
    due: Moment,
}

/// The place of one controller, whoever runs there.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) process: Option<Process>,
    /// Counts processes.
    pub(crate) life: u32,
    /// It stands still; whether its clock goes on.
    pub(crate) frozen: Option<bool>,
    /// No frame passes; counts partitions.
    pub(crate) cut: Option<u32>,
    pub(crate) cuts: u32,
    /// Sent by its kernel only once it wakes.
    pub(crate) held: Vec<Request>,
    /// Since when it believes that it leads.
    led: Option<Moment>,
    /// When it, or a former life of it, began to lead last, whether it leads still or not.
    began: Option<Moment>,
}

/// Everything.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Moment,
    pub(crate) api: Api,
    pub(crate) seats: [Seat; 2],
    pub(crate) dice: Dice,
    pub(crate) weather: Weather,
    pub(crate) trace: Trace,
    pub(crate) check: Check,
    pub(crate) timing: Timing,
    /// Strikes when this many more of a controller's writes have come.
    pub(crate) armed: Option<(u32, Fault)>,
    pub(crate) step: Duration,
    queue: BTreeMap<(Moment, u64), Happening>,
    next: u64,
    watches: BTreeMap<u64, Watch>,
    requests: u64,
}

impl World {
    pub(crate) fn new(plan: Plan, mut dice: Dice, trace: Trace) -> Self {
        herald_runtime::random::seeded::seed(dice.word());
        let seat = || Seat {
            process: None,
            life: 0,
            frozen: None,
            cut: None,
            cuts: 0,
            held: Vec::new(),
            led: None,
            began: None,
        };
        let mut world = Self {
            now: Moment::ZERO,
            api: Api::new(plan.without),
            seats: [seat(), seat()],
            dice,
            weather: plan.weather,
            trace,
            check: Check::default(),
            timing: plan.timing,
            armed: None,
            step: Duration::from_millis(100),
            queue: BTreeMap::new(),
            next: 0,
            watches: BTreeMap::new(),
            requests: 0,
        };
        world.check.flavour = plan.flavour;
        world.act(Act::Begin);
        for (at, happening) in plan.steps {
            world.plan(at, happening);
        }
        world
    }

    /// Something will happen.
    pub(crate) fn plan(&mut self, at: Moment, what: Happening) {
        self.next += 1;
        self.queue.insert((at.max(self.now), self.next), what);
    }

    pub(crate) fn after(&mut self, pause: Duration, what: Happening) {
        self.plan(self.now + pause, what);
    }

    /// Lets time pass.
    pub(crate) fn run_until(&mut self, end: Moment) {
        loop {
            let due = self.queue.first_key_value().map(|((at, _), _)| *at);
            let next = due.map_or(end, |at| at.min(end));
            if let Some(seat) = self.hindmost(next) {
                self.run_process(seat, next);
            } else if due.is_some_and(|at| at <= end)
                && let Some(((at, _), what)) = self.queue.pop_first()
            {
                self.now = self.now.max(at);
                self.api.set_now(self.now);
                self.happen(what);
                self.committed();
            } else {
                self.now = end;
                return;
            }
        }
    }

    /// The process that has come least far, if it has not come to `moment`.
    fn hindmost(&self, moment: Moment) -> Option<usize> {
        let reached = |seat: usize| {
            let seat = self.seats.get(seat)?;
            let process = seat.process.as_ref().filter(|_| seat.frozen.is_none())?;
            Some(process.reached()).filter(|reached| *reached < moment)
        };
        (0..self.seats.len()).filter_map(|seat| Some((reached(seat)?, seat))).min().map(|(_, seat)| seat)
    }

    fn run_process(&mut self, index: usize, until: Moment) {
        let Some(seat) = self.seats.get_mut(index) else { return };
        let Some(process) = seat.process.as_mut() else { return };
        let until = until.min(process.reached() + self.step);
        let sent = process.run_until(until);
        let (life, leads, ended, at) = (seat.life, process.leads(), process.has_ended(), process.reached());
        if seat.led.is_some() != leads {
            seat.led = leads.then_some(at);
            seat.began = seat.led.or(seat.began);
            self.trace.event(at, name(index), || if leads { "LEADS" } else { "stands by" }.to_owned());
        }
        // It may not know that another leads by now, or has led since: that one may stand still meanwhile, or stand by in
        // this very moment because its own time is over as well.
        let since = self.seats.get(index).and_then(|seat| seat.led);
        if since.is_some_and(|since| self.seats.iter().any(|seat| seat.began.is_some_and(|led| led > since)))
            || self.seats.iter().filter(|seat| seat.led.is_some() && seat.frozen.is_none()).count() > 1
        {
            self.check.contested = at + CONTESTED;
        }
        for (at, sent) in sent {
            self.requests += 1;
            let number = self.requests;
            let fate = Fate::draw(&mut self.dice, &self.weather);
            self.trace.event(at, name(index), || format!("#{number} {}", trace::request(&sent.asked)));
            match fate.arrives {
                Some(delay) => {
                    let request = Request {
                        seat: index,
                        life,
                        number,
                        asked: sent.asked,
                        sent: at,
                        fate,
                        reply: sent.reply,
                    };
                    self.plan(at + delay, Happening::Arrives(request));
                }
                None => self.silence(at, number, sent.reply, "lost"),
            }
        }
        if ended {
            self.trace.event(at, name(index), || "has ended".to_owned());
            self.end_process(index);
        }
    }

    /// There is no process any more.
    pub(crate) fn end_process(&mut self, index: usize) {
        if let Some(seat) = self.seats.get_mut(index) {
            seat.process = None;
            seat.frozen = None;
            seat.led = None;
            seat.life += 1;
        }
        self.watches.retain(|_, watch| watch.seat != index);
    }

    fn silence(&mut self, at: Moment, number: u64, reply: oneshot::Sender<Reply>, what: &str) {
        let pause = Fate::silence(&mut self.dice);
        self.trace.event(at, "network", || format!("#{number} is {what}, seen after {pause:?}"));
        self.plan(at + pause, Happening::Silence(reply));
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Act(act) => self.act(act),
            Happening::Fault(fault) => self.strike(fault),
            Happening::Arrives(request) => self.arrives(request),
            Happening::Answered { seat, life, number, reply, answer } => {
                if self.is_cut(seat) || !self.lives(seat, life) {
                    self.silence(self.now, number, reply, "answered in vain");
                } else {
                    drop(reply.send(answer));
                }
            }
            Happening::Silence(reply) => drop(reply),
            Happening::Told(watch) => self.tell(watch),
            Happening::WatchEnds { watch, how } => self.end_watch(watch, how),
            Happening::Wake { seat, life } => self.wake(seat, life),
            Happening::Heal { seat, cut } => self.heal(seat, cut),
            Happening::Start(seat) => self.start(seat),
            Happening::Cluster => self.cluster(),
        }
    }

    fn lives(&self, seat: usize, life: u32) -> bool {
        self.seats.get(seat).is_some_and(|seat| seat.process.is_some() && seat.life == life)
    }

    pub(crate) fn is_cut(&self, seat: usize) -> bool {
        self.seats.get(seat).is_some_and(|seat| seat.cut.is_some())
    }

    fn arrives(&mut self, request: Request) {
        let (seat, number) = (request.seat, request.number);
        if self.is_cut(seat) {
            self.silence(self.now, number, request.reply, "stopped by the partition");
            return;
        }
        let lives = self.lives(seat, request.life);
        if !lives && !request.fate.out {
            return;
        }
        let frozen = self.seats.get(seat).is_some_and(|seat| seat.frozen.is_some());
        if lives && frozen && !request.fate.out && request.asked.writes() {
            if let Some(seat) = self.seats.get_mut(seat) {
                seat.held.push(request);
            }
            return;
        }
        let counts = request.asked.writes() && !request.asked.path.contains("/leases") && lives;
        let strikes = counts && self.strikes_now();
        if strikes && self.dice.chance(0.3) {
            self.strike_armed();
            self.silence(self.now, number, request.reply, "lost");
            return;
        }
        self.check.belated = self.now.saturating_sub(request.sent) > BELATED;
        let answer = match request.fate.refused {
            Some(code) => Answer::busy(code),
            None => self.api.handle(Actor::Controller(name(seat)), &request.asked),
        };
        match answer {
            Answer::Watch(from) => self.begin_watch(request, from),
            Answer::Body(code, body) => self.answer(request, code, body),
        }
        if strikes {
            self.committed();
            self.strike_armed();
        }
    }

    fn answer(&mut self, request: Request, code: u16, body: String) {
        let Request { seat, life, number, fate, reply, asked, .. } = request;
        self.trace.event(self.now, "api", || {
            let message = if code >= 400 { said(&body) } else { String::new() };
            let lost = if fate.answer == AnswerFate::Arrives { "" } else { ", not told" };
            format!("#{number} -> {code}{message}{lost}")
        });
        self.check.answered(&asked, code);
        let answer = match fate.answer {
            AnswerFate::Lost => {
                self.silence(self.now, number, reply, "not answered");
                return;
            }
            AnswerFate::Failed => match Answer::busy(504) {
                Answer::Body(code, body) => response(code, body),
                Answer::Watch(_) => return,
            },
            AnswerFate::Arrives => response(code, body),
        };
        self.after(fate.back, Happening::Answered { seat, life, number, reply, answer });
    }

    fn begin_watch(&mut self, request: Request, from: WatchFrom) {
        let Request { seat, life, number, fate, reply, .. } = request;
        let (lines, answer) = stream();
        let watch = self.next;
        let due = self.now + fate.back;
        let lasts = Duration::from_secs(from.seconds);
        let expired = from.expired;
        self.watches.insert(watch, Watch { seat, life, from, lines, due });
        self.plan(due, Happening::Answered { seat, life, number, reply, answer });
        if expired {
            self.plan(due, Happening::WatchEnds { watch, how: End::Expired });
            return;
        }
        self.after(lasts, Happening::WatchEnds { watch, how: End::Quietly });
        self.feed(watch);
    }

    /// Puts on the way what a watch has not been told yet.
    fn feed(&mut self, id: u64) {
        let Some(watch) = self.watches.get_mut(&id) else { return };
        if !self.api.concerns(&watch.from.selected, watch.from.next) {
            return;
        }
        let least = Duration::from_millis(1);
        let stalls = self.dice.chance(self.weather.stall);
        let longest = if stalls { self.weather.stalls } else { self.weather.lag };
        watch.due = watch.due.max(self.now + self.dice.whole_time(least, longest));
        let at = watch.due;
        self.plan(at, Happening::Told(id));
    }

    fn tell(&mut self, id: u64) {
        let until = self.api.written();
        let Some(watch) = self.watches.get_mut(&id) else { return };
        let seat = watch.seat;
        if self.seats.get(seat).is_some_and(|seat| seat.cut.is_some()) {
            return;
        }
        let mut text = self.api.told(&watch.from.selected, watch.from.next, until);
        watch.from.next = until;
        if self.dice.chance(0.2) {
            text += &self.api.bookmark(watch.from.selected.kind);
        }
        if !text.is_empty() && watch.lines.unbounded_send(Ok(Frame::data(Bytes::from(text)))).is_err() {
            self.watches.remove(&id);
        } else if self.dice.chance(self.weather.breaks) {
            let how = if self.dice.chance(0.3) { End::Quietly } else { End::Broken };
            self.after(Duration::from_millis(1), Happening::WatchEnds { watch: id, how });
        }
    }

    fn end_watch(&mut self, id: u64, how: End) {
        let Some(watch) = self.watches.get(&id) else { return };
        if how == End::Quietly && self.is_cut(watch.seat) {
            return;
        }
        let (seat, kind) = (watch.seat, watch.from.selected.kind);
        match how {
            End::Quietly => {}
            End::Broken => {
                let error = io::Error::new(io::ErrorKind::ConnectionReset, "connection lost");
                drop(watch.lines.unbounded_send(Err(error)));
            }
            End::Expired => {
                drop(watch.lines.unbounded_send(Ok(Frame::data(Bytes::from(Api::expired())))));
            }
        }
        self.trace.event(self.now, "network", || {
            format!("{}'s watch of {} ends: {how:?}", name(seat), kind.plural())
        });
        self.watches.remove(&id);
    }

    /// Ends every watch of a kind, or of a controller.
    pub(crate) fn end_watches(&mut self, how: End, which: impl Fn(usize, Kind) -> bool, within: Duration) {
        let all: Vec<u64> = self
            .watches
            .iter()
            .filter(|(_, watch)| which(watch.seat, watch.from.selected.kind))
            .map(|(id, _)| *id)
            .collect();
        for watch in all {
            let pause = self.dice.whole_time(Duration::from_millis(1), within);
            self.after(pause, Happening::WatchEnds { watch, how });
        }
    }

    /// Feeds all watches of a controller that was cut off.
    pub(crate) fn feed_all(&mut self, seat: usize) {
        let all: Vec<u64> =
            self.watches.iter().filter(|(_, watch)| watch.seat == seat).map(|(id, _)| *id).collect();
        for watch in all {
            self.feed(watch);
        }
    }

    /// Looks at what has been written, and feeds the watches.
    pub(crate) fn committed(&mut self) {
        let commits = self.api.unchecked();
        if commits.is_empty() {
            return;
        }
        for commit in &commits {
            if !matches!(commit.actor, Actor::Controller(_)) {
                self.trace.event(self.now, who(commit.actor), || trace::commit(commit));
            }
            let broken = self.check.commit(self.now, &self.api, commit);
            for text in broken {
                self.trace.event(self.now, "BROKEN", || text.clone());
            }
        }
        let kinds: Vec<Kind> = commits.iter().map(|commit| commit.key.kind).collect();
        let concerned: Vec<u64> = self
            .watches
            .iter()
            .filter(|(_, watch)| {
                kinds.contains(&watch.from.selected.kind) && self.lives(watch.seat, watch.life)
            })
            .map(|(id, _)| *id)
            .collect();
        for watch in concerned {
            self.feed(watch);
        }
    }

    /// A process that woke sends what it had in its socket.
    pub(crate) fn resend(&mut self, mut request: Request) {
        request.fate.out = true;
        let pause = self.dice.whole_ms(1, 5);
        self.after(pause, Happening::Arrives(request));
    }

    /// What is planned to happen to this world is over.
    pub(crate) fn clear_plans(&mut self) {
        self.queue.retain(|_, what| !Self::is_planned(what));
        self.armed = None;
    }
}

/// A controller's name.
pub(crate) fn name(seat: usize) -> &'static str {
    NAMES.get(seat).copied().unwrap_or("?")
}

fn who(actor: Actor) -> &'static str {
    match actor {
        Actor::Controller(name) => name,
        Actor::User => "user",
        Actor::Cluster => "cluster",
    }
}

fn said(body: &str) -> String {
    let status: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    format!(" {}", status["message"].as_str().unwrap_or_default())
}
