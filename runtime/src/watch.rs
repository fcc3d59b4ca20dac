//! One kind, watched for as long as the process lives.
//!
//! What must always hold: a list reaches the consumer only when it is complete and consistent (read
//! from etcd's present state, never `resourceVersion=0`, which may be older than what was seen
//! before and then looks like deletions: rule B12); every failure is retried with back-off; each
//! change of failure is logged once, with what to do; a right or a CRD that is missing shows in
//! readiness under the name of the watch (rule B11). A server that is merely away does not make a
//! process unready that had its first list: what it serves is still what it knows.

use std::{fmt::Debug, pin::Pin, time::Duration};

use futures::{Stream, StreamExt as _, stream};
use kube::{
    Api, Error as ClientError, Resource,
    core::Status,
    runtime::watcher::{self, Event, watcher},
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use crate::{Readiness, client};

/// First pause after a failure.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest pause while nobody answers, also when thousands of nodes wait for one server to return.
const BACKOFF_AWAY: Duration = Duration::from_secs(10);
/// Longest pause while the server answers that it is not ready yet.
const BACKOFF_BUSY: Duration = Duration::from_secs(1);
/// Longest pause while somebody has to do something about it.
const BACKOFF_REFUSED: Duration = Duration::from_secs(5);
/// An API server that has just started refuses everybody until it has read its RBAC objects.
const STARTING: Duration = Duration::from_secs(30);
/// A list that makes no progress for this long is begun again (a response that stopped midway).
const LIST_STALL: Duration = Duration::from_mins(1);

/// Objects per page of a list. A page is in memory several times while it is read, and what is kept of its objects
/// lies scattered between what is not: 500, as other clients ask for, costs ten MiB more.
const PAGE: u32 = 100;

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<T> {
    /// A complete, consistent list: whatever is not in it does not exist.
    Replaced(Vec<T>),
    /// One object was created or changed.
    Applied(T),
    /// One object was deleted; its last state.
    Deleted(T),
}

/// Watches all that `api` and `config` select and passes each object through `project`, so that only
/// what the consumer needs is ever held (`|object| object` keeps it whole). `name` is the plural, as
/// in RBAC rules; logs and readiness call the watch "watch <name>".
///
/// The stream never ends and never fails; dropping it ends the watch. An object that can't be
/// decoded fails the list it is in, so where users can write anything, let `K` be lenient or wrap it
/// in [`kube::core::DeserializeGuard`].
pub fn watch<K, T, F>(
    api: Api<K>,
    config: watcher::Config,
    name: &'static str,
    readiness: &Readiness,
    project: F,
) -> impl Stream<Item = Change<T>> + Send + 'static
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    T: Send + 'static,
    F: FnMut(K) -> T + Send + 'static,
{
    let health = Health::new(name, readiness.clone());
    let config = config.page_size(PAGE);
    let watch = Watch {
        events: watcher(api.clone(), config.clone()).boxed(),
        api,
        config,
        project,
        list: None,
        health,
    };
    stream::unfold(watch, |mut watch| async move {
        let change = watch.next().await;
        Some((change, watch))
    })
}

/// The state behind one stream.
struct Watch<K, T, F> {
    events: Pin<Box<dyn Stream<Item = watcher::Result<Event<K>>> + Send>>,
    api: Api<K>,
    config: watcher::Config,
    project: F,
    /// The list being received, until it is complete.
    list: Option<Vec<T>>,
    health: Health,
}

impl<K, T, F> Watch<K, T, F>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    F: FnMut(K) -> T,
{
    async fn next(&mut self) -> Change<T> {
        loop {
            match self.event().await {
                Some(Ok(Event::Init)) => self.list = Some(Vec::new()),
                Some(Ok(Event::InitApply(object))) => {
                    let object = (self.project)(object);
                    self.list.get_or_insert_default().push(object);
                }
                Some(Ok(Event::InitDone)) => {
                    self.health.works();
                    return Change::Replaced(self.list.take().unwrap_or_default());
                }
                Some(Ok(Event::Apply(object))) => {
                    self.health.works();
                    return Change::Applied((self.project)(object));
                }
                Some(Ok(Event::Delete(object))) => {
                    self.health.works();
                    return Change::Deleted((self.project)(object));
                }
                Some(Err(error)) => {
                    let trouble = Trouble::of(&error);
                    let pause = self.health.fails(&trouble, &error);
                    tokio::time::sleep(pause).await;
                    // An API server says it inside the watch, where kube's watcher lists anew by itself; refused
                    // before the watch begins, it would ask for the same version for ever.
                    if trouble == Trouble::Expired && matches!(error, watcher::Error::WatchStartFailed(_)) {
                        self.restart();
                    }
                }
                // kube's watcher has no end; and a list that stalled is begun again.
                None => {
                    tracing::warn!(watch = self.health.name, "the list made no progress, beginning it again");
                    self.restart();
                }
            }
        }
    }

    async fn event(&mut self) -> Option<watcher::Result<Event<K>>> {
        if self.list.is_none() {
            return self.events.next().await;
        }
        timeout(LIST_STALL, self.events.next()).await.unwrap_or_default()
    }

    fn restart(&mut self) {
        self.list = None;
        self.events = watcher(self.api.clone(), self.config.clone()).boxed();
    }
}

/// What keeps a watch from working, told apart by what somebody has to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Trouble {
    /// No answer, or not one from an API server: wait.
    Away,
    /// The server is overloaded or starting: wait.
    Busy,
    /// RBAC refuses.
    Forbidden,
    /// The credentials are not accepted.
    Unauthorized,
    /// The kind is unknown: its CRD is not installed.
    NoSuchKind,
    /// What was asked for is older than the server remembers; a new list follows.
    Expired,
    /// An object or answer that can't be decoded.
    Undecodable,
    /// Any other refusal, with its status code.
    Refused(u16),
}

