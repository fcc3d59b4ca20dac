//! The generated program, run by a small interpreter, against a predicate in plain Rust.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use herald_wire::{Arp, Echo, Ethernet, MacAddr, Ndp, arp, echo, hello, ndp};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const MINE: MacAddr = MacAddr(0x02, 0, 0, 0, 0, 1);
const PEER: MacAddr = MacAddr(0x02, 0, 0, 0, 0, 2);
const OTHER: MacAddr = MacAddr(0x02, 0, 0, 0, 0, 3);

/// A frame and what the kernel knows beside it.
#[derive(Debug, Clone)]
struct Received {
    bytes: Vec<u8>,
    vlan: Option<u16>,
}

impl Received {
    fn untagged(bytes: Vec<u8>) -> Self {
        Self { bytes, vlan: None }
    }

    /// As the kernel's eth_type_trans() on the interface with the address [`MINE`].
    fn packet_type(&self) -> u32 {
        match self.bytes.first_chunk::<6>().copied().map(MacAddr::from) {
            Some(MINE) => program::PACKET_HOST,
            Some(mac) if mac.is_broadcast() => 1,
            Some(mac) if mac.is_multicast() => 2,
            _ => program::PACKET_OTHERHOST,
        }
    }
}

/// Runs classic BPF as the kernel does; returns the verdict and how many instructions it took.
fn run(program: &Program, frame: &Received) -> (bool, usize) {
    let (mut a, mut at, mut steps) = (0_u32, 0_usize, 0);
    loop {
        let op = program.instructions()[at];
        (at, steps) = (at + 1, steps + 1);
        let conditional = |holds: bool| usize::from(if holds { op.jt } else { op.jf });
        match op.code {
            0x20 | 0x28 | 0x30 => match load(op.code, op.k, frame) {
                Some(value) => a = value,
                None => return (false, steps),
            },
            0x54 => a &= op.k,
            0x05 => at += usize::try_from(op.k).unwrap(),
            0x15 => at += conditional(a == op.k),
            0x25 => at += conditional(a > op.k),
            0x35 => at += conditional(a >= op.k),
            0x06 => return (op.k != 0, steps),
            code => panic!("instruction {code:#x}"),
        }
    }
}

fn load(code: u16, at: u32, frame: &Received) -> Option<u32> {
    match at.checked_sub(0xffff_f000) {
        Some(4) => return Some(frame.packet_type()),
        Some(44) => return Some(frame.vlan.map_or(0, u32::from)),
        Some(48) => return Some(u32::from(frame.vlan.is_some())),
        Some(other) => panic!("ancillary load {other}"),
        None => {}
    }
    let len = match code {
        0x20 => 4,
        0x28 => 2,
        _ => 1,
    };
    let at = usize::try_from(at).unwrap();
    let bytes = frame.bytes.get(at..at + len)?;
    Some(bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
}

/// What should pass, said a second time from the frame as parsed.
fn wanted(interest: &[IpAddr], frame: &Received) -> bool {
    if frame.packet_type() == program::PACKET_OTHERHOST || frame.vlan.is_some_and(|tag| tag & 0xfff != 0) {
        return false;
    }
    let to_us = frame.packet_type() == program::PACKET_HOST;
    let of_interest = |ip: IpAddr| interest.contains(&ip);
    match herald_wire::parse(&frame.bytes).expect("a well-formed frame").payload {
        herald_wire::Payload::Hello(_) => false,
        herald_wire::Payload::Arp(arp) => {
            (to_us && arp.operation == arp::Operation::Reply)
                || of_interest(arp.tpa.into())
                || of_interest(arp.spa.into())
        }
        herald_wire::Payload::Ndp(ndp) => {
            (to_us && matches!(ndp.message, ndp::Message::Advertisement { .. }))
                || of_interest(ndp.target().into())
        }
        herald_wire::Payload::Echo(echo) => to_us && echo.operation == echo::Operation::Reply,
    }
}

#[track_caller]
fn agree(program: &Program, interest: &[IpAddr], frame: &Received) {
    let (passes, _) = run(program, frame);
    assert_eq!(
        passes,
        wanted(interest, frame),
        "{:02x?} vlan {:?} among {interest:?}",
        frame.bytes,
        frame.vlan
    );
}

/// Addresses close together, so that hits, neighbours and shared prefixes are frequent.
fn v4() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![
        (0_u8..3, 0_u8..8).prop_map(|(net, host)| Ipv4Addr::new(10, 0, net, host)),
        Just(Ipv4Addr::UNSPECIFIED),
        Just(Ipv4Addr::BROADCAST),
    ]
}

