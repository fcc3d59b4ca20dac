//! The packet socket and its filter in the kernel, over a veth pair. Needs root, touches only its own namespaces.

#![cfg(test)]

mod namespace;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use herald_net::clock::boottime_nanos;
use herald_net::poller::{Poller, Token};
use herald_net::{L2Socket, OpenError, Queues, is_unbound};
use herald_wire::hello::{self, Header, KeyId, Keyring, Message, Secret};
use herald_wire::{
    Arp, Boot, ClusterId, Counter, Echo, Ethernet, IfIndex, MacAddr, Ndp, NodeId, Salt, arp, echo, ndp,
};

const OURS: MacAddr = MacAddr(0x02, 0, 0, 0, 0, 1);
const PEER: MacAddr = MacAddr(0x02, 0, 0, 0, 0, 2);
const OTHER: MacAddr = MacAddr(0x02, 0, 0, 0, 0, 9);
const VIP4: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 240);
const FOREIGN4: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 7);
const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, 0x240);
const FOREIGN6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, 7);

/// Our socket with both VIPs of interest, and the peer's, which is used for sending.
fn sockets() -> (L2Socket, L2Socket) {
    let ours = L2Socket::open(namespace::ifindex("ours"), &[VIP4.into(), VIP6.into()]).unwrap();
    let peer = L2Socket::open(namespace::ifindex("peer"), &[]).unwrap();
    (ours, peer)
}

/// Waits for the next frame.
fn next(socket: &L2Socket) -> Vec<u8> {
    next_until(socket, None).expect("without a deadline")
}

/// Waits for the next frame until a deadline has passed, in nanoseconds.
fn next_until(socket: &L2Socket, deadline: Option<u64>) -> Option<Vec<u8>> {
    let mut poller = Poller::new().unwrap();
    poller.add(socket, Token(0)).unwrap();
    let mut buffer = [0; 2048];
    loop {
        if let Some(frame) = socket.receive(&mut buffer).unwrap() {
            return Some(frame.to_vec());
        }
        if poller.wait(deadline).unwrap().deadline {
            return None;
        }
    }
}

/// Sends `frame` from the peer many times, never more than the kernel's queue of arriving frames holds: what was sent
/// has been judged when this returns.
fn flood(peer: &L2Socket, frame: &[u8], count: usize) {
    const WITNESSED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
    let witness = L2Socket::open(namespace::ifindex("ours"), &[WITNESSED.into()]).unwrap();
    let mark = Arp::probe(WITNESSED, PEER).to_frame(Ethernet::broadcast(PEER));
    let mut left = count;
    while left > 0 {
        let chunk = left.min(200);
        (0..chunk).for_each(|_| peer.send(frame).unwrap());
        left -= chunk;
        let arrived = || {
            peer.send(&mark).unwrap();
            let deadline = boottime_nanos() + 100_000_000;
            std::iter::from_fn(|| next_until(&witness, Some(deadline))).any(|frame| frame == mark)
        };
        while !arrived() {}
    }
}

/// An answer to us, which every filter lets pass: sent last, it shows that what came before has been judged.
fn end() -> Vec<u8> {
    let sender = Ipv4Addr::new(192, 0, 2, 1);
    Arp::who_has(sender, sender, OURS).answer(PEER).to_frame(Ethernet::new(OURS, PEER))
}

fn hello(counter: u64, destination: MacAddr) -> Vec<u8> {
    let header = Header {
        cluster: ClusterId(1),
        node: NodeId(1),
        boot: Boot(1),
        ifindex: IfIndex(1),
        counter: Counter(counter),
        key: KeyId::default(),
        flags: hello::Flags::NONE,
    };
    let keys = Keyring::new().with(KeyId::default(), &Secret::new([0; Secret::LEN]));
    keys.seal(Ethernet::new(destination, PEER), &header, &Message::Challenge(Salt(0)), 1500).unwrap()
}

