//! The binary's start with something missing: what it says, and how it ends.
//!
//! Each runs in a network namespace of its own, without any interface but loopback.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

const SPEAKER: &str = env!("CARGO_BIN_EXE_herald-speaker");

/// The speaker in a new network namespace; `-r` lets users other than root make one.
fn speaker(args: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["-r", "-n", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\"", SPEAKER, "--node-name=n1"])
        .args(args)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/nonexistent")
        .stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    speaker(args).output().expect("unshare (util-linux) and ip (iproute2) are installed")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn keys(dir: &Path) -> String {
    std::fs::write(dir.join("cluster-id"), "00000000000000ff").unwrap();
    std::fs::write(dir.join("key-0"), "0f".repeat(32)).unwrap();
    format!("--key-dir={}", dir.display())
}

/// Waits for a line of the log that contains all of these.
fn await_line(child: &mut Child, words: &[&str]) -> String {
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut seen = String::new();
    for line in lines {
        let line = line.unwrap();
        if words.iter().all(|word| line.contains(word)) {
            return line;
        }
        seen.push_str(&line);
    }
    panic!("the speaker ended without saying {words:?}: {seen}");
}

fn terminate(mut child: Child) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(child.wait().unwrap().success(), "SIGTERM while waiting is a clean end");
}

#[test]
fn a_bad_flag_is_refused_with_what_is_expected() {
    let output = run(&["--key-dir=/k", "--admin-addr=localhost"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("--admin-addr"), "{}", said(&output));
    let output = run(&["--key-dir=/k", "--log-level=loudest"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("loudest") && said(&output).contains("--log-level"), "{}", said(&output));
}

#[test]
fn an_address_that_cannot_be_served_is_named_with_the_flag() {
    let output = run(&["--key-dir=/k", "--admin-addr=192.0.2.1:7481"]);
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output);
    assert!(said.contains("192.0.2.1:7481") && said.contains("--admin-addr"), "{said}");
}

#[test]
fn a_missing_kubeconfig_is_named_and_so_is_the_lack_of_any() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys(dir.path());
    let output = run(&[&keys, "--kubeconfig=/nonexistent/kubeconfig"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("kubeconfig /nonexistent/kubeconfig"), "{}", said(&output));
    let output = run(&[&keys]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("--kubeconfig"), "{}", said(&output));
}

#[test]
fn missing_keys_are_waited_for_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let keys = format!("--key-dir={}", dir.path().display());
    let mut child = speaker(&[&keys]).stderr(Stdio::piped()).spawn().unwrap();
    let line = await_line(&mut child, &["cluster-id", "herald-hello"]);
    assert!(line.starts_with('{'), "one JSON object a line where nobody looks: {line}");
    terminate(child);
}

#[test]
fn an_api_server_that_is_away_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys(dir.path());
    let kubeconfig = dir.path().join("kubeconfig");
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
        clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\n\
        users: [{name: u, user: {}}]\ncontexts: [{name: c, context: {cluster: c, user: u}}]\n";
    std::fs::write(&kubeconfig, text).unwrap();
    let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
    let mut child = speaker(&[&keys, &kubeconfig]).stderr(Stdio::piped()).spawn().unwrap();
    await_line(&mut child, &["the API server can't be reached; waiting for it", "nodes"]);
    terminate(child);
}

#[test]
fn neither_key_nor_token_is_logged_at_any_level() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys(dir.path());
    let kubeconfig = dir.path().join("kubeconfig");
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
        clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\n\
        users: [{name: u, user: {token: must-stay-secret}}]\ncontexts: [{name: c, context: {cluster: c, user: u}}]\n";
    std::fs::write(&kubeconfig, text).unwrap();
    let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
    let filter =
        "--log-level=trace,kube_client=trace,kube_runtime=trace,hyper_util=trace,tower=trace,hyper=trace";
    let mut child = speaker(&[&keys, &kubeconfig, filter]).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("the API server can't be reached; waiting for it") {
        assert!(log.read_line(&mut said).unwrap() > 0, "ended without asking the API server: {said}");
    }
    terminate(child);
    log.read_to_string(&mut said).unwrap();
    assert!(said.contains("\"TRACE\""), "the level is in force");
    for secret in ["0f0f0f0f", "15, 15, 15, 15", "must-stay-secret"] {
        assert_eq!(said.lines().find(|line| line.contains(secret)), None, "a line shows a secret");
    }
}
