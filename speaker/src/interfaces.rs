//! Watches the node's interfaces on a thread of its own, as netlink's dumps block, and leaves the newest
//! complete list where the L2 loop picks it up.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use herald_l2::Interface;
use herald_net::{
    monitor::{self, Monitor, MonitorError},
    poller::Waker,
};
use herald_runtime::telemetry::chain;

/// Pause after netlink failed.
const PAUSE: Duration = Duration::from_secs(1);

/// The newest list that was not taken yet.
#[derive(Clone, Debug, Default)]
pub struct Newest(Arc<Mutex<Option<Vec<Interface>>>>);

impl Newest {
    /// Takes the list, if there is a new one.
    pub fn take(&self) -> Option<Vec<Interface>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, list: Vec<Interface>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(list);
    }
}

/// The interfaces can't be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// Netlink refuses.
    #[error(transparent)]
    Netlink(#[from] MonitorError),
    /// No thread.
    #[error("can't start the thread that watches the interfaces: {0}")]
    Thread(#[from] io::Error),
}

/// Starts to watch. `waker` is called for each new list.
pub fn watch(waker: Waker) -> Result<Newest, WatchError> {
    let mut monitor = Monitor::open()?;
    let newest = Newest::default();
    let slot = newest.clone();
    let watching = move || {
        loop {
            match monitor.changed() {
                Ok(list) => {
                    slot.put(list.into_iter().map(translate).collect());
                    waker.wake();
                }
                Err(error) => {
                    tracing::warn!(error = chain(&error), "netlink failed: looking at the interfaces anew");
                    thread::park_timeout(PAUSE);
                    if let Ok(fresh) = Monitor::open() {
                        monitor = fresh;
                    }
                }
            }
        }
    };
    thread::Builder::new().name("interfaces".to_owned()).stack_size(256 * 1024).spawn(watching)?;
    Ok(newest)
}

fn translate(interface: monitor::Interface) -> Interface {
    let metric_v4 = interface.gateway_v4.as_ref().map(|gateway| gateway.metric);
    let metric_v6 = interface.gateway_v6.as_ref().map(|gateway| gateway.metric);
    Interface {
        ifindex: interface.ifindex,
        name: interface.name,
        mac: interface.mac,
        carrier: interface.carrier,
        mtu: interface.mtu,
        has_master: interface.master.is_some(),
        addresses: interface
            .addresses
            .into_iter()
            .filter(|address| !address.tentative)
            .map(|address| address.net)
            .collect(),
        gateway_v4: interface.gateway_v4.map(|gateway| gateway.ip),
        gateway_v6: interface.gateway_v6.map(|gateway| gateway.ip),
        metric: metric_v4.into_iter().chain(metric_v6).min().unwrap_or(u32::MAX),
    }
}
