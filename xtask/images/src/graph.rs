//! What is compiled into the programs: every crate, and what each depends on, as cargo resolves it for an architecture.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use herald_oci::Architecture;

use crate::binaries::{self, PROGRAMS};

/// Between the parts of a line of `cargo tree`; in no licence and no address.
const SEPARATOR: char = '|';

/// Every crate, and what each depends on.
#[derive(Default)]
pub(crate) struct Graph {
    crates: BTreeMap<Key, Crate>,
    edges: BTreeMap<Key, BTreeSet<Key>>,
}

/// Name and version.
pub(crate) type Key = (String, String);

#[derive(Debug, PartialEq)]
pub(crate) struct Crate {
    /// An SPDX expression.
    pub(crate) licence: String,
    /// Where its sources are at home; may be empty.
    pub(crate) repository: String,
}

impl Graph {
    /// Asks cargo what it compiles for this architecture, with the features it compiles it with.
    pub(crate) fn of(architecture: Architecture) -> anyhow::Result<Self> {
        let mut tree = binaries::cargo();
        tree.args(["tree", "--locked", "--target", binaries::target(architecture)]);
        tree.args(["--edges", "normal,no-proc-macro", "--prefix", "depth", "--format", "|{p}|{l}|{r}"]);
        // Both at once, as they are built: features are those that either asks for.
        for program in PROGRAMS {
            tree.args(["--package", program]);
        }
        Self::parse(&binaries::output(&mut tree)?)
    }

    /// A program and everything that is compiled into it, in the order of their names.
    pub(crate) fn reached(&self, program: &str) -> anyhow::Result<BTreeMap<&Key, &Crate>> {
        let start = self.crates.keys().find(|(name, _)| name == program);
        let start = start.with_context(|| format!("cargo tree names no {program}"))?;
        let mut reached = BTreeMap::new();
        let mut open = vec![start];
        while let Some(key) = open.pop() {
            let named =
                self.crates.get(key).with_context(|| format!("cargo tree says nothing about {}", key.0))?;
            if reached.insert(key, named).is_none() {
                open.extend(self.needs(key));
            }
        }
        Ok(reached)
    }

    /// What a crate depends on itself.
    pub(crate) fn needs(&self, key: &Key) -> impl Iterator<Item = &Key> {
        self.edges.get(key).into_iter().flatten()
    }

    /// Reads `cargo tree --prefix depth --format '|{p}|{l}|{r}'`. A crate's dependencies stand below its first mention only.
    pub(crate) fn parse(tree: &str) -> anyhow::Result<Self> {
        let mut graph = Self::default();
        let mut above: Vec<Key> = Vec::new();
        for line in tree.lines().filter(|line| !line.is_empty()) {
            let mut parts = line.trim_end_matches(" (*)").split(SEPARATOR);
            let mut part = || parts.next().with_context(|| format!("cargo tree wrote {line:?}"));
            let (depth, package, licence, repository) = (part()?, part()?, part()?, part()?);
            let depth: usize = depth.parse().with_context(|| format!("cargo tree wrote {line:?}"))?;
            // `name v1.2.3`, for our own `name v1.2.3 (/where/it/is)`.
            let mut words = package.split(' ');
            let name = words.next().unwrap_or_default();
            let version = words.next().and_then(|version| version.strip_prefix('v'));
            let version = version.with_context(|| format!("cargo tree wrote {line:?}"))?;
            ensure!(!licence.is_empty(), "{name} {version} names no licence");
            let key = (name.to_owned(), version.to_owned());
            above.truncate(depth);
            if let Some(parent) = above.last() {
                graph.edges.entry(parent.clone()).or_default().insert(key.clone());
            }
            graph.edges.entry(key.clone()).or_default();
            // Crates of before SPDX expressions wrote a slash for "or".
            let licence = licence.replace(" / ", " OR ").replace('/', " OR ");
            graph.crates.insert(key.clone(), Crate { licence, repository: repository.trim_end().to_owned() });
            above.push(key);
        }
        Ok(graph)
    }
}

/// What cargo might say, for tests.
#[cfg(test)]
pub(crate) const TREE: &str = "\
0|herald-controller v0.1.0 (/somewhere/controller)|Apache-2.0|
1|a v1.0.0|MIT/Apache-2.0|https://example.org/a
2|b v2.0.0|ISC|
1|b v2.0.0|ISC| (*)

0|herald-speaker v0.1.0 (/somewhere/speaker)|Apache-2.0|
1|a v1.0.0|MIT/Apache-2.0|https://example.org/a (*)
1|c v3.0.0|Zlib|
";

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, version: &str) -> Key {
        (name.to_owned(), version.to_owned())
    }

    #[test]
    fn dependencies_are_known_from_the_first_mention() {
        let edges = Graph::parse(TREE).unwrap().edges;
        assert_eq!(edges[&key("a", "1.0.0")], BTreeSet::from([key("b", "2.0.0")]));
        assert_eq!(
            edges[&key("herald-speaker", "0.1.0")],
            BTreeSet::from([key("a", "1.0.0"), key("c", "3.0.0")])
        );
    }

    #[test]
    fn a_crate_without_licence_and_a_line_of_another_form_are_refused() {
        assert!(Graph::parse("0|a v1.0.0||").err().unwrap().to_string().contains("a 1.0.0 names no licence"));
        assert!(Graph::parse("0 a v1.0.0").is_err());
        assert!(Graph::parse("0|a|MIT|").is_err());
    }
}
