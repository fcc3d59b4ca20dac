//! The chain itself: from facts to links, link by link.

use herald_controller::objects::{address::Address, pool::Pool};
use herald_crds::{
    NodeMode,
    names::{CONDITION_ALLOCATED, CONDITION_ANNOUNCED},
};
use herald_ipam::{Families, FamilyPolicy, PoolName, Wanted};
use k8s_openapi::jiff::Timestamp;

use super::{Explanation, Facts, Leader, Link, Node, Seen, State};
use crate::judge::World;

/// More names make a line unreadable.
const LISTED: usize = 8;

/// Explains what was seen.
pub fn explanation(facts: &Facts) -> Explanation {
    let service = &facts.service;
    let mut told = Explanation {
        service: service.owner.service.to_string(),
        addresses: service.shown.clone(),
        ..Explanation::default()
    };
    if !told.served(facts) {
        return told;
    }
    told.request(facts);
    let leads = told.controller(facts);
    let mine = told.address(facts);
    told.pool(facts, &mine);
    told.announcement(facts, &mine);
    told.holder(&mine, facts.now);
    told.conditions(facts, leads);
    told
}

impl Explanation {
    fn add(&mut self, step: &'static str, state: State, what: impl Into<String>) {
        self.chain.push(Link { step, state, what: what.into() });
    }

    /// A list that must be there for a link; what is missing is noted.
    fn seen<'a, T>(&mut self, step: &'static str, seen: &'a Seen<T>) -> Option<&'a T> {
        match seen {
            Ok(value) => Some(value),
            Err(unseen) => {
                self.add(step, State::Unknown, unseen.to_string());
                None
            }
        }
    }

    /// Whether Herald has anything to do with it.
    fn served(&mut self, facts: &Facts) -> bool {
        let service = &facts.service;
        let name = &service.owner.service;
        if !service.is_load_balancer {
            self.add("Service", State::Broken, format!("{name} is not of type LoadBalancer"));
            self.advice.push("set spec.type: LoadBalancer if it shall have an address".to_owned());
            return false;
        }
        let class =
            service.class.as_deref().map_or("no class".to_owned(), |class| format!("class '{class}'"));
        if service.class != facts.class && !service.bears_our_marks() {
            let ours = facts.class.as_deref().map_or("none".to_owned(), |class| format!("'{class}'"));
            self.add(
                "Service",
                State::Broken,
                format!("{name} has {class}, Herald's controller is taken to serve {ours}: it leaves the Service alone"),
            );
            self.advice.push(
                "if Herald shall serve it, start its controller with that --load-balancer-class (and say so here), or \
                 make the Service again with Herald's spec.loadBalancerClass: it can't be changed"
                    .to_owned(),
            );
            return false;
        }
        let policy = if service.is_local() { "Local" } else { "Cluster" };
        let what = format!("{name}, {class}, {}, externalTrafficPolicy {policy}", families(service.families));
        self.add("Service", State::Ok, what);
        true
    }

    fn request(&mut self, facts: &Facts) {
        match &facts.service.wanted {
            Ok(wanted) => self.add("Request", State::Ok, asks(wanted)),
            Err(error) => {
                self.add("Request", State::Broken, error.to_string());
                self.advice.push(format!("correct the request: {error}"));
            }
        }
    }

    /// Whether some controller leads, as far as one can see.
    fn controller(&mut self, facts: &Facts) -> Option<bool> {
        let leader = self.seen("Controller", &facts.leader)?;
        let namespace = &facts.herald_namespace;
        let (leads, what) = match leader {
            None => {
                (false, format!("no Lease herald-controller in namespace {namespace}: none has led there"))
            }
            Some(Leader { holder: None, .. }) => {
                (false, "none leads: the last one gave its Lease back".to_owned())
            }
            Some(Leader { holder: Some(holder), renews: true, .. }) => (
                true,
                format!(
                    "{holder}, its Lease renewed just now; this machine's clock or the controller's is wrong"
                ),
            ),
            Some(leader @ Leader { holder: Some(holder), renewed, .. }) => {
                let age = renewed.map(|renewed| facts.now.duration_since(renewed).as_secs());
                let age = age.map_or("never".to_owned(), |age| format!("{age} s ago"));
                (leader.is_fresh(facts.now), format!("{holder}, its Lease renewed {age}"))
            }
        };
        self.add("Controller", if leads { State::Ok } else { State::Broken }, what);
        if !leads {
            self.advice.push(format!(
                "Herald's controller does not run: kubectl -n {namespace} get pods (--herald-namespace if it lives \
                 elsewhere)"
            ));
        }
        Some(leads)
    }

