//! Two-way proof that this node is connected, and what it must not do without (rules A25, A26).
//!
//! Owns the probes, their answers, and being mute. A probe is an authenticated CHALLENGE to a live peer (its ECHO
//! proves both directions without an IP address), an ARP or neighbour request to the gateway and to the client seen
//! last. Must always hold: an answer counts only for suspicions that began before its probe was sent, and only from
//! somebody who is not suspected.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use herald_wire::arp::Arp;
use herald_wire::ethernet::Ethernet;
use herald_wire::hello::Message;
use herald_wire::ndp::{Ndp, solicited_node};
use herald_wire::{MacAddr, Salt};

use crate::context::{Context, Rule};
use crate::output::Event;
use crate::peers::Bucket;
use crate::segment::Segment;
use crate::time::Instant;
use crate::vips::Client;

/// Challenges per round.
const PEERS_ASKED: usize = 3;
/// Rounds of questions to hosts per second, while there are peers to ask.
const HOSTS_PER_SECOND: u32 = 5;
/// Rounds whose answer still counts.
const ROUNDS: usize = 8;
/// Mute for longer, then proof: the segment comes back in parts; wait and say again who holds what (rule A26).
const MUTE_NOTABLE: Duration = Duration::from_millis(60);
const CLAIM_NOTHING: Duration = Duration::from_millis(600);
/// Mute for longer: not able (rule A26).
const MUTE_LONG: Duration = Duration::from_secs(1);

/// Proof on one segment.
#[derive(Debug, Default)]
pub(crate) struct Proof {
    needed_since: Option<Instant>,
    next: Option<Instant>,
    /// The last answer: when its probe was sent, when it came.
    latest: Option<(Instant, Instant)>,
    salts: Vec<(Salt, Instant)>,
    /// When hosts were asked last, and how often lately.
    hosts_asked: Option<Instant>,
    hosts: Bucket,
    /// Addresses asked, and when first since their last answer.
    asked: Vec<(IpAddr, Instant)>,
    /// Who asked for one of the VIPs last, of each family.
    pub(crate) client_v4: Option<Client>,
    pub(crate) client_v6: Option<Client>,
    /// The gateways' Ethernet addresses, once seen.
    gateways: Vec<Client>,
    pub(crate) barred_until: Option<Instant>,
    mute_told: bool,
}

impl Proof {
    /// Since when proof is needed and there is none.
    fn mute_since(&self) -> Option<Instant> {
        let needed = self.needed_since?;
        Some(self.latest.map_or(needed, |(_, came)| came.max(needed)))
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.next
    }

    pub(crate) fn gateway_mac(&self, ip: IpAddr) -> Option<MacAddr> {
        self.gateways.iter().find(|gateway| gateway.ip == ip).map(|gateway| gateway.mac)
    }

    fn learn_gateway(&mut self, ip: IpAddr, mac: MacAddr) {
        self.gateways.retain(|gateway| gateway.ip != ip);
        self.gateways.push(Client { ip, mac });
    }
}

impl Segment {
    /// Begins to ask, unless that is under way.
    pub(crate) fn proof_needed(&mut self, cx: &Context) {
        if self.proof.needed_since.is_none() {
            self.proof.needed_since = Some(cx.now);
            self.proof.latest = None;
            self.proof.salts.clear();
            self.proof.asked.clear();
            self.proof.hosts_asked = None;
            self.proof.next = Some(cx.now);
        }
    }

    /// Asks, when it is time (rule A25).
    pub(crate) fn proof_tick(&mut self, cx: &mut Context) {
        if self.proof.next.is_none_or(|next| next > cx.now) {
            return;
        }
        let suspected = self.peers.iter().any(crate::peers::Peer::is_suspected);
        if !suspected && !self.doubts_a_kernel(cx) && !self.claims_want_proof() {
            self.proof_regained(cx);
            self.proof.needed_since = None;
            self.proof.next = None;
            return;
        }
        let mute = self.proof.mute_since().map_or(Duration::ZERO, |since| cx.now.since(since));
        if mute > MUTE_LONG {
            self.tell_mute(cx, true);
        }
        self.ask_everybody(cx);
        let answered = self.proof.latest.is_some_and(|(_, came)| cx.now.since(came) < cx.f() * 2);
        let pause = match (mute > MUTE_LONG, answered) {
            (true, _) => cx.f() * 8,
            (false, true) => cx.f() * 2,
            (false, false) => cx.f(),
        };
        self.proof.next = Some(cx.now + pause);
    }

