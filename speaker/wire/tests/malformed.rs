//! Broken input: each case names the one thing that is wrong with it, and that is what the error says.

#![cfg(test)]

use std::net::{Ipv4Addr, Ipv6Addr};

use herald_wire::hello::{self, Header, KeyId, Keyring, Malformed, Message, Refused, Secret, Verifier};
use herald_wire::{
    Arp, Boot, ClusterId, Counter, Echo, Ethernet, IfIndex, Layer, MacAddr, Ndp, NodeId, Payload, Salt,
    WireError, echo, ndp,
};

const MAC: MacAddr = MacAddr(0x02, 0, 0, 0, 0, 0x0a);
const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0x12, 0x3456);

/// `frame` with `octets` written at `at`.
fn with(mut frame: Vec<u8>, at: usize, octets: &[u8]) -> Vec<u8> {
    frame[at..at + octets.len()].copy_from_slice(octets);
    frame
}

fn invalid(layer: Layer, field: &'static str) -> WireError {
    WireError::Invalid { layer, field }
}

#[track_caller]
fn refused(cases: &[(&str, Vec<u8>, WireError)]) {
    for (name, frame, error) in cases {
        assert_eq!(herald_wire::parse(frame), Err(*error), "{name}");
    }
}

/// All prefixes of a frame are refused as too short, and the whole frame with padding behind it is taken.
#[track_caller]
fn needs_every_octet(frame: &[u8]) {
    for len in 0..frame.len() {
        let error = herald_wire::parse(&frame[..len]).expect_err("a cut frame");
        assert!(
            matches!(error, WireError::Short { got, needed, .. } if got < needed),
            "cut to {len}: {error}"
        );
    }
    let padded = [frame, &[0; 20]].concat();
    assert_eq!(herald_wire::parse(&padded), herald_wire::parse(frame));
    herald_wire::parse(frame).unwrap();
}

#[test]
fn ethernet() {
    let frame = arp();
    let not_handled = |value| WireError::NotHandled { layer: Layer::Ethernet, value };
    refused(&[
        ("802.1Q tag", with(frame.clone(), 12, &[0x81, 0]), not_handled(0x8100)),
        ("802.3 length", with(frame, 12, &[0, 28]), not_handled(28)),
    ]);
}

fn arp() -> Vec<u8> {
    Arp::gratuitous_request(Ipv4Addr::new(192, 168, 1, 240), MAC).to_frame(Ethernet::broadcast(MAC))
}

#[test]
fn arp_fields() {
    needs_every_octet(&arp());
    refused(&[
        ("not Ethernet", with(arp(), 14, &[0, 6]), invalid(Layer::Arp, "hardware type")),
        ("not IPv4", with(arp(), 16, &[0x86, 0xdd]), invalid(Layer::Arp, "protocol type")),
        ("hardware address of 8", with(arp(), 18, &[8]), invalid(Layer::Arp, "hardware type")),
        ("protocol address of 16", with(arp(), 19, &[16]), invalid(Layer::Arp, "protocol type")),
        ("RARP", with(arp(), 20, &[0, 3]), WireError::NotHandled { layer: Layer::Arp, value: 3 }),
    ]);
}

fn solicitation() -> Vec<u8> {
    let client = Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, 7);
    Ndp::who_has(VIP6, client, MAC).to_frame(Ethernet::multicast(ndp::solicited_node(VIP6), MAC))
}

fn advertisement() -> Vec<u8> {
    Ndp::announcement(VIP6, MAC).to_frame(Ethernet::multicast(ndp::ALL_NODES, MAC))
}

/// Mends the ICMPv6 checksum of a frame that was changed behind the IPv6 header, so that the change is what is
/// found.
fn mended(mut frame: Vec<u8>) -> Vec<u8> {
    frame[56..58].fill(0);
    let message_len = frame.len() - 54;
    let pseudo_header = [&frame[22..54], &u32::try_from(message_len).unwrap().to_be_bytes(), &[0, 0, 0, 58]];
    let covered = [&pseudo_header.concat(), &frame[54..]].concat();
    let mut sum: u32 =
        covered.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).unwrap();
    with(frame, 56, &sum.to_be_bytes())
}

