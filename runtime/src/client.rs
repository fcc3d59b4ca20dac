//! The API client: kube's stack on a connector of ours.
//!
//! kube's own connector sets no TCP keepalive and no user timeout, so that a dead connection under
//! a watch shows only after minutes, and its retry layer may hold one write for minutes. Here: a
//! dead peer is noticed within about eleven seconds, a server that accepts and says nothing within
//! [`RESPONSE_TIMEOUT`], and nothing is retried below the caller, who alone knows whether what he
//! wanted to write is still true.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use http::header::{HeaderValue, USER_AGENT};
use http_body_util::{BodyStream, StreamBody};
use hyper::body::{Body as HttpBody, Bytes};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder, ConfigExt as _},
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::time::timeout;
use tower::{BoxError, ServiceExt as _, timeout::TimeoutLayer, util::option_layer};

/// Idle time before the first keepalive probe.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Time between keepalive probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// Unanswered probes that end a connection.
const KEEPALIVE_RETRIES: u32 = 3;
/// Longest time that sent data may stay unacknowledged (`TCP_USER_TIMEOUT`).
const USER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for the TCP handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest time from a request to the head of its response; the body of a watch may take forever.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest silence in the middle of a response. kube asks for watches of 290 s, which a server ends by itself: one that goes on
/// without a word has lost its server behind a proxy or tunnel that keeps its own side open.
const SILENCE: Duration = Duration::from_secs(330);
/// Idle connections are closed after this time, so that they hold no TLS buffers.
const IDLE: Duration = Duration::from_secs(30);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file named by `--kubeconfig` is unusable.
    #[error("kubeconfig {path}: {source}; give a readable kubeconfig with --kubeconfig", path = path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What was wrong with it.
        source: kube::config::KubeconfigError,
    },
    /// Neither a kubeconfig nor a pod's service account was found.
    #[error(
        "no way to reach the API server: {0}; run in a pod with a service account, or give --kubeconfig FILE"
    )]
    Infer(#[from] kube::config::InferConfigError),
    /// The configuration was read but a client can't be made from it (certificate, token, name).
    #[error("the API server's configuration is unusable: {0}")]
    Unusable(#[from] kube::Error),
}

/// A client for `component`, configured from `kubeconfig`, else as kube infers it (a kubeconfig of
/// the environment, else the pod's service account). Makes no connection: a server that is away is
/// no error here.
pub async fn connect(kubeconfig: Option<&Path>, component: &str) -> Result<Client, ClientError> {
    let config = match kubeconfig {
        Some(path) => from_file(path)
            .await
            .map_err(|source| ClientError::Kubeconfig { path: path.to_owned(), source })?,
        None => Config::infer().await?,
    };
    Ok(assemble(config, component)?)
}

async fn from_file(path: &Path) -> Result<Config, kube::config::KubeconfigError> {
    Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await
}

/// The client over `config`, with user agent `herald-<component>/<version>`.
pub fn assemble(mut config: Config, component: &str) -> Result<Client, kube::Error> {
    let agent = format!("herald-{component}/{}", crate::VERSION);
    let agent = HeaderValue::try_from(agent).map_err(|error| kube::Error::HttpError(error.into()))?;
    config.headers.push((USER_AGENT, agent));

    let https = config.rustls_https_connector_with_connector(connector())?;
    let http: HttpClient<_, Body> = HttpClient::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE)
        .pool_timer(TokioTimer::new())
        .build(https);
    // The layers agree on the boxed error.
    let http = http.map_err(BoxError::from).map_response(|response: http::Response<_>| response.map(heard));
    let builder = ClientBuilder::new(http, config.default_namespace.clone())
        .with_layer(&config.extra_headers_layer()?)
        .with_layer(&option_layer(config.auth_layer()?))
        .with_layer(&config.base_uri_layer())
        .with_layer(&TimeoutLayer::new(RESPONSE_TIMEOUT));
    Ok(builder.build())
}

/// A body that fails when nothing of it comes for longer than a watch lasts.
fn heard<B>(body: B) -> impl HttpBody<Data = Bytes, Error = BoxError> + Send + 'static
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let frames = Some(Box::pin(BodyStream::new(body)));
    StreamBody::new(stream::unfold(frames, async |frames| {
        let mut frames = frames?;
        match timeout(SILENCE, frames.next()).await {
            Ok(Some(Ok(frame))) => Some((Ok(frame), Some(frames))),
            Ok(Some(Err(error))) => Some((Err(error.into()), None)),
            Ok(None) => None,
            Err(_) => Some((Err(format!("nothing came for {SILENCE:?}").into()), None)),
        }
    }))
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_keepalive(Some(KEEPALIVE));
    connector.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    connector.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    connector.set_tcp_user_timeout(Some(USER_TIMEOUT));
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector
}

/// What an API error says, without the structures that its own text repeats.
pub fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} (status {})", status.message, status.code),
        other => crate::telemetry::chain(other),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    async fn server() -> (TcpListener, Client) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        (listener, assemble(Config::new(url), "test").unwrap())
    }

    #[tokio::test]
    async fn requests_carry_the_components_name_and_version() {
        let (listener, client) = server().await;
        let answering = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let len = stream.read(&mut head).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
            String::from_utf8(head[..len].to_vec()).unwrap().to_lowercase()
        };
        let request = http::Request::get("/version").body(Vec::new()).unwrap();
        let (head, answer) = tokio::join!(answering, client.request_text(request));
        assert!(head.contains(&format!("user-agent: herald-test/{}", crate::VERSION)), "{head}");
        assert_eq!(answer.unwrap(), "{}");
    }

    #[tokio::test]
    async fn a_server_that_accepts_and_says_nothing_is_an_error() {
        let (listener, client) = server().await;
        let request = client.request_text(http::Request::get("/version").body(Vec::new()).unwrap());
        let silent = async {
            let stream = listener.accept().await.unwrap();
            // From here on only the clock moves: to the time-out, or, without one, for ever.
            tokio::time::pause();
            std::future::pending::<()>().await;
            drop(stream);
        };
        let answer = tokio::select! {
            answer = request => answer,
            () = silent => unreachable!("it is pending"),
        };
        assert!(describe(&answer.unwrap_err()).contains("timed out"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_goes_on_without_a_word_ends_after_its_time() {
        let line = stream::iter([Ok::<_, BoxError>(hyper::body::Frame::data(Bytes::from("{}\n")))]);
        let silent = StreamBody::new(line.chain(stream::pending()));
        let since = tokio::time::Instant::now();
        let error = http_body_util::BodyExt::collect(heard(silent)).await.unwrap_err();
        assert!(error.to_string().contains("nothing came for 330s"), "{error}");
        assert_eq!(since.elapsed(), SILENCE);
    }

    #[test]
    fn an_api_error_is_described_by_its_message() {
        let status = Status { code: 403, message: "no".to_owned(), ..Status::default() };
        assert_eq!(describe(&kube::Error::Api(Box::new(status))), "no (status 403)");
    }
}
