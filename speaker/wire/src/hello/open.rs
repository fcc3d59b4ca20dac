//! From received bytes to a message, in the order of rule A5.

use super::codec::{self, Reader};
use super::{Flags, HEADER_LEN, Header, KeyId, Keyring, Kind, MAGIC, Malformed, Message, TAG_LEN, VERSION};
use crate::{Boot, ClusterId, Counter, IfIndex, Layer, NodeId, WireError};

/// A frame of ours by length, magic and version. Nothing in it can be believed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed<'a> {
    header: Header,
    kind: Kind,
    /// Header and body: what the tag covers.
    covered: &'a [u8],
    body: &'a [u8],
    tag: &'a [u8; TAG_LEN],
}

/// A frame whose sender holds one of our keys. Whether it is fresh is for the replay window to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified<'a> {
    /// Who sent it.
    pub header: Header,
    /// What it is.
    pub kind: Kind,
    body: &'a [u8],
}

/// What frames are verified against.
#[derive(Debug, Clone, Copy)]
pub struct Verifier<'a> {
    /// Our cluster.
    pub cluster: ClusterId,
    /// Our node.
    pub node: NodeId,
    /// Our current life.
    pub boot: Boot,
    /// Our keys.
    pub keys: &'a Keyring,
}

/// Why [`Verifier::verify`] refused a frame. Each is worth a counter of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// Another cluster on the same segment: no fault of anybody.
    #[error("cluster {0} is not ours")]
    ForeignCluster(ClusterId),
    /// We have no such key: a rotation that did not reach us, or a stranger.
    #[error("no key with id {0}")]
    UnknownKey(u8),
    /// Forged, damaged, or sealed with another key under the same id.
    #[error("the tag does not match")]
    BadTag,
    /// Our own frame came back: a loop, or another of our interfaces on the same segment (rule A52).
    ///
    /// It may be a recording, as no window is kept for our own frames: compare the counter with those sent lately.
    #[error("our own frame {counter}, sent on interface {ifindex}")]
    Loop {
        /// The interface it was sent on.
        ifindex: IfIndex,
        /// Which frame of that interface.
        counter: Counter,
    },
    /// Another machine, or an earlier life of ours, speaks in our node's name (rule A5: DuplicateNode).
    #[error("our node id with boot {0}, which is not ours")]
    DuplicateNode(Boot),
}

impl<'a> Sealed<'a> {
    /// Length, magic and version of an Ethernet payload; what lies behind the tag is padding.
    pub fn parse(payload: &'a [u8]) -> Result<Self, WireError> {
        let layer = Layer::Hello;
        layer.at_least(payload, HEADER_LEN + TAG_LEN)?;
        let short = |needed| WireError::Short { layer, needed, got: payload.len() };
        let mut reader = Reader::new(payload);
        let mut read_header = || -> Option<_> {
            let fixed = (reader.array::<4>()?, reader.u8()?, Kind::from_wire(reader.u8()?));
            let header = RawHeader {
                flags: Flags::from_bits(reader.u16()?),
                cluster: ClusterId(reader.u64()?),
                node: reader.u64()?,
                boot: Boot(reader.u64()?),
                ifindex: IfIndex(reader.u32()?),
                counter: Counter(reader.u64()?),
                key: reader.u8()?,
            };
            Some((fixed, header, usize::from(reader.u16()?)))
        };
        let ((magic, version, kind), header, len) = read_header().ok_or(short(HEADER_LEN))?;
        if magic != MAGIC {
            return Err(layer.invalid("magic"));
        }
        if version != VERSION {
            return Err(WireError::Version { version });
        }
        let header = header.check()?;
        let needed = HEADER_LEN + len + TAG_LEN;
        let (covered, rest) = payload.split_at_checked(HEADER_LEN + len).ok_or(short(needed))?;
        let body = covered.get(HEADER_LEN..).ok_or(short(needed))?;
        let tag = rest.first_chunk().ok_or(short(needed))?;
        Ok(Self { header, kind, covered, body, tag })
    }

    /// What the frame says about its sender, unproven: fit for counters and logs only.
    pub const fn claimed_header(&self) -> &Header {
        &self.header
    }
}

struct RawHeader {
    flags: Flags,
    cluster: ClusterId,
    node: u64,
    boot: Boot,
    ifindex: IfIndex,
    counter: Counter,
    key: u8,
}

impl RawHeader {
    fn check(self) -> Result<Header, WireError> {
        let Self { flags, cluster, node, boot, ifindex, counter, key } = self;
        let node = NodeId::from_wire(node).ok_or(Layer::Hello.invalid("node id"))?;
        let key = KeyId::new(key).ok_or(Layer::Hello.invalid("key id"))?;
        Ok(Header { cluster, node, boot, ifindex, counter, key, flags })
    }
}

impl Verifier<'_> {
    /// Cluster, key id and tag; then whether it is from ourselves.
    pub fn verify<'f>(&self, frame: &Sealed<'f>) -> Result<Verified<'f>, Refused> {
        let Sealed { header, kind, covered, body, tag } = *frame;
        if header.cluster != self.cluster {
            return Err(Refused::ForeignCluster(header.cluster));
        }
        match self.keys.verify(header.key, covered, tag) {
            None => return Err(Refused::UnknownKey(header.key.get())),
            Some(false) => return Err(Refused::BadTag),
            Some(true) => {}
        }
        if header.node == self.node {
            return Err(if header.boot == self.boot {
                Refused::Loop { ifindex: header.ifindex, counter: header.counter }
            } else {
                Refused::DuplicateNode(header.boot)
            });
        }
        Ok(Verified { header, kind, body })
    }
}

impl Verified<'_> {
    /// The message. A peer that holds the key and sends a malformed one has a bug, not us.
    pub fn message(&self) -> Result<Message, Malformed> {
        codec::decode(self.kind, self.body)
    }
}
