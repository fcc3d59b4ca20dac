//! Which interface carries an address (rule A50), as a pure function.
//!
//! Exactly one, or none: the interface whose subnet holds the address, else the default route's, else one that the
//! spec names; never a device that has a master; the lowest metric, then the lowest ifindex.

use std::net::IpAddr;

use crate::input::{Interface, VipSpec};

/// The interface for this spec.
pub(crate) fn place<'a>(
    spec: &VipSpec,
    interfaces: impl Iterator<Item = &'a Interface> + Clone,
) -> Option<u32> {
    let allowed = interfaces.filter(|iface| is_usable(iface)).filter(|iface| {
        spec.interfaces.is_empty() || spec.interfaces.iter().any(|glob| glob_matches(glob, &iface.name))
    });
    let best = |holds: &dyn Fn(&Interface) -> bool| {
        allowed.clone().filter(|iface| holds(iface)).min_by_key(|iface| (iface.metric, iface.ifindex))
    };
    best(&|iface| holds_subnet(iface, spec.vip))
        .or_else(|| best(&|iface| has_default_route(iface, spec.vip)))
        .or_else(|| if spec.interfaces.is_empty() { None } else { best(&|_| true) })
        .map(|iface| iface.ifindex)
}

/// An Ethernet device of its own.
pub(crate) fn is_usable(iface: &Interface) -> bool {
    !iface.has_master && !iface.mac.is_zero() && !iface.mac.is_multicast()
}

/// Worth a segment before any address needs it, so that the first one does not wait for LISTEN (rule A24).
pub(crate) fn is_likely(iface: &Interface, any_default_route: bool) -> bool {
    is_usable(iface)
        && if any_default_route {
            iface.gateway_v4.is_some() || iface.gateway_v6.is_some()
        } else {
            !iface.addresses.is_empty()
        }
}

fn holds_subnet(iface: &Interface, vip: IpAddr) -> bool {
    iface.addresses.iter().any(|net| net.contains(&vip) && !net.addr().is_loopback())
}

fn has_default_route(iface: &Interface, vip: IpAddr) -> bool {
    match vip {
        IpAddr::V4(_) => iface.gateway_v4.is_some(),
        IpAddr::V6(_) => iface.gateway_v6.is_some(),
    }
}

/// Does an interface's name match a pattern with `*` (any text) and `?` (any one character)?
pub fn glob_matches(pattern: &str, name: &str) -> bool {
    let mut pattern_left = pattern.chars();
    match pattern_left.next() {
        None => name.is_empty(),
        Some('*') => {
            let rest = pattern_left.as_str();
            (0..=name.len()).filter_map(|at| name.get(at..)).any(|tail| glob_matches(rest, tail))
        }
        Some(first) => {
            let mut name_left = name.chars();
            match name_left.next() {
                Some(c) if first == '?' || first == c => {
                    glob_matches(pattern_left.as_str(), name_left.as_str())
                }
                _ => false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use herald_wire::{MacAddr, Revision};

    use super::*;
    use crate::input::Nodes;

    fn iface(ifindex: u32, name: &str, address: &str, routed: bool) -> Interface {
        Interface {
            ifindex,
            name: name.to_owned(),
            mac: MacAddr(2, 0, 0, 0, 0, 1),
            carrier: true,
            mtu: 1500,
            has_master: false,
            addresses: vec![address.parse().unwrap()],
            gateway_v4: routed.then(|| "10.0.0.254".parse().unwrap()),
            gateway_v6: None,
            metric: if routed { 100 } else { u32::MAX },
        }
    }

    fn placed(on: &[&str], interfaces: &[Interface]) -> Option<u32> {
        let spec = VipSpec {
            vip: "192.168.7.7".parse().unwrap(),
            revision: Revision(1),
            nodes: Nodes::Listed(Arc::default()),
            interfaces: on.iter().map(|name| (*name).to_owned()).collect(),
            preferred: Vec::new(),
            conflict_detection: false,
            ignore_exclusion: false,
            holders_hint: Vec::new(),
        };
        place(&spec, interfaces.iter())
    }

    #[test]
    fn the_subnet_comes_before_the_default_route_and_this_before_an_interface_that_is_only_named() {
        let routed = iface(2, "eth0", "10.0.0.1/24", true);
        let subnet = iface(3, "eth1", "192.168.7.1/24", false);
        let other = iface(4, "eth2", "172.16.0.1/24", false);
        let all = [routed.clone(), subnet, other.clone()];
        assert_eq!(placed(&[], &all), Some(3));
        assert_eq!(placed(&[], &[routed.clone(), other.clone()]), Some(2));
        assert_eq!(placed(&[], std::slice::from_ref(&other)), None);
        assert_eq!(placed(&["eth2"], &all), Some(4), "the only one that is named");
        assert_eq!(placed(&["eth2", "eth0"], &all), Some(2));
        assert_eq!(placed(&["eth9"], &all), None, "no other than those named");
    }

    #[test]
    fn of_several_in_the_subnet_the_lowest_metric_comes_first_and_then_the_lowest_index() {
        let with = |ifindex, metric| Interface { metric, ..iface(ifindex, "eth", "192.168.7.1/24", false) };
        assert_eq!(placed(&[], &[with(2, 200), with(4, 100), with(3, 100)]), Some(3));
    }

    #[test]
    fn a_bridge_port_or_bond_member_carries_nothing_even_where_it_is_named() {
        let port = Interface { has_master: true, ..iface(2, "eth0", "192.168.7.1/24", true) };
        assert_eq!(placed(&[], std::slice::from_ref(&port)), None);
        assert_eq!(placed(&["eth0"], std::slice::from_ref(&port)), None);
        let bridge = iface(9, "br0", "192.168.7.1/24", true);
        assert_eq!(placed(&[], &[port, bridge]), Some(9));
    }

    #[test]
    fn a_star_is_any_text_and_a_question_mark_any_one_character() {
        for (pattern, matching, others) in [
            ("eth0", &["eth0"][..], &["eth00", "eth", "xeth0", ""][..]),
            ("eth*", &["eth", "eth0", "eth12"], &["et", "xeth0"]),
            ("eth?", &["eth0", "ethé"], &["eth", "eth12"]),
            ("*", &["", "eth0"], &[]),
            ("en*s?", &["ens1", "enp3s0", "enss1"], &["ens", "enp3s10", "eth0"]),
            ("*.10?", &["eth0.100", ".10x"], &["eth0.10", "eth0.1000"]),
            ("", &[""], &["eth0"]),
        ] {
            for name in matching {
                assert!(glob_matches(pattern, name), "{pattern} does not match {name}");
            }
            for name in others {
                assert!(!glob_matches(pattern, name), "{pattern} matches {name}");
            }
        }
        let eth = [iface(2, "eth0", "10.0.0.1/24", true), iface(3, "wlan0", "192.168.7.1/24", false)];
        assert_eq!(placed(&["eth?"], &eth), Some(2));
        assert_eq!(placed(&["w*"], &eth), Some(3));
    }
}
