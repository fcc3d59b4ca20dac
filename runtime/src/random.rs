//! Numbers to spread attempts by, so that many processes don't act in step. No secret may be made of them.

/// Such a number.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    #[cfg(feature = "seeded")]
    if let Some(number) = seeded::next() {
        return number;
    }
    // RandomState is seeded by the system.
    RandomState::new().build_hasher().finish()
}

/// The same numbers again: for simulations, which must be repeatable.
#[cfg(feature = "seeded")]
pub mod seeded {
    use std::cell::Cell;

    thread_local! {
        static STATE: Cell<Option<u64>> = const { Cell::new(None) };
    }

    /// From here on this thread's numbers follow from `seed`.
    pub fn seed(seed: u64) {
        STATE.set(Some(seed));
    }

    pub(super) fn next() -> Option<u64> {
        let state = STATE.get()?.wrapping_add(0x9e37_79b9_7f4a_7c15);
        STATE.set(Some(state));
        // splitmix64 (Steele, Lea, Flood 2014).
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some(mixed ^ (mixed >> 31))
    }
}
