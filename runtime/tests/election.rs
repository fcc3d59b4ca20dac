//! Leader election against a model of the API server, the network and the candidates' clocks.
//!
//! Candidates are [`Elector`]s with monotonic clocks of different rates and walls that disagree. Requests are late, get
//! lost, or are carried out although their answer is lost, even long after the candidate has given up on them;
//! candidates stand still, crash and are shut down; somebody edits the Lease's labels. Whatever happens, at no moment
//! do two candidates both believe that they lead; and when it ends, one leads.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::{Duration, Instant},
};

use herald_runtime::lease::{Answer, Elector, Leadership, Now, Request, Timing};
use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use proptest::prelude::*;

/// Microseconds of true time.
type Micros = u64;

const SECOND: Micros = 1_000_000;
/// When trouble ends.
const PEACE: Micros = 240 * SECOND;
/// By then one must lead: all are back, and the slowest has waited for a lease and made some attempts.
const END: Micros = PEACE + 90 * SECOND;

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Arrives and is answered after these delays.
    Fine(Micros, Micros),
    /// Never arrives.
    Lost,
    /// Arrives after this delay, which may be long, and its answer is lost.
    Unanswered(Micros),
}

/// What happens to a candidate or to the Lease.
#[derive(Clone, Copy, Debug)]
enum Mishap {
    /// Stands still for so long.
    Pause(usize, Micros),
    /// Ends without a word and comes back after so long under another name.
    Crash(usize, Micros),
    /// Is shut down in order and comes back.
    Restart(usize, Micros),
    /// Can't reach the server for so long.
    Cut(usize, Micros),
    /// Somebody edits the Lease's labels.
    Label,
}

/// A clock on a wall.
#[derive(Clone, Copy, Debug)]
enum Wall {
    /// Ahead by so many seconds.
    Off(i64),
    /// Stopped.
    Stopped,
}

#[derive(Clone, Debug)]
struct Plan {
    /// Rate of each clock in thousandths of the true rate.
    rates: Vec<u64>,
    /// Each wall clock.
    walls: Vec<Wall>,
    fates: Vec<Fate>,
    mishaps: Vec<(Micros, Mishap)>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A candidate's timer.
    Timer(usize),
    /// A request reaches the server; the key of `Model::sent`.
    Arrives(u64),
    /// Its answer reaches the candidate.
    Answered(u64),
    /// The candidate gives up on it.
    GivenUp(u64),
    /// A mishap by number.
    Mishap(usize),
    /// A candidate is back.
    Back(usize),
}

struct Sent {
    by: usize,
    life: u64,
    request: Request,
    answer: Option<Answer>,
    answers_after: Option<Micros>,
}

struct Candidate {
    elector: Option<Elector>,
    life: u64,
    waits_for: Option<u64>,
    paused_until: Micros,
    cut_until: Micros,
}

struct Model {
    plan: Plan,
    now: Micros,
    base: Instant,
    queue: BinaryHeap<Reverse<(Micros, u64, Event)>>,
    counter: u64,
    lease: Option<Lease>,
    version: u64,
    candidates: Vec<Candidate>,
    sent: BTreeMap<u64, Sent>,
    requests: usize,
    leaders: Vec<String>,
}

fn timing() -> Timing {
    Timing::default()
}

impl Model {
    fn new(plan: Plan) -> Self {
        let mut model = Self {
            now: SECOND,
            base: Instant::now(),
            queue: BinaryHeap::new(),
            counter: 0,
            lease: None,
            version: 1,
            candidates: Vec::new(),
            sent: BTreeMap::new(),
            requests: 0,
            leaders: Vec::new(),
            plan,
        };
        for number in 0..model.plan.rates.len() {
            model.candidates.push(Candidate {
                elector: None,
                life: 0,
                waits_for: None,
                paused_until: 0,
                cut_until: 0,
            });
            model.at(model.now, Event::Back(number));
        }
        for number in 0..model.plan.mishaps.len() {
            model.at(model.plan.mishaps[number].0, Event::Mishap(number));
        }
        model
    }

