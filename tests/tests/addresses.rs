//! Which address a Service gets, shares and keeps, rule by rule as the documentation tells it, on a real API server.
//!
//! A test is a table: what is applied, in order, and how each Service ends. Every test has pools of its own, which give
//! nothing to anybody else, so the tests don't feel each other.

use std::{fmt::Debug, net::IpAddr};

use anyhow::{Context as _, Result, ensure};
use herald_crds::{IPAddressPool, LoadBalancerIP};
use herald_lab::{
    Lab,
    services::{addresses, condition},
    shared::Case,
};
use k8s_openapi::{api::core::v1::Service, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Api, Resource,
    api::{Patch, PatchParams},
};
use serde::de::DeserializeOwned;

/// How a Service ends.
#[derive(Debug)]
enum Ends<'a> {
    /// It has these addresses, and nothing is wrong.
    Has(&'a [&'a str]),
    /// It has these addresses; the condition says with this reason and these words what is wrong.
    Keeps(&'a [&'a str], &'a str, &'a [&'a str]),
    /// It has none, for this reason, told in these words.
    Waits(&'a str, &'a [&'a str]),
}

use Ends::{Has, Keeps, Waits};

/// A Service as it is applied (its name, what its metadata and its spec say), and how it ends.
type Row<'a> = (&'a str, &'a str, &'a str, Ends<'a>);

/// Port 80, of no interest where nothing is shared.
const WEB: &str = "ports: [{port: 80}]";

impl Ends<'_> {
    /// The condition, if all is as it is to be but for the words of its message.
    fn met(&self, service: &Service) -> Option<Condition> {
        let allocated = condition(service, "heraldlb.io/Allocated")?;
        let (shown, status, reason) = match *self {
            Has(shown) => (shown, "True", "Allocated"),
            Keeps(shown, reason, _) => (shown, "True", reason),
            Waits(reason, _) => (&[][..], "False", reason),
        };
        let shown: Vec<Option<IpAddr>> = shown.iter().map(|address| address.parse().ok()).collect();
        let has: Vec<Option<IpAddr>> = addresses(service).into_iter().map(Some).collect();
        (has == shown && allocated.status == status && allocated.reason == reason).then_some(allocated)
    }

    fn words(&self) -> &[&str] {
        match self {
            Has(_) => &[],
            Keeps(.., words) | Waits(_, words) => words,
        }
    }
}

/// Waits until the Service ends like this.
fn ends(case: &Case, name: &str, end: &Ends<'_>) -> Result<()> {
    let what = format!("{end:?}");
    let service =
        case.lab().await_service(case.namespace(), name, &what, |service| end.met(service).is_some())?;
    let message = end.met(&service).context("a condition that was there and is not")?.message;
    for word in end.words() {
        ensure!(message.contains(word), "{name}: the message does not say {word:?}: {message}");
    }
    Ok(())
}

/// Applies an object as kubectl would, also over one that is there; not by kubectl, whose start takes longer than all else.
fn put<K>(lab: &Lab, api: &Api<K>, name: &str, manifest: &str) -> Result<()>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync,
{
    let object: serde_json::Value = serde_yaml::from_str(manifest).with_context(|| manifest.to_owned())?;
    let by_us = PatchParams::apply("lab").force();
    let applied = lab.block_on(api.patch(name, &by_us, &Patch::Apply(object)));
    applied.with_context(|| manifest.to_owned()).map(drop)
}

/// Applies a Service of type LoadBalancer.
fn apply(case: &Case, name: &str, metadata: &str, spec: &str) -> Result<()> {
    let namespace = case.namespace();
    let manifest = format!(
        "{{apiVersion: v1, kind: Service, metadata: {{namespace: {namespace}, name: {name}, {metadata}}}, \
         spec: {{type: LoadBalancer, {spec}}}}}"
    );
    put::<Service>(case.lab(), &Api::namespaced(case.lab().kube(), namespace), name, &manifest)
}

/// Applies the rows one after the other, each when the one before has ended as it says.
fn table(case: &Case, rows: &[Row<'_>]) -> Result<()> {
    for (name, metadata, spec, end) in rows {
        apply(case, name, metadata, spec)?;
        ends(case, name, end)?;
    }
    Ok(())
}

/// Applies a pool.
fn pool(lab: &Lab, name: &str, spec: &str) -> Result<()> {
    let head = format!("apiVersion: heraldlb.io/v1beta1, kind: IPAddressPool, metadata: {{name: {name}}}");
    put::<IPAddressPool>(lab, &Api::all(lab.kube()), name, &format!("{{{head}, spec: {{{spec}}}}}"))
}

/// Waits until the pool gives this reason, told in these words.
fn pool_says(lab: &Lab, name: &str, reason: &str, words: &[&str]) -> Result<()> {
    let (_, Condition { message, .. }) = lab.await_pool(name, reason)?;
    for word in words {
        ensure!(message.contains(word), "pool {name} does not say {word:?}: {message}");
    }
    Ok(())
}

/// Waits until nobody has the address and none is kept waiting for it.
fn freed(case: &Case, address: &str) -> Result<()> {
    case.lab().await_lbip(address.parse()?, "gone", |lbip| lbip.is_none()).map(drop)
}

/// What a Service asks for, as annotations.
macro_rules! asks {
    ($($annotation:literal: $value:literal),+) => {
        concat!("annotations: {", $("heraldlb.io/", $annotation, ": '", $value, "', ",)+ "}")
    };
}

/// "The same key, no port in common, one namespace unless the pool opens it; with Local, the same pods."
#[test]
fn services_share_an_address_by_key_port_namespace_and_pods() -> Result<()> {
    let case = Case::new("sharing")?;
    let other = Case::in_lab(case.lab(), "sharing-other")?;
    pool(case.lab(), "sharing", "addresses: [192.168.2.0/29], autoAssign: false")?;
    pool(
        case.lab(),
        "sharing-open",
        "addresses: [192.168.2.8/29], autoAssign: false, sharingScope: Cluster",
    )?;
    let first = asks!("loadBalancerIPs": "192.168.2.1", "allow-shared-ip": "k");
    let local = asks!("loadBalancerIPs": "192.168.2.2", "allow-shared-ip": "k");
    let open = asks!("loadBalancerIPs": "192.168.2.9", "allow-shared-ip": "k");
    let pods_of_a = "externalTrafficPolicy: Local, selector: {app: a}, ports: [{port: 80}]";
    let also_of_a = "externalTrafficPolicy: Local, selector: {app: a}, ports: [{port: 81}]";
    let pods_of_b = "externalTrafficPolicy: Local, selector: {app: b}, ports: [{port: 82}]";
    table(
        &case,
        &[
            ("web", first, WEB, Has(&["192.168.2.1"])),
            ("tls", first, "ports: [{port: 443}]", Has(&["192.168.2.1"])),
            ("udp", first, "ports: [{port: 80, protocol: UDP}]", Has(&["192.168.2.1"])),
            ("same-port", first, WEB, Waits("NotShareable", &["sharing/web", "both use port TCP 80"])),
            (
                "other-key",
                asks!("loadBalancerIPs": "192.168.2.1", "allow-shared-ip": "guessed"),
                "ports: [{port: 81}]",
                Waits("NotShareable", &["the key there is 'k'"]),
            ),
            (
                "no-key",
                asks!("loadBalancerIPs": "192.168.2.1"),
                "ports: [{port: 81}]",
                Waits("AddressInUse", &["sharing/web", "allow-shared-ip"]),
            ),
            ("local", local, pods_of_a, Has(&["192.168.2.2"])),
            ("same-pods", local, also_of_a, Has(&["192.168.2.2"])),
            ("other-pods", local, pods_of_b, Waits("NotShareable", &["externalTrafficPolicy: Local"])),
            ("open", open, WEB, Has(&["192.168.2.9"])),
        ],
    )?;
    table(
        &other,
        &[
            ("closed", first, "ports: [{port: 82}]", Waits("NotShareable", &["sharingScope"])),
            ("joins", open, "ports: [{port: 82}]", Has(&["192.168.2.9"])),
        ],
    )?;
    // The port is free again: who waits for it follows by itself.
    case.delete_service("web")?;
    ends(&case, "same-port", &Has(&["192.168.2.1"]))
}

/// "Who names a key and no address takes a free one while there is one, and joins when the pool is full; `sharing: Prefer`
/// joins first."
#[test]
fn who_may_share_joins_when_the_pool_is_full_or_prefers_it() -> Result<()> {
    let case = Case::new("joining")?;
    pool(case.lab(), "when-full", "addresses: [192.168.2.16/31], autoAssign: false")?;
    pool(case.lab(), "prefer", "addresses: [192.168.2.18/31], autoAssign: false, sharing: Prefer")?;
    let when_full = asks!("address-pool": "when-full", "allow-shared-ip": "k");
    let prefer = asks!("address-pool": "prefer", "allow-shared-ip": "k");
    table(
        &case,
        &[
            ("first", when_full, "ports: [{port: 1}]", Has(&["192.168.2.16"])),
            ("second", when_full, "ports: [{port: 2}]", Has(&["192.168.2.17"])),
            ("third", when_full, "ports: [{port: 3}]", Has(&["192.168.2.16"])),
            ("keyless", asks!("address-pool": "when-full"), WEB, Waits("NoAddressAvailable", &["when-full"])),
            ("one", prefer, "ports: [{port: 1}]", Has(&["192.168.2.18"])),
            ("two", prefer, "ports: [{port: 2}]", Has(&["192.168.2.18"])),
            ("same", prefer, "ports: [{port: 2}]", Has(&["192.168.2.19"])),
        ],
    )
}

/// "An address in use keeps its Service when it is excluded; the pool says so. It is given to nobody else."
#[test]
fn an_address_excluded_under_its_user_is_kept_and_then_given_no_more() -> Result<()> {
    let case = Case::new("excluding")?;
    let from = asks!("address-pool": "excluding");
    let by_name = asks!("loadBalancerIPs": "192.168.2.24");
    pool(case.lab(), "excluding", "addresses: [192.168.2.24/30], autoAssign: false")?;
    table(&case, &[("web", from, WEB, Has(&["192.168.2.24"]))])?;
    pool(
        case.lab(),
        "excluding",
        "addresses: [192.168.2.24/30], excluded: [192.168.2.24/31], autoAssign: false",
    )?;
    pool_says(case.lab(), "excluding", "AddressesOutsidePool", &["192.168.2.24 of excluding/web"])?;
    ends(&case, "web", &Keeps(&["192.168.2.24"], "AddressOutsidePools", &["192.168.2.24"]))?;
    table(&case, &[("next", from, WEB, Has(&["192.168.2.26"]))])?;
    case.delete_service("web")?;
    pool_says(case.lab(), "excluding", "InForce", &[])?;
    table(&case, &[("late", by_name, WEB, Waits("AddressExcluded", &["192.168.2.24", "spec.excluded"]))])
}

/// "No pool edit takes an address away; Service and pool say what is outside, until it is inside again."
#[test]
fn a_pool_that_shrinks_under_its_users_names_them_and_they_keep_what_they_have() -> Result<()> {
    let case = Case::new("shrinking")?;
    let from = asks!("address-pool": "shrinking");
    pool(case.lab(), "shrinking", "addresses: [192.168.2.28/31], autoAssign: false")?;
    table(
        &case,
        &[("stays", from, WEB, Has(&["192.168.2.28"])), ("outside", from, WEB, Has(&["192.168.2.29"]))],
    )?;
    pool_says(case.lab(), "shrinking", "Exhausted", &["no free IPv4 address"])?;
    pool(case.lab(), "shrinking", "addresses: [192.168.2.28, 192.168.2.30], autoAssign: false")?;
    pool_says(case.lab(), "shrinking", "AddressesOutsidePool", &["192.168.2.29 of shrinking/outside"])?;
    ends(&case, "outside", &Keeps(&["192.168.2.29"], "AddressOutsidePools", &["shrinking"]))?;
    ends(&case, "stays", &Has(&["192.168.2.28"]))?;
    table(&case, &[("new", from, WEB, Has(&["192.168.2.30"]))])?;
    pool(case.lab(), "shrinking", "addresses: [192.168.2.28-192.168.2.30], autoAssign: false")?;
    ends(&case, "outside", &Has(&["192.168.2.29"]))?;
    pool_says(case.lab(), "shrinking", "Exhausted", &[])?;
    case.delete_service("new")?;
    pool_says(case.lab(), "shrinking", "InForce", &[])
}

/// "`reclaimPolicy: Retain` keeps an address reserved for a Service of the same namespace and name."
#[test]
fn a_retained_address_waits_for_its_service_and_comes_back_to_it() -> Result<()> {
    let case = Case::new("retaining")?;
    let from = asks!("address-pool": "retaining");
    pool(case.lab(), "retaining", "addresses: [192.168.2.32/31], autoAssign: false, reclaimPolicy: Retain")?;
    table(&case, &[("web", from, WEB, Has(&["192.168.2.32"]))])?;
    case.delete_service("web")?;
    let reserved = |lbip: Option<&LoadBalancerIP>| {
        let claim = lbip.filter(|lbip| lbip.spec.services.is_empty());
        let claim = claim.and_then(|lbip| lbip.spec.claim_ref.as_ref());
        claim.is_some_and(|claim| claim.namespace == "retaining" && claim.name.as_deref() == Some("web"))
    };
    case.lab().await_lbip("192.168.2.32".parse()?, "reserved for retaining/web", reserved)?;
    table(
        &case,
        &[
            ("other", from, WEB, Has(&["192.168.2.33"])),
            ("full", from, WEB, Waits("NoAddressAvailable", &["retaining"])),
            (
                "by-name",
                asks!("loadBalancerIPs": "192.168.2.32"),
                WEB,
                Waits("AddressReserved", &["retaining/web"]),
            ),
            ("web", from, WEB, Has(&["192.168.2.32"])),
        ],
    )
}

/// "`avoidBuggyIPs` skips IPv4 addresses that end in .0 and .255."
#[test]
fn a_pool_that_avoids_buggy_addresses_gives_none_that_ends_in_0_or_255() -> Result<()> {
    let case = Case::new("buggy")?;
    let from = asks!("address-pool": "buggy");
    pool(
        case.lab(),
        "buggy",
        "addresses: [192.168.2.255-192.168.3.1], autoAssign: false, avoidBuggyIPs: true",
    )?;
    let avoided = || Waits("AddressExcluded", &["avoidBuggyIPs"]);
    table(
        &case,
        &[
            ("web", from, WEB, Has(&["192.168.3.1"])),
            ("full", from, WEB, Waits("NoAddressAvailable", &["buggy"])),
            ("names-255", asks!("loadBalancerIPs": "192.168.2.255"), WEB, avoided()),
            ("names-0", asks!("loadBalancerIPs": "192.168.3.0"), WEB, avoided()),
        ],
    )
}

/// "`serviceAllocation`: namespaces and Services must both match; within each, one match is enough. A selector that matches
/// nothing opens the pool to nobody." Who names the pool or an address must be granted as well.
#[test]
fn a_pool_is_for_the_namespaces_and_services_that_it_names() -> Result<()> {
    let case = Case::new("granted")?;
    let other = Case::in_lab(case.lab(), "not-granted")?;
    let lab = case.lab();
    lab.kubectl(&["label", "namespace", "granted", "team=a"])?;
    for (name, addresses, grants) in [
        ("by-name", "192.168.2.40/30", "namespaces: [granted]"),
        ("by-label", "192.168.2.44/30", "namespaceSelectors: [{matchLabels: {team: a}}]"),
        ("gold", "192.168.2.48/30", "namespaces: [granted], serviceSelectors: [{matchLabels: {tier: gold}}]"),
        ("nobodys", "192.168.2.52/30", "namespaceSelectors: [{matchLabels: {team: none}}]"),
    ] {
        let spec = format!("addresses: [{addresses}], autoAssign: false, serviceAllocation: {{{grants}}}");
        pool(lab, name, &spec)?;
    }
    let no = |words| Waits("NoAddressAvailable", words);
    let by_label = asks!("address-pool": "by-label");
    table(
        &case,
        &[
            ("named", asks!("address-pool": "by-name"), WEB, Has(&["192.168.2.40"])),
            ("labelled", by_label, WEB, Has(&["192.168.2.44"])),
            (
                "gold",
                concat!(asks!("address-pool": "gold"), ", labels: {tier: gold}"),
                WEB,
                Has(&["192.168.2.48"]),
            ),
            ("brass", asks!("address-pool": "gold"), WEB, no(&["'gold'", "serviceSelectors"])),
            ("nobody", asks!("address-pool": "nobodys"), WEB, no(&["'nobodys'", "namespaceSelectors"])),
        ],
    )?;
    table(
        &other,
        &[
            ("named", asks!("address-pool": "by-name"), WEB, no(&["'by-name'", "namespaces [granted]"])),
            (
                "by-address",
                asks!("loadBalancerIPs": "192.168.2.41"),
                WEB,
                Waits("PoolNotAllowed", &["by-name"]),
            ),
            ("labelled", by_label, WEB, no(&["'by-label'"])),
        ],
    )?;
    // A label is all that is missing; and who has an address keeps it when the label goes.
    lab.kubectl(&["label", "namespace", "not-granted", "team=a"])?;
    ends(&other, "labelled", &Has(&["192.168.2.45"]))?;
    lab.kubectl(&["label", "namespace", "not-granted", "team-"])?;
    ends(&other, "labelled", &Keeps(&["192.168.2.45"], "NoLongerGranted", &["by-label"]))
}

/// "Pools whose `serviceAllocation` matches, by priority, lower first and 0 last, then by name; then pools without."
#[test]
fn pools_are_asked_by_priority_then_name_and_those_for_everybody_last() -> Result<()> {
    let case = Case::new("priority")?;
    for (name, address, priority) in [
        ("a-last", "192.168.2.56", 0),
        ("c-second", "192.168.2.57", 2),
        ("b-second", "192.168.2.58", 2),
        ("z-first", "192.168.2.59", 1),
    ] {
        let grants = format!("serviceAllocation: {{priority: {priority}, namespaces: [priority]}}");
        pool(case.lab(), name, &format!("addresses: [{address}], {grants}"))?;
    }
    table(
        &case,
        &[
            ("one", "", WEB, Has(&["192.168.2.59"])),
            ("two", "", WEB, Has(&["192.168.2.58"])),
            ("three", "", WEB, Has(&["192.168.2.57"])),
            ("four", "", WEB, Has(&["192.168.2.56"])),
        ],
    )?;
    apply(&case, "five", "", WEB)?;
    let from_default = |service: &Service| {
        let annotations = service.metadata.annotations.as_ref();
        annotations
            .and_then(|all| all.get("heraldlb.io/ip-allocated-from-pool"))
            .is_some_and(|pool| pool == "default")
    };
    case.lab().await_service("priority", "five", "given an address of pool default", from_default)?;
    Ok(())
}

/// "A Service whose policy changes gets the other family or gives it back; the first address stays."
#[test]
fn a_second_family_comes_and_goes_with_the_policy_and_the_first_address_stays() -> Result<()> {
    let case = Case::new("policies")?;
    let from = asks!("address-pool": "both");
    pool(case.lab(), "both", "addresses: [192.168.2.64/30, 'fd98::2:40/126'], autoAssign: false")?;
    let policy = |policy: &str| format!("ipFamilyPolicy: {policy}, {WEB}");
    let (single, prefer) = (policy("SingleStack"), policy("PreferDualStack"));
    let require = policy("RequireDualStack");
    let pair = || Has(&["192.168.2.64", "fd98::2:40"]);
    table(
        &case,
        &[
            ("web", from, &single, Has(&["192.168.2.64"])),
            ("web", from, &prefer, pair()),
            ("web", from, &single, Has(&["192.168.2.64"])),
        ],
    )?;
    freed(&case, "fd98::2:40")?;
    table(&case, &[("web", from, &require, pair()), ("web", from, &prefer, pair())])
}

/// "PreferDualStack adds the second family later without touching the first; RequireDualStack needs both or nothing."
#[test]
fn a_pool_that_gains_a_family_serves_who_waited_and_takes_none_back_when_it_loses_it() -> Result<()> {
    let case = Case::new("families")?;
    let from = asks!("address-pool": "families");
    let prefer = "ipFamilyPolicy: PreferDualStack, ports: [{port: 80}]";
    let require = "ipFamilyPolicy: RequireDualStack, ports: [{port: 80}]";
    let only_v4 = "addresses: [192.168.2.68/30], autoAssign: false";
    let both = "addresses: [192.168.2.68/30, 'fd98::2:44/126'], autoAssign: false";
    pool(case.lab(), "families", only_v4)?;
    apply(&case, "prefers", from, prefer)?;
    case.address("prefers")?;
    table(&case, &[("requires", from, require, Waits("NoAddressAvailable", &["has no IPv6 range"]))])?;
    ensure!(case.address("prefers")?.to_string() == "192.168.2.68", "not the lowest");
    pool(case.lab(), "families", both)?;
    // Which of the two gets the lower IPv6 address is nobody's promise.
    for (service, v4) in [("prefers", "192.168.2.68"), ("requires", "192.168.2.69")] {
        let has_both = |service: &Service| matches!(addresses(service)[..], [first, IpAddr::V6(_)] if first.to_string() == v4);
        case.lab().await_service("families", service, &format!("{v4} and an IPv6 address"), has_both)?;
    }
    let had = case.addresses("prefers")?;
    pool(case.lab(), "families", only_v4)?;
    pool_says(case.lab(), "families", "AddressesOutsidePool", &["families/prefers", "families/requires"])?;
    apply(&case, "late", from, prefer)?;
    ensure!(case.address("late")?.to_string() == "192.168.2.70", "not the next");
    ensure!(case.addresses("prefers")? == had, "the second family was taken away");
    Ok(())
}

/// "A request that becomes different is moved; a request that becomes impossible keeps what it has and says so."
#[test]
fn a_changed_request_moves_the_address_and_an_impossible_one_does_not() -> Result<()> {
    let case = Case::new("requests")?;
    pool(case.lab(), "from-here", "addresses: [192.168.2.72/30], autoAssign: false")?;
    pool(case.lab(), "to-there", "addresses: [192.168.2.76/30], autoAssign: false")?;
    table(
        &case,
        &[
            ("web", asks!("loadBalancerIPs": "192.168.2.73"), WEB, Has(&["192.168.2.73"])),
            ("web", asks!("loadBalancerIPs": "192.168.2.74"), WEB, Has(&["192.168.2.74"])),
        ],
    )?;
    freed(&case, "192.168.2.73")?;
    let nowhere = asks!("loadBalancerIPs": "10.1.2.3");
    table(
        &case,
        &[
            ("web", nowhere, WEB, Keeps(&["192.168.2.74"], "RequestUnmet", &["10.1.2.3"])),
            ("web", asks!("address-pool": "to-there"), WEB, Has(&["192.168.2.76"])),
        ],
    )?;
    freed(&case, "192.168.2.74")?;
    // It asks for less, and keeps what it has.
    apply(&case, "web", "", WEB)?;
    table(&case, &[("barrier", asks!("address-pool": "to-there"), WEB, Has(&["192.168.2.77"]))])?;
    ends(&case, "web", &Has(&["192.168.2.76"]))
}

/// "`limitPerNamespace`: how many addresses of each family the Services of one namespace may have."
#[test]
fn a_namespace_gets_as_many_addresses_as_its_limit_and_more_when_that_is_raised() -> Result<()> {
    let case = Case::new("limited")?;
    let other = Case::in_lab(case.lab(), "limited-other")?;
    let from = asks!("address-pool": "limited");
    let limit =
        |limit: u8| format!("addresses: [192.168.2.80/29], autoAssign: false, limitPerNamespace: {limit}");
    pool(case.lab(), "limited", &limit(1))?;
    table(
        &case,
        &[
            ("one", from, WEB, Has(&["192.168.2.80"])),
            ("two", from, WEB, Waits("NoAddressAvailable", &["limitPerNamespace"])),
            (
                "by-name",
                asks!("loadBalancerIPs": "192.168.2.87"),
                WEB,
                Waits("NamespaceLimit", &["limitPerNamespace"]),
            ),
        ],
    )?;
    table(&other, &[("one", from, WEB, Has(&["192.168.2.81"]))])?;
    case.delete_service("by-name")?;
    pool(case.lab(), "limited", &limit(2))?;
    ends(&case, "two", &Has(&["192.168.2.82"]))
}
