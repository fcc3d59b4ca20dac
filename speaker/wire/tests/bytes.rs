//! Every form we send, octet by octet, against bytes written down by hand from the RFCs and from the layout in
//! `herald_wire::hello`: an independent implementation must produce the same.

#![cfg(test)]

use std::net::{Ipv4Addr, Ipv6Addr};

use herald_wire::hello::{
    self, Bye, Claim, Drop, Header, Hello, KeyId, KeySet, Keyring, LastEpoch, Message, Offer, Order, Reason,
    Secret, State, Suspect, Sync, Tell, Vouch, VouchKind,
};
use herald_wire::{
    Arp, Boot, ClusterId, Counter, Echo, Epoch, Ethernet, IfIndex, MacAddr, Ndp, NodeId, Payload, Revision,
    Salt, TableVersion, Vip, echo, ndp,
};

const MINE: MacAddr = MacAddr(0x02, 0, 0, 0, 0, 0x0a);
const CLIENT: MacAddr = MacAddr(0x02, 0, 0, 0, 0, 0x0c);
const VIP4: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 240);
const CLIENT4: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 7);
const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0x12, 0x3456);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, 7);

/// Parses text such as `"ffff ffff ffff  0200 ..."`, whitespace free, into bytes.
fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    assert!(digits.len().is_multiple_of(2), "odd number of hex digits");
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

#[track_caller]
fn same(name: &str, built: &[u8], written: &str) {
    let written = hex(written);
    assert_eq!(built.len(), written.len(), "{name}: length\n built {built:02x?}\n known {written:02x?}");
    if let Some(at) = (0..built.len()).find(|&at| built[at] != written[at]) {
        panic!("{name}: octet {at}\n built {built:02x?}\n known {written:02x?}");
    }
}

#[test]
fn arp_forms() {
    let everybody = Ethernet::broadcast(MINE);
    let to_client = Ethernet::new(CLIENT, MINE);
    let asked = Arp::who_has(VIP4, CLIENT4, CLIENT);
    for (name, arp, ethernet, bytes) in [
        (
            "gratuitous request",
            Arp::gratuitous_request(VIP4, MINE),
            everybody,
            "ffffffffffff 02000000000a 0806 0001 0800 06 04 0001 02000000000a c0a801f0 000000000000 c0a801f0",
        ),
        (
            "gratuitous reply, tha = sha",
            Arp::gratuitous_reply(VIP4, MINE),
            everybody,
            "ffffffffffff 02000000000a 0806 0001 0800 06 04 0002 02000000000a c0a801f0 02000000000a c0a801f0",
        ),
        (
            "gratuitous request to one host",
            Arp::gratuitous_request(VIP4, MINE),
            to_client,
            "02000000000c 02000000000a 0806 0001 0800 06 04 0001 02000000000a c0a801f0 000000000000 c0a801f0",
        ),
        (
            "who-has client tell VIP, broadcast",
            Arp::who_has(CLIENT4, VIP4, MINE),
            everybody,
            "ffffffffffff 02000000000a 0806 0001 0800 06 04 0001 02000000000a c0a801f0 000000000000 c0a80107",
        ),
        (
            "who-has client tell VIP, unicast",
            Arp::who_has(CLIENT4, VIP4, MINE),
            to_client,
            "02000000000c 02000000000a 0806 0001 0800 06 04 0001 02000000000a c0a801f0 000000000000 c0a80107",
        ),
        (
            "conflict probe",
            Arp::probe(VIP4, MINE),
            everybody,
            "ffffffffffff 02000000000a 0806 0001 0800 06 04 0001 02000000000a 00000000 000000000000 c0a801f0",
        ),
        (
            "answer",
            asked.answer(MINE),
            to_client,
            "02000000000c 02000000000a 0806 0001 0800 06 04 0002 02000000000a c0a801f0 02000000000c c0a80107",
        ),
        (
            "a deputy's answer: sha the holder's, Ethernet source its own",
            asked.answer(MacAddr(0x02, 0, 0, 0, 0, 0x0b)),
            to_client,
            "02000000000c 02000000000a 0806 0001 0800 06 04 0002 02000000000b c0a801f0 02000000000c c0a80107",
        ),
    ] {
        let frame = arp.to_frame(ethernet);
        same(name, &frame, bytes);
        let parsed = herald_wire::parse(&frame).unwrap();
        assert_eq!((parsed.ethernet, parsed.payload), (ethernet, Payload::Arp(arp)), "{name}");
    }
}

