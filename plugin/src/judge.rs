//! What Herald's controller would do with every Service: the allocator itself, run to rest on a copy of the world.
//!
//! Every write that the allocator asks for is answered as the API server would if nobody interfered, so that what it
//! says last is where the cluster would come to rest. Nothing here decides anything about addresses.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use herald_controller::objects::{address::Address, node::Labelled, pool::Pool, service::Service};
use herald_ipam::{
    Addresses, Allocator, Ingress, Input, List, Output, PoolName, PoolProblem, PublishResult, Refusal,
    Release, ReleaseResult, ReleaseWhen, ServiceRef, TakeResult, Version,
};

/// What the controller would find.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Herald's pools.
    pub pools: Vec<Pool>,
    /// Namespaces: pools select them by label.
    pub namespaces: Vec<Labelled>,
    /// The addresses that nodes have themselves.
    pub node_addresses: BTreeSet<IpAddr>,
    /// Services of any type and class.
    pub services: Vec<Service>,
    /// Whether `services` are all there are, so that whoever is missing is gone.
    pub all_services: bool,
    /// LoadBalancerIPs.
    pub addresses: Vec<Address>,
    /// The `loadBalancerClass` that the controller serves.
    pub class: Option<String>,
}

/// What the controller would say of everything.
#[derive(Clone, Debug, Default)]
pub struct Judgement {
    /// Of every Service that is its to serve.
    pub services: BTreeMap<ServiceRef, Outcome>,
    /// What is wrong with pools.
    pub problems: BTreeMap<PoolName, String>,
}

/// What would become of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What its status would show; `None`: it would be left as it is.
    pub shows: Option<Addresses>,
    /// The pool that its addresses come from.
    pub pool: Option<PoolName>,
    /// What it asks for and would not get.
    pub refusal: Option<Refusal>,
}

impl World {
    /// Whether the controller serves this Service.
    pub fn serves(&self, service: &Service) -> bool {
        service.is_load_balancer && service.class == self.class
    }

    /// Runs the allocator to rest.
    pub fn judge(&self) -> Judgement {
        let mut allocator = Allocator::new();
        let mut judgement = Judgement::default();
        for pool in &self.pools {
            match pool.meaning_among(self.node_addresses.iter().copied()) {
                Ok(spec) => allocator.handle(Input::PoolApplied(spec)),
                Err(error) => {
                    judgement.problems.insert(pool.name.clone(), error.to_string());
                }
            }
        }
        for Labelled { name, labels } in &self.namespaces {
            allocator.handle(Input::NamespaceApplied { name: name.clone(), labels: labels.clone() });
        }
        for address in &self.addresses {
            allocator.handle(Input::AddressApplied(address.record()));
        }
        for service in self.services.iter().filter(|service| self.serves(service)) {
            allocator.handle(Input::ServiceApplied(service.request()));
        }
        for list in [List::Pools, List::Namespaces, List::Services, List::Addresses] {
            allocator.handle(Input::Synced(list));
        }
        let mut clock = self.newest();
        while let Some(output) = allocator.poll_output() {
            clock += 1;
            judgement.answer(self, &mut allocator, output, Version(clock));
        }
        judgement
    }

    /// What a live GET of the Service would show (rule B8).
    fn may_release(&self, release: &Release) -> bool {
        let owner = self.services.iter().find(|service| service.owner == release.owner);
        match (release.when, owner) {
            (ReleaseWhen::NotShown, _) => true,
            (ReleaseWhen::ServiceGone, Some(service)) => !service.is_load_balancer,
            (ReleaseWhen::ServiceGone, None) => self.all_services,
        }
    }

    fn newest(&self) -> u64 {
        let services = self.services.iter().map(|service| service.version.0);
        services.chain(self.addresses.iter().map(|address| address.version.0)).max().unwrap_or_default()
    }
}

impl Judgement {
    fn answer(&mut self, world: &World, allocator: &mut Allocator, output: Output, version: Version) {
        match output {
            Output::Take(take) => allocator.handle(Input::TakeDone {
                address: take.address,
                owner: take.owner,
                result: TakeResult::Taken(version),
            }),
            Output::Publish(publication) => {
                let shows = match publication.ingress {
                    Ingress::Show(addresses) => Some(addresses),
                    Ingress::Leave => None,
                };
                let outcome = Outcome {
                    shows,
                    pool: publication.pool,
                    refusal: publication.refusal.map(|refusal| *refusal),
                };
                self.services.insert(publication.owner.service.clone(), outcome);
                let result = PublishResult::Published(version);
                allocator.handle(Input::PublishDone { owner: publication.owner, result });
            }
            Output::Release(release) => {
                let released = world.may_release(&release);
                let result =
                    if released { ReleaseResult::Released(version) } else { ReleaseResult::StillInUse };
                allocator.handle(Input::ReleaseDone { address: release.address, result });
            }
            Output::Pool { pool, status } => {
                match status.and_then(|status| status.problem) {
                    Some(problem) => self.problems.insert(pool, PoolProblem::to_string(&problem)),
                    None => self.problems.remove(&pool),
                };
            }
        }
    }
}
