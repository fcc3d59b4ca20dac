//! The writer against an API server that answers from a script.

use std::collections::VecDeque;

use herald_l2::MacAddr;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use kube::client::Body;

use super::*;
use crate::status::Entry;

#[derive(Clone, Debug, Default)]
struct Server {
    answers: Arc<Mutex<VecDeque<(u16, Value)>>>,
    seen: Arc<Mutex<Vec<(String, Value)>>>,
    done: Arc<Notify>,
    readiness: Readiness,
}

impl Server {
    /// A server that gives these answers in turn, and then none.
    fn new(answers: Vec<(u16, Value)>) -> Self {
        Self { answers: Arc::new(Mutex::new(answers.into())), ..Self::default() }
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                server.seen.lock().unwrap().push((format!("{} {}", head.method, head.uri), body));
                let answer = server.answers.lock().unwrap().pop_front();
                let Some((status, answer)) = answer else {
                    server.done.notify_one();
                    return std::future::pending().await;
                };
                let body = Body::from(serde_json::to_vec(&answer).unwrap());
                Ok::<_, tower::BoxError>(Response::builder().status(status).body(body).unwrap())
            }
        });
        Client::new(service, "default")
    }

    /// Lets a writer work until it asks for more than the script has, or has nothing more to write.
    async fn serve(&self, board: &Board) -> Vec<(String, Value)> {
        let writer = Writer::new(self.client(), "n1", board.clone(), self.readiness.clone());
        tokio::select! {
            () = writer.run() => unreachable!("it has no end"),
            () = self.done.notified() => {}
            // With the clock paused this comes when nothing else can happen.
            () = sleep(Duration::from_secs(3)) => {}
        }
        self.seen.lock().unwrap().clone()
    }
}

fn vip() -> IpAddr {
    IpAddr::from([10, 0, 0, 1])
}

fn claimed(came: Came) -> Board {
    let board = Board::default();
    let entry =
        Entry { interface: "eth0".into(), mac: MacAddr::new(2, 0, 0, 0, 0, 1), since: Timestamp::UNIX_EPOCH };
    board.update(|plan| plan.claimed(vip(), entry, came));
    board
}

fn object(version: &str, holders: &[&str]) -> (u16, Value) {
    let holders: Vec<Value> = holders
        .iter()
        .map(|node| json!({"node": node, "interface": "eth0", "mac": "02:00:00:00:00:02"}))
        .collect();
    let metadata = json!({"name": "10.0.0.1", "uid": "u1", "resourceVersion": version});
    (200, json!({"metadata": metadata, "spec": {"address": "10.0.0.1"}, "status": {"holders": holders}}))
}

fn failure(code: u16) -> (u16, Value) {
    (code, json!({"kind": "Status", "status": "Failure", "code": code, "message": "no", "reason": "no"}))
}

