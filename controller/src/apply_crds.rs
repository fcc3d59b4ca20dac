//! `herald-controller apply-crds`: brings the cluster's CRDs up to those that this program was built with.
//!
//! Helm installs what is in a chart's crds/ once and never touches it again; the chart runs this before each upgrade.
//! What must always hold: a CRD that says it is newer is left alone, so that a rollback never takes fields away from
//! objects that have them; and nothing is deleted, because a deleted CRD deletes every address with it.

use std::time::Duration;

use herald_crds::{CRD_VERSION, names::CRD_VERSION_ANNOTATION};
use herald_runtime::client::describe;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
};
use tokio::time::{Instant, sleep, timeout};

/// The field manager: the one under which Helm applies a chart's crds/ at every install. Under another, the next
/// install would meet a conflict over what this program wrote.
const MANAGER: &str = "helm";
/// Time limit of one request.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server that can't just now is asked again, for each CRD; then the Job is retried by its controller.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// Why a CRD is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// RBAC says no.
    #[error(
        "may not {verb} CustomResourceDefinition {name}: {message}. Grant get, create and patch on it (the chart's \
         ClusterRole for this Job does), or apply the CRDs yourself: kubectl apply --server-side --force-conflicts \
         -f manifests/crds.yaml"
    )]
    Forbidden {
        /// What was tried.
        verb: &'static str,
        /// The CRD.
        name: String,
        /// The API server's words.
        message: String,
    },
    /// The API server refuses this CRD.
    #[error("the API server refuses CustomResourceDefinition {name}: {message}")]
    Refused {
        /// The CRD.
        name: String,
        /// The API server's words.
        message: String,
    },
    /// Another CRD has one of its names.
    #[error(
        "CustomResourceDefinition {name} is applied, but its names are not accepted: {message}. Another CRD has one of \
         them: kubectl get crd -o wide; its objects can't be served under both"
    )]
    Names {
        /// The CRD.
        name: String,
        /// The API server's words.
        message: String,
    },
    /// It did not work within [`PATIENCE`].
    #[error("CustomResourceDefinition {name}: gave up after 10 s: {trouble}")]
    GaveUp {
        /// The CRD.
        name: String,
        /// What was wrong last.
        trouble: String,
    },
}

/// What was found, and done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Applied,
    Same,
    Newer(u64),
}

/// Why an attempt is to be repeated, or not.
enum Failure {
    Again(String),
    Final(ApplyError),
}

/// Applies every CRD that the cluster lacks or has in an older version.
pub async fn run(client: Client) -> Result<(), ApplyError> {
    let api: Api<CustomResourceDefinition> = Api::all(client);
    for crd in herald_crds::all() {
        let name = crd.name_any();
        match settle(&api, &crd, &name).await? {
            Outcome::Applied => tracing::info!(crd = name, version = CRD_VERSION, "applied"),
            Outcome::Same => tracing::info!(crd = name, version = CRD_VERSION, "is there already"),
            Outcome::Newer(version) => tracing::warn!(
                crd = name,
                version,
                "the cluster's is newer than this program's, {CRD_VERSION}: left alone. Newer CRDs serve older programs"
            ),
        }
    }
    Ok(())
}

async fn settle(
    api: &Api<CustomResourceDefinition>,
    crd: &CustomResourceDefinition,
    name: &str,
) -> Result<Outcome, ApplyError> {
    let since = Instant::now();
    loop {
        let trouble = match bring_up(api, crd, name).await {
            Ok(outcome) => return Ok(outcome),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Again(trouble)) => trouble,
        };
        if since.elapsed() >= PATIENCE {
            return Err(ApplyError::GaveUp { name: name.to_owned(), trouble });
        }
        tracing::debug!(crd = name, trouble, "trying again");
        sleep(PAUSE).await;
    }
}

