//! What a Service asks for and what a pool holds, read from the objects anew: the checker must not believe the
//! allocator's own reading.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use crate::api::{Api, Kind};

/// A Service's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) namespace: String,
    /// Families it gets: the primary first.
    pub(crate) families: Vec<bool>,
    pub(crate) both_or_nothing: bool,
    pub(crate) pins: Vec<IpAddr>,
    pub(crate) pool: Option<String>,
    pub(crate) sharing: Sharing,
}

/// What decides with whom it may share an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sharing {
    pub(crate) namespace: String,
    pub(crate) key: Option<String>,
    ports: BTreeSet<String>,
    local: bool,
    selector: String,
}

/// An inclusive range.
type Range = (IpAddr, IpAddr);

impl Wish {
    pub(crate) fn of(service: &Value) -> Self {
        let spec = &service["spec"];
        let annotation = |name: &str| {
            service["metadata"]["annotations"][format!("heraldlb.io/{name}")].as_str().map(str::to_owned)
        };
        let named: Vec<bool> =
            spec["ipFamilies"].as_array().into_iter().flatten().map(|family| family == "IPv6").collect();
        let primary = named.first().copied().unwrap_or(false);
        let policy = spec["ipFamilyPolicy"].as_str().unwrap_or_default();
        let families = if policy == "SingleStack" { vec![primary] } else { vec![primary, !primary] };
        let pins = annotation("loadBalancerIPs");
        let namespace = service["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        let ports = spec["ports"].as_array().into_iter().flatten();
        Self {
            families,
            both_or_nothing: policy == "RequireDualStack",
            pins: pins
                .iter()
                .flat_map(|text| text.split(','))
                .filter_map(|pin| pin.trim().parse().ok())
                .collect(),
            pool: annotation("address-pool"),
            sharing: Sharing {
                namespace: namespace.clone(),
                key: annotation("allow-shared-ip"),
                ports: ports.map(|port| format!("{} {}", port["protocol"], port["port"])).collect(),
                local: spec["externalTrafficPolicy"] == "Local",
                selector: spec["selector"]
                    .as_object()
                    .map(|_| spec["selector"].to_string())
                    .unwrap_or_default(),
            },
            namespace,
        }
    }

    /// Whether the request leaves no doubt that this address is as good as any.
    pub(crate) fn accepts(&self, api: &Api, address: IpAddr, taken_from: Option<&str>) -> bool {
        let family = self.families.contains(&address.is_ipv6());
        let pinned = self.pins.is_empty() || self.pins.contains(&address);
        let pool = self.pool.as_deref().is_none_or(|asked| {
            let mut holding = api.all(Kind::Pool).filter(|(_, pool)| contains(&pool.value, address));
            taken_from == Some(asked) && holding.all(|(key, _)| key.name == asked)
        });
        family && pinned && pool
    }
}

/// Whether two Services may share an address. `open`: whatever their namespaces.
pub(crate) fn may_share(one: &Sharing, other: &Sharing, open: bool) -> bool {
    let same_pods = one.selector == other.selector && !one.selector.is_empty();
    one.key.is_some()
        && one.key == other.key
        && (open || one.namespace == other.namespace)
        && one.ports.is_disjoint(&other.ports)
        && (same_pods || !(one.local || other.local))
}

fn ranges(list: &Value) -> Vec<Range> {
    let parse = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
    };
    list.as_array().into_iter().flatten().filter_map(|text| parse(text.as_str()?)).collect()
}

fn is_in(ranges: &[Range], address: IpAddr) -> bool {
    ranges
        .iter()
        .any(|(first, last)| first.is_ipv6() == address.is_ipv6() && *first <= address && address <= *last)
}

/// Whether a pool's spec holds an address and does not exclude it.
pub(crate) fn contains(pool: &Value, address: IpAddr) -> bool {
    let spec = &pool["spec"];
    is_in(&ranges(&spec["addresses"]), address) && !is_in(&ranges(&spec["excluded"]), address)
}

/// All addresses of a family that a pool holds. (The pools here are small.)
pub(crate) fn addresses(pool: &Value, v6: bool) -> Vec<IpAddr> {
    let mut all = BTreeSet::new();
    for (first, last) in ranges(&pool["spec"]["addresses"]) {
        if first.is_ipv6() != v6 {
            continue;
        }
        let mut address = first;
        while address <= last && all.len() < 256 {
            all.insert(address);
            address = match address {
                IpAddr::V4(v4) => IpAddr::V4((u32::from(v4).wrapping_add(1)).into()),
                IpAddr::V6(v6) => IpAddr::V6((u128::from(v6).wrapping_add(1)).into()),
            };
        }
    }
    all.into_iter().filter(|address| contains(pool, *address)).collect()
}
