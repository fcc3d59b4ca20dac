//! Properties over generated values: what is written is read back, and no bytes make a decoder panic.

#![cfg(test)]

use std::net::{Ipv4Addr, Ipv6Addr};

use herald_wire::hello::{
    self, Bye, Claim, Drop, Header, Hello, KeyId, KeySet, Keyring, LastEpoch, Message, Offer, Order, Reason,
    SealError, Secret, State, Suspect, Sync, Tell, Verifier, Vouch, VouchKind,
};
use herald_wire::{
    Arp, Boot, ClusterId, Counter, Echo, Epoch, Ethernet, IfIndex, MacAddr, Ndp, NodeId, Payload, Replay,
    ReplayWindow, Revision, Salt, TableVersion, Vip, arp, echo, ndp,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

fn mac() -> impl Strategy<Value = MacAddr> {
    any::<[u8; 6]>().prop_map(MacAddr::from)
}

fn ethernet() -> impl Strategy<Value = Ethernet> {
    (mac(), mac()).prop_map(|(destination, source)| Ethernet { destination, source })
}

fn arp() -> impl Strategy<Value = Arp> {
    let operation = prop_oneof![Just(arp::Operation::Request), Just(arp::Operation::Reply)];
    (operation, mac(), any::<Ipv4Addr>(), mac(), any::<Ipv4Addr>())
        .prop_map(|(operation, sha, spa, tha, tpa)| Arp { operation, sha, spa, tha, tpa })
}

fn unicast() -> impl Strategy<Value = Ipv6Addr> {
    any::<Ipv6Addr>().prop_filter("multicast", |ip| !ip.is_multicast())
}

fn solicitation() -> impl Strategy<Value = Ndp> {
    (any::<Ipv6Addr>(), any::<Ipv6Addr>(), unicast(), of(mac()))
        .prop_filter("a probe has no option", |(source, _, _, mac)| {
            !(source.is_unspecified() && mac.is_some())
        })
        .prop_map(|(source, destination, target, source_mac)| Ndp {
            source,
            // Probes go to a group (RFC 4861, 7.1.1).
            destination: if source.is_unspecified() { ndp::solicited_node(target) } else { destination },
            message: ndp::Message::Solicitation { target, source_mac },
        })
}

fn advertisement() -> impl Strategy<Value = Ndp> {
    (any::<Ipv6Addr>(), any::<Ipv6Addr>(), unicast(), of(mac()), any::<[bool; 3]>()).prop_map(
        |(source, destination, target, target_mac, [router, solicited, overrides])| Ndp {
            source,
            destination,
            message: ndp::Message::Advertisement {
                target,
                target_mac,
                router,
                solicited: solicited && !destination.is_multicast(),
                overrides,
            },
        },
    )
}

fn echo() -> impl Strategy<Value = Echo> {
    let path = prop_oneof![
        any::<(Ipv4Addr, Ipv4Addr)>()
            .prop_map(|(source, destination)| echo::Path::V4 { source, destination }),
        any::<(Ipv6Addr, Ipv6Addr)>()
            .prop_map(|(source, destination)| echo::Path::V6 { source, destination }),
    ];
    let operation = prop_oneof![Just(echo::Operation::Request), Just(echo::Operation::Reply)];
    (path, operation, any::<u16>(), any::<u16>(), any::<[u8; 8]>()).prop_map(
        |(path, operation, identifier, sequence, nonce)| Echo {
            path,
            operation,
            identifier,
            sequence,
            nonce,
        },
    )
}

fn node() -> impl Strategy<Value = NodeId> {
    (1..=u64::MAX).prop_map(NodeId)
}

fn vip() -> impl Strategy<Value = Vip> {
    prop_oneof![any::<Ipv4Addr>().prop_map(Vip::from), any::<Ipv6Addr>().prop_map(Vip::from)]
}

fn claim() -> impl Strategy<Value = Claim> {
    (vip(), any::<u64>(), any::<u64>()).prop_map(|(vip, revision, epoch)| Claim {
        vip,
        revision: Revision(revision),
        epoch: Epoch(epoch),
    })
}

fn suspect() -> impl Strategy<Value = Suspect> {
    (node(), any::<u64>()).prop_map(|(node, boot)| Suspect { node, boot: Boot(boot) })
}

fn vouch() -> impl Strategy<Value = Vouch> {
    let kind = prop_oneof![Just(VouchKind::Speaker), Just(VouchKind::Kernel)];
    (node(), any::<u64>(), any::<u16>(), kind).prop_map(|(node, boot, age_ms, kind)| Vouch {
        node,
        boot: Boot(boot),
        age_ms,
        kind,
    })
}

fn dropped() -> impl Strategy<Value = Drop> {
    (vip(), of(node())).prop_map(|(vip, winner)| Drop { vip, winner })
}

fn last_epoch() -> impl Strategy<Value = LastEpoch> {
    (vip(), any::<u64>(), of(node())).prop_map(|(vip, epoch, last_holder)| LastEpoch {
        vip,
        max_epoch: Epoch(epoch),
        last_holder,
    })
}

prop_compose! {
    fn hello()(
        state in prop_oneof![Just(State::Listen), Just(State::Active), Just(State::Leaving), (4_u8..).prop_map(State::Other)],
        able in any::<bool>(),
        (interval_ms, reach, version) in any::<(u16, u16, u64)>(),
        mac in mac(),
        ipv4 in of(any::<Ipv4Addr>().prop_filter("unspecified", |ip| !ip.is_unspecified())),
        ipv6 in of(any::<Ipv6Addr>().prop_filter("unspecified", |ip| !ip.is_unspecified())),
        keys in any::<u8>(),
        (suspects, vouches) in (vec(suspect(), 0..4), vec(vouch(), 0..4)),
        (claims, drops) in (vec(claim(), 0..8), vec(dropped(), 0..4)),
        echoes in vec(any::<u64>().prop_map(Salt), 0..4),
        name in of("[a-z0-9.-]{0,63}"),
    ) -> Hello {
        Hello {
            state, able, interval_ms, reach, table_version: TableVersion(version), mac, ipv4, ipv6,
            accepted_keys: KeySet::from_bits(keys), suspects, vouches, claims, drops, echoes, name,
        }
    }
}

fn sync() -> impl Strategy<Value = Sync> {
    (any::<u64>(), any::<u16>(), 1..=u16::MAX, vec(claim(), 0..8), vec(last_epoch(), 0..8)).prop_map(
        |(version, index, total, claims, epochs)| Sync {
            version: TableVersion(version),
            index: index % total,
            total,
            claims,
            epochs,
        },
    )
}

fn tell() -> impl Strategy<Value = Tell> {
    (vip(), node(), any::<(u64, u64, u16, u64, u64)>()).prop_map(
        |(vip, winner, (boot, revision, reach, epoch, hash))| Tell {
            vip,
            winner,
            boot: Boot(boot),
            order: Order { revision: Revision(revision), reach, epoch: Epoch(epoch), hash },
        },
    )
}

fn message() -> impl Strategy<Value = Message> {
    let reason = prop_oneof![Just(Reason::Restart), Just(Reason::Leave)];
    prop_oneof![
        hello().prop_map(Message::Hello),
        any::<u64>().prop_map(|salt| Message::Challenge(Salt(salt))),
        any::<u64>().prop_map(|version| Message::SyncRequest(TableVersion(version))),
        sync().prop_map(Message::Sync),
        vip().prop_map(|vip| Message::Offer(Offer { vip })),
        (reason, any::<u16>()).prop_map(|(reason, hold_s)| Message::Bye(Bye { reason, hold_s })),
        tell().prop_map(Message::Tell),
        (8_u8..).prop_map(Message::Unknown),
    ]
}

fn header() -> impl Strategy<Value = Header> {
    (any::<(u64, u64, u32, u64, u16)>(), node(), 0..KeyId::COUNT).prop_map(
        |((cluster, boot, ifindex, counter, flags), node, key)| Header {
            cluster: ClusterId(cluster),
            node,
            boot: Boot(boot),
            ifindex: IfIndex(ifindex),
            counter: Counter(counter),
            key: KeyId::new(key).unwrap(),
            flags: hello::Flags::from_bits(flags),
        },
    )
}

fn keys() -> Keyring {
    (0..KeyId::COUNT)
        .fold(Keyring::new(), |keys, id| keys.with(KeyId::new(id).unwrap(), &Secret::new([id; Secret::LEN])))
}

proptest! {
    #[test]
    fn arp_round_trip(ethernet in ethernet(), arp in arp()) {
        let frame = arp.to_frame(ethernet);
        let parsed = herald_wire::parse(&frame)?;
        prop_assert_eq!((parsed.ethernet, parsed.payload), (ethernet, Payload::Arp(arp)));
    }

    #[test]
    fn ndp_round_trip(ethernet in ethernet(), ndp in prop_oneof![solicitation(), advertisement()]) {
        let frame = ndp.to_frame(ethernet);
        let parsed = herald_wire::parse(&frame)?;
        prop_assert_eq!((parsed.ethernet, parsed.payload), (ethernet, Payload::Ndp(ndp)));
    }

    #[test]
    fn echo_round_trip(ethernet in ethernet(), echo in echo()) {
        let frame = echo.to_frame(ethernet);
        let parsed = herald_wire::parse(&frame)?;
        prop_assert_eq!((parsed.ethernet, parsed.payload), (ethernet, Payload::Echo(echo)));
    }

    #[test]
    fn hello_round_trip(ethernet in ethernet(), header in header(), message in message()) {
        let keys = keys();
        let frame = keys.seal(ethernet, &header, &message, 1500)?;
        prop_assert!(frame.len() >= 14 + hello::HEADER_LEN + hello::TAG_LEN);
        let parsed = herald_wire::parse(&frame)?;
        let Payload::Hello(sealed) = parsed.payload else { panic!("not a hello") };
        let stranger = NodeId(!header.node.0);
        let verifier = Verifier { cluster: header.cluster, node: stranger, boot: header.boot, keys: &keys };
        let verified = verifier.verify(&sealed)?;
        prop_assert_eq!(verified.header, header);
        prop_assert_eq!(verified.message(), Ok(message));
    }

    /// A message goes out exactly when its frame fits the MTU.
    #[test]
    fn no_frame_is_longer_than_the_mtu(hello in hello(), mtu in 600_u32..3001, claim in claim(), count in 0_usize..60) {
        let seal = |mtu| {
            let header = Header {
                cluster: ClusterId(0), node: NodeId(1), boot: Boot(0), ifindex: IfIndex(0), counter: Counter(0),
                key: KeyId::default(), flags: hello::Flags::NONE,
            };
            let message = Message::Hello(Hello { claims: vec![claim; count], ..hello.clone() });
            keys().seal(Ethernet::broadcast(MacAddr::zero()), &header, &message, mtu)
        };
        let needed = u32::try_from(seal(65_000)?.len()).unwrap() - 14;
        match seal(mtu) {
            Ok(frame) => prop_assert_eq!(u32::try_from(frame.len()).unwrap() - 14, needed),
            Err(error) => {
                let too_long = matches!(error, SealError::TooLong { .. });
                prop_assert!(too_long && needed > mtu);
            }
        }
        prop_assert_eq!(seal(mtu).is_ok(), needed <= mtu);
    }

    #[test]
    fn any_bytes_never_panic(bytes in vec(any::<u8>(), 0..200), ethertype in 0_usize..5) {
        let mut bytes = bytes;
        let known: &[[u8; 2]] = &[[0x08, 0x06], [0x08, 0x00], [0x86, 0xdd], [0x88, 0xb5]];
        if let (Some(field), Some(ethertype)) = (bytes.get_mut(12..14), known.get(ethertype)) {
            field.copy_from_slice(ethertype);
        }
        let _ = herald_wire::parse(&bytes);
    }

    /// Well-formed frames with a few octets changed get further than random ones.
    #[test]
    fn damaged_frames_never_panic(
        frame in prop_oneof![
            arp().prop_map(|arp| arp.to_frame(Ethernet::broadcast(MacAddr::zero()))),
            solicitation().prop_map(|ndp| ndp.to_frame(Ethernet::broadcast(MacAddr::zero()))),
            advertisement().prop_map(|ndp| ndp.to_frame(Ethernet::broadcast(MacAddr::zero()))),
            echo().prop_map(|echo| echo.to_frame(Ethernet::broadcast(MacAddr::zero()))),
        ],
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        len in any::<prop::sample::Index>(),
    ) {
        let mut frame = frame;
        for (at, octet) in changes {
            let at = at.index(frame.len());
            frame[at] = octet;
        }
        let _ = herald_wire::parse(&frame);
        frame.truncate(len.index(frame.len()));
        let _ = herald_wire::parse(&frame);
    }

    /// A key holder's body is any bytes too: sealed rightly, decoded without a panic.
    #[test]
    fn any_body_never_panics(kind in 0_u8..9, body in vec(any::<u8>(), 0..200)) {
        use hmac::{Hmac, KeyInit, Mac};
        let mut payload = b"HRLD".to_vec();
        payload.extend([1, kind, 0, 0]);
        payload.extend([1; 8 + 8 + 8 + 4 + 8]);
        payload.push(0);
        payload.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        payload.extend(&body);
        let mut hmac = Hmac::<sha2::Sha256>::new_from_slice(&[0; Secret::LEN]).unwrap();
        hmac.update(&payload);
        payload.extend(&hmac.finalize().into_bytes()[..hello::TAG_LEN]);
        let sealed = hello::Sealed::parse(&payload)?;
        let keys = keys();
        let cluster = sealed.claimed_header().cluster;
        let verified = Verifier { cluster, node: NodeId(2), boot: Boot(2), keys: &keys }.verify(&sealed)?;
        let _ = verified.message();
    }

    /// Against a model that remembers every counter ever taken.
    #[test]
    fn replay_window_takes_each_fresh_counter_once(first in 0_u64..100, steps in vec(-80_i64..80, 0..200)) {
        let mut window = ReplayWindow::starting_at(Counter(first));
        let mut taken: Vec<u64> = vec![first];
        let mut at = first;
        for step in steps {
            at = at.saturating_add_signed(step);
            let highest = *taken.iter().max().unwrap();
            let expected = if at + ReplayWindow::WIDTH <= highest {
                Err(Replay::Old)
            } else if taken.contains(&at) || at < first {
                Err(Replay::Seen)
            } else {
                Ok(())
            };
            prop_assert_eq!(window.take(Counter(at)), expected, "counter {} after {:?}", at, taken);
            if expected.is_ok() {
                taken.push(at);
            }
            prop_assert_eq!(window.highest().0, *taken.iter().max().unwrap());
        }
    }

    #[test]
    fn a_vip_is_the_address_it_was_made_from(v4 in any::<Ipv4Addr>(), v6 in any::<Ipv6Addr>()) {
        prop_assert_eq!(Vip::from(v4).v4(), Some(v4));
        prop_assert_eq!(Vip::from(v4), Vip::from(v4.to_ipv6_mapped()));
        prop_assert_eq!(Vip::from(v6).ip(), std::net::IpAddr::from(v6).to_canonical());
        prop_assert_eq!(Vip::from_octets(Vip::from(v6).octets()), Vip::from(v6));
    }
}

#[test]
fn replay_window_survives_the_ends_of_the_counter() {
    let mut window = ReplayWindow::starting_at(Counter(0));
    assert_eq!(window.take(Counter(u64::MAX)), Ok(()), "a leap over everything");
    assert_eq!(window.take(Counter(u64::MAX)), Err(Replay::Seen));
    assert_eq!(window.take(Counter(u64::MAX - 63)), Ok(()));
    assert_eq!(window.take(Counter(u64::MAX - 64)), Err(Replay::Old));
}
