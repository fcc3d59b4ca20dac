//! Herald from its chart and images on a cluster with real kubelets: traffic, upgrades and faults. `make test-cluster`.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use herald_lab::{
    Cluster, Connections, HERALD_NAMESPACE, Meter, Sniffer,
    cluster::shared::{Installed, alone},
};
use nix::sys::signal::Signal;

const PATIENCE: Duration = Duration::from_secs(30);
const PERIOD: Duration = Duration::from_millis(2);
const EVERYWHERE: [&str; 3] = ["n1", "n2", "n3"];
/// How many clients are in the middle of something while speakers are replaced.
const CLIENTS: usize = 1000;

/// The uids of the speakers' pods.
fn speakers(cluster: &Cluster) -> Result<BTreeSet<String>> {
    Ok(cluster.speakers()?.into_values().filter_map(|pod| pod.metadata.uid).collect())
}

/// A namespace of the test's own, gone when the test is.
struct Place<'a> {
    cluster: &'a Cluster,
    name: &'a str,
}

impl<'a> Place<'a> {
    fn new(installed: &'a Installed, name: &'a str) -> Result<Self> {
        let cluster = &installed.cluster;
        cluster.create_namespace(name)?;
        Ok(Self { cluster, name })
    }

    /// Backends on `nodes` behind a Service; its address once a client was answered and one node is known to hold it.
    fn serve(&self, nodes: &[&str], spec: &str) -> Result<(IpAddr, String)> {
        self.cluster.run_backend(self.name, "web", nodes, spec)?;
        let address = *self.cluster.await_addresses(self.name, "web")?.first().context("no address")?;
        self.cluster.client().http_get_until_ok(address, 80, PATIENCE)?;
        Ok((address, self.cluster.await_holder(address)?))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        // A test that failed has said why. The addresses shall be free for the next.
        let _ = self.cluster.kubectl(&["delete", "service", "--all", "--namespace", self.name]);
        let _ = self.cluster.kubectl(&["delete", "namespace", self.name, "--wait=false"]);
    }
}

#[test]
#[ignore = "a full cluster: make test-cluster"]
fn both_nodes_pods_answer_and_policy_local_keeps_the_clients_address() -> Result<()> {
    let (_alone, installed) = alone()?;
    let place = Place::new(installed, "traffic")?;
    let client = place.cluster.client();
    let (address, _) = place.serve(&["n1", "n2"], "externalTrafficPolicy: Cluster")?;
    let mut nodes = BTreeSet::new();
    let begun = Instant::now();
    while nodes.len() < 2 && begun.elapsed() < PATIENCE {
        let page = client.http_get_until_ok(address, 80, PATIENCE)?;
        nodes.insert(page.node().context("a page without a node")?.to_owned());
    }
    ensure!(nodes == ["n1".to_owned(), "n2".to_owned()].into(), "answered by {nodes:?}");

    let local = r#"{"spec":{"externalTrafficPolicy":"Local"}}"#;
    place.cluster.kubectl(&["patch", "service", "web", "--namespace", place.name, "--patch", local])?;
    for node in ["n3", "n2"] {
        place.cluster.deploy_backend(place.name, "web", &[node])?;
        place.cluster.await_holder_is(address, node)?;
        let page = client.http_get_until_ok(address, 80, PATIENCE)?;
        ensure!(page.node() == Some(node), "{page:?}");
        ensure!(page.client() == Some(client.v4.into()), "{page:?}, the client is {}", client.v4);
    }
    Ok(())
}