    /// The LoadBalancerIPs that list the Service.
    fn address<'a>(&mut self, facts: &'a Facts) -> Vec<&'a Address> {
        let Some(addresses) = self.seen("Address", &facts.addresses) else { return Vec::new() };
        let uid = facts.service.owner.uid.as_str();
        let lists = |address: &&Address| address.users().iter().any(|user| user.uid.as_str() == uid);
        let mine: Vec<&Address> = addresses.iter().filter(lists).collect();
        for address in &mine {
            let shown = facts.service.shows(address.address);
            let state = if shown { State::Ok } else { State::Broken };
            self.add("Address", state, owned(address, uid, shown));
        }
        for shown in facts.service.shown.iter().copied() {
            if mine.iter().any(|address| address.address == shown) {
                continue;
            }
            let theirs = addresses.iter().find(|address| address.address == shown);
            let what = match theirs.map(users) {
                Some(others) => format!("the status shows {shown}, which is not its own but of {others}"),
                None => format!("the status shows {shown}, which Herald has not given"),
            };
            self.add("Address", State::Broken, what);
        }
        if mine.is_empty() && facts.service.shown.is_empty() {
            self.add("Address", State::Broken, "none");
        }
        mine
    }

    fn pool(&mut self, facts: &Facts, mine: &[&Address]) {
        let Some(pools) = self.seen("Pool", &facts.pools) else { return };
        let mut names: Vec<&str> =
            mine.iter().filter_map(|address| address.pool()).map(PoolName::as_str).collect();
        names.dedup();
        for name in &names {
            match pools.iter().find(|pool| pool.name.as_str() == *name) {
                Some(pool) => {
                    let (state, what) = health(pool);
                    self.add("Pool", state, what);
                }
                None => self.add(
                    "Pool",
                    State::Broken,
                    format!("{name} does not exist any more; the address stays"),
                ),
            }
        }
        if !names.is_empty() {
            return;
        }
        if pools.is_empty() {
            self.add("Pool", State::Broken, "there is no IPAddressPool");
            self.advice.push("create an IPAddressPool with addresses of your network".to_owned());
        }
        for pool in pools.iter().take(LISTED) {
            let (state, what) = health(pool);
            self.add("Pool", state, what);
        }
    }

    fn announcement(&mut self, facts: &Facts, mine: &[&Address]) {
        if mine.is_empty() {
            return;
        }
        if let (Some(advertisements), Ok(pools)) =
            (self.seen("Advertisement", &facts.advertisements), &facts.pools)
        {
            for address in mine {
                let Some(name) = address.pool().map(PoolName::as_str) else { continue };
                let labels = pools.iter().find(|pool| pool.name.as_str() == name);
                let labels = labels.map(|pool| pool.labels.clone()).unwrap_or_default();
                let of_pool: Vec<_> = advertisements
                    .iter()
                    .filter_map(|it| Some((it.name.as_str(), it.meaning.as_ref().ok()?)))
                    .filter(|(_, meaning)| meaning.selects_pool(name, &labels))
                    .collect();
                let chosen: Vec<&str> = of_pool
                    .iter()
                    .filter(|(_, meaning)| meaning.selects_service(&facts.service.labels))
                    .map(|(name, _)| *name)
                    .collect();
                match (of_pool.is_empty(), chosen.is_empty()) {
                    (true, _) => self.add(
                        "Advertisement",
                        State::Ok,
                        format!("no L2Advertisement selects pool {name}: announced from every node"),
                    ),
                    (false, true) => self.add(
                        "Advertisement",
                        State::Broken,
                        format!("the L2Advertisements of pool {name} are for Services with other labels"),
                    ),
                    (false, false) => self.add("Advertisement", State::Ok, some(&chosen)),
                }
            }
        }
        let Some(nodes) = self.seen("Nodes", &facts.nodes) else { return };
        for address in mine {
            let (state, what) = eligible(address, nodes, facts.service.is_local());
            self.add("Nodes", state, what);
        }
    }

    fn holder(&mut self, mine: &[&Address], now: Timestamp) {
        for address in mine {
            let holders = address.holders();
            if holders.is_empty() {
                self.add("Holder", State::Broken, format!("no node answers for {}", address.address));
            }
            for holder in holders {
                let ago = age(now, holder.since.0);
                let (node, interface, mac) = (&holder.node, &holder.interface, &holder.mac);
                let what =
                    format!("{node} answers for {} on {interface} with {mac}, since {ago}", address.address);
                self.add("Holder", State::Ok, what);
            }
        }
    }

    /// What the controller says on the Service; where it has said nothing, what it would say.
    fn conditions(&mut self, facts: &Facts, leads: Option<bool>) {
        let mut said = false;
        for kind in [CONDITION_ALLOCATED, CONDITION_ANNOUNCED] {
            let Some(condition) = facts.service.conditions.iter().find(|condition| condition.type_ == kind)
            else {
                continue;
            };
            said = true;
            // It has an address, but not the one that it asks for.
            let unmet = condition.reason == "RequestUnmet";
            let state = if condition.status == "True" && !unmet { State::Ok } else { State::Broken };
            let name = kind.trim_start_matches("heraldlb.io/");
            self.add("Condition", state, format!("{name}={}: {}", condition.status, condition.message));
            if state == State::Broken && condition.reason != "NoAddress" {
                self.advice.push(format!("{}: {}", condition.reason, condition.message));
            }
        }
        if said {
            return;
        }
        let hint = if leads == Some(false) { "none, as no controller runs" } else { "none yet" };
        self.add("Condition", State::Broken, hint);
        let (Ok(pools), Ok(addresses), Ok(namespaces)) = (&facts.pools, &facts.addresses, &facts.namespaces)
        else {
            return;
        };
        let world = World {
            pools: pools.clone(),
            namespaces: namespaces.clone(),
            node_addresses: facts.nodes.iter().flatten().flat_map(|node| &node.addresses).copied().collect(),
            services: vec![facts.service.clone()],
            all_services: false,
            addresses: addresses.clone(),
            class: facts.service.class.clone(),
        };
        let judgement = world.judge();
        if let Some(outcome) = judgement.services.get(&facts.service.owner.service) {
            self.advice.push(match (&outcome.refusal, outcome.shows.filter(|shows| !shows.is_empty())) {
                (Some(refusal), _) => format!("a controller would say: {refusal}"),
                (None, Some(addresses)) => format!("a controller would give it {addresses}"),
                (None, None) => "a controller would leave it as it is".to_owned(),
            });
        }
    }
}

