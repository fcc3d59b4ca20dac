//! Nodes, cables, speakers and the API server fail: who answers, what moves, and what does not.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use herald_lab::{
    Lab, Meter, Sniffer,
    shared::{Case, lab_alone},
};

/// Far longer than any takeover: a test waits for the event, not for the clock.
const PATIENCE: Duration = Duration::from_secs(20);
const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// A Service in a lab that is whole, looked at by a client and a sniffer.
struct Scene {
    case: Case,
    vip: IpAddr,
    holder: String,
    sniffer: Sniffer,
}

impl Scene {
    /// Waits until every node takes part, then makes the Service and finds out on the wire who answers for it.
    fn new(lab: &'static Lab, name: &str, spec: &str) -> Result<Self> {
        let sniffer = Sniffer::start(lab.lan())?;
        let begun = Instant::now();
        for node in lab.repair()? {
            await_member(&sniffer, &node, begun)?;
        }
        let case = Case::in_lab(lab, name)?;
        case.apply_service("web", "", spec)?;
        let vip = case.address("web")?;
        case.serve("web", &NODES)?;
        lab.client().forget_neighbours()?;
        case.visit(vip)?;
        let holder = lab.await_holder(vip)?;
        ensure!(lab.holder_seen_by_client(vip)? == holder, "the status names {holder}, the wire does not");
        // Its backend must outlive it.
        case.serve("web", &others(&holder))?;
        Ok(Self { case, vip, holder, sniffer })
    }

    fn lab(&self) -> &'static Lab {
        self.case.lab()
    }

    fn meter(&self) -> Result<Meter> {
        let meter =
            Meter::start(self.lab().client(), SocketAddr::new(self.vip, 80), Duration::from_millis(5))?;
        meter.await_answer(Instant::now(), PATIENCE)?;
        Ok(meter)
    }

    /// Waits for another node's announcement and for the client's next answer; names the node.
    fn await_takeover(&self, meter: &Meter, since: Instant) -> Result<String> {
        let announced = |frame: &herald_lab::Seen| frame.announces(self.vip) && frame.from != self.holder;
        let news =
            self.sniffer.wait_for(since, PATIENCE, announced).context("nobody took the address over")?;
        meter.await_answer(news.at, PATIENCE).context("the client was not answered after the takeover")?;
        Ok(news.from)
    }

    /// The hosts that answer when the client asks anew who has the address.
    fn who_answers(&self) -> Result<BTreeSet<String>> {
        self.lab().who_answers(&self.sniffer, self.vip)
    }

    fn ensure_only(&self, node: &str) -> Result<()> {
        let answering = self.who_answers()?;
        ensure!(
            answering == BTreeSet::from([node.to_owned()]),
            "{answering:?} answer for {}, not {node} alone",
            self.vip
        );
        self.lab().await_holder_is(self.vip, node)
    }
}

fn others(node: &str) -> Vec<&'static str> {
    NODES.into_iter().filter(|&other| other != node).collect()
}

/// Who holds what, by what the speakers report.
fn holdings(lab: &Lab, addresses: &[IpAddr]) -> Result<BTreeMap<IpAddr, String>> {
    addresses.iter().map(|&address| Ok((address, lab.await_holder(address)?))).collect()
}

/// Waits until the speaker of a node that came back says hello again, and has listened as long as a newcomer must.
fn await_member(sniffer: &Sniffer, node: &str, since: Instant) -> Result<()> {
    let hello =
        |frame: &herald_lab::Seen| matches!(frame.what, herald_lab::What::Hello(_)) && frame.from == node;
    let first = sniffer.wait_for(since, PATIENCE, hello).with_context(|| format!("{node} says no hello"))?;
    // A newcomer that would take something takes it right after its second of listening (rules A24, A33).
    sniffer.wait_for(first.at + Duration::from_secs(2), PATIENCE, hello)?;
    Ok(())
}

#[test]
fn a_dead_nodes_address_moves_once_and_nothing_moves_when_the_node_returns() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let scene = Scene::new(lab, "node-death", "")?;
    scene.case.apply_service("a", "", "")?;
    scene.case.apply_service("b", "", "ipFamilyPolicy: RequireDualStack")?;
    let mut all = scene.case.addresses("b")?;
    all.push(scene.case.address("a")?);
    let before = holdings(lab, &all)?;

    let meter = scene.meter()?;
    let cut = Instant::now();
    lab.power_off(&scene.holder)?;
    let successor = scene.await_takeover(&meter, cut)?;
    scene.ensure_only(&successor)?;
    let mut survivors = BTreeMap::new();
    for (&address, holder) in &before {
        if *holder == scene.holder {
            lab.await_lbip(address, "moved", |lbip| {
                lbip.is_some_and(|lbip| !herald_lab::services::holders(lbip).contains(holder))
            })?;
        } else {
            ensure!(lab.await_holder(address)? == *holder, "{address} moved although {holder} lives");
        }
        survivors.insert(address, lab.await_holder(address)?);
    }

    let back = Instant::now();
    lab.power_on(&scene.holder)?;
    await_member(&scene.sniffer, &scene.holder, back)?;
    scene.ensure_only(&successor)?;
    ensure!(holdings(lab, &all)? == survivors, "something moved when {} came back", scene.holder);
    meter.stop()?;
    Ok(())
}

