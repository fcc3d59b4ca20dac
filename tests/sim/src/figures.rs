//! Detection in figures: how soon a death is noticed and clients are served again, how often the living are taken for
//! dead, and what a large segment costs. Measured on the virtual clock, so a busy machine changes nothing but the
//! waiting.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use herald_l2::Profile;

use crate::Moment;
use crate::check::Bounds;
use crate::faults::{Fault, Who};
use crate::record::Fact;
use crate::schedule::Setup;
use crate::trace::Trace;
use crate::world::World;
use herald_seeds::{Dice, Outcome};

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Crashes for each row.
    pub crashes: u64,
    /// Modelled hours for false failovers.
    pub hours: u64,
    /// Nodes of the largest segment.
    pub largest: usize,
}

const LOSSES: [f64; 4] = [0.0, 0.01, 0.1, 0.3];
const HOUR: Duration = Duration::from_hours(1);

/// Prints everything as Markdown.
pub fn print(out: &mut impl Write, size: &Size, threads: usize) -> io::Result<()> {
    writeln!(out, "Milliseconds, p50 / p99 / max, {} crashes of a holder per row, 3 nodes.\n", size.crashes)?;
    writeln!(
        out,
        "| profile | loss per path | last frame heard to DEAD | crash to first announcement | crash to client's cache right |"
    )?;
    writeln!(out, "|---|---|---|---|---|")?;
    for profile in [Profile::Default, Profile::Fast] {
        for loss in LOSSES {
            let crashes = all(size.crashes, threads, |seed| crash(profile, loss, seed));
            let column =
                |pick: fn(&Crash) -> Option<Duration>| spread(crashes.iter().flatten().filter_map(pick));
            let (dead, announced) = (column(|crash| crash.dead), column(|crash| crash.announced));
            let right = column(|crash| crash.right);
            writeln!(out, "| {profile:?} | {:.0} % | {dead} | {announced} | {right} |", loss * 100.0)?;
            out.flush()?;
        }
    }
    writeln!(out, "\nThe living taken for dead, 3 nodes, {} modelled hours per row.\n", size.hours)?;
    writeln!(
        out,
        "| loss per path | suspicions per hour | false deaths | false failovers |\n|---|---|---|---|"
    )?;
    let bursts = [20, 100].map(|ms| Loss::Bursts(0.05, Duration::from_millis(ms)));
    for loss in LOSSES.map(Loss::Independent).into_iter().chain(bursts) {
        let hours = all(size.hours, threads, |seed| quiet_hour(loss, seed));
        let sum = |pick: fn(&Quiet) -> u64| hours.iter().map(pick).sum::<u64>();
        let suspicions = sum(|hour| hour.suspicions) / size.hours.max(1);
        let (deaths, claims) = (sum(|hour| hour.deaths), sum(|hour| hour.claims));
        writeln!(out, "| {loss} | {suspicions} | {deaths} | {claims} |")?;
        out.flush()?;
    }
    writeln!(out, "\nA segment with 40 addresses, so with 40 holders at most.\n")?;
    writeln!(
        out,
        "| nodes | worlds | crashes of a holder | hello frames per second, all told | crash to claim, ms, p50 / p99 / max |\n|---|---|---|---|---|"
    )?;
    // In a segment of n nodes each frame is n frames to simulate: fewer worlds, and more crashes in each, the more
    // nodes there are.
    for (nodes, worlds, each) in [(3, 200, 1), (40, 8, 8), (size.largest, 1, 20)] {
        let worlds = size.crashes.min(worlds);
        let results = all(worlds, threads, |seed| large(nodes, each, seed));
        let rate = results.iter().map(|(rate, _)| *rate).max().unwrap_or(0);
        let claims = spread(results.iter().flat_map(|(_, claims)| claims.iter().copied()));
        writeln!(out, "| {nodes} | {worlds} | {} | {rate} | {claims} |", worlds * each)?;
        out.flush()?;
    }
    Ok(())
}

/// Seeds 0 to `count`, on all threads; the results in no order.
fn all<T: Send>(count: u64, threads: usize, work: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let one = |seed| Outcome { seed, measured: work(seed), violations: Vec::new(), history: Vec::new() };
    let mut results = Vec::new();
    herald_seeds::run_many(0..count, threads, one, |outcome| {
        results.push(outcome.measured);
        true
    });
    results
}

fn spread(times: impl Iterator<Item = Duration>) -> String {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
    match (at(50), at(99), times.last()) {
        (Some(half), Some(most), Some(last)) => {
            format!("{} / {} / {}", half.as_millis(), most.as_millis(), last.as_millis())
        }
        _ => "none".into(),
    }
}

fn world(name: &str, setup: Setup, loss: f64, seed: u64) -> World {
    let mut world = World::new(setup, Bounds::NOTHING, Moment::ZERO, Dice::new(name, seed), Trace::default());
    world.switch.set_loss(loss);
    world
}

