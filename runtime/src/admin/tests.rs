use std::net::{IpAddr, Ipv4Addr};

use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

async fn bind(readiness: &Readiness) -> Admin {
    Admin::bind(&[ANY], readiness.clone()).await.unwrap()
}

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
    let admin = Admin::bind(&[ANY, ANY], readiness.clone()).await.unwrap();
    let addrs = admin.local_addrs().unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(admin.serve(stop.clone()));

    for addr in &addrs {
        let answer = get(*addr, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("watch loadbalancerips: the CRD is not installed"), "{answer}");
    }
    readiness.ready("watch loadbalancerips");
    for addr in addrs {
        assert!(get(addr, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(get(addr, "/nothing").await.starts_with("HTTP/1.1 404"));
    }

    stop.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn livez_fails_with_the_failed_checks_reason() {
    let admin = bind(&Readiness::new())
        .await
        .live_check(Box::new(|| Ok(())))
        .live_check(Box::new(|| Err("the L2 loop stands still".to_owned())));
    let addr = admin.local_addrs().unwrap()[0];
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
    let admin = bind(&Readiness::new()).await.metrics(registry);
    let addr = admin.local_addrs().unwrap()[0];
    tokio::spawn(admin.serve(CancellationToken::new()));
    let answer = get(addr, "/metrics").await;
    assert!(
        answer.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{answer}"
    );
    assert!(answer.contains("herald_things_total 1") && answer.ends_with("# EOF\n"), "{answer}");
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_the_address_and_the_flag() {
    let first = bind(&Readiness::new()).await;
    let addr = first.local_addrs().unwrap()[0];
    let error = Admin::bind(&[addr], Readiness::new()).await.unwrap_err().to_string();
    assert!(error.contains(&addr.to_string()) && error.contains("--admin-addr"), "{error}");
}

#[tokio::test]
async fn connections_that_say_nothing_do_not_keep_a_probe_out() {
    let admin = bind(&Readiness::new()).await;
    let addr = admin.local_addrs().unwrap()[0];
    tokio::spawn(admin.serve(CancellationToken::new()));
    let mut silent = Vec::new();
    for _ in 0..2 * CONNECTIONS {
        silent.push(TcpStream::connect(addr).await.unwrap());
    }
    assert!(get(addr, "/livez").await.starts_with("HTTP/1.1 200"));
    let mut end = [0];
    assert_eq!(silent[0].read(&mut end).await.unwrap_or(0), 0, "the oldest had to go");
}

async fn ask(
    admin: &Admin,
    method: &str,
    path: &str,
    body: &'static str,
    near: bool,
) -> (StatusCode, String) {
    let request = Request::builder().method(method).uri(path).body(Full::new(Bytes::from(body))).unwrap();
    let answer = admin.served.answer(request, near).await;
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn debug_paths_are_for_loopback_peers_only() {
    let admin = bind(&Readiness::new()).await.log_level(LogLevel::unconnected());
    for (method, path) in [
        ("GET", "/debug/state"),
        ("GET", "/debug/log-level"),
        ("PUT", "/debug/log-level"),
        ("GET", "/debug/x"),
    ] {
        let (status, why) = ask(&admin, method, path, "debug", false).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{method} {path}");
        assert!(why.contains("loopback"), "{why}");
    }
    assert_eq!(ask(&admin, "GET", "/livez", "", false).await.0, StatusCode::OK);
    assert_eq!(ask(&admin, "GET", "/debug/log-level", "", true).await, (StatusCode::OK, "info\n".to_owned()));
}

#[tokio::test]
async fn the_state_is_one_json_object_with_version_what_is_missing_and_what_the_core_holds() {
    let readiness = Readiness::new();
    readiness.missing("sockets", "eth0: no such device");
    let admin = bind(&readiness).await;
    let (_, text) = ask(&admin, "GET", "/debug/state", "", true).await;
    let state: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(state["state"], serde_json::Value::Null, "nothing can be said yet");
    let admin = admin.state(Box::new(|| Box::pin(async { Some(br#"{"addresses":1}"#.to_vec()) })));
    let (_, text) = ask(&admin, "GET", "/debug/state", "", true).await;
    let state: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(state["version"], crate::VERSION);
    assert_eq!(state["missing"][0], "sockets: eth0: no such device");
    assert_eq!(state["state"]["addresses"], 1);
}

#[tokio::test]
async fn the_log_level_can_be_changed_and_nonsense_changes_nothing() {
    let admin = bind(&Readiness::new()).await.log_level(LogLevel::unconnected());
    let (status, why) = ask(&admin, "PUT", "/debug/log-level", "loudest", true).await;
    assert!(status == StatusCode::BAD_REQUEST && why.contains("loudest"), "{why}");
    assert_eq!(ask(&admin, "GET", "/debug/log-level", "", true).await.1, "info\n");
    let level = "info,herald_l2=trace";
    assert_eq!(ask(&admin, "PUT", "/debug/log-level", level, true).await.0, StatusCode::OK);
    assert_eq!(ask(&admin, "GET", "/debug/log-level", "", true).await.1, format!("{level}\n"));
    assert_eq!(ask(&admin, "PUT", "/livez", "", true).await.0, StatusCode::METHOD_NOT_ALLOWED);
}
