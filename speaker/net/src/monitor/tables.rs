//! Links, addresses and default routes by what rtnetlink says of them. Pure: bytes in, a picture out.
//!
//! Only the attributes needed are read, one by one: a new or odd attribute of a newer kernel costs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{NlaBuffer, NlasIterator};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressHeader;
use netlink_packet_route::link::{LinkFlags, LinkHeader, LinkLayerType};
use netlink_packet_route::route::{RouteFlags, RouteHeader, RouteType};

use herald_wire::MacAddr;

use super::{Address, Gateway, Interface};

const LINK_HEADER_LEN: usize = 16;
const ADDRESS_HEADER_LEN: usize = 8;
const ROUTE_HEADER_LEN: usize = 12;
const NEXT_HOP_HEADER_LEN: usize = 8;

/// RFC 2863 states as the kernel numbers them: unknown, for drivers that don't tell, and up.
const OPERSTATE_UNKNOWN: u8 = 0;
const OPERSTATE_UP: u8 = 6;

/// The picture.
#[derive(Debug, Default)]
pub(super) struct Tables {
    links: BTreeMap<u32, Link>,
    /// Links without ARP and the like, whose addresses are not kept.
    left_out: BTreeSet<u32>,
    /// By interface and address: whether it is tentative.
    addresses: BTreeMap<(u32, IpNet), bool>,
    routes: Vec<DefaultRoute>,
}

/// What a message calls for; the greatest of several counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// The kernel removes routes without a word when a link goes down or an address goes: ask.
    RoutesMayDiffer,
    /// Ask for everything.
    LookAgain,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    name: String,
    mac: MacAddr,
    carrier: bool,
    mtu: u32,
    master: Option<u32>,
}

/// A next hop of a default route in the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DefaultRoute {
    ifindex: u32,
    gateway: Gateway<IpAddr>,
}

impl Tables {
    pub(super) fn apply(&mut self, kind: u16, payload: &[u8]) -> Effect {
        // What does not parse concerns us no more than a message of another type.
        match kind {
            libc::RTM_NEWLINK | libc::RTM_DELLINK => self.apply_link(kind == libc::RTM_NEWLINK, payload),
            libc::RTM_NEWADDR | libc::RTM_DELADDR => self.apply_address(kind == libc::RTM_NEWADDR, payload),
            libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
                DefaultRoute::is_one(payload).map(|()| Effect::RoutesMayDiffer)
            }
            _ => None,
        }
        .unwrap_or(Effect::None)
    }

    pub(super) fn replace_routes(&mut self, mut routes: Vec<DefaultRoute>) {
        // The lowest metric first.
        routes.sort_unstable_by_key(|route| (route.ifindex, route.gateway));
        self.routes = routes;
    }

    fn apply_link(&mut self, new: bool, payload: &[u8]) -> Option<Effect> {
        let header = LinkHeader::parse(payload).ok()?;
        // Of the bridge's own family: a port, not a link, comes or goes.
        if header.interface_family != AddressFamily::Unspec {
            return None;
        }
        let ifindex = header.index;
        let link = if new { Link::parse(&header, payload) } else { None };
        let changed = self.links.get(&ifindex) != link.as_ref();
        let Some(link) = link else {
            self.links.remove(&ifindex);
            self.addresses.retain(|(on, _), _| *on != ifindex);
            if new {
                self.left_out.insert(ifindex)
            } else {
                self.left_out.remove(&ifindex)
            };
            return Some(self.routes_may_differ(ifindex));
        };
        self.links.insert(ifindex, link);
        if self.left_out.remove(&ifindex) {
            return Some(Effect::LookAgain);
        }
        Some(if changed { self.routes_may_differ(ifindex) } else { Effect::None })
    }

    fn apply_address(&mut self, new: bool, payload: &[u8]) -> Option<Effect> {
        let header = AddressHeader::parse(payload).ok()?;
        let net = address(&header, payload)?;
        let ifindex = header.index;
        if new {
            if self.links.contains_key(&ifindex) {
                self.addresses.insert((ifindex, net), is_tentative(&header, payload));
            }
            return None;
        }
        self.addresses.remove(&(ifindex, net))?;
        Some(self.routes_may_differ(ifindex))
    }

    fn routes_may_differ(&self, ifindex: u32) -> Effect {
        let has_route = self.routes.iter().any(|route| route.ifindex == ifindex);
        if has_route { Effect::RoutesMayDiffer } else { Effect::None }
    }

    pub(super) fn interfaces(&self) -> Vec<Interface> {
        self.links.iter().map(|(ifindex, link)| self.interface(*ifindex, link.clone())).collect()
    }

    fn interface(&self, ifindex: u32, link: Link) -> Interface {
        let Link { name, mac, carrier, mtu, master } = link;
        let addresses = self.addresses.iter().filter(|((on, _), _)| *on == ifindex);
        let gateways =
            || self.routes.iter().filter(|route| route.ifindex == ifindex).map(|route| route.gateway);
        Interface {
            ifindex,
            name,
            mac,
            carrier,
            mtu,
            master,
            addresses: addresses
                .map(|((_, net), tentative)| Address { net: *net, tentative: *tentative })
                .collect(),
            gateway_v4: gateways().find_map(|gateway| gateway.map(only_v4)),
            gateway_v6: gateways().find_map(|gateway| gateway.map(only_v6)),
        }
    }
}

