//! Puts the process together, in an order in which each step can say what it lacks.
//!
//! The node's id comes from its Node object, so a speaker that starts while the API server is away waits for it
//! and says so: without the API server there is also nothing that it might announce, as what may be announced is
//! written there. Speakers that run already are not concerned: they go on, and fail over among themselves.

use std::{
    path::Path,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use futures::StreamExt as _;
use herald_l2::{NodeId, NodeName, NodeState};
use herald_net::{
    clock::boottime_nanos,
    instance::{InstanceLock, LockError},
    poller::Poller,
};
use herald_runtime::{
    Readiness,
    admin::{Admin, LiveCheck},
    client,
    shutdown::{self, CancellationToken},
    telemetry::LogLevel,
    watch::Change,
};
use prometheus_client::registry::Registry;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    flags::Flags,
    keys::{self, Keys},
    l2_thread,
    link::link,
    metrics::{CoreCollector, Transitions},
    observer::{NodeChanges, Observer, Parts, watch_node},
    state,
    users::Users,
    writer::{Board, Writer},
};

/// A predecessor that is just ending has this long to go.
const PREDECESSOR: Duration = Duration::from_secs(5);
/// How often a condition outside is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// An L2 loop that did not turn for this long won't again: /livez fails.
const DEAD_LOOP: Duration = Duration::from_secs(15);
/// The end waits this long for the API server to hear what this node no longer holds.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Reasons in readiness.
const KEYS: &str = "key files";
const NODE: &str = "node";

/// Runs the speaker until it is told to stop.
pub fn run(flags: Flags, log_level: LogLevel) -> anyhow::Result<()> {
    // One thread is enough: all that can't wait is on the L2 thread, and threads cost memory.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .build()
        .context("can't start the async runtime")?;
    let result = runtime.block_on(speaker(flags, log_level));
    // A name resolution that hangs must not hold up the exit.
    runtime.shutdown_background();
    result
}

async fn speaker(flags: Flags, log_level: LogLevel) -> anyhow::Result<()> {
    let stop = shutdown::on_signals().context("can't listen for SIGTERM and SIGINT")?;
    let _lock = take_lock().await?;

    let readiness = Readiness::new();
    readiness.missing(KEYS, "not read yet");
    readiness.missing(NODE, "its Node object was not read yet");
    let poller = Poller::new().context("can't make a poller")?;
    let (controls, reports, link) = link(poller.waker());
    let mut registry = Registry::default();
    let metrics = Transitions::new(&mut registry);
    let users = Users::default();
    let collector = CoreCollector::new(controls.clone(), &flags.node_name, users.clone());
    registry.register_collector(Box::new(collector));
    let heartbeat = Arc::new(AtomicU64::new(u64::MAX));
    herald_runtime::metrics::register(&mut registry, readiness.clone());
    let admin = Admin::bind(&flags.admin_addr, readiness.clone())
        .await?
        .metrics(registry)
        .log_level(log_level)
        .state(state::source(controls.clone()))
        .live_check(turning(Arc::clone(&heartbeat)));
    tokio::spawn(admin.serve(CancellationToken::new()));

    let Some(keys) = or_stop(&stop, wait_for_keys(&flags.key_dir, &readiness)).await else { return Ok(()) };
    let client = client::connect(flags.kubeconfig.as_deref(), "speaker").await?;
    tracing::info!(node = flags.node_name, "asking the API server for this node's Node object");
    let mut nodes = watch_node(client.clone(), &flags.node_name, &readiness);
    let found = or_stop(&stop, wait_for_node(&mut nodes, &flags.node_name, &readiness)).await;
    let Some((node_id, node_state)) = found else { return Ok(()) };
    tracing::info!(
        version = herald_runtime::LONG_VERSION,
        node = flags.node_name,
        id = %node_id,
        cluster = %keys.cluster,
        profile = ?flags.profile,
        "speaker starts"
    );

    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| anyhow::anyhow!("the kernel gives no random numbers: {error}"))?;
    let config = herald_l2::Config {
        node: node_id,
        name: NodeName::from(flags.node_name.as_str()),
        cluster: keys.cluster,
        keys: keys.ring,
        profile: flags.profile.into(),
        seed,
    };
    let parts = l2_thread::Parts { config, poller, link, globs: flags.interfaces, heartbeat };
    l2_thread::spawn(parts).context("can't start the L2 thread")?;

    let board = Board::default();
    let writer = Writer::new(client.clone(), &flags.node_name, board.clone(), readiness.clone());
    let writer = tokio::spawn(writer.run());
    let name = flags.node_name;
    let last_words = board.clone();
    let parts =
        Parts { client, name, node_id, node_state, readiness, controls, reports, board, metrics, users };
    let result = Observer::new(parts, nodes).run(stop).await.map_err(anyhow::Error::msg);
    last_words.close();
    if timeout(LAST_WORDS, writer).await.is_err() {
        tracing::info!(
            "not all is taken back from the status of addresses that nobody took over: whoever holds them next does it"
        );
    }
    result?;
    tracing::info!("speaker ends");
    Ok(())
}

async fn or_stop<T>(stop: &CancellationToken, future: impl Future<Output = T>) -> Option<T> {
    stop.run_until_cancelled(future).await
}

async fn take_lock() -> Result<InstanceLock, LockError> {
    let give_up = Instant::now() + PREDECESSOR;
    loop {
        match InstanceLock::take() {
            Err(LockError::Taken) if Instant::now() < give_up => sleep(LOOK_AGAIN).await,
            result => return result,
        }
    }
}

/// The key files, as soon as they are there and make sense: the controller creates the Secret at its own start,
/// which may be later than ours.
async fn wait_for_keys(dir: &Path, readiness: &Readiness) -> Keys {
    let mut said = String::new();
    loop {
        match keys::read(dir) {
            Ok(keys) => {
                readiness.ready(KEYS);
                return keys;
            }
            Err(error) => {
                let text = error.to_string();
                if text != said {
                    tracing::warn!("waiting for the hello key: {text}");
                    readiness.missing(KEYS, &text);
                    said = text;
                }
            }
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// This node's id and state, as soon as the API server tells.
async fn wait_for_node(nodes: &mut NodeChanges, name: &str, readiness: &Readiness) -> (NodeId, NodeState) {
    let mut nodes = pin!(nodes);
    loop {
        let node = match nodes.next().await {
            Some(Change::Replaced(list)) => list.into_iter().next(),
            Some(Change::Applied(node)) => Some(node),
            Some(Change::Deleted(_)) => None,
            // The watch has no end.
            None => std::future::pending().await,
        };
        if let Some((Some(id), state)) = node {
            readiness.ready(NODE);
            return (id, state);
        }
        tracing::warn!(
            node = name,
            "there is no Node object of this name: waiting for it; is --node-name right?"
        );
        readiness.missing(NODE, format!("there is no Node object called {name}"));
    }
}

fn turning(heartbeat: Arc<AtomicU64>) -> LiveCheck {
    Box::new(move || {
        // u64::MAX until the thread starts: waiting for the API server is not dead.
        let age = boottime_nanos().saturating_sub(heartbeat.load(Ordering::Relaxed));
        let age = Duration::from_nanos(age);
        if age > DEAD_LOOP { Err(format!("the L2 loop stands still since {age:?}")) } else { Ok(()) }
    })
}
