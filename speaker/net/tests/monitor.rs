//! The interface monitor against the kernel. Needs root, touches only its own namespaces.

#![cfg(test)]

mod namespace;

use std::fs;
use std::net::Ipv4Addr;

use herald_net::monitor::{Address, Gateway, Interface, Monitor};
use herald_wire::MacAddr;

/// Waits until the interface looks as it should.
fn until(monitor: &mut Monitor, name: &str, wanted: impl Fn(&Interface) -> bool) -> Interface {
    loop {
        let found = monitor.changed().unwrap().into_iter().find(|interface| interface.name == name);
        if let Some(interface) = found.filter(|interface| wanted(interface)) {
            return interface;
        }
    }
}

fn address(text: &str) -> Address {
    Address { net: text.parse().unwrap(), tentative: false }
}

#[test]
fn the_first_picture_is_complete() {
    namespace::with_veth(|| {
        namespace::ip("addr add 10.0.0.1/24 dev ours");
        namespace::ip("addr add 10.0.0.2/24 dev ours");
        namespace::ip("route add default via 10.0.0.254 metric 100");
        namespace::ip("link set ours mtu 1400");
        // As a dummy such as kube-ipvs0: without ARP.
        namespace::ip("link add kube-ipvs0 type veth peer name kube-ipvs1");
        namespace::ip("link set kube-ipvs0 arp off");
        namespace::ip("link set kube-ipvs1 arp off");
        namespace::ip("addr add 10.9.9.9/32 dev kube-ipvs0");
        let interfaces = Monitor::open().unwrap().changed().unwrap();
        let names: Vec<_> = interfaces.iter().map(|interface| interface.name.as_str()).collect();
        assert!(names == ["peer", "ours"] || names == ["ours", "peer"], "no lo, none without ARP: {names:?}");
        assert!(interfaces.is_sorted_by_key(|interface| interface.ifindex));
        let ours = interfaces.into_iter().find(|interface| interface.name == "ours").unwrap();
        assert_eq!(
            ours,
            Interface {
                ifindex: namespace::ifindex("ours"),
                name: "ours".to_owned(),
                mac: MacAddr(0x02, 0, 0, 0, 0, 1),
                carrier: true,
                mtu: 1400,
                master: None,
                addresses: vec![address("10.0.0.1/24"), address("10.0.0.2/24")],
                gateway_v4: Some(Gateway { metric: 100, ip: Ipv4Addr::new(10, 0, 0, 254) }),
                gateway_v6: None,
            }
        );
    });
}

#[test]
fn changes_of_a_link_are_seen() {
    namespace::with_veth(|| {
        let mut monitor = Monitor::open().unwrap();
        until(&mut monitor, "ours", |ours| ours.carrier);
        namespace::ip("link set peer down");
        until(&mut monitor, "ours", |ours| !ours.carrier);
        namespace::ip("link set peer up");
        until(&mut monitor, "ours", |ours| ours.carrier);
        namespace::ip("link set ours address 02:00:00:00:00:aa");
        until(&mut monitor, "ours", |ours| ours.mac == MacAddr(0x02, 0, 0, 0, 0, 0xaa));
        namespace::ip("link set ours mtu 9000");
        until(&mut monitor, "ours", |ours| ours.mtu == 9000);
        namespace::ip("link add br0 type bridge");
        let bridge = namespace::ifindex("br0");
        namespace::ip("link set ours master br0");
        until(&mut monitor, "ours", |ours| ours.master == Some(bridge));
        // The bridge's own message that a port is gone must not be taken for the link's end.
        namespace::ip("link set ours nomaster");
        until(&mut monitor, "ours", |ours| ours.master.is_none());
        namespace::ip("link set ours down");
        namespace::ip("link set ours name renamed");
        let renamed = until(&mut monitor, "renamed", |_| true);
        namespace::ip("link del renamed");
        while monitor.changed().unwrap().iter().any(|interface| interface.ifindex == renamed.ifindex) {}
        namespace::ip("link add ours type veth peer name peer");
        let again = until(&mut monitor, "ours", |_| true);
        assert_ne!(again.ifindex, renamed.ifindex);
    });
}

