//! Telling the LAN where an address is: every form of rule A46, and when it is said again (A38, A39, A51), paced by
//! one governor in the order gateways, new claims, re-announcements, refresh.
//!
//! Must always hold: nothing is announced for an address that is not held at that moment; per address the broadcast
//! is re-announced at most once in 100 ms, delayed and never dropped (A38).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use herald_wire::MacAddr;
use herald_wire::arp::Arp;
use herald_wire::ethernet::Ethernet;
use herald_wire::ndp::{ALL_NODES, Ndp, solicited_node};

use crate::context::Context;
use crate::segment::Segment;
use crate::time::Instant;
use crate::vips::{CLIENTS_PER_VIP, Client, VipId};

/// What the governor lets through: this many frames in a millisecond, saved up for one.
const FRAMES_PER_MS: u32 = 100;
const PACE: Duration = Duration::from_millis(1);
/// Once more after this: old kernels ignore an announcement that follows another within a second.
const SECOND_ROUND: Duration = Duration::from_millis(1_100);
/// Where frames are lost: at 1.1, 2.2, 4.4 and 8.8 s, to reach who missed it and is not known.
const LAST_ROUND: Duration = Duration::from_millis(8_800);
/// Room for jobs that is kept while there are none.
const JOBS_KEPT: usize = 64;
/// Measured loss of a peer's hellos that counts as such.
const LOSSY: f64 = 0.02;
/// With more addresses than this here, only their own clients are told, not everybody who asked for any.
const FEW: usize = 64;
/// Targeted announcements: so many times, so far apart (rule A46).
const TARGETED: u8 = 8;
const TARGETED_EVERY: Duration = Duration::from_millis(10);
/// Below the ageing time of any switch.
const REFRESH_MIN: Duration = Duration::from_mins(1);
const REFRESH_MAX: Duration = Duration::from_mins(2);
/// Between two re-announcements of one address (rule A38).
const REANNOUNCE_GAP: Duration = Duration::from_millis(100);
/// Between two re-announcements of everything (rule A39).
const REANNOUNCE_ALL_GAP: Duration = Duration::from_secs(1);

/// In the governor's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Gateway,
    New,
    Again,
    Refresh,
}

const CLASSES: [Class; 4] = [Class::Gateway, Class::New, Class::Again, Class::Refresh];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Job {
    vip: VipId,
    /// The address's when the job was made; another now means: cancelled.
    generation: u32,
    class: Class,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    /// Request-form gratuitous ARP, or NA with O=1 to all nodes.
    Request,
    /// Reply-form gratuitous ARP with tha = sha; IPv4 only.
    Reply,
    /// As Request, after the first round; where frames are lost, again and again.
    Round { pause: Duration },
    /// "Who has `target`, tell VIP", for the n-th time.
    Targeted { target: IpAddr, mac: Option<MacKey>, attempt: u8 },
    /// As Request, and again after a minute or two, for as long as the address is held.
    Refresh,
    /// A re-announcement that had to wait for its gap.
    Delayed,
}

/// `MacAddr` with an order.
type MacKey = [u8; 6];

#[derive(Debug, Default)]
pub(crate) struct Announcer {
    ready: [VecDeque<Job>; CLASSES.len()],
    later: BinaryHeap<Reverse<(Instant, Job)>>,
    refilled: Instant,
    tokens: u32,
    everything_last: Option<Instant>,
    everything_at: Option<Instant>,
}

impl Announcer {
    fn push(&mut self, job: Job) {
        let queue = match job.class {
            Class::Gateway => &mut self.ready[0],
            Class::New => &mut self.ready[1],
            Class::Again => &mut self.ready[2],
            Class::Refresh => &mut self.ready[3],
        };
        queue.push_back(job);
    }

    fn pop(&mut self) -> Option<Job> {
        let job = self.ready.iter_mut().find_map(VecDeque::pop_front);
        if job.is_none() {
            // After a takeover of thousands of addresses.
            self.ready.iter_mut().for_each(|queue| queue.shrink_to(JOBS_KEPT));
        }
        job
    }

    fn is_idle(&self) -> bool {
        self.ready.iter().all(VecDeque::is_empty)
    }

    /// When there is something to send.
    pub(crate) fn next(&self, now: Instant) -> Option<Instant> {
        let ready = (!self.is_idle()).then(|| if self.tokens > 0 { now } else { self.refilled + PACE });
        let later = self.later.peek().map(|Reverse((at, _))| *at);
        [ready, later, self.everything_at].into_iter().flatten().min()
    }
}