/// Sends the frames from the peer; returns the places of those that reached us.
fn passing(ours: &L2Socket, peer: &L2Socket, frames: &[Vec<u8>]) -> Vec<usize> {
    let last = end();
    for frame in frames.iter().chain([&last]) {
        peer.send(frame).unwrap();
    }
    let mut passed = Vec::new();
    loop {
        let frame = next(ours);
        if frame == last {
            return passed;
        }
        let place = frames.iter().position(|sent| without_tag(sent) == frame);
        passed.push(place.unwrap_or_else(|| panic!("not sent: {frame:02x?}")));
    }
}

/// As the socket shows it: the kernel has taken the VLAN tag off.
fn without_tag(frame: &[u8]) -> Vec<u8> {
    match frame {
        [addresses @ .., _, _] if addresses.len() >= 16 && frame[12..14] == [0x81, 0] => {
            [&frame[..12], &frame[16..]].concat()
        }
        _ => frame.to_vec(),
    }
}

fn tagged(frame: &[u8], tag: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &tag.to_be_bytes(), &frame[12..]].concat()
}

#[track_caller]
fn judge(ours: &L2Socket, peer: &L2Socket, cases: &[(&str, Vec<u8>, bool)]) {
    let frames: Vec<_> = cases.iter().map(|(_, frame, _)| frame.clone()).collect();
    let passed = passing(ours, peer, &frames);
    for (place, (name, _, passes)) in cases.iter().enumerate() {
        assert_eq!(passed.contains(&place), *passes, "{name}");
    }
}

#[test]
fn the_kernel_judges_arp_by_the_filter() {
    let all = Ethernet::broadcast(PEER);
    let reply = Arp { operation: arp::Operation::Reply, sha: PEER, spa: FOREIGN4, tha: OURS, tpa: FOREIGN4 };
    let ask_vip = Arp::who_has(VIP4, FOREIGN4, PEER);
    let ask_foreign = Arp::who_has(FOREIGN4, Ipv4Addr::new(192, 168, 1, 8), PEER);
    namespace::with_veth(|| {
        let (ours, peer) = sockets();
        judge(
            &ours,
            &peer,
            &[
                ("who-has VIP", ask_vip.to_frame(all), true),
                ("who-has VIP, unicast", ask_vip.to_frame(Ethernet::new(OURS, PEER)), true),
                ("who-has VIP, to another host", ask_vip.to_frame(Ethernet::new(OTHER, PEER)), false),
                ("who-has foreign", ask_foreign.to_frame(all), false),
                ("who-has foreign, unicast", ask_foreign.to_frame(Ethernet::new(OURS, PEER)), false),
                ("probe for the VIP", Arp::probe(VIP4, PEER).to_frame(all), true),
                ("announcement of the VIP", Arp::gratuitous_reply(VIP4, PEER).to_frame(all), true),
                ("who-has foreign tell VIP", Arp::who_has(FOREIGN4, VIP4, PEER).to_frame(all), true),
                ("answer to our probe", reply.to_frame(Ethernet::new(OURS, PEER)), true),
                ("answer to somebody else", reply.to_frame(Ethernet::new(OTHER, PEER)), false),
                ("foreign announcement", reply.to_frame(all), false),
                ("cut short", ask_vip.to_frame(all)[..40].to_vec(), false),
                ("in VLAN 5", tagged(&ask_vip.to_frame(all), 5), false),
                ("priority tag", tagged(&Arp::probe(VIP4, OTHER).to_frame(all), 0xe000), true),
            ],
        );
    });
}