#[test]
fn addresses_are_seen_and_tentative_ones_marked() {
    namespace::in_a_new_one(|| {
        namespace::ip("link add ours type veth peer name peer");
        namespace::ip("link set ours up");
        namespace::ip("link set peer up");
        let mut monitor = Monitor::open().unwrap();
        namespace::ip("addr add 10.0.0.1/24 dev ours");
        until(&mut monitor, "ours", |ours| ours.addresses.contains(&address("10.0.0.1/24")));
        namespace::ip("addr add fd00::1/64 dev ours");
        let with = |tentative| Address { tentative, ..address("fd00::1/64") };
        until(&mut monitor, "ours", |ours| ours.addresses.contains(&with(true)));
        until(&mut monitor, "ours", |ours| ours.addresses.contains(&with(false)));
        // The same address at the other end: detection fails.
        namespace::ip("addr add fd00::2/64 dev ours nodad");
        namespace::ip("addr add fd00::2/64 dev peer");
        let duplicate = Address { tentative: true, ..address("fd00::2/64") };
        until(&mut monitor, "peer", |peer| peer.addresses.contains(&duplicate));
        while namespace::ip("addr show dev peer dadfailed").is_empty() {}
        namespace::ip("addr add 10.7.7.7/24 dev peer");
        let peer = until(&mut monitor, "peer", |peer| peer.addresses.contains(&address("10.7.7.7/24")));
        assert!(peer.addresses.contains(&duplicate), "still not usable: {:?}", peer.addresses);
        namespace::ip("addr del 10.0.0.1/24 dev ours");
        until(&mut monitor, "ours", |ours| !ours.addresses.contains(&address("10.0.0.1/24")));
    });
}

#[test]
fn a_point_to_point_address_is_the_local_one() {
    namespace::with_veth(|| {
        namespace::ip("addr add 10.0.0.1 peer 10.0.0.2/32 dev ours");
        let mut monitor = Monitor::open().unwrap();
        let ours = until(&mut monitor, "ours", |_| true);
        assert_eq!(ours.addresses, [address("10.0.0.1/32")]);
    });
}

#[test]
fn gateways_come_and_go_with_routes_links_and_addresses() {
    namespace::with_veth(|| {
        namespace::write("/proc/sys/net/ipv6/conf/ours/disable_ipv6", "0");
        namespace::ip("addr add 10.0.0.1/24 dev ours");
        namespace::ip("addr add fd00::1/64 dev ours nodad");
        let mut monitor = Monitor::open().unwrap();
        let v4 = |metric, host| Some(Gateway { metric, ip: Ipv4Addr::new(10, 0, 0, host) });
        namespace::ip("route add default via 10.0.0.254 metric 200");
        until(&mut monitor, "ours", |ours| ours.gateway_v4 == v4(200, 254));
        namespace::ip("route add default via 10.0.0.253");
        until(&mut monitor, "ours", |ours| ours.gateway_v4 == v4(0, 253));
        namespace::ip("route add default via 10.0.0.250 table 100");
        namespace::ip("route del default via 10.0.0.253");
        until(&mut monitor, "ours", |ours| ours.gateway_v4 == v4(200, 254));
        namespace::ip("-6 route add default via fe80::1 dev ours metric 50");
        let v6 = Gateway { metric: 50, ip: "fe80::1".parse().unwrap() };
        until(&mut monitor, "ours", |ours| ours.gateway_v6 == Some(v6));
        // The kernel tells nobody about routes that go with a link or an address.
        namespace::ip("link set ours down");
        until(&mut monitor, "ours", |ours| ours.gateway_v4.is_none());
        namespace::ip("link set ours up");
        namespace::ip("route add default via 10.0.0.254");
        until(&mut monitor, "ours", |ours| ours.gateway_v4 == v4(0, 254));
        namespace::ip("addr del 10.0.0.1/24 dev ours");
        until(&mut monitor, "ours", |ours| ours.gateway_v4.is_none());
        namespace::ip("addr add 10.0.0.1/24 dev ours");
        namespace::ip("route add default nexthop via 10.0.0.3 dev ours nexthop via 10.0.0.2 dev ours");
        until(&mut monitor, "ours", |ours| ours.gateway_v4 == v4(0, 2));
    });
}

#[test]
fn a_link_that_was_left_out_comes_in_with_its_addresses() {
    namespace::with_veth(|| {
        namespace::ip("link set ours arp off");
        namespace::ip("addr add 10.0.0.1/24 dev ours");
        let mut monitor = Monitor::open().unwrap();
        let interfaces = monitor.changed().unwrap();
        assert!(!interfaces.iter().any(|interface| interface.name == "ours"), "{interfaces:?}");
        namespace::ip("link set ours arp on");
        let ours = until(&mut monitor, "ours", |_| true);
        assert_eq!(ours.addresses, [address("10.0.0.1/24")]);
    });
}

/// More events than the socket's buffer holds, all unread: the picture is whole nevertheless.
#[test]
fn lost_events_lead_to_a_full_look() {
    namespace::with_veth(|| {
        let mut monitor = Monitor::open().unwrap();
        until(&mut monitor, "ours", |_| true);
        let adds = (0..5000).map(|i| format!("addr add 10.1.{}.{}/16 dev ours", i / 250, i % 250 + 1));
        namespace::ip_batch(&adds.collect::<Vec<_>>());
        assert!(netlink_drops() > 0, "the test made too few events to lose any");
        until(&mut monitor, "ours", |ours| ours.addresses.len() == 5000);
    });
}

/// Datagrams that netlink sockets of this namespace lost.
fn netlink_drops() -> u64 {
    let table = fs::read_to_string("/proc/thread-self/net/netlink").unwrap();
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.map(|row| row[8].parse::<u64>().unwrap()).sum()
}
