//! Where an address may be announced by layer 2: a pure function of its pool, its Service and the advertisements.
//!
//! What must always hold: `Listed` with no names means nobody, never everybody (rule B19), and a set of nodes is never
//! made from a list of nodes that has not been delivered (rule B11).
//!
//! Where several advertisements are for the same address, it may be announced wherever one of them lets it: their
//! nodes and their interfaces are joined, and an advertisement without interfaces lifts the limit on interfaces.

use std::collections::{BTreeMap, BTreeSet};

use herald_crds::{ConflictDetection, L2Announce, NodeMode, NodeSet, PreferredNode};
use herald_ipam::Labels;

use crate::objects::advertisement::Meaning;

/// The most names that one object lists (rule B19): beyond it an object would grow past 15 kB.
pub const LISTED: usize = 250;

/// The nodes and their labels.
pub type Nodes = BTreeMap<String, Labels>;

/// The list of nodes decides here, and has not been delivered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodesUnknown;

/// What decides where an address may be announced.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The name of the address's pool.
    pub pool: &'a str,
    /// The pool's labels.
    pub pool_labels: &'a Labels,
    /// Whether the pool has addresses probed before their first announcement.
    pub conflict_detection: ConflictDetection,
    /// The labels of the Service that has the address.
    pub service_labels: &'a Labels,
}

/// Where the address may be announced by layer 2. A pool that no advertisement selects is announced from every node.
pub fn l2<'a>(
    about: About<'_>,
    advertisements: impl Iterator<Item = &'a Meaning>,
    nodes: Option<&Nodes>,
) -> Result<L2Announce, NodesUnknown> {
    let of_pool: Vec<&Meaning> =
        advertisements.filter(|meaning| meaning.selects_pool(about.pool, about.pool_labels)).collect();
    let unasked = Meaning::default();
    let chosen: Vec<&Meaning> = if of_pool.is_empty() {
        vec![&unasked]
    } else {
        of_pool.into_iter().filter(|meaning| meaning.selects_service(about.service_labels)).collect()
    };
    Ok(L2Announce {
        nodes: node_set(&chosen, nodes)?,
        interfaces: interfaces(&chosen),
        preferred: preferred(&chosen, nodes)?,
        conflict_detection: about.conflict_detection,
    })
}

fn node_set(chosen: &[&Meaning], nodes: Option<&Nodes>) -> Result<NodeSet, NodesUnknown> {
    if chosen.iter().any(|meaning| meaning.node_selectors.is_empty()) {
        return Ok(NodeSet { mode: NodeMode::All, names: Vec::new() });
    }
    let names = if chosen.is_empty() {
        Vec::new()
    } else {
        nodes
            .ok_or(NodesUnknown)?
            .iter()
            .filter(|(_, labels)| chosen.iter().any(|meaning| meaning.selects_node(labels)))
            .map(|(name, _)| name.clone())
            .take(LISTED)
            .collect()
    };
    Ok(NodeSet { mode: NodeMode::Listed, names })
}

fn interfaces(chosen: &[&Meaning]) -> Vec<String> {
    if chosen.iter().any(|meaning| meaning.interfaces.is_empty()) {
        return Vec::new();
    }
    let all: BTreeSet<&String> = chosen.iter().flat_map(|meaning| &meaning.interfaces).collect();
    all.into_iter().cloned().collect()
}

/// Each node that some preference matches, with the sum of the weights; the heaviest first.
fn preferred(chosen: &[&Meaning], nodes: Option<&Nodes>) -> Result<Vec<PreferredNode>, NodesUnknown> {
    if chosen.iter().all(|meaning| meaning.preferred.is_empty()) {
        return Ok(Vec::new());
    }
    let weight = |labels: &Labels| -> i32 {
        let of = |meaning: &&Meaning| -> i32 {
            let matching = meaning.preferred.iter().filter(|(_, preference)| preference.matches(labels));
            matching.map(|(weight, _)| weight).sum()
        };
        chosen.iter().filter(|meaning| meaning.selects_node(labels)).map(of).sum()
    };
    let mut preferred: Vec<PreferredNode> = nodes
        .ok_or(NodesUnknown)?
        .iter()
        .map(|(name, labels)| PreferredNode { node: name.clone(), weight: weight(labels) })
        .filter(|preferred| preferred.weight > 0)
        .collect();
    preferred.sort_by(|a, b| b.weight.cmp(&a.weight).then_with(|| a.node.cmp(&b.node)));
    preferred.truncate(LISTED);
    Ok(preferred)
}