#[test]
fn an_ipv6_address_moves_too() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let scene = Scene::new(lab, "v6-death", "ipFamilies: [IPv6], ipFamilyPolicy: SingleStack")?;
    let meter = scene.meter()?;
    let cut = Instant::now();
    lab.power_off(&scene.holder)?;
    let successor = scene.await_takeover(&meter, cut)?;
    scene.ensure_only(&successor)?;
    let back = Instant::now();
    lab.power_on(&scene.holder)?;
    await_member(&scene.sniffer, &scene.holder, back)
}

#[test]
fn a_cut_cable_moves_the_address_although_the_api_says_nothing() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let scene = Scene::new(lab, "cable", "")?;
    let meter = scene.meter()?;
    let cut = Instant::now();
    lab.lan().cut(&scene.holder)?;
    let successor = scene.await_takeover(&meter, cut)?;
    let mended = Instant::now();
    lab.lan().mend(&scene.holder)?;
    await_member(&scene.sniffer, &scene.holder, mended)?;
    scene.ensure_only(&successor)
}

#[test]
fn a_frozen_speaker_is_replaced_and_stays_silent_when_it_wakes() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let scene = Scene::new(lab, "frozen", "")?;
    let speaker = lab.node(&scene.holder)?;
    let frozen = Instant::now();
    speaker.speaker(herald_lab::Process::pause)?;
    let news = scene
        .sniffer
        .wait_for(frozen, PATIENCE, |frame| frame.announces(scene.vip) && frame.from != scene.holder);
    let successor = news.context("nobody took the address over")?.from;
    let woken = Instant::now();
    speaker.speaker(herald_lab::Process::resume)?;
    await_member(&scene.sniffer, &scene.holder, woken)?;
    let claims = |frame: &herald_lab::Seen| {
        frame.at > woken && frame.from == scene.holder && frame.announces(scene.vip)
    };
    ensure!(
        !scene.sniffer.seen().iter().any(claims),
        "the frozen speaker announced the address after it woke"
    );
    scene.ensure_only(&successor)
}

#[test]
fn a_killed_speakers_address_is_anothers_after_its_grace_and_stays_there() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let scene = Scene::new(lab, "killed", "")?;
    let node = lab.node(&scene.holder)?;
    let killed = Instant::now();
    node.speaker(herald_lab::Process::kill)?;
    let news = scene
        .sniffer
        .wait_for(killed, PATIENCE, |frame| frame.announces(scene.vip) && frame.from != scene.holder);
    let successor = news.context("nobody took the address over")?.from;
    let back = Instant::now();
    node.start_speaker()?;
    await_member(&scene.sniffer, &scene.holder, back)?;
    scene.ensure_only(&successor)
}

#[test]
fn a_node_dies_while_the_api_server_is_away() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let scene = Scene::new(lab, "api-away", "")?;
    let meter = scene.meter()?;
    lab.control_plane().pause_api()?;
    let cut = Instant::now();
    lab.power_off(&scene.holder)?;
    let takeover = scene.await_takeover(&meter, cut);
    lab.control_plane().resume_api()?;
    let successor = takeover?;
    scene.ensure_only(&successor)?;
    let back = Instant::now();
    lab.power_on(&scene.holder)?;
    await_member(&scene.sniffer, &scene.holder, back)
}

/// Longer than the controller's lease and than any request waits for an answer (15 s each).
#[test]
fn an_api_server_that_is_away_for_long_stops_no_traffic_and_changes_no_address() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let scene = Scene::new(lab, "api-long-away", "")?;
    scene.case.apply_service("other", "", "ipFamilyPolicy: RequireDualStack")?;
    let others = scene.case.addresses("other")?;
    let before = holdings(lab, &others)?;
    let meter = scene.meter()?;
    let log = lab.controller(|controller| Ok(controller.log().to_owned()))?;
    let said_before = std::fs::read_to_string(&log)?.len();
    let away = Instant::now();
    lab.control_plane().pause_api()?;
    let outcome = (|| {
        // One answer in ten milliseconds at most is counted: twenty seconds' worth of them, however long they take.
        let mut last = away;
        for _ in 0..2_000 {
            last = meter.await_answer(last, PATIENCE).context("the client is not answered any more")?;
        }
        let log = std::fs::read_to_string(&log)?;
        let said = log.get(said_before..).unwrap_or_default();
        for words in ["\"leading no longer\"", "\"the lease can't be read or written\""] {
            ensure!(said.contains(words), "the controller does not say {words}:\n{said}");
        }
        Ok(())
    })();
    lab.control_plane().resume_api()?;
    outcome?;
    scene.case.apply_service("after", "", "")?;
    lab.await_holder(scene.case.address("after")?)?;
    ensure!(scene.case.address("web")? == scene.vip, "{} was not kept", scene.vip);
    ensure!(scene.case.addresses("other")? == others, "{others:?} were not kept");
    ensure!(holdings(lab, &others)? == before, "something moved");
    let moves = scene.sniffer.moves(scene.vip, &scene.holder, away);
    ensure!(moves.is_empty(), "the address moved: {moves:?}");
    meter.stop()?;
    scene.ensure_only(&scene.holder)
}

