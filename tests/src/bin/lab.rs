//! A lab for a person at a shell: `lab up`, then `ip netns exec` into it from another terminal.
#![expect(clippy::print_stdout, reason = "a command's output is what it is for")]

use std::{fs::Permissions, os::unix::fs::PermissionsExt as _, path::PathBuf};

use anyhow::Result;
use clap::{Parser, Subcommand};
use herald_lab::{
    ClusterPlan, Plan, Progress, ProxyMode, Site,
    cluster::STAND_IN,
    programs::{self, Kubernetes},
};

/// Herald's lab: a real Kubernetes control plane and nodes in network namespaces.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Builds a lab and keeps it until Enter, end of input or Ctrl-C
    Up {
        /// Number of nodes
        #[arg(long, default_value_t = 3)]
        nodes: u8,
        /// Control plane, nodes and kube-proxy only: run your own Herald in the namespaces
        #[arg(long)]
        bare: bool,
        /// kube-proxy in iptables mode instead of nftables
        #[arg(long)]
        iptables: bool,
    },
    /// Builds a full cluster, with kubelets and pods, and keeps it until Enter, end of input or Ctrl-C
    Cluster {
        /// Number of nodes
        #[arg(long, default_value_t = 3)]
        nodes: u8,
        /// More image archives that every node shall have, beside Herald's own of `make image`
        #[arg(long)]
        image: Vec<PathBuf>,
        /// Without Herald's images
        #[arg(long)]
        bare: bool,
    },
    /// Builds the control plane's binary if this machine has not got it yet
    Build,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Up { nodes, bare, iptables } => {
            let mut plan = Plan::nodes(nodes);
            plan.herald = !bare;
            if iptables {
                plan.proxy = ProxyMode::Iptables;
            }
            up(plan, bare)
        }
        Command::Cluster { nodes, image, bare } => {
            let ours = if bare { Vec::new() } else { programs::images()? };
            cluster(ClusterPlan::nodes(nodes).with_images(ours).with_images(image).with_stand_in(STAND_IN))
        }
        Command::Build => Kubernetes::find_or_build(&Progress::new()).map(drop),
    }
}

fn up(plan: Plan, bare: bool) -> Result<()> {
    let lab = plan.start()?;
    if bare {
        lab.apply_manifests()?;
        println!("controller: {}", lab.account_kubeconfig("herald-controller")?.display());
        println!("speaker:    {}", lab.account_kubeconfig("herald-speaker")?.display());
    }
    introduce(&lab)?;
    for node in lab.nodes() {
        let host = &node.host;
        println!("node {}:     {}  {} {} {}", node.name(), host.netns.name(), host.v4, host.v6, host.mac);
    }
    until_enter()
}

fn cluster(plan: ClusterPlan) -> Result<()> {
    let cluster = plan.start()?;
    let user = cluster.write_user_programs()?;
    println!("files, logs: {}", cluster.dir().display());
    for node in cluster.nodes() {
        println!("node {}:     {} {}", node.name(), node.host.v4, node.host.v6);
    }
    println!(
        "\nIn another terminal, as root:\n\n    export PATH={}:$PATH\n\nThere kubectl and helm are this cluster's, curl asks from \
         another machine of its LAN ({}),\nand `node n1 COMMAND` runs a command on a node. The five minutes of the README \
         begin here with step 3.\n",
        user.display(),
        cluster.client().v4
    );
    until_enter()
}

fn introduce(site: &Site) -> Result<()> {
    let tag = site.tag();
    println!("files, logs: {}", site.dir().display());
    println!("kubectl:     {}", kubectl_script(site)?.display());
    println!("namespaces:  {tag}-cp, {tag}-client, {tag}-gw, {tag}-lan (the switch)");
    Ok(())
}

fn until_enter() -> Result<()> {
    println!("Enter ends it, and nothing is left behind.");
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// A script that is kubectl inside the site.
fn kubectl_script(site: &Site) -> Result<PathBuf> {
    let file = site.dir().join("kubectl");
    let (kubectl, args) = site.kubectl_program();
    let (tag, kubectl, args) = (site.tag(), kubectl.display(), args.join(" "));
    std::fs::write(&file, format!("#!/bin/sh\nexec ip netns exec {tag}-cp {kubectl} {args} \"$@\"\n"))?;
    std::fs::set_permissions(&file, Permissions::from_mode(0o755))?;
    Ok(file)
}