/// One attempt: looks, applies where it should, and sees whether it is served.
async fn bring_up(
    api: &Api<CustomResourceDefinition>,
    crd: &CustomResourceDefinition,
    name: &str,
) -> Result<Outcome, Failure> {
    let found = asked("get", name, api.get_opt(name)).await?;
    let theirs = found.as_ref().map_or(0, version);
    let ours = u64::from(CRD_VERSION);
    if theirs > ours {
        return Ok(Outcome::Newer(theirs));
    }
    if theirs == ours
        && let Some(found) = &found
    {
        served(found, name)?;
        return Ok(Outcome::Same);
    }
    let mut wanted = crd.clone();
    // If somebody applies another version in between, this one is refused and looks again.
    wanted.metadata.resource_version = found.and_then(|found| found.metadata.resource_version);
    // By force: a CRD is ours as a whole, whoever installed it (Helm, kubectl).
    let params = PatchParams::apply(MANAGER).force();
    let now = asked("patch", name, api.patch(name, &params, &Patch::Apply(&wanted))).await?;
    // Established a moment later; the next attempt finds it as it should be.
    let served = served(&now, name);
    tracing::debug!(crd = name, from = theirs, to = ours, "applied");
    match served {
        Ok(()) => Ok(Outcome::Applied),
        Err(Failure::Again(_)) => await_served(api, name).await.map(|()| Outcome::Applied),
        Err(error) => Err(error),
    }
}

async fn await_served(api: &Api<CustomResourceDefinition>, name: &str) -> Result<(), Failure> {
    let since = Instant::now();
    loop {
        let now = asked("get", name, api.get(name)).await?;
        match served(&now, name) {
            Err(Failure::Again(_)) if since.elapsed() < PATIENCE => sleep(PAUSE).await,
            result => return result,
        }
    }
}

/// Whether the API server serves it.
fn served(crd: &CustomResourceDefinition, name: &str) -> Result<(), Failure> {
    let conditions = crd.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let find = |kind: &str| conditions.iter().find(|condition| condition.type_ == kind);
    if let Some(refused) = find("NamesAccepted").filter(|condition| condition.status == "False") {
        let message = refused.message.clone().unwrap_or_default();
        return Err(Failure::Final(ApplyError::Names { name: name.to_owned(), message }));
    }
    match find("Established") {
        Some(condition) if condition.status == "True" => Ok(()),
        _ => Err(Failure::Again("it is not served yet".to_owned())),
    }
}

/// The version that a CRD bears; 0 for one from before there were any, or whose annotation means nothing.
fn version(crd: &CustomResourceDefinition) -> u64 {
    crd.annotations().get(CRD_VERSION_ANNOTATION).and_then(|text| text.parse().ok()).unwrap_or_default()
}

