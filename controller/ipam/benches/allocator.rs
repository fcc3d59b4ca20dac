//! Take + give-back pairs per second of the free space, from empty to full, beside a linear scan in the same run;
//! and the whole allocator, Service created to Service gone.
//!
//! `cargo bench -p herald-ipam`. Prints a table; asserts nothing, as a busy machine is not a bug.

#![expect(clippy::print_stdout, reason = "a benchmark's table is its result")]

use std::collections::BTreeSet;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use herald_ipam::{
    AddressRange, Allocator, CreatedAt, Exposure, Families, Family, FamilyPolicy, Input, Labels, List,
    Output, Owner, PoolName, PoolSpec, PublishResult, ReclaimPolicy, ReleaseResult, ServiceRef,
    ServiceRequest, SharingPreference, SharingScope, Space, TakeResult, Uid, Version, Wanted,
};

/// In percent of the addresses of a /8.
const LEVELS: [u32; 5] = [0, 25, 50, 75, 99];
/// Addresses of a /8. The /64 is filled with as many, as nobody can fill one.
const SLASH_8: u32 = 1 << 24;
/// Ten times the Services that Kubernetes is tested with.
const SCATTERED: u32 = 100_000;
/// A linear scan is only bearable on this many.
const SLASH_16: u32 = 1 << 16;
/// How long each figure is measured.
const MEASURE: Duration = Duration::from_millis(400);

fn main() {
    memory();
    println!("\nfree space, million take + give-back pairs per second");
    println!("  packed: filled lowest first, as it happens; scattered: every n-th free, as bad as it gets");
    println!(
        "  lowest: take the lowest, give it back; any: give any taken address back, take it again by name"
    );
    println!("  a /64 cannot be filled: packed takes as many as of the /8, scattered {SCATTERED} in all");
    println!(
        "{:>24} {:>8} {:>13} {:>13} {:>13} {:>13}",
        "", "full", "packed lowest", "any", "scat. lowest", "any"
    );
    for network in [Network { family: Family::V4, bits: 24 }, Network { family: Family::V6, bits: 64 }] {
        for level in LEVELS {
            let taken = SLASH_8 / 100 * level;
            let spread = if network.bits == 64 { SCATTERED / 100 * level } else { taken };
            let mut packed = network.filled(taken, Pattern::Packed);
            let mut scattered = network.filled(spread, Pattern::Scattered);
            println!(
                "{:>24} {:>7}% {:>13.2} {:>13.2} {:>13.2} {:>13.2}",
                network.name(),
                level,
                lowest(&mut packed),
                any(&mut packed, &network, taken, Pattern::Packed),
                lowest(&mut scattered),
                any(&mut scattered, &network, spread, Pattern::Scattered),
            );
        }
    }
    rival();
    services();
}

/// What free space costs beside nothing taken. First of all and nothing given back, so that each new space shows in
/// the process.
fn memory() {
    println!("free space, KiB of memory");
    println!("{:>24} {:>8} {:>13} {:>13}", "", "full", "packed", "scattered");
    let mut kept = Vec::new();
    for network in [Network { family: Family::V4, bits: 24 }, Network { family: Family::V6, bits: 64 }] {
        for level in LEVELS {
            let taken = SLASH_8 / 100 * level;
            let spread = if network.bits == 64 { SCATTERED / 100 * level } else { taken };
            let mut grown = |taken, pattern| {
                let before = resident();
                kept.push(network.filled(taken, pattern));
                resident().saturating_sub(before)
            };
            let packed = grown(taken, Pattern::Packed);
            let scattered = grown(spread, Pattern::Scattered);
            println!("{:>24} {:>7}% {packed:>13} {scattered:>13}", network.name(), level);
        }
    }
}

/// Resident memory of this process in KiB (proc_pid_status(5)).
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// A network to give addresses of.
struct Network {
    family: Family,
    /// Host bits.
    bits: u32,
}

/// Which addresses are taken.
#[derive(Clone, Copy)]
enum Pattern {
    /// The lowest.
    Packed,
    /// Spread evenly over the network.
    Scattered,
}

impl Network {
    fn name(&self) -> String {
        match self.family {
            Family::V4 => format!("IPv4 /{}", 32 - self.bits),
            Family::V6 => format!("IPv6 /{}", 128 - self.bits),
        }
    }

    fn address(&self, host: u128) -> IpAddr {
        match self.family {
            Family::V4 => {
                IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | u32::try_from(host).unwrap_or_default()))
            }
            Family::V6 => IpAddr::V6(Ipv6Addr::from_bits((0xfd00 << 112) | host)),
        }
    }

    fn space(&self) -> Space {
        let last = self.address((1 << self.bits) - 1);
        let range: Vec<AddressRange> = AddressRange::between(self.address(0), last).into_iter().collect();
        Space::new(self.family, false, &range)
    }

    /// The host part of the `index`-th of `taken` addresses.
    fn host(&self, index: u32, taken: u32, pattern: Pattern) -> u128 {
        match pattern {
            Pattern::Packed => index.into(),
            Pattern::Scattered => (u128::from(index) << self.bits) / u128::from(taken.max(1)),
        }
    }

    fn filled(&self, taken: u32, pattern: Pattern) -> Space {
        let mut space = self.space();
        for index in 0..taken {
            assert!(
                space.take(self.address(self.host(index, taken, pattern))),
                "every address is taken once"
            );
        }
        space
    }
}