#[test]
fn the_kernel_judges_neighbour_discovery_by_the_filter() {
    let all = Ethernet::multicast(ndp::ALL_NODES, PEER);
    let ask = |target| Ndp::who_has(target, FOREIGN6, PEER);
    let to_group = |target| Ethernet::multicast(ndp::solicited_node(target), PEER);
    let answer = ask(FOREIGN6).answer(PEER).unwrap();
    namespace::with_veth(|| {
        let (ours, peer) = sockets();
        // The veth end has not joined the VIP's group, and a veth takes every multicast frame anyway.
        judge(
            &ours,
            &peer,
            &[
                ("solicitation for the VIP", ask(VIP6).to_frame(to_group(VIP6)), true),
                ("duplicate address probe", Ndp::probe(VIP6).to_frame(to_group(VIP6)), true),
                ("reachability probe", ask(VIP6).to_frame(Ethernet::new(OURS, PEER)), true),
                ("foreign solicitation", ask(FOREIGN6).to_frame(to_group(FOREIGN6)), false),
                ("foreign solicitation, unicast", ask(FOREIGN6).to_frame(Ethernet::new(OURS, PEER)), false),
                ("announcement of the VIP", Ndp::announcement(VIP6, PEER).to_frame(all), true),
                ("foreign announcement", Ndp::announcement(FOREIGN6, PEER).to_frame(all), false),
                ("answer to our probe", answer.to_frame(Ethernet::new(OURS, PEER)), true),
                ("answer to somebody else", answer.to_frame(Ethernet::new(OTHER, PEER)), false),
                ("in VLAN 7", tagged(&ask(VIP6).to_frame(to_group(VIP6)), 7), false),
            ],
        );
    });
}

#[test]
fn the_kernel_judges_echo_and_hello_by_the_filter() {
    let v4 = echo::Path::V4 { source: FOREIGN4, destination: VIP4 };
    let v6 = echo::Path::V6 { source: FOREIGN6, destination: VIP6 };
    let echo = |path, operation, to| {
        Echo { path, operation, identifier: 1, sequence: 1, nonce: [1; 8] }.to_frame(Ethernet::new(to, PEER))
    };
    let mut longer = echo(v4, echo::Operation::Reply, OURS);
    longer[17] += 1;
    longer.push(0);
    namespace::with_veth(|| {
        let (ours, peer) = sockets();
        judge(
            &ours,
            &peer,
            &[
                ("IPv4 reply", echo(v4, echo::Operation::Reply, OURS), true),
                ("IPv6 reply", echo(v6, echo::Operation::Reply, OURS), true),
                ("IPv4 request", echo(v4, echo::Operation::Request, OURS), false),
                ("IPv6 request", echo(v6, echo::Operation::Request, OURS), false),
                ("IPv4 reply to another host", echo(v4, echo::Operation::Reply, OTHER), false),
                ("IPv6 reply to another host", echo(v6, echo::Operation::Reply, OTHER), false),
                ("IPv4 reply to everybody", echo(v4, echo::Operation::Reply, MacAddr::broadcast()), false),
                ("somebody's longer ping", longer, false),
                ("hello", hello(1, hello::GROUP), true),
                ("hello to us", hello(2, OURS), true),
                ("hello to another host", hello(3, OTHER), false),
                ("hello in VLAN 5", tagged(&hello(4, hello::GROUP), 5), false),
            ],
        );
    });
}

#[test]
fn interest_is_replaced_on_an_open_socket() {
    let ask = |vip| Arp::who_has(vip, FOREIGN4, PEER).to_frame(Ethernet::broadcast(PEER));
    let other_vip = Ipv4Addr::new(192, 168, 1, 241);
    let frames = [ask(VIP4), ask(other_vip)];
    namespace::with_veth(|| {
        let (ours, peer) = sockets();
        assert_eq!(passing(&ours, &peer, &frames), [0]);
        ours.set_interest(&[other_vip.into()]).unwrap();
        assert_eq!(passing(&ours, &peer, &frames), [1]);
        ours.set_interest(&[]).unwrap();
        assert!(passing(&ours, &peer, &frames).is_empty());
    });
}

