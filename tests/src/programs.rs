//! Finding the programs a lab runs: Kubernetes' own, Herald's, and its rivals'.
//!
//! Kubernetes' programs are all one binary built from `tests/controlplane` with Go, kept outside the source tree under a
//! name that changes with its sources, so it is built once per version and machine. A directory with somebody's own
//! `etcd`, `kube-apiserver`, ... (as envtest's `KUBEBUILDER_ASSETS`) comes first.

use std::{
    collections::hash_map::DefaultHasher,
    env,
    hash::{Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use herald_oci::Architecture;

use crate::progress::Progress;

/// Directories looked into for a user's own Kubernetes programs, by environment variable.
const OWN_PROGRAMS: [&str; 2] = ["HERALD_KUBERNETES_BIN", "KUBEBUILDER_ASSETS"];

/// What each cached build is made from, in its folder; the file's name in the cache changes with every one of them.
const CONTROL_PLANE: (&str, &[&str]) = ("tests/controlplane", &["go.mod", "go.sum", "main.go"]);
const RIVALS: (&str, &[&str]) = ("tests/rivals", &["go.mod", "go.sum"]);

/// MetalLB's Go module.
const METALLB: &str = "go.universe.tf/metallb";
/// Its manifests within it, for its own layer-2 mode.
const METALLB_MANIFEST: &str = "config/manifests/metallb-native.yaml";

/// How often a long build says that it goes on.
const REPORT: Duration = Duration::from_secs(30);

/// Kubernetes' programs.
#[derive(Debug, Clone)]
pub struct Kubernetes {
    own: Vec<PathBuf>,
    multicall: PathBuf,
}

impl Kubernetes {
    /// Finds the programs, building the multi-call binary first if this machine has not yet.
    pub fn find_or_build(progress: &Progress) -> Result<Self> {
        let own: Vec<PathBuf> = OWN_PROGRAMS.iter().filter_map(env::var_os).map(PathBuf::from).collect();
        let complete = |dir: &PathBuf| Program::ALL.iter().all(|program| dir.join(program.name()).is_file());
        let multicall = cache_dir()?.join(format!("kubernetes-{:016x}", sources_hash(CONTROL_PLANE)?));
        if !own.iter().any(complete) && !multicall.is_file() {
            build(&multicall, progress)?;
        }
        Ok(Self { own, multicall })
    }

    /// The same, certain to have `programs` beyond those that every lab needs.
    pub fn with(self, programs: &[Program], progress: &Progress) -> Result<Self> {
        let found = |program: &Program| self.own.iter().any(|dir| dir.join(program.name()).is_file());
        if !programs.iter().all(found) && !self.multicall.is_file() {
            build(&self.multicall, progress)?;
        }
        Ok(self)
    }

    /// The binary to run for `program`, and the arguments that come before its own.
    pub fn program(&self, program: Program) -> (PathBuf, Vec<String>) {
        let name = program.name();
        match self.own.iter().map(|dir| dir.join(name)).find(|file| file.is_file()) {
            Some(file) => (file, Vec::new()),
            None => (self.multicall.clone(), vec![name.to_owned()]),
        }
    }
}

/// One of Kubernetes' programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// etcd
    Etcd,
    /// kube-apiserver
    ApiServer,
    /// kube-controller-manager
    ControllerManager,
    /// kube-proxy
    Proxy,
    /// kube-scheduler
    Scheduler,
    /// kubelet
    Kubelet,
    /// kubectl
    Kubectl,
}

impl Program {
    const ALL: [Self; 5] = [Self::Etcd, Self::ApiServer, Self::ControllerManager, Self::Proxy, Self::Kubectl];

    /// The name it is known by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Proxy => "kube-proxy",
            Self::Scheduler => "kube-scheduler",
            Self::Kubelet => "kubelet",
            Self::Kubectl => "kubectl",
        }
    }
}

/// A helm that the chart is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Helm {
    /// The one that the full cluster uses; another where `HELM` names it.
    Four,
    /// What many still have.
    Three,
}

impl Helm {
    /// Each of them.
    pub const ALL: [Self; 2] = [Self::Four, Self::Three];

