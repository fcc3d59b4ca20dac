//! The Secret `herald-hello`: the cluster's id and the key that authenticates the speakers' hellos.
//!
//! It is created once and then only read (rule B23): a key that changed under running speakers would part them into
//! two groups that do not hear each other. For that reason a Secret that somebody deleted is created again with the
//! value this process has seen, and a garbled one is reported and left alone, never replaced.

use std::{collections::BTreeMap, time::Duration};

use herald_runtime::Readiness;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::time::{sleep, timeout};

/// The Secret's name.
pub const SECRET: &str = "herald-hello";
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
        "Secret {namespace}/{SECRET} has no entry {entry}; the speakers can't authenticate each other. Restore it, or delete the Secret and restart the controller and all speakers to get a new key"
    )]
    Missing { namespace: String, entry: &'static str },
    #[error(
        "Secret {namespace}/{SECRET}: {entry} must be {digits} lower-case hex digits; the speakers can't authenticate each other. Restore it, or delete the Secret and restart the controller and all speakers to get a new key"
    )]
    Garbled { namespace: String, entry: &'static str, digits: usize },
    #[error(
        "Secret {namespace}/{SECRET} has changed: speakers that read it before and speakers that read it since don't hear each other. Restore the former value, or restart the controller and all speakers to use the new one"
    )]
    Changed { namespace: String },
    #[error("can't {verb} Secret {namespace}/{SECRET}: {source}")]
    Api { verb: &'static str, namespace: String, source: Box<kube::Error> },
    #[error("can't {verb} Secret {namespace}/{SECRET}: no answer within 5 s")]
    Slow { verb: &'static str, namespace: String },
    #[error("the kernel gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// Sees to it that the Secret is there, for as long as it is polled. Readiness names it while it is not.
pub async fn keep(client: Client, namespace: String, readiness: Readiness) {
    let reason = format!("secret {namespace}/{SECRET}");
    readiness.missing(reason.clone(), "not looked at yet");
    let api: Api<Secret> = Api::namespaced(client, &namespace);
    let mut known = None;
    let mut said = String::new();
    loop {
        let found = ensure(&api, &namespace, known.as_ref()).await;
        match found.and_then(|hello| hello.unless_changed(known.as_ref(), &namespace)) {
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

async fn ensure(api: &Api<Secret>, namespace: &str, known: Option<&Hello>) -> Result<Hello, HelloError> {
    let ask = async || match timeout(TIMEOUT, api.get_opt(SECRET)).await {
        Ok(Ok(secret)) => Ok(secret),
        Ok(Err(source)) => {
            Err(HelloError::Api { verb: "read", namespace: namespace.to_owned(), source: Box::new(source) })
        }
        Err(_) => Err(HelloError::Slow { verb: "read", namespace: namespace.to_owned() }),
    };
    if let Some(secret) = ask().await? {
        return Hello::read(&secret, namespace);
    }
    let hello = match known {
        Some(hello) => hello.clone(),
        None => Hello::random()?,
    };
    match timeout(TIMEOUT, api.create(&PostParams::default(), &hello.secret(namespace))).await {
        Ok(Ok(_)) => {
            tracing::info!(secret = SECRET, namespace, cluster_id = hello.cluster_id, "hello key created");
            Ok(hello)
        }
        // Another controller was quicker: its key is the cluster's.
        Ok(Err(kube::Error::Api(status))) if status.is_already_exists() => match ask().await? {
            Some(secret) => Hello::read(&secret, namespace),
            None => Err(HelloError::Missing { namespace: namespace.to_owned(), entry: KEY }),
        },
        Ok(Err(source)) => {
            Err(HelloError::Api { verb: "create", namespace: namespace.to_owned(), source: Box::new(source) })
        }
        Err(_) => Err(HelloError::Slow { verb: "create", namespace: namespace.to_owned() }),
    }
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

    fn read(secret: &Secret, namespace: &str) -> Result<Self, HelloError> {
        let entry = |entry: &'static str, digits: usize| {
            let bytes = secret
                .data
                .as_ref()
                .and_then(|data| data.get(entry))
                .ok_or_else(|| HelloError::Missing { namespace: namespace.to_owned(), entry })?;
            // A file written by hand often ends in a newline; the speakers forgive it as well.
            let text = std::str::from_utf8(&bytes.0).map(str::trim_end).unwrap_or_default();
            let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
            if text.len() == digits && text.chars().all(hex) {
                Ok(text.to_owned())
            } else {
                Err(HelloError::Garbled { namespace: namespace.to_owned(), entry, digits })
            }
        };
        Ok(Self { cluster_id: entry(CLUSTER_ID, CLUSTER_ID_DIGITS)?, key: entry(KEY, KEY_DIGITS)? })
    }

    fn unless_changed(self, known: Option<&Self>, namespace: &str) -> Result<Self, HelloError> {
        if known.is_some_and(|known| *known != self) {
            return Err(HelloError::Changed { namespace: namespace.to_owned() });
        }
        Ok(self)
    }

    fn secret(&self, namespace: &str) -> Secret {
        let entry = |name: &str, text: &str| (name.to_owned(), ByteString(text.as_bytes().to_vec()));
        Secret {
            metadata: ObjectMeta {
                name: Some(SECRET.to_owned()),
                namespace: Some(namespace.to_owned()),
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
    use super::*;

    #[test]
    fn a_new_key_is_read_back_as_it_was_written_and_no_two_are_alike() {
        let (one, other) = (Hello::random().unwrap(), Hello::random().unwrap());
        assert!(one != other);
        assert!(Hello::read(&one.secret("ns"), "ns").unwrap() == one);
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
            let mut secret = good.secret("ns");
            secret.data.as_mut().unwrap().insert(entry.to_owned(), ByteString(value.into_bytes()));
            let error = Hello::read(&secret, "ns").err().unwrap().to_string();
            assert!(error.contains(says), "{error}");
        }
        let mut secret = good.secret("ns");
        secret.data.as_mut().unwrap().remove(KEY);
        assert!(Hello::read(&secret, "ns").err().unwrap().to_string().contains("no entry key-0"));
    }

    #[test]
    fn a_value_that_changes_under_running_speakers_is_not_taken_in_silence() {
        let (one, other) = (Hello::random().unwrap(), Hello::random().unwrap());
        assert!(one.clone().unless_changed(None, "ns").is_ok());
        assert!(one.clone().unless_changed(Some(&one), "ns").is_ok());
        let error = other.unless_changed(Some(&one), "ns").err().unwrap().to_string();
        assert!(error.contains("restart the controller and all speakers"), "{error}");
    }

    #[test]
    fn a_newline_at_the_end_is_forgiven() {
        let hello = Hello::random().unwrap();
        let mut secret = hello.secret("ns");
        let text = format!("{}\n", hello.key);
        secret.data.as_mut().unwrap().insert(KEY.to_owned(), ByteString(text.into_bytes()));
        assert!(Hello::read(&secret, "ns").unwrap() == hello);
    }
}
