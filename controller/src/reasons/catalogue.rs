//! What every reason in a condition of ours means and what to do about it: the words that [`crate::reasons`] puts on
//! objects, with those of the allocator core, as one page. docs/reasons.md is made from it by `cargo xtask reasons`.

use std::fmt::Write as _;

use herald_ipam::{Explanation, PoolReason, Reason};

const fn word(code: &'static str, meaning: &'static str, remedy: &'static str) -> Explanation {
    Explanation { code, meaning, remedy }
}

/// What needs no remedy.
const NOTHING: &str = "nothing";

/// `heraldlb.io/Allocated` on a Service, beside the allocator core's [`Reason`]s.
pub mod allocated {
    use super::{Explanation, NOTHING, word};

    /// It has what it asks for.
    pub const ALLOCATED: Explanation = word("Allocated", "the Service has what it asks for", NOTHING);
    /// It has an address, and asks for something else.
    pub const REQUEST_UNMET: Explanation = word(
        "RequestUnmet",
        "the Service keeps its address, and asks for something else that it can't have; the message says why, in the \
         words of one of the reasons below",
        "do what the message says, or take the request back",
    );
    /// It has none yet.
    pub const PENDING: Explanation =
        word("Pending", "an address is being recorded for the Service", "wait for a moment");
    /// Somebody else writes its ingress.
    pub const ANOTHER_CONTROLLER: Explanation = word(
        "AnotherController",
        "another program owns status.loadBalancer of this Service, so Herald leaves it alone",
        "stop that program, or give the Service its loadBalancerClass; then clear status.loadBalancer",
    );
    /// All of them.
    pub const ALL: [Explanation; 4] = [ALLOCATED, REQUEST_UNMET, PENDING, ANOTHER_CONTROLLER];
}

/// `heraldlb.io/Announced` on a Service.
pub mod announced {
    use super::{Explanation, NOTHING, word};

    /// Some node answers.
    pub const ANNOUNCED: Explanation =
        word("Announced", "a node answers for each address of the Service", NOTHING);
    /// None does.
    pub const NO_HOLDER: Explanation = word(
        "NoHolder",
        "nodes may answer for the address, and none does yet",
        "if it lasts, look at the speakers: is one running on a node whose interface has the address's subnet, and \
         which is not excluded from load balancers?",
    );
    /// None may.
    pub const NO_NODE_QUALIFIES: Explanation = word(
        "NoNodeQualifies",
        "no node may answer for the address: no L2Advertisement of its pool selects this Service and an existing \
         node, or, with externalTrafficPolicy: Local, none of those nodes has a ready endpoint",
        "look at the Service's pods and at kubectl get l2adv",
    );
    /// There is nothing to answer for.
    pub const NO_ADDRESS: Explanation =
        word("NoAddress", "the Service has no address to announce", "see heraldlb.io/Allocated");
    /// All of them.
    pub const ALL: [Explanation; 4] = [ANNOUNCED, NO_HOLDER, NO_NODE_QUALIFIES, NO_ADDRESS];
}

/// `Ready` on an IPAddressPool.
pub mod pool {
    use super::{Explanation, NOTHING, word};

