//! The API side: what the API server says goes to the L2 thread, what the L2 thread does goes to logs, metrics
//! and the status writer.
//!
//! What must always hold: nothing here is needed for an address to stay announced or to fail over. Everything
//! waits for the API server, however long it is away; the L2 thread goes on with what it knows.

use std::{net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt as _};
use herald_l2::{Cause, Event, NodeId, NodeState, PeerId, ReleaseReason};
use herald_runtime::{
    Readiness,
    shutdown::CancellationToken,
    watch::{Change, watch},
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Api, Client, runtime::watcher};
use tokio::time::{Instant, sleep_until};

use crate::{
    lbip::{Lbip, LeanLbip, Nameless, SeenEntry, Specs},
    link::{Command, Controls, Report, Reports, Wake},
    metrics::Transitions,
    node::LeanNode,
    node_news::NodeNews,
    status::{Came, EARLIER_LIFE, Entry, Foreign, Plan},
    users::Users,
    writer::Board,
};

/// Objects per page of a list: bounds the memory of a list of 10,000.
const PAGE: u32 = 250;
/// Time until a list that lost more than half of its entries is confirmed by a second one (rule A42).
const CONFIRM_LIST_AFTER: Duration = Duration::from_secs(10);
/// The reason in readiness while the L2 thread can't use an interface.
const SOCKETS: &str = "sockets";
const NO_INTERFACE: &str = "no interface of this node is used: none has an address and a link, or --interfaces excludes all that have";

/// Why the process ends after its Node object was created anew (rule A1).
const OUTLIVED: &str = "the Node object was created anew, so that this node has another id: the speaker has to be started again, which its DaemonSet does";

type Changes<T> = Pin<Box<dyn Stream<Item = Change<T>> + Send>>;

/// What the Node object says: its id on the wire and what it allows.
pub type NodeChanges = Changes<(Option<NodeId>, NodeState)>;

/// Watches this node's own Node object.
pub fn watch_node(client: Client, name: &str, readiness: &Readiness) -> NodeChanges {
    let api: Api<LeanNode> = Api::all(client);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    watch(api, config, "nodes", readiness, |node| (node.id(), node.state())).boxed()
}

fn watch_lbips(client: Client, name: &str, readiness: &Readiness) -> Changes<Result<Lbip, Nameless>> {
    let api: Api<LeanLbip> = Api::all(client);
    let me = name.to_owned();
    let config = watcher::Config::default().page_size(PAGE);
    watch(api, config, "loadbalancerips", readiness, move |lbip| lbip.read(&me)).boxed()
}

/// All that the API side works with.
pub struct Observer<W> {
    client: Client,
    name: String,
    readiness: Readiness,
    controls: Controls<W>,
    reports: Reports,
    board: Board,
    metrics: Transitions,
    users: Users,
    specs: Specs,
    lbips: Changes<Result<Lbip, Nameless>>,
    nodes: NodeChanges,
    node_id: NodeId,
    node_state: NodeState,
    /// The Node object was created anew: this process speaks with an id that is no longer the node's.
    outlived: bool,
    settled_at: Instant,
    settled: bool,
    /// Interfaces without a socket.
    closed: Vec<Arc<str>>,
    /// When a shrunken list is to be confirmed.
    confirm_at: Option<Instant>,
}

impl<W> std::fmt::Debug for Observer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observer").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What an [`Observer`] is made of.
#[expect(missing_debug_implementations, reason = "kube's client has none")]
pub struct Parts<W> {
    /// The API client.
    pub client: Client,
    /// This node's name.
    pub name: String,
    /// Its id on the wire.
    pub node_id: NodeId,
    /// What its Node object said at the start.
    pub node_state: NodeState,
    /// Where missing things are shown.
    pub readiness: Readiness,
    /// To the L2 thread.
    pub controls: Controls<W>,
    /// From the L2 thread.
    pub reports: Reports,
    /// To the status writer.
    pub board: Board,
    /// Metrics of transitions.
    pub metrics: Transitions,
    /// To the metrics of addresses.
    pub users: Users,
}