fn asks(wanted: &Wanted) -> String {
    let mut asks = Vec::new();
    if !wanted.addresses.is_empty() {
        asks.push(wanted.addresses.to_string());
    }
    if let Some(pool) = &wanted.pool {
        asks.push(format!("of pool '{pool}'"));
    }
    if asks.is_empty() {
        asks.push("any address".to_owned());
    }
    if wanted.sharing.is_some() {
        asks.push("to be shared by key".to_owned());
    }
    asks.join(", ")
}

fn families(families: Families) -> String {
    let policy = match families.policy {
        FamilyPolicy::SingleStack => "SingleStack",
        FamilyPolicy::PreferDualStack => "PreferDualStack",
        FamilyPolicy::RequireDualStack => "RequireDualStack",
    };
    let wanted: Vec<String> = families.wanted().map(|family| family.to_string()).collect();
    format!("{} ({policy})", wanted.join(" and "))
}

fn owned(address: &Address, uid: &str, shown: bool) -> String {
    let others: Vec<String> = address
        .users()
        .iter()
        .filter(|user| user.uid.as_str() != uid)
        .map(|user| user.service.to_string())
        .collect();
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    let shared = if others.is_empty() { String::new() } else { format!(", shared with {}", some(&others)) };
    let shown = if shown { "" } else { ", but the status does not show it" };
    format!("{}{shared}{shown}", address.address)
}

