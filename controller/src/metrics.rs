//! What `/metrics` shows of the controller. Names begin with `herald_`; a pool's series disappear with the pool.

use std::{fmt, time::Duration};

use herald_ipam::{PoolCounts, PoolName};
use herald_runtime::{
    Readiness,
    lease::Leadership,
    metrics::{Declared, PROCESS},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric as _},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::Registry,
};
use tokio::sync::watch::Receiver;

const POOL_ADDRESSES: Declared =
    Declared::gauge("herald_pool_addresses", &["pool", "family"], "Addresses of a pool, in use or free");
const POOL_IN_USE: Declared = Declared::gauge(
    "herald_pool_addresses_in_use",
    &["pool", "family"],
    "Addresses of a pool that Services have",
);
const POOL_VALID: Declared =
    Declared::gauge("herald_pool_config_valid", &["pool"], "1: a pool's latest spec is in force");
const ALLOCATION: Declared = Declared::histogram(
    "herald_allocation_seconds",
    &[],
    "From the first sight of a Service without address to its status showing one",
);
const QUEUE: Declared = Declared::gauge("herald_writer_queue_depth", &[], "Writes waiting or under way");
const REQUESTS: Declared = Declared::counter(
    "herald_api_requests",
    &["kind", "result"],
    "Requests of the writer to the API server; result is ok, refused or retried",
);
const EVENTS_DROPPED: Declared =
    Declared::counter("herald_events_dropped", &[], "Events not written because there were too many");
const LEADER: Declared =
    Declared::gauge("herald_controller_leader", &[], "1: this replica leads and writes; 0: it stands by");

/// The controller's own metrics.
const OWN: [Declared; 8] =
    [POOL_ADDRESSES, POOL_IN_USE, POOL_VALID, ALLOCATION, QUEUE, REQUESTS, EVENTS_DROPPED, LEADER];

/// Everything that the controller's `/metrics` may show.
pub fn declared() -> Vec<Declared> {
    OWN.into_iter().chain(PROCESS).collect()
}

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

/// Registers the metrics that are read from elsewhere at each scrape: whether this replica leads, its watches and
/// whether it is ready.
pub fn register(registry: &mut Registry, readiness: Readiness, leadership: Receiver<Leadership>) {
    herald_runtime::metrics::register(registry, readiness);
    registry.register_collector(Box::new(Leads { leadership }));
}

#[derive(Debug)]
struct Leads {
    leadership: Receiver<Leadership>,
}

impl Collector for Leads {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let leads = self.leadership.borrow().may_write(tokio::time::Instant::now().into_std());
        ConstGauge::new(i64::from(leads)).encode(LEADER.begin(&mut encoder)?)
    }
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
        let Self { total, in_use, valid, latency, queue, requests, events_dropped } = metrics.clone();
        POOL_ADDRESSES.register(registry, total);
        POOL_IN_USE.register(registry, in_use);
        POOL_VALID.register(registry, valid);
        ALLOCATION.register(registry, latency);
        QUEUE.register(registry, queue);
        REQUESTS.register(registry, requests);
        EVENTS_DROPPED.register(registry, events_dropped);
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

#[cfg(test)]
mod tests {
    use herald_runtime::metrics::{differences, exposition};
    use tokio::sync::watch;

    use super::*;

    fn counts() -> PoolCounts {
        PoolCounts { assigned_v4: 2, assigned_v6: 0, available_v4: 5, available_v6: i64::MAX }
    }

    #[test]
    fn what_is_exposed_is_what_is_declared() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let (_tell, leadership) = watch::channel(Leadership::Standby { leader: None });
        register(&mut registry, Readiness::new(), leadership);
        metrics.pool(&PoolName::new("default"), &counts(), true);
        metrics.allocated(Duration::from_millis(7));
        metrics.requested("create lbip", "ok");
        let text = exposition(&registry).unwrap();
        let own: Vec<String> = differences(&declared(), &text)
            .into_iter()
            .filter(|difference| !difference.contains("herald_watch_"))
            .collect();
        assert_eq!(own, Vec::<String>::new(), "{text}");
        assert!(text.contains("herald_pool_addresses{pool=\"default\",family=\"ipv4\"} 7\n"), "{text}");
        assert!(text.contains("herald_controller_leader 0\n"), "{text}");
    }

    #[test]
    fn the_series_of_a_deleted_pool_disappear() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        for pool in ["stays", "goes"] {
            metrics.pool(&PoolName::new(pool), &counts(), pool == "stays");
        }
        metrics.forget_pool(&PoolName::new("goes"));
        let text = exposition(&registry).unwrap();
        assert!(text.contains("stays") && !text.contains("goes"), "{text}");
    }

    #[test]
    fn a_leader_shows_until_its_deadline_passes_and_no_longer() {
        let mut registry = Registry::default();
        let (tell, leadership) = watch::channel(Leadership::Standby { leader: None });
        register(&mut registry, Readiness::new(), leadership);
        let now = std::time::Instant::now();
        tell.send_replace(Leadership::Leading { until: now + Duration::from_hours(1) });
        assert!(exposition(&registry).unwrap().contains("herald_controller_leader 1\n"));
        tell.send_replace(Leadership::Leading { until: now });
        assert!(exposition(&registry).unwrap().contains("herald_controller_leader 0\n"));
    }
}
