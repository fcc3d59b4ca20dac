//! The layer: a compressed tar archive of regular files, with capabilities as PAX records.

use std::io::Write as _;

use flate2::{Compression, GzBuilder};

use crate::{Blob, Error, digest};

/// A file of the image.
#[derive(Clone, Debug)]
pub struct File {
    /// Absolute path.
    pub path: String,
    /// Permission bits. The owner is root, so that the program's own user cannot change it.
    pub mode: u32,
    /// Its bytes.
    pub content: Vec<u8>,
    /// What a program may do when whoever runs it is allowed to have it.
    pub capability: Option<Capability>,
}

/// A file capability: permitted and effective when the program starts.
///
/// Kubernetes has no ambient capabilities, so a program that is not root gets one only from its file. A container that
/// does not have the capability in its bounding set cannot start such a program at all (EPERM).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Raw and packet sockets.
    NetRaw,
}

impl Capability {
    /// The extended attribute `security.capability`: `vfs_cap_data` of version 2, little endian (linux/capability.h).
    fn attribute(self) -> [u8; 20] {
        const VERSION_2_EFFECTIVE: u32 = 0x0200_0001;
        let Self::NetRaw = self;
        let permitted: u32 = 1 << 13;
        let words = [VERSION_2_EFFECTIVE, permitted, 0, 0, 0];
        let mut attribute = [0; 20];
        for (bytes, word) in attribute.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        attribute
    }
}

/// The layer as it is stored, and the digest of what is in it.
pub(crate) struct Layer {
    pub(crate) blob: Blob,
    /// Digest of the archive before compression, which is how a configuration names its layers.
    pub(crate) diff_id: String,
}

/// Writes the files in their order, all of one time.
pub(crate) fn write(files: &[File], modified: u64) -> Result<Layer, Error> {
    let mut archive = tar::Builder::new(Vec::new());
    for file in files {
        append(&mut archive, file, modified)
            .map_err(|error| Error::File { path: file.path.clone(), error })?;
    }
    let archive = archive.into_inner()?;
    // Without a time and a name in its header. The highest level: written once, downloaded by every node.
    let mut compressed = GzBuilder::new().write(Vec::new(), Compression::best());
    compressed.write_all(&archive)?;
    // gzip and not zstd, which docker-archive and old registries do not know.
    let blob = Blob::new("application/vnd.oci.image.layer.v1.tar+gzip", compressed.finish()?);
    Ok(Layer { blob, diff_id: digest(&archive) })
}

fn append(archive: &mut tar::Builder<Vec<u8>>, file: &File, modified: u64) -> std::io::Result<()> {
    if let Some(capability) = file.capability {
        // How every container runtime carries extended attributes (OCI image specification, layer.md).
        archive.append_pax_extensions([("SCHILY.xattr.security.capability", &capability.attribute()[..])])?;
    }
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(file.mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(modified);
    header.set_size(file.content.len() as u64);
    archive.append_data(&mut header, file.path.trim_start_matches('/'), file.content.as_slice())
}