    fn ask_everybody(&mut self, cx: &mut Context) {
        if !self.iface.carrier {
            return;
        }
        let now = cx.now;
        let mut peers: Vec<MacAddr> =
            self.peers.present().filter(|peer| !peer.is_suspected()).map(|peer| peer.mac).collect();
        let peers_asked = !peers.is_empty();
        if peers_asked {
            let first = cx.random.below(peers.len());
            peers.rotate_left(first);
            peers.truncate(PEERS_ASKED);
            let salt = cx.random.salt();
            self.proof.salts.push((salt, now));
            if self.proof.salts.len() > ROUNDS {
                self.proof.salts.remove(0);
            }
            for mac in peers {
                self.send(cx, mac, &Message::Challenge(salt));
            }
        }
        if !self.hosts_are_wanted(cx, peers_asked) {
            return;
        }
        for (ip, mac) in self.proof_hosts() {
            if !self.proof.asked.iter().any(|(asked, _)| *asked == ip) {
                self.proof.asked.push((ip, now));
            }
            self.ask_host(cx, ip, mac);
        }
    }

    /// ARP is for when peers don't answer, and sparing: switches with Dynamic ARP Inspection shut a port that sends
    /// more than 15 in a second.
    fn hosts_are_wanted(&mut self, cx: &Context, peers_asked: bool) -> bool {
        let (now, f) = (cx.now, cx.f());
        let last = self.proof.mute_since().unwrap_or(now);
        let since_asked = self.proof.hosts_asked.map(|at| now.since(at));
        let answered = self.proof.asked.is_empty();
        let wanted = if peers_asked {
            now.since(last) >= f * 2
                && since_asked.is_none_or(|since| since >= f * 4)
                && self.proof.hosts.take(now, HOSTS_PER_SECOND)
        } else {
            since_asked.is_none_or(|since| since >= if answered { f * 4 } else { f })
        };
        if wanted {
            self.proof.hosts_asked = Some(now);
        }
        wanted
    }

    /// Gateways and the last clients, without anybody suspected.
    fn proof_hosts(&self) -> Vec<(IpAddr, Option<MacAddr>)> {
        let gateways = [self.iface.gateway_v4.map(IpAddr::V4), self.iface.gateway_v6.map(IpAddr::V6)]
            .into_iter()
            .flatten();
        let clients = [self.proof.client_v4, self.proof.client_v6].into_iter().flatten();
        let mut hosts: Vec<_> = gateways
            .map(|ip| (ip, self.proof.gateway_mac(ip)))
            .chain(clients.map(|client| (client.ip, Some(client.mac))))
            .filter(|(ip, mac)| !self.is_suspects(*ip, *mac))
            .collect();
        hosts.dedup_by_key(|(ip, _)| *ip);
        hosts
    }

    fn is_suspects(&self, ip: IpAddr, mac: Option<MacAddr>) -> bool {
        self.peers.iter().filter(|peer| peer.is_suspected() || peer.is_absent()).any(|peer| {
            Some(peer.mac) == mac
                || peer.ipv4.map(IpAddr::V4) == Some(ip)
                || peer.ipv6.map(IpAddr::V6) == Some(ip)
        })
    }

    pub(crate) fn ask_host(&mut self, cx: &mut Context, ip: IpAddr, mac: Option<MacAddr>) {
        let own = self.iface.mac;
        let frame = match ip {
            IpAddr::V4(ip) => {
                // Without an address of its own here, a probe: it is answered all the same (RFC 5227, 2.1.1).
                let source = self.own_v4(Some(ip)).unwrap_or(Ipv4Addr::UNSPECIFIED);
                let ethernet = mac.map_or(Ethernet::broadcast(own), |mac| Ethernet::new(mac, own));
                Arp::who_has(ip, source, own).to_frame(ethernet)
            }
            IpAddr::V6(ip) => {
                let Some(source) = self.own_v6() else { return };
                match mac {
                    Some(mac) => Ndp::who_has_unicast(ip, source, own).to_frame(Ethernet::new(mac, own)),
                    None => {
                        Ndp::who_has(ip, source, own).to_frame(Ethernet::multicast(solicited_node(ip), own))
                    }
                }
            }
        };
        cx.transmit(self.ifindex(), frame);
    }

