//! What `import metallb` makes of MetalLB's objects, and what it says would become of Services: tables.

#![cfg(test)]

use std::path::PathBuf;

use kubectl_herald::import::{
    convert::Manifest,
    finding::{Finding, Weight},
    offline_world,
    plan::{Plan, plan},
    report,
    source::{BadInput, documents},
};
use serde_json::{Value, json};

const LAN: &str = "{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {name: lan, namespace: m}, \
    spec: {addresses: [192.168.1.240-192.168.1.250]}}";
const EVERYWHERE: &str =
    "{apiVersion: metallb.io/v1beta1, kind: L2Advertisement, metadata: {name: all, namespace: m}}";

fn planned(text: &str) -> Result<Plan, Vec<BadInput>> {
    let objects = documents("f", text)?;
    let world = offline_world(&objects, None).unwrap();
    plan(&objects, None, &world, false)
}

/// As planned from these objects, each a YAML document.
fn plan_of(objects: &[&str]) -> Plan {
    planned(&format!("---\n{}", objects.join("\n---\n"))).unwrap()
}

/// A Service in flow style; `more`: further fields of metadata, `spec` of its spec.
fn service(name: &str, shows: &str, more: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    let ingress: Vec<_> = shows.split_whitespace().map(|ip| json!({"ip": ip})).collect();
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{namespace: {namespace}, name: {name}, uid: {namespace}-{name}, \
         {more}}}, spec: {{type: LoadBalancer, ipFamilies: [IPv4], ports: [{{port: 80}}], {spec}}}, \
         status: {{loadBalancer: {{ingress: {}}}}}}}",
        json!(ingress)
    )
}

fn fates(plan: &Plan) -> Vec<(String, &'static str)> {
    plan.services.iter().map(|row| (row.service.to_string(), row.fate.word())).collect()
}

fn codes(plan: &Plan) -> Vec<&'static str> {
    plan.findings.iter().map(Finding::code).collect()
}

fn says(plan: &Plan, code: &str) -> String {
    plan.findings.iter().find(|finding| finding.code() == code).map(ToString::to_string).unwrap_or_default()
}

#[test]
fn every_field_of_pools_and_advertisements_is_carried_over_as_it_stands() {
    let selectors = "[{matchLabels: {team: a}}]";
    let pool = format!(
        "{{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {{name: lan, namespace: m, labels: {{net: lan}}}}, \
         spec: {{addresses: [192.168.1.0/28, 'fd00::1 - fd00::9'], autoAssign: false, avoidBuggyIPs: true, \
         serviceAllocation: {{priority: 50, namespaces: [shop], namespaceSelectors: {selectors}, serviceSelectors: {selectors}}}}}, \
         status: {{assignedIPv4: 3, assignedIPv6: 0, availableIPv4: 1, availableIPv6: 0}}}}"
    );
    let advertisement = format!(
        "{{apiVersion: metallb.io/v1beta1, kind: L2Advertisement, metadata: {{name: all, namespace: m}}, spec: \
         {{ipAddressPools: [lan], ipAddressPoolSelectors: {selectors}, nodeSelectors: {selectors}, interfaces: [eth0], \
         serviceSelectors: {selectors}, preferredNodeSelectors: [{{weight: 7, preference: {{matchLabels: {{a: b}}}}}}]}}}}"
    );
    let plan = plan_of(&[&pool, &advertisement]);
    let made: Vec<Value> = plan.manifests.iter().map(Manifest::value).collect();
    let selectors = json!([{"matchLabels": {"team": "a"}}]);
    assert_eq!(
        made,
        [
            json!({
                "apiVersion": "heraldlb.io/v1beta1", "kind": "L2Advertisement", "metadata": {"name": "all"},
                "spec": {
                    "ipAddressPools": ["lan"], "ipAddressPoolSelectors": selectors, "nodeSelectors": selectors,
                    "interfaces": ["eth0"], "serviceSelectors": selectors,
                    "preferredNodeSelectors": [{"weight": 7, "preference": {"matchLabels": {"a": "b"}}}],
                },
            }),
            json!({
                "apiVersion": "heraldlb.io/v1beta1", "kind": "IPAddressPool",
                "metadata": {"name": "lan", "labels": {"net": "lan"}},
                "spec": {
                    "addresses": ["192.168.1.0/28", "fd00::1 - fd00::9"], "autoAssign": false, "avoidBuggyIPs": true,
                    "serviceAllocation": {
                        "priority": 50, "namespaces": ["shop"],
                        "namespaceSelectors": selectors, "serviceSelectors": selectors,
                    },
                },
            }),
        ]
    );
    assert_eq!(codes(&plan), ["NotChecked"], "nothing is lost");
}

