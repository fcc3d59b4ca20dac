//! Herald itself in the lab: CRDs, rights, the controller, a speaker per node, each with its own ServiceAccount's token.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use k8s_openapi::{
    api::{
        authentication::v1::{TokenRequest, TokenRequestSpec},
        core::v1::{Secret, ServiceAccount},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    api::PostParams,
    runtime::wait::{await_condition, conditions::is_crd_established},
};

use crate::{lab::Lab, process::Process, programs, site::Site};

/// Herald's namespace.
pub const NAMESPACE: &str = "herald-system";
/// The controller's program and ServiceAccount.
const CONTROLLER: &str = "herald-controller";
const HELLO_KEY: &str = "herald-hello";
const CRDS: [&str; 3] = ["ipaddresspools", "l2advertisements", "loadbalancerips"];

impl Lab {
    /// Applies the CRDs and the rights of both programs.
    pub fn apply_manifests(&self) -> Result<()> {
        let root = programs::workspace();
        self.kubectl_apply_file(&root.join("crds/manifests"))?;
        let established = self.block_on(async {
            for kind in CRDS {
                let api: Api<CustomResourceDefinition> = Api::all(self.kube());
                await_condition(api, &format!("{kind}.heraldlb.io"), is_crd_established()).await?;
            }
            Ok::<_, anyhow::Error>(())
        });
        established.context("waiting for the CRDs")?;
        // The namespace first: what lives in it comes right behind. Not the workloads: no kubelet would run them.
        for file in ["namespace.yaml", "controller-rbac.yaml", "speaker-rbac.yaml"] {
            self.kubectl_apply_file(&root.join("manifests").join(file))?;
        }
        Ok(())
    }

    /// Starts the controller.
    pub fn start_controller(&self) -> Result<()> {
        self.account_kubeconfig(CONTROLLER)?;
        self.start_controller_again()
    }

    /// Starts it with the rights it was given at the first start: also while there is no API server to ask.
    pub fn start_controller_again(&self) -> Result<()> {
        let kubeconfig = self.control_plane().kubeconfig(CONTROLLER);
        let binary = self.plan().program(CONTROLLER)?;
        // As a container that is restarted in its pod: it still leads then, and needs not wait for its own Lease to end.
        let name = "POD_NAME=herald-controller-lab".to_owned();
        let args =
            [name, binary.display().to_string(), "--kubeconfig".to_owned(), kubeconfig.display().to_string()];
        let args = args.into_iter().chain(self.plan().controller_flags.iter().cloned());
        let log = self.dir().join("herald-controller.log");
        let netns = &self.control_plane().host().netns;
        self.set_controller(Some(Process::start(netns, CONTROLLER, Path::new("env"), args, &log)?));
        Ok(())
    }

    /// Starts a speaker on every node, as soon as the controller has made the key they share.
    pub fn start_speakers(&self) -> Result<()> {
        let secret = self.hello_key()?;
        let kubeconfig = self.account_kubeconfig("herald-speaker")?;
        let program = self.plan().program("herald-speaker")?;
        for node in self.nodes() {
            let dir = node.key_dir();
            std::fs::create_dir_all(&dir)?;
            for (name, value) in secret.data.iter().flatten() {
                std::fs::write(dir.join(name), &value.0)?;
            }
            node.install_speaker(program.clone(), kubeconfig.clone(), &self.plan().speaker_flags)?;
        }
        Ok(())
    }

    fn hello_key(&self) -> Result<Secret> {
        let found = self.block_on(async {
            let secrets: Api<Secret> = Api::namespaced(self.kube(), NAMESPACE);
            let exists = await_condition(secrets, HELLO_KEY, |secret: Option<&Secret>| secret.is_some());
            tokio::time::timeout(Duration::from_secs(20), exists).await
        });
        let missing = || match self.controller(|controller| Ok(controller.last_words())) {
            Ok(words) => {
                format!("the controller made no Secret {HELLO_KEY} within 20 s; its last words:\n{words}")
            }
            Err(none) => none.to_string(),
        };
        found.with_context(missing)??.with_context(missing)
    }
}

impl Site {
    /// A kubeconfig with a token of ServiceAccount `name` of Herald's namespace.
    pub fn account_kubeconfig(&self, name: &str) -> Result<PathBuf> {
        self.account_kubeconfig_in(NAMESPACE, name)
    }

    /// The same for a ServiceAccount of any namespace. Two of one name share a file: one lab has no need for both.
    pub(crate) fn account_kubeconfig_in(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let token = self.block_on(async {
            let accounts: Api<ServiceAccount> = Api::namespaced(self.kube(), namespace);
            let spec =
                TokenRequestSpec { expiration_seconds: Some(24 * 3600), ..TokenRequestSpec::default() };
            let request = TokenRequest { spec, ..TokenRequest::default() };
            accounts.create_token_request(name, &PostParams::default(), &request).await
        });
        let status = token.with_context(|| format!("a token for ServiceAccount {namespace}/{name}"))?.status;
        let token = status.context("a token request without an answer")?.token;
        self.control_plane().add_kubeconfig(name, &token)
    }
}
