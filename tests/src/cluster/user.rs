//! What a person at a shell, or a page of the documentation, calls by its name: kubectl, helm and curl, each of which
//! finds its place in the cluster by itself.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
};

use anyhow::{Context as _, Result};

use super::Cluster;
use crate::programs::{Helm, Program};

/// Keeps caches and repositories of kubectl and helm in the cluster's directory, away from the person's.
const CLEAN: &str = "env -u XDG_CACHE_HOME -u XDG_CONFIG_HOME -u XDG_DATA_HOME";

impl Cluster {
    /// Writes the programs into a directory that goes first into `PATH`: `kubectl` and `helm` run as the administrator
    /// beside the control plane, `curl` on another machine of the LAN, and `node n1 COMMAND` on a node.
    pub fn write_user_programs(&self) -> Result<PathBuf> {
        let dir = self.dir().join("user");
        fs::create_dir(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let home = self.dir().display();
        let admin = self.control_plane().admin_kubeconfig();
        let beside = format!(
            "exec ip netns exec {} {CLEAN} HOME='{home}' KUBECONFIG='{}'",
            self.control_plane().host().netns.name(),
            admin.display()
        );
        // Plugins are given the environment, not flags.
        let (kubectl, first) = self.kubernetes().program(Program::Kubectl);
        let helm = Helm::Four.program(self.progress())?;
        let client = self.client().netns.name();
        let mut node = "node=$1; shift\ncase $node in\n".to_owned();
        for known in self.nodes() {
            writeln!(node, "{}) exec nsenter --target {} --all -- \"$@\" ;;", known.name(), known.init()?)?;
        }
        node += "*) echo \"usage: node NAME COMMAND...: there is no node '$node'\" >&2; exit 2 ;;\nesac";
        let scripts = BTreeMap::from([
            ("kubectl", format!("{beside} '{}' {} \"$@\"", kubectl.display(), first.join(" "))),
            ("helm", format!("{beside} '{}' \"$@\"", helm.display())),
            ("curl", format!("exec ip netns exec {client} /usr/bin/curl \"$@\"")),
            ("node", node),
        ]);
        for (name, text) in scripts {
            let file = dir.join(name);
            fs::write(&file, format!("#!/bin/sh\n{text}\n"))?;
            fs::set_permissions(&file, Permissions::from_mode(0o755))?;
        }
        Ok(dir)
    }
}
