//! What the core asks for and reports.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use herald_wire::{Boot, Epoch, MacAddr, NodeId, Revision};

use crate::config::NodeName;
use crate::time::Instant;

/// Something the driver must do.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send this Ethernet frame as it is. A full queue may lose it: everything is repeated.
    Transmit {
        /// Where.
        ifindex: u32,
        /// From the destination address on.
        bytes: Vec<u8>,
    },
    /// Join a solicited-node multicast group so that switches with MLD snooping forward to this port. Joined for
    /// every IPv6 address that this node may come to hold, not only for those held: a takeover waits for no switch.
    JoinGroup {
        /// Where.
        ifindex: u32,
        /// `ff02::1:ffXX:XXXX`
        group: Ipv6Addr,
    },
    /// Leave it again.
    LeaveGroup {
        /// Where.
        ifindex: u32,
        /// `ff02::1:ffXX:XXXX`
        group: Ipv6Addr,
    },
    /// [`crate::Core::interest`] of this interface has changed: fit the socket filter to it.
    Interest {
        /// Where.
        ifindex: u32,
    },
    /// Something happened that people or the API want to know.
    Event(Event),
}

/// A transition worth a log line, a metric or a status write. Never one per frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// This node holds the address from now on.
    Claimed {
        /// The address.
        vip: IpAddr,
        /// On which interface.
        ifindex: u32,
        /// The MAC address that clients get.
        mac: MacAddr,
        /// The claim's epoch.
        epoch: Epoch,
        /// The spec's revision it was claimed under.
        revision: Revision,
        /// Why.
        cause: Cause,
    },
    /// This node holds the address no longer.
    Released {
        /// The address.
        vip: IpAddr,
        /// On which interface it was held.
        ifindex: u32,
        /// Why.
        reason: ReleaseReason,
    },
    /// A peer proved who it is (rule A7).
    PeerUp {
        /// Where.
        ifindex: u32,
        /// Who.
        peer: PeerId,
    },
    /// A peer has been silent for longer than it promised (rule A18).
    Suspected {
        /// Where.
        ifindex: u32,
        /// Who.
        peer: PeerId,
        /// For how long.
        silence: Duration,
    },
    /// A suspected peer was heard again.
    Unsuspected {
        /// Where.
        ifindex: u32,
        /// Who.
        peer: PeerId,
        /// How long it had been silent.
        silence: Duration,
    },
    /// A peer's speaker is dead or said that it restarts, and its kernel answers: what it held stays its own, for so
    /// long at most (rule A23).
    Grace {
        /// Where.
        ifindex: u32,
        /// Who.
        peer: PeerId,
        /// For how long.
        hold: Duration,
    },
    /// A peer is gone (rules A21, A23).
    PeerDown {
        /// Where.
        ifindex: u32,
        /// Who.
        peer: PeerId,
        /// Dead or left.
        how: Gone,
    },
    /// Somebody outside the cluster answers for an address (rules A33, A47).
    Conflict {
        /// The address.
        vip: IpAddr,
        /// Where.
        ifindex: u32,
        /// Who answered.
        mac: MacAddr,
        /// Whether this node holds the address and defends it, or found out before its claim and left it alone.
        held: bool,
    },
    /// The conflict has not been seen for a minute, or nobody answered the probes before a claim any more.
    ConflictOver {
        /// The address.
        vip: IpAddr,
        /// Where.
        ifindex: u32,
    },
    /// Another machine speaks with this node's id (rule A5): two Nodes with one UID, or a cloned disk.
    DuplicateNode {
        /// Where.
        ifindex: u32,
        /// The other's MAC address.
        mac: MacAddr,
    },
    /// A speaker of another wire version is on the segment (rule A9).
    ForeignVersion {
        /// Where.
        ifindex: u32,
        /// Its version.
        version: u8,
        /// Its MAC address.
        mac: MacAddr,
    },
    /// Two interfaces of this node are on one segment; `idle` is not used (rule A52).
    SameSegment {
        /// The interface that goes on.
        used: u32,
        /// The one that stays silent.
        idle: u32,
    },
    /// Other nodes should be here, yet none is heard (rule A48); or they are again.
    PeersUnheard {
        /// Where.
        ifindex: u32,
        /// Whether that is so from now on.
        unheard: bool,
    },
    /// This node can't prove that it is connected (rule A26), or can again.
    Mute {
        /// Where.
        ifindex: u32,
        /// Whether that is so from now on.
        mute: bool,
    },
    /// The loop did not turn for so long that this node starts again as a newcomer (rule A24).
    Stalled {
        /// For how long.
        pause: Duration,
    },
    /// LISTEN is over: this node may claim (rule A24).
    Active {
        /// Where.
        ifindex: u32,
    },
    /// Nobody of this node's interfaces can carry the address (rule A50).
    NoInterface {
        /// The address.
        vip: IpAddr,
    },
    /// A list of specs lost more than half of them; they stay until a second list says the same (rule A42).
    ListShrank {
        /// How many there were.
        known: usize,
        /// How many the list has.
        listed: usize,
    },
    /// Everything is handed over, the last frame has been put out: stop.
    ShutdownComplete,
}

