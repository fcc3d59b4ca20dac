//! One candidate's decisions. No I/O, no clock: the caller sends what [`Elector::poll_request`] gives, one request at
//! a time, and says what came of it.

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::{SignedDuration, Timestamp},
};

use super::{
    Leadership,
    timing::{LONGEST, Timing},
};

/// Conflicts in a row after which a pause is made: two candidates that get in each other's way need no more.
const CONFLICTS: u32 = 2;

/// The time of a call: monotonic for deciding, by the wall for people who read the Lease.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Never steps.
    pub monotonic: Instant,
    /// Nothing is decided by it.
    pub wall: Timestamp,
}

/// What to ask the API server.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// GET.
    Read,
    /// POST.
    Create(Box<Lease>),
    /// PUT; `metadata.resourceVersion` is that of the version to be replaced.
    Replace(Box<Lease>),
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The Lease as it is now: read, or written.
    Is(Box<Lease>),
    /// There is none.
    NotFound,
    /// 409: another version, or there is one already.
    Conflict,
    /// Anything else, a time-out above all: a write may have happened, or may still happen.
    Unknown,
}

/// What was seen last.
#[derive(Debug)]
struct Seen {
    lease: Lease,
    /// Since when its record has been seen as it is.
    since: Instant,
}

impl Seen {
    fn holder(&self) -> Option<&str> {
        holder(&self.lease)
    }

    /// How long the record must stay as it is before it is nobody's: as long as its holder counts on, or as this
    /// candidate is told, whichever is longer.
    fn lasts(&self, own: Duration) -> Duration {
        let spec = self.lease.spec.as_ref();
        let seconds = spec.and_then(|spec| spec.lease_duration_seconds).unwrap_or_default();
        let recorded = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        recorded.min(LONGEST).max(own)
    }
}

/// Who holds a Lease, if anybody does.
pub(super) fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|name| !name.is_empty())
}

/// A candidate.
#[derive(Debug)]
pub struct Elector {
    name: String,
    identity: String,
    timing: Timing,
    /// State of the generator of jitter.
    random: u64,
    seen: Option<Seen>,
    /// What was seen may be old: the next request reads.
    must_read: bool,
    /// The request under way, and when it was begun.
    under_way: Option<(Request, Instant)>,
    next_at: Instant,
    conflicts: u32,
    until: Option<Instant>,
    /// Told to stop; until when releasing is tried.
    stopping: Option<Instant>,
    finished: bool,
}

impl Elector {
    /// A candidate called `identity`, which no other candidate may be called, for the Lease `name`.
    pub fn new(name: &str, identity: &str, timing: Timing, now: Instant, seed: u64) -> Self {
        Self {
            name: name.to_owned(),
            identity: identity.to_owned(),
            timing,
            random: seed,
            seen: None,
            must_read: true,
            under_way: None,
            next_at: now,
            conflicts: 0,
            until: None,
            stopping: None,
            finished: false,
        }
    }

    /// Whether this candidate leads.
    pub fn leadership(&self, now: Instant) -> Leadership {
        match self.until.filter(|until| now < *until) {
            Some(until) => Leadership::Leading { until },
            None => Leadership::Standby { leader: self.other().map(str::to_owned) },
        }
    }

    /// The next request, if it is time for one and none is under way. `now` must be read before it is sent.
    pub fn poll_request(&mut self, now: Now) -> Option<Request> {
        if self.under_way.is_some() || now.monotonic < self.next_at || self.finished {
            return None;
        }
        if self.stopping.is_some_and(|at| now.monotonic >= at) {
            self.finished = true;
            return None;
        }
        let request = match &self.seen {
            _ if self.must_read => Request::Read,
            None => Request::Create(Box::new(self.held(now.wall))),
            Some(_) if self.stopping.is_some() => Request::Replace(Box::new(self.released(now.wall))),
            Some(_) => Request::Replace(Box::new(self.held(now.wall))),
        };
        self.under_way = Some((request.clone(), now.monotonic));
        Some(request)
    }

    /// Learns what came of the request under way. `now`: when the answer was there.
    pub fn handle_answer(&mut self, now: Instant, answer: Answer) {
        let Some((request, begun)) = self.under_way.take() else { return };
        if !matches!(answer, Answer::Conflict) {
            self.conflicts = 0;
        }
        match answer {
            Answer::Is(lease) => {
                let mine = holder(&lease) == Some(self.identity.as_str());
                self.observe(*lease, now);
                if mine && !matches!(request, Request::Read) && self.stopping.is_none() {
                    self.until = Some(begun + self.timing.renew());
                    self.must_read = false;
                    self.next_at = (begun + self.timing.retry()).max(now);
                } else {
                    self.decide(now);
                }
            }
            Answer::NotFound if matches!(request, Request::Read) && self.stopping.is_some() => {
                self.finished = true;
            }
            Answer::NotFound if matches!(request, Request::Read) && self.may_take(now) => {
                self.seen = None;
                self.must_read = false;
                self.next_at = now;
            }
            Answer::NotFound if matches!(request, Request::Read) => self.stand_by(now),
            Answer::NotFound | Answer::Conflict => {
                self.conflicts += 1;
                self.must_read = true;
                self.next_at =
                    if self.conflicts > CONFLICTS { now + self.jittered(self.timing.retry()) } else { now };
            }
            Answer::Unknown => {
                self.must_read = true;
                let soon = now + self.jittered(self.timing.retry() / 4);
                self.next_at = (begun + self.timing.retry()).max(soon);
            }
        }
    }