    /// All is well.
    pub const IN_FORCE: Explanation = word("InForce", "the pool's spec is in force", NOTHING);
    /// Another pool has some of its addresses.
    pub const OVERLAP: Explanation = word(
        "Overlap",
        "the spec has addresses of another pool, which keeps them. The last valid spec of this pool that the running \
         controller has seen, if any, stays in force; a controller that starts anew has seen none, and puts of the two \
         the older pool in force (by creationTimestamp, then by name), even if that one was edited last. Services keep \
         their addresses either way",
        "remove the addresses from one of the two",
    );
    /// It means nothing.
    pub const INVALID_SPEC: Explanation = word(
        "InvalidSpec",
        "the spec can't be read; the last valid one that the running controller has seen, if any, stays in force: after \
         it has started anew the pool gives nothing. Services keep their addresses",
        "correct the entry that the message names",
    );
    /// A selector means nothing.
    pub const INVALID_SELECTOR: Explanation = word(
        "InvalidSelector",
        "a selector of the spec has an unknown operator; the last valid spec that the running controller has seen, if \
         any, stays in force",
        "use In, NotIn, Exists or DoesNotExist",
    );
    /// Every node is excluded.
    pub const ALL_NODES_EXCLUDED: Explanation = word(
        "AllNodesExcluded",
        "the spec is in force; every node that may announce its addresses bears the label \
         node.kubernetes.io/exclude-from-external-load-balancers, which is therefore ignored",
        "remove the label from the nodes that should announce",
    );
    /// It has addresses that nodes have.
    pub const NODE_ADDRESSES: Explanation = word(
        "NodeAddresses",
        "the spec is in force, and nothing else is to be said of it; it contains nodes' own addresses (InternalIP or \
         ExternalIP of a Node). Within a range or a network no Service gets them, and whoever had one before keeps it; \
         one that stands as an entry of its own is given, and the Service takes its ports from the node",
        "leave the addresses that the message names out of spec.addresses, or list them under spec.excluded",
    );
    /// Services keep addresses that are not in it any more.
    pub const ADDRESSES_OUTSIDE_POOL: Explanation = word(
        "AddressesOutsidePool",
        "the spec is in force; Services keep addresses that were taken from the pool and are not in it any more",
        "put the addresses back, or let the Services ask for others",
    );
    /// Nothing is left in it.
    pub const EXHAUSTED: Explanation = word(
        "Exhausted",
        "the spec is in force; every address of a family is in use or reserved, so that new Services wait",
        "add addresses, or delete Services that need none",
    );
    /// All of them.
    pub const ALL: [Explanation; 8] = [
        IN_FORCE,
        OVERLAP,
        INVALID_SPEC,
        INVALID_SELECTOR,
        ALL_NODES_EXCLUDED,
        NODE_ADDRESSES,
        ADDRESSES_OUTSIDE_POOL,
        EXHAUSTED,
    ];
}

/// `Ready` on an L2Advertisement.
pub mod advertisement {
    use super::{Explanation, NOTHING, word};

    /// All is well.
    pub const IN_FORCE: Explanation = word("InForce", "the advertisement is in force", NOTHING);
    /// It means nothing.
    pub const INVALID_SPEC: Explanation = word(
        "InvalidSpec",
        "the spec can't be read: it was stored under another version of the CRD; the last valid one, if any, stays in force",
        "correct what the message names",
    );
    /// A selector means nothing.
    pub const INVALID_SELECTOR: Explanation = word(
        "InvalidSelector",
        "a selector has an unknown operator; the last valid spec, if any, stays in force",
        "use In, NotIn, Exists or DoesNotExist",
    );
    /// It names pools that don't exist.
    pub const UNKNOWN_POOL: Explanation = word(
        "UnknownPool",
        "ipAddressPools names pools that do not exist; the others are announced",
        "correct the names or create the pools",
    );
    /// It selects none.
    pub const NO_POOL_SELECTED: Explanation =
        word("NoPoolSelected", "ipAddressPoolSelectors match no pool", "correct them or label a pool");
    /// It selects no node.
    pub const NO_NODE_SELECTED: Explanation = word(
        "NoNodeSelected",
        "nodeSelectors match no node, so nobody announces",
        "correct them or label a node",
    );
    /// It selects too many.
    pub const TOO_MANY_NODES: Explanation = word(
        "TooManyNodes",
        "nodeSelectors match more nodes than one LoadBalancerIP can list; those listed already are used first, then \
         by name",
        "select fewer, or all by leaving nodeSelectors out",
    );
    /// All of them.
    pub const ALL: [Explanation; 7] = [
        IN_FORCE,
        INVALID_SPEC,
        INVALID_SELECTOR,
        UNKNOWN_POOL,
        NO_POOL_SELECTED,
        NO_NODE_SELECTED,
        TOO_MANY_NODES,
    ];
}

/// `Problem` on a LoadBalancerIP.
pub mod address {
    use super::{Explanation, word};