/// Who a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerId {
    /// Its id.
    pub node: NodeId,
    /// Its name, once it has told it.
    pub name: Option<NodeName>,
    /// Its current start.
    pub boot: Boot,
    /// Its MAC address.
    pub mac: MacAddr,
}

/// Why a peer is gone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gone {
    /// Silent, with enough evidence (rule A21).
    Dead {
        /// How long nothing was heard.
        silence: Duration,
        /// ln of the odds that loss alone explains the silence; 32 and more means dead.
        evidence: f64,
        /// The loss measured before, 0 to 0.6.
        loss: f64,
    },
    /// It said goodbye (rule A44).
    Left,
    /// It said that it would be back, and was not in time, or its machine died meanwhile (rule A23).
    Overdue,
    /// A newer start of the same node took its place (rule A7).
    Replaced,
}

/// Why an address was claimed.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// Nobody held it, as far as anybody knows.
    NeverHeld,
    /// Its holder died or left.
    Takeover {
        /// The holder before.
        from: PeerId,
        /// How it went.
        how: Gone,
        /// From then to the claim.
        waited: Duration,
    },
    /// Held before, by a node that gave it up, is no longer known, or by this one.
    Freed,
    /// The holder's claim is of an older spec that named it; the newer one does not (rule A36).
    Override {
        /// The holder before.
        from: PeerId,
    },
    /// Nobody answered for it while hellos are filtered (rule A48).
    Alone,
}

/// Why an address was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseReason {
    /// A greater claim was heard (rule A37).
    Yielded {
        /// Whose.
        to: NodeId,
    },
    /// Its spec is gone (rule A42).
    SpecDeleted,
    /// Its spec, the node's labels or the interfaces exclude this node (rules A29, A42).
    Ineligible,
    /// The VIP's interface is another one now, or gone (rule A50).
    InterfaceChanged,
    /// The loop had stopped (rule A24).
    Stalled,
    /// Another machine answers for it and this node lost (rule A49).
    Conflict,
    /// The process ends (rule A44).
    Shutdown,
}

/// Whether the turn may go on as usual; see [`crate::Core::begin_turn`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "frames that queued up during a stall must be thrown away"]
pub enum Turn {
    /// Go on.
    Continue,
    /// The loop stood still for too long (rule A24): read every socket empty and throw the frames away.
    Stalled,
}

/// One address held by this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The address.
    pub vip: IpAddr,
    /// On which interface.
    pub ifindex: u32,
    /// The interface's name.
    pub interface: Arc<str>,
    /// The MAC address that clients get.
    pub mac: MacAddr,
    /// The claim's epoch.
    pub epoch: Epoch,
    /// The spec's revision it is held under.
    pub revision: Revision,
    /// Since when.
    pub since: Instant,
    /// What it has cost so far.
    pub traffic: Traffic,
}

/// Frames for one address, since this speaker started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// ARP requests and neighbour solicitations while it was held here.
    pub requests: u64,
    /// Answers to them.
    pub replies: u64,
    /// Gratuitous ARP, unsolicited advertisements, targeted retries.
    pub announcements: u64,
}
