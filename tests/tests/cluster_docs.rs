//! The README and docs/install, executed word for word on a full cluster: every block that says so. `make test-cluster`.
//!
//! A block of commands is marked by the comment `<!-- test: full-cluster NAME -->` before it. `kubectl` and `helm` run as
//! the administrator beside the control plane, `curl` on another machine of the LAN.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use herald_lab::{Cluster, ClusterPlan, cluster::STAND_IN, programs};

const PATIENCE: Duration = Duration::from_secs(30);
/// In the order in which a user would come by them; each marked block exactly once.
const STORY: [&str; 13] = [
    "talos-namespace",
    "readme-install",
    "readme-service",
    "readme-visit",
    "is-it-well",
    "readiness",
    "upgrade",
    "rollback",
    "uninstall",
    "install",
    // The Service has the address that it had before.
    "readme-visit",
    "remove-everything",
    "kustomize",
];

/// The commands of every marked block of the README and docs/, by name.
fn blocks() -> Result<BTreeMap<String, String>> {
    let root = programs::workspace();
    let mut files = vec![root.join("README.md")];
    let mut directories = vec![root.join("docs")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                files.push(path);
            }
        }
    }
    let mut found = BTreeMap::new();
    for file in files {
        for (name, commands) in marked(&fs::read_to_string(&file)?) {
            ensure!(!commands.is_empty(), "{}: block {name} has no line that begins with $", file.display());
            ensure!(
                found.insert(name.clone(), commands).is_none(),
                "{}: {name} is a name twice",
                file.display()
            );
        }
    }
    Ok(found)
}

/// The marked blocks of one page: their names and the lines behind the prompts.
fn marked(page: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let (mut name, mut inside) = (None, false);
    for line in page.lines().map(str::trim) {
        if let Some(mark) = line.strip_prefix("<!-- test: full-cluster ") {
            name = Some(mark.trim_end_matches("-->").trim().to_owned());
        } else if line.starts_with("```") {
            if inside {
                inside = false;
            } else if let Some(name) = name.take() {
                inside = true;
                found.push((name, String::new()));
            }
        } else if let (true, Some(command), Some((_, commands))) =
            (inside, line.strip_prefix("$ "), found.last_mut())
        {
            commands.push_str(command);
            commands.push('\n');
        }
    }
    found
}

/// Runs one block as a person would: line by line, up to the first that fails.
fn run(cluster: &Cluster, programs: &Path, commands: &str) -> Result<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let script = format!(
        "cd '{}' && export HOME='{}' PATH='{}':'{path}'\nset -e\n{commands}",
        programs::workspace().display(),
        cluster.dir().display(),
        programs.display()
    );
    cluster.control_plane().host().netns.output("sh", &["-c", &script])
}

#[test]
fn commands_are_read_from_marked_blocks_alone_also_within_lists() {
    let page = "```console\n$ not me\n```\n   <!-- test: full-cluster one -->\n   ```console\n   $ a b\n   output\n   \
                $ c\n   ```\n```console\n$ nor me\n```\n";
    assert_eq!(marked(page), [("one".to_owned(), "a b\nc\n".to_owned())]);
}

#[test]
fn every_marked_block_is_in_the_story() -> Result<()> {
    let blocks = blocks()?;
    let missing: Vec<&String> = blocks.keys().filter(|name| !STORY.contains(&name.as_str())).collect();
    ensure!(missing.is_empty(), "marked to be run, and run nowhere: {missing:?}");
    let unknown: Vec<&str> = STORY.into_iter().filter(|&name| !blocks.contains_key(name)).collect();
    ensure!(unknown.is_empty(), "no page has a block called {unknown:?}");
    Ok(())
}

#[test]
#[ignore = "a full cluster: make test-cluster"]
fn the_pages_commands_do_what_the_pages_say() -> Result<()> {
    let blocks = blocks()?;
    let plan = ClusterPlan::nodes(3).with_images(programs::images()?);
    let plan = plan.with_stand_in(STAND_IN);
    let cluster = plan.start()?;
    let programs = cluster.write_user_programs()?;
    let mut told = String::new();
    for name in STORY {
        let commands = blocks.get(name).with_context(|| format!("no page has a block called {name}"))?;
        match run(&cluster, &programs, commands) {
            Ok(output) => writeln!(told, "== {name}\n{output}")?,
            Err(error) => bail!("{name}:\n{commands}{error:#}\nbefore that:\n{told}"),
        }
    }
    let visits = told.matches(" client=").count();
    ensure!(
        visits == 2,
        "curl was answered {visits} times by a pod, not before and after the new install:\n{told}"
    );
    // What the manifests brought up serves, too.
    cluster.await_herald()?;
    let address = *cluster.await_addresses("default", "web")?.first().context("no address")?;
    cluster.await_holder(address)?;
    cluster.client().http_get_until_ok(address, 80, PATIENCE)?;
    Ok(())
}
