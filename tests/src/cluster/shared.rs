//! One full cluster with Herald on it for all tests of a test binary, one test at a time.

use std::{
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Result;

use super::{Cluster, ClusterPlan};
use crate::programs;

/// The shared cluster, and the time that `helm install` took.
#[derive(Debug)]
pub struct Installed {
    /// The cluster.
    pub cluster: Cluster,
    /// From the command to all pods ready.
    pub took: Duration,
}

static INSTALLED: LazyLock<Result<Installed, String>> = LazyLock::new(|| {
    let start = || {
        let cluster = ClusterPlan::nodes(3).with_images(programs::images()?).start()?;
        let took = cluster.install_herald(&[])?;
        cluster.progress().say("Herald installed");
        anyhow::Ok(Installed { cluster, took })
    };
    start().map_err(|error| format!("{error:#}"))
});

/// Three nodes with Herald, whole again after whatever the last test did, for one test alone.
pub fn alone() -> Result<(MutexGuard<'static, ()>, &'static Installed)> {
    static ALONE: Mutex<()> = Mutex::new(());
    // A test that failed while it had the cluster is no reason for the next not to try.
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let installed =
        INSTALLED.as_ref().map_err(|error| anyhow::anyhow!("the shared cluster did not start: {error}"))?;
    installed.cluster.repair()?;
    Ok((guard, installed))
}