impl Trouble {
    fn of(error: &watcher::Error) -> Self {
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => match error {
                ClientError::Api(status) => Self::of_status(status),
                ClientError::SerdeError(_) => Self::Undecodable,
                _ => Self::Away,
            },
            watcher::Error::WatchError(status) => Self::of_status(status),
            watcher::Error::NoResourceVersion => Self::Undecodable,
        }
    }

    fn of_status(status: &Status) -> Self {
        match status.code {
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 => Self::NoSuchKind,
            410 => Self::Expired,
            429 | 500..=599 => Self::Busy,
            code => Self::Refused(code),
        }
    }

    /// Its name in metrics.
    fn label(&self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Busy => "busy",
            Self::Forbidden => "forbidden",
            Self::Unauthorized => "unauthorized",
            Self::NoSuchKind => "no_such_kind",
            Self::Expired => "expired",
            Self::Undecodable => "undecodable",
            Self::Refused(_) => "refused",
        }
    }

    /// What to do about it.
    fn advice(&self, name: &str) -> String {
        match self {
            Self::Away => "the API server can't be reached; waiting for it".to_owned(),
            Self::Busy => "the API server is not ready to answer; waiting for it".to_owned(),
            Self::Forbidden => {
                format!("RBAC refuses: grant this service account get, list and watch on {name}")
            }
            Self::Unauthorized => "the API server doesn't accept these credentials: check the service account's token or the kubeconfig".to_owned(),
            Self::NoSuchKind => {
                format!("the API server doesn't know {name}: install Herald's CRDs (the chart does; by hand: kubectl apply --server-side -f manifests/crds.yaml)")
            }
            Self::Expired => "the server has forgotten that version; listing anew".to_owned(),
            Self::Undecodable => format!("an answer can't be decoded: is the CRD of {name} of this version?"),
            Self::Refused(code) => format!("the API server refuses with status {code}"),
        }
    }

    /// Whether waiting can't mend it: then the process is not ready, first list or not.
    fn needs_somebody(&self) -> bool {
        !matches!(self, Self::Away | Self::Busy | Self::Expired)
    }

    /// The longest pause between attempts.
    fn longest_pause(&self) -> Duration {
        match self {
            Self::Away => BACKOFF_AWAY,
            Self::Busy | Self::Expired => BACKOFF_BUSY,
            _ => BACKOFF_REFUSED,
        }
    }
}

