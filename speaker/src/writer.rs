//! Carries out the [`Plan`]: requests to the API server, paced, each with a time limit.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use herald_crds::name_of_address;
use herald_runtime::{Readiness, client::describe};
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Error,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use crate::{
    lbip::LeanLbip,
    node_news::NodeNews,
    status::{BURST, Came, Foreign, LAZY, Plan, RATE, Write},
};

/// Longest time for one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after the first failure, doubled up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// Longest pause while the API server is away.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Attempts to remove a superseded entry against concurrent writers.
const ATTEMPTS: u32 = 4;
/// One event a second in the long run; what is beyond it is not told: a takeover of a thousand addresses is one
/// story, and the status has it all.
const EVENT_STEP: Duration = Duration::from_secs(1);
/// Events at once.
const EVENT_BURST: u32 = 10;
/// Where events about cluster-scoped objects go.
const EVENT_NAMESPACE: &str = "default";
/// The longest note of an event that the API server takes.
const MAX_NOTE: usize = 1024;

/// The reason in readiness while the right to write is missing.
const STATUS: &str = "status";
const REFUSED: &str = "RBAC refuses: grant this service account patch on loadbalancerips/status and create on events.events.k8s.io";

/// The plan and its writer's doorbell; clones share both.
#[derive(Clone, Debug, Default)]
pub struct Board {
    plan: Arc<Mutex<Plan>>,
    bell: Arc<Notify>,
}

impl Board {
    /// Changes the plan and wakes the writer.
    pub fn update<R>(&self, change: impl FnOnce(&mut Plan) -> R) -> R {
        let mut plan = self.lock();
        plan.not_before = Some(Instant::now() + lazily());
        let result = change(&mut plan);
        drop(plan);
        self.bell.notify_one();
        result
    }

    /// The process ends: [`Writer::run`] takes back what nobody took over, and ends.
    pub fn close(&self) {
        self.lock().close();
        self.bell.notify_one();
    }

    /// How many writes wait.
    pub fn waiting(&self) -> usize {
        self.lock().waiting()
    }

    fn lock(&self) -> MutexGuard<'_, Plan> {
        // Each change is complete in itself; a panic elsewhere does not make the plan wrong.
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Not all speakers at once: what makes many transitions makes them on all nodes.
fn lazily() -> Duration {
    let mut byte = [0];
    // Without random numbers all wait alike.
    let _ = getrandom::fill(&mut byte);
    let [byte] = byte;
    LAZY + LAZY * u32::from(byte) / u32::from(u8::MAX)
}

/// Writes as one node.
pub struct Writer {
    lbips: Api<LeanLbip>,
    events: Api<Event>,
    node: String,
    manager: String,
    board: Board,
    pace: Pace,
    event_pace: Pace,
    readiness: Readiness,
    /// What is wrong with the API server, said once.
    trouble: Option<&'static str>,
    pause: Duration,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("manager", &self.manager).finish_non_exhaustive()
    }
}

impl Writer {
    /// A writer for `node`.
    pub fn new(client: Client, node: &str, board: Board, readiness: Readiness) -> Self {
        Self {
            lbips: Api::all(client.clone()),
            events: Api::namespaced(client, EVENT_NAMESPACE),
            node: node.to_owned(),
            manager: manager_of(node),
            board,
            pace: Pace::new(Duration::from_secs(1) / RATE, BURST),
            event_pace: Pace::new(EVENT_STEP, EVENT_BURST),
            readiness,
            trouble: None,
            pause: PAUSE_MIN,
        }
    }

    /// Writes until [`Board::close`] and what is to be done then.
    pub async fn run(mut self) {
        loop {
            let rung = Arc::clone(&self.board.bell).notified_owned();
            let (news, write, next, over) = {
                let mut plan = self.board.lock();
                let news = plan.node_news.pop();
                let write = if news.is_none() { plan.newest(Instant::now()) } else { None };
                (news, write, plan.next_at(), plan.is_over())
            };
            if let Some(news) = news {
                self.tell_node(news).await;
                continue;
            }
            let Some(write) = write else {
                match next {
                    _ if over => return,
                    // A bell or the time, whichever comes first.
                    Some(next) => drop(timeout_at(next, rung).await),
                    None => rung.await,
                }
                continue;
            };
            match self.write(&write).await {
                Ok(()) => {
                    self.works();
                    self.board.lock().done(&write);
                }
                // Only conditional writes can meet a change, and those look again.
                Err(Failure::Changed) => self.board.lock().again(write),
                Err(Failure::Gone) => {
                    self.works();
                    self.board.lock().deleted(write.vip);
                }
                Err(Failure::Later(trouble, error)) => {
                    self.board.lock().again(write);
                    self.fails(trouble, &error).await;
                }
                // Trying again would not help; the next transition of this address does.
                Err(Failure::Refused(error)) => {
                    tracing::warn!(address = %write.vip, error, "the API server refuses this status");
                    self.board.lock().done(&write);
                }
            }
        }
    }