#[test]
fn a_node_cut_from_the_api_alone_keeps_its_addresses() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let scene = Scene::new(lab, "api-cut", "")?;
    lab.lan().block("cp", &scene.holder)?;
    lab.lan().block(&scene.holder, "cp")?;
    let meter = scene.meter()?;
    // Another Service is made and announced meanwhile: time passes in which a lease would have run out.
    scene.case.apply_service("meanwhile", "", "")?;
    lab.await_holder(scene.case.address("meanwhile")?)?;
    let answering = scene.who_answers()?;
    lab.lan().heal()?;
    ensure!(
        answering == BTreeSet::from([scene.holder.clone()]),
        "{answering:?} answer, not {}",
        scene.holder
    );
    meter.stop()?;
    scene.ensure_only(&scene.holder)
}

#[test]
fn a_split_lan_has_a_holder_on_each_side_and_one_after_it_heals() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let scene = Scene::new(lab, "split", "")?;
    let meter = scene.meter()?;
    // The holder alone on one side, the client with the others on the other.
    let split = Instant::now();
    lab.lan().split(&[&scene.holder])?;
    scene.await_takeover(&meter, split)?;
    let healed = Instant::now();
    lab.lan().heal()?;
    await_member(&scene.sniffer, &scene.holder, healed)?;
    let answering = scene.who_answers()?;
    ensure!(answering.len() == 1, "{answering:?} answer after the LAN has healed");
    scene.case.visit(scene.vip)?;
    let winner = answering.into_iter().next().context("nobody answers")?;
    ensure!(lab.holder_seen_by_client(scene.vip)? == winner, "the client's cache does not lead to {winner}");
    scene.ensure_only(&winner)
}

#[test]
fn a_third_of_all_frames_lost_moves_nothing() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let scene = Scene::new(lab, "loss", "")?;
    let begun = Instant::now();
    lab.lan().set_loss(30)?;
    // Ten seconds of hellos: fixed timeouts of three intervals would be wrong some five times in them.
    let hello = |frame: &herald_lab::Seen| matches!(frame.what, herald_lab::What::Hello(_));
    scene.sniffer.wait_for(begun + Duration::from_secs(10), PATIENCE, hello)?;
    lab.lan().heal()?;
    let moved = |frame: &herald_lab::Seen| {
        frame.at > begun && frame.announces(scene.vip) && frame.from != scene.holder
    };
    ensure!(!scene.sniffer.seen().iter().any(moved), "the address moved although nothing died");
    scene.ensure_only(&scene.holder)
}

#[test]
fn a_speaker_on_a_cordoned_node_hands_over_when_told_to_end_and_takes_nothing_back() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let scene = Scene::new(lab, "leave", "")?;
    let node = lab.node(&scene.holder)?;
    let meter = scene.meter()?;
    lab.kubectl(&["cordon", &scene.holder])?;
    let outcome = (|| {
        // Its hellos say so as soon as it knows.
        let cordoned = Instant::now();
        scene.sniffer.wait_for(cordoned + Duration::from_secs(1), PATIENCE, |frame| {
            matches!(frame.what, herald_lab::What::Hello(_)) && frame.from == scene.holder
        })?;
        let told = Instant::now();
        let status = node.speaker(herald_lab::Process::terminate)?;
        ensure!(status.success(), "the speaker ended with {status}");
        let successor = scene.await_takeover(&meter, told)?;
        let back = Instant::now();
        node.start_speaker()?;
        await_member(&scene.sniffer, &scene.holder, back)?;
        scene.ensure_only(&successor)
    })();
    lab.kubectl(&["uncordon", &scene.holder])?;
    outcome
}

#[test]
fn a_speaker_that_restarts_keeps_its_address_and_clients_that_come_meanwhile_find_it() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let scene = Scene::new(lab, "restart", "")?;
    let node = lab.node(&scene.holder)?;
    let told = Instant::now();
    let status = node.speaker(herald_lab::Process::terminate)?;
    ensure!(status.success(), "the speaker ended with {status}");
    lab.client().forget_neighbours()?;
    scene.case.visit(scene.vip)?;
    ensure!(lab.holder_seen_by_client(scene.vip)? == scene.holder, "a deputy sent the client elsewhere");
    lab.await_holder_is(scene.vip, &scene.holder)?;
    let back = Instant::now();
    node.start_speaker()?;
    await_member(&scene.sniffer, &scene.holder, back)?;
    scene.ensure_only(&scene.holder)?;
    let moved = |frame: &herald_lab::Seen| {
        frame.at > told && frame.announces(scene.vip) && frame.from != scene.holder
    };
    ensure!(!scene.sniffer.seen().iter().any(moved), "the address moved");
    Ok(())
}
