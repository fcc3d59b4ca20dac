//! The plan: Herald's objects, and what would become of every Service if they were in force.
//!
//! What must always hold: a Service counts as keeping its address only if the controller's own allocator, given the
//! pools of this plan, ends with exactly the addresses that the Service shows now.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use herald_controller::objects::{pool::Pool, service::Service};
use herald_crds::SharingScope;
use herald_ipam::{Addresses, Refusal, ServiceRef};
use serde_json::{Value, json};

use super::{
    convert::{Converted, Manifest, POOL, convert},
    finding::{Finding, Weight},
    source::{BadInput, Object},
};
use crate::judge::{Judgement, Outcome, World};

/// What to do, and what would come of it.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Herald's objects in the order in which they are applied: a pool must not be announced from everywhere for the
    /// moment until its advertisement is there.
    pub manifests: Vec<Manifest>,
    /// What is to be said, the weightiest first.
    pub findings: Vec<Finding>,
    /// Every Service of type LoadBalancer.
    pub services: Vec<Row>,
}

/// What would become of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which.
    pub service: ServiceRef,
    /// What its status shows.
    pub shows: Vec<IpAddr>,
    /// What would become of that.
    pub fate: Fate,
}

/// See [`Row`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Herald takes its addresses over as they are.
    Keeps {
        /// The pool that they are of.
        pool: String,
    },
    /// It has none and gets this.
    Gets(Addresses),
    /// It has none, and gets none.
    Waits,
    /// It would get others.
    Changes(Addresses),
    /// It would not be taken over.
    LeftAlone,
    /// Herald's controller does not serve it.
    NotServed,
}

impl Fate {
    /// One word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Keeps { .. } => "keeps",
            Self::Gets(_) => "gets",
            Self::Waits => "waits",
            Self::Changes(_) => "CHANGES",
            Self::LeftAlone => "LEFT ALONE",
            Self::NotServed => "NOT SERVED",
        }
    }
}

impl Plan {
    /// Whether `--apply` must not go on by itself.
    pub fn has_problems(&self) -> bool {
        self.findings.iter().any(|finding| finding.weight() == Weight::Problem)
    }

    /// The Services that Herald is to take over, with their addresses.
    pub fn kept(&self) -> impl Iterator<Item = (&ServiceRef, &[IpAddr])> {
        let kept = self.services.iter().filter(|row| matches!(row.fate, Fate::Keeps { .. }));
        kept.map(|row| (&row.service, row.shows.as_slice()))
    }
}

/// What Herald's objects would be, and what the controller would make of `world` with them. `checked`: whether the
/// world is that of a cluster.
pub fn plan(
    objects: &[Object],
    namespace: Option<&str>,
    world: &World,
    checked: bool,
) -> Result<Plan, Vec<BadInput>> {
    let mut converted = convert(objects, namespace)?;
    let mut pools = converted.pools_in(&world.pools).map_err(|error| vec![error])?;
    open_sharing(&mut converted, &mut pools, world);
    replaced(&pools, world, &mut converted.findings);
    announced(&mut converted, &pools, world).map_err(|error| vec![error])?;

    let names: BTreeSet<_> = pools.iter().map(|pool| pool.name.clone()).collect();
    let others = world.pools.iter().filter(|pool| !names.contains(&pool.name)).cloned();
    let world = World { pools: others.chain(pools).collect(), ..world.clone() };
    let judgement = world.judge();
    for (pool, error) in judgement.problems.iter().filter(|(pool, _)| names.contains(*pool)) {
        let object = format!("{POOL} {pool}");
        converted.findings.push(Finding::Invalid { object, error: error.clone() });
    }
    let mut services = Vec::new();
    for service in world.services.iter().filter(|service| service.is_load_balancer) {
        let (fate, finding) = fate(service, &world, &judgement);
        converted.findings.extend(finding);
        services.push(Row { service: service.owner.service.clone(), shows: service.shown.clone(), fate });
    }
    if services.is_empty() && !checked {
        converted.findings.push(Finding::NotChecked);
    }
    services.sort_by(|a, b| a.service.cmp(&b.service));
    let Converted { pools, advertisements, mut findings, .. } = converted;
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.weight()));
    Ok(Plan { manifests: advertisements.into_iter().chain(pools).collect(), findings, services })
}

/// Pools of which Services of several namespaces share an address must let them.
fn open_sharing(converted: &mut Converted, pools: &mut [Pool], world: &World) {
    let mut sharers: BTreeMap<(IpAddr, &herald_ipam::SharingKey), Vec<&ServiceRef>> = BTreeMap::new();
    for service in world.services.iter().filter(|service| world.serves(service)) {
        let key = service.wanted.as_ref().ok().and_then(|wanted| wanted.sharing.as_ref());
        for (address, key) in service.shown.iter().copied().zip(key.into_iter().cycle()) {
            sharers.entry((address, key)).or_default().push(&service.owner.service);
        }
    }
    for ((address, _), services) in sharers {
        let namespaces: BTreeSet<_> = services.iter().map(|service| &service.namespace).collect();
        let Some(pool) = pools.iter_mut().find(|pool| gives(pool, address)).filter(|_| namespaces.len() > 1)
        else {
            continue;
        };
        if let Ok(spec) = &mut pool.spec {
            spec.sharing_scope = SharingScope::Cluster;
        }
        let name = pool.name.as_str();
        if let Some(manifest) = converted.pools.iter_mut().find(|manifest| manifest.name == name) {
            manifest.spec.insert("sharingScope".to_owned(), json!("Cluster"));
        }
        let services = services.into_iter().cloned().collect();
        converted.findings.push(Finding::SharedAcrossNamespaces { pool: name.to_owned(), address, services });
    }
}

