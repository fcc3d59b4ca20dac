//! The command line: `kubectl herald ...`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// LoadBalancer addresses on bare metal: move over from MetalLB, and see why a Service has the address it has.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "kubectl-herald",
    bin_name = "kubectl herald",
    version = herald_runtime::LONG_VERSION,
    after_help = "Exit codes: 0 done; 1 the cluster did not answer, a right is missing or a write failed; 2 wrong \
                  flags or input; 3 import found problems (and applied nothing); 4 applied, but not every Service was \
                  taken over in time, or one changed its address."
)]
pub struct Cli {
    /// How to reach the cluster.
    #[command(flatten)]
    pub cluster: ClusterFlags,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// As kubectl has them.
#[derive(Clone, Debug, Default, Args)]
pub struct ClusterFlags {
    /// The kubeconfig file; without it $KUBECONFIG, ~/.kube/config, or the pod's service account.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig to use.
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,

    /// The Service's namespace; without it the context's.
    #[arg(long, short, global = true, value_name = "NAMESPACE")]
    pub namespace: Option<String>,

    /// The spec.loadBalancerClass that Herald's controller serves; without it Services that name no class.
    #[arg(long, global = true, value_name = "CLASS")]
    pub load_balancer_class: Option<String>,
}

/// A subcommand.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Turn another load balancer's configuration into Herald's.
    #[command(subcommand)]
    Import(Import),
    /// Say why a Service has its address, or none: what it asks for, the pool, the address, who announces it.
    Explain(Explain),
}

/// Where to import from.
#[derive(Clone, Debug, Subcommand)]
pub enum Import {
    /// Read MetalLB's objects and print Herald's, with a report of what would become of every Service.
    Metallb(Metallb),
}

/// `import metallb`.
#[derive(Clone, Debug, Default, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct Metallb {
    /// Read MetalLB's objects from this YAML file (- is stdin) instead of the cluster; also its old ConfigMap.
    #[arg(long, short, value_name = "FILE")]
    pub filename: Vec<PathBuf>,

    /// Ask no cluster: the files may hold Services and Namespaces too (kubectl get ns,svc -A -o yaml).
    #[arg(long, requires = "filename", conflicts_with = "apply")]
    pub offline: bool,

    /// The namespace that MetalLB runs in: it reads its objects there only. Needed when there are some in several.
    #[arg(long, value_name = "NAMESPACE")]
    pub metallb_namespace: Option<String>,

    /// What stdout gets: Herald's objects as yaml, the whole plan as json, or the report as a table.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: ImportOutput,

    /// Apply Herald's objects, then wait until every Service was taken over with its address unchanged.
    #[arg(long)]
    pub apply: bool,

    /// Apply although the report names problems.
    #[arg(long, requires = "apply")]
    pub despite_problems: bool,

    /// How many seconds --apply waits for Herald's controller to take over the Services; 0: don't wait.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "apply")]
    pub wait: u32,

    /// Take status.loadBalancer of the Services over from MetalLB's controller, so that Herald may change it later.
    #[arg(long, requires = "apply", requires = "i_stopped_metallb")]
    pub take_over: bool,

    /// You say that MetalLB's controller is stopped and stays so. Needed for --take-over.
    #[arg(long)]
    pub i_stopped_metallb: bool,

    /// The field manager under which MetalLB's controller writes: the name of its program.
    #[arg(long, value_name = "NAME", default_value = "controller")]
    pub metallb_manager: String,
}

/// `explain`.
#[derive(Clone, Debug, Args)]
pub struct Explain {
    /// The Service, as svc/NAME, service/NAME or NAME.
    #[arg(value_name = "svc/NAME")]
    pub service: String,

    /// How to print it.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: ExplainOutput,

    /// The namespace that Herald runs in.
    #[arg(long, value_name = "NAMESPACE", default_value = "herald-system")]
    pub herald_namespace: String,
}

/// What `import` prints to stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ImportOutput {
    /// Herald's objects; the report goes to stderr as a table.
    #[default]
    Yaml,
    /// Objects, findings and Services in one document.
    Json,
    /// The report as a table, and no objects.
    Table,
}

/// How `explain` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ExplainOutput {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
}

impl Explain {
    /// The Service's name.
    pub fn name(&self) -> Result<&str, String> {
        let name = match self.service.split_once('/') {
            None => self.service.as_str(),
            Some(("svc" | "service" | "services", name)) => name,
            Some((kind, _)) => {
                return Err(format!("'{kind}' can't be explained, only a Service: svc/NAME"));
            }
        };
        if name.is_empty() { Err("the Service's name is missing: svc/NAME".to_owned()) } else { Ok(name) }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn taking_over_needs_the_word_that_metallb_is_stopped() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        assert!(parse("kubectl-herald import metallb --apply --take-over --i-stopped-metallb").is_ok());
        for refused in [
            "kubectl-herald import metallb --apply --take-over",
            "kubectl-herald import metallb --take-over --i-stopped-metallb",
            "kubectl-herald import metallb --offline",
            "kubectl-herald import metallb -f x --offline --apply",
        ] {
            assert!(parse(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_service_is_named_as_for_kubectl() {
        let name = |service: &str| {
            let explain = Explain {
                service: service.to_owned(),
                output: ExplainOutput::Table,
                herald_namespace: String::new(),
            };
            explain.name().map(str::to_owned)
        };
        for ok in ["web", "svc/web", "service/web", "services/web"] {
            assert_eq!(name(ok).as_deref(), Ok("web"));
        }
        for (wrong, says) in [("pod/web", "'pod' can't be explained"), ("svc/", "name is missing")] {
            assert!(name(wrong).unwrap_err().contains(says), "{wrong}");
        }
    }
}
