//! From `kubectl create` to an address, to the first answered who-has, to the first page.
//!
//! One Service at a time, each with an address that was never held before, its endpoints there before it. kube-proxy's `minSyncPeriod` is 10 ms
//! in this lab (its default of 1 s would be most of the third figure).

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use anyhow::Result;
use futures::{StreamExt as _, TryStreamExt as _};
use herald_lab::{Asker, Lab, Plan, services::addresses};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::json;

use crate::report::Sample;

const SERVICE: &str = "created";
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two questions.
const PERIOD: Duration = Duration::from_millis(1);
/// How long the LAN gets to answer one.
const ANSWER: Duration = Duration::from_micros(200);
/// For one attempt to get a page.
const ATTEMPT: Duration = Duration::from_millis(10);

#[derive(Default)]
struct Figures {
    address: Sample,
    answer: Sample,
    page: Sample,
}

pub(crate) fn run(runs: u8) -> Result<()> {
    let lab = Plan::nodes(3).start()?;
    for (detection, third, what) in
        [("Disabled", 2, "conflict probe off"), ("Enabled", 3, "conflict probe on")]
    {
        lab.kubectl_apply(&format!(
            "{{apiVersion: heraldlb.io/v1beta1, kind: IPAddressPool, metadata: {{name: bench-{third}}}, \
             spec: {{addresses: [192.168.{third}.0/24], conflictDetection: {detection}}}}}"
        ))?;
        // Once unmeasured: for the caches, and for endpoints that outlive the Service.
        lab.kubectl_apply(&manifest())?;
        lab.await_addresses("default", SERVICE)?;
        lab.set_endpoints("default", SERVICE, &["n1", "n2", "n3"])?;
        lab.kubectl(&["delete", "service", SERVICE])?;
        let mut figures = Figures::default();
        for run in 1..=runs {
            let (address, answer, page) = one(&lab, Ipv4Addr::new(192, 168, third, run).into())?;
            figures.address.push(address);
            figures.answer.push(answer);
            figures.page.push(page);
        }
        println!("{}", figures.address.row(&format!("create to EXTERNAL-IP, {what}"), None));
        println!("{}", figures.answer.row(&format!("create to first answered who-has, {what}"), None));
        println!("{}", figures.page.row(&format!("create to first HTTP 200, {what}"), None));
    }
    Ok(())
}

fn manifest() -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {SERVICE}}}, \
         spec: {{type: LoadBalancer, ports: [{{name: http, port: 80}}]}}}}"
    )
}

/// One Service: created, looked at from three sides, deleted.
fn one(lab: &Lab, address: IpAddr) -> Result<(Duration, Duration, Duration)> {
    lab.client().forget_neighbours()?;
    let asker = Asker::new(lab.client())?;
    let service: Service = serde_json::from_value(json!({
        "metadata": { "name": SERVICE, "annotations": { "heraldlb.io/loadBalancerIPs": address.to_string() } },
        "spec": { "type": "LoadBalancer", "ports": [{ "name": "http", "port": 80 }] },
    }))?;
    let api: Api<Service> = Api::namespaced(lab.kube(), "default");
    // As somebody who has `kubectl get service --watch` open: a list and a watch that begin only after the creation would
    // compete with what they wait for. The second list leaves a connection for the creation itself.
    let mut watch = lab.block_on(async {
        let named = format!("metadata.name={SERVICE}");
        let version = api.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
        let watch = api.watch(&WatchParams::default().fields(&named), &version).await?.boxed();
        api.list(&ListParams::default()).await?;
        anyhow::Ok(watch)
    })?;
    let begun = Instant::now();
    let (given, (answered, page)) = std::thread::scope(|scope| {
        let on_the_lan = scope.spawn(|| look(lab, &asker, address, begun));
        let given = lab.block_on(async {
            api.create(&PostParams::default(), &service).await?;
            let given = async {
                while let Some(event) = watch.try_next().await? {
                    if let WatchEvent::Added(service) | WatchEvent::Modified(service) = event
                        && !addresses(&service).is_empty()
                    {
                        return anyhow::Ok(begun.elapsed());
                    }
                }
                anyhow::bail!("the watch ended")
            };
            tokio::time::timeout(PATIENCE, given).await?
        });
        let looked = on_the_lan.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok::<_, anyhow::Error>((given?, looked?))
    })?;
    lab.block_on(api.delete(SERVICE, &DeleteParams::default()))?;
    lab.await_lbip(address, "gone", |lbip| lbip.is_none())?;
    Ok((given, answered, page))
}

/// Asks for the address every millisecond until it is answered, then for a page.
fn look(lab: &Lab, asker: &Asker, address: IpAddr, begun: Instant) -> Result<(Duration, Duration)> {
    while begun.elapsed() < PATIENCE {
        // Spinning on, it would take one of two cores from everything it measures.
        std::thread::park_timeout(PERIOD);
        if asker.ask(address, ANSWER)?.is_some() {
            let answered = begun.elapsed();
            let page = lab.client().http_get_again(address, 80, ATTEMPT, PATIENCE);
            page?;
            return Ok((answered, begun.elapsed()));
        }
    }
    anyhow::bail!("nobody answered for {address} within {PATIENCE:?}")
}
