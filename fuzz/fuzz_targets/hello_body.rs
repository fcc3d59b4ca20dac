//! Bodies of every type from somebody who has the key: a speaker with a bug, or of a later version.
//!
//! What is accepted, sealed and opened again, must be the same.

#![no_main]

use herald_wire::hello::{HEADER_LEN, Header, KeyId, Keyring, Message, Sealed, Secret, State, Verifier};
use herald_wire::{Boot, ClusterId, Counter, IfIndex, NodeId};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const SECRET: [u8; Secret::LEN] = [0x5a; Secret::LEN];

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((kind, body)) = input.split_first() else { return };
    let Ok(len) = u16::try_from(body.len()) else { return };
    let keys = Keyring::new().with(KeyId::default(), &Secret::new(SECRET));
    let Some(message) = open(&keys, &payload(*kind, len, body)) else { return };
    if matches!(message, Message::Unknown(_)) {
        return;
    }
    let header = Header {
        cluster: ClusterId(1),
        node: NodeId(2),
        boot: Boot(3),
        ifindex: IfIndex(4),
        counter: Counter(5),
        key: KeyId::default(),
        flags: herald_wire::hello::Flags::NONE,
    };
    let frame =
        keys.seal(herald_fuzz::ethernet(), &header, &message, 1 << 17).expect("no longer than it came");
    let again = open(&keys, &frame[14..]).expect("what we seal opens");
    assert_eq!(again, message);
    if let Message::Hello(hello) = message {
        assert!(!matches!(hello.state, State::Other(1..=3)), "a known state is not taken for another");
    }
});

fn payload(kind: u8, len: u16, body: &[u8]) -> Vec<u8> {
    let mut payload = b"HRLD".to_vec();
    payload.extend([1, kind, 0, 0]);
    payload.extend(1_u64.to_be_bytes());
    payload.extend(2_u64.to_be_bytes());
    payload.extend([0; 8 + 4 + 8 + 1]);
    payload.extend(len.to_be_bytes());
    assert_eq!(payload.len(), HEADER_LEN);
    payload.extend(body);
    let mut hmac = Hmac::<Sha256>::new_from_slice(&SECRET).expect("any key length");
    hmac.update(&payload);
    payload.extend(&hmac.finalize().into_bytes()[..16]);
    payload
}

fn open(keys: &Keyring, payload: &[u8]) -> Option<Message> {
    let sealed = Sealed::parse(payload).expect("the header is right");
    let verifier = Verifier { cluster: ClusterId(1), node: NodeId(9), boot: Boot(9), keys };
    verifier.verify(&sealed).expect("the tag is right").message().ok()
}