async fn asked<T>(
    verb: &'static str,
    name: &str,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Failure> {
    match timeout(TIMEOUT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => {
            let (name, message) = (name.to_owned(), status.message.clone());
            Err(match status.code {
                // An API server that has just started refuses everybody for a moment: the Job's next try finds out.
                401 | 403 => Failure::Final(ApplyError::Forbidden { verb, name, message }),
                409 | 429 | 500..=599 => Failure::Again(message),
                _ => Failure::Final(ApplyError::Refused { name, message }),
            })
        }
        Ok(Err(error)) => Err(Failure::Again(describe(&error))),
        Err(_) => Err(Failure::Again("no answer within 5 s".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fake_api::{Asked, FakeApi, refusal};

    fn served_as(version: &str) -> Value {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "any", "resourceVersion": "41", "annotations": {CRD_VERSION_ANNOTATION: version}},
            "spec": {"group": "heraldlb.io", "scope": "Cluster", "names": {"kind": "K", "plural": "ks"}, "versions": []},
            "status": {"conditions": [{"type": "Established", "status": "True"}]},
        })
    }

    #[tokio::test]
    async fn an_older_crd_is_replaced_as_it_was_seen_and_a_missing_one_is_created() {
        for (found, seen) in [(served_as("1"), json!("41")), (refusal(404, "NotFound", "none"), Value::Null)]
        {
            let api = FakeApi::new(
                move |asked: &Asked| {
                    if asked.method == "GET" { found.clone() } else { served_as("9") }
                },
            );
            run(api.client()).await.unwrap();
            let patches: Vec<Asked> =
                api.asked().into_iter().filter(|asked| asked.method == "PATCH").collect();
            let names: Vec<&str> = patches.iter().map(Asked::name).collect();
            assert_eq!(
                names,
                ["ipaddresspools.heraldlb.io", "l2advertisements.heraldlb.io", "loadbalancerips.heraldlb.io"]
            );
            for patch in patches {
                assert_eq!(patch.body["metadata"]["resourceVersion"], seen);
                assert_eq!(
                    patch.body["metadata"]["annotations"][CRD_VERSION_ANNOTATION],
                    CRD_VERSION.to_string()
                );
            }
        }
    }

    #[tokio::test]
    async fn the_same_and_newer_crds_are_left_alone() {
        for version in [u64::from(CRD_VERSION), u64::from(CRD_VERSION) + 1, u64::MAX] {
            let api = FakeApi::new(move |_: &Asked| served_as(&version.to_string()));
            run(api.client()).await.unwrap();
            assert!(api.asked().iter().all(|asked| asked.method == "GET"), "{version}");
        }
    }

    #[tokio::test]
    async fn a_version_that_means_nothing_counts_as_old() {
        let api = FakeApi::new(|_: &Asked| served_as("two"));
        run(api.client()).await.unwrap();
        assert_eq!(api.asked().iter().filter(|asked| asked.method == "PATCH").count(), 3);
    }

    #[tokio::test]
    async fn a_missing_right_is_named_with_what_to_do() {
        let api = FakeApi::new(|_: &Asked| refusal(403, "Forbidden", "no"));
        let error = run(api.client()).await.unwrap_err().to_string();
        assert!(error.contains("may not get CustomResourceDefinition ipaddresspools.heraldlb.io"), "{error}");
        assert!(error.contains("kubectl apply --server-side"), "{error}");
        assert_eq!(api.asked().len(), 1, "asking again would not help");
    }

    #[tokio::test]
    async fn a_name_that_another_crd_has_is_said_and_not_waited_for() {
        let api = FakeApi::new(|asked: &Asked| {
            let mut answer = served_as("1");
            if asked.method == "PATCH" {
                answer["status"]["conditions"] = json!([
                    {"type": "NamesAccepted", "status": "False", "message": "\"lbip\" is already in use"},
                ]);
            }
            answer
        });
        let error = run(api.client()).await.unwrap_err().to_string();
        assert!(error.contains("\"lbip\" is already in use"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_cannot_just_now_is_asked_again_for_ten_seconds() {
        let api = FakeApi::new(|_: &Asked| refusal(503, "ServiceUnavailable", "starting"));
        let error = run(api.client()).await.unwrap_err().to_string();
        assert!(error.contains("gave up after 10 s: starting"), "{error}");
        let tries = std::sync::atomic::AtomicU32::new(0);
        let api =
            FakeApi::new(move |_: &Asked| match tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
                0..3 => refusal(503, "ServiceUnavailable", "starting"),
                _ => served_as(&CRD_VERSION.to_string()),
            });
        run(api.client()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_version_that_somebody_else_writes_in_between_is_looked_at_again() {
        let patched = std::sync::atomic::AtomicBool::new(false);
        let api = FakeApi::new(move |asked: &Asked| {
            let flag = &patched;
            match asked.method.as_str() {
                "PATCH" => {
                    flag.store(true, std::sync::atomic::Ordering::Relaxed);
                    refusal(409, "Conflict", "changed")
                }
                _ if flag.load(std::sync::atomic::Ordering::Relaxed) => served_as("99"),
                _ => served_as("1"),
            }
        });
        run(api.client()).await.unwrap();
        assert_eq!(api.asked().iter().filter(|asked| asked.method == "PATCH").count(), 1);
    }
}
