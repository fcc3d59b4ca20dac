//! The list of ingredients of each program (SBOM, CycloneDX 1.5): every crate compiled into it with its version, licence,
//! checksum and place in the graph, and the C library and standard library it is linked with.
//!
//! Written here because `cargo-cyclonedx` and `cargo-sbom` describe the workspace rather than a program: they resolve
//! features with those of tests, and put this machine's paths, a random number or the time of day into the result, so
//! that no two are the same.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use herald_oci::{Architecture, digest};
use serde_json::{Value, json};

use crate::{
    binaries::{self, Source, output},
    graph::{Crate, Graph, Key},
    root,
};

/// The C library that Rust's musl targets bring; `musl_is` checks that it is still this one.
const MUSL: &str = "1.2.5";

/// What the programs of one architecture are made of.
pub(crate) struct Ingredients {
    graph: Graph,
    /// Version of Rust, and so of its standard library.
    rust: String,
}

impl Ingredients {
    /// Asks the toolchain.
    pub(crate) fn of(architecture: Architecture) -> anyhow::Result<Self> {
        let rust = output(Command::new("rustc").arg("-vV").current_dir(root()))?;
        let rust = rust
            .lines()
            .find_map(|line| line.strip_prefix("release: "))
            .context("rustc -vV names no release")?;
        musl_is(MUSL, architecture)?;
        Ok(Self { graph: Graph::of(architecture)?, rust: rust.to_owned() })
    }

    /// A program and what is compiled into it.
    pub(crate) fn crates(&self, program: &str) -> anyhow::Result<BTreeMap<&Key, &Crate>> {
        self.graph.reached(program)
    }

    /// The document for one program, whose file has these bytes.
    pub(crate) fn document(&self, program: &str, binary: &[u8], source: &Source) -> anyhow::Result<String> {
        let reached = self.graph.reached(program)?;
        let checksums =
            checksums(&fs::read_to_string(root().join("Cargo.lock")).context("reading Cargo.lock")?);
        let mut components = vec![
            linked("rust-std", &self.rust, "MIT OR Apache-2.0", "https://github.com/rust-lang/rust"),
            linked("musl", MUSL, "MIT", "https://musl.libc.org"),
        ];
        let mut dependencies = Vec::new();
        let mut subject = Value::Null;
        for (key, named) in reached {
            if key.0 == program {
                subject = component(key, named, None);
            } else {
                components.push(component(key, named, checksums.get(key)));
            }
            let next: Vec<String> = self.graph.needs(key).map(reference).collect();
            dependencies.push(json!({ "ref": reference(key), "dependsOn": next }));
        }
        if let Some(subject) = subject.as_object_mut() {
            let hash = digest(binary).replace("sha256:", "");
            subject.insert("type".to_owned(), json!("application"));
            subject.insert("hashes".to_owned(), json!([{ "alg": "SHA-256", "content": hash }]));
            let revision = json!([{ "name": "revision", "value": source.revision }]);
            subject.insert("properties".to_owned(), revision);
        }
        let document = json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": { "component": subject, "timestamp": source.timestamp()? },
            "components": components,
            "dependencies": dependencies,
        });
        Ok(serde_json::to_string_pretty(&document)? + "\n")
    }
}

/// The checksums in Cargo.lock: of the archive that each crate came in.
fn checksums(lock: &str) -> BTreeMap<Key, String> {
    let mut found = BTreeMap::new();
    for package in lock.split("[[package]]") {
        let value = |key: &str| {
            let prefix = format!("{key} = \"");
            package.lines().find_map(|line| line.strip_prefix(&prefix)?.strip_suffix('"')).map(str::to_owned)
        };
        if let (Some(name), Some(version), Some(checksum)) =
            (value("name"), value("version"), value("checksum"))
        {
            found.insert((name, version), checksum);
        }
    }
    found
}

/// The crate's package URL, in which the plus sign of a version is percent-encoded: scanners compare it letter by letter.
fn reference((name, version): &Key) -> String {
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

fn component(key: &Key, of: &Crate, checksum: Option<&String>) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": reference(key),
        "name": key.0,
        "version": key.1,
        "purl": reference(key),
        "licenses": [{ "expression": of.licence }],
    });
    if let Some(component) = component.as_object_mut() {
        if let Some(checksum) = checksum {
            component.insert("hashes".to_owned(), json!([{ "alg": "SHA-256", "content": checksum }]));
        }
        if !of.repository.is_empty() {
            let vcs = json!([{ "type": "vcs", "url": of.repository }]);
            component.insert("externalReferences".to_owned(), vcs);
        }
    }
    component
}

/// What is in the program but is no crate.
fn linked(name: &str, version: &str, licence: &str, website: &str) -> Value {
    json!({
        "type": "library",
        "bom-ref": format!("{name}@{version}"),
        "name": name,
        "version": version,
        "licenses": [{ "expression": licence }],
        "externalReferences": [{ "type": "website", "url": website }],
    })
}

/// Fails where the toolchain's C library is of another version than we say.
fn musl_is(version: &str, architecture: Architecture) -> anyhow::Result<()> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]).current_dir(root()))?;
    let library: PathBuf =
        ["lib/rustlib", binaries::target(architecture), "lib/self-contained/libc.a"].iter().collect();
    let library = Path::new(sysroot.trim()).join(library);
    let bytes = fs::read(&library).with_context(|| format!("reading {}", library.display()))?;
    let text = format!("\0{version}\0");
    if !bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
        bail!("{} is not musl {version}: correct the version in {}", library.display(), file!());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::TREE;

    fn key(name: &str, version: &str) -> Key {
        (name.to_owned(), version.to_owned())
    }

    fn ingredients() -> Ingredients {
        Ingredients { graph: Graph::parse(TREE).unwrap(), rust: "1.95.0".to_owned() }
    }

    #[test]
    fn a_program_lists_what_it_reaches_and_nothing_of_the_other_nor_of_this_machine() {
        let source = Source { revision: "abc".to_owned(), time: 0 };
        let text = ingredients().document("herald-controller", b"program", &source).unwrap();
        assert!(!text.contains("/somewhere"), "{text}");
        let document: Value = serde_json::from_str(&text).unwrap();
        let names: Vec<&str> =
            document["components"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["rust-std", "musl", "a", "b"]);
        assert_eq!(document["components"][2]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(
            document["dependencies"][0],
            json!({ "ref": "pkg:cargo/a@1.0.0", "dependsOn": ["pkg:cargo/b@2.0.0"] })
        );
        assert_eq!(document["metadata"]["timestamp"], "1970-01-01T00:00:00Z");
        assert!(ingredients().document("herald-nobody", b"", &source).is_err());
    }

    #[test]
    fn a_package_url_has_no_plus_sign_and_the_version_has() {
        let of = Crate { licence: "MIT".to_owned(), repository: String::new() };
        let component = component(&key("zstd-sys", "2.0.16+zstd.1.5.7"), &of, None);
        assert_eq!(component["purl"], "pkg:cargo/zstd-sys@2.0.16%2Bzstd.1.5.7");
        assert_eq!(component["bom-ref"], component["purl"]);
        assert_eq!(component["version"], "2.0.16+zstd.1.5.7");
    }

    #[test]
    fn checksums_are_those_of_the_lock_file() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"00ff\"\n\n[[package]]\nname = \"own\"\nversion = \"0.1.0\"\n";
        assert_eq!(checksums(lock), BTreeMap::from([(key("a", "1.0.0"), "00ff".to_owned())]));
    }
}