    /// The version that is built; that of Helm 4 stands in the Makefile, too.
    fn version(self) -> &'static str {
        match self {
            Self::Four => "4.3.1",
            Self::Three => "3.22.0",
        }
    }

    /// Go's package, and flags of its linker.
    fn package(self) -> (String, String) {
        let stripped = "-s -w".to_owned();
        match self {
            Self::Four => ("helm.sh/helm/v4/cmd/helm".to_owned(), stripped),
            Self::Three => {
                // As its own Makefile does: otherwise `helm template` takes the cluster to be Kubernetes 1.20.
                let minor =
                    "pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=37";
                ("helm.sh/helm/v3/cmd/helm".to_owned(), format!("{stripped} -X helm.sh/helm/v3/{minor}"))
            }
        }
    }

    /// The program, built once per machine.
    pub fn program(self, progress: &Progress) -> Result<PathBuf> {
        // Tests of one process ask at the same time.
        static BUILDING: Mutex<()> = Mutex::new(());
        let own = env::var_os("HELM").filter(|own| !own.is_empty() && self == Self::Four);
        if let Some(own) = own {
            return Ok(PathBuf::from(own));
        }
        let dir = cache_dir()?.join("tools/bin");
        let file = dir.join(format!("helm-{}", self.version()));
        let _one = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
        if file.is_file() {
            return Ok(file);
        }
        let partial = dir.join(format!("helm-partial-{}", std::process::id()));
        std::fs::create_dir_all(&partial).with_context(|| format!("creating {}", partial.display()))?;
        let (package, flags) = self.package();
        let mut compiler = Command::new("go");
        compiler
            .env("GOBIN", &partial)
            .env("CGO_ENABLED", "0")
            .args(["install", "-trimpath", "-ldflags", &flags])
            .arg(format!("{package}@v{}", self.version()));
        compile(&mut compiler, &format!("helm {}", self.version()), "two minutes", progress)?;
        std::fs::rename(partial.join("helm"), &file)?;
        std::fs::remove_dir(&partial)?;
        Ok(file)
    }
}

/// The root of the source tree.
pub fn workspace() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// Herald's own program `name` (`herald-controller`, `herald-speaker`), as `make` built it.
pub fn herald(name: &str) -> Result<PathBuf> {
    let dir = match (env::var_os("HERALD_BIN_DIR"), env::var_os("CARGO_TARGET_DIR")) {
        (Some(dir), _) => PathBuf::from(dir),
        (None, Some(target)) => workspace().join(target).join("release"),
        (None, None) => workspace().join("target/release"),
    };
    let file = dir.join(name);
    if !file.is_file() {
        bail!(
            "{} is missing: `make binaries` builds it, HERALD_BIN_DIR names another directory",
            file.display()
        );
    }
    Ok(file)
}

/// The lab's own program for pods, static, as `make` built it.
pub fn pod() -> Result<PathBuf> {
    let builds = env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    let triple = format!("{}-unknown-linux-musl", env::consts::ARCH);
    let file = workspace().join(builds).join(triple).join("release/herald-pod");
    if !file.is_file() {
        bail!("{} is missing: `make pod` builds it", file.display());
    }
    Ok(file)
}

/// The image archives of Herald for this machine, as `make image` wrote them; `HERALD_IMAGES` names another directory.
pub fn images() -> Result<Vec<PathBuf>> {
    let dir = env::var_os("HERALD_IMAGES").map_or_else(|| workspace().join("dist/images"), PathBuf::from);
    let architecture = Architecture::of_this_machine()
        .context("no images are built for this machine's architecture")?
        .name();
    let files =
        ["controller", "speaker"].map(|name| dir.join(format!("herald-{name}-linux-{architecture}.tar")));
    if let Some(missing) = files.iter().find(|file| !file.is_file()) {
        bail!("{} is missing: `make image` writes it", missing.display());
    }
    Ok(files.to_vec())
}

/// MetalLB: its programs as its own module builds them, and what `kubectl apply` installs.
#[derive(Debug, Clone)]
pub struct MetallbPrograms {
    /// Its version, as in `v0.16.1`.
    pub version: String,
    /// The controller's program.
    pub controller: PathBuf,
    /// The speaker's.
    pub speaker: PathBuf,
    /// CRDs, rights and workloads.
    pub manifest: PathBuf,
}

/// MetalLB of the pinned version, built once per machine.
pub fn metallb(progress: &Progress) -> Result<MetallbPrograms> {
    let version = pinned(RIVALS.0, METALLB)?;
    let dir = cache_dir()?.join(format!("metallb-{:016x}", sources_hash(RIVALS)?));
    if !dir.is_dir() {
        build_metallb(&dir, &version, progress)?;
    }
    Ok(MetallbPrograms {
        version,
        controller: dir.join("controller"),
        speaker: dir.join("speaker"),
        manifest: dir.join("manifest.yaml"),
    })
}

