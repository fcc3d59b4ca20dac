//! Who may get addresses of a pool: `serviceAllocation` and Kubernetes label selectors.
//!
//! Closed by default: a pool restricted to namespaces or labels says no to everybody else, for explicit requests
//! as well, and also when its selectors match nothing at all.

use std::collections::BTreeMap;

use crate::{Labels, PoolNo};

/// `IPAddressPool.spec.serviceAllocation`.
///
/// Namespaces (listed or selected) AND Services (selected); OR inside each. A part that is empty restricts nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAllocation {
    /// Lower first; 0 stands last, as in MetalLB.
    pub priority: u32,
    /// Namespaces by name.
    pub namespaces: Vec<String>,
    /// Namespaces by label.
    pub namespace_selectors: Vec<Selector>,
    /// Services by label.
    pub service_selectors: Vec<Selector>,
}

/// A Kubernetes label selector. Every requirement must hold; the empty selector matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// `matchLabels`, as written: what can be no label matches none.
    pub labels: BTreeMap<String, String>,
    /// `matchExpressions`.
    pub expressions: Vec<Requirement>,
}

/// One entry of `matchExpressions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// What must hold of its value.
    pub operator: Operator,
}

/// Operators of `matchExpressions`, with their values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The label is there with one of these values.
    In(Vec<String>),
    /// The label is absent, or has none of these values.
    NotIn(Vec<String>),
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

impl ServiceAllocation {
    /// Place in the order of automatic allocation: lower first, 0 last.
    pub(crate) fn order(&self) -> u32 {
        if self.priority == 0 { u32::MAX } else { self.priority }
    }

    /// Whether a Service with these labels, in this namespace, may get an address.
    /// `namespace_labels` is `None` for a namespace nobody has told of: selectors do not match it.
    pub(crate) fn admits(
        &self,
        namespace: &str,
        namespace_labels: Option<&Labels>,
        labels: &Labels,
    ) -> Result<(), PoolNo> {
        let restricted = !self.namespaces.is_empty() || !self.namespace_selectors.is_empty();
        let listed = self.namespaces.iter().any(|listed| listed == namespace);
        let selected = namespace_labels
            .is_some_and(|labels| self.namespace_selectors.iter().any(|selector| selector.matches(labels)));
        if restricted && !listed && !selected {
            return Err(PoolNo::OtherNamespaces {
                namespaces: self.namespaces.clone(),
                by_selector: !self.namespace_selectors.is_empty(),
            });
        }
        let wanted = &self.service_selectors;
        if !wanted.is_empty() && !wanted.iter().any(|selector| selector.matches(labels)) {
            return Err(PoolNo::OtherServices);
        }
        Ok(())
    }
}

impl Selector {
    /// Whether `labels` satisfy every requirement.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value.as_str()))
            && self.expressions.iter().all(|requirement| requirement.matches(labels))
    }
}

impl Requirement {
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.iter().any(|listed| listed == value)),
            Operator::NotIn(values) => value.is_none_or(|value| values.iter().all(|listed| listed != value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().copied().collect()
    }

    fn selector(pairs: &[(&str, &str)]) -> Selector {
        let labels = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Selector { labels, expressions: Vec::new() }
    }

    #[test]
    fn label_selectors_mean_what_they_mean_in_kubernetes() {
        let have = labels(&[("tier", "web"), ("team", "a")]);
        let values = || vec!["web".to_owned(), "db".to_owned()];
        for (key, operator, matches) in [
            ("tier", Operator::In(values()), true),
            ("team", Operator::In(values()), false),
            ("none", Operator::In(values()), false),
            ("tier", Operator::NotIn(values()), false),
            ("team", Operator::NotIn(values()), true),
            ("none", Operator::NotIn(values()), true),
            ("tier", Operator::Exists, true),
            ("none", Operator::Exists, false),
            ("tier", Operator::DoesNotExist, false),
            ("none", Operator::DoesNotExist, true),
        ] {
            let expressions = vec![Requirement { key: key.into(), operator }];
            let selector = Selector { expressions, ..selector(&[("tier", "web")]) };
            assert_eq!(selector.matches(&have), matches, "{selector:?}");
        }
        assert!(Selector::default().matches(&have), "the empty selector matches everything");
        assert!(!selector(&[("tier", "db")]).matches(&have));
    }

    #[test]
    fn a_pool_is_closed_to_whom_its_restrictions_do_not_name() {
        let shop = || vec!["shop".to_owned()];
        let gold = || vec![selector(&[("class", "gold")])];
        let web = || vec![selector(&[("tier", "web")])];
        let named = ServiceAllocation { namespaces: shop(), ..Default::default() };
        let selected = ServiceAllocation { namespace_selectors: gold(), ..Default::default() };
        let either =
            ServiceAllocation { namespaces: shop(), namespace_selectors: gold(), ..Default::default() };
        let services = ServiceAllocation { service_selectors: web(), ..Default::default() };
        let both = ServiceAllocation { namespaces: shop(), service_selectors: web(), ..Default::default() };
        let gold = labels(&[("class", "gold")]);
        let web = labels(&[("tier", "web")]);
        let none = Labels::new();
        for (allocation, namespace, namespace_labels, labels, admits) in [
            (&ServiceAllocation::default(), "any", None, &none, true),
            (&named, "shop", None, &none, true),
            (&named, "other", Some(&gold), &none, false),
            (&selected, "shop", Some(&gold), &none, true),
            (&selected, "shop", Some(&none), &none, false),
            (&selected, "shop", None, &none, false),
            (&either, "shop", Some(&none), &none, true),
            (&either, "other", Some(&gold), &none, true),
            (&either, "other", Some(&none), &none, false),
            (&services, "any", None, &web, true),
            (&services, "any", None, &none, false),
            (&both, "shop", None, &none, false),
            (&both, "other", None, &web, false),
            (&both, "shop", None, &web, true),
        ] {
            let says = allocation.admits(namespace, namespace_labels, labels);
            assert_eq!(says.is_ok(), admits, "{allocation:?} {namespace} {namespace_labels:?} {labels:?}");
        }
    }
}
