//! The lab: a real control plane and a LAN of network namespaces, for the demo, the tests and the benchmarks.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let lab = herald_lab::Plan::nodes(3).start()?;
//! println!("{}", lab.kubectl(&["get", "nodes"])?);
//! lab.power_off("n1")?;
//! # Ok(()) }
//! ```
//!
//! What is real: etcd, kube-apiserver, kube-controller-manager, kube-proxy, kubectl, Herald's own binaries, every frame on
//! the wire. What is not: a node is a network namespace without kubelet or containers, and a pod is a server of the lab's
//! behind its node ([`backend`]), made known to kube-proxy by EndpointSlices that the lab writes.
//!
//! What must hold: several labs run side by side; the machine's own network is never touched; nothing is left behind,
//! also after a panic, Ctrl-C or SIGKILL (`scratch.rs` has the one way in which everything goes).

mod asker;
pub mod backend;
mod client;
pub mod cluster;
mod connections;
mod control_plane;
mod herald;
mod keepalived;
mod lab;
mod lan;
mod metallb;
mod meter;
mod netns;
mod node;
mod pki;
mod process;
pub mod programs;
mod progress;
mod scratch;
pub mod services;
pub mod shared;
mod site;
mod sniffer;

pub use asker::Asker;
pub use client::Page;
pub use cluster::{Cluster, ClusterNode, ClusterPlan};
pub use connections::{Connections, Served};
pub use control_plane::ControlPlane;
pub use herald::NAMESPACE as HERALD_NAMESPACE;
pub use keepalived::Keepalived;
pub use lab::{Lab, Plan};
pub use lan::{Host, Lan, Neighbour};
pub use metallb::Metallb;
pub use meter::{Gap, Meter, Observed};
pub use netns::Netns;
pub use node::{Node, ProxyMode};
pub use process::Process;
pub use progress::Progress;
pub use site::Site;
pub use sniffer::{Seen, Sniffer, What};
