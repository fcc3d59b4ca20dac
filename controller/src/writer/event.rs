//! Events: for people who read `kubectl describe`. Best effort: they never hold up a write that matters.
//!
//! Events tell of transitions only; beyond a rate they are dropped and counted, because ten thousand Services that get
//! their addresses at once would otherwise cost ten thousand more writes.

use std::time::Duration;

use herald_crds::names::GROUP;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

use super::{MANAGER, TIMEOUT};
use crate::{
    job::{EventJob, EventKind},
    metrics::Metrics,
};

/// So many events at once, and so many a second on average.
const BURST: u32 = 50;
const EVERY: Duration = Duration::from_millis(200);
/// How long an event waits: on a small control plane its write would compete with the status that users wait for.
const SETTLE: Duration = Duration::from_millis(100);
/// So many wait.
const QUEUE: usize = 256;
/// The API server's limit for a note, in bytes.
const NOTE: usize = 1024;

/// An event, and when it was handed in: for people, and for [`SETTLE`].
type Told = (EventJob, Timestamp, Instant);

/// Where events are handed in.
#[derive(Clone, Debug)]
pub struct Events {
    queue: mpsc::Sender<Told>,
    metrics: Metrics,
}

impl Events {
    /// Hands an event in; drops it if too many wait.
    pub fn tell(&self, event: EventJob, now: Timestamp) {
        if self.queue.try_send((event, now, Instant::now())).is_err() {
            self.metrics.event_dropped();
        }
    }
}

/// The queue, and the task that writes what is put in. `instance` names this process.
pub fn event_writer(
    client: Client,
    instance: String,
    metrics: Metrics,
) -> (Events, impl Future<Output = ()>) {
    let (queue, mut waiting) = mpsc::channel::<Told>(QUEUE);
    let events = Events { queue, metrics: metrics.clone() };
    let run = async move {
        // A bucket of BURST tokens that gains one in every EVERY, kept as the time at which it would be full.
        let mut full = Instant::now();
        while let Some((job, time, handed_in)) = waiting.recv().await {
            sleep_until(handed_in + SETTLE).await;
            let now = Instant::now();
            full = full.max(now) + EVERY;
            if full.duration_since(now) > EVERY * BURST {
                full -= EVERY;
                metrics.event_dropped();
                continue;
            }
            let api: Api<Event> = Api::namespaced(client.clone(), &job.owner.service.namespace);
            let event = event(&job, &instance, time);
            let params = PostParams::default();
            match timeout(TIMEOUT, api.create(&params, &event)).await {
                Ok(Ok(_)) => metrics.requested("create event", "ok"),
                Ok(Err(error)) => {
                    metrics.requested("create event", "refused");
                    tracing::debug!(%error, service = %job.owner.service, "event not written");
                }
                Err(_) => metrics.requested("create event", "refused"),
            }
        }
    };
    (events, run)
}

fn event(job: &EventJob, instance: &str, time: Timestamp) -> Event {
    let EventJob { owner, kind, note } = job;
    let (reason, action, class) = match kind {
        EventKind::Allocated => ("IPAllocated", "Allocate", "Normal"),
        EventKind::Released => ("IPReleased", "Release", "Normal"),
        EventKind::Failed => ("AllocationFailed", "Allocate", "Warning"),
        EventKind::Invalid => ("InvalidRequest", "Allocate", "Warning"),
    };
    let namespace = owner.service.namespace.to_string();
    let name = owner.service.name.to_string();
    let mut note = note.clone();
    if note.len() > NOTE {
        let end = (0..=NOTE).rev().find(|&at| note.is_char_boundary(at)).unwrap_or_default();
        note.truncate(end);
    }
    Event {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(time)),
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Service".to_owned()),
            namespace: Some(namespace),
            name: Some(name),
            uid: Some(owner.uid.to_string()),
            ..ObjectReference::default()
        }),
        reason: Some(reason.to_owned()),
        action: Some(action.to_owned()),
        type_: Some(class.to_owned()),
        note: Some(note),
        reporting_controller: Some(format!("{GROUP}/{MANAGER}")),
        reporting_instance: Some(instance.to_owned()),
        ..Event::default()
    }
}