/// Ten thousand addresses of each family, scattered, with as little option memory as older kernels grant.
#[test]
fn many_scattered_addresses_are_accepted_whatever_memory_the_kernel_grants() {
    let scattered = |i: u32| {
        let spread = i.wrapping_mul(0x9e37_79b9);
        let wide = (u128::from(spread) | 1).wrapping_mul(0x2545_f491_4f6c_dd1d_1234_5678_9abc_def1);
        [IpAddr::from(Ipv4Addr::from_bits(spread)), IpAddr::from(Ipv6Addr::from_bits(wide))]
    };
    let interest: Vec<IpAddr> = (1..=10_000).flat_map(scattered).collect();
    let some: Vec<Vec<u8>> = interest
        .iter()
        .step_by(199)
        .map(|vip| match *vip {
            IpAddr::V4(vip) => Arp::probe(vip, PEER).to_frame(Ethernet::broadcast(PEER)),
            IpAddr::V6(vip) => Ndp::probe(vip).to_frame(Ethernet::multicast(ndp::solicited_node(vip), PEER)),
        })
        .collect();
    for optmem_max in ["131072", "20480"] {
        namespace::with_veth(|| {
            namespace::write("/proc/sys/net/core/optmem_max", optmem_max);
            let (ours, peer) = sockets();
            // The kernel charges the old and the new filter while it swaps them.
            for round in 0..3 {
                ours.set_interest(&interest).unwrap();
                let passed = passing(&ours, &peer, &some).len();
                assert_eq!(passed, some.len(), "optmem_max {optmem_max}, round {round}");
            }
        });
    }
}

#[test]
fn own_frames_do_not_come_back() {
    namespace::with_veth(|| {
        let (ours, peer) = sockets();
        let announcement = Arp::gratuitous_request(VIP4, OURS).to_frame(Ethernet::broadcast(OURS));
        peer.set_interest(&[VIP4.into()]).unwrap();
        ours.send(&announcement).unwrap();
        assert_eq!(next(&peer), announcement, "it went out");
        assert!(passing(&ours, &peer, &[]).is_empty());
    });
}

/// Opened in the middle of a storm, a socket never holds a frame that its filter would not let pass.
#[test]
fn nothing_is_queued_before_the_filter_is_there() {
    let foreign = Arp::who_has(FOREIGN4, FOREIGN4, PEER).to_frame(Ethernet::broadcast(PEER));
    namespace::with_veth(|| {
        let peer = L2Socket::open(namespace::ifindex("peer"), &[]).unwrap();
        let ifindex = namespace::ifindex("ours");
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    peer.send(&foreign).unwrap();
                }
            });
            for _ in 0..100 {
                let ours = L2Socket::open(ifindex, &[VIP4.into()]).unwrap();
                assert_eq!(ours.receive(&mut [0; 64]).unwrap(), None);
            }
            over.store(true, Ordering::Relaxed);
        });
    });
}

#[test]
fn a_storm_of_foreign_arp_reaches_nobody_and_fills_nothing() {
    let foreign =
        Arp::who_has(FOREIGN4, Ipv4Addr::new(192, 168, 1, 8), PEER).to_frame(Ethernet::broadcast(PEER));
    namespace::with_veth(|| {
        let (ours, peer) = sockets();
        flood(&peer, &foreign, 100_000);
        assert!(passing(&ours, &peer, &[]).is_empty());
        assert_eq!(ours.take_drops().unwrap(), 0);
    });
}

#[test]
fn frames_that_find_the_buffer_full_are_counted_once() {
    let ask = Arp::who_has(VIP4, FOREIGN4, PEER).to_frame(Ethernet::broadcast(PEER));
    namespace::with_veth(|| {
        let (ours, peer) = sockets();
        flood(&peer, &ask, 20_000);
        let mut received = 0;
        while ours.receive(&mut [0; 64]).unwrap().is_some() {
            received += 1;
        }
        let drops = ours.take_drops().unwrap();
        assert!(drops > 0, "the buffer held all {received}");
        assert_eq!(received + drops, 20_000);
        assert_eq!(ours.take_drops().unwrap(), 0);
    });
}

#[test]
fn a_flood_of_questions_neither_delays_nor_loses_a_hello() {
    let ask = Arp::who_has(VIP4, FOREIGN4, PEER).to_frame(Ethernet::broadcast(PEER));
    namespace::with_veth(|| {
        let (ours, peer) = sockets();
        flood(&peer, &ask, 20_000);
        let hellos: Vec<_> = (0..50).map(|counter| hello(counter, hello::GROUP)).collect();
        for hello in &hellos {
            peer.send(hello).unwrap();
        }
        for hello in &hellos {
            assert_eq!(next(&ours), *hello);
        }
        assert_eq!(next(&ours), ask);
    });
}