/// Back-off, and what was said and shown already.
struct Health {
    name: &'static str,
    readiness: Readiness,
    /// The name of the reason in `readiness`.
    reason: String,
    last: Option<Trouble>,
    listed: bool,
    failures: u32,
    /// Until when a refusal means that the server is just starting.
    starting_until: Option<Instant>,
}

impl Health {
    fn new(name: &'static str, readiness: Readiness) -> Self {
        let reason = format!("watch {name}");
        readiness.missing(&reason, "no complete list yet");
        readiness.watch_starts(name);
        Self { name, readiness, reason, last: None, listed: false, failures: 0, starting_until: None }
    }

    fn works(&mut self) {
        self.failures = 0;
        let mended = self.last.take();
        if mended.is_some_and(|trouble| trouble != Trouble::Expired) {
            tracing::info!(watch = self.name, "the watch works again");
        }
        self.listed = true;
        self.readiness.watch_works(self.name);
        self.readiness.ready(&self.reason);
    }

    /// Notes a failure and says how long to pause before the next attempt.
    fn fails(&mut self, trouble: &Trouble, error: &watcher::Error) -> Duration {
        let trouble = &self.judge(trouble);
        self.readiness.watch_fails(self.name, trouble.label());
        if self.last.as_ref() != Some(trouble) {
            let advice = trouble.advice(self.name);
            if *trouble == Trouble::Expired {
                tracing::debug!(watch = self.name, error = %describe(error), "{advice}");
            } else {
                tracing::warn!(watch = self.name, error = %describe(error), "{advice}");
            }
            if trouble.needs_somebody() || !self.listed {
                self.readiness.missing(&self.reason, advice);
            }
            self.last = Some(trouble.clone());
        }
        self.failures = self.failures.saturating_add(1);
        backoff(self.failures, trouble.longest_pause())
    }

    /// A refusal soon after the server was away is a server that is still starting.
    fn judge(&mut self, trouble: &Trouble) -> Trouble {
        let now = Instant::now();
        match trouble {
            Trouble::Away | Trouble::Busy => self.starting_until = Some(now + STARTING),
            Trouble::Forbidden | Trouble::Unauthorized
                if self.starting_until.is_some_and(|until| now < until) =>
            {
                return Trouble::Busy;
            }
            _ => {}
        }
        trouble.clone()
    }
}

/// The pause after the n-th failure in a row: doubled each time up to `longest`, the upper half of
/// it random so that nodes don't return in step.
fn backoff(failures: u32, longest: Duration) -> Duration {
    let doubled = BACKOFF_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let full = doubled.min(longest);
    let half = full / 2;
    let random = crate::random() % 1024;
    half + half.mul_f64(f64::from(u32::try_from(random).unwrap_or(0)) / 1024.0)
}

