//! What the L2 core holds, as JSON for `/debug/state`: for somebody who asks who holds an address and why. Names,
//! addresses and measures only; keys are not in a snapshot.

use std::{net::IpAddr, time::Duration};

use herald_l2::{OtherVip, PeerSnapshot, SegmentSnapshot, Snapshot};
use herald_runtime::admin::StateSource;
use serde::Serialize;

use crate::link::{Controls, Wake};

/// Longest wait for the L2 thread.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks the core behind `controls` each time.
pub fn source<W: Wake>(controls: Controls<W>) -> StateSource {
    Box::new(move || {
        let controls = controls.clone();
        Box::pin(async move {
            // It waits for another thread, and must not hold up this one.
            let asking = tokio::task::spawn_blocking(move || controls.inspect(PATIENCE));
            asking.await.ok().flatten().map(|inspection| json(&inspection.snapshot))
        })
    })
}

fn json(snapshot: &Snapshot) -> Vec<u8> {
    let state = State {
        addresses: snapshot.specs,
        without_interface: &snapshot.without_interface,
        segments: snapshot.segments.iter().map(segment).collect(),
    };
    // No map in it has keys that are not text: this can't fail.
    serde_json::to_vec(&state).unwrap_or_default()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct State<'a> {
    addresses: usize,
    without_interface: &'a [IpAddr],
    segments: Vec<Segment<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Segment<'a> {
    interface: &'a str,
    mac: String,
    state: String,
    mute: bool,
    able: bool,
    peers_unheard: bool,
    hello_interval_ms: f64,
    peers: Vec<Peer>,
    held: Vec<Held>,
    others: Vec<Other>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Peer {
    node: String,
    name: Option<String>,
    mac: String,
    state: String,
    silence_ms: f64,
    hello_interval_ms: f64,
    loss: f64,
    evidence: f64,
    claims: usize,
}

#[derive(Serialize)]
struct Held {
    address: IpAddr,
    epoch: String,
    revision: String,
    requests: u64,
    replies: u64,
    gratuitous: u64,
}

#[derive(Serialize)]
struct Other {
    address: IpAddr,
    holder: Option<String>,
    epoch: String,
    eligible: bool,
    conflict: Option<String>,
}

fn segment(segment: &SegmentSnapshot) -> Segment<'_> {
    let held = segment.holdings.iter().map(|holding| Held {
        address: holding.vip,
        epoch: holding.epoch.to_string(),
        revision: holding.revision.to_string(),
        requests: holding.traffic.requests,
        replies: holding.traffic.replies,
        gratuitous: holding.traffic.announcements,
    });
    Segment {
        interface: &segment.interface,
        mac: segment.mac.to_string(),
        state: format!("{:?}", segment.state),
        mute: segment.mute,
        able: segment.able,
        peers_unheard: segment.peers_unheard,
        hello_interval_ms: milliseconds(segment.interval),
        peers: segment.peers.iter().map(peer).collect(),
        held: held.collect(),
        others: segment.others.iter().map(other).collect(),
    }
}

fn peer(peer: &PeerSnapshot) -> Peer {
    Peer {
        node: peer.node.to_string(),
        name: peer.name.as_ref().map(ToString::to_string),
        mac: peer.mac.to_string(),
        state: format!("{:?}", peer.state),
        silence_ms: milliseconds(peer.silence),
        hello_interval_ms: milliseconds(peer.interval),
        loss: peer.loss,
        evidence: peer.evidence,
        claims: peer.claims,
    }
}

fn other(other: &OtherVip) -> Other {
    Other {
        address: other.vip,
        holder: other.holder.map(|holder| holder.to_string()),
        epoch: other.epoch.to_string(),
        eligible: other.eligible,
        conflict: other.conflict.map(|mac| mac.to_string()),
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::tests::inspection;

    #[test]
    fn it_says_who_holds_what_on_each_interface() {
        let text = json(&inspection().snapshot);
        let state: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let segment = &state["segments"][0];
        assert_eq!(segment["interface"], "eth0");
        assert_eq!(segment["held"][0]["address"], "192.0.2.1");
        assert_eq!(segment["peers"][0]["name"], "n2");
        assert_eq!(segment["others"][0]["address"], "192.0.2.2");
    }
}
