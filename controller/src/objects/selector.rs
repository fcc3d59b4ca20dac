//! Kubernetes label selectors as the allocator core understands them.

use herald_ipam::{Operator, Requirement, Selector};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// A label selector that the API server's schema lets pass, but that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{field}: the operator '{operator}' of key '{key}' is unknown; use In, NotIn, Exists or DoesNotExist"
)]
pub struct SelectorError {
    field: &'static str,
    key: String,
    operator: String,
}

/// Reads the selectors in `field`.
pub fn parse_all(field: &'static str, selectors: &[LabelSelector]) -> Result<Vec<Selector>, SelectorError> {
    selectors.iter().map(|selector| parse(field, selector)).collect()
}

/// Reads one selector in `field`.
pub fn parse(field: &'static str, selector: &LabelSelector) -> Result<Selector, SelectorError> {
    let expressions = selector
        .match_expressions
        .iter()
        .flatten()
        .map(|requirement| {
            let values = requirement.values.clone().unwrap_or_default();
            let operator = match requirement.operator.as_str() {
                "In" => Operator::In(values),
                "NotIn" => Operator::NotIn(values),
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError {
                        field,
                        key: requirement.key.clone(),
                        operator: other.to_owned(),
                    });
                }
            };
            Ok(Requirement { key: requirement.key.clone(), operator })
        })
        .collect::<Result<_, _>>()?;
    Ok(Selector { labels: selector.match_labels.clone().unwrap_or_default(), expressions })
}
