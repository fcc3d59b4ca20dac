//! The texts that go with a program because the licences of what is linked into it ask for that: MIT, BSD and ISC want
//! their notice in every copy, Apache its text.
//!
//! Made where the image is made, from the sources that are compiled, so that there is no copy to go stale. Every text of a
//! crate is taken, not only those of the licence one would choose: what stands in them beside it are notices, too. What
//! may be linked at all is for `deny.toml` to say.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::{
    binaries::{self, output},
    graph::{Crate, Key},
    root,
};

/// The C library's, which Rust brings without it.
const MUSL: &str = include_str!("../licences/musl");
/// How the names of files with such texts begin.
const BEGINNINGS: [&str; 7] =
    ["license", "licence", "unlicense", "copying", "copyright", "notice", "patents"];
const RULE: &str =
    "================================================================================================";

/// Where the sources of the crates of others lie.
pub(crate) struct Sources(BTreeMap<Key, PathBuf>);

impl Sources {
    /// Asks cargo.
    pub(crate) fn of_workspace() -> anyhow::Result<Self> {
        let metadata = output(binaries::cargo().args(["metadata", "--locked", "--format-version", "1"]))?;
        let metadata: Value = serde_json::from_str(&metadata).context("reading what cargo metadata says")?;
        let packages = metadata.get("packages").and_then(Value::as_array);
        let mut sources = BTreeMap::new();
        for package in packages.context("cargo metadata names no packages")? {
            let text = |field: &str| package.get(field).and_then(Value::as_str);
            // Our own have no source.
            if text("source").is_none() {
                continue;
            }
            let (Some(name), Some(version), Some(manifest)) =
                (text("name"), text("version"), text("manifest_path"))
            else {
                bail!("cargo metadata lists a package as {package}");
            };
            let directory = Path::new(manifest).parent().unwrap_or(Path::new("/")).to_owned();
            sources.insert((name.to_owned(), version.to_owned()), directory);
        }
        Ok(Self(sources))
    }

    /// All texts for a program that is linked with these crates.
    pub(crate) fn texts<'a>(
        &self,
        program: &str,
        crates: impl IntoIterator<Item = (&'a Key, &'a Crate)>,
    ) -> anyhow::Result<String> {
        let mut texts = Texts::default();
        texts.add("musl (COPYRIGHT)", MUSL);
        let mut list = String::new();
        for (key, of) in crates {
            let Some(directory) = self.0.get(key) else { continue };
            let name = format!("{} {}", key.0, key.1);
            writeln!(list, "{name}: {}", of.licence)?;
            let files = find(directory)?;
            for file in &files {
                let text = fs::read(directory.join(file));
                let text = text.with_context(|| format!("reading {file} of {name}"))?;
                // Names of authors in an old encoding are no reason to have no image.
                texts.add(&format!("{name} ({file})"), &String::from_utf8_lossy(&text));
            }
            if files.is_empty() {
                // Herald's own licence is that text.
                ensure!(
                    of.licence.split(" OR ").any(|licence| licence == "Apache-2.0"),
                    "{name} is under {}, and its sources hold no text of that: ask its authors for one",
                    of.licence
                );
                texts.add(
                    &format!("{name} (says Apache-2.0, without the text)"),
                    include_str!("../../../LICENSE"),
                );
            }
        }
        Ok(format!(
            "{program} is Herald's, under the Apache License 2.0 (LICENSE beside this file). It is linked with what follows, \
             under the licences named,\nwith the standard library of Rust (rust-standard-library.html beside this file) and \
             with musl: MIT. Their texts and notices are below.\n\n{list}{}",
            texts.show()?
        ))
    }
}

/// What goes with Rust's standard library and what that is made of.
pub(crate) fn of_rust() -> anyhow::Result<Vec<u8>> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]).current_dir(root()))?;
    let file = Path::new(sysroot.trim()).join("share/doc/rust/COPYRIGHT-library.html");
    fs::read(&file).with_context(|| {
        format!("reading {}: rustup installs it with the compiler, other packagings may not", file.display())
    })
}

/// Texts, each of which many crates have word by word.
#[derive(Default)]
struct Texts(BTreeMap<String, BTreeSet<String>>);

impl Texts {
    fn add(&mut self, whose: &str, text: &str) {
        // Ends of lines are the only thing in which many differ.
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        let text = lines.join("\n").trim_matches('\n').to_owned();
        self.0.entry(text).or_default().insert(whose.to_owned());
    }

