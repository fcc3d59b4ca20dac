//! The command line of herald-controller.

use std::{net::SocketAddr, path::PathBuf};

use clap::Parser;
use herald_runtime::telemetry::LogFlags;

/// Gives every Service of type LoadBalancer an address from the pools.
#[derive(Clone, Debug, Parser)]
#[command(name = "herald-controller", version = herald_runtime::LONG_VERSION)]
pub struct Flags {
    /// Kubeconfig of the API server; without it the environment's, else the pod's service account.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The namespace that Herald lives in: the hello key's Secret is kept there.
    #[arg(long, value_name = "NAMESPACE", default_value = "herald-system")]
    pub namespace: String,

    /// Serve Services with this spec.loadBalancerClass; without it those that name no class.
    #[arg(long, value_name = "CLASS")]
    pub load_balancer_class: Option<String>,

    /// Where /livez, /readyz and /metrics are served; several are allowed, and brackets around an IPv4 address too.
    #[arg(long, value_name = "IP:PORT,...", value_delimiter = ',', default_value = "127.0.0.1:7480",
        value_parser = herald_runtime::admin::parse_address)]
    pub admin_addr: Vec<SocketAddr>,

    /// What is logged, and how.
    #[command(flatten)]
    pub log: LogFlags,
}
