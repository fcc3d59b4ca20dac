//! The cluster's id and the hello keys, as files of a directory: the Secret `herald-hello`, mounted.
//!
//! Read once, at the start: a key that is added later is used after a restart.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use herald_l2::{ClusterId, Keyring};
use herald_wire::hello::{KeyId, Secret};

/// What lies in the key directory.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Which cluster this is.
    pub cluster: ClusterId,
    /// The keys, one to eight.
    pub ring: Keyring,
}

/// Why the key directory is of no use yet.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file is missing or can't be read.
    #[error("{path}: {source}; expected {expected}, from the Secret herald-hello that the controller creates", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{path}: {found} where {expected} belong; is it mounted from the Secret herald-hello?", path = path.display())]
    Garbled {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// What it holds, without showing it: it may be a key.
        found: String,
    },
}

const CLUSTER_ID: &str = "16 lower-case hex digits";
const KEY: &str = "64 lower-case hex digits";

/// Reads `cluster-id`, `key-0` and, where they exist, `key-1` to `key-7`.
pub fn read(dir: &Path) -> Result<Keys, KeyError> {
    let path = dir.join("cluster-id");
    let cluster = hex::<8>(&path, &text(&path, CLUSTER_ID)?, CLUSTER_ID)?;
    let mut ring = Keyring::new();
    for (number, id) in (0..KeyId::COUNT).filter_map(|number| Some((number, KeyId::new(number)?))) {
        let path = dir.join(format!("key-{number}"));
        match text(&path, KEY) {
            Ok(text) => ring = ring.with(id, &Secret::new(hex(&path, &text, KEY)?)),
            // Only the first key must be there; the others exist while keys are being changed.
            Err(KeyError::Unreadable { source, .. })
                if number > 0 && source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Keys { cluster: ClusterId(u64::from_be_bytes(cluster)), ring })
}

fn text(path: &Path, expected: &'static str) -> Result<String, KeyError> {
    let unreadable = |source| KeyError::Unreadable { path: path.to_owned(), expected, source };
    let bytes = fs::read(path).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|_| KeyError::Garbled {
        path: path.to_owned(),
        expected,
        found: "binary data".to_owned(),
    })
}

fn hex<const N: usize>(path: &Path, text: &str, expected: &'static str) -> Result<[u8; N], KeyError> {
    let digits = text.trim_ascii_end().as_bytes();
    let garbled = |found| KeyError::Garbled { path: path.to_owned(), expected, found };
    if digits.len() != 2 * N {
        return Err(garbled(format!("{} characters", digits.len())));
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        for digit in pair {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return Err(garbled("other characters".to_owned())),
            };
            *byte = *byte << 4 | value;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    #[test]
    fn reads_the_cluster_id_and_every_key_there_is() {
        let key = "0f".repeat(32);
        let dir = dir(&[("cluster-id", "00000000000000ff\n"), ("key-0", &key), ("key-3", &key)]);
        let keys = read(dir.path()).unwrap();
        assert_eq!(keys.cluster, ClusterId(255));
        let expected: Vec<_> = [0, 3].into_iter().filter_map(KeyId::new).collect();
        assert_eq!(keys.ring.ids().iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_missing_file_is_named_with_what_belongs_in_it() {
        let dir = dir(&[("cluster-id", "00000000000000ff")]);
        let error = read(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("key-0") && error.contains("64 lower-case hex") && error.contains("herald-hello"),
            "{error}"
        );
    }

    #[test]
    fn a_garbled_file_is_named_without_showing_what_it_holds() {
        for garbage in ["", "zz", "00000000000000FF", "00000000000000ff00"] {
            let dir = dir(&[("cluster-id", garbage), ("key-0", "")]);
            let error = read(dir.path()).unwrap_err().to_string();
            assert!(error.contains("cluster-id") && error.contains("16 lower-case hex"), "{error}");
        }
        let dir = dir(&[("cluster-id", "00000000000000ff"), ("key-0", "secretsecret")]);
        let error = read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("key-0: 12 characters") && !error.contains("secretsecret"), "{error}");
    }
}
