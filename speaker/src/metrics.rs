//! `herald_*` metrics. What the core counts is read from it at each scrape, so that the series of an address
//! or of a peer disappear with it; what only transitions tell (takeovers by cause, detection time) is kept here.

use std::{fmt, time::Duration};

use herald_l2::{Cause, Counters, Gone, Lifecycle, PeerState, SegmentSnapshot, Snapshot, Traffic};
use herald_runtime::metrics::{Declared, PROCESS};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::Registry,
};

use crate::{
    link::{Controls, Inspection, Wake},
    users::Users,
};

/// Longest wait for the L2 thread at a scrape; it answers within one turn of its loop.
const PATIENCE: Duration = Duration::from_millis(250);

const TAKEOVERS: Declared = Declared::counter(
    "herald_speaker_takeovers",
    &["cause"],
    "Addresses this node came to hold: never_held, holder_dead, holder_left, holder_restarted, freed, spec_changed, alone",
);
const DETECTION: Declared = Declared::histogram(
    "herald_speaker_detection_seconds",
    &[],
    "Silence of a holder until it was declared dead, per address taken over",
);
const TAKEOVER: Declared = Declared::histogram(
    "herald_speaker_takeover_seconds",
    &[],
    "From the last frame of a dead holder to this node's claim, per address taken over",
);
const CONFLICTS: Declared =
    Declared::counter("herald_speaker_conflicts", &[], "Foreign hosts found answering for an address");
const STATUS_WAITING: Declared = Declared::gauge(
    "herald_speaker_status_writes_waiting",
    &[],
    "Addresses whose status is still to be written",
);
const ADDRESSES: Declared =
    Declared::gauge("herald_speaker_addresses", &[], "LoadBalancerIPs this speaker knows");

/// Where the core keeps a number.
type Of<T> = fn(&T) -> u64;

/// What the core counts since its start.
const COUNTERS: [(Declared, Of<Counters>); 16] = [
    (count("herald_speaker_frames_received", "Frames that passed the socket filters"), |core| core.frames),
    (count("herald_speaker_hellos_accepted", "Frames of the speakers' protocol accepted"), |core| {
        core.hellos_accepted
    }),
    (count("herald_speaker_hellos_sent", "Frames of the speakers' protocol sent"), |core| core.hellos_sent),
    (count("herald_speaker_frames_malformed", "Frames that make no sense"), |core| core.malformed),
    (count("herald_speaker_arp_requests", "ARP requests for an address held here"), |core| core.arp_requests),
    (count("herald_speaker_nd_solicitations", "Neighbour solicitations for an address held here"), |core| {
        core.nd_solicitations
    }),
    (count("herald_speaker_replies", "ARP replies and neighbour advertisements sent as answers"), |core| {
        core.replies
    }),
    (
        count(
            "herald_speaker_deputy_replies",
            "Answers in the name of a holder whose speaker is away and whose machine is not",
        ),
        |core| core.deputy_replies,
    ),
    (
        count(
            "herald_speaker_gratuitous",
            "Gratuitous ARP, unsolicited advertisements and targeted retries sent",
        ),
        |core| core.announcements,
    ),
    (
        count(
            "herald_speaker_clients_acknowledged",
            "Clients and gateways that answered a targeted announcement",
        ),
        |core| core.acknowledged,
    ),
    (count("herald_speaker_yields", "Addresses given up because a greater claim was heard"), |core| {
        core.yields
    }),
    (count("herald_speaker_suspicions", "Peers suspected"), |core| core.suspicions),
    (count("herald_speaker_deaths", "Peers declared dead"), |core| core.deaths),
    (count("herald_speaker_graces", "Peers whose speaker went and whose machine went on"), |core| {
        core.graces
    }),
    (count("herald_speaker_stalls", "Times the L2 loop stood still for too long"), |core| core.stalls),
    (count("herald_speaker_table_full", "Entries turned away because a table was full"), |core| {
        core.table_full
    }),
];

const fn count(name: &'static str, help: &'static str) -> Declared {
    Declared::counter(name, &[], help)
}

const REFUSED: Declared = Declared::counter(
    "herald_speaker_frames_refused",
    &["reason"],
    "Frames of the speakers' protocol refused: malformed, version, foreign_cluster, own_id, unknown_key, forged, replayed, unknown_boot",
);
const ACTIVE: Declared = Declared::gauge(
    "herald_speaker_segment_active",
    &["interface"],
    "1: claims and answers on this interface; 0: still listening or leaving",
);
const ABLE: Declared =
    Declared::gauge("herald_speaker_segment_able", &["interface"], "1: has a link and can prove it");
