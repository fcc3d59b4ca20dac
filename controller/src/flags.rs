//! The command line of herald-controller.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};
use herald_runtime::{
    lease::{Timing, TimingError},
    telemetry::LogFlags,
};

use crate::hello_key::HelloSecret;

/// Gives every Service of type LoadBalancer an address from the pools.
#[derive(Clone, Debug, Parser)]
#[command(name = "herald-controller", version = herald_runtime::LONG_VERSION)]
pub struct Flags {
    /// Without one: run the controller.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Kubeconfig of the API server; without it the environment's, else the pod's service account.
    #[arg(long, value_name = "FILE", global = true)]
    pub kubeconfig: Option<PathBuf>,

    /// The namespace that Herald lives in: the hello key's Secret and the Lease are kept there.
    #[arg(long, value_name = "NAMESPACE", default_value = "herald-system")]
    pub namespace: String,

    /// The Secret with the speakers' hello key, in that namespace; made if it is missing.
    #[arg(long, value_name = "NAME", default_value = "herald-hello")]
    pub hello_secret: String,

    /// Somebody else makes the hello key's Secret: it is checked, never made.
    #[arg(long)]
    pub hello_secret_given: bool,

    /// Serve Services with this spec.loadBalancerClass; without it those that name no class.
    #[arg(long, value_name = "CLASS")]
    pub load_balancer_class: Option<String>,

    /// Where /livez, /readyz and /metrics are served; several are allowed, and brackets around an IPv4 address too.
    #[arg(long, value_name = "IP:PORT,...", value_delimiter = ',', default_value = "127.0.0.1:7480",
        value_parser = herald_runtime::admin::parse_address)]
    pub admin_addr: Vec<SocketAddr>,

    /// How long a leader that says nothing keeps its place, as 15s or 1500ms.
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration)]
    pub lease_duration: Duration,

    /// How long after its last renewal a leader may still write; less than --lease-duration.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub renew_deadline: Duration,

    /// How often a leader renews and a standby looks.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    pub retry_period: Duration,

    /// What is logged, and how.
    #[command(flatten)]
    pub log: LogFlags,
}

/// What to do instead of running the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Bring the cluster's CRDs up to this program's and end; newer ones are left alone.
    ApplyCrds,
}

impl Flags {
    /// The election's durations, if they go together.
    pub fn timing(&self) -> Result<Timing, TimingError> {
        Timing::new(self.lease_duration, self.renew_deadline, self.retry_period)
    }

    /// The hello key's Secret.
    pub fn hello_secret(&self) -> HelloSecret {
        HelloSecret {
            namespace: self.namespace.clone(),
            name: self.hello_secret.clone(),
            given: self.hello_secret_given,
        }
    }
}

/// A duration as people write it: a whole number with its unit.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: Option<u64> = number.parse().ok();
    match (number, unit) {
        (Some(number), "ms") => Some(Duration::from_millis(number)),
        (Some(number), "s") => Some(Duration::from_secs(number)),
        (Some(number), "m") => number.checked_mul(60).map(Duration::from_secs),
        _ => None,
    }
    .ok_or_else(|| "is no duration; expected a whole number with ms, s or m, as 15s or 1500ms".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(more: &[&str]) -> Result<Flags, String> {
        Flags::try_parse_from(["herald-controller"].iter().chain(more)).map_err(|error| error.to_string())
    }

    #[test]
    fn without_flags_the_documented_defaults_hold() {
        let flags = parse(&[]).unwrap();
        assert_eq!(flags.admin_addr, ["127.0.0.1:7480".parse().unwrap()]);
        assert_eq!(flags.timing(), Ok(Timing::default()));
    }

    #[test]
    fn the_crds_are_applied_on_demand_only() {
        assert_eq!(parse(&[]).unwrap().command, None);
        let flags = parse(&["apply-crds", "--kubeconfig", "/k"]).unwrap();
        assert_eq!(flags.command, Some(Command::ApplyCrds));
        assert!(flags.kubeconfig.is_some());
        assert!(parse(&["apply"]).is_err());
    }

    #[test]
    fn in_a_pod_the_admin_addresses_are_loopback_and_the_pods() {
        let flags =
            parse(&["--admin-addr=127.0.0.1:7480,[10.0.0.7]:7480", "--admin-addr=[fd00::7]:1"]).unwrap();
        let shown: Vec<String> = flags.admin_addr.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["127.0.0.1:7480", "10.0.0.7:7480", "[fd00::7]:1"]);
    }

    #[test]
    fn bad_values_are_refused_with_what_is_expected() {
        for text in ["15", "s", "1.5s", "-1s", "15 s", "15h", "99999999999999999999s", "999999999999999999m"]
        {
            let error = parse(&[&format!("--lease-duration={text}")]).unwrap_err();
            assert!(error.contains("15s or 1500ms"), "{text}: {error}");
        }
        assert!(parse(&["--admin-addr=controller:7480"]).unwrap_err().contains("IP:PORT"));
        assert!(parse(&["--log-format=xml"]).unwrap_err().contains("json"));
        assert!(parse(&["--lease-duration=5s"]).unwrap().timing().is_err());
    }
}
