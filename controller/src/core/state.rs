//! What the core holds, as JSON for `/debug/state`: for somebody who asks why it does what it does. Names, addresses
//! and versions only; nothing in here is a secret.

use std::{collections::BTreeMap, net::IpAddr};

use herald_ipam::PoolName;
use serde::Serialize;

use super::{Core, pools::PoolWork};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct State<'a> {
    class: Option<&'a str>,
    /// Whether this process decides; a standby knows the objects and has no opinion about them.
    leads: bool,
    /// Whether addresses are given out: every list that decides about them has come.
    open: bool,
    /// The newest resourceVersion seen.
    newest: u64,
    /// Refused writes that wait to be tried again.
    refused: usize,
    needs_endpoints: bool,
    namespaces: usize,
    nodes: Option<usize>,
    pools: Vec<Pool<'a>>,
    advertisements: Option<Vec<Advertisement<'a>>>,
    addresses: Vec<Address<'a>>,
    services: Vec<Service<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Pool<'a> {
    name: &'a str,
    version: u64,
    assigned: [i64; 2],
    available: [i64; 2],
    problem: Option<String>,
    writing: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Advertisement<'a> {
    name: &'a str,
    version: u64,
    /// Some spec of it is in force, be it an earlier one.
    in_force: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Address<'a> {
    #[serde(rename = "address")]
    ip: IpAddr,
    version: u64,
    revision: i64,
    pool: Option<&'a str>,
    services: Vec<String>,
    /// The pool that the allocator counts it to, if it counts it as taken.
    taken_from: Option<&'a str>,
    writing: bool,
    waiting: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Service<'a> {
    name: String,
    uid: String,
    version: u64,
    ingress: Vec<&'a str>,
    #[serde(flatten)]
    work: Option<Work<'a>>,
}

/// What is going on with a Service.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Work<'a> {
    /// What its status is to show.
    pub(super) wanted: Vec<IpAddr>,
    /// Why it does not have all that it asks for.
    pub(super) refusal: Option<String>,
    /// Who else writes its status.
    pub(super) rival: Option<&'a str>,
    /// Changes of its status by others that were undone.
    pub(super) strikes: u32,
    pub(super) writing: bool,
}

impl Core {
    /// What this core holds, as one JSON object.
    pub fn state(&self) -> Vec<u8> {
        // No map in it has keys that are not text, and no number is out of JSON's range: this can't fail.
        serde_json::to_vec(&self.project()).unwrap_or_default()
    }

    fn project(&self) -> State<'_> {
        let index = &self.index;
        let pools = index.pools.values().map(|pool| {
            let work = self.pools.get(&pool.name);
            let counts = work.map(PoolWork::counts).unwrap_or_default();
            Pool {
                name: pool.name.as_str(),
                version: pool.version.0,
                assigned: [counts.assigned_v4, counts.assigned_v6],
                available: [counts.available_v4, counts.available_v6],
                problem: work.and_then(PoolWork::problem),
                writing: work.is_some_and(PoolWork::is_busy),
            }
        });
        let advertisements = index.advertisements.as_ref().map(|all| {
            let one = all.iter().map(|(name, known)| Advertisement {
                name,
                version: known.advertisement.version.0,
                in_force: known.meaning.is_some(),
            });
            one.collect()
        });
        let addresses = index.addresses.values().map(|known| {
            let work = self.addresses.get(&known.address);
            Address {
                ip: known.address,
                version: known.version.0,
                revision: known.revision(),
                pool: known.pool().map(PoolName::as_str),
                services: known.users().iter().map(|owner| owner.service.to_string()).collect(),
                taken_from: self.ipam.pool_of(known.address).map(PoolName::as_str),
                writing: work.is_some_and(|work| work.is_busy()),
                waiting: work.is_some_and(|work| work.is_waiting()),
            }
        });
        let services = index.services.values().map(|service| Service {
            name: service.owner.service.to_string(),
            uid: service.owner.uid.to_string(),
            version: service.version.0,
            ingress: service.ingress().iter().filter_map(|ingress| ingress.ip.as_deref()).collect(),
            work: self.services.get(&service.owner.service).map(|work| work.shown()),
        });
        State {
            class: self.class.as_deref(),
            leads: self.leads,
            open: self.open.is_some(),
            newest: index.newest.0,
            refused: self.ipam.failed(),
            needs_endpoints: self.needs_endpoints,
            namespaces: index.namespaces.len(),
            nodes: index.nodes.as_ref().map(BTreeMap::len),
            pools: pools.collect(),
            advertisements,
            addresses: addresses.collect(),
            services: services.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use herald_runtime::watch::Change;
    use k8s_openapi::jiff::Timestamp;
    use prometheus_client::registry::Registry;
    use serde_json::json;

    use super::*;
    use crate::{
        core::{Event, Now},
        metrics::Metrics,
        objects::service::ServiceObject,
    };

    #[test]
    fn it_names_what_is_known_and_whether_this_process_decides() {
        let now = Now { monotonic: Instant::now(), wall: Timestamp::UNIX_EPOCH };
        let mut core = Core::new(None, Metrics::new(&mut Registry::default()), now);
        let service: ServiceObject = serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": "web", "uid": "u1", "resourceVersion": "7"},
            "spec": {"type": "LoadBalancer", "ipFamilies": ["IPv4"]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
        }))
        .unwrap();
        core.handle(now, Event::Services(Change::Replaced(vec![service.into()])));
        let shown = |core: &Core| serde_json::from_slice::<serde_json::Value>(&core.state()).unwrap();
        let state = shown(&core);
        assert_eq!((&state["leads"], &state["open"]), (&json!(false), &json!(false)));
        let service = &state["services"][0];
        assert_eq!((&service["name"], &service["uid"]), (&json!("shop/web"), &json!("u1")));
        assert_eq!(service["ingress"], json!(["192.0.2.1"]));
        core.handle(now, Event::Leads);
        assert_eq!(shown(&core)["leads"], json!(true));
    }
}
