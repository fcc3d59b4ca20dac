//! Everything the report may say, each with its weight and its words.

use std::{fmt, net::IpAddr};

use herald_ipam::{Addresses, ServiceRef};
use serde::Serialize;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Weight {
    /// Good to know.
    Note,
    /// Something of MetalLB's has no counterpart and is left behind.
    Loss,
    /// A Service would lose its address, or nobody could reach it: `--apply` refuses.
    Problem,
}

/// Something to know before moving over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// BGP and BFD.
    Bgp {
        /// Kind and name.
        object: String,
    },
    /// MetalLB announces a pool by BGP alone.
    OnlyByBgp {
        /// The pool.
        pool: String,
        /// Services that have addresses of it.
        services: Vec<ServiceRef>,
    },
    /// MetalLB announces a pool nowhere.
    Silent {
        /// The pool.
        pool: String,
    },
    /// A field without counterpart.
    Field {
        /// Kind and name.
        object: String,
        /// The fields' paths.
        fields: Vec<String>,
    },
    /// Labels by which other tools own the object.
    Labels {
        /// Kind and name.
        object: String,
        /// The labels.
        labels: Vec<String>,
    },
    /// An object that MetalLB itself does not read.
    OtherNamespace {
        /// Kind and name.
        object: String,
    },
    /// Herald would not take the object.
    Invalid {
        /// Kind and name.
        object: String,
        /// Why.
        error: String,
    },
    /// Herald has an object of that name, with another meaning.
    Replaces {
        /// Kind and name.
        object: String,
    },
    /// An address that Services of several namespaces share.
    SharedAcrossNamespaces {
        /// The pool.
        pool: String,
        /// The address.
        address: IpAddr,
        /// The Services.
        services: Vec<ServiceRef>,
    },
    /// A Service would get another address.
    Moves {
        /// The Service.
        service: ServiceRef,
        /// What it shows.
        from: Addresses,
        /// What Herald would show.
        to: Addresses,
        /// Why.
        why: String,
    },
    /// A Service's address would be left alone, and be announced by nobody.
    LeftAlone {
        /// The Service.
        service: ServiceRef,
        /// What it shows.
        address: Addresses,
        /// Why.
        why: String,
    },
    /// A Service that Herald's controller does not serve.
    OtherClass {
        /// The Service.
        service: ServiceRef,
        /// Its class.
        class: Option<String>,
        /// The class that Herald serves.
        ours: Option<String>,
    },
    /// A Service keeps its address, but asks for something that it would not get.
    Unmet {
        /// The Service.
        service: ServiceRef,
        /// What.
        why: String,
    },
    /// A Service without address.
    Waits {
        /// The Service.
        service: ServiceRef,
        /// Why it would go on waiting.
        why: String,
    },
    /// MetalLB's controller runs.
    StillRuns {
        /// namespace/name of its Deployment.
        deployment: String,
    },
    /// Nobody asked the cluster.
    NotChecked,
}

impl Finding {
    /// How much it matters.
    pub fn weight(&self) -> Weight {
        match self {
            Self::Silent { .. }
            | Self::OtherNamespace { .. }
            | Self::Labels { .. }
            | Self::Replaces { .. }
            | Self::SharedAcrossNamespaces { .. }
            | Self::Unmet { .. }
            | Self::Waits { .. }
            | Self::NotChecked => Weight::Note,
            Self::Bgp { .. } | Self::Field { .. } => Weight::Loss,
            Self::OnlyByBgp { services, .. } if services.is_empty() => Weight::Loss,
            Self::OnlyByBgp { .. }
            | Self::Invalid { .. }
            | Self::Moves { .. }
            | Self::LeftAlone { .. }
            | Self::OtherClass { .. }
            | Self::StillRuns { .. } => Weight::Problem,
        }
    }

