//! The controller's parts put together: watches, election, task, writers. Everything but what ties it to a machine
//! (flags, signals, admin endpoints, the hello Secret): `tests/controlsim` runs this against a model of the API server.
//!
//! What must always hold: the Lease is given back only when nothing is written any more (but events, which either
//! controller may write); where that is not known it is left to expire.

use std::{fmt, time::Duration};

use herald_runtime::{
    Readiness,
    lease::{self, Leadership},
    shutdown::CancellationToken,
};
use kube::Client;
use tokio::{
    sync::{mpsc, watch::Receiver},
    task::JoinSet,
    time::timeout,
};

use crate::{
    core::Core,
    metrics::Metrics,
    task::{self, StateAsked, Task},
    watch::{self, Newest},
    writer::{Writer, event_writer},
};

/// How long giving the Lease back may take.
const FAREWELL: Duration = Duration::from_secs(5);

/// What it is made of.
pub struct Parts {
    /// The way to the API server.
    pub client: Client,
    /// The `loadBalancerClass` served.
    pub class: Option<String>,
    /// By which Lease it leads, and under which name.
    pub lease: lease::Settings,
    /// Its name in events.
    pub instance: String,
    /// Where to say what is missing.
    pub readiness: Readiness,
    /// Where to count.
    pub metrics: Metrics,
    /// Who asks what the core holds.
    pub asked: mpsc::Receiver<StateAsked>,
}

/// A controller that can run.
pub struct Assembly {
    parts: Parts,
    election: lease::Election,
    leadership: Receiver<Leadership>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts")
            .field("class", &self.class)
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Assembly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assembly").field("parts", &self.parts).finish_non_exhaustive()
    }
}

impl Assembly {
    /// Puts it together. Nothing happens before [`Assembly::run`].
    pub fn new(parts: Parts) -> Self {
        let Parts { client, lease, readiness, .. } = &parts;
        let (election, leadership) = lease::Election::new(client.clone(), lease.clone(), readiness.clone());
        Self { parts, election, leadership }
    }

    /// Where to see whether it leads.
    pub fn leadership(&self) -> Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Runs until `stop`, and then until what is under way has ended.
    pub async fn run(self, stop: CancellationToken) {
        let Self {
            parts: Parts { client, class, lease, instance, readiness, metrics, asked },
            election,
            leadership,
        } = self;
        let mut tasks = JoinSet::new();
        let (told, event_task) = event_writer(client.clone(), instance, metrics.clone());
        tasks.spawn(event_task);
        let (events, endpoints) = watch::start(&client, &readiness, &mut tasks);
        let last_write = CancellationToken::new();
        let mut election = tokio::spawn(election.run(last_write.clone()));
        let limit = lease.timing.write_limit();
        let task = Task {
            core: Core::new(class.clone(), metrics.clone(), task::start()),
            events,
            endpoints,
            asked,
            writer: Writer::new(client.clone(), class, leadership.clone(), limit, metrics.clone()),
            told,
            leadership,
            newest: Newest::new(client, readiness),
            metrics,
        };
        let all_written = task.run(stop).await;
        if all_written {
            // The next leader need not wait then.
            last_write.cancel();
        }
        if !all_written || timeout(FAREWELL, &mut election).await.is_err() {
            tracing::warn!(
                "the lease could not be given back in time; the next leader waits until it expires"
            );
            election.abort();
        }
        tasks.shutdown().await;
    }
}