fn v6() -> impl Strategy<Value = Ipv6Addr> {
    let word = || prop_oneof![Just(0_u32), Just(1), Just(2), Just(u32::MAX), Just(u32::MAX - 1)];
    (prop_oneof![Just(0xfd00_0000_u32), Just(0xfd00_0001)], word(), word(), word()).prop_map(
        |(a, b, c, d)| {
            Ipv6Addr::from_bits(
                u128::from(a) << 96 | u128::from(b) << 64 | u128::from(c) << 32 | u128::from(d),
            )
        },
    )
}

fn interest() -> impl Strategy<Value = Vec<IpAddr>> {
    (vec(v4().prop_map(IpAddr::from), 0..20), vec(v6().prop_map(IpAddr::from), 0..20))
        .prop_map(|(v4, v6)| [v4, v6].concat())
}

fn ethernet() -> impl Strategy<Value = Ethernet> {
    let destination = prop_oneof![
        Just(MINE),
        Just(OTHER),
        Just(MacAddr::broadcast()),
        Just(hello::GROUP),
        Just(MacAddr(0x33, 0x33, 0xff, 0, 0, 1)),
    ];
    destination.prop_map(|destination| Ethernet::new(destination, PEER))
}

fn arp_frame() -> impl Strategy<Value = Vec<u8>> {
    let operation = prop_oneof![Just(arp::Operation::Request), Just(arp::Operation::Reply)];
    (ethernet(), operation, v4(), v4()).prop_map(|(ethernet, operation, spa, tpa)| {
        Arp { operation, sha: PEER, spa, tha: MINE, tpa }.to_frame(ethernet)
    })
}

fn ndp_frame() -> impl Strategy<Value = Vec<u8>> {
    (ethernet(), v6(), any::<bool>()).prop_map(|(ethernet, target, ask)| {
        let ask_for = Ndp::who_has(target, Ipv6Addr::LOCALHOST, PEER);
        if ask { ask_for } else { ask_for.answer(PEER).unwrap() }.to_frame(ethernet)
    })
}

fn echo_frame() -> impl Strategy<Value = Vec<u8>> {
    let path = prop_oneof![
        (v4(), v4()).prop_map(|(source, destination)| echo::Path::V4 { source, destination }),
        (v6(), v6()).prop_map(|(source, destination)| echo::Path::V6 { source, destination }),
    ];
    let operation = prop_oneof![Just(echo::Operation::Request), Just(echo::Operation::Reply)];
    (ethernet(), path, operation).prop_map(|(ethernet, path, operation)| {
        Echo { path, operation, identifier: 1, sequence: 2, nonce: [3; 8] }.to_frame(ethernet)
    })
}

/// As long as a hello must be, and parsed as one; the filter looks at the EtherType only.
fn hello_frame() -> impl Strategy<Value = Vec<u8>> {
    ethernet().prop_map(|ethernet| {
        let header = hello::Header {
            cluster: herald_wire::ClusterId(1),
            node: herald_wire::NodeId(1),
            boot: herald_wire::Boot(1),
            ifindex: herald_wire::IfIndex(1),
            counter: herald_wire::Counter(1),
            key: hello::KeyId::default(),
            flags: hello::Flags::NONE,
        };
        let keys = hello::Keyring::new().with(hello::KeyId::default(), &hello::Secret::new([0; 32]));
        let message = hello::Message::Challenge(herald_wire::Salt(0));
        keys.seal(ethernet, &header, &message, 1500).unwrap()
    })
}