#[test]
fn arp_forms_know_what_they_are() {
    assert!(Arp::gratuitous_request(VIP4, MINE).is_gratuitous());
    assert!(Arp::gratuitous_reply(VIP4, MINE).is_gratuitous());
    assert!(Arp::probe(VIP4, MINE).is_probe());
    assert!(!Arp::probe(VIP4, MINE).is_gratuitous());
    assert!(!Arp::who_has(CLIENT4, VIP4, MINE).is_probe());
}

#[test]
fn ndp_forms() {
    let solicitation = Ndp::who_has(VIP6, CLIENT6, CLIENT);
    let dad = Ndp::probe(VIP6);
    for (name, ndp, ethernet, bytes) in [
        (
            "unsolicited advertisement, O=1, to all nodes",
            Ndp::announcement(VIP6, MINE),
            Ethernet::multicast(ndp::ALL_NODES, MINE),
            "333300000001 02000000000a 86dd 60000000 0020 3a ff
             fd000010000000000000000000123456 ff020000000000000000000000000001
             88 00 f1a3 20000000 fd000010000000000000000000123456 02 01 02000000000a",
        ),
        (
            "solicitation for a client from the VIP, with the source option",
            Ndp::who_has(CLIENT6, VIP6, MINE),
            Ethernet::multicast(ndp::solicited_node(CLIENT6), MINE),
            "3333ff000007 02000000000a 86dd 60000000 0020 3a ff
             fd000010000000000000000000123456 ff0200000000000000000001ff000007
             87 00 48fd 00000000 fd000010000000000000000000000007 01 01 02000000000a",
        ),
        (
            "the same to the client's own address",
            Ndp::who_has_unicast(CLIENT6, VIP6, MINE),
            Ethernet::new(CLIENT, MINE),
            "02000000000c 02000000000a 86dd 60000000 0020 3a ff
             fd000010000000000000000000123456 fd000010000000000000000000000007
             87 00 49f1 00000000 fd000010000000000000000000000007 01 01 02000000000a",
        ),
        (
            "duplicate address probe: from ::, without the option",
            dad,
            Ethernet::multicast(ndp::solicited_node(VIP6), MINE),
            "3333ff123456 02000000000a 86dd 60000000 0018 3a ff
             00000000000000000000000000000000 ff0200000000000000000001ff123456
             87 00 14c7 00000000 fd000010000000000000000000123456",
        ),
        (
            "answer: solicited, O=1, to the asker",
            solicitation.answer(MINE).unwrap(),
            Ethernet::new(CLIENT, MINE),
            "02000000000c 02000000000a 86dd 60000000 0020 3a ff
             fd000010000000000000000000123456 fd000010000000000000000000000007
             88 00 b38f 60000000 fd000010000000000000000000123456 02 01 02000000000a",
        ),
        (
            "answer to a duplicate address probe: not solicited, O=1, to all nodes",
            dad.answer(MINE).unwrap(),
            Ethernet::multicast(ndp::ALL_NODES, MINE),
            "333300000001 02000000000a 86dd 60000000 0020 3a ff
             fd000010000000000000000000123456 ff020000000000000000000000000001
             88 00 f1a3 20000000 fd000010000000000000000000123456 02 01 02000000000a",
        ),
    ] {
        let frame = ndp.to_frame(ethernet);
        same(name, &frame, bytes);
        let parsed = herald_wire::parse(&frame).unwrap();
        assert_eq!((parsed.ethernet, parsed.payload), (ethernet, Payload::Ndp(ndp)), "{name}");
    }
    assert!(dad.is_probe() && !solicitation.is_probe());
    assert_eq!(dad.answer(MINE).unwrap().answer(MINE), None, "nobody answers an advertisement");
}

