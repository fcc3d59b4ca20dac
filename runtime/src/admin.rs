//! `/livez`, `/readyz` and `/metrics` on one address.
//!
//! Small on purpose: GET only, a bounded number of connections, each with a time limit, so that a
//! scanner on the network can neither hold memory nor delay the process. `/readyz` answers 503 with
//! one line per missing thing; `/livez` answers 503 only when the process can't recover by itself.

use std::{convert::Infallible, fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::{Readiness, shutdown::CancellationToken};

/// Connections served at once; a scraper and the kubelet need three.
const CONNECTIONS: usize = 16;
/// Longest life of a connection.
const CONNECTION_LIFE: Duration = Duration::from_secs(30);
/// Longest time to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// The content type of OpenMetrics text.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The address for the admin endpoints can't be used.
#[derive(Debug, thiserror::Error)]
#[error("can't serve /livez, /readyz and /metrics on {addr}: {source}; {advice}", advice = advice(source))]
pub struct AdminError {
    /// The address asked for.
    pub addr: SocketAddr,
    /// What the kernel said.
    pub source: io::Error,
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another process has this port (a second Herald on this host?): stop it or choose another with --admin-addr"
        }
        io::ErrorKind::AddrNotAvailable => "no interface has this address: choose another with --admin-addr",
        _ => "choose another with --admin-addr",
    }
}

/// A check behind `/livez`: `Err` says why the process should be restarted.
pub type LiveCheck = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The endpoints, bound but not yet serving: a taken port shows before anything else starts.
pub struct Admin {
    listener: TcpListener,
    served: Arc<Served>,
}

/// What a connection needs to answer.
struct Served {
    readiness: Readiness,
    registry: Registry,
    live: Vec<LiveCheck>,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl Admin {
    /// Binds `addr`. `registry` is what `/metrics` shows.
    pub async fn bind(
        addr: SocketAddr,
        readiness: Readiness,
        registry: Registry,
    ) -> Result<Self, AdminError> {
        let listener = TcpListener::bind(addr).await.map_err(|source| AdminError { addr, source })?;
        Ok(Self { listener, served: Arc::new(Served { readiness, registry, live: Vec::new() }) })
    }

    /// Adds a check to `/livez`. Only before serving: later it is without effect.
    #[must_use]
    pub fn live_check(mut self, check: LiveCheck) -> Self {
        if let Some(served) = Arc::get_mut(&mut self.served) {
            served.live.push(check);
        }
        self
    }

    /// The bound address (of interest when port 0 was asked for).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is cancelled.
    pub async fn serve(self, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.accept(&slots) => accepted,
            };
            match accepted {
                Ok((stream, slot)) => {
                    let served = Arc::clone(&self.served);
                    tokio::spawn(async move {
                        connection(stream, served).await;
                        drop(slot);
                    });
                }
                // Out of file descriptors, or the client is gone already: neither may end the endpoints.
                Err(error) => {
                    tracing::debug!(%error, "admin endpoint: accept failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// The next connection, once there is a slot to serve it in.
    async fn accept(&self, slots: &Arc<Semaphore>) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
        let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, _) = self.listener.accept().await?;
        Ok((stream, slot))
    }
}

async fn connection(stream: TcpStream, served: Arc<Served>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(&request, &served);
        async move { Ok::<_, Infallible>(response) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_LIFE, serving).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(%error, "admin endpoint: connection ended"),
    }
}

fn answer<B>(request: &Request<B>, served: &Served) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here\n".to_owned());
    }
    match request.uri().path() {
        "/livez" => live(served),
        "/readyz" => ready(&served.readiness),
        "/metrics" => metrics(&served.registry),
        _ => text(StatusCode::NOT_FOUND, "served here: /livez, /readyz, /metrics\n".to_owned()),
    }
}

fn live(served: &Served) -> Response<Full<Bytes>> {
    let failed: Vec<String> = served.live.iter().filter_map(|check| check().err()).collect();
    if failed.is_empty() {
        text(StatusCode::OK, "ok\n".to_owned())
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, failed.join("\n") + "\n")
    }
}

fn ready(readiness: &Readiness) -> Response<Full<Bytes>> {
    let reasons = readiness.reasons();
    if reasons.is_empty() {
        return text(StatusCode::OK, "ready\n".to_owned());
    }
    let lines: Vec<String> = reasons.iter().map(|(name, why)| format!("{name}: {why}")).collect();
    text(StatusCode::SERVICE_UNAVAILABLE, lines.join("\n") + "\n")
}

fn metrics(registry: &Registry) -> Response<Full<Bytes>> {
    let mut body = String::new();
    match encode(&mut body, registry) {
        Ok(()) => respond(StatusCode::OK, OPENMETRICS, body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("metrics can't be written: {error}\n")),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", body)
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    async fn get(addr: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn readyz_names_what_is_missing_and_turns_200_when_nothing_is() {
        let readiness = Readiness::new();
        readiness.missing("watch loadbalancerips", "the CRD is not installed");
        let admin = Admin::bind(ANY, readiness.clone(), Registry::default()).await.unwrap();
        let addr = admin.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(admin.serve(stop.clone()));

        let answer = get(addr, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("watch loadbalancerips: the CRD is not installed"), "{answer}");
        readiness.ready("watch loadbalancerips");
        assert!(get(addr, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(get(addr, "/nothing").await.starts_with("HTTP/1.1 404"));

        stop.cancel();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn livez_fails_with_the_failed_checks_reason() {
        let admin = Admin::bind(ANY, Readiness::new(), Registry::default())
            .await
            .unwrap()
            .live_check(Box::new(|| Ok(())))
            .live_check(Box::new(|| Err("the L2 loop stands still".to_owned())));
        let addr = admin.local_addr().unwrap();
        tokio::spawn(admin.serve(CancellationToken::new()));
        let answer = get(addr, "/livez").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("stands still"), "{answer}");
    }

    #[tokio::test]
    async fn metrics_are_openmetrics_text() {
        let mut registry = Registry::with_prefix("herald");
        let counter: Counter = Counter::default();
        registry.register("things", "Things seen", counter.clone());
        counter.inc();
        let admin = Admin::bind(ANY, Readiness::new(), registry).await.unwrap();
        let addr = admin.local_addr().unwrap();
        tokio::spawn(admin.serve(CancellationToken::new()));
        let answer = get(addr, "/metrics").await;
        assert!(answer.contains(OPENMETRICS) && answer.contains("herald_things_total 1"), "{answer}");
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error_that_names_the_address_and_the_flag() {
        let first = Admin::bind(ANY, Readiness::new(), Registry::default()).await.unwrap();
        let addr = first.local_addr().unwrap();
        let error = Admin::bind(addr, Readiness::new(), Registry::default()).await.unwrap_err().to_string();
        assert!(error.contains(&addr.to_string()) && error.contains("--admin-addr"), "{error}");
    }
}