    fn at(&mut self, when: Micros, event: Event) {
        self.counter += 1;
        self.queue.push(Reverse((when, self.counter, event)));
    }

    /// What a candidate's monotonic clock shows.
    fn clock(&self, number: usize) -> Instant {
        self.base + Duration::from_micros(self.now * self.plan.rates[number] / 1000)
    }

    fn local(&self, number: usize) -> Now {
        let shown = match self.plan.walls[number] {
            Wall::Off(seconds) => i64::try_from(self.now).unwrap() + seconds * 1_000_000,
            Wall::Stopped => 0,
        };
        let wall = Timestamp::from_microsecond(1_800_000_000_000_000 + shown).unwrap();
        Now { monotonic: self.clock(number), wall }
    }

    /// The true time at which a candidate's clock will show `instant`.
    fn when(&self, number: usize, instant: Instant) -> Micros {
        let local = u64::try_from(instant.saturating_duration_since(self.base).as_micros()).unwrap();
        (local * 1000).div_ceil(self.plan.rates[number]).max(self.now)
    }

    fn run(&mut self) {
        while let Some(Reverse((when, _, event))) = self.queue.pop() {
            if when > END {
                break;
            }
            self.now = when;
            self.step(event);
            self.nobody_shares_the_lead();
        }
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Timer(number) => self.drive(number),
            Event::Back(number) => {
                let candidate = &self.candidates[number];
                if candidate.elector.is_none() {
                    let life = candidate.life + 1;
                    let identity = format!("candidate-{number}-{life}");
                    let elector = Elector::new("lease", &identity, timing(), self.clock(number), life);
                    let candidate = &mut self.candidates[number];
                    (candidate.life, candidate.waits_for, candidate.elector) = (life, None, Some(elector));
                    self.drive(number);
                }
            }
            Event::Arrives(id) => {
                let (request, after) = match self.sent.get(&id) {
                    Some(sent) => (sent.request.clone(), sent.answers_after),
                    None => return,
                };
                let answer = self.serve(request);
                if let Some(sent) = self.sent.get_mut(&id) {
                    sent.answer = Some(answer);
                }
                if let Some(after) = after {
                    self.at(self.now + after, Event::Answered(id));
                }
            }
            Event::Answered(id) | Event::GivenUp(id) => {
                let Some(sent) = self.sent.get(&id) else { return };
                let by = sent.by;
                let paused = self.candidates[by].paused_until;
                if paused > self.now {
                    return self.at(paused, event);
                }
                let given_up = matches!(event, Event::GivenUp(_));
                let answer = if given_up { Answer::Unknown } else { sent.answer.clone().unwrap() };
                let waited =
                    self.candidates[by].waits_for == Some(id) && self.candidates[by].life == sent.life;
                if waited {
                    let now = self.clock(by);
                    let candidate = &mut self.candidates[by];
                    candidate.waits_for = None;
                    if let Some(elector) = &mut candidate.elector {
                        elector.handle_answer(now, answer);
                    }
                    self.drive(by);
                }
            }
            Event::Mishap(number) => self.mishap(self.plan.mishaps[number].1),
        }
    }

    fn mishap(&mut self, mishap: Mishap) {
        match mishap {
            Mishap::Pause(number, long) => self.candidates[number].paused_until = self.now + long,
            Mishap::Cut(number, long) => self.candidates[number].cut_until = self.now + long,
            Mishap::Crash(number, long) => {
                self.candidates[number].elector = None;
                self.at(self.now + long, Event::Back(number));
            }
            Mishap::Restart(number, long) => {
                let now = self.clock(number);
                if self.candidates[number].paused_until <= self.now
                    && let Some(elector) = &mut self.candidates[number].elector
                {
                    elector.stop(now);
                    self.drive(number);
                    self.at(self.now + 10 * SECOND + long, Event::Back(number));
                }
            }
            Mishap::Label => {
                self.version += 1;
                let version = self.version;
                if let Some(lease) = &mut self.lease {
                    let labels = lease.metadata.labels.get_or_insert_default();
                    labels.insert("edited".to_owned(), version.to_string());
                    lease.metadata.resource_version = Some(version.to_string());
                }
            }
        }
    }

    /// The API server: conditional writes, and a write that changes nothing makes no new version.
    fn serve(&mut self, request: Request) -> Answer {
        let new = match (request, &self.lease) {
            (Request::Read | Request::Replace(_), None) => return Answer::NotFound,
            (Request::Read, Some(lease)) => return Answer::Is(Box::new(lease.clone())),
            (Request::Create(_), Some(_)) => return Answer::Conflict,
            (Request::Create(new), None) => new,
            (Request::Replace(new), Some(old)) => {
                assert!(new.metadata.resource_version.is_some(), "every write is conditional");
                if new.metadata.resource_version != old.metadata.resource_version {
                    return Answer::Conflict;
                }
                if new.spec == old.spec {
                    return Answer::Is(Box::new(old.clone()));
                }
                new
            }
        };
        self.version += 1;
        let mut new = *new;
        new.metadata.resource_version = Some(self.version.to_string());
        self.lease = Some(new.clone());
        Answer::Is(Box::new(new))
    }

    fn drive(&mut self, number: usize) {
        let paused = self.candidates[number].paused_until;
        if paused > self.now {
            return self.at(paused, Event::Timer(number));
        }
        let now = self.local(number);
        let candidate = &mut self.candidates[number];
        let Some(elector) = &mut candidate.elector else { return };
        elector.handle_timeout(now.monotonic);
        if candidate.waits_for.is_none()
            && let Some(request) = elector.poll_request(now)
        {
            let (by, life) = (number, candidate.life);
            self.counter += 1;
            let id = self.counter;
            candidate.waits_for = Some(id);
            let fate = if self.now >= PEACE {
                Fate::Fine(1000, 1000)
            } else if candidate.cut_until > self.now {
                Fate::Lost
            } else {
                self.plan.fates[self.requests % self.plan.fates.len()]
            };
            self.requests += 1;
            let answers_after = if let Fate::Fine(_, after) = fate { Some(after) } else { None };
            self.sent.insert(id, Sent { by, life, request, answer: None, answers_after });
            if let Fate::Fine(there, _) | Fate::Unanswered(there) = fate {
                self.at(self.now + there, Event::Arrives(id));
            }
            let limit = self.clock(number) + timing().renew() / 2;
            let limit = self.when(number, limit);
            self.at(limit, Event::GivenUp(id));
        }
        let candidate = &mut self.candidates[number];
        let Some(elector) = &mut candidate.elector else { return };
        if elector.finished() {
            candidate.elector = None;
        } else if let Some(due) = elector.poll_timeout() {
            let due = self.when(number, due).max(self.now + 1);
            self.at(due, Event::Timer(number));
        }
    }

    fn nobody_shares_the_lead(&mut self) {
        let mut leaders = Vec::new();
        for (number, candidate) in self.candidates.iter().enumerate() {
            let Some(elector) = &candidate.elector else { continue };
            if let Leadership::Leading { until } = elector.leadership(self.clock(number)) {
                assert!(until > self.clock(number));
                leaders.push(format!("candidate-{number}-{}", candidate.life));
            }
        }
        assert!(leaders.len() < 2, "{leaders:?} both lead at {} us", self.now);
        if let Some(leader) = leaders.pop()
            && self.leaders.last() != Some(&leader)
        {
            self.leaders.push(leader);
        }
    }

    fn leads(&self) -> Vec<usize> {
        let leads = |number: &usize| {
            let elector = self.candidates[*number].elector.as_ref();
            elector
                .is_some_and(|elector| elector.leadership(self.clock(*number)).may_write(self.clock(*number)))
        };
        (0..self.candidates.len()).filter(leads).collect()
    }
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        8 => (100..200_000_u64, 100..200_000_u64).prop_map(|(there, back)| Fate::Fine(there, back)),
        2 => (100..6 * SECOND, 100..6 * SECOND).prop_map(|(there, back)| Fate::Fine(there, back)),
        1 => Just(Fate::Lost),
        2 => (100..30 * SECOND).prop_map(Fate::Unanswered),
    ]
}

