//! One of three nodes holds 1, 1,000 and 10,000 addresses: how fast it answers, idle and under a storm of foreign ARP, what
//! the storm and idleness cost, and how much memory it all takes. Beside each answer the kernel's own for the node's address,
//! asked for in turn with it.
//!
//! The addresses are `LoadBalancerIP` objects without a controller: only the speakers are measured.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use herald_crds::{LoadBalancerIP, name_of_address};
use herald_lab::{Asker, HERALD_NAMESPACE, Host, Lab, Node, Plan};
use herald_wire::{Arp, Ethernet};
use kube::{Api, api::PostParams};
use serde_json::json;

use crate::{
    process,
    report::{Sample, megabytes, percent},
};

/// Questions per sample.
const QUESTIONS: u32 = 2_000;
const PATIENCE: Duration = Duration::from_millis(200);
/// Frames per second of the storm, and for how long.
const STORM: u32 = 10_000;
const STORM_TIME: Duration = Duration::from_secs(20);
/// How long idleness is watched.
const IDLE_TIME: Duration = Duration::from_secs(20);
/// Where a speaker tells how many status writes wait.
const SPEAKER_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7481);

pub(crate) fn run(counts: &[u32]) -> Result<()> {
    let lab = Plan::nodes(3).without_herald().start()?;
    lab.apply_manifests()?;
    lab.kubectl_apply(&format!(
        "{{apiVersion: v1, kind: Secret, metadata: {{name: herald-hello, namespace: {HERALD_NAMESPACE}}}, \
         stringData: {{cluster-id: '{}', key-0: '{}'}}}}",
        "00000000000000a1",
        "5a".repeat(32)
    ))?;
    lab.start_speakers()?;
    let [holder, standby, ..] = lab.nodes() else { bail!("three nodes were asked for") };
    let asker = Asker::new(lab.client())?;
    println!("{}", memory(holder, 0)?);
    println!("{}", idle(holder, standby, 0)?);
    let mut made = 0;
    for &count in counts {
        make(&lab, made, count)?;
        made = count;
        let waited = await_all(&asker, count)?;
        lab.plan().progress.say(&format!("{count} addresses, all answered {waited:?} after they were made"));
        await_written(holder)?;
        let any = |question: u32| vip(question.wrapping_mul(7_919) % count);
        let (ours, kernel) = sample(&asker, any, holder.host.v4)?;
        let what = format!("ARP answer, {count} VIPs, idle; {} lost", lost(&ours));
        println!("{}", ours.row(&what, Some(("kernel", &kernel))));
        let ((stormy, kernel), share) = storm(&lab, holder, || sample(&asker, any, holder.host.v4))?;
        let what = format!(
            "ARP answer, {count} VIPs, {STORM} foreign ARP/s ({} of a core); {} lost",
            percent(share),
            lost(&stormy)
        );
        println!("{}", stormy.row(&what, Some(("kernel", &kernel))));
        println!("{}", memory(holder, count)?);
        println!("{}", idle(holder, standby, count)?);
    }
    Ok(())
}

/// The `index`-th address: 192.168.64.0/18 has room for 16,384.
fn vip(index: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(192, 168, 64, 0).to_bits() + index)
}

fn make(lab: &Lab, from: u32, to: u32) -> Result<()> {
    lab.block_on(async {
        let api: Api<LoadBalancerIP> = Api::all(lab.kube());
        let create = |index: u32| {
            let api = api.clone();
            async move {
                let address = vip(index);
                let object = serde_json::from_value(json!({
                    "metadata": { "name": name_of_address(address.into()) },
                    "spec": {
                        "address": address, "pool": "bench", "revision": 1,
                        "services": [{ "namespace": "default", "name": format!("s{index}"), "uid": format!("{index}") }],
                        "announce": { "l2": { "nodes": { "mode": "Listed", "names": ["n1"] }, "conflictDetection": "Disabled" } },
                    },
                }))?;
                api.create(&PostParams::default(), &object).await?;
                anyhow::Ok(())
            }
        };
        stream::iter(from..to).map(create).buffer_unordered(32).try_collect::<Vec<()>>().await
    })?;
    Ok(())
}

/// Asks for every address until each has been answered once.
fn await_all(asker: &Asker, count: u32) -> Result<Duration> {
    let begun = Instant::now();
    for index in 0..count {
        let address = IpAddr::V4(vip(index));
        while asker.ask(address, PATIENCE)?.is_none() {
            if begun.elapsed() > Duration::from_mins(2) {
                bail!("{address} is not answered for, {index} are");
            }
        }
    }
    Ok(begun.elapsed())
}

