//! The exposition against the declarations.

use herald_l2::{
    Boot, Epoch, Holding, Instant, MacAddr, NodeId, NodeName, OtherVip, PeerId, PeerSnapshot, Revision,
};
use herald_runtime::{
    Readiness,
    metrics::{differences, exposition},
    watch::Change,
};

use super::*;
use crate::lbip::Lbip;

/// One of each.
pub(crate) fn inspection() -> Inspection {
    let mac = MacAddr::new(2, 0, 0, 0, 0, 1);
    let holding = Holding {
        vip: "192.0.2.1".parse().unwrap(),
        ifindex: 1,
        interface: "eth0".into(),
        mac,
        epoch: Epoch(3),
        revision: Revision(9),
        since: Instant::from_nanos(1),
        traffic: Traffic { requests: 3, replies: 2, announcements: 1 },
    };
    let peer = PeerSnapshot {
        node: NodeId(2),
        name: Some(NodeName::from("n2")),
        boot: Boot(7),
        mac,
        state: PeerState::Active,
        silence: Duration::from_millis(5),
        interval: Duration::from_millis(40),
        loss: 0.25,
        evidence: 0.0,
        claims: 0,
        hellos: (30, 10),
    };
    let other = OtherVip {
        vip: "192.0.2.2".parse().unwrap(),
        holder: Some(NodeId(2)),
        epoch: Epoch(3),
        eligible: true,
        conflict: None,
    };
    let segment = SegmentSnapshot {
        ifindex: 1,
        interface: "eth0".into(),
        mac,
        state: Lifecycle::Active,
        mute: false,
        able: true,
        interval: Duration::from_millis(40),
        peers_unheard: false,
        peers: vec![peer],
        holdings: vec![holding],
        others: vec![other],
    };
    let snapshot = Snapshot { segments: vec![segment], specs: 2, without_interface: Vec::new() };
    Inspection { snapshot, counters: Counters::default() }
}

#[derive(Debug)]
struct Fixed(Inspection);

impl Collector for Fixed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let users = Users::default();
        users.take(&Change::Applied(Ok(Lbip {
            vip: "192.0.2.1".parse().unwrap(),
            spec: Err(String::new()),
            own_entry: None,
            services: "shop/web,shop/dns".into(),
        })));
        encode(&mut encoder, &self.0, "n1", &users)
    }
}

fn text(inspection: Inspection) -> String {
    let mut registry = Registry::default();
    let transitions = Transitions::new(&mut registry);
    let silence = Duration::from_millis(110);
    let how = Gone::Dead { silence, evidence: 33.0, loss: 0.0 };
    transitions.claimed(&Cause::Takeover { from: peer_id(), how, waited: Duration::from_millis(60) });
    registry.register_collector(Box::new(Fixed(inspection)));
    herald_runtime::metrics::register(&mut registry, Readiness::new());
    exposition(&registry).unwrap()
}

fn peer_id() -> PeerId {
    PeerId { node: NodeId(2), name: None, boot: Boot(7), mac: MacAddr::zero() }
}

#[test]
fn what_is_exposed_is_what_is_declared() {
    let text = text(inspection());
    // No watch is running here; herald-runtime tests those.
    let without_watches = |difference: &String| !difference.contains("herald_watch_");
    let found: Vec<String> = differences(&declared(), &text).into_iter().filter(without_watches).collect();
    assert_eq!(found, Vec::<String>::new(), "{text}");
    for line in [
        "herald_speaker_takeovers_total{cause=\"holder_dead\"} 1\n",
        "herald_speaker_hello_loss_ratio{peer=\"n2\",interface=\"eth0\"} 0.25\n",
        "herald_speaker_announced{service=\"shop/web\",ip=\"192.0.2.1\",node=\"n1\",interface=\"eth0\",protocol=\"layer2\"} 1\n",
        "herald_speaker_announced{service=\"shop/dns\",ip=\"192.0.2.1\",node=\"n1\",interface=\"eth0\",protocol=\"layer2\"} 1\n",
        "herald_speaker_holdings 1\n",
        "herald_layer2_requests_received_total{ip=\"192.0.2.1\"} 3\n",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn the_series_of_an_address_and_of_a_peer_that_are_gone_disappear() {
    let mut gone = inspection();
    for segment in &mut gone.snapshot.segments {
        segment.holdings.clear();
        segment.peers.clear();
    }
    let text = text(gone);
    assert!(!text.contains("192.0.2.1") && !text.contains("n2"), "{text}");
}
