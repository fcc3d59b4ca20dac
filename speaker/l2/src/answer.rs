//! Answering for what is held: ARP (RFC 826), neighbour solicitations, unicast ones and duplicate address probes too
//! (RFC 4861 7.2.4, RFC 4862 5.4). The hot path: one lookup, one frame, nothing else.
//!
//! Must always hold: nothing is answered for that is not held, but by deputies (rule A45) with the holder's address;
//! answers always carry O=1, so that a client that missed the announcement moves. Also learns who asks (rule A46) and
//! hands on what tells of others (`conflict`, `proof`, `kernel`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use herald_wire::MacAddr;
use herald_wire::arp::{Arp, Operation};
use herald_wire::ethernet::Ethernet;
use herald_wire::ndp::{ALL_NODES, Message, Ndp};

use crate::context::Context;
use crate::segment::Segment;
use crate::vips::{Client, remember};

/// Clients remembered for a whole segment, both families together.
const RECENT_CLIENTS: usize = 32;

impl Segment {
    pub(crate) fn handle_arp(&mut self, cx: &mut Context, ethernet: Ethernet, arp: &Arp) {
        if arp.sha == self.iface.mac || ethernet.source == self.iface.mac {
            return;
        }
        self.somebody_is_there(cx);
        if arp.operation == Operation::Request && arp.spa != arp.tpa {
            self.arp_request(cx, ethernet, arp);
        }
        if arp.operation == Operation::Reply && arp.tha == self.iface.mac {
            self.host_answered(
                cx,
                ethernet,
                Client { ip: IpAddr::V4(arp.spa), mac: arp.sha },
                IpAddr::V4(arp.tpa),
            );
        }
        // Whoever speaks as one of the addresses says that it is his.
        if !arp.spa.is_unspecified()
            && let Some(id) = self.vips.find(IpAddr::V4(arp.spa))
        {
            self.other_owner(cx, id, arp.sha);
        }
    }

    /// A host answered what this node asked `asked_as`: an address of its own, or one that it holds.
    fn host_answered(&mut self, cx: &mut Context, ethernet: Ethernet, host: Client, asked_as: IpAddr) {
        self.proof_by_answer(cx, host.ip, host.mac);
        // Not a switch that answers for it.
        if ethernet.source == host.mac {
            self.kernel_answers_as_host(cx, host.ip, host.mac);
        }
        if let Some(id) = self.vips.find(asked_as) {
            self.announcement_answered(cx, id, host.ip);
        }
    }

    fn arp_request(&mut self, cx: &mut Context, ethernet: Ethernet, arp: &Arp) {
        let Some(id) = self.vips.find(IpAddr::V4(arp.tpa)) else {
            cx.counters.ignored += 1;
            return;
        };
        let own = self.iface.mac;
        let most = self.vips.clients_per_vip();
        let Some(vip) = self.vips.get_mut(id) else { return };
        let client = (!arp.spa.is_unspecified() && is_host(arp.sha))
            .then_some(Client { ip: IpAddr::V4(arp.spa), mac: arp.sha });
        if let Some(client) = client {
            remember(&mut vip.clients, client, most);
        }
        if vip.mine.is_some() {
            cx.counters.arp_requests += 1;
            vip.traffic.requests += 1;
            if is_host(arp.sha) {
                cx.counters.replies += 1;
                vip.traffic.replies += 1;
                cx.transmit(self.ifindex(), arp.answer(own).to_frame(Ethernet::new(arp.sha, own)));
            }
            // He asks: so he has heard of us by now.
            if let Some(client) = client {
                self.announcement_answered(cx, id, client.ip);
            }
        } else {
            if arp.is_probe() {
                // Somebody is about to use an address that this node only watches.
                self.other_prober(cx, id, arp.sha);
            }
            // Rule A45: who asks one machine means that machine. The frame itself is ours, or the switch would learn the
            // holder here.
            if ethernet.destination.is_broadcast()
                && is_host(arp.sha)
                && let Some(holder) = self.deputy_for(cx, id)
            {
                cx.counters.deputy_replies += 1;
                cx.transmit(self.ifindex(), arp.answer(holder).to_frame(Ethernet::new(arp.sha, own)));
            }
        }
        if let Some(client) = client.filter(|client| !self.is_own_v4(client.ip)) {
            self.proof.client_v4 = Some(client);
            remember(&mut self.recent_clients, client, RECENT_CLIENTS);
        }
    }

