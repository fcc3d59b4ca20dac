//! Carries an [`Elector`]'s requests out, and tells the process whether it leads.

use std::{fmt, pin::pin};

use futures::{StreamExt as _, future::BoxFuture};
use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{Api, Client, Error, api::PostParams, runtime::watcher::Config};
use tokio::{
    sync::watch::{self, Receiver, Sender},
    time::{Instant, sleep_until, timeout},
};

use super::{
    Leadership,
    elector::{Answer, Elector, Now, Request, holder},
    timing::Timing,
};
use crate::{Readiness, client::describe, shutdown::CancellationToken, watch::Change};

/// Which Lease, and who is a candidate for it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The Lease's namespace.
    pub namespace: String,
    /// The Lease's name.
    pub name: String,
    /// This process. No other may have the same; one that comes after it may, if this one is gone for certain by then,
    /// as with the container of a pod that is restarted: it leads again at once.
    pub identity: String,
    /// How patient everybody is.
    pub timing: Timing,
}

/// A candidate at work.
pub struct Election {
    settings: Settings,
    api: Api<Lease>,
    elector: Elector,
    tell: Sender<Leadership>,
    readiness: Readiness,
    /// The name of the reason in `readiness`.
    reason: String,
    /// The trouble that was said last.
    trouble: Option<String>,
}

impl fmt::Debug for Election {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Election").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What a request gave: an answer, and the trouble if that was why there is none.
type Outcome = (Answer, Option<Trouble>);

/// Why there is no answer.
#[derive(Debug)]
struct Trouble {
    text: String,
    /// Waiting won't mend it.
    lasting: bool,
}

impl Election {
    /// A candidate, standing by until [`Self::run`]; and where to see whether it leads.
    pub fn new(client: Client, settings: Settings, readiness: Readiness) -> (Self, Receiver<Leadership>) {
        let reason = format!("lease {}/{}", settings.namespace, settings.name);
        readiness.missing(&reason, "not read yet");
        let api = Api::namespaced(client, &settings.namespace);
        let (tell, leadership) = watch::channel(Leadership::Standby { leader: None });
        let now = Instant::now().into_std();
        let elector = Elector::new(&settings.name, &settings.identity, settings.timing, now, crate::random());
        (Self { settings, api, elector, tell, readiness, reason, trouble: None }, leadership)
    }

    /// Takes part until `end`; then gives the Lease back, if it has it. Cancel `end` when nothing more will be written.
    pub async fn run(mut self, end: CancellationToken) {
        // Polling would do; being told makes the standby lead at once when a leader has gone in peace.
        let hints = Config::default().fields(&format!("metadata.name={}", self.settings.name));
        let hints =
            crate::watch::watch(self.api.clone(), hints, "leases", &self.readiness, |lease: Lease| {
                holder(&lease).is_none()
            });
        let mut hints = pin!(hints);
        let mut under_way: Option<BoxFuture<'static, Outcome>> = None;
        loop {
            if under_way.is_none()
                && let Some(request) = self.elector.poll_request(now())
            {
                under_way = Some(self.send(request));
            }
            self.tell();
            if self.elector.finished() {
                return;
            }
            let due = self.elector.poll_timeout().map(Instant::from_std);
            tokio::select! {
                outcome = async { match under_way.as_mut() {
                    Some(request) => request.await,
                    None => std::future::pending().await,
                } } => {
                    under_way = None;
                    let (answer, trouble) = outcome;
                    self.elector.handle_answer(now().monotonic, answer);
                    self.note(trouble);
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.elector.handle_timeout(now().monotonic);
                }
                () = end.cancelled(), if !self.elector.stopping() => self.elector.stop(now().monotonic),
                Some(change) = hints.next() => {
                    let free = match change {
                        Change::Replaced(list) => list.into_iter().all(|free| free),
                        Change::Applied(free) => free,
                        Change::Deleted(_) => true,
                    };
                    if free {
                        self.elector.look(now().monotonic);
                    }
                }
            }
        }
    }

    fn send(&self, request: Request) -> BoxFuture<'static, Outcome> {
        let api = self.api.clone();
        let name = self.settings.name.clone();
        let limit = self.settings.timing.request_limit();
        Box::pin(async move {
            let params = PostParams::default();
            let reads = request == Request::Read;
            let asking = async {
                match &request {
                    Request::Read => api.get(&name).await,
                    Request::Create(lease) => api.create(&params, lease).await,
                    Request::Replace(lease) => api.replace(&name, &params, lease).await,
                }
            };
            match timeout(limit, asking).await {
                Ok(Ok(lease)) => (Answer::Is(Box::new(lease)), None),
                Ok(Err(Error::Api(status))) if status.code == 404 && reads => (Answer::NotFound, None),
                Ok(Err(Error::Api(status))) if status.code == 409 => (Answer::Conflict, None),
                Ok(Err(error)) => {
                    let lasting = matches!(&error, Error::Api(status) if matches!(status.code, 400..=428));
                    (Answer::Unknown, Some(Trouble { text: describe(&error), lasting }))
                }
                Err(_) => (
                    Answer::Unknown,
                    Some(Trouble { text: format!("no answer within {limit:?}"), lasting: false }),
                ),
            }
        })
    }

    /// Tells of each change: of the deadline, too, but that is no line in the log.
    fn tell(&mut self) {
        let new = self.elector.leadership(now().monotonic);
        let lease = &self.reason;
        let identity = &self.settings.identity;
        match (&*self.tell.borrow(), &new) {
            (old, new) if old == new => return,
            (Leadership::Leading { .. }, Leadership::Leading { .. }) => {}
            (_, Leadership::Leading { .. }) => tracing::info!(lease, identity, "leading"),
            (Leadership::Leading { .. }, Leadership::Standby { leader }) => {
                tracing::warn!(lease, identity, leader, trouble = self.trouble, "leading no longer");
            }
            (_, Leadership::Standby { leader }) => tracing::info!(lease, identity, leader, "standing by"),
        }
        self.tell.send_replace(new);
    }

    /// Says each trouble once; readiness names what waiting won't mend, and whatever keeps the first look away.
    fn note(&mut self, trouble: Option<Trouble>) {
        let Some(Trouble { text, lasting }) = trouble else {
            self.readiness.ready(&self.reason);
            if self.trouble.take().is_some() {
                tracing::info!(lease = self.reason, "the lease can be read again");
            }
            return;
        };
        if self.trouble.as_ref() == Some(&text) {
            return;
        }
        tracing::warn!(lease = self.reason, error = text, "the lease can't be read or written");
        let known = !self.readiness.reasons().iter().any(|(name, _)| *name == self.reason);
        if lasting {
            let advice = "grant this service account create, get, update, list and watch on leases.coordination.k8s.io in its namespace";
            self.readiness.missing(&self.reason, format!("{text}; {advice}"));
        } else if !known {
            self.readiness.missing(&self.reason, text.clone());
        }
        self.trouble = Some(text);
    }
}

fn now() -> Now {
    Now { monotonic: Instant::now().into_std(), wall: Timestamp::now() }
}
