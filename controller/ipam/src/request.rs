//! What a Service asks for, read from its annotations and spec fields.

use std::collections::BTreeMap;
use std::net::IpAddr;

use thiserror::Error;

use crate::range::parse_address;
use crate::{AddressError, CreatedAt, Exposure, Family, Labels, Owner, PoolName, SharingKey, Version};

/// A Service of type LoadBalancer and of our class, reduced to what allocation needs.
///
/// A Service with a deletionTimestamp is still here (rule B10); one of another type or class is not: tell of it as
/// `ServiceDeleted`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRequest {
    /// Name and uid.
    pub owner: Owner,
    /// `metadata.resourceVersion`: tells which `shown` are older than our own last write.
    pub version: Version,
    /// `metadata.creationTimestamp`: older Services are served first.
    pub created: CreatedAt,
    /// `metadata.labels`, for `serviceAllocation.serviceSelectors`.
    pub labels: Labels,
    /// `spec.ipFamilyPolicy` and `spec.ipFamilies`.
    pub families: Families,
    /// What it asks for by name; an error keeps what the Service has and is shown on it.
    pub wanted: Result<Wanted, RequestError>,
    /// Its ports and pods: with whom it can share an address.
    pub exposure: Exposure,
    /// `status.loadBalancer.ingress[].ip` now.
    pub shown: Vec<IpAddr>,
    /// Whether it has a `metadata.deletionTimestamp`: it keeps what it has (rule B10) and is given nothing new.
    pub terminating: bool,
}

/// Which families a Service gets, the primary one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// `spec.ipFamilyPolicy`.
    pub policy: FamilyPolicy,
    /// `spec.ipFamilies[0]`.
    pub primary: Family,
    /// Whether `spec.ipFamilies` names the other family as well.
    pub dual: bool,
}

/// `spec.ipFamilyPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FamilyPolicy {
    /// One address.
    #[default]
    SingleStack,
    /// Both where a pool has both, else the primary family; the second is added when it can be.
    PreferDualStack,
    /// Both or nothing.
    RequireDualStack,
}

/// Addresses and pool asked for by name; both empty for "any address".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `loadBalancerIPs` or `spec.loadBalancerIP`.
    pub addresses: Addresses,
    /// `address-pool`.
    pub pool: Option<PoolName>,
    /// `allow-shared-ip`.
    pub sharing: Option<SharingKey>,
}

/// At most one address of each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addresses {
    v4: Option<IpAddr>,
    v6: Option<IpAddr>,
}

/// What is wrong with a request, whatever the pools.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// An address that cannot be read.
    #[error("{field}: {error}")]
    Address {
        /// The annotation or field it stands in.
        field: String,
        /// What is wrong with it.
        error: AddressError,
    },
    /// Two addresses of one family.
    #[error(
        "{field} asks for two {family} addresses, {first} and {second}; a Service gets at most one of each family"
    )]
    SameFamily {
        /// The annotation they stand in.
        field: String,
        /// Their family.
        family: Family,
        /// The first of them.
        first: IpAddr,
        /// The second.
        second: IpAddr,
    },
    /// The annotation and `spec.loadBalancerIP` disagree.
    #[error("{field} asks for {annotated}, but spec.loadBalancerIP for {spec}; remove one of the two")]
    Contradiction {
        /// The annotation.
        field: String,
        /// What it asks for, as written.
        annotated: String,
        /// What the spec asks for.
        spec: IpAddr,
    },
    /// `address-pool` is there, but empty.
    #[error("{field} is empty; name a pool or remove the annotation")]
    EmptyPool {
        /// The annotation.
        field: String,
    },
    /// `allow-shared-ip` is there, but empty.
    #[error("{field} is empty; name a key that all who share the address use, or remove the annotation")]
    EmptyKey {
        /// The annotation.
        field: String,
    },
    /// `allow-shared-ip` is too long.
    #[error(
        "{field} has {length} characters; use a key of at most {max}",
        max = SharingKey::LONGEST
    )]
    LongKey {
        /// The annotation.
        field: String,
        /// How many characters it has.
        length: usize,
    },
    /// `loadBalancerIPs` is there, but empty.
    #[error("{field} is empty; name one or two addresses or remove the annotation")]
    NoAddress {
        /// The annotation.
        field: String,
    },
    /// The Service does not have the family of a requested address.
    #[error(
        "{address} is an {family} address, but the Service has only {other} (spec.ipFamilies); ask for an {other} \
         address or set spec.ipFamilyPolicy: PreferDualStack",
        other = family.other()
    )]
    FamilyNotOfService {
        /// The requested address.
        address: IpAddr,
        /// Its family.
        family: Family,
    },
}