fn mishap(candidates: usize) -> impl Strategy<Value = (Micros, Mishap)> {
    let long = 1..40 * SECOND;
    let what = prop_oneof![
        4 => (0..candidates, long.clone()).prop_map(|(number, long)| Mishap::Pause(number, long)),
        2 => (0..candidates, long.clone()).prop_map(|(number, long)| Mishap::Cut(number, long)),
        1 => (0..candidates, long.clone()).prop_map(|(number, long)| Mishap::Crash(number, long)),
        1 => (0..candidates, long).prop_map(|(number, long)| Mishap::Restart(number, long)),
        1 => Just(Mishap::Label),
    ];
    (SECOND..PEACE, what)
}

fn plan() -> impl Strategy<Value = Plan> {
    (2..4_usize).prop_flat_map(|candidates| {
        (
            // Ten seconds on the slowest clock are less than fifteen on the fastest.
            prop::collection::vec(850..1150_u64, candidates),
            prop::collection::vec(
                prop_oneof![3 => (-100_000..100_000_i64).prop_map(Wall::Off), 1 => Just(Wall::Stopped)],
                candidates,
            ),
            prop::collection::vec(fate(), 1..40),
            prop::collection::vec(mishap(candidates), 0..30),
        )
            .prop_map(|(rates, walls, fates, mishaps)| Plan { rates, walls, fates, mishaps })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_never_lead_at_once_and_one_leads_when_trouble_is_over(plan in plan()) {
        let mut model = Model::new(plan);
        model.run();
        prop_assert_eq!(model.leads().len(), 1, "one leads in the end; leaders were {:?}", model.leaders);
    }
}

/// Found by the test above: the second sees only some of the first one's renewals.
#[test]
fn a_wall_that_stands_still_writes_no_record_twice() {
    let base = Instant::now();
    let mut elector = Elector::new("lease", "me", timing(), base, 1);
    let mut server = Model::new(Plan { rates: vec![], walls: vec![], fates: vec![], mishaps: vec![] });
    let mut written = Vec::new();
    for second in 0..60 {
        let monotonic = base + Duration::from_secs(second);
        while let Some(request) = elector.poll_request(Now { monotonic, wall: Timestamp::UNIX_EPOCH }) {
            let answer = server.serve(request);
            elector.handle_answer(monotonic, answer);
            let spec = server.lease.as_ref().and_then(|lease| lease.spec.clone());
            if written.last() != Some(&spec) {
                assert!(!written.contains(&spec), "{spec:?} once more");
                written.push(spec);
            }
        }
    }
    assert!(written.len() > 20, "{}", written.len());
}

fn calm(mishaps: Vec<(Micros, Mishap)>) -> Model {
    let fine = vec![Fate::Fine(1000, 1000)];
    let mut model = Model::new(Plan {
        rates: vec![1000, 1000],
        walls: vec![Wall::Off(0), Wall::Off(5)],
        fates: fine,
        mishaps,
    });
    model.run();
    model
}

fn spec(model: &Model) -> k8s_openapi::api::coordination::v1::LeaseSpec {
    model.lease.clone().unwrap().spec.unwrap()
}

#[test]
fn a_leader_in_peace_leads_for_ever_and_its_record_says_so() {
    let model = calm(Vec::new());
    assert_eq!(model.leaders.len(), 1);
    let spec = spec(&model);
    assert_eq!(spec.holder_identity.as_ref(), model.leaders.last());
    assert_eq!((spec.lease_transitions, spec.lease_duration_seconds), (Some(0), Some(15)));
    assert!(spec.renew_time > spec.acquire_time);
}

#[test]
fn a_crashed_leader_is_followed_after_its_lease_and_a_released_lease_is_taken_by_the_next_look() {
    let first = calm(Vec::new()).leaders.pop().unwrap();
    let number = usize::from(!first.starts_with("candidate-0"));
    for (mishap, at_most) in [
        (Mishap::Crash(number, 1000 * SECOND), 18 * SECOND),
        (Mishap::Restart(number, 1000 * SECOND), 3 * SECOND),
    ] {
        let when = 100 * SECOND;
        let mut model = calm(vec![(when, mishap)]);
        assert_eq!(model.leaders.len(), 2, "{mishap:?}");
        let spec = spec(&model);
        assert_eq!(spec.lease_transitions, Some(1), "{mishap:?}");
        let taken = spec.acquire_time.unwrap().0;
        model.now = when + at_most;
        let walls = [0, 1].map(|number| model.local(number).wall);
        assert!(taken < walls[1 - number], "{mishap:?}: taken at {taken}");
    }
}

#[test]
fn a_hand_edit_that_names_another_holder_ends_leading_at_the_next_look() {
    let base = Instant::now();
    let mut elector = Elector::new("lease", "me", timing(), base, 1);
    let mut server = Model::new(Plan { rates: vec![], walls: vec![], fates: vec![], mishaps: vec![] });
    let wall = Timestamp::UNIX_EPOCH;
    let ask = |elector: &mut Elector, server: &mut Model, after: Duration| {
        while let Some(request) = elector.poll_request(Now { monotonic: base + after, wall }) {
            let answer = server.serve(request);
            elector.handle_answer(base + after, answer);
        }
        elector.leadership(base + after)
    };
    assert!(matches!(ask(&mut elector, &mut server, Duration::ZERO), Leadership::Leading { .. }));
    let lease = server.lease.as_mut().unwrap();
    lease.metadata.resource_version = Some("999".to_owned());
    lease.spec.as_mut().unwrap().holder_identity = Some("you".to_owned());
    let then = ask(&mut elector, &mut server, Duration::from_secs(2));
    assert_eq!(then, Leadership::Standby { leader: Some("you".to_owned()) });
}

#[test]
fn garbage_in_the_record_keeps_nobody_out_for_longer_than_ten_minutes() {
    let base = Instant::now();
    for (seconds, transitions) in [(i32::MAX, i32::MAX), (-1, -1), (0, 0)] {
        let mut elector = Elector::new("lease", "me", timing(), base, 1);
        let mut server = Model::new(Plan { rates: vec![], walls: vec![], fates: vec![], mishaps: vec![] });
        let mut lease = Lease::default();
        lease.metadata.resource_version = Some("7".to_owned());
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some("gone".to_owned());
        spec.lease_duration_seconds = Some(seconds);
        spec.lease_transitions = Some(transitions);
        server.lease = Some(lease);
        let mut after = Duration::ZERO;
        while !elector.leadership(base + after).may_write(base + after) {
            assert!(after <= Duration::from_secs(602), "{seconds}");
            while let Some(request) =
                elector.poll_request(Now { monotonic: base + after, wall: Timestamp::UNIX_EPOCH })
            {
                let answer = server.serve(request);
                elector.handle_answer(base + after, answer);
            }
            after += Duration::from_millis(100);
        }
        assert!(after >= Duration::from_secs(15), "{seconds}: not before one's own lease");
        assert!(server.lease.unwrap().spec.unwrap().lease_transitions.unwrap() >= 1);
    }
}