    /// A peer echoed a salt.
    pub(crate) fn proof_by_echo(&mut self, cx: &mut Context, salt: Salt) {
        if let Some((_, sent)) = self.proof.salts.iter().find(|(known, _)| *known == salt).copied() {
            self.proof_came(cx, sent);
        }
    }

    /// A host answered us, by ARP reply or neighbour advertisement to our Ethernet address.
    pub(crate) fn proof_by_answer(&mut self, cx: &mut Context, ip: IpAddr, mac: MacAddr) {
        let own_gateway = match ip {
            IpAddr::V4(ip) => self.iface.gateway_v4 == Some(ip),
            IpAddr::V6(ip) => self.iface.gateway_v6 == Some(ip),
        };
        if own_gateway {
            self.proof.learn_gateway(ip, mac);
        }
        let Some(at) = self.proof.asked.iter().position(|(asked, _)| *asked == ip) else { return };
        let (_, sent) = self.proof.asked.swap_remove(at);
        if !self.is_suspects(ip, Some(mac)) {
            self.proof_came(cx, sent);
        }
    }

    fn proof_came(&mut self, cx: &mut Context, sent: Instant) {
        if self.proof.needed_since.is_none() {
            return;
        }
        self.proof_regained(cx);
        self.proof.latest = Some((sent, cx.now));
        // Evidence is reckoned at every proof, so that no gap between two is missed.
        let suspected: Vec<_> =
            self.peers.iter().filter(|peer| peer.is_suspected()).map(|peer| peer.node).collect();
        for node in suspected {
            self.reckon_proof(cx, node);
        }
    }

    /// Rule A26: what a node does that was cut off for a moment.
    fn proof_regained(&mut self, cx: &mut Context) {
        let Some(since) = self.proof.mute_since() else { return };
        if cx.now.since(since) > MUTE_NOTABLE {
            self.back_from_silence(cx);
        }
        self.tell_mute(cx, false);
    }

    /// The cable, or the way to everybody, is back.
    pub(crate) fn back_from_silence(&mut self, cx: &mut Context) {
        if !cx.lacks(Rule::Proof) {
            self.proof.barred_until = Some(cx.now + CLAIM_NOTHING);
        }
        self.reannounce_all(cx);
    }

    fn tell_mute(&mut self, cx: &mut Context, mute: bool) {
        if self.proof.mute_told != mute {
            self.proof.mute_told = mute;
            let ifindex = self.ifindex();
            cx.event(Event::Mute { ifindex, mute });
        }
    }

    /// Mute for so long that it may not claim (rule A26).
    pub(crate) fn is_mute(&self) -> bool {
        self.proof.mute_told
    }

    /// For how long proof has been needed, and there is none.
    pub(crate) fn proof_missing_for(&self, cx: &Context) -> Duration {
        self.proof.mute_since().map_or(Duration::ZERO, |since| cx.now.since(since))
    }

    /// Is the last proof fresh enough for a claim (rule A33)?
    pub(crate) fn proof_is_fresh(&self, cx: &Context) -> bool {
        cx.lacks(Rule::Proof) || self.proof.latest.is_some_and(|(_, came)| cx.now.since(came) <= cx.f() * 6)
    }

    /// When the last answer's probe was sent, and when it came.
    pub(crate) fn latest_proof(&self) -> Option<(Instant, Instant)> {
        self.proof.latest
    }

    pub(crate) fn own_v4(&self, near: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        let own = || {
            self.iface.addresses.iter().filter_map(|net| match net {
                ipnet::IpNet::V4(net) => Some(net),
                ipnet::IpNet::V6(_) => None,
            })
        };
        near.and_then(|near| own().find(|net| net.contains(&near)))
            .or_else(|| own().next())
            .map(ipnet::Ipv4Net::addr)
    }
}
