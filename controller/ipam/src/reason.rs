//! Every reason that allocation gives: one word with one meaning, and what to do about it.
//!
//! The words stand in conditions and in docs/reasons.md, which is made from here. The message beside a word names
//! the objects concerned; it is made in `refusal`.

/// What a reason means, for those who look it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The word.
    pub code: &'static str,
    /// What it says of the object it stands on.
    pub meaning: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

/// Why a Service does not have (all of) what it asks for, or what is wrong with what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// `Refusal::Invalid`.
    InvalidRequest,
    /// `Refusal::NoPools`.
    NoPools,
    /// `Refusal::UnknownPool`.
    UnknownPool,
    /// `Refusal::NoPoolGives`.
    NoAddressAvailable,
    /// `AddressNo::InNoPool`.
    AddressInNoPool,
    /// `AddressNo::InOtherPool`.
    AddressInOtherPool,
    /// `Refusal::DifferentPools`.
    AddressesInDifferentPools,
    /// `AddressNo::Excluded` and `AddressNo::Buggy`.
    AddressExcluded,
    /// `AddressNo::OfNode`.
    AddressOfNode,
    /// `AddressNo::Pool`, but for the limit.
    PoolNotAllowed,
    /// `AddressNo::Pool` with `PoolNo::NamespaceLimit`.
    NamespaceLimit,
    /// `AddressNo::InUse`.
    AddressInUse,
    /// `AddressNo::NotShareable`.
    NotShareable,
    /// `AddressNo::Reserved` and `AddressNo::HeldByNobody`.
    AddressReserved,
    /// `AddressNo::BeingReleased` and `AddressNo::Terminating`.
    AddressBeingReleased,
    /// `Refusal::AdoptionRefused`.
    AdoptionRefused,
    /// `Refusal::Terminating`.
    ServiceTerminating,
    /// `Refusal::WriteRefused`.
    WriteRefused,
    /// `Refusal::OutsidePools`.
    AddressOutsidePools,
    /// `Refusal::HasNodeAddress`.
    HasNodeAddress,
    /// `Refusal::NoLongerGranted`.
    NoLongerGranted,
    /// `Refusal::SharingBroken`.
    SharingBroken,
}

/// Why one pool says no, in the message of [`Reason::NoAddressAvailable`] and [`Reason::PoolNotAllowed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PoolReason {
    /// `PoolNo::Full`.
    Full,
    /// `PoolNo::NoneToShare`.
    NoneToShare,
    /// `PoolNo::NamespaceLimit`.
    NamespaceLimit,
    /// `PoolNo::NoRange`.
    NoRange,
    /// `PoolNo::NotAutomatic`.
    NotAutomatic,
    /// `PoolNo::OtherNamespaces`.
    OtherNamespaces,
    /// `PoolNo::OtherServices`.
    OtherServices,
    /// `PoolNo::NeverValid`.
    NeverValid,
    /// `PoolNo::Deleted`.
    Deleted,
}

impl Reason {
    /// All of them, in the order in which they are documented: those with no address first, then those who keep one.
    pub const ALL: [Self; 22] = [
        Self::InvalidRequest,
        Self::NoPools,
        Self::UnknownPool,
        Self::NoAddressAvailable,
        Self::AddressInNoPool,
        Self::AddressInOtherPool,
        Self::AddressesInDifferentPools,
        Self::AddressExcluded,
        Self::AddressOfNode,
        Self::PoolNotAllowed,
        Self::NamespaceLimit,
        Self::AddressInUse,
        Self::NotShareable,
        Self::AddressReserved,
        Self::AddressBeingReleased,
        Self::AdoptionRefused,
        Self::ServiceTerminating,
        Self::WriteRefused,
        Self::AddressOutsidePools,
        Self::HasNodeAddress,
        Self::NoLongerGranted,
        Self::SharingBroken,
    ];

