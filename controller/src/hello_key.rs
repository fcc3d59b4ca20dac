//! The hello Secret: the cluster's id and the key that authenticates the speakers' hellos.
//!
//! Unless the user gives his own, it is created once and then only read (rule B23): a key that changed under running speakers would part them into
//! two groups that do not hear each other. For that reason a Secret that somebody deleted is created again with the
//! value this process has seen, and a garbled one is reported and left alone, never replaced.

use std::{collections::BTreeMap, fmt, time::Duration};

use herald_runtime::{Readiness, client::describe};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::time::{sleep, timeout};

/// Which Secret it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloSecret {
    /// The namespace that Herald lives in.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Somebody else makes it: it is checked, never created.
    pub given: bool,
}

impl fmt::Display for HelloSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The entry with the cluster's id: 16 lower-case hex digits.
const CLUSTER_ID: &str = "cluster-id";
/// The entry with the first key: 64 lower-case hex digits.
const KEY: &str = "key-0";
/// Hex digits of the cluster's id (64 bits) and of a key (256 bits).
const CLUSTER_ID_DIGITS: usize = 16;
const KEY_DIGITS: usize = 64;

/// One request's time limit.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a failure, and between looks at a Secret that is garbled.
const RETRY: Duration = Duration::from_secs(5);
/// Pause between looks at a Secret that is well.
const RECHECK: Duration = Duration::from_mins(5);

/// What the Secret holds.
#[derive(Clone, PartialEq, Eq)]
struct Hello {
    cluster_id: String,
    key: String,
}