fn gives(pool: &Pool, address: IpAddr) -> bool {
    pool.given().has(address)
}

fn replaced(pools: &[Pool], world: &World, findings: &mut Vec<Finding>) {
    for pool in pools {
        let known = world.pools.iter().find(|known| known.name == pool.name);
        if known.is_some_and(|known| known.spec != pool.spec) {
            findings.push(Finding::Replaces { object: format!("{POOL} {}", pool.name) });
        }
    }
}

/// Pools that MetalLB announces by BGP alone, or not at all.
fn announced(converted: &mut Converted, pools: &[Pool], world: &World) -> Result<(), BadInput> {
    let mut by_layer_2 = Vec::new();
    for advertisement in converted.meanings()? {
        match advertisement.meaning {
            Ok(meaning) => by_layer_2.push(meaning),
            Err(error) => {
                let object = format!("L2Advertisement {}", advertisement.name);
                converted.findings.push(Finding::Invalid { object, error: error.to_string() });
            }
        }
    }
    for pool in pools {
        let (name, labels) = (pool.name.as_str(), &pool.labels);
        if by_layer_2.iter().any(|meaning| meaning.selects_pool(name, labels)) {
            continue;
        }
        let pool_name = name.to_owned();
        if converted.bgp.iter().any(|meaning| meaning.selects_pool(name, labels)) {
            let uses = |service: &&Service| service.shown.iter().any(|address| gives(pool, *address));
            let services = world.services.iter().filter(uses).map(|service| service.owner.service.clone());
            converted.findings.push(Finding::OnlyByBgp { pool: pool_name, services: services.collect() });
        } else {
            converted.findings.push(Finding::Silent { pool: pool_name });
        }
    }
    Ok(())
}

fn fate(service: &Service, world: &World, judgement: &Judgement) -> (Fate, Option<Finding>) {
    let name = service.owner.service.clone();
    let shows: BTreeSet<IpAddr> = service.shown.iter().copied().collect();
    let from: Addresses = shows.iter().copied().collect();
    let Some(Outcome { shows: would, pool, refusal }) =
        judgement.services.get(&name).filter(|_| world.serves(service))
    else {
        if shows.is_empty() {
            return (Fate::NotServed, None);
        }
        let (class, ours) = (service.class.clone(), world.class.clone());
        return (Fate::NotServed, Some(Finding::OtherClass { service: name, class, ours }));
    };
    let why = |otherwise: &str| refusal.as_ref().map_or_else(|| otherwise.to_owned(), Refusal::to_string);
    let would = would.unwrap_or_default();
    let same = would.iter().collect::<BTreeSet<IpAddr>>() == shows;
    match () {
        () if shows.is_empty() && would.is_empty() => {
            let finding = Finding::Waits { service: name, why: why("no reason given") };
            (Fate::Waits, Some(finding))
        }
        () if shows.is_empty() => (Fate::Gets(would), None),
        () if same => {
            let fate = Fate::Keeps { pool: pool.as_ref().map(ToString::to_string).unwrap_or_default() };
            let unmet =
                refusal.as_ref().map(|refusal| Finding::Unmet { service: name, why: refusal.to_string() });
            (fate, unmet)
        }
        () if would.is_empty() => {
            let why = why("it shows no address that Herald understands");
            (Fate::LeftAlone, Some(Finding::LeftAlone { service: name, address: from, why }))
        }
        () => {
            let why = why("that is what its annotations ask for");
            (Fate::Changes(would), Some(Finding::Moves { service: name, from, to: would, why }))
        }
    }
}

impl Plan {
    /// All of it, for programs.
    pub fn value(&self) -> Value {
        let objects: Vec<Value> = self.manifests.iter().map(Manifest::value).collect();
        let findings: Vec<Value> = self
            .findings
            .iter()
            .map(|finding| {
                json!({
                    "weight": finding.weight(), "code": finding.code(),
                    "about": finding.about(), "message": finding.to_string(),
                })
            })
            .collect();
        let services: Vec<Value> = self
            .services
            .iter()
            .map(|row| {
                let mut value = json!({
                    "namespace": &*row.service.namespace, "name": &*row.service.name,
                    "shows": row.shows, "fate": row.fate.word(),
                });
                if let (Some(fields), Fate::Gets(to) | Fate::Changes(to)) = (value.as_object_mut(), &row.fate)
                {
                    fields.insert("to".to_owned(), json!(to.iter().collect::<Vec<_>>()));
                }
                value
            })
            .collect();
        json!({"problems": self.has_problems(), "objects": objects, "findings": findings, "services": services})
    }
}
