//! The core's insides as plain data, for /debug, /metrics and status. Built on demand, never on the hot path.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use herald_wire::hello::State;
use herald_wire::{Boot, Epoch, MacAddr, NodeId};

use crate::config::NodeName;
use crate::context::Context;
use crate::output::Holding;
use crate::ownership::Eligibility;
use crate::peers::{Life, Peer, Status};
use crate::segment::Segment;

/// Everything at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// One per interface in use, in order of ifindex.
    pub segments: Vec<SegmentSnapshot>,
    /// How many specs are known.
    pub specs: usize,
    /// Addresses for which no interface is suitable (rule A50).
    pub without_interface: Vec<IpAddr>,
}

/// One interface.
#[derive(Clone, Debug)]
pub struct SegmentSnapshot {
    /// The kernel's index.
    pub ifindex: u32,
    /// `eth0`
    pub interface: Arc<str>,
    /// Its MAC address.
    pub mac: MacAddr,
    /// This speaker's state here.
    pub state: Lifecycle,
    /// Can't prove that it is connected (rule A26).
    pub mute: bool,
    /// May claim: carrier, and not mute for long.
    pub able: bool,
    /// The interval of its own hellos now.
    pub interval: Duration,
    /// Other nodes should be there and none is heard (rule A48).
    pub peers_unheard: bool,
    /// Every node heard lately, in order of id.
    pub peers: Vec<PeerSnapshot>,
    /// What is held here, in order of address.
    pub holdings: Vec<Holding>,
    /// What somebody else holds, or nobody, in order of address.
    pub others: Vec<OtherVip>,
}

/// LISTEN, ACTIVE or LEAVING, as told in hellos (rule A10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// New here: hears, says hello, neither answers nor claims.
    Listen,
    /// At work.
    Active,
    /// Handing over.
    Leaving,
}

/// One peer.
#[derive(Clone, Debug)]
pub struct PeerSnapshot {
    /// Its id.
    pub node: NodeId,
    /// Its name, once told.
    pub name: Option<NodeName>,
    /// Its current start.
    pub boot: Boot,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its condition as seen from here.
    pub state: PeerState,
    /// Since it was last heard.
    pub silence: Duration,
    /// What it promised for its hellos.
    pub interval: Duration,
    /// Measured loss of its hellos, 0 to 0.6 (rule A17).
    pub loss: f64,
    /// ln of the odds against loss alone (rule A21); 0 while it is heard.
    pub evidence: f64,
    /// How many addresses it claims.
    pub claims: usize,
    /// Hellos heard and missed since it is known.
    pub hellos: (u64, u64),
}

/// How a peer is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// Heard, LISTEN.
    Listening,
    /// Heard, ACTIVE.
    Active,
    /// Heard, LEAVING.
    Leaving,
    /// Silent for longer than promised (rule A18).
    Suspected,
    /// Its speaker is silent, its kernel answers (rule A23).
    Grace,
    /// Dead or left, remembered for a minute.
    Gone,
}

/// An address that this node does not hold.
#[derive(Clone, Debug)]
pub struct OtherVip {
    /// The address.
    pub vip: IpAddr,
    /// Who holds it in this node's view; `None`: free.
    pub holder: Option<NodeId>,
    /// The highest epoch seen.
    pub epoch: Epoch,
    /// May this node take it (rule A29)?
    pub eligible: bool,
    /// A foreign machine answers for it.
    pub conflict: Option<MacAddr>,
}

/// What has been counted since the start. Gauges are in [`Snapshot`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames handed in.
    pub frames: u64,
    /// Hello-protocol frames accepted.
    pub hellos_accepted: u64,
    /// Hello-protocol frames sent.
    pub hellos_sent: u64,
    /// Hello-protocol frames refused, by reason.
    pub refused: Refusals,
    /// ARP requests seen for an address held here.
    pub arp_requests: u64,
    /// Neighbour solicitations seen for an address held here.
    pub nd_solicitations: u64,
    /// ARP replies and neighbour advertisements sent as answers.
    pub replies: u64,
    /// The same, in the name of a holder whose speaker is away (rule A45).
    pub deputy_replies: u64,
    /// Gratuitous ARP, unsolicited advertisements and targeted retries sent.
    pub announcements: u64,
    /// Frames of known protocols that make no sense.
    pub malformed: u64,
    /// Frames that ask for nothing here.
    pub ignored: u64,
    /// Targeted announcements that were answered: clients and gateways that are known to have the new address.
    pub acknowledged: u64,
    /// Claims made.
    pub claims: u64,
    /// Claims that took over from a dead or left holder.
    pub takeovers: u64,
    /// Claims given up because a greater one was heard.
    pub yields: u64,
    /// Peers suspected.
    pub suspicions: u64,
    /// Peers declared dead.
    pub deaths: u64,
    /// Peers whose speaker went and whose machine goes on (rule A23).
    pub graces: u64,
    /// Challenges sent (rule A7).
    pub challenges: u64,
    /// Times the loop stood still for too long (rule A24).
    pub stalls: u64,
    /// Messages that could not be sealed: no key.
    pub unsealed: u64,
    /// Entries turned away because a table was full.
    pub table_full: u64,
}

