//! The keys that seal frames. A secret enters here and shows nowhere: not in Debug, not in errors.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::TAG_LEN;

/// Which key: 0 to 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct KeyId(u8);

impl KeyId {
    /// How many ids there are.
    pub const COUNT: u8 = 8;

    /// The id, if it is below [`Self::COUNT`].
    pub fn new(id: u8) -> Option<Self> {
        (id < Self::COUNT).then_some(Self(id))
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A set of key ids, as HELLO tells it (rule A8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct KeySet(u8);

impl KeySet {
    /// From the bitmap on the wire: bit i stands for key id i.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// The bitmap on the wire.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether `key` is in it.
    pub const fn contains(self, key: KeyId) -> bool {
        self.0 & (1 << key.0) != 0
    }

    /// The keys, lowest first.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = KeyId> {
        (0..KeyId::COUNT).map(KeyId).filter(move |key| self.contains(*key))
    }
}

impl FromIterator<KeyId> for KeySet {
    fn from_iter<I: IntoIterator<Item = KeyId>>(keys: I) -> Self {
        Self(keys.into_iter().fold(0, |bits, key| bits | 1 << key.0))
    }
}

/// A 256-bit key.
#[derive(Clone)]
pub struct Secret([u8; Self::LEN]);

impl Secret {
    /// Octets of a key.
    pub const LEN: usize = 32;

    /// Wraps the bytes of a key.
    pub const fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The keys a speaker has: at most one per id.
#[derive(Clone, Default)]
pub struct Keyring {
    /// HMAC states that have taken in their key already, so that a frame costs two hash blocks less.
    keys: [Option<Hmac<Sha256>>; KeyId::COUNT as usize],
}

impl Keyring {
    /// An empty ring: it opens nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The ring with `secret` as key `id`, replacing what was there.
    #[must_use]
    pub fn with(mut self, id: KeyId, secret: &Secret) -> Self {
        if let (Some(slot), Ok(hmac)) =
            (self.keys.get_mut(usize::from(id.0)), Hmac::new_from_slice(&secret.0))
        {
            *slot = Some(hmac);
        }
        self
    }

    /// The ids there are keys for.
    pub fn ids(&self) -> KeySet {
        (0..KeyId::COUNT).map(KeyId).filter(|id| self.state(*id).is_some()).collect()
    }

    /// The tag of `bytes` under key `id`; `None` without that key.
    pub(super) fn tag(&self, id: KeyId, bytes: &[u8]) -> Option<[u8; TAG_LEN]> {
        let full = self.state(id)?.clone().chain_update(bytes).finalize().into_bytes();
        full.first_chunk().copied()
    }

    /// Whether `tag` is that of `bytes`, compared in constant time; `None` without that key.
    pub(super) fn verify(&self, id: KeyId, bytes: &[u8], tag: &[u8; TAG_LEN]) -> Option<bool> {
        Some(self.state(id)?.clone().chain_update(bytes).verify_truncated_left(tag).is_ok())
    }

    fn state(&self, id: KeyId) -> Option<&Hmac<Sha256>> {
        self.keys.get(usize::from(id.0))?.as_ref()
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keyring").field(&self.ids()).finish()
    }
}
