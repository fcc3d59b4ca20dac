//! Two controllers, one Lease, the real API server: who leads when one is killed, stands still, or goes in peace.
//!
//! Both serve a class that no Service names, in a namespace of their own: the lab's own controller is not concerned.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use herald_lab::{Lab, Process, programs, shared::lab_alone};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;

const PATIENCE: Duration = Duration::from_secs(20);
const NAMESPACE: &str = "leaders";
const LEADING: &str = "\"message\":\"leading\"";
const STANDING_BY: &str = "\"message\":\"standing by\"";
const NO_LONGER: &str = "\"message\":\"leading no longer\"";

fn candidate(lab: &Lab, name: &str, port: u16) -> Result<Process> {
    let binary = programs::herald("herald-controller")?;
    let log: PathBuf = lab.dir().join(format!("candidate-{name}.log"));
    let _ = std::fs::remove_file(&log);
    let kubeconfig = lab.control_plane().admin_kubeconfig().display().to_string();
    let admin = format!("127.0.0.1:{port}");
    let args = [
        "--kubeconfig",
        &kubeconfig,
        "--namespace",
        NAMESPACE,
        "--load-balancer-class",
        "example.com/nobodys",
        "--admin-addr",
        &admin,
        "--lease-duration=2s",
        "--renew-deadline=1500ms",
        "--retry-period=500ms",
    ];
    Process::start(&lab.control_plane().host().netns, name, &binary, args, &log)
}

fn lease(lab: &Lab) -> Result<(Option<String>, i32)> {
    let api: Api<Lease> = Api::namespaced(lab.kube(), NAMESPACE);
    let spec = lab.block_on(api.get("herald-controller"))?.spec.context("a Lease without a spec")?;
    let holder = spec.holder_identity.filter(|holder| !holder.is_empty());
    Ok((holder, spec.lease_transitions.unwrap_or_default()))
}

/// What a candidate's admin address answers.
fn ask(lab: &Lab, port: u16, path: &str) -> Result<String> {
    // A socket stays in the namespace that it was made in.
    let mut stream =
        lab.control_plane().host().netns.run(move || TcpStream::connect(("127.0.0.1", port)))??;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: controller\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Waits until an answer holds `words`.
fn await_answer(lab: &Lab, port: u16, path: &str, words: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        let answer = ask(lab, port, path)?;
        if answer.contains(words) {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "{path} of port {port} has no {words:?}:\n{answer}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Waits until `process` leads, and says how long that took.
fn takes_over(process: &Process) -> Result<Duration> {
    let begun = Instant::now();
    process.await_words(LEADING, PATIENCE)?;
    Ok(begun.elapsed())
}

#[test]
fn of_two_controllers_one_leads_and_both_are_ready_whatever_becomes_of_the_other() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    lab.kubectl_apply("{apiVersion: v1, kind: Namespace, metadata: {name: leaders}}")?;

    let first = candidate(lab, "first", 7991)?;
    first.await_words(LEADING, PATIENCE)?;
    let second = candidate(lab, "second", 7992)?;
    second.await_words(STANDING_BY, PATIENCE)?;

    for (port, leads) in [(7991, 1), (7992, 0)] {
        await_answer(lab, port, "/readyz", "200 OK")?;
        await_answer(lab, port, "/metrics", &format!("\nherald_controller_leader {leads}\n"))?;
        await_answer(
            lab,
            port,
            "/debug/state",
            if leads == 1 { "\"leads\":true" } else { "\"leads\":false" },
        )?;
    }

    let (by_first, before) = lease(lab)?;
    first.kill()?;
    let killed = takes_over(&second)?;
    let (by_second, transitions) = lease(lab)?;
    // Not exactly one more each: on a busy machine whoever leads may lose it for a moment.
    ensure!(by_second != by_first && transitions > before, "{by_first:?}, then {by_second:?}: {transitions}");

    let third = candidate(lab, "third", 7991)?;
    third.await_words(STANDING_BY, PATIENCE)?;
    second.pause()?;
    let paused = takes_over(&third)?;
    second.resume()?;
    second.await_words(NO_LONGER, PATIENCE)?;
    let (by_third, after) = lease(lab)?;
    ensure!(by_third != by_second && after > transitions, "{by_second:?}, then {by_third:?}: {after}");

    let fourth = candidate(lab, "fourth", 7993)?;
    fourth.await_words(STANDING_BY, PATIENCE)?;
    second.terminate()?;
    let ended = third.terminate()?;
    ensure!(ended.success(), "{ended}: {}", third.last_words());
    let in_peace = takes_over(&fourth)?;
    eprintln!(
        "the other leads {killed:?} after a kill, {paused:?} after a pause, {in_peace:?} after SIGTERM"
    );
    fourth.terminate()?;
    ensure!(lease(lab)?.0.is_none(), "the last one gave the Lease back");
    Ok(())
}