    pub(crate) fn handle_ndp(&mut self, cx: &mut Context, ethernet: Ethernet, ndp: &Ndp) {
        if ethernet.source == self.iface.mac {
            return;
        }
        self.somebody_is_there(cx);
        match ndp.message {
            Message::Solicitation { target, source_mac } => {
                self.solicitation(cx, ethernet, ndp, target, source_mac);
            }
            Message::Advertisement { target, target_mac, .. } => {
                let mac = target_mac.unwrap_or(ethernet.source);
                if ethernet.destination == self.iface.mac {
                    self.host_answered(
                        cx,
                        ethernet,
                        Client { ip: IpAddr::V6(target), mac },
                        IpAddr::V6(ndp.destination),
                    );
                }
                if let Some(id) = self.vips.find(IpAddr::V6(target)) {
                    self.other_owner(cx, id, mac);
                }
            }
        }
    }

    fn solicitation(
        &mut self,
        cx: &mut Context,
        ethernet: Ethernet,
        ndp: &Ndp,
        target: Ipv6Addr,
        source_mac: Option<MacAddr>,
    ) {
        // Whoever asks as one of the addresses says that it is his.
        if let Some(id) = self.vips.find(IpAddr::V6(ndp.source)) {
            self.other_owner(cx, id, source_mac.unwrap_or(ethernet.source));
        }
        let Some(id) = self.vips.find(IpAddr::V6(target)) else {
            cx.counters.ignored += 1;
            return;
        };
        let own = self.iface.mac;
        let asker = source_mac.unwrap_or(ethernet.source);
        let most = self.vips.clients_per_vip();
        let Some(vip) = self.vips.get_mut(id) else { return };
        let client = (!ndp.source.is_unspecified() && is_host(asker))
            .then_some(Client { ip: IpAddr::V6(ndp.source), mac: asker });
        if let Some(client) = client {
            remember(&mut vip.clients, client, most);
        }
        if vip.mine.is_some() {
            cx.counters.nd_solicitations += 1;
            vip.traffic.requests += 1;
            if let Some(answer) = answer_to(ndp, asker, own, own) {
                cx.counters.replies += 1;
                vip.traffic.replies += 1;
                cx.transmit(self.ifindex(), answer);
            }
            if let Some(client) = client {
                self.announcement_answered(cx, id, client.ip);
            }
        } else {
            if ndp.is_probe() {
                // Somebody is about to use an address that this node only watches.
                self.other_prober(cx, id, ethernet.source);
            }
            if ethernet.destination.is_multicast()
                && let Some(holder) = self.deputy_for(cx, id)
                && let Some(answer) = answer_to(ndp, asker, holder, own)
            {
                cx.counters.deputy_replies += 1;
                cx.transmit(self.ifindex(), answer);
            }
        }
        if let Some(client) = client {
            self.proof.client_v6 = Some(client);
            remember(&mut self.recent_clients, client, RECENT_CLIENTS);
        }
    }

    fn is_own_v4(&self, ip: IpAddr) -> bool {
        self.iface.addresses.iter().any(|net| net.addr() == ip)
    }

    pub(crate) fn own_ipv4(&self) -> Option<Ipv4Addr> {
        self.iface.addresses.iter().find_map(|net| match net.addr() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        })
    }

    pub(crate) fn own_link_local(&self) -> Option<Ipv6Addr> {
        self.iface.addresses.iter().find_map(|net| match net.addr() {
            IpAddr::V6(ip) if ip.is_unicast_link_local() => Some(ip),
            _ => None,
        })
    }

    pub(crate) fn own_v6(&self) -> Option<Ipv6Addr> {
        self.own_link_local().or_else(|| {
            self.iface.addresses.iter().find_map(|net| match net.addr() {
                IpAddr::V6(ip) => Some(ip),
                IpAddr::V4(_) => None,
            })
        })
    }
}

/// The answer to a solicitation: the address is at `holder`. The frame is sent by `own`.
fn answer_to(ndp: &Ndp, asker: MacAddr, holder: MacAddr, own: MacAddr) -> Option<Vec<u8>> {
    let to = if ndp.is_probe() {
        Ethernet::multicast(ALL_NODES, own)
    } else if is_host(asker) {
        Ethernet::new(asker, own)
    } else {
        return None;
    };
    Some(ndp.answer(holder)?.to_frame(to))
}

/// An Ethernet address that one host can have.
fn is_host(mac: MacAddr) -> bool {
    !mac.is_zero() && !mac.is_multicast() && !mac.is_broadcast()
}
