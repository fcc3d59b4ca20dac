//! Frames on the real wire that are made to deceive speakers: forged, replayed, cut off, foreign. Each is refused, counted
//! under its reason in the speaker's own `/metrics`, and changes nothing.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use herald_lab::{Lab, Node, Seen, Sniffer, What, shared::lab_alone};

const PATIENCE: Duration = Duration::from_secs(20);
/// Frames of each kind: a count that does not come by accident.
const FRAMES: u64 = 20;
/// Ethernet header; then offsets of docs/protocol.md's frame.
const ETHERNET: usize = 14;
const VERSION: usize = ETHERNET + 4;
const CLUSTER: usize = ETHERNET + 8;
const KEY_ID: usize = ETHERNET + 44;
const BODY: usize = ETHERNET + 47;
const NO_FRAME: &str = "no frame at all";
const REASONS: [&str; 9] = [
    NO_FRAME,
    "malformed",
    "version",
    "foreign_cluster",
    "own_id",
    "unknown_key",
    "forged",
    "replayed",
    "unknown_boot",
];

/// The newest whole frame that `node` sent on the wire.
fn recorded(sniffer: &Sniffer, node: &str) -> Result<Vec<u8>> {
    let from_node = |frame: &Seen| frame.from == node && matches!(frame.what, What::Hello(_));
    match sniffer.wait_for(Instant::now(), PATIENCE, from_node)?.what {
        What::Hello(bytes) => Ok(bytes),
        _ => bail!("not a hello"),
    }
}

/// How many frames the speaker on `node` has refused, by reason.
fn refused(node: &Node) -> Result<BTreeMap<&'static str, u64>> {
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, 7481));
    let count = |reason: &'static str| {
        // Frames that can't be told apart are counted for themselves, before they have a reason.
        let sample = match reason {
            NO_FRAME => "herald_speaker_frames_malformed_total".to_owned(),
            _ => format!("herald_speaker_frames_refused_total{{reason=\"{reason}\"}}"),
        };
        Ok((reason, node.host.metric(admin, &sample)?))
    };
    REASONS.into_iter().map(count).collect()
}

/// Sends `frames` from the client's port and waits until the speaker on `node` has refused that many more for `reason`,
/// and none for another.
fn refused_for(lab: &Lab, node: &Node, frames: &[Vec<u8>], reason: &str) -> Result<()> {
    let before = refused(node)?;
    for frame in frames {
        lab.client().transmit(frame)?;
    }
    let begun = Instant::now();
    loop {
        let now = refused(node)?;
        let more: BTreeMap<&str, u64> = now
            .iter()
            .map(|(&reason, count)| (reason, count - before.get(reason).copied().unwrap_or(0)))
            .filter(|&(_, more)| more > 0)
            .collect();
        if more == BTreeMap::from([(reason, u64::try_from(frames.len())?)]) {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < PATIENCE,
            "{} frames for {reason:?} were sent to {}; it refused {more:?}",
            frames.len(),
            node.name()
        );
        // A counter has no event to wait for.
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// The frame with one octet changed, another one in each copy.
fn spoilt(frame: &[u8], at: usize) -> Result<Vec<Vec<u8>>> {
    (1..=FRAMES)
        .map(|mask| {
            let mut copy = frame.to_vec();
            *copy.get_mut(at).context("a frame too short")? ^= u8::try_from(mask)?;
            Ok(copy)
        })
        .collect()
}

#[test]
fn forged_replayed_and_foreign_frames_are_refused_counted_and_change_nothing() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let sniffer = Sniffer::start(lab.lan())?;
    for node in lab.repair()? {
        recorded(&sniffer, &node)?;
    }
    lab.kubectl_apply(
        "{apiVersion: v1, kind: Service, metadata: {name: hostile}, spec: {type: LoadBalancer, ports: [{port: 80}]}}",
    )?;
    let address: IpAddr = *lab.await_addresses("default", "hostile")?.first().context("an address")?;
    let holder = lab.await_holder(address)?;
    let begun = Instant::now();

    // The holder's own words, turned against the others.
    let other = lab.nodes().iter().find(|node| node.name() != holder).context("another node")?;
    let frame = recorded(&sniffer, &holder)?;
    refused_for(lab, other, &spoilt(&frame, BODY)?, "forged")?;
    let tag = frame.len() - 1;
    // What comes after the tag is padding, which is nobody's concern: a hello is longer than the shortest frame.
    refused_for(lab, other, &spoilt(&frame, tag)?, "forged")?;
    refused_for(lab, other, &spoilt(&frame, CLUSTER)?, "foreign_cluster")?;
    refused_for(lab, other, &spoilt(&frame, VERSION)?, "version")?;
    let mut unknown = frame.clone();
    *unknown.get_mut(KEY_ID).context("a frame too short")? = 7;
    refused_for(lab, other, &[unknown], "unknown_key")?;
    let count = usize::try_from(FRAMES)?;
    refused_for(lab, other, &vec![frame.clone(); count], "replayed")?;
    let cut: Vec<Vec<u8>> = (BODY..frame.len()).step_by(7).map(|end| frame[..end].to_vec()).collect();
    refused_for(lab, other, &cut, NO_FRAME)?;
    // And to the holder itself, who knows its own voice.
    let itself = lab.node(&holder)?;
    refused_for(lab, itself, &vec![frame; count], "own_id")?;

    let moves = sniffer.moves(address, &holder, begun);
    ensure!(moves.is_empty(), "the address moved: {moves:?}");
    ensure!(lab.await_holder(address)? == holder, "{holder} does not hold {address} any more");
    lab.kubectl(&["delete", "service", "hostile"])?;
    Ok(())
}