#[test]
fn echo_forms() {
    let nonce = [1, 2, 3, 4, 5, 6, 7, 8];
    let v4 = echo::Path::V4 { source: CLIENT4, destination: VIP4 };
    let v6 = echo::Path::V6 { source: CLIENT6, destination: VIP6 };
    let ethernet = Ethernet::new(MINE, CLIENT);
    for (name, path, operation, bytes) in [
        (
            "IPv4 request",
            v4,
            echo::Operation::Request,
            "02000000000a 02000000000c 0800 45 00 0024 0000 4000 40 01 b691 c0a80107 c0a801f0
             08 00 d5b5 1234 0002 0102030405060708",
        ),
        (
            "IPv4 reply",
            v4,
            echo::Operation::Reply,
            "02000000000a 02000000000c 0800 45 00 0024 0000 4000 40 01 b691 c0a80107 c0a801f0
             00 00 ddb5 1234 0002 0102030405060708",
        ),
        (
            "IPv6 request",
            v6,
            echo::Operation::Request,
            "02000000000a 02000000000c 86dd 60000000 0010 3a 40
             fd000010000000000000000000000007 fd000010000000000000000000123456
             80 00 2eda 1234 0002 0102030405060708",
        ),
        (
            "IPv6 reply",
            v6,
            echo::Operation::Reply,
            "02000000000a 02000000000c 86dd 60000000 0010 3a 40
             fd000010000000000000000000000007 fd000010000000000000000000123456
             81 00 2dda 1234 0002 0102030405060708",
        ),
    ] {
        let echo = Echo { path, operation, identifier: 0x1234, sequence: 2, nonce };
        let frame = echo.to_frame(ethernet);
        same(name, &frame, bytes);
        let parsed = herald_wire::parse(&frame).unwrap();
        assert_eq!((parsed.ethernet, parsed.payload), (ethernet, Payload::Echo(echo)), "{name}");
    }
}

/// Header and body as written down; the tag is checked in [`the_tag_is_hmac_sha_256_cut_to_128_bits`].
const HELLO_HEADER: &str = "48524c44 01 TT 0000 1111111111111111 2222222222222222 3333333333333333 00000007
                            0000000000000009 03";

#[test]
fn hello_with_and_without_tlvs() {
    let (vip4, vip6) = (Vip::from(VIP4), Vip::from(VIP6));
    let hello = Hello {
        state: State::Active,
        able: true,
        interval_ms: 40,
        reach: 3,
        table_version: TableVersion(5),
        mac: MINE,
        ipv4: Some(CLIENT4),
        ipv6: Some(CLIENT6),
        accepted_keys: KeySet::from_bits(0b1001),
        suspects: vec![Suspect { node: NodeId(0xaa), boot: Boot(0xbb) }],
        vouches: vec![
            Vouch { node: NodeId(0xaa), boot: Boot(0xbb), age_ms: 20, kind: VouchKind::Speaker },
            Vouch { node: NodeId(0xac), boot: Boot(0xbd), age_ms: 21, kind: VouchKind::Kernel },
        ],
        claims: vec![Claim { vip: vip4, revision: Revision(100), epoch: Epoch(2) }],
        drops: vec![Drop { vip: vip6, winner: Some(NodeId(0xdd)) }, Drop { vip: vip4, winner: None }],
        echoes: vec![Salt(0x5a17), Salt(0x5a18)],
        name: Some("n1".to_owned()),
    };
    let bare = Hello {
        state: State::Listen,
        able: false,
        ipv4: None,
        ipv6: None,
        suspects: vec![],
        vouches: vec![],
        claims: vec![],
        drops: vec![],
        echoes: vec![],
        name: None,
        ..hello.clone()
    };
    for (name, message, kind, body) in [
        (
            "HELLO with every TLV",
            Message::Hello(hello),
            "01",
            "02 01 0028 0003 0000000000000005 02000000000a c0a80107 fd000010000000000000000000000007 09
             01 0010 00000000000000aa 00000000000000bb
             02 0026 00000000000000aa 00000000000000bb 0014 01  00000000000000ac 00000000000000bd 0015 02
             03 0020 00000000000000000000ffffc0a801f0 0000000000000064 0000000000000002
             04 0030 fd000010000000000000000000123456 00000000000000dd
                     00000000000000000000ffffc0a801f0 0000000000000000
             05 0010 0000000000005a17 0000000000005a18
             06 0002 6e31",
        ),
        (
            "HELLO without any",
            Message::Hello(bare),
            "01",
            "01 00 0028 0003 0000000000000005 02000000000a 00000000 00000000000000000000000000000000 09",
        ),
    ] {
        on_the_wire(name, message, kind, body);
    }
}

