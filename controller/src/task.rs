//! The one task that owns all state: events in, jobs out, results back in.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
    time::{sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    core::{Core, Event, Now},
    job::{Done, Job},
    metrics::Metrics,
    watch::EndpointsWatch,
    writer::{Events, Writer},
};

/// Jobs under way at once: the API server's own fairness does the rest.
const PARALLEL: usize = 32;
/// How long jobs under way may take to end at shutdown.
const FAREWELL: Duration = Duration::from_secs(5);

/// Runs the core until `stop`.
pub async fn run(
    mut core: Core,
    (mut events, endpoints): (mpsc::Receiver<Event>, EndpointsWatch),
    writer: Writer,
    told: Events,
    metrics: Metrics,
    stop: CancellationToken,
) {
    // What was begun is finished before more is begun: among ten thousand new Services the first ones are served soon,
    // instead of all of them at the end.
    let (mut begun, mut fresh) = (VecDeque::new(), VecDeque::new());
    let mut running: JoinSet<Option<Done>> = JoinSet::new();
    let mut endpoints = Some(endpoints);
    let mut watching = JoinSet::new();
    loop {
        while let Some(job) = core.poll_job() {
            match job {
                Job::Event(event) => told.tell(event, Timestamp::now()),
                job @ Job::Take(_) => fresh.push_back(job),
                job => begun.push_back(job),
            }
        }
        while running.len() < PARALLEL
            && let Some(job) = begun.pop_front().or_else(|| fresh.pop_front())
        {
            running.spawn(writer.clone().run(job));
        }
        if core.needs_endpoints()
            && let Some(endpoints) = endpoints.take()
        {
            watching.spawn(endpoints.run());
        }
        metrics.queue(begun.len() + fresh.len() + running.len());
        let timer = core.poll_timeout();
        tokio::select! {
            // Results first: they free what others wait for.
            biased;
            () = stop.cancelled() => break,
            Some(ended) = running.join_next() => finish(&mut core, ended),
            Some(event) = events.recv() => core.handle(now(), event),
            () = sleep_until(timer.unwrap_or_else(Instant::now).into()), if timer.is_some() => {
                core.handle_timeout(now());
            }
        }
    }
    // What was not begun is left to the next controller: it finds the same state and decides the same.
    if timeout(FAREWELL, async { while running.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!(
            jobs = running.len(),
            "ended with writes under way; they are conditional and may still arrive"
        );
    }
}

fn finish(core: &mut Core, ended: Result<Option<Done>, JoinError>) {
    match ended {
        Ok(Some(done)) => core.handle(now(), Event::Done(done)),
        Ok(None) => {}
        Err(error) => tracing::error!(%error, "a write ended without a result"),
    }
}

fn now() -> Now {
    Now { monotonic: Instant::now(), wall: Timestamp::now() }
}

/// The time at which a core begins.
pub fn start() -> Now {
    now()
}
