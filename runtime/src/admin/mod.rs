//! `/livez`, `/readyz` and `/metrics` for whoever reaches the listener; `/debug/*` for loopback peers.
//!
//! Small on purpose: a bounded number of connections, each with a time limit, so that a scanner on the network can
//! neither hold memory nor delay the process; nor can it keep the kubelet's probes out, as the oldest connection makes
//! room for a new one. `/readyz` answers 503 with one line per missing thing; `/livez` answers 503 only when the
//! process can't recover by itself. Nothing here ever shows a key or a token.

mod address;
mod answer;

use std::{collections::VecDeque, fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use futures::future::{BoxFuture, join_all};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::{
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

pub use self::address::parse as parse_address;
use crate::{Readiness, shutdown::CancellationToken, telemetry::LogLevel};

/// Connections served at once per address; a scraper and the kubelet need three.
const CONNECTIONS: usize = 16;
/// Longest life of a connection.
const CONNECTION_LIFE: Duration = Duration::from_secs(30);
/// Longest time to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// An address for the admin endpoints can't be used.
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

/// What the process holds, as one JSON value, for `/debug/state`; `None` while it can't say.
pub type StateSource = Box<dyn Fn() -> BoxFuture<'static, Option<Vec<u8>>> + Send + Sync>;

/// The endpoints, bound but not yet serving: a taken port shows before anything else starts.
pub struct Admin {
    listeners: Vec<TcpListener>,
    served: Served,
}

/// What a connection needs to answer.
struct Served {
    readiness: Readiness,
    registry: Registry,
    live: Vec<LiveCheck>,
    state: Option<StateSource>,
    log_level: Option<LogLevel>,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("listeners", &self.listeners).finish_non_exhaustive()
    }
}

impl Admin {
    /// Binds every one of `addrs`.
    pub async fn bind(addrs: &[SocketAddr], readiness: Readiness) -> Result<Self, AdminError> {
        let mut listeners = Vec::with_capacity(addrs.len());
        for &addr in addrs {
            listeners.push(TcpListener::bind(addr).await.map_err(|source| AdminError { addr, source })?);
        }
        let served = Served {
            readiness,
            registry: Registry::default(),
            live: Vec::new(),
            state: None,
            log_level: None,
        };
        Ok(Self { listeners, served })
    }

    /// What `/metrics` shows.
    #[must_use]
    pub fn metrics(mut self, registry: Registry) -> Self {
        self.served.registry = registry;
        self
    }

    /// Adds a check to `/livez`.
    #[must_use]
    pub fn live_check(mut self, check: LiveCheck) -> Self {
        self.served.live.push(check);
        self
    }

    /// What `/debug/state` shows beside version and readiness.
    #[must_use]
    pub fn state(mut self, source: StateSource) -> Self {
        self.served.state = Some(source);
        self
    }

    /// Lets `/debug/log-level` show and change what is logged.
    #[must_use]
    pub fn log_level(mut self, level: LogLevel) -> Self {
        self.served.log_level = Some(level);
        self
    }

    /// The bound addresses (of interest when port 0 was asked for).
    pub fn local_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(TcpListener::local_addr).collect()
    }

    /// Serves until `stop` is cancelled.
    pub async fn serve(self, stop: CancellationToken) {
        let served = Arc::new(self.served);
        let listening = self.listeners.into_iter().map(|listener| listen(listener, Arc::clone(&served)));
        stop.run_until_cancelled(join_all(listening)).await;
    }
}

async fn listen(listener: TcpListener, served: Arc<Served>) {
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                open.retain(|connection| !connection.is_finished());
                if open.len() >= CONNECTIONS
                    && let Some(oldest) = open.pop_front()
                {
                    oldest.abort();
                }
                let serving = tokio::spawn(connection(stream, peer, Arc::clone(&served)));
                open.push_back(serving.abort_handle());
            }
            // Out of file descriptors, or the client is gone already: neither may end the endpoints.
            Err(error) => {
                tracing::debug!(%error, "admin endpoint: accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, served: Arc<Served>) {
    let near = peer.ip().to_canonical().is_loopback();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let served = Arc::clone(&served);
        async move { Ok::<_, std::convert::Infallible>(served.answer(request, near).await) }
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

#[cfg(test)]
mod tests;
