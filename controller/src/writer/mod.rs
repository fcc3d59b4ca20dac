//! The writer: carries jobs out against the API server and says what came of each.
//!
//! What must always hold: every write is conditional (rule B3) and begun only while this process leads (B14; events
//! aside, which change nothing); each request has its own time limit; what has no known outcome (a time-out, a server
//! that is away or busy) is tried again with back-off until it has one; and nothing is decided here that the core could
//! decide: what was found is handed back as data.

mod address;
mod event;
mod service;
mod status;

use std::{fmt, time::Duration};

use herald_runtime::lease::Leadership;
use kube::{Client, core::Status};
use tokio::{
    sync::watch::Receiver,
    time::{Instant, sleep, timeout},
};

pub use self::event::{Events, event_writer};
use crate::{
    job::{Done, Job},
    metrics::Metrics,
};

/// The field manager of all our writes.
pub const MANAGER: &str = "herald-controller";

/// Time limit of one request (rule B14).
const TIMEOUT: Duration = Duration::from_secs(5);
/// First and longest pause between attempts.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// So often may a server that answers say that it can't just now; then it is taken for a refusal, so that one object
/// whose admission fails does not hold up the others.
const BUSY_ATTEMPTS: u32 = 10;
/// So often is a conditional write repeated on what was read anew before the core is asked again.
const CONFLICTS: u32 = 8;

/// Carries jobs out. Clones share the client.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    class: Option<String>,
    leadership: Receiver<Leadership>,
    /// Time limit of one request.
    limit: Duration,
    metrics: Metrics,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("class", &self.class).finish_non_exhaustive()
    }
}

/// A request's answer, where it is not what was asked for.
#[derive(Debug)]
enum Answer {
    /// 404.
    NotFound,
    /// 409: somebody else's write came between, or the object exists.
    Conflict(Box<Status>),
    /// 422: it may also mean that the uid is another.
    Invalid(String),
    /// Refused for good.
    Refused(String),
}

impl Answer {
    fn text(self) -> String {
        match self {
            Self::NotFound => "not found".to_owned(),
            Self::Conflict(status) => status.message,
            Self::Invalid(text) | Self::Refused(text) => text,
        }
    }
}

impl Writer {
    /// A writer for Services of this class, that writes only while it leads. `limit`: of one request, at most 5 s.
    pub fn new(
        client: Client,
        class: Option<String>,
        leadership: Receiver<Leadership>,
        limit: Duration,
        metrics: Metrics,
    ) -> Self {
        Self { client, class, leadership, limit: limit.min(TIMEOUT), metrics }
    }

    /// Waits until a request may begin (rule B14). A process that stood still may find that its time is over before
    /// anybody has told it; then this job is about to be dropped, or its lease is about to be renewed.
    async fn may_begin(&self) {
        let mut leadership = self.leadership.clone();
        let may =
            leadership.wait_for(|leadership| leadership.may_write(Instant::now().into_std())).await.is_ok();
        if !may {
            // Nobody can lead any more: the process ends.
            std::future::pending::<()>().await;
        }
    }

    /// Carries a job out. Events go to [`event_writer`] instead and give nothing here.
    pub async fn run(self, job: Job) -> Option<Done> {
        Some(match job {
            Job::Take(job) => self.take(*job).await,
            Job::Update { address, object } => self.update(address, *object).await,
            Job::Problem { address, condition } => self.problem(*address, condition).await,
            Job::Read { address, name } => self.read(address, &name).await,
            Job::Release(job) => self.release(*job).await,
            Job::Status(job) => self.status(job).await,
            Job::Clear(owner) => self.clear_marks(owner).await,
            Job::Pool { pool, status } => self.pool(*pool, *status).await,
            Job::Advertisement { advertisement, condition } => {
                self.advertisement(*advertisement, *condition).await
            }
            Job::Event(_) => return None,
        })
    }

    /// Sends a request until its outcome is known. `kind` names it in logs and metrics.
    ///
    /// `name` is the name of the object asked for: only a 404 that names it says that it does not exist. A proxy
    /// before the API server may answer 404 to anything while the server restarts.
    async fn settle<T, F>(&self, kind: &'static str, name: &str, request: impl Fn() -> F) -> Result<T, Answer>
    where
        F: Future<Output = Result<T, kube::Error>>,
    {
        let mut pause = PAUSE_MIN;
        let mut busy = 0;
        loop {
            self.may_begin().await;
            let trouble = match timeout(self.limit, request()).await {
                Ok(Ok(object)) => {
                    self.metrics.requested(kind, "ok");
                    return Ok(object);
                }
                Ok(Err(kube::Error::Api(status))) => match verdict(name, status) {
                    Ok(answer) => {
                        self.metrics.requested(kind, "refused");
                        return Err(answer);
                    }
                    Err(text) => {
                        busy += 1;
                        if busy >= BUSY_ATTEMPTS {
                            self.metrics.requested(kind, "refused");
                            return Err(Answer::Refused(text));
                        }
                        text
                    }
                },
                // The answer came, but means nothing to us: asking again will not change that.
                Ok(Err(error @ kube::Error::SerdeError(_))) => {
                    return Err(Answer::Refused(error.to_string()));
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {:?}", self.limit),
            };
            self.metrics.requested(kind, "retried");
            tracing::debug!(kind, trouble, "trying again");
            sleep(pause).await;
            pause = pause.saturating_mul(2).min(PAUSE_MAX);
        }
    }
}

/// What the API server's refusal means; `Err` if it only can't just now.
fn verdict(name: &str, status: Box<Status>) -> Result<Answer, String> {
    let named = status.details.as_ref().is_some_and(|details| details.name == name);
    match status.code {
        404 if status.reason == "NotFound" && named => Ok(Answer::NotFound),
        404 if status.reason == "NotFound" => {
            Ok(Answer::Refused(format!("{}: are Herald's CRDs installed?", status.message)))
        }
        409 => Ok(Answer::Conflict(status)),
        422 => Ok(Answer::Invalid(status.message)),
        404 | 429 | 500..=599 => Err(status.message),
        _ => Ok(Answer::Refused(status.message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn not_found(reason: &str, name: &str) -> Box<Status> {
        let details = serde_json::from_value(serde_json::json!({"name": name})).unwrap();
        Box::new(Status { code: 404, reason: reason.to_owned(), details, ..Status::default() })
    }

    #[test]
    fn only_a_404_that_names_the_object_says_that_it_is_gone() {
        assert!(matches!(verdict("web", not_found("NotFound", "web")), Ok(Answer::NotFound)));
        assert!(
            matches!(verdict("web", not_found("NotFound", "")), Ok(Answer::Refused(_))),
            "the kind is unknown"
        );
        assert!(verdict("web", not_found("Failed to parse error data", "")).is_err(), "a proxy: ask again");
    }

    #[test]
    fn a_server_that_only_cannot_just_now_is_asked_again() {
        for (code, again) in [(429, true), (500, true), (503, true), (403, false), (409, false), (422, false)]
        {
            let status = Box::new(Status { code, ..Status::default() });
            assert_eq!(verdict("web", status).is_err(), again, "{code}");
        }
    }
}
