//! Questions on the wire, timed: who has an address, asked by raw frames, without the kernel's neighbour cache between.

use std::{
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use herald_net::L2Socket;
use herald_wire::{Arp, Ethernet, MacAddr, Ndp, Payload, arp, ndp};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket};

use crate::lan::Host;

/// Asks from one host, one question at a time.
#[derive(Debug)]
pub struct Asker {
    host: Host,
    sending: L2Socket,
    receiving: OwnedFd,
}

impl Asker {
    /// Opens its sockets on `host`.
    pub fn new(host: &Host) -> Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let receiving = host
            .netns
            .run(move || socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll))??;
        Ok(Self { host: host.clone(), sending: host.sender()?, receiving })
    }

    /// Broadcasts the question who has `address` and gives the answer's MAC and time; `None` when none comes.
    ///
    /// It spins for the answer: a sleeping thread's wake-up would be part of what it measures.
    pub fn ask(&self, address: IpAddr, patience: Duration) -> Result<Option<(MacAddr, Duration)>> {
        let mut buffer = [0; 2048];
        while self.receive(&mut buffer).is_some() {}
        let question = self.question(address);
        let asked = Instant::now();
        self.sending.send(&question).with_context(|| format!("asking for {address}"))?;
        while asked.elapsed() < patience {
            if let Some(length) = self.receive(&mut buffer) {
                let took = asked.elapsed();
                if let Some(mac) = buffer.get(..length).and_then(|frame| answer(frame, address)) {
                    return Ok(Some((mac, took)));
                }
            }
        }
        Ok(None)
    }

    fn receive(&self, buffer: &mut [u8]) -> Option<usize> {
        recv(self.receiving.as_raw_fd(), buffer, MsgFlags::empty()).ok()
    }

    fn question(&self, address: IpAddr) -> Vec<u8> {
        let Host { mac, v4, v6, .. } = self.host;
        match address {
            IpAddr::V4(target) => Arp::who_has(target, v4, mac).to_frame(Ethernet::broadcast(mac)),
            IpAddr::V6(target) => {
                Ndp::who_has(target, v6, mac).to_frame(Ethernet::multicast(ndp::solicited_node(target), mac))
            }
        }
    }
}

/// The MAC that a frame gives for `address`, if it answers a question for it.
fn answer(frame: &[u8], address: IpAddr) -> Option<MacAddr> {
    match (herald_wire::parse(frame).ok()?.payload, address) {
        (Payload::Arp(found), IpAddr::V4(target)) => {
            (found.operation == arp::Operation::Reply && found.spa == target).then_some(found.sha)
        }
        (Payload::Ndp(found), IpAddr::V6(target)) => match found.message {
            ndp::Message::Advertisement { target: about, target_mac, .. } if about == target => target_mac,
            _ => None,
        },
        _ => None,
    }
}
