//! `herald_*` metrics. What the core counts is read from it at each scrape, so that the series of an address
//! or of a peer disappear with it; what only transitions tell (takeovers by cause, detection time) is kept here.

use std::{fmt, time::Duration};

use herald_l2::{Cause, Counters, Gone, Lifecycle, PeerState, SegmentSnapshot, Snapshot, Traffic};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::{Registry, Unit},
};

use crate::link::{Controls, Wake};

/// Longest wait for the L2 thread at a scrape; it answers within one turn of its loop.
const PATIENCE: Duration = Duration::from_millis(250);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabel {
    cause: &'static str,
}

/// Metrics of transitions. Clones share them.
#[derive(Clone, Debug)]
pub struct Transitions {
    takeovers: Family<CauseLabel, Counter>,
    detection: Histogram,
    conflicts: Counter,
    /// Status writes that wait.
    pub status_waiting: Gauge,
    /// LoadBalancerIPs known.
    pub addresses: Gauge,
}

impl Transitions {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            takeovers: Family::default(),
            detection: Histogram::new([
                0.02, 0.04, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4, 0.6, 1.0, 3.0,
            ]),
            conflicts: Counter::default(),
            status_waiting: Gauge::default(),
            addresses: Gauge::default(),
        };
        registry.register(
            "speaker_takeovers",
            "Addresses this node came to hold, by cause",
            metrics.takeovers.clone(),
        );
        registry.register_with_unit(
            "speaker_detection",
            "Silence of a holder until it was declared dead, per address taken over",
            Unit::Seconds,
            metrics.detection.clone(),
        );
        registry.register(
            "speaker_conflicts",
            "Foreign hosts found answering for an address",
            metrics.conflicts.clone(),
        );
        registry.register(
            "speaker_status_writes_waiting",
            "Addresses whose status is still to be written",
            metrics.status_waiting.clone(),
        );
        registry.register(
            "speaker_addresses",
            "LoadBalancerIPs this speaker knows",
            metrics.addresses.clone(),
        );
        metrics
    }

    /// An address was claimed.
    pub fn claimed(&self, cause: &Cause) {
        let label = match cause {
            Cause::NeverHeld => "never_held",
            Cause::Takeover { how: Gone::Dead { .. }, .. } => "holder_dead",
            Cause::Takeover { how: Gone::Left, .. } => "holder_left",
            Cause::Takeover { how: Gone::Replaced, .. } => "holder_restarted",
            Cause::Freed => "freed",
            Cause::Override { .. } => "spec_changed",
            Cause::Alone => "alone",
        };
        self.takeovers.get_or_create(&CauseLabel { cause: label }).inc();
        if let Cause::Takeover { how: Gone::Dead { silence, .. }, .. } = cause {
            self.detection.observe(silence.as_secs_f64());
        }
    }

    /// A foreign host answers for an address.
    pub fn conflict(&self) {
        self.conflicts.inc();
    }
}

/// Reads the core at each scrape.
pub struct CoreCollector<W> {
    controls: Controls<W>,
    node: String,
}

impl<W> CoreCollector<W> {
    /// A collector for the core behind `controls`.
    pub fn new(controls: Controls<W>, node: &str) -> Self {
        Self { controls, node: node.to_owned() }
    }
}

impl<W> fmt::Debug for CoreCollector<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoreCollector").field("node", &self.node).finish_non_exhaustive()
    }
}

impl<W: Wake> Collector for CoreCollector<W> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // A scrape without the core's series is better than a scrape that hangs; /livez tells about the thread.
        let Some(inspection) = self.controls.inspect(PATIENCE) else { return Ok(()) };
        counters(&mut encoder, &inspection.counters)?;
        segments(&mut encoder, &inspection.snapshot)?;
        peers(&mut encoder, &inspection.snapshot)?;
        holdings(&mut encoder, &inspection.snapshot, &self.node)
    }
}