/// Why hello-protocol frames were refused (rule A5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Too short, wrong magic, lengths that do not add up.
    pub malformed: u64,
    /// Another version (rule A9).
    pub version: u64,
    /// Another cluster's.
    pub foreign_cluster: u64,
    /// This node's own id.
    pub own_id: u64,
    /// A key that this node does not have.
    pub unknown_key: u64,
    /// The seal is wrong: forged or damaged.
    pub forged: u64,
    /// Seen before or too old.
    pub replayed: u64,
    /// From a start that has not proved itself yet (rule A6).
    pub unknown_boot: u64,
}

impl Segment {
    pub(crate) fn holdings(&self) -> impl Iterator<Item = Holding> + '_ {
        // One name for thousands of addresses.
        let interface: Arc<str> = self.iface.name.as_str().into();
        self.vips.iter().filter_map(move |(_, vip)| {
            let mine = vip.mine?;
            Some(Holding {
                vip: vip.addr,
                ifindex: self.iface.ifindex,
                interface: Arc::clone(&interface),
                mac: self.iface.mac,
                epoch: mine.epoch,
                revision: mine.revision,
                since: mine.since,
                traffic: vip.traffic,
            })
        })
    }

    pub(crate) fn snapshot(&self, cx: &Context) -> SegmentSnapshot {
        let mut holdings: Vec<Holding> = self.holdings().collect();
        holdings.sort_by_key(|holding| holding.vip);
        let mut others: Vec<OtherVip> = self
            .vips
            .iter()
            .filter(|(_, vip)| vip.mine.is_none())
            .map(|(_, vip)| OtherVip {
                vip: vip.addr,
                holder: self.rivals(vip).0.map(|rival| rival.node),
                epoch: vip.max_epoch,
                eligible: vip.eligibility == Eligibility::Eligible,
                conflict: vip.watch.as_ref().and_then(|watch| watch.conflict).map(|conflict| conflict.mac),
            })
            .collect();
        others.sort_by_key(|other| other.vip);
        SegmentSnapshot {
            ifindex: self.iface.ifindex,
            interface: self.iface.name.as_str().into(),
            mac: self.iface.mac,
            state: self.state,
            mute: self.is_mute(),
            able: self.is_able(),
            interval: self.hello_interval(cx),
            peers_unheard: self.peers_unheard(),
            peers: self.peer_snapshots(cx),
            holdings,
            others,
        }
    }

    fn peer_snapshots(&self, cx: &Context) -> Vec<PeerSnapshot> {
        // One walk over the addresses for all peers: this is on the thread that answers clients.
        let mut claims: BTreeMap<(NodeId, Life), usize> = BTreeMap::new();
        for claim in self.vips.iter().flat_map(|(_, vip)| &vip.claims) {
            *claims.entry((claim.node, claim.life)).or_default() += 1;
        }
        let claims = |peer: &Peer| claims.get(&(peer.node, peer.life())).copied().unwrap_or_default();
        self.peers.iter().map(|peer| peer_snapshot(cx, peer, claims(peer))).collect()
    }
}

fn peer_snapshot(cx: &Context, peer: &Peer, claims: usize) -> PeerSnapshot {
    let loss = peer.loss.estimate();
    let (state, evidence) = match (&peer.status, peer.state) {
        (Status::Gone { .. }, _) => (PeerState::Gone, 0.0),
        (Status::Grace(_), _) => (PeerState::Grace, 0.0),
        (Status::Suspected(suspicion), _) => {
            (PeerState::Suspected, suspicion.evidence(peer.interval, cx.f(), loss, true))
        }
        (Status::Alive, State::Listen | State::Other(_)) => (PeerState::Listening, 0.0),
        (Status::Alive, State::Active) => (PeerState::Active, 0.0),
        (Status::Alive, State::Leaving) => (PeerState::Leaving, 0.0),
    };
    PeerSnapshot {
        node: peer.node,
        name: peer.name.clone(),
        boot: peer.boot,
        mac: peer.mac,
        state,
        silence: cx.now.since(peer.last_heard),
        interval: peer.interval,
        loss,
        evidence,
        claims,
        hellos: (peer.loss.heard, peer.loss.missed),
    }
}