prop_compose! {
    fn received()(
        bytes in prop_oneof![3 => arp_frame(), 3 => ndp_frame(), 1 => echo_frame(), 1 => hello_frame()],
        vlan in prop_oneof![6 => Just(None), 1 => Just(Some(0)), 1 => Just(Some(0x2000)), 1 => (1_u16..4095).prop_map(Some)],
    ) -> Received {
        Received { bytes, vlan }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_program_agrees_with_the_predicate(interest in interest(), frames in vec(received(), 1..16)) {
        let program = Program::new(&interest);
        for frame in &frames {
            agree(&program, &interest, frame);
        }
    }

    #[test]
    fn the_program_for_hellos_takes_nothing_else(frame in received()) {
        let foreign_vlan = frame.vlan.is_some_and(|tag| tag & 0xfff != 0);
        let is_hello = frame.bytes[12..14] == [0x88, 0xb5];
        let wanted = is_hello && !foreign_vlan && frame.packet_type() != program::PACKET_OTHERHOST;
        prop_assert_eq!(run(&Program::hello(), &frame).0, wanted);
    }

    #[test]
    fn cut_and_random_frames_are_judged_without_leaving_the_program(
        interest in interest(), frame in received(), len in 0_usize..100, noise in vec(any::<u8>(), 0..80),
    ) {
        let program = Program::new(&interest);
        let len = len.min(frame.bytes.len());
        run(&program, &Received { bytes: frame.bytes[..len].to_vec(), ..frame });
        run(&program, &Received::untagged(noise));
    }

    /// Fewer intervals than addresses: whatever is lost in precision, no address of interest is.
    #[test]
    fn merged_intervals_lose_no_address(interest in interest(), max in 1_usize..6, frame in received()) {
        let program = Program::with_at_most(&interest, max);
        let (passes, _) = run(&program, &frame);
        prop_assert!(passes || !wanted(&interest, &frame));
    }

    #[test]
    fn intervals_are_merged_across_the_smallest_gaps(addresses in vec(0_u32..200, 0..40), max in 1_usize..10) {
        let all = Intervals::v4(addresses.iter().map(|bits| Ipv4Addr::from_bits(*bits)));
        let few = all.at_most(max);
        prop_assert!(few.list.len() <= max);
        prop_assert!(few.list.is_sorted_by(|a, b| a.last + 1 < b.first));
        let covered = |set: &Intervals| set.list.iter().map(|i| i.last - i.first + 1).sum::<u128>();
        let mut gaps: Vec<u128> = all.list.windows(2).map(|pair| pair[1].first - pair[0].last - 1).collect();
        gaps.sort_unstable();
        let filled = all.list.len().saturating_sub(max);
        prop_assert_eq!(covered(&few), covered(&all) + gaps[..filled].iter().sum::<u128>());
    }
}

fn pool(len: u32) -> Vec<IpAddr> {
    (0..len).map(|host| Ipv4Addr::from_bits(0x0a00_0100 + host).into()).collect()
}

#[test]
fn a_foreign_arp_request_costs_a_handful_of_instructions() {
    let foreign = Arp::who_has(Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2), PEER);
    let foreign = Received::untagged(foreign.to_frame(Ethernet::broadcast(PEER)));
    for (pools, most) in [(pool(0), 12), (pool(1), 16), (pool(10_000), 16)] {
        let (passes, steps) = run(&Program::new(&pools), &foreign);
        assert!(!passes && steps <= most, "{} VIPs: {steps} instructions", pools.len());
    }
    let scattered: Vec<IpAddr> =
        (0..10_000).map(|i: u32| Ipv4Addr::from_bits(i.wrapping_mul(0x9e37_79b9)).into()).collect();
    let (_, steps) = run(&Program::new(&scattered), &foreign);
    assert!(steps <= 40, "scattered: {steps} instructions");
}

#[test]
fn programs_stay_within_the_kernels_limit() {
    let scattered = |i: u32| {
        let spread = u128::from(i.wrapping_mul(0x9e37_79b9)) | 1;
        let v6 = Ipv6Addr::from_bits(spread.wrapping_mul(0x2545_f491_4f6c_dd1d_1234_5678_9abc_def1));
        [IpAddr::from(Ipv4Addr::from_bits(i.wrapping_mul(0x9e37_79b9))), IpAddr::from(v6)]
    };
    for count in [0, 1, 100, 128, 129, 1000, 20_000] {
        let interest: Vec<IpAddr> = (0..count).flat_map(scattered).collect();
        let program = Program::new(&interest);
        assert!(program.instructions().len() <= MAX_LEN, "{count}: {}", program.instructions().len());
        for address in interest.iter().step_by(interest.len() / 50 + 1) {
            let frame = match *address {
                IpAddr::V4(ip) => Arp::probe(ip, PEER).to_frame(Ethernet::broadcast(PEER)),
                IpAddr::V6(ip) => Ndp::probe(ip).to_frame(Ethernet::multicast(ndp::solicited_node(ip), PEER)),
            };
            assert!(run(&program, &Received::untagged(frame)).0, "{address} of {count}");
        }
    }
}

#[test]
fn adjacent_addresses_are_one_interval_also_at_the_ends_of_the_range() {
    let all = Intervals::v6([u128::MAX, 0, u128::MAX - 1, 1, u128::MAX].map(Ipv6Addr::from_bits).into_iter());
    let ends = |interval: &intervals::Interval| (interval.first, interval.last);
    assert_eq!(all.list.iter().map(ends).collect::<Vec<_>>(), [(0, 1), (u128::MAX - 1, u128::MAX)]);
}
