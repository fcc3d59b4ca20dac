//! What is measured, stage after stage, in one lab.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use herald_lab::Lab;

use super::{Scale, clock, crowd, memory_rows, row, writes::Writes};
use crate::{
    process,
    report::{Sample, load},
};

/// The controller's admin endpoints.
const ADMIN: &str = "127.0.0.1:7480";
const PATIENCE: Duration = Duration::from_mins(1);
/// How often readiness is asked for.
const PERIOD: Duration = Duration::from_millis(5);
/// Services of the burst, all at once.
const BURST: u32 = 500;
/// Requests at once in it.
const IN_FLIGHT: usize = 32;

/// With nodes, namespaces and pools, and no Service.
pub(super) fn idle(lab: &Lab) -> Result<()> {
    await_ready(lab)?;
    Writes::await_quiet(lab)?;
    memory_rows(lab, 0, "no Services yet")
}

/// Ends the controller, creates the Services and touches each once; says how long a touch of all takes.
pub(super) fn crowd_without_controller(lab: &Lab, services: u32) -> Result<Duration> {
    lab.controller(|controller| controller.terminate().map(drop))?;
    let took = crowd::services(lab, 0..services)?;
    lab.plan().progress.say(&format!("{services} Services created in {took:.1?}, load {}", load()));
    let bare = crowd::bare_writes(lab, services, 1)?;
    lab.plan().progress.say(&format!("{services} bare writes in {bare:.2?}"));
    Ok(bare)
}

/// Starts the controller and waits until every Service has its address.
pub(super) fn all_pending(lab: &Lab, scale: Scale, bare: Duration) -> Result<()> {
    let services = scale.services;
    let before = Writes::so_far(lab)?;
    let version = lab.block_on(clock::now(lab))?;
    let begun = Instant::now();
    lab.start_controller_again()?;
    let times = lab.block_on(clock::addressed(lab, &version, usize::try_from(services)?))?;
    let took = times.values().max().context("no Service")?.duration_since(begun);
    let written = Writes::so_far(lab)?.since(&before);
    let cpu = lab.controller(|controller| process::cpu_time(controller.pid()))?;
    let busy = load();
    let ratio = took.as_secs_f64() / bare.as_secs_f64();
    row(
        services,
        "all pending at the controller's start: until the last EXTERNAL-IP",
        &format!("{took:.2?} ({cpu:.2?} of CPU)"),
        &format!(
            "one bare status PATCH each, 32 in flight, before: {bare:.2?}; ratio {ratio:.2}; load {busy}"
        ),
    );
    row(services, "API writes until then", &per_service(&written, services), &written.to_string());
    memory_rows(lab, services, "all assigned a moment ago")?;
    if scale.until_announced {
        await_announced(lab, services, &before)?;
    }
    // The speaker goes on writing who holds what, five a second: what follows counts the controller's writes alone.
    for node in lab.nodes() {
        node.speaker(herald_lab::Process::kill)?;
    }
    let (after, _) = Writes::await_quiet(lab)?;
    let written = after.since(&before);
    row(services, "API writes until all is quiet", &per_service(&written, services), &written.to_string());
    lab.controller(|controller| controller.terminate().map(drop))?;
    let again = crowd::bare_writes(lab, services, 2)?;
    let ratio = took.as_secs_f64() / again.as_secs_f64();
    row(
        services,
        "the same bare writes again, after",
        &format!("{again:.2?}"),
        &format!("ratio {ratio:.2}; load {}", load()),
    );
    Ok(())
}

