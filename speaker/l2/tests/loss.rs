//! Detection under loss: no false failover, and how long a true one takes.

#![allow(clippy::unwrap_used, reason = "test support: whatever is wrong fails the test")]

mod lan;

use std::time::Duration;

use herald_l2::{Event, Gone};
use lan::{Lan, spec};

const VIP: &str = "10.0.1.1";

fn running(loss: u64, seed: u64) -> Lan {
    let mut lan = Lan::new(3);
    lan.seed(seed);
    lan.run_for(1_500);
    lan.spec_everywhere(&spec(VIP, 1));
    lan.run_for(500);
    lan.loss = loss;
    lan.run_for(4_000);
    lan
}

fn deaths(lan: &Lan) -> usize {
    let dead = |event: &Event| matches!(event, Event::PeerDown { how: Gone::Dead { .. }, .. });
    lan.log.iter().filter(|(_, _, event)| dead(event)).count()
}

/// Time from the crash to the claim of the successor, sorted.
fn failovers(loss: u64, runs: u64) -> Vec<Duration> {
    let mut times: Vec<_> = (0..runs)
        .map(|seed| {
            let mut lan = running(loss, seed + 1);
            lan.run_for(seed * 7 % 40);
            let holder = lan.holder(VIP);
            let died = lan.now;
            lan.kill(holder);
            lan.run_for(2_000);
            assert_ne!(lan.holder(VIP), holder);
            lan.claims().last().unwrap().0.since(died)
        })
        .collect();
    times.sort_unstable();
    times
}

#[test]
fn thirty_percent_loss_for_minutes_kills_nobody() {
    let mut lan = running(300, 1);
    let holder = lan.holder(VIP);
    lan.run_for(600_000);
    assert_eq!(deaths(&lan), 0, "false deaths in ten minutes");
    assert_eq!(lan.holder(VIP), holder);
    assert_eq!(lan.claims().len(), 1);
}

#[test]
fn a_crash_is_noticed_under_loss_too() {
    for (loss, p50, worst) in [(0, 105, 122), (10, 130, 200), (100, 220, 400), (300, 350, 700)] {
        let times = failovers(loss, 60);
        let (middle, last) = (times[times.len() / 2], times[times.len() - 1]);
        println!("{}.{} % loss: crash to claim p50 {middle:?}, worst of 60 {last:?}", loss / 10, loss % 10);
        assert!(middle <= Duration::from_millis(p50), "{loss}: {times:?}");
        assert!(last <= Duration::from_millis(worst), "{loss}: {times:?}");
    }
}