/// Our prefix first: where several are set, the first counts.
const PREFIXES: [&str; 3] = ["heraldlb.io/", "metallb.io/", "metallb.universe.tf/"];

impl Wanted {
    /// Reads a Service's annotations (all three prefixes) and `spec.loadBalancerIP`.
    pub fn parse(
        annotations: &BTreeMap<String, String>,
        load_balancer_ip: Option<&str>,
    ) -> Result<Self, RequestError> {
        let pool = match annotation(annotations, "address-pool") {
            Some((field, "")) => return Err(RequestError::EmptyPool { field }),
            Some((_, text)) => Some(PoolName::new(text)),
            None => None,
        };
        let sharing = match annotation(annotations, "allow-shared-ip") {
            Some((field, "")) => return Err(RequestError::EmptyKey { field }),
            Some((field, key)) if key.chars().count() > SharingKey::LONGEST => {
                return Err(RequestError::LongKey { field, length: key.chars().count() });
            }
            Some((_, key)) => Some(SharingKey::new(key)),
            None => None,
        };
        let spec = match load_balancer_ip.map(str::trim).filter(|text| !text.is_empty()) {
            Some(text) => Some(
                parse_address(text)
                    .map_err(|error| RequestError::Address { field: "spec.loadBalancerIP".into(), error })?,
            ),
            None => None,
        };
        let addresses = match (annotation(annotations, "loadBalancerIPs"), spec) {
            (Some((field, text)), spec) => {
                let addresses = parse_list(&field, text)?;
                match spec {
                    // One of the two addresses asked for does not contradict them.
                    Some(spec) if !addresses.contains(spec) => {
                        return Err(RequestError::Contradiction { field, annotated: text.into(), spec });
                    }
                    _ => addresses,
                }
            }
            (None, Some(spec)) => Addresses::default().with(spec),
            (None, None) => Addresses::default(),
        };
        Ok(Self { addresses, pool, sharing })
    }
}

impl ServiceRequest {
    /// The key under which it shares.
    pub(crate) fn key(&self) -> Option<&SharingKey> {
        self.wanted.as_ref().ok()?.sharing.as_ref()
    }
}

impl Families {
    /// The families to look for, the primary one first.
    pub fn wanted(&self) -> impl Iterator<Item = Family> + use<> {
        let second = (self.dual && self.policy != FamilyPolicy::SingleStack).then_some(self.primary.other());
        std::iter::once(self.primary).chain(second)
    }

    /// Whether an address of `family` has a place on the Service.
    pub fn has(&self, family: Family) -> bool {
        self.wanted().any(|wanted| wanted == family)
    }
}

impl Addresses {
    /// The address of a family.
    pub fn of(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    /// These, with `address` in the place of its family.
    #[must_use]
    pub fn with(mut self, address: IpAddr) -> Self {
        match Family::of(address) {
            Family::V4 => self.v4 = Some(address),
            Family::V6 => self.v6 = Some(address),
        }
        self
    }

    /// IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + Clone + use<> {
        self.v4.into_iter().chain(self.v6)
    }

    /// Whether `address` is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.of(Family::of(address)) == Some(address)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }
}

impl FromIterator<IpAddr> for Addresses {
    /// Of several addresses of one family the last stays.
    fn from_iter<T: IntoIterator<Item = IpAddr>>(addresses: T) -> Self {
        addresses.into_iter().fold(Self::default(), Self::with)
    }
}

fn annotation<'a>(annotations: &'a BTreeMap<String, String>, name: &str) -> Option<(String, &'a str)> {
    PREFIXES.iter().find_map(|prefix| {
        let key = format!("{prefix}{name}");
        let text = annotations.get(&key)?.trim();
        Some((key, text))
    })
}