/// Waits until the speaker has written every holder and the controller every condition.
fn await_announced(lab: &Lab, services: u32, before: &Writes) -> Result<()> {
    let begun = Instant::now();
    let enough = u64::from(services) * 4;
    loop {
        let written = Writes::so_far(lab)?.since(before);
        if written.total() >= enough {
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(u64::from(services)) {
            bail!("not everything is announced: {written}");
        }
        super::pause(Duration::from_secs(5));
    }
}

/// The controller starts again with everything assigned.
pub(super) fn restart(lab: &Lab, services: u32) -> Result<()> {
    let before = Writes::so_far(lab)?;
    let begun = Instant::now();
    lab.start_controller_again()?;
    await_ready(lab)?;
    let ready = begun.elapsed();
    let (after, _) = Writes::await_quiet(lab)?;
    let written = after.since(&before);
    row(
        services,
        "restart with everything assigned: until /readyz",
        &format!("{ready:.2?}"),
        &format!("{} writes: {written}; load {}", written.total(), load()),
    );
    memory_rows(lab, services, "after the restart")
}

/// Services created while the controller runs: at a steady rate, then as fast as the API server takes them.
pub(super) fn live(lab: &Lab, scale: Scale) -> Result<()> {
    let Scale { services, rate, seconds, .. } = scale;
    let (first, count) = (services, rate * seconds);
    let (begun, times) = create_live(lab, first..first + count, |n| Duration::from_secs(1) * n / rate)?;
    let mut sample = Sample::default();
    for (n, created) in (first..).zip(&begun) {
        let seen = times.get(&crowd::name(n)).context("a Service without address")?;
        sample.push(seen.duration_since(*created));
    }
    row(
        services,
        &format!("created while it runs, {rate}/s: POST to EXTERNAL-IP (min / p50 / p99 / max)"),
        &sample.to_string(),
        &format!("load {}", load()),
    );
    let first = first + count;
    let (begun, times) = create_live(lab, first..first + BURST, |_| Duration::ZERO)?;
    let (Some(start), Some(end)) = (begun.first(), times.values().max()) else { bail!("no Service") };
    let took = end.duration_since(*start);
    let last_created = begun.last().map_or(Duration::ZERO, |last| end.saturating_duration_since(*last));
    row(
        services,
        &format!("{BURST} more, {IN_FLIGHT} POSTs in flight: until the last EXTERNAL-IP"),
        &format!("{took:.2?}, {:.0}/s", f64::from(BURST) / took.as_secs_f64()),
        &format!("{last_created:.2?} after the last POST began; load {}", load()),
    );
    Ok(())
}

type Seen = std::collections::HashMap<String, Instant>;

/// Creates Services, each at its time; says when each was begun and when each was seen with an address.
fn create_live(
    lab: &Lab,
    numbers: std::ops::Range<u32>,
    at: impl Fn(u32) -> Duration + Sync + Send,
) -> Result<(Vec<Instant>, Seen)> {
    let count = numbers.len();
    let client = lab.kube();
    lab.block_on(async {
        let version = clock::now(lab).await?;
        let start = Instant::now();
        let create = |(index, n): (u32, u32)| {
            let (client, due) = (client.clone(), start + at(index));
            async move {
                tokio::time::sleep_until(due.into()).await;
                let begun = Instant::now();
                crowd::create(client, n).await.map(|()| begun)
            }
        };
        let creating = stream::iter((0..).zip(numbers)).map(create).buffered(IN_FLIGHT).try_collect();
        tokio::try_join!(creating, clock::addressed(lab, &version, count))
    })
}

/// A range more, a range excluded that nobody uses, and an advertisement that decides about every address.
pub(super) fn edits(lab: &Lab, services: u32) -> Result<()> {
    let pool = format!("ipaddresspool/{}", crowd::pool_name(0));
    let (own, more) = (crowd::block(0), crowd::block(100));
    edit(lab, services, "a pool gets one more range", || {
        let patch = format!("{{\"spec\":{{\"addresses\":[\"{own}\",\"{more}\"]}}}}");
        lab.kubectl(&["patch", &pool, "--type=merge", "-p", &patch])
    })?;
    edit(lab, services, "a range is excluded that nobody uses", || {
        let patch = format!("{{\"spec\":{{\"excluded\":[\"{more}\"]}}}}");
        lab.kubectl(&["patch", &pool, "--type=merge", "-p", &patch])
    })?;
    edit(lab, services, "a first advertisement limits every address to an interface", || {
        lab.kubectl_apply(
            "{apiVersion: heraldlb.io/v1beta1, kind: L2Advertisement, metadata: {name: everywhere}, \
             spec: {interfaces: [eth0]}}",
        )
    })?;
    memory_rows(lab, services, "after the edits")
}

fn edit(lab: &Lab, services: u32, what: &str, act: impl Fn() -> Result<String>) -> Result<()> {
    let (before, _) = Writes::await_quiet(lab)?;
    let begun = Instant::now();
    act()?;
    let (after, last) = Writes::await_quiet(lab)?;
    let written = after.since(&before);
    let took = last.saturating_duration_since(begun);
    row(
        services,
        &format!("edit: {what}"),
        &format!("{} writes", written.total()),
        &format!("{written}; over at most {took:.0?}; load {}", load()),
    );
    Ok(())
}

fn per_service(written: &Writes, services: u32) -> String {
    let total = u32::try_from(written.total()).unwrap_or(u32::MAX);
    format!("{:.2} per Service", f64::from(total) / f64::from(services))
}

/// Waits until the controller says that it is ready.
fn await_ready(lab: &Lab) -> Result<()> {
    let begun = Instant::now();
    while !ask(lab, "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
        if begun.elapsed() > PATIENCE {
            bail!("the controller is not ready after {PATIENCE:?}: {:?}", ask(lab, "/readyz"));
        }
        super::pause(PERIOD);
    }
    Ok(())
}

fn ask(lab: &Lab, path: &str) -> Result<String> {
    // A socket stays in the namespace that it was made in.
    let mut stream = lab.control_plane().host().netns.run(|| TcpStream::connect(ADMIN))??;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {ADMIN}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
