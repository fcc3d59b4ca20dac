//! One controller process: the real controller, in a runtime and with a clock of its own.
//!
//! The runtime has one thread and its time is paused: while everybody in it waits, its clock leaps to the next timer.
//! [`Process::run_until`] lets it run up to a moment, or until it has sent something. Killing is dropping the runtime;
//! a process that stands still is one that is not run, and its clock then goes on or stands still as well.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::channel::mpsc;
use herald_controller::assembly::{Assembly, Parts};
use herald_controller::metrics::Metrics;
use herald_runtime::Readiness;
use herald_runtime::lease::{self, Leadership};
use herald_runtime::shutdown::CancellationToken;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use kube::Client;
use kube::client::Body;
use prometheus_client::registry::Registry;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance, sleep_until};

use crate::Moment;
use crate::api::Asked;

/// What a client gets.
pub(crate) type Reply = Result<Response<UnsyncBoxBody<Bytes, io::Error>>, io::Error>;

/// Where a watch's lines go.
pub(crate) type Lines = mpsc::UnboundedSender<Result<Frame<Bytes>, io::Error>>;

/// A request on its way.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) asked: Asked,
    /// When, on the process's own clock.
    at: Instant,
    /// Closed when the client has stopped waiting.
    pub(crate) reply: oneshot::Sender<Reply>,
}

#[derive(Debug, Default)]
struct Port {
    sent: Mutex<Vec<Sent>>,
    news: Notify,
}

/// A process that runs.
#[derive(Debug)]
pub(crate) struct Process {
    runtime: Runtime,
    port: Arc<Port>,
    stop: CancellationToken,
    running: JoinHandle<()>,
    leadership: tokio::sync::watch::Receiver<Leadership>,
    pub(crate) readiness: Readiness,
    /// Its own clock at `reached`.
    clock: Instant,
    /// How far it has run.
    reached: Moment,
}

impl Process {
    /// Starts a controller at `now`, called `identity` in the Lease.
    pub(crate) fn start(now: Moment, identity: &str, timing: lease::Timing) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let port = Arc::new(Port::default());
        let stop = CancellationToken::new();
        let readiness = Readiness::new();
        let entered = runtime.enter();
        let (_, asked) = tokio::sync::mpsc::channel(1);
        let lease = lease::Settings {
            namespace: "herald-system".to_owned(),
            name: "herald-controller".to_owned(),
            identity: identity.to_owned(),
            timing,
        };
        let parts = Parts {
            client: client(&port),
            class: None,
            lease,
            instance: identity.to_owned(),
            readiness: readiness.clone(),
            metrics: Metrics::new(&mut Registry::default()),
            asked,
        };
        let assembly = Assembly::new(parts);
        let leadership = assembly.leadership();
        let running = runtime.spawn(assembly.run(stop.clone()));
        let clock = Instant::now();
        drop(entered);
        Ok(Self { runtime, port, stop, running, leadership, readiness, clock, reached: now })
    }

    /// How far it has run.
    pub(crate) fn reached(&self) -> Moment {
        self.reached
    }

    /// Whether it believes that it leads.
    pub(crate) fn leads(&self) -> bool {
        matches!(*self.leadership.borrow(), Leadership::Leading { .. })
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&self) -> bool {
        self.running.is_finished()
    }

    /// Whether nobody asked it to stop.
    pub(crate) fn stays(&self) -> bool {
        !self.stop.is_cancelled()
    }

    /// SIGTERM.
    pub(crate) fn ask_to_stop(&self) {
        self.stop.cancel();
    }

    /// Lets it run until `moment`, or a millisecond beyond its first request. Gives what it has sent, with the
    /// moments at which it did.
    pub(crate) fn run_until(&mut self, moment: Moment) -> Vec<(Moment, Sent)> {
        let (clock, reached) = (self.clock, self.reached);
        let until = clock + moment.saturating_sub(reached);
        let port = Arc::clone(&self.port);
        self.clock = self.runtime.block_on(async move {
            tokio::select! {
                biased;
                // The rest of what happens at the same instant belongs to it: the clock moves once nobody has more to do.
                () = port.news.notified() => sleep_until(Instant::now() + Duration::from_millis(1)).await,
                () = sleep_until(until) => {}
            }
            Instant::now()
        });
        self.reached = reached + self.clock.duration_since(clock);
        let mut sent = std::mem::take(&mut *self.port.sent.lock().unwrap_or_else(PoisonError::into_inner));
        // What is sent at one instant has no order of its own.
        sent.sort_by(|a, b| (a.at, &a.asked.path, &a.asked.body).cmp(&(b.at, &b.asked.path, &b.asked.body)));
        sent.into_iter().map(|sent| (reached + sent.at.duration_since(clock), sent)).collect()
    }

    /// It stood still until `now`. Its clock has gone on, or has not.
    pub(crate) fn wake(&mut self, now: Moment, clock_went_on: bool) {
        let still = now.saturating_sub(self.reached);
        if clock_went_on {
            self.clock = self.runtime.block_on(async move {
                advance(still).await;
                Instant::now()
            });
        }
        self.reached = self.reached.max(now);
    }
}

fn client(port: &Arc<Port>) -> Client {
    let port = Arc::clone(port);
    let service = tower::service_fn(move |request: Request<Body>| {
        let port = Arc::clone(&port);
        async move { ask(&port, request).await }
    });
    Client::new(service, "default")
}

async fn ask(port: &Port, request: Request<Body>) -> Reply {
    let (head, body) = request.into_parts();
    let body = body.collect_bytes().await.map_err(io::Error::other)?;
    let content = head.headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let asked = Asked {
        method: head.method.to_string(),
        path: head.uri.to_string(),
        content: content.unwrap_or_default().to_owned(),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let (reply, answer) = oneshot::channel();
    let sent = Sent { asked, at: Instant::now(), reply };
    port.sent.lock().unwrap_or_else(PoisonError::into_inner).push(sent);
    port.news.notify_one();
    answer.await.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::ConnectionReset, "connection lost")))
}

/// A response with a body.
pub(crate) fn response(code: u16, body: String) -> Reply {
    let body = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(code).body(body).map_err(io::Error::other)
}

/// A response that goes on, and where its lines are to be put.
pub(crate) fn stream() -> (Lines, Reply) {
    let (lines, body) = mpsc::unbounded();
    let body = StreamBody::new(body).boxed_unsync();
    (lines, Response::builder().status(200).body(body).map_err(io::Error::other))
}