impl Segment {
    /// A new claim: everything of rule A46.
    pub(crate) fn announce_claim(&mut self, cx: &mut Context, id: VipId) {
        let now = cx.now;
        let refresh = cx.random.between(REFRESH_MIN, REFRESH_MAX);
        let Some(vip) = self.vips.get_mut(id) else { return };
        vip.announce_generation = vip.announce_generation.wrapping_add(1);
        vip.reannounced = Some(now);
        let generation = vip.announce_generation;
        let v4 = vip.addr.is_ipv4();
        let job = |class, form| Job { vip: id, generation, class, form };
        self.announcer.push(job(Class::New, Form::Request));
        if v4 {
            self.announcer.push(job(Class::New, Form::Reply));
        }
        let round = Form::Round { pause: SECOND_ROUND };
        self.announcer.later.push(Reverse((now + SECOND_ROUND, job(Class::Again, round))));
        self.announcer.later.push(Reverse((now + refresh, job(Class::Refresh, Form::Refresh))));
        self.target_everybody(id, generation);
    }

    /// Says again who holds this address, at most once in 100 ms (rule A38).
    pub(crate) fn reannounce(&mut self, cx: &Context, id: VipId) {
        let Some(vip) = self.vips.get_mut(id).filter(|vip| vip.mine.is_some()) else { return };
        let generation = vip.announce_generation;
        let at = vip.reannounced.map_or(cx.now, |last| last + REANNOUNCE_GAP);
        if at > cx.now {
            // One that waits is enough: its time is set when it is made, and `reannounced` moves with it.
            if at <= cx.now + REANNOUNCE_GAP {
                vip.reannounced = Some(at);
                let job = Job { vip: id, generation, class: Class::Again, form: Form::Delayed };
                self.announcer.later.push(Reverse((at, job)));
            }
            return;
        }
        vip.reannounced = Some(cx.now);
        self.announcer.push(Job { vip: id, generation, class: Class::Again, form: Form::Request });
        self.target_everybody(id, generation);
    }

    /// Says again who holds everything, at most once a second (rule A39).
    pub(crate) fn reannounce_all(&mut self, cx: &Context) {
        let at = self.announcer.everything_last.map_or(cx.now, |last| last + REANNOUNCE_ALL_GAP);
        self.announcer.everything_at.get_or_insert(at.max(cx.now));
    }

    /// "Who has you, tell VIP" to the gateway and to those who asked for it lately.
    fn target_everybody(&mut self, id: VipId, generation: u32) {
        let gateway_v4 = self.iface.gateway_v4.map(IpAddr::V4);
        let gateway_v6 = self.iface.gateway_v6.map(IpAddr::V6);
        let few = self.vips.held() <= FEW;
        let recent = &self.recent_clients;
        let Some(vip) = self.vips.get_mut(id) else { return };
        let gateway = if vip.addr.is_ipv4() { gateway_v4 } else { gateway_v6 };
        let mut clients: Vec<Client> =
            vip.clients.iter().rev().filter(|client| Some(client.ip) != gateway).copied().collect();
        if few {
            // Who asked for another address may have asked for this one, unheard.
            for client in recent.iter().rev().filter(|client| client.ip.is_ipv4() == vip.addr.is_ipv4()) {
                let known = clients.len() >= CLIENTS_PER_VIP
                    || Some(client.ip) == gateway
                    || clients.iter().any(|other| other.ip == client.ip);
                if !known {
                    clients.push(*client);
                }
            }
        }
        vip.unanswered = gateway.into_iter().chain(clients.iter().map(|client| client.ip)).collect();
        let job = |class, target, mac: Option<MacAddr>| Job {
            vip: id,
            generation,
            class,
            form: Form::Targeted { target, mac: mac.map(|mac| mac.octets()), attempt: 1 },
        };
        if let Some(gateway) = gateway {
            let mac = self.proof.gateway_mac(gateway);
            self.announcer.push(job(Class::Gateway, gateway, mac));
        }
        for client in clients {
            self.announcer.push(job(Class::Again, client.ip, Some(client.mac)));
        }
    }

    fn loses_frames(&self) -> bool {
        self.peers.present().any(|peer| peer.loss.estimate() > LOSSY)
    }

    /// A targeted announcement was answered.
    pub(crate) fn announcement_answered(&mut self, cx: &mut Context, id: VipId, by: IpAddr) {
        if let Some(vip) = self.vips.get_mut(id) {
            let waiting = vip.unanswered.len();
            vip.unanswered.retain(|target| *target != by);
            vip.unanswered.shrink_to_fit();
            cx.counters.acknowledged += u64::from(vip.unanswered.len() < waiting);
        }
    }

