//! Labels, kept small: every Service, namespace and node has some, and there are tens of thousands of these.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Labels of a Service, a namespace or a node. Clones share the text.
///
/// One text, `key=value,key=value` in the order of the keys, as `kubectl get --show-labels` writes them: a map of
/// strings takes four times the memory. The API server lets neither `=` nor `,` into a label; what has one all the same
/// is no label, and left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Arc<str>);

impl Labels {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of the label `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(found, _)| *found == key).map(|(_, value)| value)
    }

    /// Whether there is a label `key`.
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// All of them, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.split(',').filter_map(|label| label.split_once('='))
    }
}

impl<K: AsRef<str> + Ord, V: AsRef<str>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(labels: I) -> Self {
        let sorted: BTreeMap<K, V> = labels.into_iter().collect();
        let mut text = String::new();
        for (key, value) in &sorted {
            let (key, value) = (key.as_ref(), value.as_ref());
            if key.contains(['=', ',']) || value.contains(['=', ',']) {
                continue;
            }
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(key);
            text.push('=');
            text.push_str(value);
        }
        Self(text.into())
    }
}

impl<K: AsRef<str> + Ord, V: AsRef<str>, const N: usize> From<[(K, V); N]> for Labels {
    fn from(labels: [(K, V); N]) -> Self {
        labels.into_iter().collect()
    }
}

impl From<BTreeMap<String, String>> for Labels {
    fn from(labels: BTreeMap<String, String>) -> Self {
        labels.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_found_whatever_the_order() {
        let labels = Labels::from([("team", "a"), ("app", "web"), ("empty", "")]);
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("app", "web"), ("empty", ""), ("team", "a")]);
        assert_eq!((labels.get("team"), labels.get("empty"), labels.get("tea")), (Some("a"), Some(""), None));
        assert_eq!(labels, Labels::from([("empty", ""), ("app", "web"), ("team", "a")]));
        assert!(Labels::new().is_empty() && Labels::new().iter().next().is_none() && !labels.is_empty());
    }

    #[test]
    fn what_can_be_no_label_passes_for_no_other() {
        let labels = Labels::from([("a", "1,b=2"), ("c=d", "3"), ("e", "4")]);
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("e", "4")]);
    }
}
