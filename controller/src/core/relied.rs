//! A Service comes to show an address only while its LoadBalancerIP lists it, whoever else writes (rule B28).
//!
//! Two leaders may meet: one that stood still does not know that it leads no longer, and a request may arrive long after
//! it was sent. Each write is conditional on its own object, and that is the Service here, not the LoadBalancerIP. Versions
//! of both are numbers of one clock, and so they tell what came first:
//! - who makes a Service show an address knows a state of its LoadBalancerIP that lists it and is *newer* than the version
//!   of the Service that the write is conditional on (here);
//! - who takes the Service off the LoadBalancerIP reads that first, then the Service, sees to it that the Service is *newer*,
//!   and then writes the LoadBalancerIP as it was read (`writer::address`).
//!
//! Whichever of the two comes second fails. Mostly both hold by themselves: a new LoadBalancerIP is newer than the Service
//! that it was made for, and a Service that was just made to show something else is newer than what it showed before.

use std::net::IpAddr;

use herald_ipam::Version;

use super::Core;
use crate::{
    desired,
    job::{Job, ServiceStatus},
    objects::service::Service,
};

/// Whether a Service may be made to show what its status is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MayShow {
    Yes,
    /// Its LoadBalancerIP is being written once more.
    Later,
    /// A LoadBalancerIP does not list it any more.
    No,
}

/// A LoadBalancerIP that a Service which changed since relies on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Relied {
    /// The version of the Service that it must exceed.
    wanted: Option<Version>,
    /// The version of the Service for which it was written once more. Where Services and LoadBalancerIPs are stored in
    /// two clusters of etcd, versions tell nothing, and once must do.
    written: Option<Version>,
}

impl Core {
    pub(super) fn may_come_to_show(&mut self, service: &Service, status: &ServiceStatus) -> MayShow {
        let shown = &service.shown;
        let new = status.ingress.into_iter().flat_map(|addresses| addresses.iter().collect::<Vec<_>>());
        let mut may = MayShow::Yes;
        for address in new.filter(|address| !shown.contains(address)) {
            let known = self.index.addresses.get(&address);
            let Some(known) = known.filter(|known| known.users().contains(&service.owner)) else {
                return MayShow::No;
            };
            if known.version > service.version {
                continue;
            }
            let relied = &mut self.addresses.entry(address).or_default().relied;
            if relied.written != Some(service.version) {
                relied.wanted = Some(service.version);
                self.dirty_addresses.insert(address);
                may = MayShow::Later;
            }
        }
        may
    }

    /// Writes an address once more that somebody relies on.
    pub(super) fn renew_job(&self, address: IpAddr) -> Option<Job> {
        let wanted = self.addresses.get(&address)?.relied.wanted?;
        let known = self.index.addresses.get(&address).filter(|known| known.version <= wanted)?;
        let object = desired::renewed(known.object(), self.next_revision(address));
        Some(Job::Update { address, object: Box::new(object) })
    }
}

impl Relied {
    /// It was written once more, or (not `ours`) is as somebody else wrote it. What another wrote helps only where it is
    /// newer than the Service: else who takes the Service off may have read that very state, and the Service after it.
    pub(super) fn seen(&mut self, version: Version, ours: bool) {
        if let Some(wanted) = self.wanted.take_if(|wanted| ours || version > *wanted) {
            self.written = Some(wanted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_wrote_counts_only_where_it_is_newer_than_the_service() {
        let wanted = || Relied { wanted: Some(Version(176)), written: None };
        let seen = |version, ours| {
            let mut relied = wanted();
            relied.seen(Version(version), ours);
            (relied.wanted, relied.written)
        };
        let (open, done) = ((Some(Version(176)), None), (None, Some(Version(176))));
        assert_eq!(seen(175, false), open, "it is written again");
        assert_eq!(seen(177, false), done);
        assert_eq!(seen(3, true), done, "versions of two clusters of etcd tell nothing");
    }
}
