//! Command line flags, each checked before anything starts.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, ValueEnum};
use herald_runtime::telemetry::LogFlags;

/// Longest name of a Kubernetes object (RFC 1123 subdomain).
const MAX_NAME: usize = 253;
/// `IFNAMSIZ` less the terminating zero: no interface name is longer.
const MAX_INTERFACE: usize = 15;

/// The speaker: answers for LoadBalancer addresses on this node's LAN by ARP and NDP.
#[derive(Clone, Debug, Parser)]
#[command(name = "herald-speaker", version = herald_runtime::LONG_VERSION)]
pub struct Flags {
    /// Name of this node's Node object.
    #[arg(long, env = "NODE_NAME", value_name = "NAME", value_parser = node_name)]
    pub node_name: String,

    /// Directory with the files of the Secret herald-hello: cluster-id, key-0 (to key-7).
    #[arg(long, value_name = "DIR")]
    pub key_dir: PathBuf,

    /// Kubeconfig of the API server; without it the environment's, else the pod's service account.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Pace of failure detection: default notices a lost node after 0.1 s, fast after 0.03 s for five times the frames.
    /// fast is for nodes that are never busy for long: a speaker that gets no CPU for 24 ms (default: 120 ms) gives up what it holds.
    /// Started as root, or with CAP_SYS_NICE, it runs at real-time priority and is hardly ever late; in a pod of the chart it can't.
    #[arg(long, value_enum, default_value_t = Profile::Default)]
    pub profile: Profile,

    /// Where /livez, /readyz and /metrics are served; several are allowed, and brackets around an IPv4 address too.
    #[arg(long, value_name = "IP:PORT,...", value_delimiter = ',', default_value = "127.0.0.1:7481",
        value_parser = herald_runtime::admin::parse_address)]
    pub admin_addr: Vec<SocketAddr>,

    /// Interfaces that may carry addresses, by name or glob (* and ?); default: all but loopback and bridge ports.
    #[arg(long, value_name = "GLOB,...", value_delimiter = ',', value_parser = interface_glob)]
    pub interfaces: Vec<String>,

    /// What is logged, and how.
    #[command(flatten)]
    pub log: LogFlags,
}

/// The pace of hellos.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// A hello every 40 ms.
    Default,
    /// A hello every 8 ms.
    Fast,
}

impl From<Profile> for herald_l2::Profile {
    fn from(profile: Profile) -> Self {
        match profile {
            Profile::Default => Self::Default,
            Profile::Fast => Self::Fast,
        }
    }
}

fn node_name(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        edge(label.as_bytes().first()) && edge(label.as_bytes().last())
    };
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    if text.is_empty() {
        Err("is empty; give the name of this node as kubectl get nodes shows it".to_owned())
    } else if text.len() > MAX_NAME || !text.bytes().all(allowed) || !text.split('.').all(label) {
        Err("is not a Node's name: lower-case letters, digits, - and . only, as kubectl get nodes shows it"
            .to_owned())
    } else {
        Ok(text.to_owned())
    }
}

fn interface_glob(text: &str) -> Result<String, String> {
    let text = text.trim();
    let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    if text.is_empty() || text.len() > MAX_INTERFACE || !text.bytes().all(allowed) {
        return Err(format!(
            "is not an interface name or glob: 1 to {MAX_INTERFACE} characters without blanks or /, as in eth0 or en*"
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(more: &[&str]) -> Result<Flags, String> {
        let all = ["herald-speaker", "--node-name=n1", "--key-dir=/k"].iter().chain(more);
        Flags::try_parse_from(all).map_err(|error| error.to_string())
    }

    #[test]
    fn the_least_flags_give_the_documented_defaults() {
        Flags::command().debug_assert();
        let flags = parse(&[]).unwrap();
        assert_eq!(flags.admin_addr, ["127.0.0.1:7481".parse().unwrap()]);
        assert_eq!(flags.profile, Profile::Default);
        assert!(flags.interfaces.is_empty());
    }

    #[test]
    fn each_bad_value_is_refused_with_its_flag_and_what_is_expected() {
        for (flag, hint) in [
            ("--admin-addr=7481", "--admin-addr"),
            ("--admin-addr=127.0.0.1:7481,x", "--admin-addr"),
            ("--profile=quick", "default"),
            ("--interfaces=eth0,,eth1", "interface name or glob"),
            ("--interfaces=averyveryverylongname", "interface name or glob"),
        ] {
            let error = parse(&[flag]).unwrap_err();
            assert!(error.contains(hint), "{flag}: {error}");
        }
        for name in ["", "Node1", "n_1", "-n1", "n1.", "n1..a"] {
            assert!(node_name(name).is_err(), "{name:?}");
        }
        assert!(node_name("ip-10-0-0-1.eu-west-1.compute.internal").is_ok());
    }
}
