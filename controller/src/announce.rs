//! Where an address may be announced by layer 2: a pure function of its pool, its Service and the advertisements.
//!
//! What must always hold: `Listed` with no names means nobody, never everybody (rule B19), and a set of nodes is never
//! made from a list of nodes that has not been delivered (rule B11): whoever calls has one.
//!
//! Where several advertisements are for the same address, it may be announced wherever one of them lets it: their
//! nodes are joined, and for each node the interfaces of those advertisements that select it; one without interfaces
//! lifts the limit on interfaces.

use std::collections::{BTreeMap, BTreeSet};

use herald_crds::{ConflictDetection, L2Announce, NodeInterfaces, NodeMode, NodeSet, PreferredNode};
use herald_ipam::Labels;

use crate::objects::advertisement::Meaning;

/// The most names that one object lists (rule B19): beyond it an object would grow past 15 kB.
pub const LISTED: usize = 250;

/// Objects (nodes, namespaces) by name, with their labels.
pub type LabelsByName = BTreeMap<String, Labels>;

/// With this label a node is not to announce. Where every node has it (kubeadm puts it on control planes, which may be
/// all there is), it can't be meant, and is ignored (rule B26).
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// What decides where an address may be announced.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// Whether the pool has addresses probed before their first announcement.
    pub conflict_detection: ConflictDetection,
    /// The labels of each Service that has the address.
    pub service_labels: &'a [&'a Labels],
    /// With `externalTrafficPolicy: Local`, the nodes where the Service has endpoints; no other can answer.
    pub endpoints: Option<&'a BTreeSet<String>>,
}

/// Where the address may be announced by layer 2. A pool that no advertisement selects is announced from every node.
/// `of_pool`: the advertisements that select the address's pool. `before`: the names listed so far, which stay where there are too many.
pub fn l2(about: About<'_>, of_pool: &[&Meaning], nodes: &LabelsByName, before: &[String]) -> L2Announce {
    let unasked = Meaning::default();
    let chosen: Vec<&Meaning> = if of_pool.is_empty() {
        vec![&unasked]
    } else {
        let for_one =
            |meaning: &&Meaning| about.service_labels.iter().any(|labels| meaning.selects_service(labels));
        of_pool.iter().copied().filter(for_one).collect()
    };
    let candidates =
        nodes.values().filter(|labels| chosen.iter().any(|meaning| meaning.selects_node(labels)));
    let node_set = node_set(&chosen, nodes, about.endpoints, before);
    L2Announce {
        per_node: per_node(&chosen, nodes, &node_set),
        nodes: node_set,
        interfaces: interfaces(&chosen),
        preferred: preferred(&chosen, nodes, about.endpoints),
        conflict_detection: about.conflict_detection,
        ignore_node_exclusion: all_excluded(candidates),
    }
}

/// Whether there are nodes, and all of them ask not to announce.
pub fn all_excluded<'a>(nodes: impl IntoIterator<Item = &'a Labels>) -> bool {
    let mut nodes = nodes.into_iter().peekable();
    nodes.peek().is_some() && nodes.all(|labels| labels.contains_key(EXCLUDED))
}

fn node_set(
    chosen: &[&Meaning],
    nodes: &LabelsByName,
    endpoints: Option<&BTreeSet<String>>,
    before: &[String],
) -> NodeSet {
    if endpoints.is_none() && chosen.iter().any(|meaning| meaning.node_selectors.is_empty()) {
        return NodeSet { mode: NodeMode::All, names: Vec::new() };
    }
    let mut names: Vec<String> = nodes
        .iter()
        .filter(|(_, labels)| chosen.iter().any(|meaning| meaning.selects_node(labels)))
        .map(|(name, _)| name.clone())
        .filter(|name| endpoints.is_none_or(|endpoints| endpoints.contains(name)))
        .collect();
    // A node that joins must not push one out that may be the holder.
    names.sort_by_cached_key(|name| (!before.contains(name), name.clone()));
    names.truncate(LISTED);
    names.sort();
    NodeSet { mode: NodeMode::Listed, names }
}

fn interfaces(chosen: &[&Meaning]) -> Vec<String> {
    if chosen.iter().any(|meaning| meaning.interfaces.is_empty()) {
        return Vec::new();
    }
    let all: BTreeSet<&String> = chosen.iter().flat_map(|meaning| &meaning.interfaces).collect();
    all.into_iter().cloned().collect()
}

