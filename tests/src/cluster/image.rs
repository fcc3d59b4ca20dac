//! Writing an image archive without a container daemon: one layer with one program, as docker-archive and OCI layout at
//! once, which `ctr images import` takes.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The lab's own image: pause by default, a backend with the argument `serve`.
pub const POD_IMAGE: &str = "lab.local/pod:1";

const BLOCK: usize = 512;

/// Writes `archive` with `program` as the image's only file and entrypoint.
pub(crate) fn write(archive: &Path, program: &Path) -> Result<()> {
    let binary = fs::read(program).with_context(|| format!("reading {}", program.display()))?;
    let mut layer = Tar::default();
    layer.add("pod", 0o755, &binary)?;
    let layer = layer.finish();
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = serde_json::to_vec(&json!({
        "architecture": architecture, "os": "linux",
        "config": { "Entrypoint": ["/pod"], "Cmd": ["pause"], "Env": ["PATH=/"] },
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
        "history": [{ "created_by": "herald-lab" }],
    }))?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    }))?;
    let entry = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(&manifest), "size": manifest.len(),
        "annotations": { "io.containerd.image.name": POD_IMAGE, "org.opencontainers.image.ref.name": "1" },
        "platform": { "architecture": architecture, "os": "linux" },
    });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });
    let docker = json!([{ "Config": blob(&config), "RepoTags": [POD_IMAGE], "Layers": [blob(&layer)] }]);

    let mut image = Tar::default();
    image.add("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    image.add("index.json", 0o644, &serde_json::to_vec(&index)?)?;
    for content in [&manifest, &config, &layer] {
        image.add(&blob(content), 0o644, content)?;
    }
    image.add("manifest.json", 0o644, &serde_json::to_vec(&docker)?)?;
    fs::write(archive, image.finish()).with_context(|| format!("writing {}", archive.display()))
}

fn hex(content: &[u8]) -> String {
    Sha256::digest(content).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex(content))
}

fn blob(content: &[u8]) -> String {
    format!("blobs/sha256/{}", hex(content))
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(content), "size": content.len() })
}

/// A tar archive in the making (POSIX ustar): regular files, root's, without a date.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        let mut header = Vec::with_capacity(BLOCK);
        let mut field = |value: &str, width: usize| {
            header.extend_from_slice(value.as_bytes());
            header.resize(header.len() + width.saturating_sub(value.len()), 0);
        };
        anyhow::ensure!(name.len() <= 100, "a file name of more than 100 bytes: {name}");
        field(name, 100);
        field(&format!("{mode:07o}"), 8);
        field("0000000", 8);
        field("0000000", 8);
        field(&format!("{:011o}", content.len()), 12);
        field("00000000000", 12);
        // Counted as blanks while the sum is made of all bytes.
        field("        ", 8);
        field("0", 1);
        field("", 100);
        field("ustar\x0000", 8);
        header.resize(BLOCK, 0);
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        let sum = format!("{sum:06o}\0 ");
        for (place, byte) in header.iter_mut().skip(148).zip(sum.bytes()) {
            *place = byte;
        }
        self.0.extend(header);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        Ok(())
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * BLOCK, 0);
        self.0
    }
}