#[test]
#[ignore = "a full cluster: make test-cluster"]
fn restart_upgrade_and_rollback_of_all_speakers_move_no_address_and_break_no_open_connection() -> Result<()> {
    let (_alone, installed) = alone()?;
    let place = Place::new(installed, "upgrade")?;
    let cluster = place.cluster;
    let (address, holder) = place.serve(&EVERYWHERE, "externalTrafficPolicy: Cluster")?;
    let sniffer = Sniffer::start(cluster.lan())?;
    let connections = Connections::open(cluster.client(), address, 80, CLIENTS)?;

    let replace = |what: &str, act: &dyn Fn() -> Result<()>| -> Result<()> {
        let before = cluster.await_holder(address)?;
        let old = speakers(cluster)?;
        let begun = Instant::now();
        act()?;
        let new = speakers(cluster)?;
        let kept: Vec<&String> = old.intersection(&new).collect();
        ensure!(
            new.len() == EVERYWHERE.len() && kept.is_empty(),
            "{what}: {kept:?} were not replaced, {new:?} run"
        );
        cluster.client().http_get_until_ok(address, 80, PATIENCE).with_context(|| what.to_owned())?;
        let moves = sniffer.moves(address, &before, begun);
        let said: Vec<String> =
            moves.iter().map(|seen| format!("to {} after {:?}", seen.from, seen.at - begun)).collect();
        cluster.measured(&format!("{what}: {:?}, {} moves", begun.elapsed(), moves.len()));
        ensure!(moves.is_empty(), "{what} moved {address}: {said:?}");
        Ok(())
    };
    replace("rollout restart of the speakers", &|| {
        let daemonset = "daemonset/herald-speaker";
        cluster.kubectl(&["rollout", "restart", "--namespace", HERALD_NAMESPACE, daemonset])?;
        cluster.await_herald()
    })?;
    replace("helm upgrade that replaces controllers and speakers", &|| {
        let annotate =
            ["--set", "speaker.podAnnotations.try=one", "--set", "controller.podAnnotations.try=one"];
        cluster.upgrade_herald(&annotate).map(drop)
    })?;
    replace("helm rollback", &|| {
        cluster.helm(&["rollback", "herald", "1", "--namespace", HERALD_NAMESPACE, "--wait"]).map(drop)
    })?;
    let served = connections.close()?;
    cluster.measured(&format!(
        "{CLIENTS} open connections through all three (first holder {holder}): {served:?}"
    ));
    ensure!(served.broken == 0, "open connections broke although nothing moved: {served:?}");
    ensure!(cluster.await_addresses(place.name, "web")? == [address], "{address} was taken away");
    Ok(())
}