const UNHEARD: Declared = Declared::gauge(
    "herald_speaker_segment_peers_unheard",
    &["interface"],
    "1: other nodes should be there and none is heard",
);
const PEER_UP: Declared = Declared::gauge(
    "herald_speaker_peer_up",
    &["peer", "interface"],
    "1: the peer is heard; 0: suspected, gone, or only its machine is there",
);
const LOSS: Declared = Declared::gauge(
    "herald_speaker_hello_loss_ratio",
    &["peer", "interface"],
    "Measured loss of a peer's hellos, over the last 64",
);
const HEARD: Declared =
    Declared::counter("herald_speaker_peer_hellos_heard", &["peer", "interface"], "Hellos heard from a peer");
const MISSED: Declared = Declared::counter(
    "herald_speaker_peer_hellos_missed",
    &["peer", "interface"],
    "Hellos missed from a peer",
);
const HOLDINGS: Declared = Declared::gauge("herald_speaker_holdings", &[], "Addresses held by this node");
const ANNOUNCED: Declared = Declared::gauge(
    "herald_speaker_announced",
    &["service", "ip", "node", "interface", "protocol"],
    "1 for each Service (namespace/name) and address that this node answers for",
);
const L2_REQUESTS: Declared = Declared::counter(
    "herald_layer2_requests_received",
    &["ip"],
    "ARP requests and neighbour solicitations for an address held here",
);
const L2_RESPONSES: Declared =
    Declared::counter("herald_layer2_responses_sent", &["ip"], "Answers sent for an address held here");
const L2_GRATUITOUS: Declared = Declared::counter(
    "herald_layer2_gratuitous_sent",
    &["ip"],
    "Unasked-for announcements sent for an address held here",
);

/// Everything that the speaker's `/metrics` may show.
pub fn declared() -> Vec<Declared> {
    let own = [
        TAKEOVERS,
        DETECTION,
        TAKEOVER,
        CONFLICTS,
        STATUS_WAITING,
        ADDRESSES,
        HOLDINGS,
        ANNOUNCED,
        L2_REQUESTS,
        L2_RESPONSES,
        L2_GRATUITOUS,
        ACTIVE,
        ABLE,
        UNHEARD,
        PEER_UP,
        LOSS,
        HEARD,
        MISSED,
        REFUSED,
    ];
    own.into_iter().chain(COUNTERS.map(|(declared, _)| declared)).chain(PROCESS).collect()
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabel {
    cause: &'static str,
}

/// Buckets of what takes about a tenth of a second by default and a hundredth in the fast profile.
const SECONDS: [f64; 13] = [0.02, 0.04, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4, 0.6, 1.0, 3.0];

/// Metrics of transitions. Clones share them.
#[derive(Clone, Debug)]
pub struct Transitions {
    takeovers: Family<CauseLabel, Counter>,
    detection: Histogram,
    takeover: Histogram,
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
            detection: Histogram::new(SECONDS),
            takeover: Histogram::new(SECONDS),
            conflicts: Counter::default(),
            status_waiting: Gauge::default(),
            addresses: Gauge::default(),
        };
        TAKEOVERS.register(registry, metrics.takeovers.clone());
        DETECTION.register(registry, metrics.detection.clone());
        TAKEOVER.register(registry, metrics.takeover.clone());
        CONFLICTS.register(registry, metrics.conflicts.clone());
        STATUS_WAITING.register(registry, metrics.status_waiting.clone());
        ADDRESSES.register(registry, metrics.addresses.clone());
        metrics
    }

    /// An address was claimed.
    pub fn claimed(&self, cause: &Cause) {
        let label = match cause {
            Cause::NeverHeld => "never_held",
            Cause::Takeover { how: Gone::Dead { .. }, .. } => "holder_dead",
            Cause::Takeover { how: Gone::Left, .. } => "holder_left",
            Cause::Takeover { how: Gone::Overdue, .. } => "holder_overdue",
            Cause::Takeover { how: Gone::Replaced, .. } => "holder_restarted",
            Cause::Freed => "freed",
            Cause::Override { .. } => "spec_changed",
            Cause::Alone => "alone",
        };
        self.takeovers.get_or_create(&CauseLabel { cause: label }).inc();
        if let Cause::Takeover { how: Gone::Dead { silence, .. }, waited, .. } = cause {
            self.detection.observe(silence.as_secs_f64());
            self.takeover.observe((*silence + *waited).as_secs_f64());
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
    users: Users,
}

impl<W> CoreCollector<W> {
    /// A collector for the core behind `controls`.
    pub fn new(controls: Controls<W>, node: &str, users: Users) -> Self {
        Self { controls, node: node.to_owned(), users }
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
        encode(&mut encoder, &inspection, &self.node, &self.users)
    }
}

fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    inspection: &Inspection,
    node: &str,
    users: &Users,
) -> fmt::Result {
    counters(encoder, &inspection.counters)?;
    segments(encoder, &inspection.snapshot)?;
    peers(encoder, &inspection.snapshot)?;
    holdings(encoder, &inspection.snapshot, node, users)
}

