//! The archive: an OCI image layout that is a docker-archive as well.

use std::collections::BTreeSet;

use serde_json::json;

use crate::{Blob, Error, Packed};

/// One file for one image, or for an image of several architectures, called `name` (`owner/image:tag`).
///
/// Of several architectures it is an OCI layout only: a docker-archive cannot say which is which.
pub fn archive(name: &str, images: &[Packed]) -> Result<Vec<u8>, Error> {
    let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    let names = json!({
        // By which `ctr images import` calls it, in full.
        "io.containerd.image.name": full(name),
        "org.opencontainers.image.ref.name": tag,
    });
    let mut archive = tar::Builder::new(Vec::new());
    let first = images.first().ok_or(Error::Empty)?;
    let (mut root, index) = if images.len() == 1 {
        (described(first), None)
    } else {
        let manifests: Vec<_> = images.iter().map(described).collect();
        let index =
            Blob::json(INDEX, &json!({ "manifests": manifests, "mediaType": INDEX, "schemaVersion": 2 }))?;
        (index.descriptor(), Some(index))
    };
    if let Some(root) = root.as_object_mut() {
        root.insert("annotations".to_owned(), names);
    }
    append(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let entry = json!({ "manifests": [root], "mediaType": INDEX, "schemaVersion": 2 });
    append(&mut archive, "index.json", &serde_json::to_vec(&entry)?)?;
    if images.len() == 1 {
        let docker =
            json!([{ "Config": first.config.path(), "Layers": [first.layer.path()], "RepoTags": [name] }]);
        append(&mut archive, "manifest.json", &serde_json::to_vec(&docker)?)?;
    }
    let blobs = images.iter().flat_map(|image| [&image.manifest, &image.config, &image.layer]);
    // Images may share a blob, such as a layer without programs.
    let mut written = BTreeSet::new();
    for blob in index.iter().chain(blobs) {
        if written.insert(&blob.digest) {
            append(&mut archive, &blob.path(), &blob.bytes)?;
        }
    }
    Ok(archive.into_inner()?)
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn described(image: &Packed) -> serde_json::Value {
    let mut descriptor = image.manifest.descriptor();
    if let Some(descriptor) = descriptor.as_object_mut() {
        let platform = json!({ "architecture": image.architecture.name(), "os": "linux" });
        descriptor.insert("platform".to_owned(), platform);
    }
    descriptor
}

/// The name with what every container runtime adds when it reads a short one (distribution's reference grammar): the
/// kubelet asks for images by their full names, and import adds nothing.
fn full(name: &str) -> String {
    match name.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    }
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8]) -> Result<(), Error> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    archive
        .append_data(&mut header, path, content)
        .map_err(|error| Error::File { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::full;

    #[test]
    fn short_names_become_what_the_kubelet_asks_for() {
        for (short, expected) in [
            ("heraldlb/herald-speaker:1", "docker.io/heraldlb/herald-speaker:1"),
            ("pause:3", "docker.io/library/pause:3"),
            ("registry.example.org/a/b:1", "registry.example.org/a/b:1"),
            ("localhost:5000/b:1", "localhost:5000/b:1"),
        ] {
            assert_eq!(full(short), expected);
        }
    }
}
