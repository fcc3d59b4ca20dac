//! From `kubectl create` to an address, to the first answered who-has, to the first page, beside MetalLB.
//!
//! One Service at a time, each with an address that was never held before, its endpoints there before it. kube-proxy's
//! `minSyncPeriod` is 10 ms in both labs (its default of 1 s would be most of the third figure). MetalLB has a lab of its
//! own, of the same shape; both labs run all the time and take turns, so that whatever else the machine does meets both.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _};
use herald_lab::{Asker, Lab, Metallb, Plan, services::addresses};
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
/// From one Service's end to the next one's creation, possibly somebody else's: what speakers and
/// controllers note down later is not to fall into another's figures.
const REST: Duration = Duration::from_millis(400);
/// For one attempt to get a page.
const ATTEMPT: Duration = Duration::from_millis(10);

/// Who gives addresses, where, and how fast that was.
struct Contender<'lab> {
    what: String,
    lab: &'lab Lab,
    /// The annotation by which a Service asks for an address.
    annotation: &'static str,
    /// Its addresses are 192.168.`third`.0/24.
    third: u8,
    address: Sample,
    answer: Sample,
    page: Sample,
}

#[derive(Args)]
pub(crate) struct Options {
    /// How often
    #[arg(long, default_value_t = 50)]
    pub(crate) runs: u8,
    /// How many nodes, all of whose kube-proxies run on this machine's cores
    #[arg(long, default_value_t = 3)]
    pub(crate) nodes: u8,
    /// Leave MetalLB out
    #[arg(long)]
    pub(crate) herald_only: bool,
    /// The directory of another build of Herald, to be measured in turn with this one; without the conflict probe
    #[arg(long)]
    pub(crate) beside: Option<PathBuf>,
}

pub(crate) fn run(options: Options) -> Result<()> {
    let Options { runs, nodes, herald_only, beside } = options;
    let plan = Plan::nodes(nodes);
    let ours = plan.clone().start()?;
    let (other, theirs, metallb);
    let mut contenders = vec![herald(&ours, 2, "Disabled", "Herald, conflict probe off")?];
    if let Some(dir) = beside {
        let what = format!("Herald of {}", dir.display());
        other = plan.clone().with_binaries(dir).start()?;
        contenders.push(herald(&other, 2, "Disabled", &what)?);
    } else {
        contenders.push(herald(&ours, 3, "Enabled", "Herald, conflict probe on")?);
    }
    if !herald_only {
        theirs = plan.without_herald().start()?;
        metallb = Metallb::start(&theirs, "192.168.4.0/24")?;
        let what = format!("MetalLB {}", metallb.version());
        contenders.push(Contender::new(what, &theirs, "metallb.io/loadBalancerIPs", 4)?);
    }
    for run in 1..=runs {
        for contender in &mut contenders {
            contender.measure(run)?;
        }
        if run % 10 == 0 {
            ours.plan().progress.say(&format!("{run} of {runs} Services each"));
        }
    }
    let rival = contenders.get(2);
    for (until, sample) in FIGURES {
        for contender in &contenders {
            let beside = rival.filter(|rival| rival.what != contender.what);
            let beside = beside.map(|rival| (rival.what.as_str(), sample(rival)));
            let what = format!("create to {until}, nodes: {nodes}; {}", contender.what);
            println!("{}", sample(contender).row(&what, beside));
        }
    }
    Ok(())
}

type Figure = for<'a> fn(&'a Contender<'_>) -> &'a Sample;
const FIGURES: [(&str, Figure); 3] = [
    ("EXTERNAL-IP", |contender| &contender.address),
    ("first answered who-has", |contender| &contender.answer),
    ("first HTTP 200", |contender| &contender.page),
];

fn herald<'lab>(lab: &'lab Lab, third: u8, detection: &str, what: &str) -> Result<Contender<'lab>> {
    lab.kubectl_apply(&format!(
        "{{apiVersion: heraldlb.io/v1beta1, kind: IPAddressPool, metadata: {{name: bench-{third}}}, \
         spec: {{addresses: [192.168.{third}.0/24], conflictDetection: {detection}}}}}"
    ))?;
    Contender::new(what.to_owned(), lab, "heraldlb.io/loadBalancerIPs", third)
}

impl<'lab> Contender<'lab> {
    /// Once unmeasured: for the caches, and for endpoints that outlive the Service.
    fn new(what: String, lab: &'lab Lab, annotation: &'static str, third: u8) -> Result<Self> {
        let (address, answer, page) = (Sample::default(), Sample::default(), Sample::default());
        let contender = Self { what, lab, annotation, third, address, answer, page };
        let nodes: Vec<&str> = lab.nodes().iter().map(herald_lab::Node::name).collect();
        let api: Api<Service> = Api::namespaced(lab.kube(), "default");
        lab.block_on(api.create(&PostParams::default(), &contender.service(contender.ip(0))?))?;
        lab.set_endpoints("default", SERVICE, &nodes)?;
        lab.await_addresses("default", SERVICE)?;
        lab.client().http_get_until_ok(contender.ip(0), 80, PATIENCE)?;
        contender.end(contender.ip(0))?;
        Ok(contender)
    }

    fn ip(&self, run: u8) -> IpAddr {
        Ipv4Addr::new(192, 168, self.third, run).into()
    }

    fn service(&self, address: IpAddr) -> Result<Service> {
        Ok(serde_json::from_value(json!({
            "metadata": { "name": SERVICE, "annotations": { self.annotation: address.to_string() } },
            "spec": { "type": "LoadBalancer", "ports": [{ "name": "http", "port": 80 }] },
        }))?)
    }

    /// One Service: created, looked at from three sides, deleted.
    fn measure(&mut self, run: u8) -> Result<()> {
        let (lab, address) = (self.lab, self.ip(run));
        lab.client().forget_neighbours()?;
        let asker = Asker::new(lab.client())?;
        let service = self.service(address)?;
        let api: Api<Service> = Api::namespaced(lab.kube(), "default");
        // As somebody who has `kubectl get service --watch` open: a list and a watch that begin only after the creation
        // would compete with what they wait for. The second list leaves a connection for the creation itself.
        let mut watch = lab.block_on(async {
            let named = format!("metadata.name={SERVICE}");
            let version =
                api.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
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
                    bail!("the watch ended")
                };
                tokio::time::timeout(PATIENCE, given).await?
            });
            let looked = on_the_lan.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok::<_, anyhow::Error>((given?, looked?))
        })?;
        self.address.push(given);
        self.answer.push(answered);
        self.page.push(page);
        drop(watch);
        self.end(address)
    }

    /// Deletes the Service, waits until nobody answers for its address any more, and rests.
    fn end(&self, address: IpAddr) -> Result<()> {
        let api: Api<Service> = Api::namespaced(self.lab.kube(), "default");
        self.lab.block_on(api.delete(SERVICE, &DeleteParams::default()))?;
        let asker = Asker::new(self.lab.client())?;
        let begun = Instant::now();
        while asker.ask(address, ATTEMPT)?.is_some() {
            if begun.elapsed() > PATIENCE {
                bail!("{address} is still answered for {PATIENCE:?} after its Service was deleted");
            }
            std::thread::park_timeout(PERIOD);
        }
        std::thread::park_timeout(REST);
        Ok(())
    }
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
    bail!("nobody answered for {address} within {PATIENCE:?}")
}