#[test]
#[ignore = "a full cluster: make test-cluster"]
fn a_drained_node_is_left_without_an_outage() -> Result<()> {
    let (_alone, installed) = alone()?;
    let place = Place::new(installed, "drain")?;
    let cluster = place.cluster;
    let (address, holder) = place.serve(&EVERYWHERE, "externalTrafficPolicy: Cluster")?;
    let sniffer = Sniffer::start(cluster.lan())?;
    let meter = Meter::start(cluster.client(), (address, 80).into(), PERIOD)?;
    meter.await_answer(Instant::now(), PATIENCE)?;
    let begun = Instant::now();
    cluster.kubectl(&["drain", &holder, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=60s"])?;
    let drained = begun.elapsed();
    // What kubectl drain leaves is the DaemonSet's pod; it ends when the machine is shut down.
    let pod = cluster.speaker_pod(&holder)?;
    let shutdown = Instant::now();
    cluster.kubectl(&["delete", "pod", &pod, "--namespace", HERALD_NAMESPACE])?;
    sniffer
        .wait_for(begun, PATIENCE, |frame| frame.announces(address) && frame.from != holder)
        .context("nobody took the address of the drained node")?;
    meter.await_answer(Instant::now(), PATIENCE)?;
    let gap = meter.stop()?.longest_gap().context("no answers")?;
    let moves: Vec<String> = sniffer
        .moves(address, &holder, begun)
        .iter()
        .map(|seen| format!("to {} after {:?}", seen.from, seen.at - begun))
        .collect();
    cluster.measured(&format!(
        "drain of the holder {holder} took {drained:?}, then its speaker was told to end after {:?}; moves {moves:?}; \
         longest gap of a client asking every 2 ms: {:?}",
        shutdown - begun,
        gap.length()
    ));
    cluster.kubectl(&["uncordon", &holder])?;
    cluster.await_herald()?;
    ensure!(cluster.await_holder(address)? != holder, "a node that returns takes nothing back");
    Ok(())
}

#[test]
#[ignore = "a full cluster: make test-cluster"]
fn a_node_that_loses_power_is_replaced_and_takes_nothing_back() -> Result<()> {
    let (_alone, installed) = alone()?;
    let place = Place::new(installed, "power-cut")?;
    let cluster = place.cluster;
    let (address, holder) = place.serve(&EVERYWHERE, "externalTrafficPolicy: Cluster")?;
    let survivors: Vec<&str> = EVERYWHERE.into_iter().filter(|&node| node != holder).collect();
    // The application runs on the survivors, so that what is measured is the address alone.
    cluster.deploy_backend(place.name, "web", &survivors)?;
    let sniffer = Sniffer::start(cluster.lan())?;
    let meter = Meter::start(cluster.client(), (address, 80).into(), PERIOD)?;
    meter.await_answer(Instant::now(), PATIENCE)?;
    let cut = Instant::now();
    cluster.power_cut(&holder)?;
    let successor =
        sniffer.wait_for(cut, PATIENCE, |frame| frame.announces(address) && frame.from != holder)?;
    meter.await_answer(cut, PATIENCE)?;
    let gap = meter.stop()?.longest_gap().context("no answers")?;
    cluster.measured(&format!(
        "power cut of {holder}: {} announced after {:?}, longest gap {:?}",
        successor.from,
        successor.at - cut,
        gap.length()
    ));
    let returned = Instant::now();
    let ready = cluster.power_on(&holder)?;
    cluster.await_herald()?;
    cluster.measured(&format!(
        "{holder} has power again: node Ready after {ready:?}, speaker ready after {:?}",
        returned.elapsed()
    ));
    let moves = sniffer.moves(address, &successor.from, returned);
    ensure!(moves.is_empty(), "the address moved when the node came back: {moves:?}");
    cluster.client().http_get_until_ok(address, 80, PATIENCE)?;
    Ok(())
}

#[test]
#[ignore = "a full cluster: make test-cluster"]
fn a_node_that_hangs_is_replaced_and_silent_when_it_wakes() -> Result<()> {
    let (_alone, installed) = alone()?;
    let place = Place::new(installed, "hang")?;
    let cluster = place.cluster;
    let (address, holder) = place.serve(&EVERYWHERE, "externalTrafficPolicy: Cluster")?;
    let survivors: Vec<&str> = EVERYWHERE.into_iter().filter(|&node| node != holder).collect();
    cluster.deploy_backend(place.name, "web", &survivors)?;
    let sniffer = Sniffer::start(cluster.lan())?;
    let meter = Meter::start(cluster.client(), (address, 80).into(), PERIOD)?;
    meter.await_answer(Instant::now(), PATIENCE)?;
    let frozen = Instant::now();
    cluster.node(&holder)?.pause()?;
    let successor =
        sniffer.wait_for(frozen, PATIENCE, |frame| frame.announces(address) && frame.from != holder)?;
    meter.await_answer(successor.at, PATIENCE)?;
    let gap = meter.stop()?.longest_gap().context("no answers")?;
    cluster.measured(&format!(
        "{holder} hangs: {} announced after {:?}, longest gap {:?} (a kernel goes on forwarding)",
        successor.from,
        successor.at - frozen,
        gap.length()
    ));
    let woken = Instant::now();
    cluster.node(&holder)?.resume()?;
    cluster.await_herald()?;
    let moves = sniffer.moves(address, &successor.from, woken);
    ensure!(moves.is_empty(), "the address moved when the node woke: {moves:?}");
    let answering = cluster.who_answers(&sniffer, address)?;
    ensure!(answering == [successor.from].into(), "{answering:?} answer for {address}");
    Ok(())
}

#[test]
#[ignore = "a full cluster: make test-cluster"]
fn a_speaker_that_is_killed_is_restarted_and_its_address_is_answered() -> Result<()> {
    let (_alone, installed) = alone()?;
    let place = Place::new(installed, "sigkill")?;
    let cluster = place.cluster;
    let (address, holder) = place.serve(&EVERYWHERE, "externalTrafficPolicy: Cluster")?;
    let sniffer = Sniffer::start(cluster.lan())?;
    let connections = Connections::open(cluster.client(), address, 80, 100)?;
    let meter = Meter::start(cluster.client(), (address, 80).into(), PERIOD)?;
    meter.await_answer(Instant::now(), PATIENCE)?;
    let pod = format!("pod/{}", cluster.speaker_pod(&holder)?);
    // Not 0 where a test before this one has cut the node's power.
    let count = "jsonpath={.status.containerStatuses[0].restartCount}";
    let restarts: u32 = cluster
        .kubectl(&["get", "--namespace", HERALD_NAMESPACE, &pod, "--output", count])?
        .trim()
        .parse()?;
    let killed = Instant::now();
    cluster.node(&holder)?.signal("herald-speaker", Signal::SIGKILL)?;
    let restarted = format!("--for={count}={}", restarts + 1);
    cluster.kubectl(&["wait", "--namespace", HERALD_NAMESPACE, &pod, &restarted, "--timeout=60s"])?;
    cluster.await_herald()?;
    let back = killed.elapsed();
    meter.await_answer(Instant::now(), PATIENCE)?;
    let gap = meter.stop()?.longest_gap().context("no answers")?;
    let served = connections.close()?;
    let moves = sniffer.moves(address, &holder, killed);
    cluster.measured(&format!(
        "speaker of the holder killed: ready again after {back:?}, {} moves, longest gap {:?}, {served:?}",
        moves.len(),
        gap.length()
    ));
    // Its node's kernel answers for it (rule A23), so its peers wait for it.
    ensure!(moves.is_empty(), "{address} moved away from a node whose speaker was back in time: {moves:?}");
    ensure!(served.broken == 0, "open connections broke: {served:?}");
    cluster.client().http_get_until_ok(address, 80, PATIENCE)?;
    Ok(())
}

#[test]
#[ignore = "a full cluster: make test-cluster"]
fn an_api_server_that_restarts_moves_nothing_and_is_used_again() -> Result<()> {
    let (_alone, installed) = alone()?;
    let place = Place::new(installed, "api-restart")?;
    let cluster = place.cluster;
    let (address, holder) = place.serve(&EVERYWHERE, "externalTrafficPolicy: Cluster")?;
    let before = cluster.address_book()?;
    let sniffer = Sniffer::start(cluster.lan())?;
    let meter = Meter::start(cluster.client(), (address, 80).into(), PERIOD)?;
    meter.await_answer(Instant::now(), PATIENCE)?;
    let killed = Instant::now();
    cluster.control_plane().kill_api()?;
    cluster.restart_api()?;
    cluster.run_backend(place.name, "later", &["n1"], "externalTrafficPolicy: Cluster")?;
    let later = *cluster.await_addresses(place.name, "later")?.first().context("no address")?;
    cluster.client().http_get_until_ok(later, 80, PATIENCE)?;
    let gap = meter.stop()?.longest_gap().context("no answers")?;
    cluster.measured(&format!("API server restarted: longest gap {:?}", gap.length()));
    let moves = sniffer.moves(address, &holder, killed);
    ensure!(moves.is_empty(), "{moves:?}");
    let mut after = cluster.address_book()?;
    after.remove(&format!("{}/later", place.name));
    ensure!(after == before, "{after:?} after {before:?}");
    Ok(())
}
