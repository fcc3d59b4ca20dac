//! EndpointSlices: where a Service with `externalTrafficPolicy: Local` can be announced from.
//!
//! They are watched only once there is such a Service, and never gate anything but `announce` (rule B11).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use herald_ipam::{Owner, ServiceRef};
use herald_runtime::watch::Change;

use super::Core;
use crate::objects::{endpoints::Endpoints, service::Service};

/// The nodes of each slice of each Service.
pub(crate) type AllEndpoints = BTreeMap<ServiceRef, BTreeMap<String, BTreeSet<String>>>;

/// EndpointSlices decide, and have not been listed yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndpointsUnknown;

impl Core {
    /// Whether EndpointSlices are to be watched: from the first Service on that needs them.
    pub fn needs_endpoints(&self) -> bool {
        self.needs_endpoints
    }

    pub(super) fn note_policy(&mut self, service: &Service) {
        self.needs_endpoints |= service.is_local();
    }

    pub(super) fn endpoints_changed(&mut self, change: Change<Endpoints>) {
        let all = self.index.endpoints.get_or_insert_default();
        match change {
            Change::Replaced(list) => {
                all.clear();
                for Endpoints { service, slice, version, nodes } in list {
                    all.entry(service).or_default().insert(slice, nodes);
                    self.index.newest = self.index.newest.max(version);
                }
                self.announce_changed();
            }
            Change::Applied(Endpoints { service, slice, version, nodes }) => {
                let before = all.entry(service.clone()).or_default().insert(slice, nodes.clone());
                self.index.saw(version);
                if before.as_ref() != Some(&nodes) {
                    self.announce_of_service_changed(&service);
                }
            }
            Change::Deleted(Endpoints { service, slice, version, .. }) => {
                if let Some(slices) = all.get_mut(&service) {
                    slices.remove(&slice);
                    if slices.is_empty() {
                        all.remove(&service);
                    }
                }
                self.index.saw(version);
                self.announce_of_service_changed(&service);
            }
        }
    }

    fn announce_of_service_changed(&mut self, name: &ServiceRef) {
        let limited: Vec<IpAddr> =
            self.addresses_of(name).into_iter().filter(|ip| self.has_local_user(*ip)).collect();
        self.dirty_addresses.extend(limited);
    }

    fn has_local_user(&self, address: IpAddr) -> bool {
        let is_local =
            |user: &Owner| self.index.services.get(&user.service).is_some_and(|service| service.is_local());
        self.users(address).iter().any(is_local)
    }

    /// Where the Services that use one address have endpoints, if that limits where it can be announced. Where one of
    /// them asks for it, all of them select the same pods (or could not share): what is known of any of them counts, so
    /// that a Service that joins before it has EndpointSlices silences nobody.
    pub(super) fn endpoint_nodes(
        &self,
        services: &[&Service],
    ) -> Result<Option<BTreeSet<String>>, EndpointsUnknown> {
        if !services.iter().any(|service| service.is_local()) {
            return Ok(None);
        }
        let all = self.index.endpoints.as_ref().ok_or(EndpointsUnknown)?;
        let slices = services.iter().filter_map(|service| all.get(&service.owner.service));
        Ok(Some(slices.flat_map(BTreeMap::values).flatten().cloned().collect()))
    }
}