#[test]
fn what_is_printed_reads_as_the_same_objects() {
    let plan = plan_of(&[LAN, EVERYWHERE]);
    let text = report::manifests(&plan).unwrap();
    let read: Vec<Value> =
        documents("printed", &text).unwrap().into_iter().map(|object| object.value).collect();
    let made: Vec<Value> = plan.manifests.iter().map(Manifest::value).collect();
    assert_eq!(read, made);
}

#[test]
fn services_keep_their_addresses_exactly_where_the_allocator_would_give_them_on_request() {
    let lan = |spec: &str| {
        format!(
            "{{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {{name: lan, namespace: m}}, \
             spec: {{addresses: [192.168.1.240-192.168.1.250], {spec}}}}}"
        )
    };
    let pinned = "annotations: {metallb.io/loadBalancerIPs: 192.168.1.241}";
    let elsewhere = "annotations: {metallb.universe.tf/loadBalancerIPs: 192.168.1.249}";
    let in_pool = "annotations: {metallb.universe.tf/address-pool: lan}";
    let shop = "serviceAllocation: {namespaces: [shop]}";
    let none = "";
    for (pool, shows, metadata, spec, fate, words) in [
        (none, "192.168.1.241", none, none, "keeps", none),
        (none, "192.168.1.241", pinned, none, "keeps", none),
        (none, "192.168.1.241", in_pool, none, "keeps", none),
        ("autoAssign: false", "192.168.1.241", none, none, "keeps", none),
        (shop, "192.168.1.241", none, none, "keeps", none),
        (
            none,
            "192.168.1.241",
            elsewhere,
            none,
            "CHANGES",
            "shows 192.168.1.241 and would get 192.168.1.249",
        ),
        (none, "10.9.9.9", none, none, "LEFT ALONE", "10.9.9.9 lies in no pool"),
        ("avoidBuggyIPs: true", "192.168.1.241", none, none, "keeps", none),
        (
            "serviceAllocation: {namespaces: [other]}",
            "192.168.1.241",
            none,
            none,
            "LEFT ALONE",
            "restricted to namespaces [other]",
        ),
        (
            "serviceAllocation: {serviceSelectors: [{matchLabels: {a: b}}]}",
            "192.168.1.241",
            none,
            none,
            "LEFT ALONE",
            "other labels",
        ),
        (none, none, none, none, "gets", none),
        ("autoAssign: false", none, none, none, "waits", "only on request"),
        (
            none,
            "192.168.1.241",
            none,
            "loadBalancerClass: metallb",
            "NOT SERVED",
            "loadBalancerClass is 'metallb'",
        ),
    ] {
        let web = service("shop/web", shows, metadata, spec);
        let plan = plan_of(&[&lan(pool), EVERYWHERE, &web]);
        assert_eq!(fates(&plan), [("shop/web".to_owned(), fate)], "{pool} {shows} {metadata} {spec}");
        let told: Vec<String> = plan.findings.iter().map(ToString::to_string).collect();
        assert!(told.iter().any(|text| text.contains(words)) || words.is_empty(), "{words}: {told:?}");
        let problem = !matches!(fate, "keeps" | "gets" | "waits");
        assert_eq!(plan.has_problems(), problem, "{told:?}");
    }
}

/// What is applied over a pool that Herald has already leaves alone what MetalLB's says nothing of.
#[test]
fn a_pool_that_is_there_already_is_judged_with_what_it_keeps() {
    let objects = [LAN, EVERYWHERE, &service("shop/web", "192.168.1.241", "", "")].join("\n---\n");
    let objects = documents("f", &format!("---\n{objects}")).unwrap();
    let mut world = offline_world(&objects, None).unwrap();
    let known: herald_crds::IPAddressPool = serde_json::from_value(json!({
        "metadata": {"name": "lan"},
        "spec": {"addresses": ["192.168.1.240/32"], "excluded": ["192.168.1.241"]},
    }))
    .unwrap();
    world.pools.push(known.into());
    let plan = plan(&objects, None, &world, true).unwrap();
    assert_eq!(fates(&plan), [("shop/web".to_owned(), "LEFT ALONE")]);
}

#[test]
fn a_pool_that_selects_namespaces_by_label_is_judged_by_the_labels_there_are() {
    let pool = "{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {name: lan, namespace: m}, spec: \
        {addresses: [10.0.0.0/28], serviceAllocation: {namespaceSelectors: [{matchLabels: {team: a}}]}}}";
    let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: a}}}";
    let web = service("shop/web", "10.0.0.1", "", "");
    assert_eq!(fates(&plan_of(&[pool, EVERYWHERE, namespace, &web]))[0].1, "keeps");
    assert_eq!(fates(&plan_of(&[pool, EVERYWHERE, &web]))[0].1, "LEFT ALONE");
}