#[test]
fn ndp_fields() {
    needs_every_octet(&solicitation());
    needs_every_octet(&advertisement());
    let icmp = Layer::Icmpv6;
    let dad = Ndp::probe(VIP6).to_frame(Ethernet::multicast(ndp::solicited_node(VIP6), MAC));
    let dad_with_option = [dad, vec![1, 1, 2, 0, 0, 0, 0, 9]].concat();
    refused(&[
        ("version 4", with(solicitation(), 14, &[0x40]), invalid(Layer::Ipv6, "version")),
        ("UDP", with(solicitation(), 20, &[17]), WireError::NotHandled { layer: Layer::Ipv6, value: 17 }),
        (
            "hop-by-hop",
            with(solicitation(), 20, &[0]),
            WireError::NotHandled { layer: Layer::Ipv6, value: 0 },
        ),
        ("forwarded", with(solicitation(), 21, &[254]), invalid(icmp, "hop limit")),
        ("bad checksum", with(solicitation(), 56, &[0, 1]), WireError::Checksum { layer: icmp }),
        (
            "no ICMP header",
            with(solicitation(), 18, &[0, 3]),
            WireError::Short { layer: icmp, needed: 4, got: 3 },
        ),
        (
            "router advertisement",
            mended(with(solicitation(), 54, &[134])),
            WireError::NotHandled { layer: icmp, value: 134 },
        ),
        ("code 1", mended(with(solicitation(), 55, &[1])), invalid(icmp, "code")),
        ("multicast target", mended(with(solicitation(), 62, &[0xff])), invalid(icmp, "target")),
        ("option of length 0", mended(with(solicitation(), 79, &[0])), invalid(icmp, "option length")),
        (
            "option beyond the end",
            mended(with(solicitation(), 79, &[2])),
            WireError::Short { layer: icmp, needed: 16, got: 8 },
        ),
        (
            "stray octet behind the options",
            mended(with([solicitation(), vec![1]].concat(), 18, &[0, 33])),
            invalid(icmp, "option length"),
        ),
        (
            "duplicate address probe with the source option",
            mended(with(dad_with_option, 18, &[0, 32])),
            invalid(icmp, "source option in a probe"),
        ),
        (
            "duplicate address probe to all nodes",
            mended(with(Ndp::probe(VIP6).to_frame(Ethernet::broadcast(MAC)), 38, &ndp::ALL_NODES.octets())),
            invalid(icmp, "destination of a probe"),
        ),
        (
            "duplicate address probe to the address itself",
            mended(with(Ndp::probe(VIP6).to_frame(Ethernet::broadcast(MAC)), 38, &VIP6.octets())),
            invalid(icmp, "destination of a probe"),
        ),
        (
            "solicited advertisement to a group",
            mended(with(advertisement(), 58, &[0x60])),
            invalid(icmp, "solicited flag to a group"),
        ),
    ]);
}

#[test]
fn ndp_skips_options_it_does_not_read() {
    // Type 14 (nonce, RFC 3971) in front of the source option.
    let frame = solicitation();
    let (fixed, option) = frame.split_at(78);
    let frame = mended(with([fixed, &[14, 1, 1, 2, 3, 4, 5, 6], option].concat(), 18, &[0, 40]));
    let Payload::Ndp(ndp) = herald_wire::parse(&frame).unwrap().payload else { panic!("not NDP") };
    assert_eq!(ndp.message, ndp::Message::Solicitation { target: VIP6, source_mac: Some(MAC) });
}

fn echo_v4() -> Vec<u8> {
    let path = echo::Path::V4 { source: Ipv4Addr::new(10, 0, 0, 1), destination: Ipv4Addr::new(10, 0, 0, 2) };
    let echo = Echo { path, operation: echo::Operation::Reply, identifier: 1, sequence: 2, nonce: [9; 8] };
    echo.to_frame(Ethernet::broadcast(MAC))
}