fn parse_list(field: &str, text: &str) -> Result<Addresses, RequestError> {
    if text.is_empty() {
        return Err(RequestError::NoAddress { field: field.into() });
    }
    let mut addresses = Addresses::default();
    for part in text.split(',') {
        let address =
            parse_address(part).map_err(|error| RequestError::Address { field: field.into(), error })?;
        let family = Family::of(address);
        if let Some(first) = addresses.of(family) {
            let field = field.into();
            return Err(RequestError::SameFamily { field, family, first, second: address });
        }
        addresses = addresses.with(address);
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(annotations: &[(&str, &str)], load_balancer_ip: Option<&str>) -> Result<String, String> {
        let annotations = annotations.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let wanted = Wanted::parse(&annotations, load_balancer_ip).map_err(|error| error.to_string())?;
        let pool = wanted.pool.map(|pool| format!(" of {pool}")).unwrap_or_default();
        Ok(format!("{}{pool}", wanted.addresses))
    }

    #[test]
    fn all_three_prefixes_are_read_and_ours_wins() {
        let ours = ("heraldlb.io/loadBalancerIPs", "10.0.0.1");
        let new = ("metallb.io/loadBalancerIPs", "10.0.0.2");
        let old = ("metallb.universe.tf/loadBalancerIPs", "10.0.0.3");
        for (annotations, meaning) in [
            (&[old][..], "10.0.0.3"),
            (&[old, new], "10.0.0.2"),
            (&[old, new, ours], "10.0.0.1"),
            (&[("metallb.universe.tf/address-pool", "lan")], " of lan"),
            (&[("metallb.io/address-pool", "b"), ("heraldlb.io/address-pool", " a "), old], "10.0.0.3 of a"),
            (&[("heraldlb.io/loadBalancerIPs", " fd00::1 , 10.0.0.1 ")], "10.0.0.1, fd00::1"),
            (&[("example.com/loadBalancerIPs", "10.0.0.1")], ""),
        ] {
            assert_eq!(parse(annotations, None).as_deref(), Ok(meaning), "{annotations:?}");
        }
    }

    #[test]
    fn the_deprecated_field_counts_and_must_not_contradict() {
        assert_eq!(parse(&[], Some("10.0.0.1")).as_deref(), Ok("10.0.0.1"));
        assert_eq!(parse(&[], Some("")).as_deref(), Ok(""));
        let both = [("metallb.io/loadBalancerIPs", "10.0.0.1,fd00::1")];
        assert_eq!(parse(&both, Some("10.0.0.1")).as_deref(), Ok("10.0.0.1, fd00::1"));
        let error = parse(&both, Some("10.0.0.2")).unwrap_err();
        let wanted =
            "metallb.io/loadBalancerIPs asks for 10.0.0.1,fd00::1, but spec.loadBalancerIP for 10.0.0.2";
        assert!(error.contains(wanted), "{error}");
    }

    #[test]
    fn a_request_that_means_nothing_names_the_annotation_and_what_is_wrong() {
        for (value, error) in [
            ("", "heraldlb.io/loadBalancerIPs is empty; name one or two addresses"),
            ("web", "heraldlb.io/loadBalancerIPs: 'web' is not an IP address"),
            ("10.0.0.1,", "heraldlb.io/loadBalancerIPs: '' is not an IP address"),
            ("10.0.0.1,10.0.0.2", "asks for two IPv4 addresses, 10.0.0.1 and 10.0.0.2"),
            ("fd00::1,10.0.0.1,fd00::2", "asks for two IPv6 addresses, fd00::1 and fd00::2"),
            ("::ffff:10.0.0.1", "write the IPv4 address 10.0.0.1"),
            ("fe80::1%eth0", "carries a zone"),
        ] {
            let says = parse(&[("heraldlb.io/loadBalancerIPs", value)], None).unwrap_err();
            assert!(says.contains(error), "{value}: {says}");
        }
        let says = parse(&[("metallb.io/address-pool", " ")], None).unwrap_err();
        assert!(says.contains("metallb.io/address-pool is empty"), "{says}");
    }
}
