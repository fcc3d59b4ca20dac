//! Bodies: the fixed part by type, then TLVs. The layout stands in the module above.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    Bye, Claim, Drop, Hello, KeySet, Kind, LastEpoch, Message, Offer, Order, Reason, State, Suspect, Sync,
    TLV_HEADER_LEN, Tell, Vouch, VouchKind,
};
use crate::{Boot, Epoch, MacAddr, NodeId, Revision, Salt, TableVersion, Vip};

const SUSPECT: u8 = 1;
const VOUCH: u8 = 2;
const CLAIM: u8 = 3;
const DROP: u8 = 4;
const ECHO: u8 = 5;
const NAME: u8 = 6;
const EPOCH: u8 = 7;

const HELLO_FIXED_LEN: usize = 41;
const SYNC_FIXED_LEN: usize = 12;
const TELL_LEN: usize = 58;

/// Why the body of a verified frame was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// The body ends within its fixed part or within a TLV.
    #[error("the body ends within {0}")]
    Short(&'static str),
    /// A field or TLV holds a value that the protocol forbids.
    #[error("invalid {0}")]
    Invalid(&'static str),
}

pub(super) fn body_len(message: &Message) -> usize {
    fn list<E: Entry>(entries: &[E]) -> usize {
        if entries.is_empty() { 0 } else { TLV_HEADER_LEN + entries.len() * E::LEN }
    }
    match message {
        Message::Hello(hello) => {
            HELLO_FIXED_LEN
                + list(&hello.suspects)
                + list(&hello.vouches)
                + list(&hello.claims)
                + list(&hello.drops)
                + list(&hello.echoes)
                + hello.name.as_ref().map_or(0, |name| TLV_HEADER_LEN + name.len())
        }
        Message::Challenge(_) | Message::SyncRequest(_) => size_of::<u64>(),
        Message::Sync(sync) => SYNC_FIXED_LEN + list(&sync.claims) + list(&sync.epochs),
        Message::Offer(_) => size_of::<Vip>(),
        Message::Bye(_) => 3,
        Message::Tell(_) => TELL_LEN,
        Message::Unknown(_) => 0,
    }
}

pub(super) fn encode(message: &Message, out: &mut Vec<u8>) {
    match message {
        Message::Hello(hello) => encode_hello(hello, out),
        Message::Challenge(Salt(salt)) => out.extend(salt.to_be_bytes()),
        Message::SyncRequest(TableVersion(from)) => out.extend(from.to_be_bytes()),
        Message::Sync(sync) => {
            out.extend(sync.version.0.to_be_bytes());
            out.extend(sync.index.to_be_bytes());
            out.extend(sync.total.to_be_bytes());
            encode_list(CLAIM, &sync.claims, out);
            encode_list(EPOCH, &sync.epochs, out);
        }
        Message::Offer(offer) => out.extend(offer.vip.octets()),
        Message::Bye(bye) => {
            out.push(match bye.reason {
                Reason::Restart => 1,
                Reason::Leave => 2,
            });
            out.extend(bye.hold_s.to_be_bytes());
        }
        Message::Tell(tell) => {
            out.extend(tell.vip.octets());
            out.extend(tell.winner.0.to_be_bytes());
            out.extend(tell.boot.0.to_be_bytes());
            out.extend(tell.order.revision.0.to_be_bytes());
            out.extend(tell.order.reach.to_be_bytes());
            out.extend(tell.order.epoch.0.to_be_bytes());
            out.extend(tell.order.hash.to_be_bytes());
        }
        Message::Unknown(_) => {}
    }
}

fn encode_hello(hello: &Hello, out: &mut Vec<u8>) {
    out.push(match hello.state {
        State::Listen => 1,
        State::Active => 2,
        State::Leaving => 3,
        State::Other(state) => state,
    });
    out.push(u8::from(hello.able));
    out.extend(hello.interval_ms.to_be_bytes());
    out.extend(hello.reach.to_be_bytes());
    out.extend(hello.table_version.0.to_be_bytes());
    out.extend(hello.mac.octets());
    out.extend(hello.ipv4.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
    out.extend(hello.ipv6.unwrap_or(Ipv6Addr::UNSPECIFIED).octets());
    out.push(hello.accepted_keys.bits());
    encode_list(SUSPECT, &hello.suspects, out);
    encode_list(VOUCH, &hello.vouches, out);
    encode_list(CLAIM, &hello.claims, out);
    encode_list(DROP, &hello.drops, out);
    encode_list(ECHO, &hello.echoes, out);
    if let Some(name) = &hello.name {
        encode_tlv(NAME, name.len(), out);
        out.extend(name.as_bytes());
    }
}

fn encode_list<E: Entry>(kind: u8, entries: &[E], out: &mut Vec<u8>) {
    if !entries.is_empty() {
        encode_tlv(kind, entries.len() * E::LEN, out);
        for entry in entries {
            entry.encode(out);
        }
    }
}

/// The header of a TLV. Its length fits, because `seal` has checked that the whole body does.
fn encode_tlv(kind: u8, len: usize, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend(u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
}

pub(super) fn decode(kind: Kind, body: &[u8]) -> Result<Message, Malformed> {
    let mut reader = Reader::new(body);
    let message = match kind {
        Kind::Hello => Message::Hello(decode_hello(&mut reader)?),
        Kind::Challenge => Message::Challenge(Salt(reader.u64().ok_or(Malformed::Short("CHALLENGE"))?)),
        Kind::SyncRequest => {
            Message::SyncRequest(TableVersion(reader.u64().ok_or(Malformed::Short("SYNC_REQ"))?))
        }
        Kind::Sync => Message::Sync(decode_sync(&mut reader)?),
        Kind::Offer => Message::Offer(Offer { vip: reader.vip().ok_or(Malformed::Short("OFFER"))? }),
        Kind::Bye => Message::Bye(decode_bye(&mut reader)?),
        Kind::Tell => Message::Tell(decode_tell(&mut reader)?),
        Kind::Unknown(kind) => return Ok(Message::Unknown(kind)),
    };
    // What a message does not take is skipped, but must be whole TLVs.
    while reader.tlv()?.is_some() {}
    Ok(message)
}

fn decode_hello(reader: &mut Reader<'_>) -> Result<Hello, Malformed> {
    let short = Malformed::Short("HELLO");
    let state = match reader.u8().ok_or(short)? {
        1 => State::Listen,
        2 => State::Active,
        3 => State::Leaving,
        other => State::Other(other),
    };
    let mut hello = Hello {
        state,
        able: reader.u8().ok_or(short)? != 0,
        interval_ms: reader.u16().ok_or(short)?,
        reach: reader.u16().ok_or(short)?,
        table_version: TableVersion(reader.u64().ok_or(short)?),
        mac: MacAddr::from(reader.array::<6>().ok_or(short)?),
        ipv4: Some(Ipv4Addr::from(reader.array::<4>().ok_or(short)?)).filter(|ip| !ip.is_unspecified()),
        ipv6: Some(Ipv6Addr::from(reader.array::<16>().ok_or(short)?)).filter(|ip| !ip.is_unspecified()),
        accepted_keys: KeySet::from_bits(reader.u8().ok_or(short)?),
        suspects: Vec::new(),
        vouches: Vec::new(),
        claims: Vec::new(),
        drops: Vec::new(),
        echoes: Vec::new(),
        name: None,
    };
    while let Some((kind, value)) = reader.tlv()? {
        match kind {
            SUSPECT => decode_list(value, &mut hello.suspects, "SUSPECT")?,
            VOUCH => decode_list(value, &mut hello.vouches, "VOUCH")?,
            CLAIM => decode_list(value, &mut hello.claims, "CLAIM")?,
            DROP => decode_list(value, &mut hello.drops, "DROP")?,
            ECHO => decode_list(value, &mut hello.echoes, "ECHO")?,
            NAME => hello.name = String::from_utf8(value.to_vec()).ok(),
            _ => {}
        }
    }
    Ok(hello)
}

fn decode_sync(reader: &mut Reader<'_>) -> Result<Sync, Malformed> {
    let short = Malformed::Short("SYNC");
    let mut sync = Sync {
        version: TableVersion(reader.u64().ok_or(short)?),
        index: reader.u16().ok_or(short)?,
        total: reader.u16().ok_or(short)?,
        claims: Vec::new(),
        epochs: Vec::new(),
    };
    if sync.index >= sync.total {
        return Err(Malformed::Invalid("SYNC index"));
    }
    while let Some((kind, value)) = reader.tlv()? {
        match kind {
            CLAIM => decode_list(value, &mut sync.claims, "CLAIM")?,
            EPOCH => decode_list(value, &mut sync.epochs, "EPOCH")?,
            _ => {}
        }
    }
    Ok(sync)
}

fn decode_bye(reader: &mut Reader<'_>) -> Result<Bye, Malformed> {
    let short = Malformed::Short("BYE");
    let reason = match reader.u8().ok_or(short)? {
        1 => Reason::Restart,
        2 => Reason::Leave,
        _ => return Err(Malformed::Invalid("BYE reason")),
    };
    Ok(Bye { reason, hold_s: reader.u16().ok_or(short)? })
}

fn decode_tell(reader: &mut Reader<'_>) -> Result<Tell, Malformed> {
    let short = Malformed::Short("TELL");
    Ok(Tell {
        vip: reader.vip().ok_or(short)?,
        winner: NodeId::from_wire(reader.u64().ok_or(short)?).ok_or(Malformed::Invalid("TELL winner"))?,
        boot: Boot(reader.u64().ok_or(short)?),
        order: Order {
            revision: Revision(reader.u64().ok_or(short)?),
            reach: reader.u16().ok_or(short)?,
            epoch: Epoch(reader.u64().ok_or(short)?),
            hash: reader.u64().ok_or(short)?,
        },
    })
}

fn decode_list<E: Entry>(value: &[u8], into: &mut Vec<E>, name: &'static str) -> Result<(), Malformed> {
    if !value.len().is_multiple_of(E::LEN) {
        return Err(Malformed::Invalid(name));
    }
    into.reserve(value.len() / E::LEN);
    into.extend(value.chunks_exact(E::LEN).filter_map(|entry| E::decode(&mut Reader::new(entry))));
    Ok(())
}

/// Something that comes in lists, each entry of one length.
trait Entry: Copy {
    /// Octets of one entry on the wire.
    const LEN: usize;

    fn encode(&self, out: &mut Vec<u8>);

    /// `None` for an entry to skip: it holds a value that only a later version knows.
    fn decode(reader: &mut Reader<'_>) -> Option<Self>;
}

impl Entry for Suspect {
    const LEN: usize = 16;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.node.0.to_be_bytes());
        out.extend(self.boot.0.to_be_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self { node: NodeId::from_wire(reader.u64()?)?, boot: Boot(reader.u64()?) })
    }
}

impl Entry for Vouch {
    const LEN: usize = 19;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.node.0.to_be_bytes());
        out.extend(self.boot.0.to_be_bytes());
        out.extend(self.age_ms.to_be_bytes());
        out.push(match self.kind {
            VouchKind::Speaker => 1,
            VouchKind::Kernel => 2,
        });
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            node: NodeId::from_wire(reader.u64()?)?,
            boot: Boot(reader.u64()?),
            age_ms: reader.u16()?,
            kind: match reader.u8()? {
                1 => VouchKind::Speaker,
                2 => VouchKind::Kernel,
                _ => return None,
            },
        })
    }
}

