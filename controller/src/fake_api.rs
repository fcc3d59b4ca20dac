//! An API server made of one closure, for tests of what talks to one.

use std::{fmt, sync::Arc, time::Duration};

use herald_runtime::lease::Leadership;
use http::{Request, Response};
use kube::{Client, client::Body};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use crate::{metrics::Metrics, writer::Writer};

/// One request that came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// GET, POST, ...
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Its JSON body; null without one.
    pub body: Value,
}

impl Asked {
    /// The last part of the path: an object's name, or a kind in plural, or a subresource.
    pub(crate) fn name(&self) -> &str {
        let path = self.path.split('?').next().unwrap_or_default();
        path.rsplit('/').next().unwrap_or_default()
    }
}

type Script = dyn Fn(&Asked) -> Value + Send + Sync;

/// Answers by a script and remembers what was asked.
#[derive(Clone)]
pub(crate) struct FakeApi {
    script: Arc<Script>,
    asked: watch::Sender<Vec<Asked>>,
    open: watch::Sender<bool>,
}

impl fmt::Debug for FakeApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeApi").field("asked", &self.asked).finish_non_exhaustive()
    }
}

impl FakeApi {
    /// A server that answers what `script` says: an object, or a [`refusal`].
    pub(crate) fn new(script: impl Fn(&Asked) -> Value + Send + Sync + 'static) -> Self {
        Self { script: Arc::new(script), asked: watch::Sender::default(), open: watch::Sender::new(true) }
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { api.answer(request).await }
        });
        Client::new(service, "default")
    }

    /// A writer that asks it, and leads for as long as a test takes.
    pub(crate) fn leading_writer(&self) -> Writer {
        let until = Instant::now().into_std() + Duration::from_hours(1);
        let (_, leadership) = watch::channel(Leadership::Leading { until });
        let metrics = Metrics::new(&mut Registry::default());
        Writer::new(self.client(), None, leadership, Duration::from_secs(5), metrics)
    }

    /// Everything that was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.borrow().clone()
    }

    /// Waits until one is asked for that fits, and gives it.
    pub(crate) async fn await_asked(&self, fits: impl Fn(&Asked) -> bool) -> Asked {
        let mut asked = self.asked.subscribe();
        let asked = asked.wait_for(|all| all.iter().any(&fits)).await.unwrap();
        asked.iter().find(|asked| fits(asked)).unwrap().clone()
    }

    /// From now on requests are taken, and answered only after `open` is true again.
    pub(crate) fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response<Body>, kube::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect_bytes().await?;
        let asked = Asked {
            method: head.method.to_string(),
            path: head.uri.to_string(),
            body: serde_json::from_slice(&body).unwrap_or_default(),
        };
        self.asked.send_modify(|all| all.push(asked.clone()));
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
        let answer = (self.script)(&asked);
        let refused = answer["kind"] == "Status" && answer["status"] == "Failure";
        let code = if refused { answer["code"].as_u64() } else { None };
        let response = Response::builder().status(u16::try_from(code.unwrap_or(200)).unwrap());
        Ok(response.body(Body::from(answer.to_string().into_bytes())).unwrap())
    }
}

/// A Status object that says no.
pub(crate) fn refusal(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "code": code, "reason": reason, "message": message,
    })
}