impl Link {
    /// `None` for a link that is left out.
    fn parse(header: &LinkHeader, payload: &[u8]) -> Option<Self> {
        let without_arp = LinkFlags::Noarp | LinkFlags::Loopback;
        if header.link_layer_type != LinkLayerType::Ether || header.flags.intersects(without_arp) {
            return None;
        }
        let (mut name, mut mac, mut mtu, mut master) = (None, None, None, None);
        let mut operstate = OPERSTATE_UNKNOWN;
        for attribute in attributes(payload, LINK_HEADER_LEN) {
            let value = attribute.value();
            match attribute.kind() {
                libc::IFLA_ADDRESS => mac = <[u8; 6]>::try_from(value).ok().map(MacAddr::from),
                libc::IFLA_IFNAME => {
                    name = Some(String::from_utf8_lossy(value).trim_end_matches('\0').to_owned());
                }
                libc::IFLA_MTU => mtu = number(value),
                libc::IFLA_MASTER => master = number(value),
                libc::IFLA_OPERSTATE => operstate = value.first().copied().unwrap_or_default(),
                _ => {}
            }
        }
        let up = header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp);
        let carrier = up && matches!(operstate, OPERSTATE_UNKNOWN | OPERSTATE_UP);
        Some(Self { name: name?, mac: mac?, carrier, mtu: mtu?, master })
    }
}

impl DefaultRoute {
    /// Whether a message is about a default route in the main table that packets are forwarded by.
    fn is_one(payload: &[u8]) -> Option<()> {
        let header = RouteHeader::parse(payload).ok()?;
        let main = header.table == RouteHeader::RT_TABLE_MAIN;
        let whole = header.destination_prefix_length == 0 && header.kind == RouteType::Unicast;
        (main && whole && !header.flags.contains(RouteFlags::Cloned)).then_some(())
    }

    /// The next hops of a message about a route, if it is a default route; those without a gateway address, on
    /// point-to-point links, are of no use to us.
    pub(super) fn parse(payload: &[u8]) -> Vec<Self> {
        let mut routes = Vec::new();
        if Self::is_one(payload).is_none() {
            return routes;
        }
        // The kernel leaves the metric out when it is 0.
        let (mut hop, mut metric) = (Hop::default(), 0);
        let mut hops = Vec::new();
        for attribute in attributes(payload, ROUTE_HEADER_LEN) {
            match attribute.kind() {
                libc::RTA_PRIORITY => metric = number(attribute.value()).unwrap_or_default(),
                libc::RTA_MULTIPATH => hops.extend(Hop::list(attribute.value())),
                _ => hop.read(&attribute),
            }
        }
        hops.push(hop);
        for Hop { ifindex, ip } in hops {
            if let (Some(ifindex), Some(ip)) = (ifindex, ip) {
                routes.push(Self { ifindex, gateway: Gateway { metric, ip } });
            }
        }
        routes
    }
}

#[derive(Default)]
struct Hop {
    ifindex: Option<u32>,
    ip: Option<IpAddr>,
}

impl Hop {
    fn read(&mut self, attribute: &NlaBuffer<&[u8]>) {
        match attribute.kind() {
            libc::RTA_OIF => self.ifindex = number(attribute.value()),
            libc::RTA_GATEWAY => self.ip = ip(attribute.value()),
            _ => {}
        }
    }