fn build_metallb(dir: &Path, version: &str, progress: &Progress) -> Result<()> {
    let partial = dir.with_extension(format!("partial-{}", std::process::id()));
    std::fs::create_dir_all(&partial).with_context(|| format!("creating {}", partial.display()))?;
    let sources = workspace().join(RIVALS.0);
    let mut compiler = Command::new("go");
    compiler
        .current_dir(&sources)
        .env("CGO_ENABLED", "0")
        .args(["build", "-mod=readonly", "-trimpath", "-ldflags", "-s -w", "-o"])
        .arg(&partial)
        .args(["controller", "speaker"].map(|program| format!("{METALLB}/{program}")));
    compile(&mut compiler, &format!("MetalLB {version}"), "three minutes", progress)?;
    // From the module that was just built, so that programs and manifests are of one version.
    let found = Command::new("go")
        .current_dir(&sources)
        .args(["list", "-mod=readonly", "-m", "-f", "{{.Dir}}", METALLB])
        .output()
        .context("starting go")?;
    let module = PathBuf::from(String::from_utf8_lossy(&found.stdout).trim());
    let manifest = module.join(METALLB_MANIFEST);
    std::fs::copy(&manifest, partial.join("manifest.yaml"))
        .with_context(|| format!("copying {}", manifest.display()))?;
    std::fs::rename(&partial, dir)?;
    Ok(())
}

fn build(binary: &Path, progress: &Progress) -> Result<()> {
    let dir = binary.parent().context("the cache has no directory")?;
    std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    let version = pinned(CONTROL_PLANE.0, "k8s.io/kubernetes")?;
    let (major, minor) =
        version.trim_start_matches('v').split_once('.').context("a version without a minor")?;
    let minor = minor.split('.').next().unwrap_or(minor);
    let partial = binary.with_extension(format!("partial-{}", std::process::id()));
    let stamp = "-X k8s.io/component-base/version";
    let mut compiler = Command::new("go");
    compiler
        .current_dir(workspace().join(CONTROL_PLANE.0))
        .env("CGO_ENABLED", "0")
        .args(["build", "-mod=readonly", "-trimpath", "-ldflags"])
        .arg(format!("-s -w {stamp}.gitVersion={version} {stamp}.gitMajor={major} {stamp}.gitMinor={minor}"))
        .arg("-o")
        .arg(&partial)
        .arg(".");
    compile(
        &mut compiler,
        &format!("Kubernetes {version} and etcd into one binary"),
        "five minutes",
        progress,
    )?;
    // Renamed last, so that a build that was interrupted or ran twice never leaves half a binary.
    std::fs::rename(&partial, binary)?;
    Ok(())
}

/// Runs Go's compiler on `what` and says that it goes on.
fn compile(compiler: &mut Command, what: &str, time: &str, progress: &Progress) -> Result<()> {
    progress.say(&format!("building {what}: once per machine, about {time} on two cores"));
    let begun = Instant::now();
    let mut said = Duration::ZERO;
    let mut compiler = compiler
        .spawn()
        .context("starting go: the lab builds its programs with Go 1.26 or newer (https://go.dev/dl)")?;
    let status = loop {
        if let Some(status) = compiler.try_wait()? {
            break status;
        }
        // The standard library can't wait for a child and the clock at once.
        std::thread::park_timeout(Duration::from_millis(200));
        if begun.elapsed() >= said + REPORT {
            said = begun.elapsed();
            progress.say(&format!("still building, {} s so far", said.as_secs()));
        }
    };
    if !status.success() {
        bail!("building {what} failed ({status}); go's messages are above");
    }
    progress.say(&format!("built {what} in {} s", begun.elapsed().as_secs()));
    Ok(())
}

fn cache_dir() -> Result<PathBuf> {
    let base = match (env::var_os("XDG_CACHE_HOME"), env::var_os("HOME")) {
        (Some(cache), _) if !cache.is_empty() => PathBuf::from(cache),
        (_, Some(home)) => PathBuf::from(home).join(".cache"),
        _ => bail!("neither XDG_CACHE_HOME nor HOME is set: no place to keep the built control plane"),
    };
    Ok(base.join("herald-lab"))
}

/// Changes with everything that is built from them. Only a name for a cache file, hence the standard hasher.
fn sources_hash((folder, files): (&str, &[&str])) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    for file in files {
        let file = workspace().join(folder).join(file);
        std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?.hash(&mut hasher);
    }
    Ok(hasher.finish())
}

/// The version of `module` that the go.mod in `folder` pins.
fn pinned(folder: &str, module: &str) -> Result<String> {
    let file = workspace().join(folder).join("go.mod");
    let text = std::fs::read_to_string(&file)?;
    let rest = |line: &str| {
        let line = line.trim().trim_start_matches("require ").strip_prefix(module)?.strip_prefix(' ')?;
        line.split_whitespace().next().map(str::to_owned)
    };
    text.lines().find_map(rest).with_context(|| format!("{} does not name {module}", file.display()))
}