    /// Sends what the governor allows now.
    pub(crate) fn announce_tick(&mut self, cx: &mut Context) {
        self.announce_everything(cx);
        while let Some(Reverse((at, job))) = self.announcer.later.peek().copied() {
            if at > cx.now {
                break;
            }
            self.announcer.later.pop();
            self.announcer.push(job);
        }
        if cx.now.since(self.announcer.refilled) >= PACE {
            self.announcer.refilled = cx.now;
            self.announcer.tokens = FRAMES_PER_MS;
        }
        while self.announcer.tokens > 0 {
            let Some(job) = self.announcer.pop() else { break };
            if self.perform(cx, job) {
                self.announcer.tokens -= 1;
                if let Some(vip) = self.vips.get_mut(job.vip) {
                    vip.traffic.announcements += 1;
                }
                cx.counters.announcements += 1;
            }
        }
    }

    fn announce_everything(&mut self, cx: &Context) {
        if self.announcer.everything_at.is_none_or(|at| at > cx.now) {
            return;
        }
        self.announcer.everything_at = None;
        self.announcer.everything_last = Some(cx.now);
        if self.vips.held() == 0 {
            return;
        }
        let held: Vec<VipId> =
            self.vips.iter().filter(|(_, vip)| vip.mine.is_some()).map(|(id, _)| id).collect();
        for id in held {
            self.reannounce(cx, id);
        }
    }

    /// Does one job, if it still stands. Says whether a frame went out.
    fn perform(&mut self, cx: &mut Context, job: Job) -> bool {
        let (mute, own) = (self.is_mute() || !self.iface.carrier, self.iface.mac);
        let Some(vip) = self.vips.get_mut(job.vip) else { return false };
        if vip.mine.is_none() || vip.announce_generation != job.generation {
            return false;
        }
        let addr = vip.addr;
        let frame = match job.form {
            Form::Request => gratuitous_request(addr, own),
            Form::Reply => match addr {
                IpAddr::V4(addr) => Arp::gratuitous_reply(addr, own).to_frame(Ethernet::broadcast(own)),
                IpAddr::V6(_) => return false,
            },
            Form::Round { pause } => {
                if pause < LAST_ROUND && self.loses_frames() {
                    let form = Form::Round { pause: pause * 2 };
                    self.announcer.later.push(Reverse((cx.now + pause, Job { form, ..job })));
                    self.target_everybody(job.vip, job.generation);
                }
                gratuitous_request(addr, own)
            }
            Form::Targeted { target, mac, attempt } => {
                if !vip.unanswered.contains(&target) {
                    return false;
                }
                if attempt < TARGETED {
                    let form = Form::Targeted { target, mac, attempt: attempt + 1 };
                    let again = Job { class: Class::Again, form, ..job };
                    self.announcer.later.push(Reverse((cx.now + TARGETED_EVERY, again)));
                } else {
                    vip.unanswered.retain(|waiting| *waiting != target);
                }
                targeted(addr, target, mac.map(MacAddr::from), own)
            }
            Form::Refresh => {
                let at = cx.now + cx.random.between(REFRESH_MIN, REFRESH_MAX);
                self.announcer.later.push(Reverse((at, job)));
                // Rule A26: a mute node refreshes nothing.
                if mute {
                    return false;
                }
                gratuitous_request(addr, own)
            }
            Form::Delayed => {
                self.target_everybody(job.vip, job.generation);
                gratuitous_request(addr, own)
            }
        };
        cx.transmit(self.ifindex(), frame);
        true
    }
}

fn gratuitous_request(vip: IpAddr, own: MacAddr) -> Vec<u8> {
    match vip {
        IpAddr::V4(vip) => Arp::gratuitous_request(vip, own).to_frame(Ethernet::broadcast(own)),
        IpAddr::V6(vip) => Ndp::announcement(vip, own).to_frame(Ethernet::multicast(ALL_NODES, own)),
    }
}

fn targeted(vip: IpAddr, target: IpAddr, mac: Option<MacAddr>, own: MacAddr) -> Vec<u8> {
    match (vip, target) {
        (IpAddr::V4(vip), IpAddr::V4(target)) => {
            let ethernet = mac.map_or(Ethernet::broadcast(own), |mac| Ethernet::new(mac, own));
            Arp::who_has(target, vip, own).to_frame(ethernet)
        }
        (IpAddr::V6(vip), IpAddr::V6(target)) => targeted_v6(vip, target, mac, own),
        // Clients and gateways are of the address's own family.
        (vip, _) => gratuitous_request(vip, own),
    }
}

fn targeted_v6(vip: Ipv6Addr, target: Ipv6Addr, mac: Option<MacAddr>, own: MacAddr) -> Vec<u8> {
    match mac {
        Some(mac) => Ndp::who_has_unicast(target, vip, own).to_frame(Ethernet::new(mac, own)),
        None => Ndp::who_has(target, vip, own).to_frame(Ethernet::multicast(solicited_node(target), own)),
    }
}
