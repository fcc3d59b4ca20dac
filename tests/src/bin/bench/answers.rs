//! One node with 1, 1,000 and 10,000 addresses: how fast it answers, idle and under a storm of foreign ARP, what the storm
//! costs, and how much memory it all takes. Beside it the kernel's own answer for the node's address.
//!
//! The addresses are `LoadBalancerIP` objects without a controller: only the speaker is measured.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use herald_crds::{LoadBalancerIP, name_of_address};
use herald_lab::{Asker, HERALD_NAMESPACE, Host, Lab, Plan};
use herald_wire::{Arp, Ethernet};
use kube::{Api, api::PostParams};
use serde_json::json;

use crate::report::{Sample, megabytes, percent};

/// Questions per sample.
const QUESTIONS: u32 = 2_000;
const PATIENCE: Duration = Duration::from_millis(200);
/// Frames per second of the storm, and for how long.
const STORM: u32 = 10_000;
const STORM_TIME: Duration = Duration::from_secs(20);

pub(crate) fn run(counts: &[u32]) -> Result<()> {
    let lab = Plan::nodes(1).without_herald().start()?;
    lab.apply_manifests()?;
    lab.kubectl_apply(&format!(
        "{{apiVersion: v1, kind: Secret, metadata: {{name: herald-hello, namespace: {HERALD_NAMESPACE}}}, \
         stringData: {{cluster-id: '{}', key-0: '{}'}}}}",
        "00000000000000a1",
        "5a".repeat(32)
    ))?;
    lab.start_speakers()?;
    let asker = Asker::new(lab.client())?;
    let kernel = sample(&asker, |_| lab.nodes().first().map_or(Ipv4Addr::UNSPECIFIED, |node| node.host.v4))?;
    println!("{}", memory(&lab, 0)?);
    let mut made = 0;
    for &count in counts {
        make(&lab, made, count)?;
        made = count;
        let waited = await_all(&asker, count)?;
        lab.plan().progress.say(&format!("{count} addresses, all answered {waited:?} after they were made"));
        let any = |question: u32| vip(question.wrapping_mul(7_919) % count);
        let idle = sample(&asker, any)?;
        let what = format!("ARP answer, {count} VIPs, idle; {} lost", lost(&idle));
        println!("{}", idle.row(&what, Some(("kernel", &kernel))));
        let (stormy, share) = storm(&lab, || sample(&asker, any))?;
        let what = format!(
            "ARP answer, {count} VIPs, {STORM} foreign ARP/s ({} of a core); {} lost",
            percent(share),
            lost(&stormy)
        );
        println!("{}", stormy.row(&what, Some(("kernel idle", &kernel))));
        println!("{}", memory(&lab, count)?);
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
                        "announce": { "l2": { "nodes": { "mode": "All" }, "conflictDetection": "Disabled" } },
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

fn sample(asker: &Asker, address: impl Fn(u32) -> Ipv4Addr) -> Result<Sample> {
    let mut sample = Sample::default();
    for question in 0..QUESTIONS {
        if let Some((_, took)) = asker.ask(address(question).into(), PATIENCE)? {
            sample.push(took);
        }
        // Not back to back: the answerer sleeps between questions, as on a LAN.
        std::thread::park_timeout(Duration::from_micros(500));
    }
    Ok(sample)
}

/// How many of the questions went unanswered.
fn lost(sample: &Sample) -> String {
    let asked = usize::try_from(QUESTIONS).unwrap_or(usize::MAX);
    format!("{} of {QUESTIONS}", asked.saturating_sub(sample.len()))
}

/// Foreign ARP from the gateway's port while `measure` runs at least once and the storm's time passes; gives the
/// speaker's share of a core during it.
fn storm<T>(lab: &Lab, measure: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let blowing = scope.spawn(|| blow(lab.gateway(), &stop));
        let (begun, before) = (Instant::now(), cpu_time(lab)?);
        let mut measured = measure();
        while begun.elapsed() < STORM_TIME && measured.is_ok() {
            std::thread::park_timeout(Duration::from_millis(100));
        }
        let share = cpu_time(lab)?.saturating_sub(before).as_secs_f64() / begun.elapsed().as_secs_f64();
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

fn speaker_pid(lab: &Lab) -> Result<i32> {
    lab.nodes().first().context("a node")?.speaker(|speaker| Ok(speaker.pid()))
}

/// What all threads of the speaker have run so far.
fn cpu_time(lab: &Lab) -> Result<Duration> {
    let mut total = 0;
    for task in std::fs::read_dir(format!("/proc/{}/task", speaker_pid(lab)?))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        total += text.split_whitespace().next().context("an empty schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(total))
}

fn memory(lab: &Lab, vips: u32) -> Result<String> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", speaker_pid(lab)?))?;
    let field = |name: &str| {
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        let kib: u32 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?;
        anyhow::Ok(megabytes(kib))
    };
    Ok(format!(
        "| speaker's memory, {vips} VIPs: RSS {}, peak {} | | | | | | | |",
        field("VmRSS")?,
        field("VmHWM")?
    ))
}