#[cfg(test)]
mod tests {
    use herald_ipam::Selector;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn selector(pairs: &[(&str, &str)]) -> Selector {
        Selector { labels: labels(pairs), expressions: Vec::new() }
    }

    fn three_nodes() -> Nodes {
        [("n1", "a"), ("n2", "b"), ("n3", "b")]
            .map(|(name, rack)| (name.to_owned(), labels(&[("rack", rack)])))
            .into()
    }

    fn announce(advertisements: &[Meaning], nodes: Option<&Nodes>) -> Result<L2Announce, NodesUnknown> {
        let about = About {
            pool: "default",
            pool_labels: &labels(&[("net", "lan")]),
            conflict_detection: ConflictDetection::Enabled,
            service_labels: &labels(&[("app", "web")]),
        };
        l2(about, advertisements.iter(), nodes)
    }

    fn on_rack(rack: &str) -> Meaning {
        Meaning { node_selectors: vec![selector(&[("rack", rack)])], ..Meaning::default() }
    }

    #[test]
    fn a_pool_that_no_advertisement_selects_is_announced_everywhere() {
        let elsewhere = Meaning { pools: ["other".to_owned()].into(), ..on_rack("a") };
        for advertisements in [vec![], vec![elsewhere]] {
            let announce = announce(&advertisements, None).unwrap();
            assert_eq!(announce.nodes, NodeSet { mode: NodeMode::All, names: vec![] });
        }
    }

    #[test]
    fn selectors_list_the_nodes_that_match_one_of_them() {
        let nodes = three_nodes();
        let names = |advertisements: &[Meaning]| {
            let set = announce(advertisements, Some(&nodes)).unwrap().nodes;
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
        let set = announce(&[for_db], None).unwrap().nodes;
        assert_eq!(set, NodeSet { mode: NodeMode::Listed, names: vec![] });
    }

    #[test]
    fn a_list_of_nodes_that_has_not_come_decides_nothing() {
        assert_eq!(announce(&[on_rack("a")], None), Err(NodesUnknown));
        assert!(announce(&[on_rack("a"), Meaning::default()], None).is_ok(), "all nodes: no list needed");
    }

    #[test]
    fn pools_are_selected_by_name_or_label() {
        let by_label = Meaning { pool_selectors: vec![selector(&[("net", "lan")])], ..on_rack("a") };
        let by_name = Meaning { pools: ["default".to_owned()].into(), ..on_rack("a") };
        for advertisement in [by_label, by_name] {
            assert_eq!(announce(&[advertisement], Some(&three_nodes())).unwrap().nodes.names, ["n1"]);
        }
    }

    #[test]
    fn interfaces_are_joined_and_one_advertisement_without_lifts_the_limit() {
        let on = |names: &[&str]| Meaning {
            interfaces: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Meaning::default()
        };
        assert_eq!(announce(&[on(&["eth1"]), on(&["eth0"])], None).unwrap().interfaces, ["eth0", "eth1"]);
        assert_eq!(announce(&[on(&["eth1"]), on(&[])], None).unwrap().interfaces, Vec::<String>::new());
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
        let nodes = three_nodes();
        let preferred = announce(std::slice::from_ref(&preferring), Some(&nodes)).unwrap().preferred;
        let pairs: Vec<_> = preferred.iter().map(|p| (p.node.as_str(), p.weight)).collect();
        assert_eq!(pairs, [("n2", 15), ("n3", 15), ("n1", 8)]);
        let only_a = Meaning { preferred: preferring.preferred, ..on_rack("a") };
        let preferred = announce(&[only_a], Some(&nodes)).unwrap().preferred;
        assert_eq!(preferred.len(), 1, "a node that may not announce is not preferred either");
    }

    #[test]
    fn no_object_lists_more_than_its_share_of_nodes() {
        let nodes: Nodes = (0..300).map(|n| (format!("n{n:03}"), labels(&[("rack", "a")]))).collect();
        assert_eq!(announce(&[on_rack("a")], Some(&nodes)).unwrap().nodes.names.len(), LISTED);
    }
}