#[test]
fn dual_stack_services_keep_both_addresses() {
    let pool = "{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {name: lan, namespace: m}, spec: \
        {addresses: [10.0.0.0/28, 'fd00::/120']}}";
    let dual = "ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv6, IPv4]";
    let web = service("shop/web", "fd00::5 10.0.0.7", "", "").replace("ipFamilies: [IPv4]", dual);
    assert_eq!(fates(&plan_of(&[pool, EVERYWHERE, &web]))[0].1, "keeps");
}

#[test]
fn services_that_share_keep_sharing_and_a_pool_is_opened_only_where_namespaces_share() {
    let key = "annotations: {metallb.universe.tf/allow-shared-ip: k}";
    let tcp = |name: &str| service(name, "192.168.1.241", key, "");
    let udp = |name: &str| {
        service(name, "192.168.1.241", key, "").replace("{port: 80}", "{port: 53, protocol: UDP}")
    };
    let scope = |plan: &Plan| plan.manifests.last().unwrap().spec.get("sharingScope").cloned();

    let plan = plan_of(&[LAN, EVERYWHERE, &tcp("shop/web"), &udp("shop/dns")]);
    assert_eq!(fates(&plan).iter().map(|(_, fate)| *fate).collect::<Vec<_>>(), ["keeps", "keeps"]);
    assert_eq!(scope(&plan), None);

    let plan = plan_of(&[LAN, EVERYWHERE, &tcp("shop/web"), &udp("infra/dns")]);
    assert_eq!(fates(&plan).iter().map(|(_, fate)| *fate).collect::<Vec<_>>(), ["keeps", "keeps"]);
    assert_eq!(scope(&plan), Some(json!("Cluster")));
    assert!(says(&plan, "SharedAcrossNamespaces").contains("192.168.1.241 is shared by shop/web, infra/dns"));

    let plan = plan_of(&[LAN, EVERYWHERE, &tcp("shop/web"), &tcp("shop/other")]);
    let mut words: Vec<_> = fates(&plan).into_iter().map(|(_, fate)| fate).collect();
    words.sort_unstable();
    assert_eq!(words, ["LEFT ALONE", "keeps"], "one port twice: MetalLB would not have given that");
}

#[test]
fn what_does_not_carry_over_is_named_and_weighed() {
    let object = |kind: &str, spec: &str| {
        let version = if kind == "BGPPeer" { "v1beta2" } else { "v1beta1" };
        format!(
            "{{apiVersion: metallb.io/{version}, kind: {kind}, metadata: {{name: x, namespace: m}}, spec: {{{spec}}}}}"
        )
    };
    let peer = object("BGPPeer", "myASN: 64500, peerASN: 64501, peerAddress: 10.0.0.1");
    for (objects, code, weight) in [
        (vec![LAN, EVERYWHERE, &peer], "BgpNotYet", Weight::Loss),
        (vec![LAN, EVERYWHERE, &object("BFDProfile", "")], "BgpNotYet", Weight::Loss),
        (vec![LAN, EVERYWHERE, &object("Community", "communities: []")], "BgpNotYet", Weight::Loss),
        (
            vec![LAN, EVERYWHERE, &object("BGPAdvertisement", "ipAddressPools: [lan]")],
            "BgpNotYet",
            Weight::Loss,
        ),
        (vec![LAN, &object("BGPAdvertisement", "")], "OnlyAnnouncedByBgp", Weight::Loss),
        (
            vec![LAN, &object("BGPAdvertisement", ""), &service("shop/web", "192.168.1.241", "", "")],
            "OnlyAnnouncedByBgp",
            Weight::Problem,
        ),
        (vec![LAN], "WasNotAnnounced", Weight::Note),
        (vec![LAN, &object("L2Advertisement", "ipAddressPools: [other]")], "WasNotAnnounced", Weight::Note),
        (
            vec![LAN, EVERYWHERE, &object("IPAddressPool", "addresses: [10.0.0.1/32], shiny: 1")],
            "FieldLeftOut",
            Weight::Loss,
        ),
        (
            vec![LAN, EVERYWHERE, &object("IPAddressPool", "addresses: [192.168.1.245/32]")],
            "Invalid",
            Weight::Problem,
        ),
        (
            vec![LAN, EVERYWHERE, &object("IPAddressPool", "addresses: [192.168.1.9-192.168.1.1]")],
            "Invalid",
            Weight::Problem,
        ),
        (
            vec![
                LAN,
                EVERYWHERE,
                &object("L2Advertisement", "nodeSelectors: [{matchExpressions: [{key: a, operator: Like}]}]"),
            ],
            "Invalid",
            Weight::Problem,
        ),
        (
            vec![
                EVERYWHERE,
                &LAN.replace("namespace: m", "namespace: m, labels: {argocd.argoproj.io/instance: x}"),
            ],
            "LabelsLeftOut",
            Weight::Note,
        ),
    ] {
        let plan = plan_of(&objects.iter().map(|object| &**object).collect::<Vec<&str>>());
        let found = plan.findings.iter().find(|finding| finding.code() == code);
        assert_eq!(found.map(Finding::weight), Some(weight), "{objects:?}: {:?}", codes(&plan));
    }
}