fn counters(encoder: &mut DescriptorEncoder<'_>, counters: &Counters) -> fmt::Result {
    for (declared, value) in &COUNTERS {
        ConstCounter::new(value(counters)).encode(declared.begin(encoder)?)?;
    }
    let refused = &counters.refused;
    let mut family = REFUSED.begin(encoder)?;
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
    let mut gauge = |declared: Declared, value: fn(&SegmentSnapshot) -> bool| {
        let mut family = declared.begin(encoder)?;
        for segment in &snapshot.segments {
            let labels = [("interface", &*segment.interface)];
            ConstGauge::new(i64::from(value(segment))).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    };
    gauge(ACTIVE, |segment| segment.state == Lifecycle::Active)?;
    gauge(ABLE, |segment| segment.able)?;
    gauge(UNHEARD, |segment| segment.peers_unheard)
}

fn peers(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let all = || {
        snapshot.segments.iter().flat_map(|segment| {
            segment.peers.iter().map(move |peer| {
                let name = peer.name.as_ref().map_or_else(|| peer.node.to_string(), ToString::to_string);
                (peer, [("peer", name), ("interface", segment.interface.to_string())])
            })
        })
    };
    let mut family = PEER_UP.begin(encoder)?;
    for (peer, labels) in all() {
        let up = !matches!(peer.state, PeerState::Suspected | PeerState::Grace | PeerState::Gone);
        ConstGauge::new(i64::from(up)).encode(family.encode_family(&labels)?)?;
    }
    let mut family = LOSS.begin(encoder)?;
    for (peer, labels) in all() {
        ConstGauge::new(peer.loss).encode(family.encode_family(&labels)?)?;
    }
    let mut family = HEARD.begin(encoder)?;
    for (peer, labels) in all() {
        ConstCounter::new(peer.hellos.0).encode(family.encode_family(&labels)?)?;
    }
    let mut family = MISSED.begin(encoder)?;
    for (peer, labels) in all() {
        ConstCounter::new(peer.hellos.1).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn holdings(
    encoder: &mut DescriptorEncoder<'_>,
    snapshot: &Snapshot,
    node: &str,
    users: &Users,
) -> fmt::Result {
    let held = || snapshot.segments.iter().flat_map(|segment| &segment.holdings);
    let count = i64::try_from(held().count()).unwrap_or(i64::MAX);
    ConstGauge::new(count).encode(HOLDINGS.begin(encoder)?)?;
    let mut family = ANNOUNCED.begin(encoder)?;
    for (holding, service) in
        held().flat_map(|holding| users.of(holding.vip).into_iter().map(move |service| (holding, service)))
    {
        let labels = [
            ("service", service),
            ("ip", holding.vip.to_string()),
            ("node", node.to_owned()),
            ("interface", holding.interface.to_string()),
            ("protocol", "layer2".to_owned()),
        ];
        ConstGauge::new(1_i64).encode(family.encode_family(&labels)?)?;
    }
    traffic(encoder, snapshot)
}

fn traffic(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let mut counter = |declared: Declared, value: Of<Traffic>| {
        let mut family = declared.begin(encoder)?;
        for holding in snapshot.segments.iter().flat_map(|segment| &segment.holdings) {
            let labels = [("ip", holding.vip.to_string())];
            ConstCounter::new(value(&holding.traffic)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    };
    counter(L2_REQUESTS, |traffic| traffic.requests)?;
    counter(L2_RESPONSES, |traffic| traffic.replies)?;
    counter(L2_GRATUITOUS, |traffic| traffic.announcements)
}

#[cfg(test)]
pub(crate) mod tests;
