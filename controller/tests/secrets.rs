//! Neither the hello key nor the token of the API server is ever logged, whatever level is asked for.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
};

/// The garbled key: saying that it is garbled must not show it.
const KEY: &str = "cafe0123cafe0123-this-must-stay-secret";
const TOKEN: &str = "token-that-must-stay-secret";

/// Answers every request on a connection.
fn answer(stream: TcpStream) {
    let mut stream = stream;
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let from = head.len();
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
            let line = head[from..].to_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        assert!(head.contains(TOKEN), "the token is in use: {head}");
        let (status, answer) = if head.contains("/secrets/") {
            // "data" is base64, as the API server gives it.
            let data = "Y2FmZTAxMjNjYWZlMDEyMy10aGlzLW11c3Qtc3RheS1zZWNyZXQ=";
            let id = "MDAwMDAwMDAwMDAwMDBmZg==";
            (
                "200 OK",
                format!(
                    r#"{{"apiVersion":"v1","kind":"Secret","metadata":{{"name":"herald-hello"}},"data":{{"cluster-id":"{id}","key-0":"{data}"}}}}"#
                ),
            )
        } else {
            (
                "404 Not Found",
                r#"{"kind":"Status","apiVersion":"v1","status":"Failure","code":404}"#.to_owned(),
            )
        };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        );
        if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(answer.as_bytes())).is_err() {
            return;
        }
    }
}

#[test]
fn neither_key_nor_token_is_logged_at_any_level() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in server.incoming().flatten() {
            std::thread::spawn(|| answer(stream));
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         clusters: [{{name: c, cluster: {{server: '{url}'}}}}]\n\
         users: [{{name: u, user: {{token: {TOKEN}}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
    );
    std::fs::write(&kubeconfig, text).unwrap();
    let filter =
        "trace,kube_client=trace,kube_runtime=trace,hyper_util=trace,rustls=trace,tower=trace,hyper=trace";
    let mut child = Command::new(env!("CARGO_BIN_EXE_herald-controller"))
        .args(["--admin-addr=127.0.0.1:0", "--log-level", filter, "--kubeconfig"])
        .arg(&kubeconfig)
        .env_clear()
        .env("HOME", "/nonexistent")
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("key-0 must be 64 lower-case hex digits") {
        assert!(log.read_line(&mut said).unwrap() > 0, "ended without reading the Secret: {said}");
    }
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    log.read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(said.contains("\"TRACE\""), "the level is in force");
    for secret in [KEY, TOKEN, "Y2FmZTAxMjNjYWZl"] {
        let shown = said.lines().find(|line| line.contains(secret));
        assert_eq!(shown, None, "a line shows a secret");
    }
}