    /// Somebody else wrote what is the controller's.
    pub const EDITED: Explanation = word(
        "Edited",
        "somebody else changed fields that only the controller writes; no Service loses or changes its address by it; \
         gone ten minutes after the last such change",
        "leave the fields to the controller: what a Service is to have is said on the Service, a reservation in \
         spec.claimRef",
    );
    /// A reservation that serves nobody.
    pub const OUTSIDE_POOLS: Explanation = word(
        "OutsidePools",
        "the address is reserved, and no pool in force has it to give",
        "add the address to a pool, or delete the LoadBalancerIP",
    );
    /// An object that is of no use to anybody.
    pub const UNUSED: Explanation = word(
        "Unused",
        "no Service has the address and it is reserved for none, so that nobody can get it",
        "delete the LoadBalancerIP, or set its spec.claimRef",
    );
    /// All of them.
    pub const ALL: [Explanation; 3] = [EDITED, OUTSIDE_POOLS, UNUSED];
}

/// The page.
pub fn page() -> String {
    let mut page = String::from(
        "<!-- Made by `cargo xtask reasons` from controller/src/reasons/catalogue.rs and controller/ipam/src/reason.rs; edit \
         those. -->\n\n# Reasons\n\nHerald says in conditions what it did and why. `reason` is one of the words \
         below; `message` names the objects concerned and what to do.\n\n    kubectl get service web -o yaml\n    kubectl \
         wait --for=condition=heraldlb.io/Allocated service/web\n",
    );
    let complaint = |wanted: bool| {
        let of = Reason::ALL.into_iter().filter(move |reason| reason.is_complaint() == wanted);
        of.map(Reason::explanation)
    };
    section(
        &mut page,
        "A Service: heraldlb.io/Allocated",
        "True while the Service has an address; the address stays whatever the reason.",
        allocated::ALL.into_iter(),
    );
    section(
        &mut page,
        "A Service without what it asks for",
        "Allocated is False, or True with `RequestUnmet` where the Service keeps what it has.",
        complaint(false),
    );
    section(
        &mut page,
        "A Service that keeps what it would not get today",
        "Allocated is True: nobody loses an address because a pool or another Service changed.",
        complaint(true),
    );
    section(
        &mut page,
        "Why a pool says no",
        "The message of `NoAddressAvailable` lists the pools that were looked at; each says one of these, in words.",
        PoolReason::ALL.into_iter().map(PoolReason::explanation),
    );
    section(
        &mut page,
        "A Service: heraldlb.io/Announced",
        "True while nodes answer for all its addresses; `kubectl get lbip` shows which.",
        announced::ALL.into_iter(),
    );
    section(
        &mut page,
        "An IPAddressPool: Ready",
        "True while its latest spec is in force.",
        pool::ALL.into_iter(),
    );
    section(
        &mut page,
        "An L2Advertisement: Ready",
        "True while it does what it says.",
        advertisement::ALL.into_iter(),
    );
    section(
        &mut page,
        "A LoadBalancerIP: Problem",
        "There only while something is wrong that no Service can show. (`Conflict`, on the same objects, is the speakers': \
         another host answers for the address.)",
        address::ALL.into_iter(),
    );
    page
}

fn section(page: &mut String, title: &str, intro: &str, rows: impl Iterator<Item = Explanation>) {
    // Writing to a String cannot fail.
    let _ = write!(page, "\n## {title}\n\n{intro}\n\n| reason | meaning | what to do |\n|---|---|---|\n");
    for Explanation { code, meaning, remedy } in rows {
        let _ = writeln!(page, "| `{code}` | {meaning} | {remedy} |");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_word_has_two_meanings_on_one_condition() {
        let reasons = Reason::ALL.into_iter().map(Reason::explanation);
        for words in [
            allocated::ALL.into_iter().chain(reasons).collect::<Vec<_>>(),
            announced::ALL.to_vec(),
            pool::ALL.to_vec(),
            advertisement::ALL.to_vec(),
            address::ALL.to_vec(),
        ] {
            let codes: BTreeSet<_> = words.iter().map(|word| word.code).collect();
            assert_eq!(codes.len(), words.len(), "{words:?}");
        }
    }

    #[test]
    fn the_page_has_a_row_for_every_reason() {
        let page = page();
        for reason in Reason::ALL {
            assert!(page.contains(&format!("| `{}` |", reason.code())), "{reason:?}");
        }
    }
}