/// Millions of times per second that `pair` runs: the best of many slices short enough that other processes of the
/// machine leave some of them alone.
fn rate(mut pair: impl FnMut(), pairs: u32) -> f64 {
    let end = Instant::now() + MEASURE;
    let mut best = Duration::MAX;
    while Instant::now() < end {
        let start = Instant::now();
        for _ in 0..pairs {
            pair();
        }
        best = best.min(start.elapsed());
    }
    f64::from(pairs) / best.as_secs_f64() / 1e6
}

fn lowest(space: &mut Space) -> f64 {
    let pair = || {
        if let Some(address) = black_box(space.take_lowest()) {
            space.give_back(address);
        }
    };
    rate(pair, 1_000)
}

fn any(space: &mut Space, network: &Network, taken: u32, pattern: Pattern) -> f64 {
    if taken == 0 {
        return lowest(space);
    }
    let mut dice = Dice(1);
    let any = |_| network.address(network.host(dice.below(taken), taken, pattern));
    let chosen: Vec<IpAddr> = (0..100_000).map(any).collect();
    let mut next = chosen.iter().cycle();
    let pair = || {
        if let Some(address) = next.next() {
            black_box(space.give_back(*address));
            black_box(space.take(*address));
        }
    };
    rate(pair, 1_000)
}

/// xorshift: the same numbers in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(self.0 % u64::from(limit)).unwrap_or_default()
    }
}

/// What MetalLB and its like do: walk the range from its start and ask of each address whether it is in use.
fn rival() {
    println!("\nthe same on a /16 beside a linear scan over a set of taken addresses; packed, lowest");
    println!("{:>24} {:>8} {:>13} {:>13} {:>13}", "", "full", "Herald", "scan", "ratio");
    let network = Network { family: Family::V4, bits: 16 };
    for level in LEVELS {
        let taken = SLASH_16 / 100 * level;
        let ours = lowest(&mut network.filled(taken, Pattern::Packed));
        let mut set: BTreeSet<IpAddr> = (0..taken).map(|host| network.address(host.into())).collect();
        let pair = || {
            let hosts = (0..SLASH_16).map(|host| network.address(host.into()));
            if let Some(free) = black_box(hosts.into_iter().find(|address| !set.contains(address))) {
                set.insert(free);
                set.remove(&free);
            }
        };
        let scan = rate(pair, 1);
        println!("{:>24} {:>7}% {:>13.3} {:>13.6} {:>12.0}x", network.name(), level, ours, scan, ours / scan);
    }
}

/// The whole allocator: a Service comes, gets its address, is published, goes, and its address is free again.
fn services() {
    println!(
        "\nwhole allocator, thousand Services per second created, recorded, published, deleted and released"
    );
    println!("{:>24} {:>13}", "Services there already", "");
    for there in [0, 1_000, 10_000, 100_000] {
        let mut allocator = Allocator::new();
        allocator.handle(Input::PoolApplied(PoolSpec {
            name: PoolName::new("pool"),
            created: CreatedAt(0),
            addresses: vec!["10.0.0.0/8".into()],
            excluded: Vec::new(),
            of_nodes: BTreeSet::new(),
            avoid_buggy_ips: false,
            auto_assign: true,
            allocation: None,
            reclaim: ReclaimPolicy::Delete,
            sharing: SharingPreference::WhenFull,
            sharing_scope: SharingScope::Namespace,
            limit_per_namespace: None,
        }));
        for list in [List::Pools, List::Namespaces, List::Services, List::Addresses] {
            allocator.handle(Input::Synced(list));
        }
        for index in 0..there {
            allocator.handle(Input::ServiceApplied(service(index).into()));
            obey(&mut allocator);
        }
        let mut index = there;
        let cycle = || {
            index += 1;
            let request = service(index);
            let name = request.owner.service.clone();
            allocator.handle(Input::ServiceApplied(request.into()));
            obey(&mut allocator);
            allocator.handle(Input::ServiceDeleted(name));
            obey(&mut allocator);
        };
        println!("{:>24} {:>13.0}", there, rate(cycle, 100) * 1e3);
    }
}

fn service(index: u32) -> ServiceRequest {
    ServiceRequest {
        owner: Owner {
            service: ServiceRef::new("default", &format!("service-{index}")),
            uid: Uid::new(&format!("00000000-0000-0000-0000-{index:012}")),
        },
        version: Version(1),
        created: CreatedAt(i64::from(index)),
        labels: Labels::new(),
        families: Families { policy: FamilyPolicy::SingleStack, primary: Family::V4, dual: false },
        wanted: Ok(Wanted::default()),
        exposure: Exposure::default(),
        shown: Vec::new(),
        terminating: false,
    }
}

/// Every write works at once.
fn obey(allocator: &mut Allocator) {
    while let Some(output) = allocator.poll_output() {
        let done = match output {
            Output::Take(take) => {
                let result = TakeResult::Taken(Version(2));
                Input::TakeDone { address: take.address, owner: take.owner, result }
            }
            Output::Publish(publication) => {
                let result = PublishResult::Published(Version(3));
                Input::PublishDone { owner: publication.owner, result }
            }
            Output::Release(release) => {
                let result = ReleaseResult::Released(Version(4));
                Input::ReleaseDone { address: release.address, result }
            }
            Output::Pool { .. } => continue,
        };
        allocator.handle(done);
    }
}
