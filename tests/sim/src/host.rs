//! A client or the gateway: sends packets to every address of a Service, and learns from frames where they go.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use herald_wire::arp::{self, Arp};
use herald_wire::ndp::{Message, Ndp, solicited_node};
use herald_wire::{Ethernet, Frame, MacAddr, Payload, Vip};

use crate::Moment;
use crate::kernel::Kernel;
use crate::neighbour::{Cache, Hint, Strength, Use};

/// All routers on the link (RFC 4291, 2.7.1).
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// Local experimental EtherType 2 of IEEE 802: here, a packet to a Service.
const PACKET: [u8; 2] = [0x88, 0xb6];
/// Two answers to one question within this are "answered by two".
const ONE_QUESTION: Duration = Duration::from_millis(500);

/// Something about a host worth knowing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Its packets to an address go somewhere else now.
    Moved {
        /// The address.
        vip: IpAddr,
        /// Where to.
        mac: MacAddr,
    },
    /// Two machines answered one question.
    AnsweredByTwo {
        /// The address asked for.
        vip: IpAddr,
        /// Both.
        macs: (MacAddr, MacAddr),
    },
}

/// One host.
#[derive(Debug)]
pub(crate) struct Host {
    /// `client1`, `gateway`
    pub name: String,
    /// Its own addresses.
    pub kernel: Kernel,
    /// Its neighbour cache.
    pub cache: Cache,
    asked: BTreeMap<IpAddr, Asked>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    at: Moment,
    answer: Option<MacAddr>,
}

impl Host {
    /// A host that knows nobody yet.
    pub(crate) fn new(name: &str, kernel: Kernel) -> Self {
        Self { name: name.to_owned(), kernel, cache: Cache::default(), asked: BTreeMap::new() }
    }

    /// Sends a packet to an address, as far as it knows where to: the frames that leave.
    pub(crate) fn send(&mut self, now: Moment, vip: IpAddr) -> Vec<Vec<u8>> {
        match self.cache.send(now, vip) {
            Use::Send(mac) => vec![packet(Ethernet::new(mac, self.kernel.mac), vip)],
            Use::SendAndProbe(mac) => {
                vec![packet(Ethernet::new(mac, self.kernel.mac), vip), self.question(vip, Some(mac))]
            }
            Use::Ask => {
                self.asked.insert(vip, Asked { at: now, answer: None });
                vec![self.question(vip, None)]
            }
            Use::Wait => Vec::new(),
        }
    }

    /// Who has the address? To everybody, or to who should have it.
    fn question(&self, vip: IpAddr, whom: Option<MacAddr>) -> Vec<u8> {
        let own = self.kernel.mac;
        match (vip, whom) {
            (IpAddr::V4(vip), whom) => {
                let ethernet = whom.map_or(Ethernet::broadcast(own), |mac| Ethernet::new(mac, own));
                Arp::who_has(vip, self.kernel.v4, own).to_frame(ethernet)
            }
            (IpAddr::V6(vip), Some(mac)) => {
                Ndp::who_has_unicast(vip, self.kernel.v6, own).to_frame(Ethernet::new(mac, own))
            }
            (IpAddr::V6(vip), None) => {
                Ndp::who_has(vip, self.kernel.v6, own).to_frame(Ethernet::multicast(solicited_node(vip), own))
            }
        }
    }

    /// Takes a frame off the wire: what it answers, and what is worth knowing.
    pub(crate) fn receive(&mut self, now: Moment, frame: &Frame<'_>) -> (Option<Vec<u8>>, Option<Notice>) {
        if !self.kernel.takes(frame.ethernet.destination, [ALL_ROUTERS]) {
            return (None, None);
        }
        let heard = match &frame.payload {
            Payload::Arp(arp) => self.hear_arp(arp, frame.ethernet),
            Payload::Ndp(ndp) => self.hear_ndp(ndp),
            Payload::Echo(_) | Payload::Hello(_) => None,
        };
        let notice = heard.and_then(|(ip, mac, hint)| self.learn(now, ip, mac, hint));
        (self.kernel.answer(frame), notice)
    }

