//! The lab's own image: one program, no container daemon, nothing from anywhere.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};
use herald_oci::{Architecture, File, Image};

/// Pause by default, a backend with the argument `serve`.
pub const POD_IMAGE: &str = "lab.local/pod:1";
/// The public image that `examples/` run: what a cluster without a registry has to have in its place.
pub const STAND_IN: &str = "docker.io/nginxinc/nginx-unprivileged:stable-alpine";

/// Writes `archive` with `program` as the only file and entrypoint of an image called `name`, told `argument` by default.
pub(crate) fn write(archive: &Path, program: &Path, name: &str, argument: &str) -> Result<()> {
    let content = fs::read(program).with_context(|| format!("reading {}", program.display()))?;
    let architecture = Architecture::of_this_machine().context("no images are built for this machine")?;
    let image = Image {
        architecture,
        files: vec![File { path: "/pod".to_owned(), mode: 0o755, content, capability: None }],
        entrypoint: vec!["/pod".to_owned()],
        cmd: vec![argument.to_owned()],
        user: "65532".to_owned(),
        labels: BTreeMap::new(),
        created: 0,
    };
    let packed = image.pack().context("packing the pods' image")?;
    let bytes = herald_oci::archive(name, &[packed])?;
    fs::write(archive, bytes).with_context(|| format!("writing {}", archive.display()))
}
