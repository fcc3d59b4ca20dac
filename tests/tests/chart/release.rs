//! The chart of a release, as the release workflow packages it.

use std::{collections::BTreeMap, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail, ensure};
use herald_lab::{Progress, programs, programs::Helm};
use herald_oci::{Architecture, File, Image, archive};
use serde_json::Value;

use crate::{documents, helm};

/// What is removed with the test.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Archives as `make image` writes them for a registry, with next to nothing in them.
fn archives(directory: &Directory) -> Result<()> {
    for program in ["herald-controller", "herald-speaker"] {
        let packed = Architecture::ALL.map(|architecture| {
            let file = File {
                path: format!("/{program}"),
                mode: 0o755,
                content: program.as_bytes().to_vec(),
                capability: None,
            };
            let image = Image {
                architecture,
                files: vec![file],
                entrypoint: vec![format!("/{program}")],
                cmd: Vec::new(),
                user: "65532:65532".to_owned(),
                labels: BTreeMap::new(),
                created: 0,
            };
            image.pack()
        });
        let packed: Vec<_> = packed.into_iter().collect::<Result<_, _>>()?;
        let archive = archive(&format!("heraldlb/{program}:9.9.9-rc.1"), &packed)?;
        std::fs::write(directory.0.join(format!("{program}.tar")), archive)?;
    }
    Ok(())
}

/// Packages it for a registry: the package.
fn package(directory: &Directory, registry: &str) -> Result<String> {
    let output = Command::new(programs::workspace().join("hack/package-chart.sh"))
        .env("HELM", Helm::Four.program(&Progress::quiet())?)
        .args(["9.9.9-rc.1", registry])
        .args([&directory.0, &directory.0])
        .output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(directory.0.join("herald-9.9.9-rc.1.tgz").display().to_string())
}

/// The images of all pods that are rendered, by container.
fn images(rendered: &str) -> Result<BTreeMap<String, String>> {
    let mut images = BTreeMap::new();
    for each in documents(rendered)? {
        let containers = each.pointer("/spec/template/spec/containers").and_then(Value::as_array);
        for container in containers.into_iter().flatten() {
            let text =
                |field: &str| container[field].as_str().map(str::to_owned).context("no name or no image");
            images.insert(text("name")?, text("image")?);
        }
    }
    Ok(images)
}

#[test]
fn a_released_chart_pulls_by_digest_what_is_pushed_and_a_tag_where_digests_are_cleared() -> Result<()> {
    let directory = Directory(std::env::temp_dir().join(format!("herald-release-{}", std::process::id())));
    std::fs::create_dir_all(&directory.0)?;
    archives(&directory)?;
    let package = package(&directory, "registry.example.org:5000/team/lan/")?;

    let rendered = images(&helm(&["template", "herald", &package])?)?;
    for (container, program) in
        [("controller", "herald-controller"), ("crds", "herald-controller"), ("speaker", "herald-speaker")]
    {
        // What skopeo pushes as it is: the blob that holds both architectures' manifests.
        let image = rendered.get(container).with_context(|| format!("no {container}: {rendered:?}"))?;
        let name = format!("registry.example.org:5000/team/lan/{program}@sha256:");
        let digest = image.strip_prefix(&name).with_context(|| format!("{container} pulls {image}"))?;
        let blob = Command::new("tar")
            .args(["-xOf", &directory.0.join(format!("{program}.tar")).display().to_string()])
            .arg(format!("blobs/sha256/{digest}"))
            .output()?;
        ensure!(
            herald_oci::digest(&blob.stdout) == format!("sha256:{digest}"),
            "{image} is not in {program}.tar"
        );
        let index: Value = serde_json::from_slice(&blob.stdout)?;
        ensure!(index["manifests"].as_array().is_some_and(|all| all.len() == 2), "{index}");
    }

    let Err(error) = helm(&["template", "herald", &package, "--set=image.tag=9.9.8"]) else {
        bail!("a tag was taken, and would have meant nothing");
    };
    let clear = "controller.image.digest=,speaker.image.digest=";
    ensure!(format!("{error:#}").contains(clear), "{error:#}");
    let clear = format!("--set={clear}");
    for (more, tag) in [("--set=image.tag=", "9.9.9-rc.1"), ("--set=image.tag=9.9.8", "9.9.8")] {
        let rendered = images(&helm(&["template", "herald", &package, &clear, more])?)?;
        ensure!(rendered["speaker"] == format!("registry.example.org:5000/team/lan/herald-speaker:{tag}"));
    }
    Ok(())
}

#[test]
fn a_registry_that_is_none_and_images_that_are_missing_are_refused() -> Result<()> {
    let directory = Directory(std::env::temp_dir().join(format!("herald-no-release-{}", std::process::id())));
    std::fs::create_dir_all(&directory.0)?;
    let refused = |registry: &str| match package(&directory, registry) {
        Ok(_) => bail!("{registry:?} was taken"),
        Err(error) => Ok(format!("{error:#}")),
    };
    for registry in ["", "registry.example.org", "https://registry.example.org/team"] {
        let error = refused(registry)?;
        ensure!(error.contains("host and path are needed"), "{registry:?}: {error}");
    }
    let error = refused("registry.example.org/team")?;
    ensure!(error.contains("herald-controller.tar"), "{error}");
    Ok(())
}
