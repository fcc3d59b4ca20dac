//! When each Service was first seen with an address, by a watch such as `kubectl get services --watch` has.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use futures::{StreamExt as _, TryStreamExt as _};
use herald_lab::Lab;
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Resource,
    api::{ListParams, ObjectMeta, WatchEvent, WatchParams},
};
use serde::Deserialize;

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_mins(4);
/// The API server ends a watch after this many seconds; kube takes no more.
const WATCH: u32 = 290;

/// What is read of a Service.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = Service)]
struct Seen {
    metadata: ObjectMeta,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default)]
    load_balancer: LoadBalancer,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct LoadBalancer {
    #[serde(default)]
    ingress: Vec<serde_json::Value>,
}

/// From what version on to watch.
pub(super) async fn now(lab: &Lab) -> Result<String> {
    let api: Api<Seen> = Api::all(lab.kube());
    let list = api.list_metadata(&ListParams::default().limit(1)).await?;
    Ok(list.metadata.resource_version.unwrap_or_default())
}

/// Waits until `count` Services have got an address after `version`; gives when, by name.
pub(super) async fn addressed(lab: &Lab, version: &str, count: usize) -> Result<HashMap<String, Instant>> {
    let mut times = HashMap::new();
    let api: Api<Seen> = Api::all(lab.kube());
    let params = WatchParams::default().fields("spec.type=LoadBalancer").timeout(WATCH);
    let mut events = api.watch(&params, version).await?.boxed();
    let all = async {
        while times.len() < count {
            match events.try_next().await? {
                Some(WatchEvent::Added(seen) | WatchEvent::Modified(seen)) => {
                    if !seen.status.load_balancer.ingress.is_empty() {
                        times.entry(seen.metadata.name.unwrap_or_default()).or_insert_with(Instant::now);
                    }
                }
                Some(WatchEvent::Error(error)) => bail!("the watch ended: {error}"),
                Some(_) => {}
                None => bail!("the watch ended"),
            }
        }
        Ok(())
    };
    match tokio::time::timeout(PATIENCE, all).await {
        Ok(done) => done.map(|()| times),
        Err(_) => bail!("{} of {count} Services have an address after {PATIENCE:?}", times.len()),
    }
}
