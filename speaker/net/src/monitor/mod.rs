//! The node's network interfaces, as they are now and whenever they change.
//!
//! Owns the netlink sockets and the picture made from them. What must always hold: a snapshot is complete, never a
//! difference; what the kernel could not tell us for lack of buffer space (ENOBUFS) leads to a full look, not to a
//! gap. Dumps block for as long as the kernel needs, so a monitor belongs on a thread of its own.
//!
//! Loopback, devices without ARP (dummies such as kube-ipvs0, most tunnels) and devices that are not Ethernet are
//! left out: no VIP can live there.

mod netlink;
mod tables;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use herald_wire::MacAddr;

use self::netlink::{Events, Queries, Received};
use self::tables::{Effect, Tables};

/// One network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's index: another one after a re-creation.
    pub ifindex: u32,
    /// Its name: may change.
    pub name: String,
    /// Its Ethernet address: may change, as at the failover of a bond.
    pub mac: MacAddr,
    /// Up, running and with a link.
    pub carrier: bool,
    /// Octets that fit into one frame, without the Ethernet header.
    pub mtu: u32,
    /// The bridge, bond, team or VRF it belongs to.
    pub master: Option<u32>,
    /// Its addresses with their prefixes, sorted.
    pub addresses: Vec<Address>,
    /// The next hop of its IPv4 default route with the lowest metric.
    pub gateway_v4: Option<Gateway<Ipv4Addr>>,
    /// The next hop of its IPv6 default route with the lowest metric.
    pub gateway_v6: Option<Gateway<Ipv6Addr>>,
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The address and its prefix length.
    pub net: IpNet,
    /// Not usable (yet): duplicate address detection runs, or has failed.
    pub tentative: bool,
}

/// A default route's next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gateway<A> {
    /// The route's metric: the lower is preferred.
    pub metric: u32,
    /// The next hop.
    pub ip: A,
}

/// The interfaces can't be watched.
#[derive(Debug, thiserror::Error)]
#[error("netlink: {operation}")]
pub struct MonitorError {
    operation: &'static str,
    #[source]
    error: io::Error,
}

impl MonitorError {
    fn during(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self { operation, error }
    }
}

/// Watches the interfaces of the network namespace it was opened in.
#[derive(Debug)]
pub struct Monitor {
    events: Events,
    queries: Queries,
    tables: Tables,
    last: Option<Vec<Interface>>,
}

impl Monitor {
    /// Subscribes to changes, then takes the first look: what changes in between is seen twice rather than never.
    pub fn open() -> Result<Self, MonitorError> {
        let events = Events::subscribe()?;
        let mut queries = Queries::open()?;
        let tables = Self::look(&mut queries)?;
        Ok(Self { events, queries, tables, last: None })
    }

    /// All interfaces, sorted by index, as soon as they differ from what the last call returned: the first call
    /// returns at once, later ones block.
    ///
    /// An error means that netlink itself fails; a new monitor may succeed.
    pub fn changed(&mut self) -> Result<Vec<Interface>, MonitorError> {
        loop {
            let now = self.tables.interfaces();
            if self.last.as_ref() != Some(&now) {
                self.last = Some(now.clone());
                return Ok(now);
            }
            self.take_events()?;
        }
    }

    /// Waits for one datagram of events, then takes all that are there, so that a burst makes one snapshot.
    fn take_events(&mut self) -> Result<(), MonitorError> {
        let mut effect = Effect::None;
        let mut received = self.events.wait()?;
        loop {
            match received {
                Received::Nothing => break,
                Received::Overrun => effect = Effect::LookAgain,
                Received::Messages => {
                    for (kind, payload) in self.events.messages() {
                        effect = effect.max(self.tables.apply(kind, payload));
                    }
                }
            }
            received = self.events.try_next()?;
        }
        match effect {
            Effect::None => {}
            Effect::RoutesMayDiffer => self.tables.replace_routes(self.queries.default_routes()?),
            Effect::LookAgain => self.tables = Self::look(&mut self.queries)?,
        }
        Ok(())
    }

    fn look(queries: &mut Queries) -> Result<Tables, MonitorError> {
        let mut tables = Tables::default();
        queries.links_and_addresses(|kind, payload| {
            tables.apply(kind, payload);
        })?;
        tables.replace_routes(queries.default_routes()?);
        Ok(tables)
    }
}