/// The interfaces of each node in `set`, where they are not those of all advertisements; each node in one entry.
fn per_node(chosen: &[&Meaning], nodes: &LabelsByName, set: &NodeSet) -> Vec<NodeInterfaces> {
    let differs = |pair: &[&Meaning]| matches!(pair, [a, b] if a.interfaces != b.interfaces);
    if !chosen.windows(2).any(differs) {
        return Vec::new();
    }
    let of = |labels: &Labels| {
        let selecting: Vec<&Meaning> =
            chosen.iter().copied().filter(|meaning| meaning.selects_node(labels)).collect();
        interfaces(&selecting)
    };
    let everywhere = |meaning: &&Meaning| meaning.node_selectors.is_empty();
    // Where every node may, the last entry is for those without an entry of their own; a node that joins is among them
    // until its labels are known, and those beyond the limit stay there: they have fewer interfaces then, never others'.
    let (names, others, most): (Vec<&String>, _, _) = match set.mode {
        NodeMode::All => {
            let unselecting: Vec<&Meaning> = chosen.iter().copied().filter(everywhere).collect();
            (nodes.keys().collect(), Some(interfaces(&unselecting)), LISTED - 1)
        }
        NodeMode::Listed | NodeMode::Set => (set.names.iter().collect(), None, LISTED),
    };
    let mut groups: BTreeMap<Vec<String>, Vec<String>> = BTreeMap::new();
    let each = names.into_iter().filter_map(|name| Some((name, of(nodes.get(name)?))));
    for (name, on) in each.filter(|(_, on)| others.as_ref() != Some(on)).take(most) {
        groups.entry(on).or_default().push(name.clone());
    }
    let listed = |names| NodeSet { mode: NodeMode::Listed, names };
    let mut entries: Vec<NodeInterfaces> = groups
        .into_iter()
        .map(|(interfaces, names)| NodeInterfaces { nodes: listed(names), interfaces })
        .collect();
    entries.extend(others.map(|interfaces| NodeInterfaces {
        nodes: NodeSet { mode: NodeMode::All, names: Vec::new() },
        interfaces,
    }));
    let all = interfaces(chosen);
    if entries.iter().all(|entry| entry.interfaces == all) { Vec::new() } else { entries }
}

/// Each node that some preference matches, with the sum of the weights; the heaviest first.
fn preferred(
    chosen: &[&Meaning],
    nodes: &LabelsByName,
    endpoints: Option<&BTreeSet<String>>,
) -> Vec<PreferredNode> {
    let weight = |labels: &Labels| -> i32 {
        let of = |meaning: &&Meaning| -> i32 {
            let matching = meaning.preferred.iter().filter(|(_, preference)| preference.matches(labels));
            matching.map(|(weight, _)| weight).sum()
        };
        chosen.iter().filter(|meaning| meaning.selects_node(labels)).map(of).sum()
    };
    if chosen.iter().all(|meaning| meaning.preferred.is_empty()) {
        return Vec::new();
    }
    let mut preferred: Vec<PreferredNode> = nodes
        .iter()
        .map(|(name, labels)| PreferredNode { node: name.clone(), weight: weight(labels) })
        .filter(|preferred| preferred.weight > 0)
        .filter(|preferred| endpoints.is_none_or(|endpoints| endpoints.contains(&preferred.node)))
        .collect();
    preferred.sort_by(|a, b| b.weight.cmp(&a.weight).then_with(|| a.node.cmp(&b.node)));
    preferred.truncate(LISTED);
    preferred
}

