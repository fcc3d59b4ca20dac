//! Two controllers, one Lease, the real API server: who leads when one is killed, stands still, or goes in peace; and what
//! Services see of two that both believe to lead.
//!
//! They keep their Lease in a namespace of their own and serve a class of their own. Where Services name it, the lab's own
//! controller is stopped: two classes on one set of pools are not what is tested here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::{IpAddr, TcpStream},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use futures::TryStreamExt as _;
use herald_crds::{LoadBalancerIP, name_of_address};
use herald_lab::{
    Lab, Netns, Process, programs,
    services::addresses,
    shared::{Case, lab_alone},
};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Service};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{ListParams, WatchEvent, WatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(20);
const NAMESPACE: &str = "leaders";
const LEADING: &str = "\"message\":\"leading\"";
const STANDING_BY: &str = "\"message\":\"standing by\"";
const NO_LONGER: &str = "\"message\":\"leading no longer\"";

/// The class that the candidates serve.
const CLASS: &str = "example.com/leaders";

fn candidate(lab: &Lab, name: &str, port: u16) -> Result<Process> {
    candidate_on(lab, &lab.control_plane().host().netns, name, port)
}

/// A controller that stands for election, in this network namespace.
fn candidate_on(lab: &Lab, netns: &Netns, name: &str, port: u16) -> Result<Process> {
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
        CLASS,
        "--admin-addr",
        &admin,
        "--lease-duration=2s",
        "--renew-deadline=1500ms",
        "--retry-period=500ms",
    ];
    Process::start(netns, name, &binary, args, &log)
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

/// How many addresses the Services contend for, and how many Services are made at a time.
const ROOM: usize = 6;
const DOZEN: usize = 12;

/// A dozen Services of the candidates' class, in one request after the other.
fn make_a_dozen(case: &Case, batch: &str) -> Result<()> {
    let (namespace, mut manifests) = (case.namespace(), String::new());
    for index in 0..DOZEN {
        writeln!(
            manifests,
            "---\n{{apiVersion: v1, kind: Service, metadata: {{namespace: {namespace}, name: {batch}-{index}, annotations: \
             {{heraldlb.io/address-pool: {namespace}}}}}, spec: {{type: LoadBalancer, loadBalancerClass: {CLASS}, \
             allocateLoadBalancerNodePorts: false, ports: [{{port: 80}}]}}}}"
        )?;
    }
    case.lab().kubectl_apply(&manifests).map(drop)
}

/// Deletes every second of what `make_a_dozen` made, from the `first` on: in both halves are some with addresses.
fn delete_half(case: &Case, batch: &str, first: usize) -> Result<()> {
    let half: Vec<String> = (first..DOZEN).step_by(2).map(|index| format!("{batch}-{index}")).collect();
    let half: Vec<&str> = half.iter().map(String::as_str).collect();
    case.kubectl(&[&["delete", "service", "--wait=false"], &half[..]].concat()).map(drop)
}

/// Waits until as many Services have an address as there are addresses.
fn all_given(case: &Case) -> Result<BTreeMap<String, IpAddr>> {
    let (lab, begun) = (case.lab(), Instant::now());
    loop {
        let api: Api<Service> = Api::namespaced(lab.kube(), case.namespace());
        let services = lab.block_on(api.list(&ListParams::default()))?.items;
        let shown = services.iter().filter_map(|it| Some((it.name_any(), *addresses(it).first()?)));
        let shown: BTreeMap<String, IpAddr> = shown.collect();
        if shown.len() == ROOM {
            return Ok(shown);
        }
        ensure!(begun.elapsed() < PATIENCE, "of {ROOM} addresses only {shown:?} are given");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// A state that one object had, as told by a watch.
struct Past<K> {
    version: u64,
    gone: bool,
    object: K,
}

/// What a watch tells of `api` from just behind `from` up to `to`, both resourceVersions.
fn history<K>(lab: &Lab, api: &Api<K>, from: u64, to: u64) -> Result<Vec<Past<K>>>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    lab.block_on(async {
        let params = WatchParams::default().timeout(20);
        let mut events = Box::pin(api.watch(&params, &from.to_string()).await?);
        let mut told: Vec<Past<K>> = Vec::new();
        while told.last().is_none_or(|last| last.version < to) {
            let event = events.try_next().await?;
            let (gone, object) = match event.with_context(|| format!("the watch ended before {to}"))? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => (false, object),
                WatchEvent::Deleted(object) => (true, object),
                WatchEvent::Bookmark(_) => continue,
                WatchEvent::Error(error) => bail!("{error:?}"),
            };
            told.push(Past { version: version(&object)?, gone, object });
        }
        Ok(told)
    })
}

/// Changes an object in nothing that matters, and gives its version then.
fn mark(lab: &Lab, object: &[&str]) -> Result<u64> {
    let version = "jsonpath={.metadata.resourceVersion}";
    Ok(lab.kubectl(&[&["annotate"], object, &["example.com/end=here", "-o", version]].concat())?.parse()?)
}

/// Versions of all kinds are the one counter of etcd, so what different watches tell can be put in order.
fn version(object: &impl Resource) -> Result<u64> {
    Ok(object.meta().resource_version.as_deref().context("a version")?.parse()?)
}

/// What became known at one version.
enum Moment<'a> {
    Shown(&'a Past<Service>),
    Listed(&'a Past<LoadBalancerIP>),
}

/// Goes through every state that the API server has had: no address is shown by two Services, each that is shown is listed
/// for who shows it, and nobody shows first one and then another.
fn ensure_never_twice(services: &[Past<Service>], lbips: &[Past<LoadBalancerIP>]) -> Result<usize> {
    let mut moments: Vec<(u64, Moment<'_>)> = Vec::new();
    moments.extend(services.iter().map(|past| (past.version, Moment::Shown(past))));
    moments.extend(lbips.iter().map(|past| (past.version, Moment::Listed(past))));
    moments.sort_by_key(|(version, _)| *version);
    let mut showing: BTreeMap<String, IpAddr> = BTreeMap::new();
    let mut listed: BTreeMap<IpAddr, String> = BTreeMap::new();
    let mut given: BTreeMap<String, IpAddr> = BTreeMap::new();
    for (version, moment) in &moments {
        match moment {
            Moment::Shown(past) => {
                let uid = past.object.uid().context("a uid")?;
                let shown = addresses(&past.object);
                ensure!(shown.len() <= 1, "at {version} {uid} shows {shown:?}");
                match shown.first().filter(|_| !past.gone) {
                    Some(&address) => {
                        let first = *given.entry(uid.clone()).or_insert(address);
                        ensure!(first == address, "at {version} {uid} shows {address}, and before {first}");
                        showing.insert(uid, address);
                    }
                    None => drop(showing.remove(&uid)),
                }
            }
            Moment::Listed(past) => {
                let (address, users) = (past.object.spec.address.parse()?, &past.object.spec.services);
                ensure!(users.len() <= 1, "at {version} {address} is listed for {users:?}");
                match users.first().filter(|_| !past.gone) {
                    Some(user) => drop(listed.insert(address, user.uid.clone())),
                    None => drop(listed.remove(&address)),
                }
            }
        }
        let distinct: BTreeSet<&IpAddr> = showing.values().collect();
        ensure!(distinct.len() == showing.len(), "at {version} an address is shown twice: {showing:?}");
        let unlisted = showing.iter().find(|(uid, address)| listed.get(address) != Some(uid));
        ensure!(unlisted.is_none(), "at {version} {unlisted:?} is shown and not listed: {listed:?}");
    }
    Ok(moments.len())
}

/// What a thread came to.
fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// One leader is taken `away` while Services come and go by the dozen, the other takes over and gives out, and the first
/// comes `back`.
fn nobody_is_given_twice(
    name: &str,
    away: impl Fn(&Lab, &Process) -> Result<()>,
    back: impl Fn(&Lab, &Process) -> Result<()>,
) -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    lab.kubectl_apply("{apiVersion: v1, kind: Namespace, metadata: {name: leaders}}")?;
    let case = Case::in_lab(lab, name)?;
    lab.kubectl_apply(&format!(
        "{{apiVersion: heraldlb.io/v1beta1, kind: IPAddressPool, metadata: {{name: {name}}}, \
         spec: {{autoAssign: false, addresses: [192.168.2.1-192.168.2.{ROOM}]}}}}"
    ))?;
    lab.controller(Process::kill)?;
    let outcome = (|| {
        let services: Api<Service> = Api::namespaced(lab.kube(), name);
        let lbips: Api<LoadBalancerIP> = Api::all(lab.kube());
        let begun = lab.block_on(services.list(&ListParams::default()))?.metadata.resource_version;
        let begun: u64 = begun.context("a version")?.parse()?;
        let first = candidate_on(lab, &lab.node("n1")?.host.netns, &format!("{name}-first"), 7991)?;
        first.await_words(LEADING, PATIENCE)?;
        let second = candidate(lab, &format!("{name}-second"), 7992)?;
        second.await_words(STANDING_BY, PATIENCE)?;

        // In the middle of its work: with Services under way that it has heard of, or is about to hear of when it is back.
        let took = std::thread::scope(|scope| {
            let making = scope.spawn(|| make_a_dozen(&case, "before"));
            case.address("before-0")?;
            away(lab, &first)?;
            let taking = scope.spawn(|| takes_over(&second));
            joined(making)?;
            delete_half(&case, "before", 0)?;
            make_a_dozen(&case, "meanwhile")?;
            joined(taking)
        })?;
        all_given(&case)?;
        delete_half(&case, "meanwhile", 0)?;
        back(lab, &first)?;
        delete_half(&case, "before", 1)?;
        make_a_dozen(&case, "after")?;
        first.await_words(NO_LONGER, PATIENCE)?;
        let given = all_given(&case)?;

        // Nothing changes any more: a mark in both histories shows where they end.
        let (last, address) = given.last_key_value().context("none is given")?;
        let lbip = name_of_address(*address);
        let told = history(lab, &services, begun, mark(lab, &["service", last, "--namespace", name])?)?;
        let listed = history(lab, &lbips, begun, mark(lab, &["lbip", &lbip])?)?;
        let states = ensure_never_twice(&told, &listed)?;
        lab.measured(&format!("{name}: the other leads {took:?} after; {states} states, no address twice"));
        // Whoever leads at the end clears up.
        case.kubectl(&["delete", "service", "--all"])?;
        for address in given.into_values() {
            lab.await_lbip(address, "gone", |lbip| lbip.is_none())?;
        }
        for candidate in [first, second] {
            candidate.terminate()?;
        }
        Ok(())
    })();
    lab.lan().heal()?;
    lab.start_controller()?;
    lab.kubectl(&["delete", "pool", name])?;
    outcome
}

#[test]
fn a_leader_that_stands_still_and_wakes_gives_no_address_twice() -> Result<()> {
    nobody_is_given_twice("stopped", |_, leader| leader.pause(), |_, leader| leader.resume())
}

#[test]
fn a_leader_cut_from_the_api_server_gives_no_address_twice_when_it_is_back() -> Result<()> {
    let cut = |lab: &Lab, _: &Process| {
        lab.lan().block("n1", "cp")?;
        lab.lan().block("cp", "n1")
    };
    nobody_is_given_twice("cut-off", cut, |lab, _| lab.lan().heal())
}

/// What is looked for above would be found.
#[test]
fn a_history_in_which_an_address_is_shown_twice_unlisted_or_changed_is_refused() -> Result<()> {
    let shows = |version, uid: &str, address: &str| -> Result<Past<Service>> {
        let ingress = json!({"loadBalancer": {"ingress": [{"ip": address}]}});
        let object = serde_json::from_value(json!({"metadata": {"uid": uid}, "status": ingress}))?;
        Ok(Past { version, gone: false, object })
    };
    let lists = |version, address: &str, uid: &str| -> Result<Past<LoadBalancerIP>> {
        let user = json!({"namespace": "n", "name": uid, "uid": uid});
        let spec = json!({"address": address, "services": [user]});
        let object = serde_json::from_value(json!({"metadata": {"name": address}, "spec": spec}))?;
        Ok(Past { version, gone: false, object })
    };
    let (a, b) = ("192.168.2.1", "192.168.2.2");
    let listed = || Ok::<_, anyhow::Error>([lists(1, a, "one")?, lists(2, b, "two")?]);
    ensure_never_twice(&[shows(3, "one", a)?, shows(4, "two", b)?], &listed()?)?;
    for (wrong, services, words) in [
        ("shown twice", [shows(3, "one", a)?, shows(4, "two", a)?], "twice"),
        ("shown before it is listed", [shows(0, "one", a)?, shows(4, "two", b)?], "not listed"),
        ("changed", [shows(3, "one", a)?, shows(4, "one", b)?], "and before"),
    ] {
        match ensure_never_twice(&services, &listed()?) {
            Ok(_) => bail!("{wrong}: not found"),
            Err(error) => ensure!(error.to_string().contains(words), "{wrong}: {error}"),
        }
    }
    Ok(())
}