/// Why the Secret is not there or not usable.
#[derive(Debug, thiserror::Error)]
enum HelloError {
    #[error(
        "Secret {0} has no entry {1}; the speakers can't authenticate each other. Restore it, or delete the Secret and restart the controller and all speakers to get a new key"
    )]
    Missing(HelloSecret, &'static str),
    #[error(
        "Secret {0}: {1} must be {2} lower-case hex digits; the speakers can't authenticate each other. Restore it, or delete the Secret and restart the controller and all speakers to get a new key"
    )]
    Garbled(HelloSecret, &'static str, usize),
    #[error(
        "Secret {0} has changed: speakers that read it before and speakers that read it since don't hear each other. Restore the former value, or restart the controller and all speakers to use the new one"
    )]
    Changed(HelloSecret),
    #[error(
        "Secret {secret} is not there, and --hello-secret-given says that somebody else makes it; the speakers can't start. Make it: kubectl create secret generic {name} --namespace {namespace} --from-literal={CLUSTER_ID}=$(openssl rand -hex 8) --from-literal={KEY}=$(openssl rand -hex 32)",
        name = secret.name,
        namespace = secret.namespace
    )]
    NotGiven { secret: HelloSecret },
    #[error("Secret {0} vanishes as soon as it is made: who deletes it?")]
    Vanishes(HelloSecret),
    #[error(
        "may not {verb} Secret {secret}: {message}. Grant get on it, and create on secrets unless --hello-secret-given (manifests/controller-rbac.yaml has both)"
    )]
    Forbidden { verb: &'static str, secret: HelloSecret, message: String },
    #[error("can't {verb} Secret {secret}: {trouble}")]
    Api { verb: &'static str, secret: HelloSecret, trouble: String },
    #[error("the kernel gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// Sees to it that the Secret is there, for as long as it is polled. Readiness names it while it is not.
pub async fn keep(client: Client, secret: HelloSecret, readiness: Readiness) {
    let reason = format!("secret {secret}");
    readiness.missing(reason.clone(), "not looked at yet");
    let api: Api<Secret> = Api::namespaced(client, &secret.namespace);
    let mut known = None;
    let mut said = String::new();
    loop {
        let found = ensure(&api, &secret, known.as_ref()).await;
        match found.and_then(|hello| hello.unless_changed(known.as_ref(), &secret)) {
            Ok(hello) => {
                readiness.ready(&reason);
                said.clear();
                known = Some(hello);
                sleep(RECHECK).await;
            }
            Err(error) => {
                let text = error.to_string();
                if text != said {
                    tracing::error!(secret = %reason, "{text}");
                }
                readiness.missing(reason.clone(), text.clone());
                said = text;
                sleep(RETRY).await;
            }
        }
    }
}

async fn ensure(api: &Api<Secret>, secret: &HelloSecret, known: Option<&Hello>) -> Result<Hello, HelloError> {
    let read = async || asked("get", secret, api.get_opt(&secret.name)).await;
    if let Some(found) = read().await?.flatten() {
        return Hello::read(&found, secret);
    }
    if secret.given {
        return Err(HelloError::NotGiven { secret: secret.clone() });
    }
    let hello = match known {
        Some(hello) => hello.clone(),
        None => Hello::random()?,
    };
    let object = hello.object(secret);
    if asked("create", secret, api.create(&PostParams::default(), &object)).await?.is_some() {
        tracing::info!(%secret, cluster_id = hello.cluster_id, "hello key created");
        return Ok(hello);
    }
    // Another controller was quicker: its key is the cluster's.
    match read().await?.flatten() {
        Some(found) => Hello::read(&found, secret),
        None => Err(HelloError::Vanishes(secret.clone())),
    }
}

/// The answer to a request, or `None` if the object exists already.
async fn asked<T>(
    verb: &'static str,
    secret: &HelloSecret,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<Option<T>, HelloError> {
    let trouble = match timeout(TIMEOUT, request).await {
        Ok(Ok(answer)) => return Ok(Some(answer)),
        Ok(Err(kube::Error::Api(status))) if status.is_already_exists() => return Ok(None),
        Ok(Err(kube::Error::Api(status))) if status.is_forbidden() => {
            return Err(HelloError::Forbidden { verb, secret: secret.clone(), message: status.message });
        }
        Ok(Err(error)) => describe(&error),
        Err(_) => "no answer within 5 s".to_owned(),
    };
    Err(HelloError::Api { verb, secret: secret.clone(), trouble })
}

impl Hello {
    fn random() -> Result<Self, HelloError> {
        Ok(Self {
            cluster_id: format!("{:016x}", getrandom::u64()?),
            key: (0..4)
                .map(|_| getrandom::u64().map(|part| format!("{part:016x}")))
                .collect::<Result<_, _>>()?,
        })
    }

    fn read(object: &Secret, secret: &HelloSecret) -> Result<Self, HelloError> {
        let entry = |entry: &'static str, digits: usize| {
            let bytes = object
                .data
                .as_ref()
                .and_then(|data| data.get(entry))
                .ok_or_else(|| HelloError::Missing(secret.clone(), entry))?;
            // A file written by hand often ends in a newline; the speakers forgive it as well.
            let text = std::str::from_utf8(&bytes.0).map(str::trim_end).unwrap_or_default();
            let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
            if text.len() == digits && text.chars().all(hex) {
                Ok(text.to_owned())
            } else {
                Err(HelloError::Garbled(secret.clone(), entry, digits))
            }
        };
        Ok(Self { cluster_id: entry(CLUSTER_ID, CLUSTER_ID_DIGITS)?, key: entry(KEY, KEY_DIGITS)? })
    }

    fn unless_changed(self, known: Option<&Self>, secret: &HelloSecret) -> Result<Self, HelloError> {
        if known.is_some_and(|known| *known != self) {
            return Err(HelloError::Changed(secret.clone()));
        }
        Ok(self)
    }

    fn object(&self, secret: &HelloSecret) -> Secret {
        let entry = |name: &str, text: &str| (name.to_owned(), ByteString(text.as_bytes().to_vec()));
        Secret {
            metadata: ObjectMeta {
                name: Some(secret.name.clone()),
                namespace: Some(secret.namespace.clone()),
                ..ObjectMeta::default()
            },
            type_: Some("Opaque".to_owned()),
            data: Some(BTreeMap::from([entry(CLUSTER_ID, &self.cluster_id), entry(KEY, &self.key)])),
            ..Secret::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::{Value, json};

    use super::*;
    use crate::fake_api::{Asked, FakeApi, refusal};

    fn secret(given: bool) -> HelloSecret {
        HelloSecret { namespace: "ns".to_owned(), name: "herald-hello".to_owned(), given }
    }

    fn absent() -> Value {
        refusal(404, "NotFound", "none")
    }

    /// Gives these answers, one after the other.
    fn answering(answers: Vec<Value>) -> FakeApi {
        let answers = Mutex::new(answers.into_iter());
        FakeApi::new(move |_: &Asked| answers.lock().unwrap().next().expect("asked too often"))
    }

    async fn ensured(
        api: &FakeApi,
        secret: &HelloSecret,
        known: Option<&Hello>,
    ) -> Result<Hello, HelloError> {
        ensure(&Api::namespaced(api.client(), &secret.namespace), secret, known).await
    }

    fn object_of(hello: &Hello) -> Value {
        serde_json::to_value(hello.object(&secret(false))).unwrap()
    }

    #[tokio::test]
    async fn a_key_that_is_there_is_only_read() {
        let hello = Hello::random().unwrap();
        let api = answering(vec![object_of(&hello)]);
        assert!(ensured(&api, &secret(false), None).await.unwrap() == hello);
        assert_eq!(api.asked().len(), 1);
    }

    #[tokio::test]
    async fn a_missing_key_is_made_and_one_that_was_seen_is_restored_as_it_was() {
        let api =
            FakeApi::new(|asked: &Asked| if asked.method == "GET" { absent() } else { asked.body.clone() });
        let made = ensured(&api, &secret(false), None).await.unwrap();
        assert!(ensured(&api, &secret(false), Some(&made)).await.unwrap() == made);
        let created: Vec<Value> =
            api.asked().into_iter().filter(|asked| asked.method == "POST").map(|asked| asked.body).collect();
        assert_eq!(created, [object_of(&made), object_of(&made)]);
    }

    #[tokio::test]
    async fn the_key_of_a_controller_that_was_quicker_is_the_clusters() {
        let theirs = Hello::random().unwrap();
        let exists = refusal(409, "AlreadyExists", "exists");
        let api = answering(vec![absent(), exists.clone(), object_of(&theirs)]);
        assert!(ensured(&api, &secret(false), None).await.unwrap() == theirs);
        let api = answering(vec![absent(), exists, absent()]);
        let error = ensured(&api, &secret(false), None).await.err().unwrap().to_string();
        assert!(error.contains("vanishes"), "{error}");
    }

    #[tokio::test]
    async fn a_given_secret_is_never_made_and_its_absence_says_how_to() {
        let api = answering(vec![absent()]);
        let error = ensured(&api, &secret(true), None).await.err().unwrap().to_string();
        assert!(error.contains("kubectl create secret generic herald-hello --namespace ns"), "{error}");
        assert_eq!(api.asked().len(), 1);
    }

    #[tokio::test]
    async fn a_missing_right_is_named() {
        for answers in
            [vec![refusal(403, "Forbidden", "no")], vec![absent(), refusal(403, "Forbidden", "no")]]
        {
            let verb = if answers.len() == 1 { "get" } else { "create" };
            let error = ensured(&answering(answers), &secret(false), None).await.err().unwrap().to_string();
            assert!(error.starts_with(&format!("may not {verb} Secret ns/herald-hello")), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn readiness_names_the_secret_until_it_is_there() {
        let hello = Hello::random().unwrap();
        let there = Mutex::new(vec![object_of(&hello), refusal(500, "InternalError", "busy")]);
        let api = FakeApi::new(move |_: &Asked| {
            let mut answers = there.lock().unwrap();
            if answers.len() > 1 { answers.pop().unwrap() } else { answers[0].clone() }
        });
        let readiness = Readiness::new();
        let keeping = tokio::spawn(keep(api.client(), secret(false), readiness.clone()));
        while api.asked().is_empty() {
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
        assert!(json!(readiness.reasons()).to_string().contains("busy"), "{:?}", readiness.reasons());
        sleep(RETRY * 2).await;
        assert!(readiness.reasons().is_empty());
        keeping.abort();
    }

    #[test]
    fn a_new_key_is_read_back_as_it_was_written_and_no_two_are_alike() {
        let (one, other) = (Hello::random().unwrap(), Hello::random().unwrap());
        assert!(one != other);
        assert!(Hello::read(&one.object(&secret(false)), &secret(false)).unwrap() == one);
    }

    #[test]
    fn a_garbled_secret_is_refused_with_the_entry_that_is_wrong() {
        let good = Hello::random().unwrap();
        for (entry, value, says) in [
            (CLUSTER_ID, "xyz".to_owned(), "cluster-id must be 16"),
            (CLUSTER_ID, good.cluster_id.to_uppercase() + "A", "cluster-id must be 16"),
            (KEY, String::new(), "key-0 must be 64"),
            (KEY, good.key.replace(char::is_alphanumeric, "G"), "key-0 must be 64"),
        ] {
            let mut object = good.object(&secret(false));
            object.data.as_mut().unwrap().insert(entry.to_owned(), ByteString(value.into_bytes()));
            let error = Hello::read(&object, &secret(false)).err().unwrap().to_string();
            assert!(error.contains(says), "{error}");
        }
        let mut object = good.object(&secret(false));
        object.data.as_mut().unwrap().remove(KEY);
        assert!(Hello::read(&object, &secret(false)).err().unwrap().to_string().contains("no entry key-0"));
    }

    #[test]
    fn a_value_that_changes_under_running_speakers_is_not_taken_in_silence() {
        let (one, other) = (Hello::random().unwrap(), Hello::random().unwrap());
        assert!(one.clone().unless_changed(None, &secret(false)).is_ok());
        assert!(one.clone().unless_changed(Some(&one), &secret(false)).is_ok());
        let error = other.unless_changed(Some(&one), &secret(false)).err().unwrap().to_string();
        assert!(error.contains("restart the controller and all speakers"), "{error}");
    }

    #[test]
    fn a_newline_at_the_end_is_forgiven() {
        let hello = Hello::random().unwrap();
        let mut object = hello.object(&secret(false));
        let text = format!("{}\n", hello.key);
        object.data.as_mut().unwrap().insert(KEY.to_owned(), ByteString(text.into_bytes()));
        assert!(Hello::read(&object, &secret(false)).unwrap() == hello);
    }
}