#[cfg(test)]
mod tests {
    use herald_ipam::Selector;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().copied().collect()
    }

    fn selector(pairs: &[(&str, &str)]) -> Selector {
        let labels = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Selector { labels, expressions: Vec::new() }
    }

    fn three_nodes() -> LabelsByName {
        [("n1", "a"), ("n2", "b"), ("n3", "b")]
            .map(|(name, rack)| (name.to_owned(), labels(&[("rack", rack)])))
            .into()
    }

    fn announce_from(advertisements: &[Meaning], nodes: &LabelsByName, before: &[String]) -> L2Announce {
        let about = About {
            conflict_detection: ConflictDetection::Enabled,
            service_labels: &[&labels(&[("app", "web")]), &labels(&[("app", "mail")])],
            endpoints: None,
        };
        l2(about, &advertisements.iter().collect::<Vec<_>>(), nodes, before)
    }

    fn announce(advertisements: &[Meaning]) -> L2Announce {
        announce_from(advertisements, &three_nodes(), &[])
    }

    fn on_rack(rack: &str) -> Meaning {
        Meaning { node_selectors: vec![selector(&[("rack", rack)])], ..Meaning::default() }
    }

    #[test]
    fn a_pool_that_no_advertisement_selects_is_announced_everywhere() {
        assert_eq!(announce(&[]).nodes, NodeSet { mode: NodeMode::All, names: vec![] });
    }

    #[test]
    fn selectors_list_the_nodes_that_match_one_of_them() {
        let names = |advertisements: &[Meaning]| {
            let set = announce(advertisements).nodes;
            assert_eq!(set.mode, NodeMode::Listed);
            set.names
        };
        assert_eq!(names(&[on_rack("b")]), ["n2", "n3"]);
        assert_eq!(names(&[on_rack("a"), on_rack("b")]), ["n1", "n2", "n3"]);
        assert_eq!(names(&[on_rack("nowhere")]), Vec::<String>::new(), "nobody, not everybody");
    }

    #[test]
    fn an_advertisement_for_other_services_leaves_nobody_to_announce() {
        let for_db = Meaning { service_selectors: vec![selector(&[("app", "db")])], ..Meaning::default() };
        assert_eq!(announce(&[for_db]).nodes, NodeSet { mode: NodeMode::Listed, names: vec![] });
    }

    #[test]
    fn interfaces_are_joined_and_one_advertisement_without_lifts_the_limit() {
        let on = |names: &[&str]| Meaning {
            interfaces: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Meaning::default()
        };
        assert_eq!(announce(&[on(&["eth1"]), on(&["eth0"])]).interfaces, ["eth0", "eth1"]);
        assert_eq!(announce(&[on(&["eth1"]), on(&[])]).interfaces, Vec::<String>::new());
    }

    /// For each entry its nodes (`*` for all) and interfaces.
    fn per_node_of(advertisements: &[Meaning]) -> Vec<(String, String)> {
        let entries = announce(advertisements).per_node.into_iter();
        entries
            .map(|entry| {
                let nodes = match entry.nodes.mode {
                    NodeMode::All => "*".to_owned(),
                    _ => entry.nodes.names.join(" "),
                };
                (nodes, entry.interfaces.join(" "))
            })
            .collect()
    }

    #[test]
    fn a_node_has_the_interfaces_of_those_advertisements_only_that_select_it() {
        let everywhere = Meaning::default;
        let on = |of: Meaning, names: &[&str]| Meaning {
            interfaces: names.iter().map(|name| (*name).to_owned()).collect(),
            ..of
        };
        for (advertisements, expected) in [
            (
                vec![on(on_rack("a"), &["eth0"]), on(on_rack("b"), &["eth1"])],
                vec![("n1", "eth0"), ("n2 n3", "eth1")],
            ),
            // One without interfaces lifts the limit where it selects.
            (vec![on(on_rack("a"), &[]), on(on_rack("b"), &["eth1"])], vec![("n1", ""), ("n2 n3", "eth1")]),
            (
                vec![on(everywhere(), &["eth0"]), on(on_rack("b"), &["eth1"])],
                vec![("n2 n3", "eth0 eth1"), ("*", "eth0")],
            ),
            (vec![on(everywhere(), &["eth0"]), on(on_rack("b"), &[])], vec![("n2 n3", ""), ("*", "eth0")]),
            (vec![on(everywhere(), &["eth0"]), on(on_rack("nowhere"), &["eth1"])], vec![("*", "eth0")]),
            // Where all nodes have what `interfaces` says, nothing is written anew for it.
            (vec![on(on_rack("a"), &["eth0"]), on(on_rack("b"), &["eth0"])], vec![]),
            (vec![on(on_rack("a"), &["eth0"]), on(on_rack("a"), &["eth1"])], vec![]),
            (vec![on(everywhere(), &["eth0"]), on(everywhere(), &["eth1"])], vec![]),
            (vec![on(everywhere(), &[]), on(on_rack("b"), &["eth1"])], vec![]),
            (vec![on(on_rack("nowhere"), &["eth0"]), on(on_rack("neither"), &["eth1"])], vec![]),
            (vec![], vec![]),
        ] {
            let expected: Vec<_> =
                expected.into_iter().map(|(nodes, on)| (nodes.to_owned(), on.to_owned())).collect();
            assert_eq!(per_node_of(&advertisements), expected, "{advertisements:#?}");
        }
    }

    #[test]
    fn entries_for_nodes_stay_within_the_limit_and_who_is_beyond_it_has_what_every_node_has() {
        let nodes: LabelsByName = (0..300).map(|n| (format!("n{n:03}"), labels(&[("rack", "b")]))).collect();
        let on = |of: Meaning, name: &str| Meaning { interfaces: [name.to_owned()].into(), ..of };
        let advertisements = [on(Meaning::default(), "eth0"), on(on_rack("b"), "eth1")];
        let entries = announce_from(&advertisements, &nodes, &[]).per_node;
        assert_eq!(entries.iter().map(|entry| entry.nodes.names.len()).sum::<usize>(), LISTED - 1);
        let last = entries.last().unwrap();
        assert_eq!((last.nodes.mode, last.interfaces.as_slice()), (NodeMode::All, &["eth0".to_owned()][..]));
    }

    #[test]
    fn the_weights_of_all_preferences_that_match_a_node_add_up() {
        let preferring = Meaning {
            preferred: vec![
                (10, selector(&[("rack", "b")])),
                (5, selector(&[])),
                (3, selector(&[("rack", "a")])),
            ],
            ..Meaning::default()
        };
        let preferred = announce(std::slice::from_ref(&preferring)).preferred;
        let pairs: Vec<_> = preferred.iter().map(|p| (p.node.as_str(), p.weight)).collect();
        assert_eq!(pairs, [("n2", 15), ("n3", 15), ("n1", 8)]);
        let only_a = Meaning { preferred: preferring.preferred, ..on_rack("a") };
        assert_eq!(
            announce(&[only_a]).preferred.len(),
            1,
            "a node that may not announce is not preferred either"
        );
    }

    #[test]
    fn with_local_traffic_policy_only_nodes_with_endpoints_qualify() {
        let names = |advertisements: &[Meaning], endpoints: &[&str]| {
            let about = About {
                conflict_detection: ConflictDetection::Enabled,
                service_labels: &[&Labels::new()],
                endpoints: Some(&endpoints.iter().map(|name| (*name).to_owned()).collect()),
            };
            let set = l2(about, &advertisements.iter().collect::<Vec<_>>(), &three_nodes(), &[]).nodes;
            assert_eq!(set.mode, NodeMode::Listed);
            set.names
        };
        assert_eq!(names(&[], &["n3", "n1", "gone"]), ["n1", "n3"]);
        assert_eq!(names(&[on_rack("b")], &["n3", "n1"]), ["n3"]);
        assert_eq!(names(&[], &[]), Vec::<String>::new());
    }

    #[test]
    fn where_there_are_too_many_nodes_those_listed_stay() {
        let nodes: LabelsByName = (0..300).map(|n| (format!("n{n:03}"), labels(&[("rack", "a")]))).collect();
        let first = announce_from(&[on_rack("a")], &nodes, &[]).nodes.names;
        assert_eq!((first.len(), first.last().unwrap().as_str()), (LISTED, "n249"));
        let mut more = nodes;
        more.insert("a-new".to_owned(), labels(&[("rack", "a")]));
        assert_eq!(announce_from(&[on_rack("a")], &more, &first).nodes.names, first);
    }

    #[test]
    fn an_advertisement_for_one_of_those_who_share_an_address_is_for_all_of_them() {
        let for_mail = Meaning { service_selectors: vec![selector(&[("app", "mail")])], ..on_rack("b") };
        assert_eq!(announce(&[for_mail]).nodes.names, ["n2", "n3"]);
    }

    #[test]
    fn an_exclusion_that_all_candidates_bear_is_ignored() {
        let bearing = |rack: &str| labels(&[("rack", rack), (EXCLUDED, "")]);
        let nodes: LabelsByName = [
            ("n1".to_owned(), bearing("a")),
            ("n2".to_owned(), bearing("a")),
            ("n3".to_owned(), labels(&[("rack", "b")])),
        ]
        .into();
        assert!(announce_from(&[on_rack("a")], &nodes, &[]).ignore_node_exclusion);
        assert!(!announce_from(&[on_rack("a"), on_rack("b")], &nodes, &[]).ignore_node_exclusion);
        assert!(!announce_from(&[on_rack("nowhere")], &nodes, &[]).ignore_node_exclusion);
    }

    #[test]
    fn an_exclusion_that_all_nodes_bear_is_ignored() {
        let excluded = || labels(&[(EXCLUDED, "")]);
        let all: LabelsByName = [("n1".to_owned(), excluded()), ("n2".to_owned(), excluded())].into();
        assert!(announce_from(&[], &all, &[]).ignore_node_exclusion);
        let some: LabelsByName = [("n1".to_owned(), excluded()), ("n2".to_owned(), labels(&[]))].into();
        assert!(!announce_from(&[], &some, &[]).ignore_node_exclusion);
        assert!(!announce_from(&[], &LabelsByName::new(), &[]).ignore_node_exclusion);
    }
}
