//! The controller: gives every Service of type LoadBalancer its address.
//!
//! ```text
//!  watches ──▶ one channel ──▶ ┌──────────── task ────────────┐ ──▶ jobs ──▶ writer ──▶ API server
//!   (watch)                    │ core: index + allocator core │ ◀── results ──┘
//!                              └──────────────────────────────┘
//! ```
//!
//! The core decides and is synchronous; the task around it owns all state; the writer carries out and decides nothing.
//! What must always hold: an address is given out only by creating its LoadBalancerIP, and only then shown on a
//! Service; nothing is withdrawn because information is missing (docs/protocol.md, part B).

pub mod announce;
pub mod apply_crds;
pub mod assembly;
pub mod conditions;
pub mod core;
pub mod desired;
#[cfg(test)]
mod fake_api;
pub mod flags;
pub mod hello_key;
pub mod index;
pub mod job;
pub mod metrics;
pub mod objects;
pub mod reasons;
pub mod task;
pub mod watch;
pub mod writer;

use anyhow::Context as _;
use herald_runtime::{Readiness, admin::Admin, client, lease, shutdown, telemetry::LogLevel};
use prometheus_client::registry::Registry;
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    assembly::{Assembly, Parts},
    flags::{Command, Flags},
    metrics::Metrics,
};

/// The name of the Lease by which one of several controllers leads.
const LEASE: &str = "herald-controller";

/// Does what the command line says.
pub async fn run(flags: Flags, log_level: LogLevel) -> anyhow::Result<()> {
    match flags.command {
        Some(Command::ApplyCrds) => {
            let client = client::connect(flags.kubeconfig.as_deref(), "controller").await?;
            Ok(apply_crds::run(client).await?)
        }
        None => control(flags, log_level).await,
    }
}

/// Runs the controller until SIGTERM or SIGINT.
async fn control(flags: Flags, log_level: LogLevel) -> anyhow::Result<()> {
    let timing = flags.timing()?;
    let hello = flags.hello_secret();
    let Flags { kubeconfig, namespace, load_balancer_class: class, admin_addr, .. } = flags;
    let stop = shutdown::on_signals().context("can't listen for signals")?;
    let readiness = Readiness::new();
    let admin = Admin::bind(&admin_addr, readiness.clone()).await?.log_level(log_level);
    let client = client::connect(kubeconfig.as_deref(), "controller").await?;
    let (instance, identity) = names()?;
    let lease = lease::Settings { namespace, name: LEASE.to_owned(), identity, timing };
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let (ask, asked) = mpsc::channel(1);
    let parts = Parts {
        client: client.clone(),
        class: class.clone(),
        lease,
        instance,
        readiness: readiness.clone(),
        metrics,
        asked,
    };
    let controller = Assembly::new(parts);
    metrics::register(&mut registry, readiness.clone(), controller.leadership());
    tracing::info!(
        version = herald_runtime::LONG_VERSION,
        admin = ?admin_addr,
        class = class.as_deref().unwrap_or("(none)"),
        "herald-controller starts"
    );

    let mut tasks = JoinSet::new();
    let admin = admin.metrics(registry).state(Box::new(move || task::state(ask.clone())));
    tasks.spawn(admin.serve(stop.clone()));
    tasks.spawn(hello_key::keep(client, hello, readiness));
    controller.run(stop).await;
    tasks.shutdown().await;
    tracing::info!("herald-controller ended");
    Ok(())
}

/// This process's name in events, and its name in the Lease, which no other process may have.
fn names() -> anyhow::Result<(String, String)> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    // A pod's name is nobody else's, and only one container of it runs at a time: when that has crashed and is started
    // again, it finds itself in the Lease and need not wait.
    if let Some(pod) = variable("POD_NAME") {
        return Ok((pod.clone(), pod));
    }
    let host = variable("HOSTNAME").unwrap_or_else(|| "herald-controller".to_owned());
    let random = getrandom::u32().context("the kernel gives no random numbers")?;
    Ok((host.clone(), format!("{host}-{random:08x}")))
}
