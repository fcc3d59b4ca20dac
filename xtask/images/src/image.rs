//! The images of both programs and their lists of ingredients, in `dist/`.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context as _;
use clap::Parser;
use herald_oci::{Architecture, Capability, File, Image, Packed, archive};

use crate::{
    binaries::{self, PROGRAMS, Source},
    licences::{self, Sources},
    root,
    sbom::Ingredients,
};

/// `nonroot` of many base images; the chart runs both programs as this user.
const USER: u32 = 65532;
const REPOSITORY: &str = "https://github.com/heraldlb/herald";

/// Builds both programs and writes their images to dist/images.
#[derive(Parser)]
pub(crate) struct Options {
    /// amd64 or arm64; both unless given.
    #[arg(long = "arch", value_parser = architecture)]
    architectures: Vec<Architecture>,
    /// The profile that the programs are built with: `dev` for a try in a minute, but for nothing else.
    #[arg(long, default_value = "dist")]
    profile: String,
}

fn architecture(text: &str) -> Result<Architecture, String> {
    let found = Architecture::ALL.into_iter().find(|architecture| architecture.name() == text);
    found.ok_or_else(|| "images are made for amd64 and arm64".to_owned())
}

/// Builds the programs and writes `dist/images/PROGRAM-linux-ARCH.tar` with its `.cdx.json` and `.licenses.txt`, and `PROGRAM.tar` for a
/// registry where both architectures were asked for.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let source = Source::of_workspace()?;
    let directory = root().join("dist/images");
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    let architectures: &[Architecture] = match options.architectures.as_slice() {
        [] => &Architecture::ALL,
        given => given,
    };
    let sources = Sources::of_workspace()?;
    let mut packed: BTreeMap<&str, Vec<Packed>> = BTreeMap::new();
    for &architecture in architectures {
        let ingredients = Ingredients::of(architecture)?;
        for (program, path) in
            PROGRAMS.into_iter().zip(binaries::build(architecture, &options.profile, &source)?)
        {
            let binary = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            let stem = format!("{program}-linux-{}", architecture.name());
            let document = ingredients.document(program, &binary, &source)?;
            write(&directory.join(format!("{stem}.cdx.json")), document.as_bytes())?;
            let texts = sources.texts(program, ingredients.crates(program)?)?;
            write(&directory.join(format!("{stem}.licenses.txt")), texts.as_bytes())?;
            let image = image(program, binary, licences(texts)?, architecture, &source).pack()?;
            let file = directory.join(format!("{stem}.tar"));
            write(&file, &archive(&name(program), std::slice::from_ref(&image))?)?;
            println!("{}  {}  {}", image.digest(), mebibytes(image.size()), file.display());
            packed.entry(program).or_default().push(image);
        }
    }
    for (program, images) in packed {
        if images.len() == Architecture::ALL.len() {
            write(&directory.join(format!("{program}.tar")), &archive(&name(program), &images)?)?;
        }
    }
    Ok(())
}

fn name(program: &str) -> String {
    format!("heraldlb/{program}:{}", env!("CARGO_PKG_VERSION"))
}

/// What has to go with the program wherever it goes.
fn licences(texts: String) -> anyhow::Result<[File; 3]> {
    Ok([
        text("/licenses/LICENSE", include_bytes!("../../../LICENSE").to_vec()),
        text("/licenses/THIRD-PARTY-LICENSES", texts.into_bytes()),
        text("/licenses/rust-standard-library.html", licences::of_rust()?),
    ])
}

fn text(path: &str, content: Vec<u8>) -> File {
    File { path: path.to_owned(), mode: 0o644, content, capability: None }
}

/// Nothing but the program, the name of its user and the licences. No certificates: the cluster's own come with the pod.
fn image(
    program: &str,
    binary: Vec<u8>,
    licences: [File; 3],
    architecture: Architecture,
    source: &Source,
) -> Image {
    // The controller must not carry it: a file with a capability that the container may not have does not start.
    let capability = (program == "herald-speaker").then_some(Capability::NetRaw);
    let mut files = vec![
        text("/etc/group", format!("herald:x:{USER}:\n").into_bytes()),
        text("/etc/passwd", format!("herald:x:{USER}:{USER}:Herald:/:/sbin/nologin\n").into_bytes()),
    ];
    files.push(File { path: format!("/{program}"), mode: 0o755, content: binary, capability });
    files.extend(licences);
    let description = match program {
        "herald-speaker" => "Answers for load balancer addresses on a node's LAN",
        _ => "Gives Services of type LoadBalancer their addresses",
    };
    let labels = [
        ("title", program),
        ("description", description),
        ("licenses", "Apache-2.0"),
        ("source", REPOSITORY),
        ("revision", &source.revision),
        ("version", env!("CARGO_PKG_VERSION")),
    ];
    Image {
        architecture,
        files,
        entrypoint: vec![format!("/{program}")],
        cmd: Vec::new(),
        user: format!("{USER}:{USER}"),
        labels: labels
            .map(|(key, value)| (format!("org.opencontainers.image.{key}"), value.to_owned()))
            .into(),
        created: source.time,
    }
}

fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    fs::write(path, content).with_context(|| format!("writing {}", path.display()))
}

fn mebibytes(bytes: usize) -> String {
    let tenths = bytes * 10 / (1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}
