//! helm, in the control plane's namespace, as the administrator.

use anyhow::Result;

use crate::{programs::Helm, site::Site};

impl Site {
    /// Runs helm and gives what it printed.
    pub fn helm(&self, args: &[&str]) -> Result<String> {
        self.helm_of(Helm::Four, args)
    }

    /// The same by one of the helms that the chart is for.
    pub fn helm_of(&self, helm: Helm, args: &[&str]) -> Result<String> {
        let helm = helm.program(self.progress())?.display().to_string();
        let kubeconfig = self.control_plane().admin_kubeconfig();
        // Its caches and repositories are this lab's, not the person's.
        let home = format!("HOME={}", self.dir().display());
        let kubeconfig = format!("KUBECONFIG={}", kubeconfig.display());
        let clean = ["-u", "XDG_CACHE_HOME", "-u", "XDG_CONFIG_HOME", "-u", "XDG_DATA_HOME"];
        let command = [&clean[..], &[&home, &kubeconfig, &helm], args].concat();
        self.control_plane().host().netns.output("env", &command)
    }
}