#[test]
fn a_flood_of_hellos_does_not_keep_a_question_from_being_read() {
    namespace::with_veth(|| {
        let (ours, peer) = sockets();
        flood(&peer, &hello(1, hello::GROUP), 100);
        let question = Arp::who_has(VIP4, FOREIGN4, PEER).to_frame(Ethernet::broadcast(PEER));
        peer.send(&question).unwrap();
        let mut buffer = [0; 2048];
        let read = loop {
            if let Some(frame) = ours.receive_from(Queues::OthersOnly, &mut buffer).unwrap() {
                break frame.to_vec();
            }
            thread::yield_now();
        };
        assert_eq!(read, question);
        assert_eq!(next(&ours), hello(1, hello::GROUP));
    });
}

#[test]
fn a_hello_overtakes_what_applications_have_queued() {
    namespace::with_veth(|| {
        let (ours, peer) = sockets();
        namespace::ip("addr add 10.0.0.1/24 dev ours");
        namespace::ip("neigh add 10.0.0.2 lladdr 02:00:00:00:00:02 dev ours");
        // 1,000 octets a second: the datagrams below take ten.
        namespace::tc("qdisc add dev ours root handle 1: tbf rate 8kbit burst 2000 limit 100000");
        namespace::tc("qdisc add dev ours parent 1: pfifo_fast");
        let application = UdpSocket::bind("10.0.0.1:0").unwrap();
        for _ in 0..20 {
            application.send_to(&[0; 458], "10.0.0.2:9").unwrap();
        }
        let hello = hello(1, hello::GROUP);
        ours.send(&hello).unwrap();
        assert_eq!(next(&peer), hello);
        let queued = namespace::tc("-s qdisc show dev ours");
        assert!(!queued.contains("backlog 0b 0p"), "the datagrams went first: {queued}");
    });
}

#[test]
fn the_hello_group_is_joined_as_long_as_the_socket_is_open() {
    namespace::with_veth(|| {
        let joined = || namespace::ip("maddr show dev ours").contains("03:68:65:72:6c:64");
        assert!(!joined());
        let socket = L2Socket::open(namespace::ifindex("ours"), &[]).unwrap();
        assert!(joined());
        drop(socket);
        assert!(!joined());
    });
}

#[test]
fn an_interface_that_goes_down_and_up_is_heard_again() {
    namespace::with_veth(|| {
        let (ours, peer) = sockets();
        namespace::ip("link set ours down");
        assert_eq!(ours.receive(&mut [0; 64]).unwrap(), None, "no error");
        let frame = hello(1, hello::GROUP);
        assert_eq!(ours.send(&frame).unwrap_err().raw_os_error(), Some(libc::ENETDOWN));
        namespace::ip("link set ours up");
        namespace::wait_for_carrier(&["ours", "peer"]);
        assert!(passing(&ours, &peer, &[]).is_empty());
        ours.send(&frame).unwrap();
        assert_eq!(next(&peer), frame);
    });
}

#[test]
fn an_interface_that_is_gone_is_an_error_that_says_so() {
    namespace::with_veth(|| {
        let (ours, _peer) = sockets();
        let ifindex = ours.ifindex();
        namespace::ip("link del ours");
        assert!(is_unbound(&ours.send(&hello(1, hello::GROUP)).unwrap_err()));
        let error = L2Socket::open(ifindex, &[]).unwrap_err();
        assert!(matches!(error, OpenError::NoInterface { ifindex: named } if named == ifindex), "{error}");
    });
}

#[test]
fn a_missing_capability_is_an_error_that_says_what_to_do() {
    namespace::with_veth(|| {
        let ifindex = namespace::ifindex("ours");
        namespace::become_nobody();
        let error = L2Socket::open(ifindex, &[]).unwrap_err();
        assert!(matches!(error, OpenError::NotPermitted), "{error}");
        assert!(error.to_string().contains("NET_RAW"), "{error}");
    });
}
