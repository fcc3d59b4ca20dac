//! The Services that each address is for, as its `LoadBalancerIP` names them: a label of metrics, and nothing that is
//! announced depends on it. So the speaker needs no right to read Services.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use herald_runtime::watch::Change;

use crate::lbip::{Lbip, Nameless};

/// Written by the observer, read by each scrape. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Users(Arc<Mutex<BTreeMap<IpAddr, Box<str>>>>);

impl Users {
    /// Takes what the watch told.
    pub fn take(&self, change: &Change<Result<Lbip, Nameless>>) {
        let mut known = self.known();
        match change {
            Change::Replaced(list) => {
                *known = list.iter().flatten().map(|lbip| (lbip.vip, lbip.services.clone())).collect();
            }
            Change::Applied(Ok(lbip)) => {
                known.insert(lbip.vip, lbip.services.clone());
            }
            Change::Deleted(Ok(lbip)) => {
                known.remove(&lbip.vip);
            }
            Change::Applied(Err(_)) | Change::Deleted(Err(_)) => {}
        }
    }

    /// The address's Services, each as `namespace/name`; one without a name where there is none (a reservation).
    pub fn of(&self, vip: IpAddr) -> Vec<String> {
        let known = self.known();
        let services = known.get(&vip).map_or("", AsRef::as_ref);
        services.split(Lbip::BETWEEN).map(str::to_owned).collect()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<IpAddr, Box<str>>> {
        // Whoever panicked had nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lbip(services: &str) -> Lbip {
        let vip = "192.0.2.1".parse().unwrap();
        Lbip { vip, spec: Err(String::new()), own_entry: None, services: services.into() }
    }

    #[test]
    fn the_services_of_an_address_are_those_it_was_told_last() {
        let users = Users::default();
        let of = || users.of("192.0.2.1".parse().unwrap());
        assert_eq!(of(), [""]);
        users.take(&Change::Replaced(vec![Ok(lbip("shop/web"))]));
        assert_eq!(of(), ["shop/web"]);
        users.take(&Change::Applied(Ok(lbip("shop/web,shop/dns"))));
        assert_eq!(of(), ["shop/web", "shop/dns"]);
        users.take(&Change::Deleted(Ok(lbip(""))));
        assert_eq!(of(), [""]);
        users.take(&Change::Applied(Ok(lbip("shop/web"))));
        users.take(&Change::Replaced(vec![]));
        assert_eq!(of(), [""]);
    }
}
