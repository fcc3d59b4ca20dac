//! Images as a container runtime reads them: every digest is that of the bytes it names, the capability is on the file
//! it was asked for, and the same input makes the same bytes.

#![cfg(test)]

use std::{
    collections::BTreeMap,
    io::{Cursor, Read as _},
};

use herald_oci::{Architecture, Capability, File, Image, Packed, archive, digest};
use serde_json::{Value, json};

const NAME: &str = "heraldlb/herald-speaker:0.1.0";

fn image(architecture: Architecture) -> Image {
    let program = File {
        path: "/herald-speaker".to_owned(),
        mode: 0o755,
        content: vec![0x7f; 100_000],
        capability: Some(Capability::NetRaw),
    };
    let passwd =
        File { path: "/etc/passwd".to_owned(), mode: 0o644, content: b"herald\n".to_vec(), capability: None };
    Image {
        architecture,
        files: vec![program, passwd],
        entrypoint: vec!["/herald-speaker".to_owned()],
        cmd: Vec::new(),
        user: "65532:65532".to_owned(),
        labels: BTreeMap::from([("org.opencontainers.image.version".to_owned(), "0.1.0".to_owned())]),
        created: 1_700_000_000,
    }
}

fn pack(architecture: Architecture) -> Packed {
    image(architecture).pack().unwrap()
}

/// Files by path, each with its content and its extended headers.
type Files = BTreeMap<String, (Vec<u8>, Vec<(String, Vec<u8>)>)>;

fn read(bytes: &[u8]) -> Files {
    let mut archive = tar::Archive::new(Cursor::new(bytes));
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut headers = Vec::new();
        if let Some(extensions) = entry.pax_extensions().unwrap() {
            for extension in extensions {
                let extension = extension.unwrap();
                headers.push((extension.key().unwrap().to_owned(), extension.value_bytes().to_vec()));
            }
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let path = entry.path().unwrap().to_string_lossy().into_owned();
        assert!(
            files.insert(path.clone(), (content, headers)).is_none(),
            "{path} stands in the archive once"
        );
    }
    files
}

/// The blob that a descriptor points to, after checking that it is the one.
fn blob(files: &Files, descriptor: &Value) -> Vec<u8> {
    let name = descriptor["digest"].as_str().unwrap();
    let content = files[&format!("blobs/{}", name.replace(':', "/"))].0.clone();
    assert_eq!(digest(&content), name);
    assert_eq!(descriptor["size"], content.len());
    content
}

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn an_archive_is_an_oci_layout_and_a_docker_archive_of_the_same_blobs() {
    let files = read(&archive(NAME, &[pack(Architecture::Arm64)]).unwrap());
    let entry = json_of(&files["index.json"].0)["manifests"][0].clone();
    assert_eq!(entry["annotations"]["io.containerd.image.name"], format!("docker.io/{NAME}"));
    assert_eq!(entry["platform"], json!({ "architecture": "arm64", "os": "linux" }));
    let manifest = json_of(&blob(&files, &entry));
    let config = json_of(&blob(&files, &manifest["config"]));
    let layer = blob(&files, &manifest["layers"][0]);

    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(layer.as_slice()).read_to_end(&mut plain).unwrap();
    assert_eq!(config["rootfs"]["diff_ids"][0], digest(&plain));
    assert_eq!(config["architecture"], "arm64");
    assert_eq!(config["created"], "2023-11-14T22:13:20Z");
    assert_eq!(config["config"]["User"], "65532:65532");
    assert_eq!(config["config"]["Labels"]["org.opencontainers.image.version"], "0.1.0");

    let docker = json_of(&files["manifest.json"].0)[0].clone();
    assert_eq!(docker["RepoTags"], json!([NAME]));
    let path = |digest: &Value| format!("blobs/{}", digest.as_str().unwrap().replace(':', "/"));
    assert_eq!(docker["Config"], path(&manifest["config"]["digest"]));
    assert_eq!(docker["Layers"], json!([path(&manifest["layers"][0]["digest"])]));
}

#[test]
fn the_capability_is_on_its_file_and_on_no_other() {
    let files = read(&archive(NAME, &[pack(Architecture::Amd64)]).unwrap());
    let entry = json_of(&files["index.json"].0)["manifests"][0].clone();
    let manifest = json_of(&blob(&files, &entry));
    let mut layer = Vec::new();
    let compressed = blob(&files, &manifest["layers"][0]);
    flate2::read::GzDecoder::new(compressed.as_slice()).read_to_end(&mut layer).unwrap();
    let layer = read(&layer);
    // What setcap(8) writes for cap_net_raw=ep.
    let expected = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec();
    assert_eq!(layer["herald-speaker"].1, [("SCHILY.xattr.security.capability".to_owned(), expected)]);
    assert_eq!(layer["etc/passwd"], (b"herald\n".to_vec(), Vec::new()));
    assert_eq!(layer.len(), 2);
}

#[test]
fn an_image_of_two_architectures_points_to_both() {
    let images = Architecture::ALL.map(pack);
    let files = read(&archive(NAME, &images).unwrap());
    assert!(!files.contains_key("manifest.json"), "a docker-archive cannot say which is which");
    let index = json_of(&blob(&files, &json_of(&files["index.json"].0)["manifests"][0]));
    for (entry, image) in index["manifests"].as_array().unwrap().iter().zip(&images) {
        assert_eq!(entry["digest"], image.digest());
        let manifest = json_of(&blob(&files, entry));
        let config = json_of(&blob(&files, &manifest["config"]));
        assert_eq!(config["architecture"], entry["platform"]["architecture"]);
    }
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
}

#[test]
fn the_same_input_makes_the_same_bytes_and_another_input_others() {
    let once = archive(NAME, &[pack(Architecture::Amd64)]).unwrap();
    assert_eq!(once, archive(NAME, &[pack(Architecture::Amd64)]).unwrap());
    let mut later = image(Architecture::Amd64);
    later.created += 1;
    assert_ne!(pack(Architecture::Amd64).digest(), later.pack().unwrap().digest());
}

#[test]
fn a_path_that_tar_cannot_hold_and_a_time_out_of_the_calendar_are_named() {
    let mut image = image(Architecture::Amd64);
    image.created = i64::MAX;
    assert!(image.pack().unwrap_err().to_string().contains("9223372036854775807 seconds after 1970"));
    image.created = 0;
    image.files[1].path = "/etc/../passwd".to_owned();
    assert!(image.pack().unwrap_err().to_string().starts_with("/etc/../passwd does not go into an image"));
    assert!(archive(NAME, &[]).unwrap_err().to_string().contains("at least one image"));
}