impl<W: Wake> Observer<W> {
    /// Starts to watch; `nodes` is the watch that the node's id came from.
    pub fn new(parts: Parts<W>, nodes: NodeChanges) -> Self {
        let lbips = watch_lbips(parts.client.clone(), &parts.name, &parts.readiness);
        parts.readiness.missing(SOCKETS, NO_INTERFACE);
        Self {
            specs: Specs::new(&parts.name),
            client: parts.client,
            name: parts.name,
            readiness: parts.readiness,
            controls: parts.controls,
            reports: parts.reports,
            board: parts.board,
            metrics: parts.metrics,
            users: parts.users,
            lbips,
            nodes,
            node_id: parts.node_id,
            node_state: parts.node_state,
            outlived: false,
            settled_at: Instant::now() + EARLIER_LIFE,
            settled: false,
            closed: Vec::new(),
            confirm_at: None,
        }
    }

    /// Runs until `stop` is cancelled and the L2 thread has handed over, or until the L2 thread fails.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), String> {
        self.controls.send(Command::Node(self.node_state)).await;
        let mut stopping = false;
        loop {
            let confirm_at = self.confirm_at;
            if self.outlived && !stopping {
                stopping = true;
                self.controls.send(Command::Leave).await;
            }
            tokio::select! {
                report = self.reports.next() => match report {
                    Some(Report::Ended(Ok(()))) if self.outlived => return Err(OUTLIVED.to_owned()),
                    Some(Report::Ended(result)) => return result,
                    Some(report) => self.report(report).await,
                    None => return Err("the L2 thread is gone without a word: this is a bug, please report it".to_owned()),
                },
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.controls.send(Command::Shutdown).await;
                }
                Some(change) = self.lbips.next(), if !stopping => self.lbip(change).await,
                Some(change) = self.nodes.next(), if !stopping => self.node(change).await,
                () = sleep_until(self.settled_at), if !self.settled => {
                    self.settled = true;
                    self.board.update(Plan::settle);
                }
                () = until(confirm_at) => {
                    self.confirm_at = None;
                    tracing::info!("listing LoadBalancerIPs a second time");
                    self.lbips = watch_lbips(self.client.clone(), &self.name, &self.readiness);
                }
            }
        }
    }

    async fn lbip(&mut self, change: Change<Result<Lbip, Nameless>>) {
        let (specs, board, settled) = (&mut self.specs, &self.board, self.settled);
        let seen =
            |vip: IpAddr, entry: Option<&SeenEntry>| board.update(|plan| plan.seen(vip, entry, settled));
        match &change {
            Change::Replaced(list) => {
                for lbip in list.iter().flatten() {
                    seen(lbip.vip, lbip.own_entry.as_ref());
                }
            }
            Change::Applied(Ok(lbip)) => seen(lbip.vip, lbip.own_entry.as_ref()),
            Change::Deleted(Ok(lbip)) => board.update(|plan| plan.deleted(lbip.vip)),
            Change::Applied(Err(_)) | Change::Deleted(Err(_)) => {}
        }
        self.users.take(&change);
        let news = specs.take(change);
        self.metrics.addresses.set(i64::try_from(specs.count()).unwrap_or(i64::MAX));
        self.show_waiting();
        if let Some(news) = news {
            self.controls.send(Command::Specs(news)).await;
        }
    }

    async fn node(&mut self, change: Change<(Option<NodeId>, NodeState)>) {
        let (id, state) = match change {
            Change::Applied(node) => node,
            Change::Replaced(list) => {
                let Some(node) = list.into_iter().next() else { return self.node_is_gone() };
                node
            }
            Change::Deleted(_) => return self.node_is_gone(),
        };
        if id.is_some_and(|id| id != self.node_id) && !self.outlived {
            tracing::warn!(
                node = self.name,
                "the Node object was created anew: handing over, to begin anew with its id"
            );
            self.outlived = true;
        }
        if state != self.node_state {
            tracing::info!(
                cordoned = state.cordoned,
                excluded = state.excluded,
                out_of_service = state.out_of_service,
                "the Node object changed what this node may hold"
            );
            self.node_state = state;
            self.controls.send(Command::Node(state)).await;
        }
    }

    fn node_is_gone(&self) {
        tracing::warn!(node = self.name, "the Node object is gone: going on with what it said last");
    }

    async fn report(&mut self, report: Report) {
        if self.reports.lost() {
            self.controls.send(Command::Holdings).await;
        }
        match report {
            Report::Event { event, interface } => self.event(event, &interface),
            Report::Holdings(holdings) => {
                let now = Timestamp::now();
                self.board.update(|plan| {
                    plan.holds_exactly(holdings.into_iter().map(|(holding, age)| {
                        let age = SignedDuration::try_from(age).unwrap_or_default();
                        let since = now.checked_sub(age).unwrap_or(now);
                        (holding.vip, Entry { interface: holding.interface, mac: holding.mac, since })
                    }));
                });
            }
            Report::Listening(interface) => tracing::info!(%interface, "listening on interface"),
            Report::Sockets { open, failed } => self.sockets(open, &failed),
            Report::Trouble { interface, what, error } => tracing::warn!(%interface, error, "{what}"),
            Report::Ended(_) => {}
        }
        self.show_waiting();
    }

    /// Ready is who can hear and answer on every interface that it is to use, and on one at least.
    fn sockets(&mut self, open: usize, failed: &[(Arc<str>, String)]) {
        self.closed = failed.iter().map(|(name, _)| Arc::clone(name)).collect();
        if failed.is_empty() && open > 0 {
            return self.readiness.ready(SOCKETS);
        }
        if failed.is_empty() {
            return self.readiness.missing(SOCKETS, NO_INTERFACE);
        }
        let lines: Vec<String> = failed.iter().map(|(name, why)| format!("{name}: {why}")).collect();
        let lines = lines.join("; ");
        tracing::error!("can't use every interface: {lines}");
        self.readiness.missing(SOCKETS, lines);
    }

    fn show_waiting(&self) {
        let waiting = self.board.waiting();
        self.metrics.status_waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    fn event(&mut self, event: Event, interface: &Arc<str>) {
        if let Some(news) = NodeNews::of(&event, interface) {
            self.board.update(|plan| plan.node_news.push(Instant::now(), interface, news));
        }
        match event {
            Event::Claimed { vip, mac, epoch, cause, .. } => {
                tracing::info!(address = %vip, %interface, %mac, %epoch, cause = describe(&cause), "holding address");
                self.metrics.claimed(&cause);
                let entry = Entry { interface: Arc::clone(interface), mac, since: Timestamp::now() };
                let came = match cause {
                    Cause::Takeover { from, .. } | Cause::Override { from } => Came::From(called(&from)),
                    Cause::NeverHeld | Cause::Freed | Cause::Alone => Came::First,
                };
                self.board.update(|plan| plan.claimed(vip, entry, came));
            }
            Event::Released { vip, reason, .. } => {
                tracing::info!(address = %vip, %interface, ?reason, "address given up");
                self.board.update(|plan| match reason {
                    ReleaseReason::Shutdown => plan.left(vip),
                    _ => plan.released(vip),
                });
            }
            Event::Conflict { vip, mac, held, .. } => {
                tracing::warn!(address = %vip, %interface, %mac, held, "a foreign host answers for this address");
                self.metrics.conflict();
                let foreign =
                    Foreign { mac, interface: Arc::clone(interface), held, since: Timestamp::now() };
                self.board.update(|plan| plan.conflict(vip, foreign));
            }
            Event::ConflictOver { vip, .. } => {
                tracing::info!(address = %vip, %interface, "no foreign host answers for this address any longer");
                self.board.update(|plan| plan.conflict_over(vip));
            }
            Event::ListShrank { known, listed } => {
                tracing::warn!(
                    known,
                    listed,
                    "the list of LoadBalancerIPs lost more than half of its entries: withdrawing nothing until a second list says the same"
                );
                self.confirm_at = Some(Instant::now() + CONFIRM_LIST_AFTER);
            }
            Event::Active { .. } if self.closed.contains(interface) => {
                tracing::warn!(%interface, "holding nothing on this interface until its socket can be opened");
            }
            other => log(&other, interface),
        }
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Transitions that are of interest to a reader of the log only.
fn log(event: &Event, interface: &str) {
    match event {
        Event::PeerUp { peer, .. } => {
            tracing::info!(peer = called(peer), interface, mac = %peer.mac, "peer heard");
        }
        Event::Suspected { peer, silence, .. } => {
            tracing::debug!(peer = called(peer), interface, ?silence, "peer suspected");
        }
        Event::Unsuspected { peer, silence, .. } => {
            tracing::debug!(peer = called(peer), interface, ?silence, "suspected peer heard again");
        }
        Event::Grace { peer, hold, .. } => {
            tracing::info!(
                peer = called(peer),
                interface,
                ?hold,
                "peer's speaker is gone, its machine is not: its addresses stay where they are for now"
            );
        }
        Event::PeerDown { peer, how, .. } => {
            tracing::warn!(peer = called(peer), interface, ?how, "peer gone");
        }
        Event::DuplicateNode { mac, .. } => {
            tracing::error!(interface, %mac, "another machine speaks with this node's id: do two Nodes have one uid?");
        }
        Event::ForeignVersion { version, mac, .. } => {
            tracing::warn!(interface, version, %mac, "a speaker of another wire version is on this segment");
        }
        Event::SameSegment { used, idle } => {
            tracing::warn!(
                used,
                idle,
                interface,
                "two interfaces of this node are on one segment: the one called idle is not used"
            );
        }
        Event::PeersUnheard { unheard: true, .. } => {
            tracing::warn!(
                interface,
                "other nodes should be here and none is heard: does the network filter EtherType 0x88B5 or multicast?"
            );
        }
        Event::PeersUnheard { unheard: false, .. } => tracing::info!(interface, "other nodes are heard"),
        Event::Mute { mute: true, .. } => {
            tracing::warn!(interface, "nobody answers: this node may be cut off, and claims nothing");
        }
        Event::Mute { mute: false, .. } => tracing::info!(interface, "somebody answers again"),
        Event::Stalled { pause } => {
            tracing::warn!(
                ?pause,
                "the L2 loop stood still: beginning again as a newcomer (was the process stopped, or is the CPU limited?)"
            );
        }
        Event::Active { .. } => tracing::info!(interface, "listened long enough, taking part"),
        Event::NoInterface { vip } => {
            tracing::warn!(address = %vip, "no interface of this node can carry this address: none has it in its subnet, and there is no default route");
        }
        Event::Claimed { .. }
        | Event::Released { .. }
        | Event::Conflict { .. }
        | Event::ConflictOver { .. }
        | Event::ListShrank { .. }
        | Event::ShutdownComplete => {}
    }
}

fn called(peer: &PeerId) -> String {
    peer.name.as_ref().map_or_else(|| peer.node.to_string(), ToString::to_string)
}

fn describe(cause: &Cause) -> String {
    match cause {
        Cause::NeverHeld => "never held".to_owned(),
        Cause::Takeover { from, how, .. } => format!("taken over from {} ({how:?})", called(from)),
        Cause::Freed => "free".to_owned(),
        Cause::Override { from } => format!("the spec no longer allows {}", called(from)),
        Cause::Alone => "nobody answered for it".to_owned(),
    }
}

#[cfg(test)]
#[path = "observer_tests.rs"]
mod tests;