/// What one crash of a holder led to.
#[derive(Debug)]
struct Crash {
    /// Silence at DEAD, as the successor saw it.
    dead: Option<Duration>,
    /// From the crash to the successor's first frame in the address's name.
    announced: Option<Duration>,
    /// From the crash to the client's packets going to the successor.
    right: Option<Duration>,
}

fn crash(profile: Profile, loss: f64, seed: u64) -> Option<Crash> {
    let setup = Setup { profile, nodes: 3, clients: 1, vips: 1, ..Setup::default() };
    let mut world = world("figures-crash", setup, loss, seed);
    let at = Duration::from_secs(8) + world.dice.ms(0, 1_000);
    world.run_until(at);
    let vip = *world.vips().first()?;
    let holder = world.check.holders(vip).next()?;
    let holder_id = world.nodes.get(holder)?.core.as_ref()?.config().node;
    world.apply(&Fault::Crash { who: Who::Node(holder), link: true });
    world.run_until(at + Duration::from_secs(4));
    let successor = world.record.since(at).find_map(|(_, fact)| match fact {
        Fact::Claimed { node, .. } => Some(node),
        _ => None,
    })?;
    let mac = world.nodes.get(successor)?.kernel.mac;
    let dead = world.record.since(at).find_map(|(_, fact)| match fact {
        Fact::Dead { by, peer, silence } if by == successor && peer == holder_id => Some(silence),
        _ => None,
    });
    let announced = world.record.first_spoke(successor, vip).map(|spoke| spoke.saturating_sub(at));
    // Host 0 is the gateway, 1 the client.
    let right = world.record.since(at).find_map(|(when, fact)| match fact {
        Fact::Moved { host: 1, vip: moved, mac: to } if moved == vip && to == mac => {
            Some(when.saturating_sub(at))
        }
        _ => None,
    });
    Some(Crash { dead, announced, right })
}

/// What goes wrong in an hour in which nothing goes wrong.
#[derive(Debug)]
struct Quiet {
    suspicions: u64,
    deaths: u64,
    claims: u64,
}

/// How frames are lost.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Independent(f64),
    /// This share of the time, for so long each time on average.
    Bursts(f64, Duration),
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Independent(share) => write!(f, "{:.0} %", share * 100.0),
            Self::Bursts(share, length) => {
                write!(f, "{:.0} % in bursts of {} ms", share * 100.0, length.as_millis())
            }
        }
    }
}

fn quiet_hour(loss: Loss, seed: u64) -> Quiet {
    let setup =
        Setup { nodes: 3, clients: 1, vips: 3, packet_every: Duration::from_secs(5), ..Setup::default() };
    let mut world = world("figures-quiet", setup, 0.0, seed);
    match loss {
        Loss::Independent(share) => world.switch.set_loss(share),
        Loss::Bursts(share, length) => world.switch.set_bursts(share, length),
    }
    let warm = Duration::from_secs(10);
    world.run_until(warm);
    let before = world.record.suspicions;
    world.run_until(warm + HOUR);
    let count = |wanted: fn(&Fact) -> bool| {
        world.record.since(warm).filter(|(_, fact)| wanted(fact)).fold(0, |count, _| count + 1)
    };
    Quiet {
        suspicions: world.record.suspicions - before,
        deaths: count(|fact| matches!(fact, Fact::Dead { .. })),
        claims: count(|fact| matches!(fact, Fact::Claimed { .. })),
    }
}

/// A segment with 40 addresses: frames of the hello protocol per second, and how soon each address of a dead holder
/// is claimed, of so many holders one after the other.
fn large(nodes: usize, crashes: u64, seed: u64) -> (u64, Vec<Duration>) {
    let setup =
        Setup { nodes, clients: 1, vips: 40, packet_every: Duration::from_secs(5), ..Setup::default() };
    let mut world = world("figures-large", setup, 0.0, seed);
    // A newcomer meets 200 peers a second (rule A7) and asks for 50 tables (rule A14).
    let met = Duration::from_secs(10) + Duration::from_millis(30) * u32::try_from(nodes).unwrap_or(u32::MAX);
    world.run_until(met);
    let before = world.record.hellos();
    world.run_until(met + Duration::from_secs(5));
    let rate = (world.record.hellos() - before) / 5;
    let mut claims = Vec::new();
    for crash in 0..crashes {
        let at = world.now + world.dice.ms(0, 100);
        world.run_until(at);
        let vip = usize::try_from(crash * 2).unwrap_or_default() % 40;
        world.apply(&Fault::Crash { who: Who::HolderOf(vip), link: true });
        world.run_until(at + Duration::from_secs(1));
        let claimed = world.record.since(at).filter(|(_, fact)| matches!(fact, Fact::Claimed { .. }));
        claims.extend(claimed.map(|(when, _)| when.saturating_sub(at)));
    }
    (rate, claims)
}
