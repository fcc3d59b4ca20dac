//! Nothing dies, but 30 % of all frames do: how often an address moves all the same.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use herald_lab::{Plan, Sniffer};

const ADDRESSES: &str = "192.168.1.240-192.168.1.245";
const SERVICES: u32 = 6;

pub(crate) fn run(time: Duration, percent: u8) -> Result<()> {
    let lab = Plan::nodes(3).start()?;
    lab.kubectl_apply(&format!(
        "{{apiVersion: heraldlb.io/v1beta1, kind: IPAddressPool, metadata: {{name: bench}}, \
         spec: {{addresses: [{ADDRESSES}]}}}}"
    ))?;
    let mut held = Vec::new();
    for index in 0..SERVICES {
        let name = format!("lossy-{index}");
        lab.kubectl_apply(&format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, \
             spec: {{type: LoadBalancer, ports: [{{port: 80}}]}}}}"
        ))?;
        let address = *lab.await_addresses("default", &name)?.first().context("an address")?;
        held.push((address, lab.await_holder(address)?));
    }
    let sniffer = Sniffer::start(lab.lan())?;
    lab.lan().set_loss(percent)?;
    let begun = Instant::now();
    std::thread::park_timeout(time);
    lab.lan().heal()?;
    let seen = sniffer.seen();
    let moved = |frame: &&herald_lab::Seen| {
        frame.at > begun
            && held.iter().any(|(address, holder)| frame.announces(*address) && frame.from != *holder)
    };
    let moves = seen.iter().filter(moved).count();
    println!(
        "| announcements by others than the holder in {} s at {percent} % loss on every path, {SERVICES} VIPs, 3 nodes: \
         {moves} | | | | | | | |",
        time.as_secs()
    );
    Ok(())
}