fn counters(encoder: &mut DescriptorEncoder<'_>, counters: &Counters) -> fmt::Result {
    for (name, help, value) in [
        ("frames_received", "Frames that passed the socket filters", counters.frames),
        ("hellos_accepted", "Frames of the speakers' protocol accepted", counters.hellos_accepted),
        ("hellos_sent", "Frames of the speakers' protocol sent", counters.hellos_sent),
        ("frames_malformed", "Frames that make no sense", counters.malformed),
        ("arp_requests", "ARP requests for an address held here", counters.arp_requests),
        ("nd_solicitations", "Neighbour solicitations for an address held here", counters.nd_solicitations),
        ("replies", "ARP replies and neighbour advertisements sent as answers", counters.replies),
        (
            "gratuitous",
            "Gratuitous ARP, unsolicited advertisements and targeted retries sent",
            counters.announcements,
        ),
        ("yields", "Addresses given up because a greater claim was heard", counters.yields),
        ("suspicions", "Peers suspected", counters.suspicions),
        ("deaths", "Peers declared dead", counters.deaths),
        ("stalls", "Times the L2 loop stood still for too long", counters.stalls),
        ("table_full", "Entries turned away because a table was full", counters.table_full),
    ] {
        let name = format!("speaker_{name}");
        ConstCounter::new(value).encode(encoder.encode_descriptor(
            &name,
            help,
            None,
            MetricType::Counter,
        )?)?;
    }
    let refused = &counters.refused;
    let mut family = encoder.encode_descriptor(
        "speaker_frames_refused",
        "Frames of the speakers' protocol refused, by reason",
        None,
        MetricType::Counter,
    )?;
    for (reason, value) in [
        ("malformed", refused.malformed),
        ("version", refused.version),
        ("foreign_cluster", refused.foreign_cluster),
        ("own_id", refused.own_id),
        ("unknown_key", refused.unknown_key),
        ("forged", refused.forged),
        ("replayed", refused.replayed),
        ("unknown_boot", refused.unknown_boot),
    ] {
        ConstCounter::new(value).encode(family.encode_family(&[("reason", reason)])?)?;
    }
    Ok(())
}

fn segments(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let mut gauge = |name: &str, help: &str, value: fn(&SegmentSnapshot) -> bool| {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for segment in &snapshot.segments {
            let labels = [("interface", segment.interface.as_str())];
            ConstGauge::new(i64::from(value(segment))).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    };
    gauge(
        "speaker_segment_active",
        "1: claims and answers on this interface; 0: still listening or leaving",
        |segment| segment.state == Lifecycle::Active,
    )?;
    gauge("speaker_segment_able", "1: has a link and can prove it", |segment| segment.able)?;
    gauge("speaker_segment_peers_unheard", "1: other nodes should be there and none is heard", |segment| {
        segment.peers_unheard
    })
}

fn peers(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let all = || {
        snapshot.segments.iter().flat_map(|segment| {
            segment.peers.iter().map(move |peer| {
                let name = peer.name.as_ref().map_or_else(|| peer.node.to_string(), ToString::to_string);
                (peer, [("peer", name), ("interface", segment.interface.clone())])
            })
        })
    };
    let mut family = encoder.encode_descriptor(
        "speaker_peer_up",
        "1: the peer is heard; 0: suspected or gone",
        None,
        MetricType::Gauge,
    )?;
    for (peer, labels) in all() {
        let up = !matches!(peer.state, PeerState::Suspected | PeerState::Gone);
        ConstGauge::new(i64::from(up)).encode(family.encode_family(&labels)?)?;
    }
    let mut family = encoder.encode_descriptor(
        "speaker_hello_loss_ratio",
        "Measured loss of a peer's hellos, over the last 64",
        None,
        MetricType::Gauge,
    )?;
    for (peer, labels) in all() {
        ConstGauge::new(peer.loss).encode(family.encode_family(&labels)?)?;
    }
    for (name, help, which) in [
        ("speaker_peer_hellos_heard", "Hellos heard from a peer", 0),
        ("speaker_peer_hellos_missed", "Hellos missed from a peer", 1),
    ] {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (peer, labels) in all() {
            let value = if which == 0 { peer.hellos.0 } else { peer.hellos.1 };
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn holdings(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot, node: &str) -> fmt::Result {
    let held = || snapshot.segments.iter().flat_map(|segment| &segment.holdings);
    ConstGauge::new(i64::try_from(held().count()).unwrap_or(i64::MAX)).encode(encoder.encode_descriptor(
        "speaker_holdings",
        "Addresses held by this node",
        None,
        MetricType::Gauge,
    )?)?;
    let mut family = encoder.encode_descriptor(
        "speaker_announced",
        "1 for each address that this node answers for",
        None,
        MetricType::Gauge,
    )?;
    for holding in held() {
        let labels = [
            ("ip", holding.vip.to_string()),
            ("node", node.to_owned()),
            ("interface", holding.interface.clone()),
            ("protocol", "layer2".to_owned()),
        ];
        ConstGauge::new(1_i64).encode(family.encode_family(&labels)?)?;
    }
    traffic(encoder, snapshot)
}

fn traffic(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let mut counter = |name: &str, help: &str, value: fn(&Traffic) -> u64| {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for holding in snapshot.segments.iter().flat_map(|segment| &segment.holdings) {
            let labels = [("ip", holding.vip.to_string())];
            ConstCounter::new(value(&holding.traffic)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    };
    counter(
        "layer2_requests_received",
        "ARP requests and neighbour solicitations for an address held here",
        |traffic| traffic.requests,
    )?;
    counter("layer2_responses_sent", "Answers sent for an address held here", |traffic| traffic.replies)?;
    counter("layer2_gratuitous_sent", "Unasked-for announcements sent for an address held here", |traffic| {
        traffic.announcements
    })
}