    /// The entries of RTA_MULTIPATH: `struct rtnexthop` (length u16, flags, hops, ifindex), then attributes.
    fn list(mut value: &[u8]) -> Vec<Self> {
        let mut hops = Vec::new();
        while let Some(len) = value.first_chunk().map(|len| usize::from(u16::from_ne_bytes(*len))) {
            let Some(entry) = value.get(..len).filter(|entry| entry.len() >= NEXT_HOP_HEADER_LEN) else {
                break;
            };
            let ifindex = entry.get(4..NEXT_HOP_HEADER_LEN).and_then(number);
            let mut hop = Self { ifindex, ip: None };
            for attribute in attributes(entry, NEXT_HOP_HEADER_LEN) {
                hop.read(&attribute);
            }
            hops.push(hop);
            value = value.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        hops
    }
}

/// The interface's own address: IFA_LOCAL, which IPv6 leaves out unless there is a peer, then IFA_ADDRESS.
fn address(header: &AddressHeader, payload: &[u8]) -> Option<IpNet> {
    let of_kind = |kind| attributes(payload, ADDRESS_HEADER_LEN).find(|attribute| attribute.kind() == kind);
    let attribute = of_kind(libc::IFA_LOCAL).or_else(|| of_kind(libc::IFA_ADDRESS))?;
    IpNet::new(ip(attribute.value())?, header.prefix_len).ok()
}

fn is_tentative(header: &AddressHeader, payload: &[u8]) -> bool {
    let wide = attributes(payload, ADDRESS_HEADER_LEN)
        .find(|attribute| attribute.kind() == libc::IFA_FLAGS)
        .and_then(|attribute| number(attribute.value()));
    let flags = wide.unwrap_or_else(|| u32::from(header.flags.bits()));
    let failed = flags & libc::IFA_F_DADFAILED != 0;
    let undecided = flags & libc::IFA_F_TENTATIVE != 0 && flags & libc::IFA_F_OPTIMISTIC == 0;
    failed || undecided
}

/// The whole attributes behind a message's fixed part.
fn attributes(payload: &[u8], header_len: usize) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(payload.get(header_len..).unwrap_or_default()).map_while(Result::ok)
}

fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
}

impl<A> Gateway<A> {
    fn map<B>(self, map: impl FnOnce(A) -> Option<B>) -> Option<Gateway<B>> {
        map(self.ip).map(|ip| Gateway { metric: self.metric, ip })
    }
}

fn only_v4(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

fn only_v6(ip: IpAddr) -> Option<Ipv6Addr> {
    match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => Some(ip),
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const KINDS: [u16; 6] = [
        libc::RTM_NEWLINK,
        libc::RTM_DELLINK,
        libc::RTM_NEWADDR,
        libc::RTM_DELADDR,
        libc::RTM_NEWROUTE,
        libc::RTM_DELROUTE,
    ];

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let len = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// An IPv4 default route in the main table.
    fn default_route(attributes: &[Vec<u8>]) -> Vec<u8> {
        let header = [2, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
        [&header[..], &attributes.concat()].concat()
    }

    #[test]
    fn each_next_hop_of_a_multipath_route_is_a_gateway() {
        let hop = |ifindex: u32, gateway: [u8; 4]| {
            let gateway = attribute(libc::RTA_GATEWAY, &gateway);
            let len = u16::try_from(NEXT_HOP_HEADER_LEN + gateway.len()).unwrap();
            [&len.to_ne_bytes()[..], &[0, 0], &ifindex.to_ne_bytes(), &gateway].concat()
        };
        let hops = [hop(3, [10, 0, 0, 1]), hop(4, [10, 0, 0, 2])].concat();
        let metric = attribute(libc::RTA_PRIORITY, &100_u32.to_ne_bytes());
        let routes = DefaultRoute::parse(&default_route(&[attribute(libc::RTA_MULTIPATH, &hops), metric]));
        let gateway = |last| Gateway { metric: 100, ip: IpAddr::from([10, 0, 0, last]) };
        assert_eq!(
            routes,
            [
                DefaultRoute { ifindex: 3, gateway: gateway(1) },
                DefaultRoute { ifindex: 4, gateway: gateway(2) }
            ]
        );
    }

    proptest! {
        #[test]
        fn any_message_is_taken_or_left_but_never_panics(
            messages in vec((prop::sample::select(&KINDS[..]), vec(any::<u8>(), 0..80)), 0..8),
            attributes in vec((0_u16..70, vec(any::<u8>(), 0..40)), 0..4),
        ) {
            let attributes: Vec<_> =
                attributes.into_iter().map(|(kind, value)| attribute(kind, &value)).collect();
            let mut tables = Tables::default();
            for (kind, payload) in messages {
                tables.apply(kind, &payload);
                let _ = DefaultRoute::parse(&payload);
            }
            tables.apply(libc::RTM_NEWLINK, &[&[0, 0, 1, 0, 5, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0][..], &attributes.concat()].concat());
            tables.apply(libc::RTM_NEWADDR, &[&[2, 24, 0, 0, 5, 0, 0, 0][..], &attributes.concat()].concat());
            tables.replace_routes(DefaultRoute::parse(&default_route(&attributes)));
            tables.interfaces();
        }
    }
}