#[test]
fn the_other_messages() {
    let (vip4, vip6) = (Vip::from(VIP4), Vip::from(VIP6));
    for (name, message, kind, body) in [
        ("CHALLENGE", Message::Challenge(Salt(0x5a17)), "02", "0000000000005a17"),
        ("SYNC_REQ", Message::SyncRequest(TableVersion(4)), "03", "0000000000000004"),
        (
            "SYNC",
            Message::Sync(Sync {
                version: TableVersion(5),
                index: 1,
                total: 2,
                claims: vec![Claim { vip: vip4, revision: Revision(100), epoch: Epoch(2) }],
                epochs: vec![LastEpoch { vip: vip6, max_epoch: Epoch(7), last_holder: Some(NodeId(0xdd)) }],
            }),
            "04",
            "0000000000000005 0001 0002
             03 0020 00000000000000000000ffffc0a801f0 0000000000000064 0000000000000002
             07 0020 fd000010000000000000000000123456 0000000000000007 00000000000000dd",
        ),
        ("OFFER", Message::Offer(Offer { vip: vip6 }), "05", "fd000010000000000000000000123456"),
        ("BYE RESTART", Message::Bye(Bye { reason: Reason::Restart, hold_s: 60 }), "06", "01 003c"),
        ("BYE LEAVE", Message::Bye(Bye { reason: Reason::Leave, hold_s: 0 }), "06", "02 0000"),
        (
            "TELL",
            Message::Tell(Tell {
                vip: vip4,
                winner: NodeId(0xdd),
                boot: Boot(0xee),
                order: Order {
                    revision: Revision(100),
                    reach: 3,
                    epoch: Epoch(2),
                    hash: 0x0123_4567_89ab_cdef,
                },
            }),
            "07",
            "00000000000000000000ffffc0a801f0 00000000000000dd 00000000000000ee
             0000000000000064 0003 0000000000000002 0123456789abcdef",
        ),
    ] {
        on_the_wire(name, message, kind, body);
    }
}

/// Sealed as written down, and read back as it was.
#[track_caller]
fn on_the_wire(name: &str, message: Message, kind: &str, body: &str) {
    let frame = keys().seal(Ethernet::new(hello::GROUP, MINE), &header(), &message, 1500).unwrap();
    let body_len = format!("{:04x}", hex(body).len());
    let ethernet = "036865726c64 02000000000a 88b5";
    let written = [ethernet, &HELLO_HEADER.replace("TT", kind), &body_len, body].join(" ");
    let (untagged, tag) = frame.split_at(frame.len() - hello::TAG_LEN);
    same(name, untagged, &written);
    assert_eq!(tag, keys_tag(&untagged[14..]), "{name}: tag");

    let verifier =
        hello::Verifier { cluster: header().cluster, node: NodeId(1), boot: Boot(1), keys: &keys() };
    let Payload::Hello(sealed) = herald_wire::parse(&frame).unwrap().payload else {
        panic!("{name}: not a hello")
    };
    let verified = verifier.verify(&sealed).unwrap();
    assert_eq!(verified.header, header(), "{name}");
    assert_eq!(verified.message(), Ok(message), "{name}");
}

/// HMAC (RFC 2104) spelt out: H(K ^ opad, H(K ^ ipad, text)), its first 16 octets.
fn keys_tag(text: &[u8]) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let pad = |with: u8| {
        let mut block = [with; 64];
        for octet in block.iter_mut().take(Secret::LEN) {
            *octet ^= 0x42;
        }
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    let outer = Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize();
    outer[..16].to_vec()
}

#[test]
fn the_tag_is_hmac_sha_256_cut_to_128_bits() {
    // Computed with: printf 'HERALD' | openssl dgst -sha256 -mac HMAC -macopt hexkey:4242...42
    assert_eq!(keys_tag(b"HERALD"), hex("0ba68716eba01829a3eaa75ecfb3d02d"));
}

fn header() -> Header {
    Header {
        cluster: ClusterId(0x1111_1111_1111_1111),
        node: NodeId(0x2222_2222_2222_2222),
        boot: Boot(0x3333_3333_3333_3333),
        ifindex: IfIndex(7),
        counter: Counter(9),
        key: KeyId::new(3).unwrap(),
        flags: hello::Flags::NONE,
    }
}

fn keys() -> Keyring {
    Keyring::new().with(KeyId::new(3).unwrap(), &Secret::new([0x42; Secret::LEN]))
}