#[test]
fn echo_fields() {
    needs_every_octet(&echo_v4());
    let ip = Layer::Ipv4;
    // The header's checksum is mended by hand: it moves by what the changed field moves.
    let checksum = u16::from_be_bytes([echo_v4()[24], echo_v4()[25]]);
    let lowered = |by: u16| (checksum - by).to_be_bytes();
    refused(&[
        ("version 6", with(echo_v4(), 14, &[0x65]), invalid(ip, "header")),
        ("header of 16", with(echo_v4(), 14, &[0x44]), invalid(ip, "header")),
        ("total length below the header's", with(echo_v4(), 16, &[0, 19]), invalid(ip, "header")),
        ("header checksum", with(echo_v4(), 22, &[63]), WireError::Checksum { layer: ip }),
        (
            "UDP",
            with(with(echo_v4(), 23, &[17]), 24, &lowered(16)),
            WireError::NotHandled { layer: ip, value: 17 },
        ),
        ("fragment", with(with(echo_v4(), 20, &[0x40, 1]), 24, &lowered(1)), invalid(ip, "fragment")),
        ("ICMP checksum", with(echo_v4(), 42, &[8]), WireError::Checksum { layer: Layer::Icmp }),
        (
            "somebody else's ping: another payload length",
            {
                let longer = [echo_v4(), vec![0; 8]].concat();
                with(with(longer, 16, &[0, 44]), 24, &lowered(8))
            },
            invalid(Layer::Icmp, "echo payload length"),
        ),
    ]);
}

fn keys() -> Keyring {
    Keyring::new().with(KeyId::default(), &Secret::new([7; Secret::LEN]))
}

fn header() -> Header {
    Header {
        cluster: ClusterId(1),
        node: NodeId(2),
        boot: Boot(3),
        ifindex: IfIndex(4),
        counter: Counter(5),
        key: KeyId::default(),
        flags: hello::Flags::NONE,
    }
}

fn challenge() -> Vec<u8> {
    keys().seal(Ethernet::new(hello::GROUP, MAC), &header(), &Message::Challenge(Salt(6)), 1500).unwrap()
}

#[test]
fn hello_header() {
    needs_every_octet(&challenge());
    refused(&[
        ("magic", with(challenge(), 14, b"HRLX"), invalid(Layer::Hello, "magic")),
        ("version 2", with(challenge(), 18, &[2]), WireError::Version { version: 2 }),
        ("node 0", with(challenge(), 30, &[0; 8]), invalid(Layer::Hello, "node id")),
        ("key 8", with(challenge(), 58, &[8]), invalid(Layer::Hello, "key id")),
        (
            "body beyond the end",
            with(challenge(), 59, &[0, 9]),
            WireError::Short { layer: Layer::Hello, needed: 72, got: 71 },
        ),
    ]);
}

fn verify(frame: &[u8], as_whom: (ClusterId, NodeId, Boot), keys: &Keyring) -> Result<Header, Refused> {
    let Payload::Hello(sealed) = herald_wire::parse(frame).unwrap().payload else { panic!("not a hello") };
    let (cluster, node, boot) = as_whom;
    Verifier { cluster, node, boot, keys }.verify(&sealed).map(|verified| verified.header)
}

