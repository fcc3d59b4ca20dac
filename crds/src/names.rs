//! Names that stand on objects: annotations, labels, condition types, the API group.

/// The API group of Herald's kinds.
pub const GROUP: &str = "heraldlb.io";

/// The prefixes under which a Service's annotations are read, strongest first: ours, then MetalLB's two.
pub const ANNOTATION_PREFIXES: [&str; 3] = ["heraldlb.io/", "metallb.io/", "metallb.universe.tf/"];
/// Annotation name behind a prefix: one address or two of different families, comma separated.
pub const LOAD_BALANCER_IPS: &str = "loadBalancerIPs";
/// Annotation name behind a prefix: the pool to take the address from.
pub const ADDRESS_POOL: &str = "address-pool";
/// Annotation name behind a prefix: the key of those who share an address.
pub const ALLOW_SHARED_IP: &str = "allow-shared-ip";
/// Annotation name behind a prefix, written by Herald: the pool that the address came from.
pub const IP_ALLOCATED_FROM_POOL: &str = "ip-allocated-from-pool";

/// Annotation on a Service, written by Herald: the address that was last taken from it while it did not show it, and the
/// version of that address's `LoadBalancerIP` (rule B28).
pub const RELEASED_ANNOTATION: &str = "heraldlb.io/released";

/// Label on a `LoadBalancerIP`: the pool it belongs to.
pub const POOL_LABEL: &str = "heraldlb.io/pool";
/// Annotation on a `LoadBalancerIP`: its Services as `namespace/name`, comma separated. It repeats
/// `spec.services` for `kubectl get`, whose columns can show only the first element of a list.
pub const SERVICES_ANNOTATION: &str = "heraldlb.io/services";

/// Annotation on a CRD: [`crate::CRD_VERSION`], by which an older program sees that it must not replace a newer CRD.
pub const CRD_VERSION_ANNOTATION: &str = "heraldlb.io/crd-version";

/// Condition on a Service: it has the address it asked for, or why not.
pub const CONDITION_ALLOCATED: &str = "heraldlb.io/Allocated";
/// Condition on a Service: some node answers for its address.
pub const CONDITION_ANNOUNCED: &str = "heraldlb.io/Announced";
