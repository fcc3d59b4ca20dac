//! The command that helps with a refusal, complete: names filled in, to be pasted into a shell.
//!
//! Only where one command is the likely answer. What has several good answers (a full pool, a restricted one) has them
//! in words, in the refusal itself.

use std::net::IpAddr;

use herald_crds::names::{ADDRESS_POOL, ALLOW_SHARED_IP, ANNOTATION_PREFIXES};
use herald_ipam::{AddressNo, Owner, PoolNo, Refusal, RequestError, ServiceRef};

/// The command for `service`, to which `refusal` was said.
pub(super) fn command(refusal: &Refusal, service: &ServiceRef) -> Option<String> {
    match refusal {
        Refusal::NoPools => Some(pool_command("192.168.1.240-192.168.1.250")),
        Refusal::Address { address, no } => address_command(*address, no, service),
        Refusal::Invalid(RequestError::FamilyNotOfService { family, .. }) => Some(format!(
            "kubectl patch service {} --namespace {} --type=merge -p \
             '{{\"spec\":{{\"ipFamilyPolicy\":\"PreferDualStack\"}}}}' (on a cluster with {family} Services)",
            service.name, service.namespace
        )),
        Refusal::NoPoolGives { pools, .. } => match pools.as_slice() {
            [(pool, PoolNo::NotAutomatic)] => Some(annotate(service, ADDRESS_POOL, pool.as_str())),
            _ => None,
        },
        _ => None,
    }
}

/// Empties `status.loadBalancer`, whoever wrote it.
pub(super) fn clear_command(service: &ServiceRef) -> String {
    format!(
        "kubectl patch service {} --namespace {} --subresource=status --type=merge -p \
         '{{\"status\":{{\"loadBalancer\":null}}}}'",
        service.name, service.namespace
    )
}

fn address_command(address: IpAddr, no: &AddressNo, service: &ServiceRef) -> Option<String> {
    match no {
        AddressNo::InNoPool { pools } if pools.is_empty() => Some(pool_command(&only(address))),
        AddressNo::InOtherPool { lies_in: Some(pool), .. } => {
            Some(annotate(service, ADDRESS_POOL, pool.as_str()))
        }
        AddressNo::InUse(owners) => share_command(owners, service),
        // What is reserved for somebody is so on purpose.
        AddressNo::HeldByNobody => {
            Some(format!("kubectl delete loadbalancerip {}", herald_crds::name_of_address(address)))
        }
        _ => None,
    }
}

/// One key on all of them; those of another namespace could not join.
fn share_command(owners: &[Owner], service: &ServiceRef) -> Option<String> {
    let [Owner { service: other, .. }] = owners else { return None };
    let [ours, ..] = ANNOTATION_PREFIXES;
    (other.namespace == service.namespace).then(|| {
        format!(
            "kubectl annotate service {} {} --namespace {} --overwrite {ours}{ALLOW_SHARED_IP}=shared",
            other.name, service.name, service.namespace
        )
    })
}

fn annotate(service: &ServiceRef, annotation: &str, value: &str) -> String {
    let [ours, ..] = ANNOTATION_PREFIXES;
    format!(
        "kubectl annotate service {} --namespace {} --overwrite {ours}{annotation}={value}",
        service.name, service.namespace
    )
}

fn only(address: IpAddr) -> String {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    format!("{address}/{bits}")
}

fn pool_command(addresses: &str) -> String {
    format!(
        "echo '{{\"apiVersion\":\"heraldlb.io/v1beta1\",\"kind\":\"IPAddressPool\",\"metadata\":{{\"name\":\"default\"}},\
         \"spec\":{{\"addresses\":[\"{addresses}\"]}}}}' | kubectl apply -f - (with free addresses of your network)"
    )
}

#[cfg(test)]
mod tests {
    use herald_ipam::{Claim, Family, PoolName, Uid};

    use super::*;

    fn web() -> ServiceRef {
        ServiceRef::new("shop", "web")
    }

    fn address(no: AddressNo) -> Option<String> {
        command(&Refusal::Address { address: "fd00::1".parse().unwrap(), no }, &web())
    }

    fn owner(namespace: &str) -> Owner {
        Owner { service: ServiceRef::new(namespace, "mail"), uid: Uid::new("u") }
    }

    #[test]
    fn without_a_pool_the_command_makes_one_that_the_api_server_would_take() {
        let command = command(&Refusal::NoPools, &web()).unwrap();
        let json = command.split('\'').nth(1).unwrap();
        let pool: herald_crds::IPAddressPool = serde_json::from_str(json).unwrap();
        assert_eq!(pool.spec.addresses, ["192.168.1.240-192.168.1.250"]);
        let alone = address(AddressNo::InNoPool { pools: Vec::new() }).unwrap();
        assert!(alone.contains("fd00::1/128"), "{alone}");
    }

    #[test]
    fn an_address_of_another_pool_names_that_pool() {
        let no = AddressNo::InOtherPool { asked: PoolName::new("a"), lies_in: Some(PoolName::new("b")) };
        assert_eq!(
            address(no).unwrap(),
            "kubectl annotate service web --namespace shop --overwrite heraldlb.io/address-pool=b"
        );
    }

    #[test]
    fn an_address_in_use_is_shared_with_its_owner_where_that_can_be() {
        assert_eq!(
            address(AddressNo::InUse(vec![owner("shop")])).unwrap(),
            "kubectl annotate service mail web --namespace shop --overwrite heraldlb.io/allow-shared-ip=shared"
        );
        assert_eq!(address(AddressNo::InUse(vec![owner("bank")])), None);
    }

    #[test]
    fn nobody_is_told_to_delete_what_is_reserved_for_another() {
        let deletes = "kubectl delete loadbalancerip fd00--1";
        assert_eq!(address(AddressNo::HeldByNobody).as_deref(), Some(deletes));
        assert_eq!(address(AddressNo::Reserved(Claim::Service(ServiceRef::new("bank", "mail")))), None);
    }

    /// In the middle of a move from another load balancer, clearing it would cost the address.
    #[test]
    fn nobody_is_told_to_clear_an_address_that_a_pool_may_still_grant() {
        let no = Box::new(Refusal::NoPools);
        let refusal = Refusal::AdoptionRefused { address: "10.0.0.1".parse().unwrap(), no };
        assert_eq!(command(&refusal, &web()), None);
    }

    #[test]
    fn the_command_that_clears_a_status_can_be_pasted() {
        let command = clear_command(&web());
        let json = command.split('\'').nth(1).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(json).is_ok(), "{json}");
    }

    #[test]
    fn a_single_pool_that_wants_to_be_named_is_named() {
        let pools = vec![(PoolName::new("reserve"), PoolNo::NotAutomatic)];
        let refusal = Refusal::NoPoolGives { families: vec![Family::V4], pools };
        assert!(command(&refusal, &web()).unwrap().ends_with("heraldlb.io/address-pool=reserve"));
    }
}