fn users(address: &Address) -> String {
    let users: Vec<String> = address.users().iter().map(|user| user.service.to_string()).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    if users.is_empty() { "nobody (reserved)".to_owned() } else { some(&users) }
}

fn health(pool: &Pool) -> (State, String) {
    let name = &pool.name;
    let Some(status) = &pool.status else {
        return (State::Unknown, format!("{name}: the controller has not looked at it yet"));
    };
    let counts = [
        ("IPv4", status.assigned_ipv4, status.available_ipv4),
        ("IPv6", status.assigned_ipv6, status.available_ipv6),
    ];
    let counts: Vec<String> = counts
        .into_iter()
        .filter(|(_, used, free)| used + free > 0)
        .map(|(family, used, free)| format!("{used} {family} in use, {free} free"))
        .collect();
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
    let (state, words) = match ready {
        Some(ready) if ready.status == "True" && ready.reason == "InForce" => (State::Ok, String::new()),
        Some(ready) if ready.status == "True" => (State::Ok, format!("; {}", ready.message)),
        Some(ready) => (State::Broken, format!("; {}: {}", ready.reason, ready.message)),
        None => (State::Unknown, "; no condition yet".to_owned()),
    };
    (state, format!("{name}: {}{words}", counts.join("; ")))
}

fn eligible(address: &Address, nodes: &[Node], local: bool) -> (State, String) {
    let Some(l2) = address.l2() else {
        return (State::Broken, format!("{} may be announced nowhere (yet)", address.address));
    };
    let listed = |node: &&Node| l2.nodes.mode == NodeMode::All || l2.nodes.names.contains(&node.name);
    let bars = |node: &Node| {
        let bars = [
            (node.excluded && !l2.ignore_node_exclusion, "excluded by label"),
            (node.out_of_service, "out of service"),
            (node.no_network, "NetworkUnavailable"),
        ];
        bars.into_iter().filter(|(holds, _)| *holds).map(|(_, why)| why).collect::<Vec<_>>().join(", ")
    };
    let (mut may, mut barred) = (Vec::new(), Vec::new());
    for node in nodes.iter().filter(listed) {
        let why = bars(node);
        if why.is_empty() {
            // Readiness decides nothing: speakers judge each other on the LAN itself.
            let remark = match (node.cordoned, node.ready) {
                (true, _) => " (cordoned: last)",
                (false, false) => " (not Ready)",
                (false, true) => "",
            };
            may.push(format!("{}{remark}", node.name));
        } else {
            barred.push(format!("{} ({why})", node.name));
        }
    }
    let text = |list: &[String]| some(&list.iter().map(String::as_str).collect::<Vec<_>>());
    let because = if local { " with endpoints (externalTrafficPolicy Local)" } else { "" };
    let barred = if barred.is_empty() { String::new() } else { format!("; not {}", text(&barred)) };
    if may.is_empty() {
        return (State::Broken, format!("no node{because} may announce {}{barred}", address.address));
    }
    (State::Ok, format!("{} may announce {}{barred}", text(&may), address.address))
}

fn some(names: &[&str]) -> String {
    let more = names.len().saturating_sub(LISTED);
    let listed = names.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
    if more == 0 { listed } else { format!("{listed} and {more} more") }
}

fn age(now: Timestamp, then: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    let ago = match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    };
    format!("{then:.0} ({ago})")
}
