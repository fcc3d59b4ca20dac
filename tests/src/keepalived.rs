//! The rival: Debian's keepalived moving one address between the same nodes over the same bridge.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{lab::Lab, node::Node, process::Process};

/// keepalived on every given node, the first of them master of one address.
#[derive(Debug)]
pub struct Keepalived {
    vip: Ipv4Addr,
    processes: Vec<(String, Process)>,
    starts: Vec<(String, PathBuf)>,
}

impl Keepalived {
    /// Starts it on `nodes` with an advertisement every `interval_ms`; priorities fall along the list.
    pub fn start(nodes: &[&Node], vip: Ipv4Addr, interval_ms: u32) -> Result<Self> {
        let mut rival = Self { vip, processes: Vec::new(), starts: Vec::new() };
        for (rank, node) in nodes.iter().enumerate() {
            let config = node.dir().join("keepalived.conf");
            std::fs::write(&config, configuration(vip, interval_ms, rank))?;
            rival.starts.push((node.name().to_owned(), config));
            rival.start_on(node)?;
        }
        Ok(rival)
    }

    /// Starts it (again) on one node.
    pub fn start_on(&mut self, node: &Node) -> Result<()> {
        let (_, config) = self
            .starts
            .iter()
            .find(|(name, _)| name == node.name())
            .context("keepalived was never on that node")?;
        let process = run(node, config)?;
        self.processes.push((node.name().to_owned(), process));
        Ok(())
    }

    /// Cuts the power of a node with everything on it.
    pub fn power_off(&mut self, lab: &Lab, node: &Node) -> Result<()> {
        lab.power_off(node.name())?;
        self.processes.retain(|(name, _)| name != node.name());
        // The kernel of a dead machine forgets the address that keepalived put there. Already gone if it was not master.
        let _ = node.host.netns.ip(&[&format!("addr del {}/16 dev eth0", self.vip)]);
        Ok(())
    }

    /// Gives it its power back.
    pub fn power_on(&mut self, lab: &Lab, node: &Node) -> Result<()> {
        lab.power_on(node.name())?;
        self.start_on(node)
    }
}

fn run(node: &Node, config: &Path) -> Result<Process> {
    let dir = node.dir();
    for file in ["keepalived.pid", "vrrp.pid"] {
        // A machine that lost power starts with an empty /run; the first start finds none.
        let _ = std::fs::remove_file(dir.join(file));
    }
    let args = [
        "--dont-fork".to_owned(),
        "--log-console".to_owned(),
        format!("--use-file={}", config.display()),
        format!("--pid={}", dir.join("keepalived.pid").display()),
        format!("--vrrp_pid={}", dir.join("vrrp.pid").display()),
        "--vrrp".to_owned(),
    ];
    Process::start(
        &node.host.netns,
        "keepalived",
        Path::new("/usr/sbin/keepalived"),
        args,
        &dir.join("keepalived.log"),
    )
    .context("keepalived comes from Debian's package of that name: `make deps` installs it")
}

/// Sticky as Herald is (`nopreempt`), and announcing at once.
fn configuration(vip: Ipv4Addr, interval_ms: u32, rank: usize) -> String {
    let priority = 200 - 10 * rank;
    let interval = f64::from(interval_ms) / 1000.0;
    format!(
        "vrrp_instance lab {{\n\
         \x20 version 3\n  state BACKUP\n  nopreempt\n  interface eth0\n  virtual_router_id 51\n  priority {priority}\n\
         \x20 advert_int {interval}\n  virtual_ipaddress {{ {vip}/16 dev eth0 }}\n}}\n\
         global_defs {{\n  vrrp_version 3\n  vrrp_garp_master_delay 1\n}}\n"
    )
}
