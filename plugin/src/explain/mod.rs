//! `kubectl herald explain svc/NAME`: the chain from what a Service asks for to the node that answers for it.
//!
//! [`gather`] asks the cluster; [`explanation`] decides and is a plain function. What must always hold: a link of the
//! chain that could not be looked at says so, and why, and the rest is told all the same.

mod chain;
mod gather;

pub use chain::explanation;
pub use gather::gather;

use std::{collections::BTreeSet, net::IpAddr};

use herald_controller::objects::{
    address::Address, advertisement::Advertisement, node::Labelled, pool::Pool, service::Service,
};
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use crate::{
    Exit, Failure,
    cli::{ClusterFlags, Explain, ExplainOutput},
    cluster::{Unseen, connect},
    print,
    table::table,
};

/// What was seen, or why not.
pub type Seen<T> = Result<T, Unseen>;

/// All that an explanation is made from.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The Service.
    pub service: Service,
    /// The `loadBalancerClass` that Herald's controller is said to serve.
    pub class: Option<String>,
    /// Herald's pools.
    pub pools: Seen<Vec<Pool>>,
    /// Herald's advertisements.
    pub advertisements: Seen<Vec<Advertisement>>,
    /// LoadBalancerIPs.
    pub addresses: Seen<Vec<Address>>,
    /// Namespaces.
    pub namespaces: Seen<Vec<Labelled>>,
    /// Nodes.
    pub nodes: Seen<Vec<Node>>,
    /// The Lease of Herald's controller, if there is one.
    pub leader: Seen<Option<Leader>>,
    /// Where the Lease was looked for.
    pub herald_namespace: String,
    /// The time by this machine's clock: for ages only.
    pub now: Timestamp,
}

/// What decides whether a node may announce.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about a node")]
pub struct Node {
    /// `metadata.name`.
    pub name: String,
    /// It has the label `node.kubernetes.io/exclude-from-external-load-balancers`.
    pub excluded: bool,
    /// It is cordoned.
    pub cordoned: bool,
    /// It has the taint `node.kubernetes.io/out-of-service`.
    pub out_of_service: bool,
    /// Its condition NetworkUnavailable.
    pub no_network: bool,
    /// Its condition Ready.
    pub ready: bool,
    /// The addresses that are its own.
    pub addresses: BTreeSet<IpAddr>,
}

/// Who leads among Herald's controllers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// `spec.holderIdentity`.
    pub holder: Option<String>,
    /// `spec.renewTime`.
    pub renewed: Option<Timestamp>,
    /// `spec.leaseDurationSeconds`.
    pub seconds: i32,
    /// It was renewed while it was looked at, whatever this machine's clock says.
    pub renews: bool,
}

impl Leader {
    /// Whether it was renewed within its duration, by this machine's clock.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        let age = self.renewed.map(|renewed| now.duration_since(renewed).as_secs());
        age.is_some_and(|age| (-i64::from(self.seconds)..=i64::from(self.seconds)).contains(&age))
    }
}

/// How a link of the chain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Here the chain is broken.
    Broken,
    /// Not looked at.
    Unknown,
}

/// A link of the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Which.
    pub step: &'static str,
    /// How it is.
    pub state: State,
    /// What was seen.
    pub what: String,
}

/// The whole chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// namespace/name.
    pub service: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// From request to holder.
    pub chain: Vec<Link>,
    /// What to do, if anything.
    pub advice: Vec<String>,
}

/// Runs `explain`.
pub async fn run(cluster_flags: &ClusterFlags, flags: &Explain) -> Result<Exit, Failure> {
    let name = flags.name().map_err(Failure::input)?;
    let cluster = connect(cluster_flags).await?;
    let class = cluster_flags.load_balancer_class.clone();
    let facts = gather(&cluster, name, class, &flags.herald_namespace).await?;
    let explanation = explanation(&facts);
    print(&match flags.output {
        ExplainOutput::Table => explanation.text(),
        ExplainOutput::Json => format!("{:#}\n", serde_json::json!(explanation)),
        ExplainOutput::Yaml => {
            serde_yaml::to_string(&explanation).map_err(|error| Failure::cluster(error.to_string()))?
        }
    })?;
    Ok(Exit::Done)
}

impl Explanation {
    /// For people.
    pub fn text(&self) -> String {
        let row = |link: &Link| {
            let state = match link.state {
                State::Ok => "ok",
                State::Broken => "BROKEN",
                State::Unknown => "unknown",
            };
            [link.step.to_owned(), state.to_owned(), link.what.clone()]
        };
        let rows: Vec<_> = self.chain.iter().map(row).collect();
        let mut text = table(["LINK", "STATE", "WHAT"], &rows);
        for advice in &self.advice {
            text.push_str("\nTo do: ");
            text.push_str(advice);
        }
        if !self.advice.is_empty() {
            text.push('\n');
        }
        text
    }
}