    /// The word that stands in the condition.
    pub const fn code(self) -> &'static str {
        self.explanation().code
    }

    /// Whether the Service has what it asks for all the same.
    pub const fn is_complaint(self) -> bool {
        matches!(
            self,
            Self::AddressOutsidePools | Self::HasNodeAddress | Self::NoLongerGranted | Self::SharingBroken
        )
    }

    /// Its meaning.
    #[expect(clippy::too_many_lines, reason = "a table with a row for each reason")]
    pub const fn explanation(self) -> Explanation {
        let (code, meaning, remedy) = match self {
            Self::InvalidRequest => (
                "InvalidRequest",
                "an annotation or spec.loadBalancerIP asks for something that no cluster could give",
                "correct what the message names",
            ),
            Self::NoPools => (
                "NoPools",
                "there is no IPAddressPool",
                "create one with addresses of your network that nothing else uses",
            ),
            Self::UnknownPool => (
                "UnknownPool",
                "the annotation address-pool names a pool that does not exist",
                "name one of those listed, or create it",
            ),
            Self::NoAddressAvailable => (
                "NoAddressAvailable",
                "no pool gives what is missing; the message lists the pools that were looked at and why each said no",
                "see the table of pools' reasons below",
            ),
            Self::AddressInNoPool => (
                "AddressInNoPool",
                "a requested address is in no pool",
                "ask for another address, or add it to a pool",
            ),
            Self::AddressInOtherPool => (
                "AddressInOtherPool",
                "the requested address is not in the pool that is requested as well",
                "correct one of the two annotations",
            ),
            Self::AddressesInDifferentPools => (
                "AddressesInDifferentPools",
                "the two requested addresses are in different pools",
                "ask for two addresses of one pool",
            ),
            Self::AddressExcluded => (
                "AddressExcluded",
                "the requested address is under excluded of its pool, or avoidBuggyIPs leaves it out",
                "ask for another address, or change the pool",
            ),
            Self::AddressOfNode => (
                "AddressOfNode",
                "the requested address is a node's own (InternalIP or ExternalIP of a Node), within a range of a pool",
                "ask for another address; if a Service is to have it all the same, let the pool name it as an entry of its own",
            ),
            Self::PoolNotAllowed => (
                "PoolNotAllowed",
                "the requested address is in a pool whose serviceAllocation does not admit this Service",
                "ask for an address of another pool, or let the pool admit the Service",
            ),
            Self::NamespaceLimit => (
                "NamespaceLimit",
                "the Service's namespace has as many addresses of the requested address's pool as limitPerNamespace \
                 allows",
                "delete a Service of the namespace that has one, or raise the limit",
            ),
            Self::AddressInUse => (
                "AddressInUse",
                "another Service has the requested address, and does not share it",
                "ask for another address, free it, or give all of them one allow-shared-ip key; when it comes free \
                 it is given by itself",
            ),
            Self::NotShareable => (
                "NotShareable",
                "others share the requested address, and this Service can't join them: another key, namespace or \
                 externalTrafficPolicy: Local with other pods, a port that is used already, or no room left",
                "change what the message names; it is looked at again by itself",
            ),
            Self::AddressReserved => (
                "AddressReserved",
                "a LoadBalancerIP reserves the requested address for another Service or key (claimRef), or names \
                 nobody",
                "ask for another address, or delete that LoadBalancerIP",
            ),
            Self::AddressBeingReleased => (
                "AddressBeingReleased",
                "the requested address is on its way back from another Service",
                "wait; if it lasts, look for finalizers on the LoadBalancerIP and at the controller's log",
            ),
            Self::AdoptionRefused => (
                "AdoptionRefused",
                "status.loadBalancer shows an address that Herald has not given and would not give; it is left alone \
                 and not announced",
                "let a pool grant it to this Service, or clear status.loadBalancer to get another",
            ),
            Self::ServiceTerminating => (
                "ServiceTerminating",
                "the Service is being deleted and gets nothing new",
                "if it lasts, look for the finalizer that holds it",
            ),
            Self::WriteRefused => (
                "WriteRefused",
                "the API server refused to record an address",
                "check the controller's rights and that the CRDs are of its version; it tries again",
            ),
            Self::AddressOutsidePools => (
                "AddressOutsidePools",
                "the Service keeps an address that is in no pool any more",
                "put it back into a pool, or ask for another address",
            ),
            Self::HasNodeAddress => (
                "HasNodeAddress",
                "the Service keeps an address that a node has as well: traffic to either may reach the other",
                "ask for another address, or give the node another",
            ),
            Self::NoLongerGranted => (
                "NoLongerGranted",
                "the Service keeps an address that its pool would not give it any more",
                "let the pool's serviceAllocation admit it again, or ask for another address",
            ),
            Self::SharingBroken => (
                "SharingBroken",
                "the Service keeps an address that it shares with others whom it could not join any more, because \
                 its key, ports or policy changed, or theirs",
                "undo the change, or ask for another address",
            ),
        };
        Explanation { code, meaning, remedy }
    }
}

impl PoolReason {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Full,
        Self::NoneToShare,
        Self::NamespaceLimit,
        Self::NoRange,
        Self::NotAutomatic,
        Self::OtherNamespaces,
        Self::OtherServices,
        Self::NeverValid,
        Self::Deleted,
    ];

    /// Its meaning. The code names it in documents; messages say it in words.
    pub const fn explanation(self) -> Explanation {
        let (code, meaning, remedy) = match self {
            Self::Full => (
                "Full",
                "has no free address of the family",
                "add addresses to a full pool or delete Services that need none",
            ),
            Self::NoneToShare => (
                "NoneToShare",
                "has no free address of the family, and none that the Service could share",
                "make the Services shareable or add addresses to the pool",
            ),
            Self::NamespaceLimit => (
                "NamespaceLimit",
                "gives a namespace only so many addresses of the family (limitPerNamespace)",
                "delete a Service of the namespace or raise the pool's limitPerNamespace",
            ),
            Self::NoRange => (
                "NoRange",
                "has no range of the family",
                "add a range of that family to the pool, or ask for the other family",
            ),
            Self::NotAutomatic => (
                "NotAutomatic",
                "gives addresses only to those who name it or one of its addresses (autoAssign: false)",
                "name the pool in the annotation heraldlb.io/address-pool",
            ),
            Self::OtherNamespaces => (
                "OtherNamespaces",
                "is for other namespaces (serviceAllocation.namespaces and namespaceSelectors)",
                "let the pool's serviceAllocation admit this Service",
            ),
            Self::OtherServices => (
                "OtherServices",
                "is for Services with other labels (serviceAllocation.serviceSelectors)",
                "let the pool's serviceAllocation admit this Service",
            ),
            Self::NeverValid => (
                "NeverValid",
                "is not valid and never was; its condition says why",
                "correct the pool that is not valid",
            ),
            Self::Deleted => {
                ("Deleted", "does not exist any more", "create the pool again, or ask for another address")
            }
        };
        Explanation { code, meaning, remedy }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_is_listed_once_and_has_a_word_of_its_own() {
        let codes: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for (place, reason) in Reason::ALL.iter().enumerate() {
            assert!(Reason::ALL.iter().skip(place + 1).all(|other| other != reason), "{reason:?}");
            assert_eq!(format!("{reason:?}"), reason.code(), "the word is the name");
            // Kubernetes: conditions[].reason is CamelCase.
            assert!(reason.code().chars().all(|it| it.is_ascii_alphanumeric()), "{reason:?}");
        }
        for reason in PoolReason::ALL {
            assert_eq!(format!("{reason:?}"), reason.explanation().code);
        }
    }
}