/// Until the holder has told the API server what it holds: that work is not part of being idle.
fn await_written(holder: &Node) -> Result<()> {
    let begun = Instant::now();
    while holder.host.metric(SPEAKER_ADMIN, "herald_speaker_status_writes_waiting")? > 0 {
        if begun.elapsed() > Duration::from_mins(5) {
            bail!("the speaker of {} still has status to write", holder.name());
        }
        std::thread::park_timeout(Duration::from_millis(200));
    }
    Ok(())
}

/// Answers for addresses of ours, and of the kernel for its own, in turn.
fn sample(
    asker: &Asker,
    address: impl Fn(u32) -> Ipv4Addr,
    of_the_kernel: Ipv4Addr,
) -> Result<(Sample, Sample)> {
    let (mut ours, mut kernel) = (Sample::default(), Sample::default());
    for question in 0..QUESTIONS {
        for (sample, address) in [(&mut ours, address(question)), (&mut kernel, of_the_kernel)] {
            if let Some((_, took)) = asker.ask(address.into(), PATIENCE)? {
                sample.push(took);
            }
            // Not back to back: the answerer sleeps between questions, as on a LAN.
            std::thread::park_timeout(Duration::from_micros(500));
        }
    }
    Ok((ours, kernel))
}

/// How many of the questions went unanswered.
fn lost(sample: &Sample) -> String {
    let asked = usize::try_from(QUESTIONS).unwrap_or(usize::MAX);
    format!("{} of {QUESTIONS}", asked.saturating_sub(sample.len()))
}

/// Foreign ARP from the gateway's port while `measure` runs at least once and the storm's time passes; gives the
/// speaker's share of a core during it.
fn storm<T>(lab: &Lab, holder: &Node, measure: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let blowing = scope.spawn(|| blow(lab.gateway(), &stop));
        let (begun, before) = (Instant::now(), cpu_time(holder)?);
        let mut measured = measure();
        while begun.elapsed() < STORM_TIME && measured.is_ok() {
            std::thread::park_timeout(Duration::from_millis(100));
        }
        let share = cpu_time(holder)?.saturating_sub(before).as_secs_f64() / begun.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        let sent = blowing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let rate = f64::from(sent) / begun.elapsed().as_secs_f64();
        lab.plan().progress.say(&format!("storm of {rate:.0} frames/s"));
        if rate < 0.9 * f64::from(STORM) {
            measured = measured.and_then(|_| bail!("the storm reached only {rate:.0} frames/s"));
        }
        Ok((measured?, share))
    })
}

/// Asks for addresses that are nobody's, ten every millisecond.
fn blow(host: &Host, stop: &AtomicBool) -> Result<u32> {
    let frames: Vec<Vec<u8>> = (0..1_000_u32)
        .map(|index| {
            let foreign = Ipv4Addr::from_bits(Ipv4Addr::new(192, 168, 200, 0).to_bits() + index);
            Arp::who_has(foreign, host.v4, host.mac).to_frame(Ethernet::broadcast(host.mac))
        })
        .collect();
    let sender = host.sender()?;
    let begun = Instant::now();
    let mut sent = 0;
    for frame in frames.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        sender.send(frame)?;
        sent += 1;
        let due = Duration::from_secs(1) * sent / STORM;
        if sent % 10 == 0 {
            std::thread::park_timeout(due.saturating_sub(begun.elapsed()));
        }
    }
    Ok(sent)
}

/// What holding costs while nobody asks, and what standing by does.
fn idle(holder: &Node, standby: &Node, vips: u32) -> Result<String> {
    let both = || anyhow::Ok([cpu_time(holder)?, cpu_time(standby)?]);
    let (begun, before) = (Instant::now(), both()?);
    while begun.elapsed() < IDLE_TIME {
        std::thread::park_timeout(IDLE_TIME.saturating_sub(begun.elapsed()));
    }
    let took = begun.elapsed().as_secs_f64();
    let [holding, standing_by] = both()?;
    let [was_holding, was_standing_by] = before;
    let share =
        |after: Duration, before: Duration| percent(after.saturating_sub(before).as_secs_f64() / took);
    Ok(format!(
        "| speaker's CPU idle, {vips} VIPs: holder {}, another node {} of a core | | | | | | | |",
        share(holding, was_holding),
        share(standing_by, was_standing_by)
    ))
}

fn speaker_pid(node: &Node) -> Result<i32> {
    node.speaker(|speaker| Ok(speaker.pid()))
}

fn cpu_time(node: &Node) -> Result<Duration> {
    process::cpu_time(speaker_pid(node)?)
}

fn memory(node: &Node, vips: u32) -> Result<String> {
    let [now, peak] = process::memory(speaker_pid(node)?)?.map(megabytes);
    Ok(format!("| speaker's memory, {vips} VIPs: RSS {now}, peak {peak} | | | | | | | |"))
}