#[test]
fn frames_are_refused_for_the_first_reason_that_holds() {
    let other = (ClusterId(1), NodeId(9), Boot(9));
    assert_eq!(verify(&challenge(), other, &keys()), Ok(header()));
    assert_eq!(
        verify(&challenge(), (ClusterId(8), NodeId(9), Boot(9)), &Keyring::new()),
        Err(Refused::ForeignCluster(ClusterId(1))),
        "before the key is looked for"
    );
    assert_eq!(verify(&challenge(), other, &Keyring::new()), Err(Refused::UnknownKey(0)));
    let another_key = Keyring::new().with(KeyId::default(), &Secret::new([8; Secret::LEN]));
    assert_eq!(verify(&challenge(), other, &another_key), Err(Refused::BadTag));
    let ourselves = (ClusterId(1), NodeId(2), Boot(3));
    assert_eq!(
        verify(&challenge(), ourselves, &keys()),
        Err(Refused::Loop { ifindex: IfIndex(4), counter: Counter(5) })
    );
    let namesake = (ClusterId(1), NodeId(2), Boot(4));
    assert_eq!(verify(&challenge(), namesake, &keys()), Err(Refused::DuplicateNode(Boot(3))));
    assert_eq!(
        verify(&challenge(), namesake, &another_key),
        Err(Refused::BadTag),
        "a forged frame in our name is not reported as a duplicate node"
    );
}

#[test]
fn every_octet_is_covered_by_the_tag() {
    let frame = challenge();
    for at in 14..frame.len() {
        let mut forged = frame.clone();
        forged[at] ^= 0x10;
        let opened = herald_wire::parse(&forged).is_ok()
            && verify(&forged, (ClusterId(1), NodeId(9), Boot(9)), &keys()).is_ok();
        assert!(!opened, "a change of octet {at} went unnoticed");
    }
}

/// A frame with a body that no `Message` makes, and the right tag.
fn sealed_body(kind: u8, body: &[u8]) -> Vec<u8> {
    use hmac::{Hmac, KeyInit, Mac};
    let mut frame = challenge();
    frame.truncate(14 + hello::HEADER_LEN);
    frame[19] = kind;
    frame[59..61].copy_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
    frame.extend(body);
    let mut hmac = Hmac::<sha2::Sha256>::new_from_slice(&[7; Secret::LEN]).unwrap();
    hmac.update(&frame[14..]);
    frame.extend(&hmac.finalize().into_bytes()[..hello::TAG_LEN]);
    frame
}

fn message(frame: &[u8]) -> Result<Message, Malformed> {
    let Payload::Hello(sealed) = herald_wire::parse(frame).unwrap().payload else { panic!("not a hello") };
    let keys = keys();
    let verifier = Verifier { cluster: ClusterId(1), node: NodeId(9), boot: Boot(9), keys: &keys };
    verifier.verify(&sealed).unwrap().message()
}

const HELLO: u8 = 1;
const SYNC: u8 = 4;

/// A HELLO's fixed part, then `tlvs`.
fn hello_with(tlvs: &[u8]) -> Vec<u8> {
    let mut body = vec![2, 1];
    body.resize(41, 0);
    body.extend(tlvs);
    body
}

#[test]
fn bodies() {
    let cases: &[(&str, u8, Vec<u8>, Malformed)] = &[
        ("HELLO cut", HELLO, hello_with(&[])[..40].to_vec(), Malformed::Short("HELLO")),
        ("TLV header cut", HELLO, hello_with(&[3, 0]), Malformed::Short("a TLV")),
        ("TLV value cut", HELLO, hello_with(&[3, 0, 32, 1]), Malformed::Short("a TLV")),
        (
            "claim of 31",
            HELLO,
            hello_with(&[&[3, 0, 31][..], &[1; 31]].concat()),
            Malformed::Invalid("CLAIM"),
        ),
        (
            "suspect of 8",
            HELLO,
            hello_with(&[&[1, 0, 8][..], &[1; 8]].concat()),
            Malformed::Invalid("SUSPECT"),
        ),
        (
            "vouch of 20",
            HELLO,
            hello_with(&[&[2, 0, 20][..], &[3; 20]].concat()),
            Malformed::Invalid("VOUCH"),
        ),
        ("echo of 4", HELLO, hello_with(&[5, 0, 4, 1, 2, 3, 4]), Malformed::Invalid("ECHO")),
        ("challenge cut", 2, vec![1; 7], Malformed::Short("CHALLENGE")),
        ("sync request cut", 3, vec![1; 7], Malformed::Short("SYNC_REQ")),
        ("sync cut", SYNC, vec![0; 11], Malformed::Short("SYNC")),
        (
            "sync part 1 of 1",
            SYNC,
            vec![0, 0, 0, 0, 0, 0, 0, 5, 0, 1, 0, 1],
            Malformed::Invalid("SYNC index"),
        ),
        ("offer cut", 5, vec![0; 15], Malformed::Short("OFFER")),
        ("bye reason 3", 6, vec![3, 0, 0], Malformed::Invalid("BYE reason")),
        ("bye cut", 6, vec![1, 0], Malformed::Short("BYE")),
        ("tell cut", 7, vec![1; 57], Malformed::Short("TELL")),
        ("tell nobody", 7, vec![0; 58], Malformed::Invalid("TELL winner")),
        ("stray octet behind a message", 5, vec![0; 17], Malformed::Short("a TLV")),
    ];
    for (name, kind, body, error) in cases {
        assert_eq!(message(&sealed_body(*kind, body)), Err(*error), "{name}");
    }
}