    /// When [`Self::poll_request`] may have a request, or leadership ends.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let request = (self.under_way.is_none() && !self.finished).then_some(self.next_at);
        [request, self.until].into_iter().flatten().min()
    }

    /// Leadership ends when nobody renews it in time.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.until.is_some_and(|until| now >= until) {
            self.until = None;
        }
    }

    /// Somebody says that the Lease may be free: look at once.
    pub fn look(&mut self, now: Instant) {
        if self.until.is_none() && self.must_read {
            self.next_at = self.next_at.min(now);
        }
    }

    /// Leads no longer, from this moment on, and gives the Lease back if it is held.
    pub fn stop(&mut self, now: Instant) {
        if self.stopping.is_some() {
            return;
        }
        self.until = None;
        self.stopping = Some(now + self.timing.request_limit());
        self.next_at = now;
        let held = self.seen.as_ref().is_some_and(|seen| seen.holder() == Some(self.identity.as_str()));
        let perhaps = matches!(self.under_way, Some((Request::Create(_) | Request::Replace(_), _)));
        self.finished = !held && !perhaps;
    }

    /// Whether [`Self::stop`] was called.
    pub fn stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Whether [`Self::stop`] has nothing more to do.
    pub fn finished(&self) -> bool {
        self.finished
    }

    fn observe(&mut self, lease: Lease, now: Instant) {
        // The record only: who edits labels does not renew. Every renewal changes its time.
        let same = self.seen.as_ref().filter(|seen| seen.lease.spec == lease.spec);
        let since = same.map_or(now, |seen| seen.since);
        self.seen = Some(Seen { lease, since });
    }

    /// What to do about the Lease as it has just been seen.
    fn decide(&mut self, now: Instant) {
        let mine = self.seen.as_ref().is_some_and(|seen| seen.holder() == Some(self.identity.as_str()));
        if self.stopping.is_some() {
            self.finished = !mine;
            self.must_read = false;
            self.next_at = now;
        } else if mine || self.may_take(now) {
            self.must_read = false;
            self.next_at = now;
        } else {
            self.stand_by(now);
        }
    }

    /// Whether nobody else can believe that he leads.
    fn may_take(&self, now: Instant) -> bool {
        self.other_expires().is_none_or(|at| now >= at)
    }

    fn stand_by(&mut self, now: Instant) {
        self.until = None;
        self.must_read = true;
        let usual = now + self.jittered(self.timing.retry());
        // Right when the record expires; a little apart, so that candidates don't collide.
        let due = self.other_expires().map(|at| at + self.jittered(self.timing.retry() / 10));
        self.next_at = due.map_or(usual, |due| usual.min(due));
    }

    fn other(&self) -> Option<&str> {
        self.seen.as_ref()?.holder().filter(|holder| *holder != self.identity)
    }

    fn other_expires(&self) -> Option<Instant> {
        self.other()?;
        self.seen.as_ref().map(|seen| seen.since + seen.lasts(self.timing.lease()))
    }

    /// The Lease with this candidate as its holder, as client-go writes it.
    fn held(&self, wall: Timestamp) -> Lease {
        let known = self.seen.as_ref().map(|seen| seen.lease.clone());
        let transitions = match &known {
            None => 0,
            Some(known) => {
                let before = known.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or_default();
                let again = holder(known) == Some(self.identity.as_str());
                before.max(0).saturating_add(i32::from(!again))
            }
        };
        let mut lease = known.unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            spec: None,
        });
        let again = holder(&lease) == Some(self.identity.as_str());
        let spec = lease.spec.get_or_insert_default();
        // A new holder's record differs by its name and its count of transitions.
        let now = after(spec.renew_time.as_ref().filter(|_| again), wall);
        if !again || spec.acquire_time.is_none() {
            spec.acquire_time = Some(now.clone());
        }
        spec.renew_time = Some(now);
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_transitions = Some(transitions);
        spec.lease_duration_seconds = Some(whole_seconds(self.timing.lease()));
        lease
    }

    /// The Lease as nobody's.
    fn released(&self, wall: Timestamp) -> Lease {
        let mut lease = self.seen.as_ref().map(|seen| seen.lease.clone()).unwrap_or_default();
        let spec = lease.spec.take().unwrap_or_default();
        let now = after(spec.renew_time.as_ref(), wall);
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            ..spec
        });
        lease
    }

    /// 0.8 to 1.2 of it.
    fn jittered(&mut self, pause: Duration) -> Duration {
        // splitmix64 (Steele, Lea, Flood 2014): spreads attempts, no more.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let part = u32::try_from((mixed ^ (mixed >> 31)) % 401).unwrap_or_default();
        pause / 1000 * (800 + part)
    }
}

/// The time by the wall, in microseconds as it is stored, but always later than the time that stands there, if any: a
/// renewed record must differ from every earlier one, or whoever missed some in between takes it for expired. So a
/// wall that stands still or was set back counts on in microseconds from where it was.
fn after(stored: Option<&MicroTime>, wall: Timestamp) -> MicroTime {
    let wall = Timestamp::from_microsecond(wall.as_microsecond()).unwrap_or(wall);
    let next = |stored: &Timestamp| stored.checked_add(SignedDuration::from_micros(1));
    match stored {
        Some(MicroTime(stored)) if *stored >= wall => {
            MicroTime(next(stored).unwrap_or(Timestamp::UNIX_EPOCH))
        }
        _ => MicroTime(wall),
    }
}

/// Rounded up: others must wait at least as long as this candidate counts on.
fn whole_seconds(duration: Duration) -> i32 {
    let up = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i32::try_from(up).unwrap_or(i32::MAX)
}