    /// One word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Bgp { .. } => "BgpNotYet",
            Self::OnlyByBgp { .. } => "OnlyAnnouncedByBgp",
            Self::Silent { .. } => "WasNotAnnounced",
            Self::Field { .. } => "FieldLeftOut",
            Self::Labels { .. } => "LabelsLeftOut",
            Self::OtherNamespace { .. } => "OtherNamespace",
            Self::Invalid { .. } => "Invalid",
            Self::Replaces { .. } => "Replaces",
            Self::SharedAcrossNamespaces { .. } => "SharedAcrossNamespaces",
            Self::Moves { .. } => "AddressWouldChange",
            Self::LeftAlone { .. } => "WouldNotBeTakenOver",
            Self::OtherClass { .. } => "OtherClass",
            Self::Unmet { .. } => "RequestUnmet",
            Self::Waits { .. } => "WouldWait",
            Self::StillRuns { .. } => "MetalLBRuns",
            Self::NotChecked => "NotChecked",
        }
    }

    /// The object it is about.
    pub fn about(&self) -> String {
        match self {
            Self::Bgp { object }
            | Self::Field { object, .. }
            | Self::Labels { object, .. }
            | Self::Invalid { object, .. }
            | Self::OtherNamespace { object }
            | Self::Replaces { object } => object.clone(),
            Self::OnlyByBgp { pool, .. }
            | Self::Silent { pool }
            | Self::SharedAcrossNamespaces { pool, .. } => format!("IPAddressPool {pool}"),
            Self::Moves { service, .. }
            | Self::LeftAlone { service, .. }
            | Self::OtherClass { service, .. }
            | Self::Unmet { service, .. }
            | Self::Waits { service, .. } => format!("Service {service}"),
            Self::StillRuns { deployment } => format!("Deployment {deployment}"),
            Self::NotChecked => "-".to_owned(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bgp { .. } => f.write_str("Herald has no BGP yet: left out"),
            Self::OnlyByBgp { services, .. } if services.is_empty() => f.write_str(
                "MetalLB announces it by BGP only, Herald would on the LAN only: its addresses could not be routed to",
            ),
            Self::OnlyByBgp { services, .. } => write!(
                f,
                "MetalLB announces it by BGP only, Herald would on the LAN only: {} could not be reached from beyond it. \
                 Leave MetalLB in charge of them, or give them addresses of the LAN first",
                join(services)
            ),
            Self::Silent { .. } => f.write_str(
                "no advertisement of MetalLB's selects it, so nobody announces it; Herald announces such a pool from \
                 every node. Give it an L2Advertisement whose nodeSelectors match no node if it shall stay silent",
            ),
            Self::Field { fields, .. } => write!(f, "no counterpart in Herald: {}; left out", fields.join(", ")),
            Self::Labels { labels, .. } => write!(
                f,
                "left out, as the tool behind them would take Herald's object for its own: {}",
                labels.join(", ")
            ),
            Self::OtherNamespace { .. } => {
                f.write_str("left out: MetalLB does not read it, it stands in another namespace than its own")
            }
            Self::Invalid { error, .. } => write!(f, "Herald would not put it in force: {error}"),
            Self::Replaces { .. } => {
                f.write_str("Herald has one of that name that says something else; it would be changed")
            }
            Self::SharedAcrossNamespaces { address, services, .. } => write!(
                f,
                "{address} is shared by {} of several namespaces: the pool gets sharingScope: Cluster, which lets every \
                 namespace share that names the key (as in MetalLB)",
                join(services)
            ),
            Self::Moves { from, to, why, .. } => write!(f, "shows {from} and would get {to}: {why}"),
            Self::LeftAlone { address, why, .. } => {
                write!(f, "{address} would be left as it is and announced by nobody: {why}")
            }
            Self::OtherClass { class, ours, .. } => {
                let class = class.as_deref().map_or("none".to_owned(), |class| format!("'{class}'"));
                write!(f, "its loadBalancerClass is {class}, Herald's controller serves ")?;
                match ours {
                    Some(ours) => write!(f, "'{ours}'"),
                    None => f.write_str("those without one"),
                }?;
                f.write_str(
                    ": it would be left alone. Start the controller with that class and say --load-balancer-class here",
                )
            }
            Self::Unmet { why, .. } => write!(f, "keeps its address, and its condition will say: {why}"),
            Self::Waits { why, .. } => write!(f, "has no address and would get none: {why}"),
            Self::StillRuns { deployment } => {
                let (namespace, name) = deployment.split_once('/').unwrap_or_default();
                write!(
                    f,
                    "MetalLB's controller runs: two programs would give the same addresses out. Stop it first (what is \
                     announced stays announced): kubectl -n {namespace} scale deployment {name} --replicas=0"
                )
            }
            Self::NotChecked => f.write_str(
                "no cluster was asked and the input holds no Services: whether addresses would change was not checked",
            ),
        }
    }
}

fn join(services: &[ServiceRef]) -> String {
    /// More make the line unreadable.
    const LISTED: usize = 8;
    let named: Vec<String> = services.iter().take(LISTED).map(ToString::to_string).collect();
    let more = services.len().saturating_sub(LISTED);
    if more == 0 { named.join(", ") } else { format!("{} and {more} more", named.join(", ")) }
}
