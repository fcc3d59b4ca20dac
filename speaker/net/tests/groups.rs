//! Solicited-node memberships in the kernel. Needs root, touches only its own namespaces.

#![cfg(test)]

mod namespace;

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv6Addr;

use herald_net::groups::SolicitedNodeGroups;
use herald_wire::ndp::solicited_node;

fn with_interface<T: Send>(test: impl FnOnce(u32) -> T + Send) -> T {
    namespace::in_a_new_one(|| {
        namespace::ip("link add ours type veth peer name peer");
        namespace::ip("link set ours up");
        test(namespace::ifindex("ours"))
    })
}

fn group(i: u32) -> Ipv6Addr {
    solicited_node(Ipv6Addr::from_bits(u128::from(0x0010_0000 + i)))
}

/// Our groups that the kernel receives on `ours`, with how many sockets are members of each.
fn in_the_kernel() -> BTreeSet<(Ipv6Addr, u32)> {
    let table = fs::read_to_string("/proc/thread-self/net/igmp6").unwrap();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[1] == "ours")
        .map(|row| (Ipv6Addr::from_bits(u128::from_str_radix(row[2], 16).unwrap()), row[3].parse().unwrap()))
        .filter(|(group, _)| group.octets()[13] == 0x10)
        .collect()
}

fn once(groups: impl IntoIterator<Item = u32>) -> BTreeSet<(Ipv6Addr, u32)> {
    groups.into_iter().map(|i| (group(i), 1)).collect()
}

#[test]
fn joining_and_leaving_is_idempotent() {
    with_interface(|ours| {
        let mut groups = SolicitedNodeGroups::new();
        for i in [1, 2, 1] {
            groups.join(ours, group(i)).unwrap();
        }
        assert_eq!((in_the_kernel(), groups.len()), (once([1, 2]), 2));
        groups.leave(ours, group(1));
        groups.leave(ours, group(1));
        groups.leave(ours, group(99));
        assert_eq!((in_the_kernel(), groups.len()), (once([2]), 1));
        drop(groups);
        assert!(in_the_kernel().is_empty());
    });
}

#[test]
fn more_groups_than_one_socket_holds_are_all_joined() {
    with_interface(|ours| {
        namespace::write("/proc/sys/net/core/optmem_max", "20480");
        let mut groups = SolicitedNodeGroups::new();
        for i in 0..3000 {
            groups.join(ours, group(i)).unwrap();
        }
        assert_eq!(in_the_kernel(), once(0..3000));
        // Room that was given back is used again.
        for i in 0..1000 {
            groups.leave(ours, group(i));
        }
        for i in 5000..6000 {
            groups.join(ours, group(i)).unwrap();
        }
        assert_eq!(in_the_kernel(), once((1000..3000).chain(5000..6000)));
    });
}

#[test]
fn memberships_survive_an_interface_that_is_created_again_under_its_index() {
    with_interface(|ours| {
        let mut groups = SolicitedNodeGroups::new();
        groups.join(ours, group(1)).unwrap();
        namespace::ip("link del ours");
        groups.rejoin(ours).expect_err("there is no such interface");
        assert!(groups.is_empty(), "what could not be joined is not counted as joined");
        namespace::ip(&format!("link add ours index {ours} type veth peer name peer"));
        namespace::ip("link set ours up");
        groups.join(ours, group(1)).unwrap();
        assert_eq!(in_the_kernel(), once([1]));
    });
}

#[test]
fn memberships_survive_a_loss_of_ipv6() {
    with_interface(|ours| {
        let mut groups = SolicitedNodeGroups::new();
        groups.join(ours, group(1)).unwrap();
        // Below 1280 octets the kernel takes IPv6 off the interface.
        namespace::ip("link set ours mtu 1000");
        assert!(in_the_kernel().is_empty());
        namespace::ip("link set ours mtu 1500");
        assert!(in_the_kernel().is_empty(), "the kernel does not bring them back");
        groups.rejoin(ours).unwrap();
        assert_eq!(in_the_kernel(), once([1]));
    });
}

#[test]
fn a_forgotten_interface_takes_no_room() {
    with_interface(|ours| {
        namespace::write("/proc/sys/net/core/optmem_max", "20480");
        let mut groups = SolicitedNodeGroups::new();
        for i in 0..100 {
            groups.join(ours, group(i)).unwrap();
        }
        namespace::ip("link del ours");
        groups.forget_interface(ours);
        assert!(groups.is_empty());
        groups.join(ours, group(1)).expect_err("gone");
    });
}
