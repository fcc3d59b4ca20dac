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
    /// What somebody has to do about it, where waiting won't mend it.
    advice: Option<&'static str>,
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
                // In this order, so that a simulation can be repeated.
                biased;
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
                    let advice = match &error {
                        Error::Api(status) => advice(status.code),
                        _ => None,
                    };
                    let text = match &error {
                        Error::Api(_) => describe(&error),
                        error => {
                            format!("the API server can't be reached, waiting for it: {}", describe(error))
                        }
                    };
                    (Answer::Unknown, Some(Trouble { text, advice }))
                }
                Err(_) => (
                    Answer::Unknown,
                    Some(Trouble { text: format!("no answer within {limit:?}"), advice: None }),
                ),
            }
        })
    }

    /// The Lease as logs call it.
    fn lease(&self) -> String {
        format!("{}/{}", self.settings.namespace, self.settings.name)
    }

    /// Tells of each change: of the deadline, too, but that is no line in the log.
    fn tell(&mut self) {
        let new = self.elector.leadership(now().monotonic);
        let lease = self.lease();
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
        let Some(Trouble { text, advice }) = trouble else {
            self.readiness.ready(&self.reason);
            if self.trouble.take().is_some() {
                tracing::info!(lease = self.lease(), "the lease can be read again");
            }
            return;
        };
        if self.trouble.as_ref() == Some(&text) {
            return;
        }
        tracing::warn!(lease = self.lease(), error = text, "the lease can't be read or written");
        let known = !self.readiness.reasons().iter().any(|(name, _)| *name == self.reason);
        if let Some(advice) = advice {
            self.readiness.missing(&self.reason, format!("{text}; {advice}"));
        } else if !known {
            self.readiness.missing(&self.reason, text.clone());
        }
        self.trouble = Some(text);
    }
}

/// What somebody has to do about a refusal.
fn advice(code: u16) -> Option<&'static str> {
    match code {
        401 => Some("check the service account's token or the kubeconfig"),
        403 => Some(
            "grant this service account create, get, update, list and watch on leases.coordination.k8s.io in its namespace",
        ),
        404 => Some("create the namespace that --namespace names"),
        400..=428 => Some("see what the API server said; the Lease may be deleted, it is made anew"),
        _ => None,
    }
}

fn now() -> Now {
    Now { monotonic: Instant::now().into_std(), wall: Timestamp::now() }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::{Method, Response};
    use http_body_util::BodyExt as _;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// A server with one Lease; it refuses everything while `refusing`.
    #[derive(Default)]
    struct Server {
        refusing: bool,
        lease: Option<Value>,
        version: u64,
    }

    impl Server {
        fn answer(&mut self, method: &Method, path: &str, body: &[u8]) -> (u16, Value) {
            let refused = |code: u16, reason: &str| {
                (
                    code,
                    json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason}),
                )
            };
            if self.refusing {
                return refused(403, "Forbidden");
            }
            if path.contains('?') && !path.contains("/leases/") && *method == Method::GET {
                let list = json!({"kind": "LeaseList", "apiVersion": "coordination.k8s.io/v1", "metadata": {"resourceVersion": "1"}, "items": []});
                return (200, list);
            }
            if *method == Method::GET {
                return self.lease.clone().map_or_else(|| refused(404, "NotFound"), |lease| (200, lease));
            }
            let mut lease: Value = serde_json::from_slice(body).unwrap();
            if *method == Method::PUT
                && Some(&lease["metadata"]["resourceVersion"])
                    != self.lease.as_ref().map(|lease| &lease["metadata"]["resourceVersion"])
            {
                return refused(409, "Conflict");
            }
            self.version += 1;
            lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
            self.lease = Some(lease.clone());
            (200, lease)
        }

        fn holder(&self) -> String {
            self.lease.as_ref().unwrap()["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
        }
    }

    fn client(server: &Arc<Mutex<Server>>) -> Client {
        let server = Arc::clone(server);
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let server = Arc::clone(&server);
            async move {
                let (head, body) = request.into_parts();
                let path = head.uri.to_string();
                if path.contains("watch=true") {
                    std::future::pending::<()>().await;
                }
                let body = body.collect().await?.to_bytes();
                let (status, body) = server.lock().unwrap().answer(&head.method, &path, &body);
                let body = Body::from(serde_json::to_vec(&body).unwrap());
                Ok::<_, tower::BoxError>(Response::builder().status(status).body(body).unwrap())
            }
        });
        Client::new(service, "default")
    }

    fn candidate(server: &Arc<Mutex<Server>>, name: &str) -> (Election, Receiver<Leadership>, Readiness) {
        let readiness = Readiness::new();
        let settings = Settings {
            namespace: "herald-system".to_owned(),
            name: "herald-controller".to_owned(),
            identity: name.to_owned(),
            timing: Timing::default(),
        };
        let (election, leadership) = Election::new(client(server), settings, readiness.clone());
        (election, leadership, readiness)
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_right_shows_in_readiness_with_what_to_grant_and_is_tried_again() {
        let server = Arc::new(Mutex::new(Server { refusing: true, ..Server::default() }));
        let (election, mut leadership, readiness) = candidate(&server, "a");
        tokio::spawn(election.run(CancellationToken::new()));
        let named = |readiness: &Readiness| {
            readiness
                .reasons()
                .iter()
                .any(|(name, why)| name.starts_with("lease ") && why.contains("create, get, update"))
        };
        while !named(&readiness) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        server.lock().unwrap().refusing = false;
        leadership.wait_for(|leadership| matches!(leadership, Leadership::Leading { .. })).await.unwrap();
        while !readiness.is_ready() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn both_are_ready_and_the_lease_is_given_back_at_the_end() {
        let server = Arc::new(Mutex::new(Server::default()));
        let (first, mut leads, readiness) = candidate(&server, "a");
        let end = CancellationToken::new();
        let first = tokio::spawn(first.run(end.clone()));
        leads.wait_for(|leadership| matches!(leadership, Leadership::Leading { .. })).await.unwrap();
        let (second, mut waits, ready_too) = candidate(&server, "b");
        tokio::spawn(second.run(CancellationToken::new()));
        let standby = Leadership::Standby { leader: Some("a".to_owned()) };
        waits.wait_for(|leadership| *leadership == standby).await.unwrap();
        for readiness in [&readiness, &ready_too] {
            while !readiness.is_ready() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        }
        end.cancel();
        first.await.unwrap();
        assert!(
            !leads.borrow().may_write(Instant::now().into_std()),
            "it says so before it gives the Lease back"
        );
        assert_eq!(server.lock().unwrap().holder(), "");
        waits.wait_for(|leadership| matches!(leadership, Leadership::Leading { .. })).await.unwrap();
        assert_eq!(server.lock().unwrap().holder(), "b");
    }
}