    /// In the order of whose they are.
    fn show(self) -> Result<String, std::fmt::Error> {
        let mut sorted: Vec<(BTreeSet<String>, String)> =
            self.0.into_iter().map(|(text, whose)| (whose, text)).collect();
        sorted.sort();
        let mut shown = String::new();
        for (whose, text) in sorted {
            let whose: Vec<String> = whose.into_iter().collect();
            write!(shown, "\n{RULE}\n{}\n{RULE}\n\n{text}\n", whose.join("\n"))?;
        }
        Ok(shown)
    }
}

/// The files of a crate that hold such texts, also those of code that it has taken from others.
fn find(directory: &Path) -> anyhow::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut open = vec![directory.to_owned()];
    while let Some(inner) = open.pop() {
        for entry in fs::read_dir(&inner).with_context(|| format!("reading {}", inner.display()))? {
            let entry = entry.with_context(|| format!("reading {}", inner.display()))?;
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            // Hidden: how its authors test and publish it.
            if name.starts_with('.') {
                continue;
            }
            if entry.file_type().with_context(|| format!("reading {}", path.display()))?.is_dir() {
                open.push(path);
            } else if holds_a_text(&name) {
                let relative = path.strip_prefix(directory).unwrap_or(&path);
                found.insert(relative.display().to_string());
            }
        }
    }
    Ok(found)
}

/// Whether a file of this name holds a licence or a notice: `LICENSE`, `LICENSE-MIT`, `COPYING.md`, but not `license.rs`.
fn holds_a_text(name: &str) -> bool {
    let name = name.to_lowercase();
    let rest = BEGINNINGS.iter().find_map(|beginning| name.strip_prefix(beginning));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.', '_']) && rest != ".rs")
}

#[cfg(test)]
mod tests {
    use herald_oci::Architecture;

    use super::*;
    use crate::{binaries::PROGRAMS, graph::Graph};

    #[test]
    fn everything_that_is_linked_brings_its_text_and_is_named() {
        let sources = Sources::of_workspace().unwrap();
        for architecture in Architecture::ALL {
            let graph = Graph::of(architecture).unwrap();
            for program in PROGRAMS {
                let crates = graph.reached(program).unwrap();
                let text = sources.texts(program, crates.clone()).unwrap();
                for (name, version) in crates.into_keys().filter(|key| !key.0.starts_with("herald-")) {
                    assert!(text.contains(&format!("\n{name} {version} (")), "{program}: no text of {name}");
                }
                for whose in ["(third_party/fiat/LICENSE)", "musl (COPYRIGHT)"] {
                    assert!(text.contains(whose), "{program}: no text of {whose}");
                }
                assert!(!text.contains(&root().display().to_string()) && !text.contains("registry/src"));
            }
        }
    }

    #[test]
    fn a_text_of_many_stands_there_once_and_one_without_must_be_apaches() {
        let mut texts = Texts::default();
        texts.add("b 1 (LICENSE)", "MIT\r\n\r\nfree  \n");
        texts.add("a 1 (LICENSE)", "\nMIT\n\nfree");
        texts.add("c 1 (COPYING)", "mine");
        let shown = texts.show().unwrap();
        assert_eq!(shown.matches("free").count(), 1);
        assert!(shown.contains("\na 1 (LICENSE)\nb 1 (LICENSE)\n"), "{shown}");

        let none = Sources(BTreeMap::from([(("d".to_owned(), "1.0.0".to_owned()), root().join("hack"))]));
        let key = ("d".to_owned(), "1.0.0".to_owned());
        let of = |licence: &str| Crate { licence: licence.to_owned(), repository: String::new() };
        let texts = |licence: &str| none.texts("herald-speaker", [(&key, &of(licence))]);
        assert!(texts("MIT OR Apache-2.0").unwrap().contains("d 1.0.0 (says Apache-2.0"));
        assert!(format!("{:#}", texts("MIT").unwrap_err()).contains("d 1.0.0 is under MIT"));
    }

    #[test]
    fn texts_are_told_from_code_by_their_names() {
        for name in
            ["LICENSE", "license-mit", "LICENSE-Apache-2.0_WITH_LLVM-exception", "COPYING.md", "NOTICE.txt"]
        {
            assert!(holds_a_text(name), "{name}");
        }
        for name in ["license.rs", "licensed", "README.md", "noticeboard.txt"] {
            assert!(!holds_a_text(name), "{name}");
        }
    }
}