    fn learn(&mut self, now: Moment, vip: IpAddr, mac: MacAddr, hint: Hint) -> Option<Notice> {
        let moved = self.cache.hear(now, vip, mac, hint).then_some(Notice::Moved { vip, mac });
        let asked = self.asked.get_mut(&vip).filter(|asked| now.saturating_sub(asked.at) < ONE_QUESTION);
        let Some(asked) = asked.filter(|_| hint.solicited) else { return moved };
        let first = *asked.answer.get_or_insert(mac);
        if first == mac {
            return moved;
        }
        self.asked.remove(&vip);
        Some(Notice::AnsweredByTwo { vip, macs: (first, mac) })
    }

    /// net/ipv4/arp.c, `arp_process`.
    fn hear_arp(&self, arp: &Arp, ethernet: Ethernet) -> Option<(IpAddr, MacAddr, Hint)> {
        if arp.spa.is_unspecified() {
            return None;
        }
        let asks_me = arp.operation == arp::Operation::Request && arp.tpa == self.kernel.v4;
        let gratuitous =
            arp.is_gratuitous() && (arp.operation == arp::Operation::Request || arp.tha == arp.sha);
        let to_me = arp.operation == arp::Operation::Reply && ethernet.destination == self.kernel.mac;
        let strength = if asks_me || gratuitous { Strength::Overrides } else { Strength::Ordinary };
        let hint = Hint { strength, solicited: to_me, creates: asks_me };
        Some((arp.spa.into(), arp.sha, hint))
    }

    /// net/ipv6/ndisc.c, `ndisc_recv_ns` and `ndisc_recv_na`.
    fn hear_ndp(&self, ndp: &Ndp) -> Option<(IpAddr, MacAddr, Hint)> {
        match ndp.message {
            Message::Solicitation { target, source_mac } => {
                let mac = source_mac.filter(|_| self.kernel.owns(target.into()))?;
                let hint = Hint { strength: Strength::Overrides, solicited: false, creates: true };
                Some((ndp.source.into(), mac, hint))
            }
            Message::Advertisement { target, target_mac, solicited, overrides, .. } => {
                let strength = if overrides { Strength::Overrides } else { Strength::Weak };
                let hint = Hint { strength, solicited, creates: false };
                Some((target.into(), target_mac?, hint))
            }
        }
    }
}

/// A packet to a Service.
fn packet(ethernet: Ethernet, vip: IpAddr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(60);
    for mac in [ethernet.destination, ethernet.source] {
        frame.extend(<[u8; 6]>::from(mac));
    }
    frame.extend(PACKET);
    frame.extend(Vip::from(vip).octets());
    frame.resize(60, 0);
    frame
}