    fn works(&mut self) {
        self.pause = PAUSE_MIN;
        if self.trouble.take().is_some() {
            let waiting = self.board.lock().waiting();
            tracing::info!(waiting, "writing status works again");
            self.readiness.ready(STATUS);
        }
    }

    async fn fails(&mut self, trouble: &'static str, error: &str) {
        if self.trouble != Some(trouble) {
            let waiting = self.board.lock().waiting();
            tracing::warn!(
                error,
                waiting,
                "status can't be written: {trouble}; announcing goes on, what is still true is written later"
            );
            self.trouble = Some(trouble);
            if trouble == REFUSED {
                self.readiness.missing(STATUS, trouble);
            }
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    async fn write(&mut self, write: &Write) -> Result<(), Failure> {
        let name = name_of_address(write.vip);
        let mut object = self.apply(&name, write).await?;
        let others: Vec<String> =
            object.holders().filter(|holder| *holder != self.node).map(str::to_owned).collect();
        let settled = write.desired.foreign.is_none() && object.conditions_without_conflict().is_some();
        if write.claim.is_some() && (settled || !others.is_empty()) {
            object = self.supersede(&name, write, object).await?;
        }
        if let Some(came) = &write.claim {
            let before = match came {
                Came::From(node) => Some(node.clone()),
                Came::First => others.first().cloned(),
            };
            self.tell_claim(write, before, object.uid()).await;
        }
        if write.news_of_conflict
            && let Some(foreign) = &write.desired.foreign
        {
            self.tell_conflict(write.vip, foreign, object.uid()).await;
        }
        Ok(())
    }

    /// Says all that this node's manager owns in the object; what it leaves out is removed.
    async fn apply(&mut self, name: &str, write: &Write) -> Result<LeanLbip, Failure> {
        let mut status = serde_json::Map::new();
        if let Some(entry) = &write.desired.entry {
            status.insert("holders".to_owned(), json!([entry.to_holder(&self.node)]));
        }
        if let Some(foreign) = &write.desired.foreign {
            status.insert("conditions".to_owned(), json!([self.condition(foreign)]));
        }
        let body = json!({
            "apiVersion": "heraldlb.io/v1beta1",
            "kind": "LoadBalancerIP",
            "metadata": {"name": name},
            "status": status,
        });
        // Forced: the only field that two speakers may both write is the condition, and the later one is right.
        let params = PatchParams::apply(&self.manager).force();
        self.pace.turn().await;
        limited(self.lbips.patch_status(name, &params, &Patch::Apply(body))).await
    }

    fn condition(&self, foreign: &Foreign) -> Value {
        let (reason, does) = if foreign.held {
            ("Defending", "this node holds the address and defends it")
        } else {
            ("AddressInUse", "this node leaves the address alone")
        };
        json!({
            "type": "Conflict",
            "status": "True",
            "reason": reason,
            "message": format!(
                "host {} on {} of node {} answers for this address; {does}; remove the other host's address or exclude the address from the pool (a node with kube-proxy in IPVS mode answers for every address unless strictARP is on)",
                foreign.mac, foreign.interface, self.node
            ),
            "lastTransitionTime": foreign.since.to_string(),
        })
    }

    /// Removes the other nodes' entries, and a conflict that one of them wrote down and this node, which has just
    /// claimed the address, does not see; provided that nothing was written since `object` was read.
    async fn supersede(&mut self, name: &str, write: &Write, object: LeanLbip) -> Result<LeanLbip, Failure> {
        let mut object = object;
        let mine: Vec<_> = write.desired.entry.iter().map(|entry| entry.to_holder(&self.node)).collect();
        for _ in 0..ATTEMPTS {
            let mut status = serde_json::Map::from_iter([("holders".to_owned(), json!(mine))]);
            if write.desired.foreign.is_none()
                && let Some(conditions) = object.conditions_without_conflict()
            {
                status.insert("conditions".to_owned(), json!(conditions));
            }
            let body = json!({"metadata": {"resourceVersion": object.resource_version()}, "status": status});
            let params = PatchParams { field_manager: Some(self.manager.clone()), ..PatchParams::default() };
            self.pace.turn().await;
            match limited(self.lbips.patch_status(name, &params, &Patch::Merge(body))).await {
                Err(Failure::Changed) => {
                    self.pace.turn().await;
                    object = limited(self.lbips.get(name)).await?;
                }
                other => return other,
            }
        }
        // Somebody writes this object all the time; the next transition tries again.
        Ok(object)
    }

    async fn tell_claim(&mut self, write: &Write, before: Option<String>, uid: Option<&str>) {
        let Some(entry) = &write.desired.entry else { return };
        let place =
            format!("node {} answers for {} on {} with {}", self.node, write.vip, entry.interface, entry.mac);
        let about = lbip_reference(write.vip, uid);
        match before.filter(|before| *before != self.node) {
            Some(before) => {
                self.tell(about, "Normal", "Moved", format!("{place}; before: node {before}")).await;
            }
            None => self.tell(about, "Normal", "Announced", place).await,
        }
    }

    async fn tell_conflict(&mut self, vip: IpAddr, foreign: &Foreign, uid: Option<&str>) {
        let note = format!(
            "host {} on {} of node {} answers for {vip}, which is not its own; remove the other host's address or exclude this one from the pool",
            foreign.mac, foreign.interface, self.node
        );
        self.tell(lbip_reference(vip, uid), "Warning", "AddressConflict", note).await;
    }

    async fn tell_node(&mut self, news: NodeNews) {
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(self.node.clone()),
            // As kubelet has it; `kubectl describe node` looks for both this and the real uid.
            uid: Some(self.node.clone()),
            ..ObjectReference::default()
        };
        self.tell(about, "Warning", news.reason, news.note).await;
    }

    /// One event, tried once: it is for people who look now.
    async fn tell(&mut self, about: ObjectReference, kind: &str, reason: &str, mut note: String) {
        while note.len() > MAX_NOTE {
            note.pop();
        }
        let now = Timestamp::now();
        let about_name = about.name.clone().unwrap_or_default();
        let event = Event {
            metadata: ObjectMeta {
                name: Some(event_name(&about_name, now)),
                namespace: Some(EVENT_NAMESPACE.to_owned()),
                ..ObjectMeta::default()
            },
            action: Some("Announce".to_owned()),
            event_time: Some(MicroTime(now)),
            note: Some(note),
            reason: Some(reason.to_owned()),
            regarding: Some(about),
            reporting_controller: Some("heraldlb.io/speaker".to_owned()),
            reporting_instance: Some(self.manager.clone()),
            type_: Some(kind.to_owned()),
            ..Event::default()
        };
        if self.event_pace.try_turn()
            && limited(self.events.create(&PostParams::default(), &event)).await.is_err()
        {
            tracing::debug!(about = about_name, reason, "event not written");
        }
    }
}

fn lbip_reference(vip: IpAddr, uid: Option<&str>) -> ObjectReference {
    ObjectReference {
        api_version: Some("heraldlb.io/v1beta1".to_owned()),
        kind: Some("LoadBalancerIP".to_owned()),
        name: Some(name_of_address(vip)),
        uid: uid.map(str::to_owned),
        ..ObjectReference::default()
    }
}

/// Unlike any other's. An object's name has 253 characters at most, a node's may have as many.
fn event_name(about: &str, now: Timestamp) -> String {
    const MOST: usize = 200;
    let head: String = about.chars().take(MOST).collect();
    let head = head.trim_end_matches(|last: char| !last.is_ascii_alphanumeric());
    format!("{head}.{:x}", now.as_nanosecond())
}

/// The field manager of a node. The API server takes 128 characters, node names go to 253.
fn manager_of(node: &str) -> String {
    const MOST: usize = 128;
    let whole = format!("herald-speaker-{node}");
    if whole.len() <= MOST {
        return whole;
    }
    let digest: [u8; 32] = Sha256::digest(node.as_bytes()).into();
    let hash = digest.first_chunk().map_or(0, |head| u64::from_be_bytes(*head));
    let hash = format!("{hash:016x}");
    let head: String = whole.chars().take(MOST - hash.len() - 1).collect();
    format!("{head}-{hash}")
}

/// Why a request came to nothing.
enum Failure {
    /// The object does not exist.
    Gone,
    /// Another writer was faster.
    Changed,
    /// The API server won't have it.
    Refused(String),
    /// To be tried again, with what to do about it.
    Later(&'static str, String),
}

async fn limited<T>(request: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
    let Ok(result) = timeout(REQUEST_TIMEOUT, request).await else {
        return Err(Failure::Later(
            "the API server does not answer",
            format!("no answer within {REQUEST_TIMEOUT:?}"),
        ));
    };
    result.map_err(|error| {
        let advice = match &error {
            Error::Api(status) => match status.code {
                404 => return Failure::Gone,
                403 => REFUSED,
                401 => "the API server doesn't accept these credentials: check the service account's token or the kubeconfig",
                409 => return Failure::Changed,
                429 | 500..=599 => "the API server is not ready to answer",
                _ => return Failure::Refused(describe(&error)),
            },
            _ => "the API server can't be reached",
        };
        Failure::Later(advice, describe(&error))
    })
}

/// A token bucket.
#[derive(Debug)]
struct Pace {
    /// Time for one token.
    step: Duration,
    /// Time for a full bucket.
    burst: Duration,
    /// When the bucket would be full again.
    full_at: Instant,
}

impl Pace {
    fn new(step: Duration, burst: u32) -> Self {
        Self { step, burst: step * burst, full_at: Instant::now() }
    }

    async fn turn(&mut self) {
        let now = Instant::now();
        self.full_at = self.full_at.max(now) + self.step;
        if self.full_at > now + self.burst {
            sleep_until(self.full_at - self.burst).await;
        }
    }

    fn try_turn(&mut self) -> bool {
        let now = Instant::now();
        let next = self.full_at.max(now) + self.step;
        let granted = next <= now + self.burst;
        if granted {
            self.full_at = next;
        }
        granted
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
