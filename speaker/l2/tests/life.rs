//! A cluster's life on a clean LAN: claims, failover, return, leaving.

mod lan;

use std::time::Duration;

use herald_l2::{Cause, Event, Gone, Input};
use lan::{Lan, spec};

const VIP: &str = "10.0.1.1";

fn started(nodes: usize) -> Lan {
    let mut lan = Lan::new(nodes);
    lan.run_for(1_500);
    lan.spec_everywhere(&spec(VIP, 1));
    lan.run_for(500);
    lan
}

#[test]
fn exactly_one_node_claims_a_new_address() {
    let lan = started(3);
    lan.holder(VIP);
    assert_eq!(lan.claims().len(), 1, "{:?}", lan.claims());
}

#[test]
fn a_dead_holder_is_replaced_within_122_ms_of_its_last_hello() {
    let mut figures = Vec::new();
    for delay in 0..40 {
        let mut lan = started(3);
        lan.run_for(2_000 + delay);
        let holder = lan.holder(VIP);
        let died = lan.now;
        lan.kill(holder);
        lan.run_for(400);
        let successor = lan.holder(VIP);
        assert_ne!(successor, holder);
        let (claimed, _, _) = *lan.claims().last().unwrap();
        let takes_over = lan.log.iter().any(|(_, node, event)| {
            *node == successor
                && matches!(
                    event,
                    Event::Claimed { cause: Cause::Takeover { how: Gone::Dead { .. }, .. }, .. }
                )
        });
        assert!(takes_over);
        figures.push(claimed.since(died));
    }
    figures.sort_unstable();
    let (p50, worst) = (figures[figures.len() / 2], figures[figures.len() - 1]);
    println!("crash to claim on a clean LAN: p50 {p50:?}, worst {worst:?}");
    assert!(p50 >= Duration::from_millis(90) && p50 <= Duration::from_millis(110), "p50 {p50:?}");
    assert!(worst <= Duration::from_millis(122), "worst {worst:?}");
}

#[test]
fn a_node_that_returns_takes_nothing() {
    let mut lan = started(3);
    let first = lan.holder(VIP);
    lan.kill(first);
    lan.run_for(1_000);
    let second = lan.holder(VIP);
    lan.restart(first, 99);
    lan.spec_everywhere(&spec(VIP, 1));
    lan.run_for(5_000);
    assert_eq!(lan.holder(VIP), second);
    assert_eq!(lan.claims().len(), 2);
}

#[test]
fn a_leaving_holder_is_replaced_at_once_and_answers_until_then() {
    let mut lan = started(3);
    let holder = lan.holder(VIP);
    let before = lan.now;
    lan.input(holder, Input::Leave);
    lan.run_for(50);
    let (claimed, successor, _) = *lan.claims().last().unwrap();
    assert_ne!(successor, holder);
    assert!(claimed.since(before) < Duration::from_millis(2), "{:?}", claimed.since(before));
    assert!(lan.log.iter().any(|(_, node, event)| *node == holder && *event == Event::ShutdownComplete));
    let released = lan
        .log
        .iter()
        .find_map(|(at, node, event)| match event {
            Event::Released { .. } if *node == holder => Some(*at),
            _ => None,
        })
        .unwrap();
    assert!(released >= claimed);
}

#[test]
fn an_isolated_holder_keeps_its_address_and_yields_when_the_cable_returns() {
    let mut lan = started(3);
    let holder = lan.holder(VIP);
    lan.nodes[holder].cut = true;
    lan.run_for(3_000);
    assert_eq!(lan.holders(VIP).len(), 2, "the isolated one can't know");
    lan.nodes[holder].cut = false;
    lan.run_for(300);
    assert_ne!(lan.holder(VIP), holder);
    assert_eq!(lan.claims().len(), 2, "the isolated node claimed nothing: {:?}", lan.claims());
}

#[test]
fn after_a_restart_of_everything_the_holder_that_status_names_claims_again() {
    let mut lan = Lan::new(3);
    for node in [2, 0, 1] {
        lan.restart(node, 50);
        lan.run_for(150);
    }
    let mut hinted = spec(VIP, 1);
    hinted.holders_hint = vec![lan::name(1)];
    lan.spec_everywhere(&hinted);
    lan.run_for(4_000);
    assert_eq!(lan.holder(VIP), 1);
    assert_eq!(lan.claims().len(), 1);
}
