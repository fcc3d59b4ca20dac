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
