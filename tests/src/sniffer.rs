//! What really goes over the wire: a packet socket in the bridge's namespace that sees every frame as it enters a port.

use std::{
    collections::HashMap,
    net::IpAddr,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use herald_wire::{Arp, MacAddr, Ndp, Payload, arp, ndp};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, socket},
};
use serde::Deserialize;

use crate::{lan::Lan, netns::Netns};

/// `sll_pkttype` of a frame on its way out of a port (linux/if_packet.h): it was seen on its way in already.
const PACKET_OUTGOING: u8 = 4;

/// A frame that entered the bridge.
#[derive(Debug, Clone)]
pub struct Seen {
    /// When it was read from the socket.
    pub at: Instant,
    /// The host that sent it, by the port it came in through.
    pub from: String,
    /// The Ethernet source.
    pub source: MacAddr,
    /// The Ethernet destination.
    pub destination: MacAddr,
    /// What it says.
    pub what: What,
}

/// What a frame says.
#[derive(Debug, Clone)]
pub enum What {
    /// ARP.
    Arp(Arp),
    /// Neighbour solicitation or advertisement.
    Ndp(Ndp),
    /// A speaker's message, not looked into: the whole frame.
    Hello(Vec<u8>),
}

impl Seen {
    /// Whether this tells everybody where `address` is: a gratuitous ARP, or an unsolicited NA.
    pub fn announces(&self, address: IpAddr) -> bool {
        match (&self.what, address) {
            (What::Arp(arp), IpAddr::V4(address)) => arp.is_gratuitous() && arp.spa == address,
            (What::Ndp(ndp), IpAddr::V6(address)) => {
                ndp.target() == address
                    && matches!(ndp.message, ndp::Message::Advertisement { solicited: false, .. })
            }
            _ => false,
        }
    }

    /// Whether this answers a question for `address`.
    pub fn answers(&self, address: IpAddr) -> bool {
        match (&self.what, address) {
            (What::Arp(arp), IpAddr::V4(address)) => {
                arp.operation == arp::Operation::Reply && arp.spa == address && !arp.is_gratuitous()
            }
            (What::Ndp(ndp), IpAddr::V6(address)) => {
                ndp.target() == address
                    && matches!(ndp.message, ndp::Message::Advertisement { solicited: true, .. })
            }
            _ => false,
        }
    }
}

/// A running capture. Everything seen is kept until it is dropped.
#[derive(Debug)]
pub struct Sniffer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Vec<Seen>>,
    more: Condvar,
    stop: AtomicBool,
}

impl Sniffer {
    /// Starts capturing.
    pub fn start(lan: &Lan) -> Result<Self> {
        let ports = ports(lan.netns())?;
        let raw = lan.netns().run(|| {
            socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
                SockProtocol::EthAll,
            )
        })?;
        let raw = raw.context("a packet socket in the bridge's namespace")?;
        let shared = Arc::new(Shared::default());
        let capture = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("sniffer".to_owned())
            .spawn(move || capture.run(&raw, &ports))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Everything seen so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.lock().clone()
    }

    /// Every announcement of `address` that another host than `holder`, and then than the last that announced it, made
    /// since `since`: the address's moves.
    pub fn moves(&self, address: IpAddr, holder: &str, since: Instant) -> Vec<Seen> {
        let mut at = holder.to_owned();
        let mut moves = self.seen();
        moves.retain(|frame| {
            let moved = frame.at >= since && frame.announces(address) && frame.from != at;
            if moved {
                at.clone_from(&frame.from);
            }
            moved
        });
        moves
    }

    /// Waits for a frame that `wanted` accepts, seen at or after `since`.
    pub fn wait_for(
        &self,
        since: Instant,
        patience: Duration,
        wanted: impl Fn(&Seen) -> bool,
    ) -> Result<Seen> {
        let deadline = Instant::now() + patience;
        let mut seen = self.shared.lock();
        let mut looked_at = 0;
        loop {
            let fresh = seen.iter().skip(looked_at).find(|frame| frame.at >= since && wanted(frame));
            if let Some(frame) = fresh {
                return Ok(frame.clone());
            }
            looked_at = seen.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(anyhow!("no such frame within {patience:?}"));
            }
            seen = self.shared.more.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in it has been printed already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, raw: &OwnedFd, ports: &HashMap<usize, String>) {
        let mut buffer = [0; 2048];
        while !self.stop.load(Ordering::Relaxed) {
            let mut waiting = [PollFd::new(raw.as_fd(), PollFlags::POLLIN)];
            // Wakes up now and then to see whether it shall stop.
            let _ = poll(&mut waiting, PollTimeout::from(20_u8));
            while let Ok((length, sender)) = recvfrom::<LinkAddr>(raw.as_raw_fd(), &mut buffer) {
                let bytes = buffer.get(..length).unwrap_or_default();
                if let Some(frame) = sender.and_then(|sender| read(bytes, &sender, ports)) {
                    self.lock().push(frame);
                    self.more.notify_all();
                }
            }
        }
    }
}

/// Makes sense of one frame, if it is one that entered a port and says something of interest.
fn read(bytes: &[u8], sender: &LinkAddr, ports: &HashMap<usize, String>) -> Option<Seen> {
    let at = Instant::now();
    if sender.pkttype() == PACKET_OUTGOING {
        return None;
    }
    let from = ports.get(&sender.ifindex())?.clone();
    let frame = herald_wire::parse(bytes).ok()?;
    let what = match frame.payload {
        Payload::Arp(arp) => What::Arp(arp),
        Payload::Ndp(ndp) => What::Ndp(ndp),
        Payload::Hello(_) => What::Hello(bytes.to_vec()),
        Payload::Echo(_) => return None,
    };
    Some(Seen { at, from, source: frame.ethernet.source, destination: frame.ethernet.destination, what })
}

fn ports(netns: &Netns) -> Result<HashMap<usize, String>> {
    #[derive(Deserialize)]
    struct Link {
        ifindex: usize,
        ifname: String,
    }
    let links: Vec<Link> =
        serde_json::from_str(&netns.output("ip", &["-json", "link", "show", "type", "veth"])?)?;
    Ok(links.into_iter().map(|link| (link.ifindex, link.ifname)).collect())
}
