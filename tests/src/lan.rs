//! The LAN: a bridge in a namespace of its own, hosts plugged into it, and everything that can go wrong with a cable.
//!
//! Faults live in the bridge's namespace, out of reach of the hosts: they see frames that never come, and nothing else.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use herald_net::L2Socket;
use herald_wire::MacAddr;
use nix::net::if_::if_nametoindex;
use serde::Deserialize;

use crate::netns::Netns;

/// The gateway's host number: 192.168.0.254 and fd98::254.
const GATEWAY: u8 = 254;

/// A host on the LAN: a namespace with `eth0`, one IPv4 and one IPv6 address.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name, which is also its port's name on the bridge.
    pub name: String,
    /// Its namespace.
    pub netns: Netns,
    /// Its address in 192.168.0.0/16.
    pub v4: Ipv4Addr,
    /// Its address in fd98::/64.
    pub v6: Ipv6Addr,
    /// The MAC of its `eth0`.
    pub mac: MacAddr,
}

/// One entry of a host's neighbour cache.
#[derive(Clone, Debug, Deserialize)]
pub struct Neighbour {
    /// The address.
    pub dst: IpAddr,
    /// The MAC it is believed to be at; none while incomplete or failed.
    pub lladdr: Option<String>,
    /// `REACHABLE`, `STALE`, ...
    #[serde(default)]
    pub state: Vec<String>,
}

impl Host {
    /// What this host believes about `address`.
    pub fn neighbour(&self, address: IpAddr) -> Result<Option<Neighbour>> {
        let json = self.netns.output("ip", &["-json", "neigh", "show", "to", &address.to_string()])?;
        let entries: Vec<Neighbour> = serde_json::from_str(&json)?;
        Ok(entries.into_iter().find(|entry| entry.dst == address))
    }

