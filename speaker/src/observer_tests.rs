//! The observer without an API server: what the L2 thread reports, and what readiness and the Node's events say of it.

use herald_l2::MacAddr;
use prometheus_client::registry::Registry;

use super::*;
use crate::{link::link, node_news::NodeNews};

#[derive(Clone)]
struct NoThread;

impl Wake for NoThread {
    fn wake(&self) {}
}

fn observer() -> Observer<NoThread> {
    let never = tower::service_fn(|_: http::Request<kube::client::Body>| {
        std::future::pending::<Result<http::Response<kube::client::Body>, tower::BoxError>>()
    });
    let (controls, reports, _) = link(NoThread);
    let parts = Parts {
        client: Client::new(never, "default"),
        name: "n1".to_owned(),
        node_id: NodeId(1),
        node_state: NodeState::default(),
        readiness: Readiness::new(),
        controls,
        reports,
        board: Board::default(),
        metrics: Transitions::new(&mut Registry::default()),
        users: Users::default(),
    };
    Observer::new(parts, futures::stream::pending().boxed())
}

/// What /readyz says of sockets.
fn said(observer: &Observer<NoThread>) -> Option<String> {
    observer.readiness.reasons().into_iter().find(|(name, _)| name == SOCKETS).map(|(_, why)| why)
}

#[tokio::test(start_paused = true)]
async fn a_speaker_without_sockets_on_every_interface_that_it_is_to_use_is_not_ready_and_says_why() {
    let mut observer = observer();
    let no_interface = Some(NO_INTERFACE.to_owned());
    assert_eq!(said(&observer), no_interface, "nothing is open at the start");
    let mut reported = async |open, failed: &[(&str, &str)]| {
        let failed = failed.iter().map(|(name, why)| (Arc::from(*name), (*why).to_owned())).collect();
        observer.report(Report::Sockets { open, failed }).await;
        said(&observer)
    };
    assert_eq!(reported(2, &[]).await, None);
    let why = reported(1, &[("eth1", "Operation not permitted")]).await;
    assert_eq!(why.as_deref(), Some("eth1: Operation not permitted"), "one that works is not enough");
    let why = reported(0, &[("eth0", "no"), ("eth1", "never")]).await;
    assert_eq!(why.as_deref(), Some("eth0: no; eth1: never"));
    assert_eq!(reported(1, &[]).await, None);
    assert_eq!(reported(0, &[]).await, no_interface);
}

#[tokio::test(start_paused = true)]
async fn what_keeps_nodes_from_hearing_each_other_is_told_of_the_node_and_not_again_each_minute() {
    let mut observer = observer();
    let mac = MacAddr::new(2, 0, 0, 0, 0, 9);
    let (eth0, eth1): (Arc<str>, Arc<str>) = ("eth0".into(), "eth1".into());
    let mut told = |event, interface| {
        observer.event(event, interface);
        observer.board.update(|plan| plan.node_news.pop()).map(|NodeNews { reason, note }| {
            assert!(note.contains(&**interface), "{note}");
            reason
        })
    };
    let duplicate = || Event::DuplicateNode { ifindex: 2, mac };
    let unheard = |unheard| Event::PeersUnheard { ifindex: 2, unheard };
    assert_eq!(told(duplicate(), &eth0), Some("DuplicateNode"));
    assert_eq!(told(Event::ForeignVersion { ifindex: 2, version: 2, mac }, &eth0), Some("OtherWireVersion"));
    assert_eq!(told(unheard(true), &eth0), Some("PeersUnheard"));
    assert_eq!(told(unheard(false), &eth0), None);
    assert_eq!(told(duplicate(), &eth1), Some("DuplicateNode"), "another interface is another story");
    tokio::time::advance(Duration::from_mins(1)).await;
    assert_eq!(told(duplicate(), &eth0), None);
    tokio::time::advance(Duration::from_mins(10)).await;
    assert_eq!(told(duplicate(), &eth0), Some("DuplicateNode"));
}
