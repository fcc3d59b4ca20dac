//! What `/metrics` shows of the controller. Names begin with `herald_`; a pool's series disappear with the pool.

use std::time::Duration;

use herald_ipam::{PoolCounts, PoolName};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// Upper bounds of the allocation latency's buckets, in seconds.
const LATENCY: [f64; 12] = [0.005, 0.01, 0.015, 0.02, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolFamily {
    pool: String,
    family: IpFamily,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPool {
    pool: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum IpFamily {
    #[expect(non_camel_case_types, reason = "the label's value as users read it")]
    ipv4,
    #[expect(non_camel_case_types, reason = "the label's value as users read it")]
    ipv6,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    kind: &'static str,
    result: &'static str,
}

/// The controller's metrics; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    total: Family<PoolFamily, Gauge>,
    in_use: Family<PoolFamily, Gauge>,
    valid: Family<OfPool, Gauge>,
    latency: Histogram,
    queue: Gauge,
    requests: Family<Request, Counter>,
    events_dropped: Counter,
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            total: Family::default(),
            in_use: Family::default(),
            valid: Family::default(),
            latency: Histogram::new(LATENCY),
            queue: Gauge::default(),
            requests: Family::default(),
            events_dropped: Counter::default(),
        };
        let herald = registry.sub_registry_with_prefix("herald");
        let Self { total, in_use, valid, latency, queue, requests, events_dropped } = metrics.clone();
        herald.register("pool_addresses", "Addresses of a pool, in use or free", total);
        herald.register("pool_addresses_in_use", "Addresses of a pool that Services have", in_use);
        herald.register("pool_config_valid", "Whether a pool's latest spec is in force", valid);
        herald.register(
            "allocation_seconds",
            "From the first sight of a Service without address to its status showing one",
            latency,
        );
        herald.register("writer_queue_depth", "Writes waiting or under way", queue);
        herald.register(
            "api_requests",
            "Requests of the writer to the API server by kind and result",
            requests,
        );
        herald.register("events_dropped", "Events not written because there were too many", events_dropped);
        metrics
    }

    /// A pool's counts and whether its latest spec is in force.
    pub fn pool(&self, pool: &PoolName, counts: &PoolCounts, valid: bool) {
        let PoolCounts { assigned_v4, assigned_v6, available_v4, available_v6 } = *counts;
        let families =
            [(IpFamily::ipv4, assigned_v4, available_v4), (IpFamily::ipv6, assigned_v6, available_v6)];
        for (family, assigned, available) in families {
            let labels = PoolFamily { pool: pool.to_string(), family };
            self.total.get_or_create(&labels).set(assigned.saturating_add(available));
            self.in_use.get_or_create(&labels).set(assigned);
        }
        self.valid.get_or_create(&OfPool { pool: pool.to_string() }).set(i64::from(valid));
    }

    /// A pool is gone.
    pub fn forget_pool(&self, pool: &PoolName) {
        for family in [IpFamily::ipv4, IpFamily::ipv6] {
            let labels = PoolFamily { pool: pool.to_string(), family };
            self.total.remove(&labels);
            self.in_use.remove(&labels);
        }
        self.valid.remove(&OfPool { pool: pool.to_string() });
    }

    /// A Service got its first address after `latency`.
    pub fn allocated(&self, latency: Duration) {
        self.latency.observe(latency.as_secs_f64());
    }

    /// How many jobs wait or are under way.
    pub fn queue(&self, depth: usize) {
        self.queue.set(i64::try_from(depth).unwrap_or(i64::MAX));
    }

    /// One request, as it ended.
    pub fn requested(&self, kind: &'static str, result: &'static str) {
        self.requests.get_or_create(&Request { kind, result }).inc();
    }

    /// An event was dropped.
    pub fn event_dropped(&self) {
        self.events_dropped.inc();
    }
}
