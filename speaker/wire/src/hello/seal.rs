//! From a message to the frame that is sent.

use super::codec;
use super::{ETHERTYPE, HEADER_LEN, Header, Keyring, MAGIC, Message, TAG_LEN, VERSION};
use crate::NodeId;
use crate::ethernet::{self, Ethernet};

/// Why a message could not be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The body has more octets than the interface's MTU leaves: split its lists over several frames.
    #[error("a body of {len} octets does not fit: the MTU leaves {capacity}")]
    TooLong {
        /// Octets of the body.
        len: usize,
        /// Octets there is room for.
        capacity: usize,
    },
    /// There is no key with the id that the header names.
    #[error("no key with id {0}")]
    UnknownKey(u8),
}

/// Octets of body that fit into one frame on an interface with this MTU.
fn body_capacity(mtu: u32) -> usize {
    let mtu = usize::try_from(mtu).unwrap_or(usize::MAX);
    mtu.saturating_sub(HEADER_LEN + TAG_LEN).min(usize::from(u16::MAX))
}

impl Keyring {
    /// The whole Ethernet frame of `message`, sealed with the key that `header` names.
    pub fn seal(
        &self,
        ethernet: Ethernet,
        header: &Header,
        message: &Message,
        mtu: u32,
    ) -> Result<Vec<u8>, SealError> {
        let len = codec::body_len(message);
        let capacity = body_capacity(mtu);
        let too_long = SealError::TooLong { len, capacity };
        let wire_len = u16::try_from(len).ok().filter(|_| len <= capacity).ok_or(too_long)?;
        let mut frame = ethernet.frame(ETHERTYPE, 0);
        frame.reserve_exact(HEADER_LEN + len + TAG_LEN);
        frame.extend(MAGIC);
        frame.extend([VERSION, message.kind().to_wire()]);
        frame.extend(header.flags.bits().to_be_bytes());
        frame.extend(header.cluster.0.to_be_bytes());
        frame.extend(NodeId::to_wire(Some(header.node)).to_be_bytes());
        frame.extend(header.boot.0.to_be_bytes());
        frame.extend(header.ifindex.0.to_be_bytes());
        frame.extend(header.counter.0.to_be_bytes());
        frame.push(header.key.get());
        frame.extend(wire_len.to_be_bytes());
        codec::encode(message, &mut frame);
        let covered = frame.get(ethernet::HEADER_LEN..).unwrap_or_default();
        let tag = self.tag(header.key, covered).ok_or(SealError::UnknownKey(header.key.get()))?;
        frame.extend(tag);
        Ok(frame)
    }
}