fn nodes(body: &Value) -> Vec<&str> {
    body["status"]["holders"]
        .as_array()
        .unwrap()
        .iter()
        .map(|holder| holder["node"].as_str().unwrap())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_first_claim_is_one_apply_of_the_own_entry_and_one_event() {
    let server = Server::new(vec![object("5", &["n1"]), (201, json!({"metadata": {}, "eventTime": null}))]);
    let seen = server.serve(&claimed(Came::First)).await;
    assert_eq!(seen.len(), 2, "{seen:#?}");
    let (apply, body) = &seen[0];
    assert!(apply.starts_with("PATCH /apis/heraldlb.io/v1beta1/loadbalancerips/10.0.0.1/status?"), "{apply}");
    assert!(apply.contains("fieldManager=herald-speaker-n1"), "{apply}");
    assert_eq!(nodes(body), ["n1"]);
    assert_eq!(body["metadata"].get("resourceVersion"), None, "the own entry needs no precondition");
    assert_eq!(seen[1].1["reason"], "Announced");
    assert_eq!(seen[1].1["regarding"]["uid"], "u1");
}

#[tokio::test(start_paused = true)]
async fn a_takeover_removes_the_dead_nodes_entry_if_nothing_was_written_in_between() {
    let server =
        Server::new(vec![object("5", &["n2", "n1"]), object("6", &["n1"]), (201, json!({"metadata": {}}))]);
    let seen = server.serve(&claimed(Came::From("n2".to_owned()))).await;
    let (_, removal) = &seen[1];
    assert_eq!(removal["metadata"]["resourceVersion"], "5");
    assert_eq!(nodes(removal), ["n1"]);
    assert_eq!(seen[2].1["reason"], "Moved");
    assert!(seen[2].1["note"].as_str().unwrap().contains("before: node n2"));
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_met_another_write_looks_again() {
    let server = Server::new(vec![
        object("5", &["n2", "n1"]),
        failure(409),
        object("7", &["n2", "n1"]),
        object("8", &["n1"]),
        (201, json!({"metadata": {}})),
    ]);
    let seen = server.serve(&claimed(Came::From("n2".to_owned()))).await;
    assert!(seen[2].0.starts_with("GET "), "{seen:#?}");
    assert_eq!(seen[3].1["metadata"]["resourceVersion"], "7");
}

#[tokio::test(start_paused = true)]
async fn a_claim_takes_back_a_conflict_that_an_earlier_holder_wrote_down() {
    let (status, mut conflict) = object("5", &["n1"]);
    conflict["status"]["conditions"] = json!([{"type": "Conflict"}, {"type": "Announced"}]);
    let server = Server::new(vec![(status, conflict), object("6", &["n1"]), (201, json!({"metadata": {}}))]);
    let seen = server.serve(&claimed(Came::First)).await;
    assert_eq!(seen[1].1["status"]["conditions"], json!([{"type": "Announced"}]));
    assert_eq!(nodes(&seen[1].1), ["n1"]);
}

#[tokio::test(start_paused = true)]
async fn a_release_leaves_the_own_entry_out_and_tells_nobody() {
    let board = claimed(Came::First);
    board.update(|plan| plan.released(vip()));
    let seen = Server::new(vec![object("5", &["n2"])]).serve(&board).await;
    assert_eq!(seen.len(), 1, "another node's entry is none of ours: {seen:#?}");
    assert_eq!(seen[0].1["status"], json!({}));
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_fails_is_asked_again_with_what_is_true_then() {
    let board = claimed(Came::First);
    let seen = Server::new(vec![failure(503), object("5", &["n1"]), (201, json!({"metadata": {}}))])
        .serve(&board)
        .await;
    assert_eq!(seen.len(), 3, "{seen:#?}");
    assert_eq!(nodes(&seen[1].1), ["n1"]);
    assert_eq!(board.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_missing_right_shows_in_readiness_until_it_is_granted() {
    let board = claimed(Came::First);
    let server = Server::new(vec![failure(403)]);
    server.serve(&board).await;
    assert!(
        server.readiness.reasons()[0].1.contains("loadbalancerips/status"),
        "{:?}",
        server.readiness.reasons()
    );
    let server = Server::new(vec![failure(403), object("5", &["n1"]), (201, json!({"metadata": {}}))]);
    server.serve(&board).await;
    assert!(server.readiness.is_ready());
}

#[tokio::test(start_paused = true)]
async fn one_refused_write_does_not_hold_up_the_others() {
    let board = claimed(Came::First);
    let other = IpAddr::from([10, 0, 0, 2]);
    let entry =
        Entry { interface: "eth0".into(), mac: MacAddr::new(2, 0, 0, 0, 0, 1), since: Timestamp::UNIX_EPOCH };
    board.update(|plan| plan.claimed(other, entry, Came::First));
    let seen = Server::new(vec![failure(422), failure(404)]).serve(&board).await;
    assert_eq!(seen.len(), 2, "{seen:#?}");
    assert_eq!(board.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_foreign_owner_becomes_a_condition_that_goes_with_the_conflict() {
    let board = Board::default();
    let mac = MacAddr::new(2, 0, 0, 0, 0, 9);
    let foreign = Foreign { mac, interface: "eth0".into(), held: false, since: Timestamp::UNIX_EPOCH };
    board.update(|plan| plan.conflict(vip(), foreign));
    let seen = Server::new(vec![object("5", &[]), (201, json!({"metadata": {}}))]).serve(&board).await;
    let condition = &seen[0].1["status"]["conditions"][0];
    assert_eq!((&condition["type"], &condition["status"]), (&json!("Conflict"), &json!("True")));
    assert!(condition["message"].as_str().unwrap().contains("02:00:00:00:00:09"));
    assert_eq!(seen[1].1["reason"], "AddressConflict");

    board.update(|plan| plan.conflict_over(vip()));
    let seen = Server::new(vec![object("6", &[])]).serve(&board).await;
    assert_eq!(seen[0].1["status"], json!({}));
}

#[tokio::test(start_paused = true)]
async fn what_concerns_the_node_is_an_event_that_kubectl_describe_node_finds() {
    let board = Board::default();
    let news = |reason| NodeNews { reason, note: "two Nodes have one uid".to_owned() };
    board.update(|plan| {
        plan.node_news.push(Instant::now(), &"eth0".into(), news("DuplicateNode"));
        plan.node_news.push(Instant::now(), &"eth1".into(), news("DuplicateNode"));
    });
    let seen = Server::new(vec![failure(503), (201, json!({"metadata": {}}))]).serve(&board).await;
    assert_eq!(seen.len(), 2, "each is tried once: {seen:#?}");
    let (request, event) = &seen[1];
    assert!(request.starts_with("POST /apis/events.k8s.io/v1/namespaces/default/events"), "{request}");
    assert_eq!((&event["type"], &event["reason"]), (&json!("Warning"), &json!("DuplicateNode")));
    assert_eq!(event["note"], "two Nodes have one uid");
    let regarding = json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "n1"});
    assert_eq!(event["regarding"], regarding);
}

#[test]
fn an_events_name_fits_whatever_it_is_about() {
    let name = event_name(&("a".repeat(199) + "." + &"b".repeat(53)), Timestamp::UNIX_EPOCH);
    assert_eq!(name, "a".repeat(199) + ".0");
    assert_eq!(event_name("10.0.0.1", Timestamp::UNIX_EPOCH), "10.0.0.1.0");
}

#[test]
fn a_long_node_name_gives_a_manager_that_the_api_server_takes() {
    assert_eq!(manager_of("n1"), "herald-speaker-n1");
    let (one, other) = (manager_of(&("a".repeat(250) + ".x")), manager_of(&("a".repeat(250) + ".y")));
    assert_eq!(one.len(), 128);
    assert_ne!(one, other);
}

#[tokio::test(start_paused = true)]
async fn requests_are_paced_after_the_first_burst() {
    let start = Instant::now();
    let mut pace = Pace::new(Duration::from_millis(200), 3);
    for _ in 0..8 {
        pace.turn().await;
    }
    assert_eq!(start.elapsed(), Duration::from_secs(1));
    assert!(!pace.try_turn());
}