fn describe(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error) => format!("list: {}", client::describe(error)),
        watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
            format!("watch: {}", client::describe(error))
        }
        watcher::Error::WatchError(status) => format!("watch: {} (status {})", status.message, status.code),
        watcher::Error::NoResourceVersion => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::{Arc, Mutex},
    };

    use http::{Request, Response};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{Client, ResourceExt as _, client::Body};
    use serde_json::{Value, json};

    use super::*;

    /// A client whose server gives these answers in turn, and keeps the queries it saw. After the
    /// last answer it never answers again.
    fn scripted(answers: Vec<(u16, Value)>) -> (Client, Arc<Mutex<Vec<String>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
        let service = tower::service_fn(move |request: Request<Body>| {
            log.lock().unwrap().push(request.uri().to_string());
            let answer = answers.lock().unwrap().pop_front();
            async move {
                let Some((status, body)) = answer else { return std::future::pending().await };
                let body = Body::from(serde_json::to_vec(&body).unwrap());
                Ok::<_, tower::BoxError>(Response::builder().status(status).body(body).unwrap())
            }
        });
        (Client::new(service, "default"), seen)
    }

    fn list(names: &[&str]) -> (u16, Value) {
        let items: Vec<Value> =
            names.iter().map(|name| json!({"metadata": {"name": name, "resourceVersion": "7"}})).collect();
        (
            200,
            json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": "9"}, "items": items}),
        )
    }

    fn failure(code: u16, reason: &str) -> (u16, Value) {
        (
            code,
            json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason}),
        )
    }

    fn names(client: Client, readiness: &Readiness) -> impl Stream<Item = Change<String>> + Send + 'static {
        let api: Api<ConfigMap> = Api::all(client);
        watch(api, watcher::Config::default(), "configmaps", readiness, |object| object.name_any())
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_is_given_whole_and_read_from_the_present_state() {
        let (client, seen) = scripted(vec![list(&["a", "b"])]);
        let readiness = Readiness::new();
        let mut changes = pin(names(client, &readiness));
        assert!(!readiness.is_ready());
        assert_eq!(changes.next().await, Some(Change::Replaced(vec!["a".to_owned(), "b".to_owned()])));
        assert!(readiness.is_ready());
        assert!(!seen.lock().unwrap()[0].contains("resourceVersion=0"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_right_names_the_watch_and_is_retried_until_granted() {
        let (client, _) = scripted(vec![failure(403, "Forbidden"), failure(403, "Forbidden"), list(&["a"])]);
        let readiness = Readiness::new();
        let mut changes = pin(names(client, &readiness));
        let shown = readiness.clone();
        let first = tokio::select! {
            change = changes.next() => change,
            () = until(move || shown.reasons().iter().any(|(_, why)| why.contains("RBAC"))) => None,
        };
        assert_eq!(first, None, "the reason shows before the list does");
        assert_eq!(readiness.reasons()[0].0, "watch configmaps");
        assert_eq!(changes.next().await, Some(Change::Replaced(vec!["a".to_owned()])));
        assert!(readiness.is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_crd_is_told_apart_from_a_missing_server() {
        let (client, _) = scripted(vec![failure(404, "NotFound")]);
        let readiness = Readiness::new();
        let mut changes = pin(names(client, &readiness));
        let shown = readiness.clone();
        tokio::select! {
            _ = changes.next() => {}
            () = until(move || shown.reasons().iter().any(|(_, why)| why.contains("CRDs"))) => {}
        }
        assert!(readiness.reasons()[0].1.contains("install Herald's CRDs"), "{:?}", readiness.reasons());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_second_page_begins_the_list_anew() {
        let mut page = list(&["a"]);
        page.1["metadata"]["continue"] = json!("more");
        let (client, _) = scripted(vec![page, failure(410, "Expired"), list(&["a", "b"])]);
        let mut changes = pin(names(client, &Readiness::new()));
        assert_eq!(changes.next().await, Some(Change::Replaced(vec!["a".to_owned(), "b".to_owned()])));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_is_refused_as_too_old_before_it_begins_lists_anew() {
        let answers = vec![list(&["a"]), failure(410, "Expired"), list(&["a", "b"])];
        let (client, _) = scripted(answers);
        let mut changes = pin(names(client, &Readiness::new()));
        assert_eq!(changes.next().await, Some(Change::Replaced(vec!["a".to_owned()])));
        assert_eq!(changes.next().await, Some(Change::Replaced(vec!["a".to_owned(), "b".to_owned()])));
    }

    #[test]
    fn pauses_grow_and_stay_within_their_bounds() {
        for failures in 1..100 {
            let pause = backoff(failures, BACKOFF_AWAY);
            assert!(pause >= BACKOFF_MIN / 2 && pause <= BACKOFF_AWAY, "{failures}: {pause:?}");
        }
        assert!(backoff(20, BACKOFF_AWAY) >= BACKOFF_AWAY / 2);
    }

    #[test]
    fn a_refusal_soon_after_an_outage_is_a_server_that_is_still_starting() {
        let readiness = Readiness::new();
        let mut health = Health::new("pods", readiness.clone());
        health.works();
        let refusal = watcher::Error::NoResourceVersion;
        for trouble in [Trouble::Away, Trouble::Forbidden, Trouble::Unauthorized] {
            health.fails(&trouble, &refusal);
            assert!(readiness.is_ready(), "{trouble:?}");
        }
        let mut health = Health::new("pods", readiness.clone());
        health.works();
        health.fails(&Trouble::Forbidden, &refusal);
        assert!(!readiness.is_ready(), "a refusal out of the blue is one");
    }

    fn pin<S: Stream + Send + 'static>(stream: S) -> Pin<Box<S>> {
        Box::pin(stream)
    }

    async fn until(condition: impl Fn() -> bool) {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
