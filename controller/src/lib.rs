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
pub mod conditions;
pub mod core;
pub mod desired;
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
use herald_runtime::{Readiness, admin::Admin, client, shutdown, telemetry::LogLevel};
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;

use crate::{
    core::Core,
    flags::Flags,
    metrics::Metrics,
    writer::{Writer, event_writer},
};

/// Runs the controller until SIGTERM or SIGINT.
pub async fn run(flags: Flags, log_level: LogLevel) -> anyhow::Result<()> {
    // Checked first; who leads is not asked yet, every replica writes (rule B3 makes that harmless).
    flags.timing()?;
    let Flags { kubeconfig, namespace, load_balancer_class: class, admin_addr, .. } = flags;
    let stop = shutdown::on_signals().context("can't listen for signals")?;
    let readiness = Readiness::new();
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let admin = Admin::bind(&admin_addr, readiness.clone(), registry).await?.log_level(log_level);
    let client = client::connect(kubeconfig.as_deref(), "controller").await?;
    tracing::info!(
        version = herald_runtime::LONG_VERSION,
        admin = ?admin_addr,
        class = class.as_deref().unwrap_or("(none)"),
        "herald-controller starts"
    );

    let mut tasks = JoinSet::new();
    tasks.spawn(admin.serve(stop.clone()));
    tasks.spawn(hello_key::keep(client.clone(), namespace, readiness.clone()));
    let (told, event_task) = event_writer(client.clone(), instance(), metrics.clone());
    tasks.spawn(event_task);
    let events = watch::start(&client, &readiness, &mut tasks);
    let core = Core::new(class.clone(), metrics.clone(), task::start());
    let writer = Writer::new(client, class, metrics.clone());
    task::run(core, events, writer, told, metrics, stop).await;
    tasks.shutdown().await;
    tracing::info!("herald-controller ended");
    Ok(())
}

/// This process's name in events: the pod's, which is its host's name.
fn instance() -> String {
    std::env::var("HOSTNAME")
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "herald-controller".to_owned())
}