    /// Brings interface `name` up with the host's addresses and default routes, which it may have lost with its link.
    pub fn configure(&self, name: &str) -> Result<()> {
        let (v4, v6) = (self.v4, self.v6);
        let mut commands = vec![
            format!("link set {name} up"),
            format!("addr replace {v4}/16 dev {name}"),
            format!("addr replace {v6}/64 dev {name} nodad"),
        ];
        let gateway = Ipv4Addr::new(192, 168, 0, GATEWAY);
        if v4 != gateway {
            // Both families: without a default route a connection to an IPv6 ClusterIP fails before kube-proxy's DNAT.
            commands.push(format!("route replace default via {gateway}"));
            commands.push(format!("route replace default via fd98::{GATEWAY}"));
        }
        self.netns.ip(&commands.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// A socket that sends whole Ethernet frames through `eth0`.
    pub fn sender(&self) -> Result<L2Socket> {
        let opened = self.netns.run(|| anyhow::Ok(L2Socket::open(if_nametoindex("eth0")?, &[])?))?;
        opened.with_context(|| format!("a packet socket on {}", self.name))
    }

    /// Sends one frame, whatever it says.
    pub fn transmit(&self, frame: &[u8]) -> Result<()> {
        self.sender()?.send(frame).with_context(|| format!("sending a frame from {}", self.name))
    }

    /// Forgets every neighbour.
    pub fn forget_neighbours(&self) -> Result<()> {
        self.netns.ip(&["neigh flush all"])
    }
}

/// What is dropped on its way through the bridge.
#[derive(Default, Debug)]
struct Faults {
    /// Percent of the frames between any two ports, each copy on its own.
    loss: u8,
    /// Frames from the first port to the second.
    one_way: Vec<(String, String)>,
}

/// The switch and what is plugged into it.
#[derive(Debug)]
pub struct Lan {
    netns: Netns,
    hosts: Mutex<BTreeMap<String, Host>>,
    faults: Mutex<Faults>,
}

impl Lan {
    /// A bridge in namespace `netns`.
    pub(crate) fn new(netns: Netns) -> Result<Self> {
        netns.ip(&[
            "link add br0 type bridge",
            "link set br0 up",
            "link add br1 type bridge",
            "link set br1 up",
        ])?;
        // Snooping would need a querier; without one a plain switch floods.
        for bridge in ["br0", "br1"] {
            netns.sysctl(&format!("ipv6/conf/{bridge}/disable_ipv6"), "1")?;
        }
        netns.ip(&[
            "link set br0 type bridge mcast_snooping 0",
            "link set br1 type bridge mcast_snooping 0",
        ])?;
        Ok(Self { netns, hosts: Mutex::default(), faults: Mutex::default() })
    }

    /// The bridge's namespace; its interfaces are called like the hosts behind them.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Plugs namespace `netns` in as host `name`, number `number` of both subnets.
    pub(crate) fn plug(&self, name: &str, netns: Netns, number: u8) -> Result<Host> {
        let v4 = Ipv4Addr::new(192, 168, 0, number);
        let v6: Ipv6Addr = format!("fd98::{number}").parse()?;
        for (key, value) in [
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            // A node that comes back without its pods' bridge would send everybody's packets for them elsewhere, for minutes.
            ("ipv4/conf/all/accept_redirects", "0"),
            ("ipv4/conf/default/accept_redirects", "0"),
            ("ipv4/conf/all/send_redirects", "0"),
            ("ipv4/conf/default/send_redirects", "0"),
            ("ipv6/conf/all/accept_redirects", "0"),
            ("ipv6/conf/default/accept_redirects", "0"),
            // Duplicate address detection would only delay what the lab assigns.
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/default/accept_ra", "0"),
        ] {
            netns.sysctl(key, value)?;
        }
        let host = Host { name: name.to_owned(), netns, v4, v6, mac: MacAddr::zero() };
        self.wire(host)
    }

    /// Gives a host whose `eth0` was deleted a new one, with another MAC address, in the same place.
    pub fn replug(&self, host: &Host) -> Result<Host> {
        self.wire(host.clone())
    }

    fn wire(&self, mut host: Host) -> Result<Host> {
        let (name, inside) = (&host.name, host.netns.name());
        self.netns.ip(&[
            &format!("link add {name} type veth peer name eth0 netns {inside}"),
            &format!("link set {name} master br0 up"),
        ])?;
        host.configure("eth0")?;
        host.mac = link_mac(&host.netns, "eth0")?;
        locked(&self.hosts).insert(host.name.clone(), host.clone());
        Ok(host)
    }

    /// The default gateway, which does nothing but answer for its address.
    pub(crate) fn plug_gateway(&self, netns: Netns) -> Result<Host> {
        self.plug("gw", netns, GATEWAY)
    }

    /// The host whose interface has this MAC.
    pub fn host_of(&self, mac: MacAddr) -> Option<Host> {
        locked(&self.hosts).values().find(|host| host.mac == mac).cloned()
    }

    /// Pulls `host`'s cable: both ends lose carrier.
    pub fn cut(&self, host: &str) -> Result<()> {
        self.netns.ip(&[&format!("link set {host} down")])
    }

    /// Plugs it in again.
    pub fn mend(&self, host: &str) -> Result<()> {
        self.netns.ip(&[&format!("link set {host} up")])
    }

    /// Splits the LAN: `island` on one switch, everybody else on the other. No host loses carrier.
    pub fn split(&self, island: &[&str]) -> Result<()> {
        self.rewire(|name| if island.contains(&name) { "br1" } else { "br0" })
    }

    /// Joins both switches again.
    pub fn join(&self) -> Result<()> {
        self.rewire(|_| "br0")
    }

    /// Drops `percent` of all frames, independently for every copy of a multicast.
    pub fn set_loss(&self, percent: u8) -> Result<()> {
        let mut faults = locked(&self.faults);
        faults.loss = percent;
        self.apply(&faults)
    }

    /// Drops whatever `from` sends to `to`; the way back stays open.
    pub fn block(&self, from: &str, to: &str) -> Result<()> {
        let mut faults = locked(&self.faults);
        faults.one_way.push((from.to_owned(), to.to_owned()));
        self.apply(&faults)
    }

    /// Lets everything through again: blocks, loss and splits end.
    pub fn heal(&self) -> Result<()> {
        let mut faults = locked(&self.faults);
        *faults = Faults::default();
        self.apply(&faults)?;
        self.join()
    }

    fn rewire(&self, switch_of: impl Fn(&str) -> &'static str) -> Result<()> {
        let commands: Vec<String> = locked(&self.hosts)
            .keys()
            .map(|name| format!("link set {name} master {}", switch_of(name)))
            .collect();
        let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
        self.netns.ip(&commands)
    }

    fn apply(&self, faults: &Faults) -> Result<()> {
        let mut script =
            "add table bridge faults\ndelete table bridge faults\ntable bridge faults {\nchain crossing {\n\
                          type filter hook forward priority 0;\n"
                .to_owned();
        for (from, to) in &faults.one_way {
            writeln!(script, "iifname \"{from}\" oifname \"{to}\" drop")?;
        }
        if faults.loss > 0 {
            writeln!(script, "numgen random mod 100 < {} drop", faults.loss)?;
        }
        script.push_str("}\n}\n");
        self.netns.nft(&script)
    }
}

fn link_mac(netns: &Netns, interface: &str) -> Result<MacAddr> {
    #[derive(Deserialize)]
    struct Link {
        address: String,
    }
    let links: Vec<Link> =
        serde_json::from_str(&netns.output("ip", &["-json", "link", "show", "dev", interface])?)?;
    let link = links.first().with_context(|| format!("{interface} is not in {}", netns.name()))?;
    link.address.parse().map_err(|_| anyhow::anyhow!("{} is not a MAC address", link.address))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
