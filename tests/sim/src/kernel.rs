//! What the kernel of a node, a client or a gateway answers for its own addresses: ARP, neighbour solicitations, echo.
//! Never for an address of a Service: that is what speakers are for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use herald_wire::arp;
use herald_wire::echo::{self, Echo, Path};
use herald_wire::ndp::{Message, Ndp, solicited_node};
use herald_wire::{Ethernet, Frame, MacAddr, Payload};

use crate::switch::is_group;

/// One network card with its addresses.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// The card's own address.
    pub mac: MacAddr,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its global IPv6 address.
    pub v6: Ipv6Addr,
    /// Its link-local address.
    pub link_local: Ipv6Addr,
    /// Answers echo: some hosts' firewalls don't let it.
    pub echo: bool,
}

impl Kernel {
    /// The n-th machine of the LAN: 10.0.0.n, fd00::n, fe80::n.
    pub(crate) fn new(n: u8) -> Self {
        let host = u16::from(n);
        Self {
            mac: MacAddr::new(2, 0, 0, 0, 0, n),
            v4: Ipv4Addr::new(10, 0, 0, n),
            v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host),
            link_local: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, host),
            echo: true,
        }
    }

    /// The n-th of a crowd: as [`Self::new`], for more machines than an octet can count.
    pub(crate) fn in_crowd(n: u16) -> Self {
        let [high, low] = n.to_be_bytes();
        Self {
            mac: MacAddr::new(2, 0, 0, 1, high, low),
            v4: Ipv4Addr::new(10, 0, 128 | high, low),
            v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, n),
            link_local: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, n),
            echo: true,
        }
    }

    /// Is this address its own?
    pub(crate) fn owns(&self, ip: IpAddr) -> bool {
        ip == self.v4 || ip == self.v6 || ip == self.link_local
    }

    /// Does the card take this frame off the wire? `joined`: further multicast groups.
    pub(crate) fn takes(&self, destination: MacAddr, joined: impl IntoIterator<Item = Ipv6Addr>) -> bool {
        if !is_group(destination) {
            return destination == self.mac;
        }
        // IPv6 groups pass only when joined; the rest is broadcast, or a group that the speaker's socket has joined.
        if (destination.0, destination.1) != (0x33, 0x33) {
            return true;
        }
        let own = [herald_wire::ndp::ALL_NODES, solicited_node(self.v6), solicited_node(self.link_local)];
        own.into_iter()
            .chain(joined)
            .any(|group| Ethernet::multicast(group, self.mac).destination == destination)
    }

    /// The answer to a frame that asks for one of its own addresses.
    pub(crate) fn answer(&self, frame: &Frame<'_>) -> Option<Vec<u8>> {
        let back = Ethernet::new(frame.ethernet.source, self.mac);
        match &frame.payload {
            Payload::Arp(arp) if arp.operation == arp::Operation::Request && arp.tpa == self.v4 => {
                Some(arp.answer(self.mac).to_frame(Ethernet::new(arp.sha, self.mac)))
            }
            Payload::Ndp(ndp) => self.answer_solicitation(ndp, back),
            Payload::Echo(echo) if self.echo && echo.operation == echo::Operation::Request => {
                let (asker, own) = (echo.path.source(), echo.path.destination());
                let path = Path::between(own, asker).filter(|_| self.owns(own))?;
                Some(Echo { path, operation: echo::Operation::Reply, ..*echo }.to_frame(back))
            }
            _ => None,
        }
    }

    fn answer_solicitation(&self, ndp: &Ndp, back: Ethernet) -> Option<Vec<u8>> {
        let Message::Solicitation { target, source_mac } = ndp.message else { return None };
        if !self.owns(target.into()) {
            return None;
        }
        let ethernet = match source_mac {
            Some(mac) => Ethernet::new(mac, self.mac),
            None if ndp.is_probe() => Ethernet::multicast(herald_wire::ndp::ALL_NODES, self.mac),
            None => back,
        };
        Some(ndp.answer(self.mac)?.to_frame(ethernet))
    }
}

#[cfg(test)]
mod tests {
    use herald_wire::arp::Arp;

    use super::*;

    #[test]
    fn answers_for_its_own_addresses_only() {
        let (own, asker) = (Kernel::new(1), Kernel::new(9));
        let parsed = |frame: &[u8]| own.answer(&herald_wire::parse(frame).unwrap());
        let ask = |ip| Arp::who_has(ip, asker.v4, asker.mac).to_frame(Ethernet::broadcast(asker.mac));
        let reply = parsed(&ask(own.v4)).unwrap();
        let Payload::Arp(reply) = herald_wire::parse(&reply).unwrap().payload else { panic!() };
        assert_eq!((reply.sha, reply.spa, reply.tpa), (own.mac, own.v4, asker.v4));
        assert_eq!(parsed(&ask([10, 0, 1, 1].into())), None);

        let ask = |ip| {
            Ndp::who_has(ip, asker.v6, asker.mac).to_frame(Ethernet::multicast(solicited_node(ip), asker.mac))
        };
        assert!(parsed(&ask(own.v6)).is_some());
        assert_eq!(parsed(&ask("fd00::1:1".parse().unwrap())), None);

        let path = Path::V4 { source: asker.v4, destination: own.v4 };
        let operation = echo::Operation::Request;
        let ping = Echo { path, operation, identifier: 1, sequence: 2, nonce: *b"12345678" };
        let pong = parsed(&ping.to_frame(Ethernet::new(own.mac, asker.mac))).unwrap();
        let Payload::Echo(pong) = herald_wire::parse(&pong).unwrap().payload else { panic!() };
        assert_eq!((pong.operation, pong.nonce), (echo::Operation::Reply, *b"12345678"));
    }

    #[test]
    fn takes_multicast_only_of_groups_it_is_in() {
        let own = Kernel::new(1);
        let vip: Ipv6Addr = "fd00::1:7".parse().unwrap();
        let asked = Ethernet::multicast(solicited_node(vip), own.mac).destination;
        assert!(!own.takes(asked, []));
        assert!(own.takes(asked, [solicited_node(vip)]));
        assert!(own.takes(Ethernet::multicast(solicited_node(own.v6), own.mac).destination, []));
        assert!(own.takes(MacAddr::broadcast(), []));
        assert!(!own.takes(Kernel::new(2).mac, []));
    }
}
