//! Container images from scratch, without a container daemon: files in, archives out.
//!
//! An [`Image`] is one layer of files with its configuration. [`Image::pack`] makes its blobs, [`archive`] the file that
//! `ctr images import`, `k3s ctr images import`, `docker load`, `podman load` and `skopeo copy` take: an OCI image layout
//! and a docker-archive at once, sharing their blobs.
//!
//! Holds always: the same input gives the same bytes. Order is the caller's, owners are root, and the only time is
//! [`Image::created`]. Builds nothing and asks nobody: programs come as bytes.

mod layer;
mod layout;

use std::collections::BTreeMap;

use serde_json::json;
use sha2::{Digest as _, Sha256};

pub use layer::{Capability, File};
pub use layout::archive;

/// What can go wrong in making an image; all of it is the caller's input.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tar crate refused a path or a length.
    #[error("{path} does not go into an image: {error}")]
    File {
        /// Path in the image.
        path: String,
        /// What was wrong with it.
        error: std::io::Error,
    },
    /// Compressing or closing an archive in memory.
    #[error("writing the archive: {0}")]
    Archive(#[from] std::io::Error),
    /// A time that no calendar has.
    #[error("{seconds} seconds after 1970 is no time that an image can be of: {error}")]
    Created {
        /// The time that was given.
        seconds: i64,
        /// The calendar's answer.
        error: jiff::Error,
    },
    /// JSON of plain strings; does not happen.
    #[error("writing JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// An archive of no image.
    #[error("an archive needs at least one image")]
    Empty,
}

/// A processor architecture, as images name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// x86_64.
    Amd64,
    /// aarch64: Raspberry Pi 3 and later with a 64-bit system.
    Arm64,
}

impl Architecture {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];

    /// Its name in images and file names (the Go project's GOARCH).
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The one that this program was built for, if images are made for it.
    pub fn of_this_machine() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::Amd64),
            "aarch64" => Some(Self::Arm64),
            _ => None,
        }
    }
}

/// An image of one layer.
#[derive(Clone, Debug)]
pub struct Image {
    /// What its programs run on.
    pub architecture: Architecture,
    /// Everything in it, in the order of the layer.
    pub files: Vec<File>,
    /// The program and the arguments that always come first.
    pub entrypoint: Vec<String>,
    /// The arguments unless somebody gives others.
    pub cmd: Vec<String>,
    /// `uid:gid`, in numbers: the kubelet's `runAsNonRoot` cannot judge a name. Empty is root.
    pub user: String,
    /// Labels of the configuration, which are the manifest's annotations too (`org.opencontainers.image.*`).
    pub labels: BTreeMap<String, String>,
    /// Seconds since 1970 for everything that has a time: `SOURCE_DATE_EPOCH`, the commit's time, or 0.
    pub created: i64,
}

/// An image as blobs.
#[derive(Clone, Debug)]
pub struct Packed {
    architecture: Architecture,
    manifest: Blob,
    config: Blob,
    layer: Blob,
}

impl Image {
    /// Makes the blobs.
    pub fn pack(&self) -> Result<Packed, Error> {
        let created = jiff::Timestamp::from_second(self.created)
            .map_err(|error| Error::Created { seconds: self.created, error })?
            .to_string();
        let layer = layer::write(&self.files, self.created.unsigned_abs())?;
        // OCI image specification 1.1, config.md.
        let config = Blob::json(
            "application/vnd.oci.image.config.v1+json",
            &json!({
                "architecture": self.architecture.name(),
                "config": {
                    "Cmd": self.cmd,
                    "Entrypoint": self.entrypoint,
                    "Env": ["PATH=/"],
                    "Labels": self.labels,
                    "User": self.user,
                    "WorkingDir": "/",
                },
                "created": created,
                "history": [{ "created": created, "created_by": "herald-oci" }],
                "os": "linux",
                "rootfs": { "diff_ids": [layer.diff_id], "type": "layers" },
            }),
        )?;
        // manifest.md.
        let manifest = Blob::json(
            MANIFEST,
            &json!({
                "annotations": self.labels,
                "config": config.descriptor(),
                "layers": [layer.blob.descriptor()],
                "mediaType": MANIFEST,
                "schemaVersion": 2,
            }),
        )?;
        Ok(Packed { architecture: self.architecture, manifest, config, layer: layer.blob })
    }
}

impl Packed {
    /// The digest that names the image wherever it goes.
    pub fn digest(&self) -> &str {
        &self.manifest.digest
    }

    /// What a node downloads: layer and configuration, compressed.
    pub fn size(&self) -> usize {
        self.layer.bytes.len() + self.config.bytes.len() + self.manifest.bytes.len()
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Bytes that are named by what they are.
#[derive(Clone, Debug)]
struct Blob {
    media_type: &'static str,
    digest: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn new(media_type: &'static str, bytes: Vec<u8>) -> Self {
        Self { media_type, digest: digest(&bytes), bytes }
    }

    fn json(media_type: &'static str, value: &serde_json::Value) -> Result<Self, Error> {
        Ok(Self::new(media_type, serde_json::to_vec(value)?))
    }

    fn descriptor(&self) -> serde_json::Value {
        json!({ "digest": self.digest, "mediaType": self.media_type, "size": self.bytes.len() })
    }

    /// Where an OCI layout keeps it (image-layout.md).
    fn path(&self) -> String {
        format!("blobs/{}", self.digest.replace(':', "/"))
    }
}

/// `sha256:` and 64 hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}
