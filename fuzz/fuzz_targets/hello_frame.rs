//! Speakers' frames as anybody can send them: nothing is ever verified.

#![no_main]

use herald_wire::hello::{KeyId, Keyring, Sealed, Secret, Verifier};
use herald_wire::{Boot, NodeId};

libfuzzer_sys::fuzz_target!(|payload: &[u8]| {
    let Ok(sealed) = Sealed::parse(payload) else { return };
    let keys = Keyring::new().with(KeyId::default(), &Secret::new([0x5a; Secret::LEN]));
    let cluster = sealed.claimed_header().cluster;
    let verified = Verifier { cluster, node: NodeId(1), boot: Boot(1), keys: &keys }.verify(&sealed);
    assert!(verified.is_err(), "forged without the key");
});