impl Entry for Salt {
    const LEN: usize = 8;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.0.to_be_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        reader.u64().map(Self)
    }
}

impl Entry for Claim {
    const LEN: usize = 32;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.vip.octets());
        out.extend(self.revision.0.to_be_bytes());
        out.extend(self.epoch.0.to_be_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self { vip: reader.vip()?, revision: Revision(reader.u64()?), epoch: Epoch(reader.u64()?) })
    }
}

impl Entry for Drop {
    const LEN: usize = 24;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.vip.octets());
        out.extend(NodeId::to_wire(self.winner).to_be_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self { vip: reader.vip()?, winner: NodeId::from_wire(reader.u64()?) })
    }
}

impl Entry for LastEpoch {
    const LEN: usize = 32;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.vip.octets());
        out.extend(self.max_epoch.0.to_be_bytes());
        out.extend(NodeId::to_wire(self.last_holder).to_be_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            vip: reader.vip()?,
            max_epoch: Epoch(reader.u64()?),
            last_holder: NodeId::from_wire(reader.u64()?),
        })
    }
}

/// Reads big-endian numbers from the front; `None` once the bytes run out.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*array)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn vip(&mut self) -> Option<Vip> {
        self.array().map(Vip::from_octets)
    }

    /// The next TLV's type and value; `None` at the end.
    fn tlv(&mut self) -> Result<Option<(u8, &'a [u8])>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let short = Malformed::Short("a TLV");
        let kind = self.u8().ok_or(short)?;
        let len = usize::from(self.u16().ok_or(short)?);
        let (value, rest) = self.rest.split_at_checked(len).ok_or(short)?;
        self.rest = rest;
        Ok(Some((kind, value)))
    }
}
