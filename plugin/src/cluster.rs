//! Reaching the cluster as kubectl does, and saying in one sentence why it does not answer.

use herald_runtime::client::{assemble, describe};
use kube::{
    Api, Client, Config, Resource,
    api::{ListParams, ObjectMeta},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::de::DeserializeOwned;

use crate::{Failure, cli::ClusterFlags};

/// How many objects one list request brings.
const PAGE: u32 = 500;

/// A connection, and the namespace that commands are about.
#[derive(Clone)]
pub struct Cluster {
    /// The client.
    pub client: Client,
    /// From `-n`, else the context's.
    pub namespace: String,
}

/// Why a kind could not be listed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unseen {
    /// The API server does not know the kind.
    #[error("the API server does not know {0}")]
    NotInstalled(String),
    /// The right is missing.
    #[error("no right to {verb} {what}; ask for a role with that right ({said})")]
    NoRight {
        /// The verb.
        verb: &'static str,
        /// The resource.
        what: String,
        /// The API server's words.
        said: String,
    },
    /// Anything else.
    #[error("can't {verb} {what}: {said}")]
    Other {
        /// The verb.
        verb: &'static str,
        /// The resource.
        what: String,
        /// What went wrong.
        said: String,
    },
}

impl From<Unseen> for Failure {
    fn from(unseen: Unseen) -> Self {
        Self::cluster(unseen.to_string())
    }
}

impl Unseen {
    /// What the answer to `verb` on `what` means.
    pub fn of(error: &kube::Error, verb: &'static str, what: &str) -> Self {
        let what = what.to_owned();
        match error {
            kube::Error::Api(status) if status.code == 404 => Self::NotInstalled(what),
            kube::Error::Api(status) if status.code == 403 || status.code == 401 => {
                Self::NoRight { verb, what, said: describe(error) }
            }
            other => Self::Other { verb, what, said: describe(other) },
        }
    }
}

/// Connects; a server that is away shows at the first request.
pub async fn connect(flags: &ClusterFlags) -> Result<Cluster, Failure> {
    let config = config(flags).await?;
    let namespace = flags.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let client = assemble(config, "kubectl")
        .map_err(|error| Failure::cluster(format!("the API server's configuration is unusable: {error}")))?;
    Ok(Cluster { client, namespace })
}

async fn config(flags: &ClusterFlags) -> Result<Config, Failure> {
    if flags.kubeconfig.is_none() && flags.context.is_none() {
        return Config::infer().await.map_err(|error| {
            Failure::cluster(format!("no way to reach the API server: {error}; give --kubeconfig FILE"))
        });
    }
    let read = match &flags.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let file =
        flags.kubeconfig.as_ref().map_or_else(|| "kubeconfig".to_owned(), |path| path.display().to_string());
    let options = KubeConfigOptions { context: flags.context.clone(), ..KubeConfigOptions::default() };
    let config = match read {
        Ok(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig, &options).await,
        Err(error) => Err(error),
    };
    config.map_err(|error| Failure::input(format!("{file}: {error}; see --kubeconfig and --context")))
}

/// All objects of a kind, a page at a time.
pub async fn list<K>(api: &Api<K>, what: &str, params: ListParams) -> Result<Vec<K>, Unseen>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let mut params = params.limit(PAGE);
    let mut all = Vec::new();
    loop {
        let page = api.list(&params).await.map_err(|error| Unseen::of(&error, "list", what))?;
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(all),
        }
    }
}

/// Names and labels of all objects of a cluster-scoped kind.
pub async fn labelled<K>(client: &Client, what: &str) -> Result<Vec<ObjectMeta>, Unseen>
where
    K: Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let api: Api<K> = Api::all(client.clone());
    let mut params = ListParams::default().limit(PAGE);
    let mut all = Vec::new();
    loop {
        let page = api.list_metadata(&params).await.map_err(|error| Unseen::of(&error, "list", what))?;
        all.extend(page.items.into_iter().map(|item| item.metadata));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(all),
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn a_missing_right_and_a_missing_kind_are_told_apart_and_named() {
        let answer =
            |code| kube::Error::Api(Box::new(Status { code, message: "no".to_owned(), ..Status::default() }));
        let said = |code| Unseen::of(&answer(code), "list", "ipaddresspools.metallb.io").to_string();
        assert!(said(403).starts_with("no right to list ipaddresspools.metallb.io"), "{}", said(403));
        assert_eq!(said(404), "the API server does not know ipaddresspools.metallb.io");
        assert!(said(500).contains("can't list ipaddresspools.metallb.io: no"), "{}", said(500));
    }
}
