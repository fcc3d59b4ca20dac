//! What each path answers.

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body, Bytes};

use super::Served;
use crate::{Readiness, telemetry::LogLevel};

/// The content type of OpenMetrics text.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// Longest log filter taken, in bytes.
const LONGEST_FILTER: usize = 4096;

const PATHS: &str =
    "served here: /livez, /readyz, /metrics; to loopback peers also /debug/state and /debug/log-level\n";
const FAR: &str = "only peers on this host's loopback may ask this: use kubectl port-forward, or curl in the pod's network namespace\n";

type Answer = Response<Full<Bytes>>;

impl Served {
    /// Answers a request; `near`: of a peer on loopback.
    pub(super) async fn answer<B>(&self, request: Request<B>, near: bool) -> Answer
    where
        B: Body<Data: Send> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let reads = head.method == Method::GET || head.method == Method::HEAD;
        match head.uri.path() {
            path if path.starts_with("/debug/") && !near => {
                tracing::debug!(path, "refused to a peer that is not on loopback");
                text(StatusCode::FORBIDDEN, FAR)
            }
            "/debug/log-level" if head.method == Method::PUT => self.change_log_level(body).await,
            _ if !reads => {
                text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here, and PUT /debug/log-level\n")
            }
            "/livez" => self.live(),
            "/readyz" => ready(&self.readiness),
            "/metrics" => self.metrics(),
            "/debug/state" => self.debug_state().await,
            "/debug/log-level" => match &self.log_level {
                Some(level) => text(StatusCode::OK, level.current() + "\n"),
                None => text(StatusCode::NOT_FOUND, PATHS),
            },
            _ => text(StatusCode::NOT_FOUND, PATHS),
        }
    }

    fn live(&self) -> Answer {
        let failed: Vec<String> = self.live.iter().filter_map(|check| check().err()).collect();
        if failed.is_empty() {
            text(StatusCode::OK, "ok\n")
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, failed.join("\n") + "\n")
        }
    }

    fn metrics(&self) -> Answer {
        match crate::metrics::exposition(&self.registry) {
            Ok(body) => respond(StatusCode::OK, OPENMETRICS, body),
            Err(error) => {
                text(StatusCode::INTERNAL_SERVER_ERROR, format!("metrics can't be written: {error}\n"))
            }
        }
    }

    async fn debug_state(&self) -> Answer {
        let held = match &self.state {
            Some(source) => source().await,
            None => None,
        };
        let missing: Vec<String> =
            self.readiness.reasons().into_iter().map(|(name, why)| format!("{name}: {why}")).collect();
        let head = serde_json::json!({
            "version": crate::VERSION,
            "commit": crate::COMMIT,
            "logLevel": self.log_level.as_ref().map(LogLevel::current),
            "missing": missing,
        });
        // The state may be megabytes: it is put into the text as it is instead of being parsed again.
        let mut body = head.to_string().into_bytes();
        body.pop();
        body.extend_from_slice(b",\"state\":");
        body.extend_from_slice(held.as_deref().unwrap_or(b"null"));
        body.extend_from_slice(b"}\n");
        respond(StatusCode::OK, JSON, body)
    }

    async fn change_log_level<B>(&self, body: B) -> Answer
    where
        B: Body<Data: Send> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Some(level) = &self.log_level else { return text(StatusCode::NOT_FOUND, PATHS) };
        let Ok(body) = Limited::new(body, LONGEST_FILTER).collect().await else {
            return text(StatusCode::PAYLOAD_TOO_LARGE, "a log filter has at most 4096 bytes\n");
        };
        let filter = String::from_utf8_lossy(&body.to_bytes()).trim().to_owned();
        match level.change(&filter) {
            Ok(()) => text(StatusCode::OK, filter + "\n"),
            Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        }
    }
}

fn ready(readiness: &Readiness) -> Answer {
    let reasons = readiness.reasons();
    if reasons.is_empty() {
        return text(StatusCode::OK, "ready\n");
    }
    let lines: Vec<String> = reasons.iter().map(|(name, why)| format!("{name}: {why}")).collect();
    text(StatusCode::SERVICE_UNAVAILABLE, lines.join("\n") + "\n")
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    respond(status, TEXT, body)
}

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