/// The Service that this packet is for, if it is one.
pub(crate) fn packet_for(frame: &[u8]) -> Option<IpAddr> {
    let rest = frame.get(12..)?.strip_prefix(&PACKET)?;
    Some(Vip::from_octets(*rest.first_chunk()?).ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: [MacAddr; 2] = [MacAddr(2, 0, 0, 0, 0, 1), MacAddr(2, 0, 0, 0, 0, 2)];

    fn at(ms: u64) -> Moment {
        Duration::from_millis(ms)
    }

    fn client() -> Host {
        Host::new("client", Kernel::new(100))
    }

    fn hear(host: &mut Host, now: Moment, frame: &[u8]) -> (Option<Vec<u8>>, Option<Notice>) {
        host.receive(now, &herald_wire::parse(frame).unwrap())
    }

    /// The client has asked for `vip` and node 0 has answered.
    fn resolved(now: Moment, vip: IpAddr) -> Host {
        let mut host = client();
        let asked = host.send(now, vip);
        let answer = match herald_wire::parse(&asked[0]).unwrap().payload {
            Payload::Arp(arp) => arp.answer(NODES[0]).to_frame(Ethernet::new(host.kernel.mac, NODES[0])),
            Payload::Ndp(ndp) => {
                ndp.answer(NODES[0]).unwrap().to_frame(Ethernet::new(host.kernel.mac, NODES[0]))
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(hear(&mut host, now, &answer).1, Some(Notice::Moved { vip, mac: NODES[0] }));
        host
    }

    /// Rows of the table of what moves a neighbour cache: frame by frame, on a young, an old and a missing entry.
    #[test]
    fn arp_moves_a_linux_client_as_measured() {
        let vip4 = std::net::Ipv4Addr::new(10, 0, 1, 1);
        let new = NODES[1];
        let own = client().kernel;
        let broadcast_tha = Arp { tha: MacAddr::broadcast(), ..Arp::gratuitous_reply(vip4, new) };
        let everybody = Ethernet::broadcast(new);
        let unicast = Ethernet::new(own.mac, new);
        let ordinary = Arp { tpa: own.v4, tha: own.mac, ..Arp::gratuitous_reply(vip4, new) };
        let table = [
            ("request", Arp::gratuitous_request(vip4, new).to_frame(everybody), true, true, false),
            ("reply, tha = sha", Arp::gratuitous_reply(vip4, new).to_frame(everybody), true, true, false),
            ("reply, tha = ff", broadcast_tha.to_frame(everybody), false, true, false),
            ("unicast request", Arp::gratuitous_request(vip4, new).to_frame(unicast), true, true, false),
            ("ordinary reply", ordinary.to_frame(unicast), false, true, false),
            ("who-has client", Arp::who_has(own.v4, vip4, new).to_frame(everybody), true, true, true),
        ];
        for (name, frame, young, old, creates) in table {
            for (age, expected) in [(500, young), (1_500, old)] {
                let mut host = resolved(at(0), vip4.into());
                hear(&mut host, at(age), &frame);
                let moved = host.cache.lookup(vip4.into()) == Some(new);
                assert_eq!(moved, expected, "{name} on an entry {age} ms old");
            }
            let mut host = client();
            let (answer, _) = hear(&mut host, at(0), &frame);
            assert_eq!(host.cache.lookup(vip4.into()), creates.then_some(new), "{name} without an entry");
            assert_eq!(answer.is_some(), creates, "{name} acknowledged");
        }
    }

    #[test]
    fn ndp_moves_a_linux_client_as_measured() {
        let vip = "fd00::1:1".parse::<Ipv6Addr>().unwrap();
        let new = NODES[1];
        let own = client().kernel;
        let announce = Ndp::announcement(vip, new);
        let Message::Advertisement { target, target_mac, router, solicited, .. } = announce.message else {
            panic!()
        };
        let message = Message::Advertisement { target, target_mac, router, solicited, overrides: false };
        let group = Ethernet::multicast(herald_wire::ndp::ALL_NODES, new);
        let asks = Ndp::who_has(own.v6, vip, new);
        let asked = Ethernet::multicast(solicited_node(own.v6), new);
        let table = [
            ("O=1", announce.to_frame(group), true, false),
            ("O=0", Ndp { message, ..announce }.to_frame(group), false, false),
            ("who-has client", asks.to_frame(asked), true, true),
        ];
        for (name, frame, moves, creates) in table {
            for age in [500, 1_500] {
                let mut host = resolved(at(0), vip.into());
                hear(&mut host, at(age), &frame);
                assert_eq!(host.cache.lookup(vip.into()) == Some(new), moves, "{name}, {age} ms old");
            }
            let mut host = client();
            hear(&mut host, at(0), &frame);
            assert_eq!(host.cache.lookup(vip.into()).is_some(), creates, "{name} without an entry");
        }
    }

    #[test]
    fn two_answers_to_one_question_are_noticed() {
        let vip = std::net::Ipv4Addr::new(10, 0, 1, 1);
        let mut host = resolved(at(0), vip.into());
        let second =
            Arp { tpa: host.kernel.v4, tha: host.kernel.mac, ..Arp::gratuitous_reply(vip, NODES[1]) };
        let frame = second.to_frame(Ethernet::new(host.kernel.mac, NODES[1]));
        let macs = (NODES[0], NODES[1]);
        assert_eq!(hear(&mut host, at(1), &frame).1, Some(Notice::AnsweredByTwo { vip: vip.into(), macs }));
    }

    #[test]
    fn packets_go_where_the_cache_says() {
        let vip: IpAddr = [10, 0, 1, 1].into();
        let mut host = resolved(at(0), vip);
        let sent = host.send(at(1), vip);
        assert_eq!(sent.len(), 1);
        assert_eq!(packet_for(&sent[0]), Some(vip));
        assert_eq!(crate::switch::addresses(&sent[0]), Some((NODES[0], host.kernel.mac)));
    }
}