#[test]
fn what_a_later_version_adds_is_skipped() {
    let Message::Hello(plain) = message(&sealed_body(HELLO, &hello_with(&[]))).unwrap() else { panic!() };
    let newer = hello_with(&[99, 0, 3, 1, 2, 3, 6, 0, 1, b'n', 7, 0, 0]);
    let Message::Hello(newer) = message(&sealed_body(HELLO, &newer)).unwrap() else { panic!() };
    assert_eq!(newer, hello::Hello { name: Some("n".to_owned()), ..plain });
    let states = [(0, hello::State::Other(0)), (4, hello::State::Other(4))];
    for (state, meaning) in states {
        let body = with(hello_with(&[]), 0, &[state]);
        let Message::Hello(hello) = message(&sealed_body(HELLO, &body)).unwrap() else { panic!() };
        assert_eq!(hello.state, meaning);
    }
    let able = with(hello_with(&[]), 1, &[7]);
    assert!(matches!(message(&sealed_body(HELLO, &able)), Ok(Message::Hello(hello)) if hello.able));
    let skipped = [&[2, 0, 38][..], &[3; 19], &[1; 19], &[1, 0, 16], &[0; 16], &[6, 0, 1, 0xff]].concat();
    let Message::Hello(hello) = message(&sealed_body(HELLO, &hello_with(&skipped))).unwrap() else {
        panic!()
    };
    assert_eq!(hello.vouches.len(), 1, "the one of a kind that is known");
    assert!(hello.suspects.is_empty(), "nobody is no node");
    assert_eq!(hello.name, None, "no UTF-8");
    let offer = [vec![1; 16], vec![99, 0, 1, 0]].concat();
    assert!(matches!(message(&sealed_body(5, &offer)), Ok(Message::Offer(_))));
    assert_eq!(message(&sealed_body(200, &[1, 2, 3])), Ok(Message::Unknown(200)));
}

#[test]
fn a_list_may_come_in_several_parts() {
    let drop = |node| [&[4, 0, 24][..], &[1; 16], &[0, 0, 0, 0, 0, 0, 0, node]].concat();
    let body = hello_with(&[drop(1), drop(2)].concat());
    let Message::Hello(hello) = message(&sealed_body(HELLO, &body)).unwrap() else { panic!() };
    let winners: Vec<_> = hello.drops.iter().map(|drop| drop.winner).collect();
    assert_eq!(winners, [Some(NodeId(1)), Some(NodeId(2))]);
}

#[test]
fn secrets_show_nowhere() {
    let secret = Secret::new([0x5a; Secret::LEN]);
    let keyring = Keyring::new().with(KeyId::new(2).unwrap(), &secret);
    assert_eq!(format!("{secret:?}"), "Secret(..)");
    let shown = format!("{keyring:?}");
    assert!(!shown.contains("5a") && !shown.contains("90"), "{shown}");
}
