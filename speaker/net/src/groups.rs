//! Membership in the solicited-node groups of IPv6 VIPs (RFC 4861, 7.2.1), so that the interface, and switches that
//! snoop MLD, let neighbour solicitations through.
//!
//! The kernel charges each membership to the socket's option memory, `net.core.optmem_max`: 2,340 fit into one
//! socket at 128 KiB, some 365 at 20 KiB; beyond that a join fails. So they are spread: a full socket is followed by
//! another. VIPs share groups when their last 24 bits are equal; counting users is the caller's business.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::Ipv6Addr;

use socket2::{Domain, Protocol, Socket, Type};

/// The memberships of one speaker, over all its interfaces.
#[derive(Debug, Default)]
pub struct SolicitedNodeGroups {
    sockets: Vec<Member>,
    /// Which of the sockets holds a membership.
    joined: HashMap<Membership, usize>,
}

type Membership = (u32, Ipv6Addr);

/// A socket that exists for its memberships: it is bound to no port and receives nothing.
#[derive(Debug)]
struct Member {
    socket: Socket,
    /// A join failed for want of memory since the last leave.
    full: bool,
}

impl SolicitedNodeGroups {
    /// No memberships, no sockets.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many memberships there are.
    pub fn len(&self) -> usize {
        self.joined.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.joined.is_empty()
    }

    /// Joins `group` on an interface; joined already, nothing happens.
    pub fn join(&mut self, ifindex: u32, group: Ipv6Addr) -> io::Result<()> {
        let membership = (ifindex, group);
        if self.joined.contains_key(&membership) {
            return Ok(());
        }
        for (at, member) in self.sockets.iter_mut().enumerate().filter(|(_, member)| !member.full) {
            match member.join(membership) {
                Err(error) if is_full(&error) => member.full = true,
                Err(error) => return Err(error),
                Ok(()) => {
                    self.joined.insert(membership, at);
                    return Ok(());
                }
            }
        }
        let mut member = Member::new()?;
        member.join(membership)?;
        self.joined.insert(membership, self.sockets.len());
        self.sockets.push(member);
        Ok(())
    }

    /// Leaves `group` on an interface; not joined, nothing happens.
    pub fn leave(&mut self, ifindex: u32, group: Ipv6Addr) {
        let membership = (ifindex, group);
        let at = self.joined.remove(&membership);
        if let Some(member) = at.and_then(|at| self.sockets.get_mut(at)) {
            member.leave(membership);
        }
    }

    /// Leaves all groups of an interface, which may be gone: the sockets keep memberships of a deleted interface
    /// otherwise, and count them.
    pub fn forget_interface(&mut self, ifindex: u32) {
        for group in self.groups_of(ifindex) {
            self.leave(ifindex, group);
        }
    }

    /// Joins all groups of an interface anew: when it was re-created under its old index, or lost IPv6 for a while,
    /// the kernel has dropped its side of the memberships and the sockets don't know.
    ///
    /// Returns the first error after trying all; what failed is not joined.
    pub fn rejoin(&mut self, ifindex: u32) -> io::Result<()> {
        let groups = self.groups_of(ifindex);
        self.forget_interface(ifindex);
        groups.into_iter().map(|group| self.join(ifindex, group)).fold(Ok(()), io::Result::and)
    }

    fn groups_of(&self, ifindex: u32) -> BTreeSet<Ipv6Addr> {
        self.joined.keys().filter(|(on, _)| *on == ifindex).map(|(_, group)| *group).collect()
    }
}

impl Member {
    fn new() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV6, Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
        Ok(Self { socket, full: false })
    }

    fn join(&mut self, (ifindex, group): Membership) -> io::Result<()> {
        match self.socket.join_multicast_v6(&group, ifindex) {
            // This very socket is a member already: a leave that failed, say.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(()),
            result => result,
        }
    }

    fn leave(&mut self, (ifindex, group): Membership) {
        // The only error is that there is no such membership, and that is what we want.
        let _ = self.socket.leave_multicast_v6(&group, ifindex);
        self.full = false;
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::ENOBUFS))
}