#[test]
fn objects_that_metallb_does_not_read_are_not_guessed_at() {
    let other = LAN.replace("namespace: m", "namespace: elsewhere");
    let text = format!("---\n{LAN}\n---\n{EVERYWHERE}\n---\n{other}");
    let bad =
        planned(&text).unwrap_err().into_iter().map(|error| error.to_string()).collect::<Vec<_>>().join("\n");
    assert!(
        bad.contains("several namespaces (elsewhere, m)") && bad.contains("--metallb-namespace"),
        "{bad}"
    );
    let objects = documents("f", &text).unwrap();
    let world = offline_world(&objects, None).unwrap();
    let plan = plan(&objects, Some("m"), &world, false).unwrap();
    assert_eq!(plan.manifests.len(), 2);
    assert!(codes(&plan).contains(&"OtherNamespace"));
}

#[test]
fn a_field_that_cant_be_read_is_named_with_file_document_and_object() {
    for (text, says) in [
        (
            LAN.replace("[192.168.1.240-192.168.1.250]", "10.0.0.0/24"),
            "f, document 1: IPAddressPool m/lan: spec.addresses: ",
        ),
        (
            LAN.replace("addresses: [192.168.1.240-192.168.1.250]", ""),
            "IPAddressPool lan: spec: missing field `addresses`",
        ),
        (LAN.replace("spec: {", "spec: {autoAssign: maybe, "), "spec.autoAssign: invalid type"),
        (
            LAN.replace("spec: {", "spec: {serviceAllocation: {priority: -1}, "),
            "spec.serviceAllocation.priority: invalid value",
        ),
        (LAN.replace("spec: {", "spec: {serviceAllocation: [], "), "spec.serviceAllocation: must be a map"),
        (LAN.replace("IPAddressPool", "Surprise"), "kind: MetalLB's kind 'Surprise' is unknown"),
        (format!("{LAN}\n---\n{LAN}"), "f, document 2: IPAddressPool m/lan: there are two IPAddressPool lan"),
    ] {
        let bad = planned(&text).unwrap_err()[0].to_string();
        assert!(bad.contains(says), "{bad}");
    }
}

#[test]
fn the_config_map_of_old_becomes_pools_and_advertisements() {
    let config = r"
apiVersion: v1
kind: ConfigMap
metadata: {namespace: metallb-system, name: config}
data:
  config: |
    address-pools:
    - name: lan
      protocol: layer2
      addresses: [192.168.1.240-192.168.1.250]
      auto-assign: false
      avoid-buggy-ips: true
    - name: routed
      protocol: bgp
      addresses: [10.9.0.0/24]
    peers:
    - {my-asn: 1, peer-asn: 2, peer-address: 10.0.0.1}
";
    let plan = planned(config).unwrap();
    let named: Vec<_> = plan.manifests.iter().map(|made| format!("{} {}", made.kind, made.name)).collect();
    assert_eq!(named, ["L2Advertisement lan", "IPAddressPool lan", "IPAddressPool routed"]);
    assert_eq!(
        Value::Object(plan.manifests[1].spec.clone()),
        json!({"addresses": ["192.168.1.240-192.168.1.250"], "autoAssign": false, "avoidBuggyIPs": true})
    );
    assert!(codes(&plan).contains(&"OnlyAnnouncedByBgp"), "{:?}", codes(&plan));
    let bad = planned(&config.replace("layer2", "layer3")).unwrap_err()[0].to_string();
    assert!(bad.contains("data.config.address-pools[0].protocol: 'layer3' is no protocol"), "{bad}");
}

#[test]
fn an_old_pool_and_an_advertisement_of_its_name_are_no_namesakes() {
    let old = "{apiVersion: metallb.io/v1beta1, kind: AddressPool, metadata: {name: all, namespace: m}, \
        spec: {protocol: layer2, addresses: [10.0.0.0/28]}}";
    for objects in [[old, EVERYWHERE], [EVERYWHERE, old]] {
        let plan = plan_of(&objects);
        let mut named: Vec<_> = plan.manifests.iter().map(|it| format!("{} {}", it.kind, it.name)).collect();
        named.sort();
        assert_eq!(named, ["IPAddressPool all", "L2Advertisement all", "L2Advertisement all-pool"]);
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let bad =
        kubectl_herald::import::source::read_file(&PathBuf::from("/nonexistent/pools.yaml")).unwrap_err();
    assert!(bad[0].to_string().starts_with("/nonexistent/pools.yaml: can't be read"), "{}", bad[0]);
}
