//! All randomness of one run, from its seed. Must always hold: the same seed gives the same run on every machine,
//! so nothing in a simulation iterates over a hash map or reads a clock.

use std::time::Duration;

use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The dice of one run.
#[derive(Debug)]
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// Dice for one seed of one class: classes with equal seeds have nothing else in common.
    pub fn new(class: &str, seed: u64) -> Self {
        // FNV-1a: only has to tell the names of classes apart, the same way on every machine.
        let name = class.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut bytes = [0; 32];
        let (first, rest) = bytes.split_at_mut(8);
        first.copy_from_slice(&name.to_le_bytes());
        if let Some(second) = rest.first_chunk_mut() {
            *second = seed.to_le_bytes();
        }
        Self(ChaCha8Rng::from_seed(bytes))
    }

    /// A seed for somebody else's randomness.
    pub fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.0.fill_bytes(&mut seed);
        seed
    }

    /// A number from `low` to `high`, both included.
    pub fn number(&mut self, low: usize, high: usize) -> usize {
        if low >= high { low } else { self.0.random_range(low..=high) }
    }

    /// The same for who takes a number.
    pub fn word(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A time from `low` to `high`.
    pub fn time(&mut self, low: Duration, high: Duration) -> Duration {
        if low >= high { low } else { self.0.random_range(low..=high) }
    }

    /// The same in milliseconds.
    pub fn ms(&mut self, low: u64, high: u64) -> Duration {
        self.time(Duration::from_millis(low), Duration::from_millis(high))
    }

    /// The same in microseconds.
    pub fn us(&mut self, low: u64, high: u64) -> Duration {
        self.time(Duration::from_micros(low), Duration::from_micros(high))
    }

    /// A whole number of milliseconds: for clocks that know nothing finer.
    pub fn whole_ms(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(if low >= high { low } else { self.0.random_range(low..=high) })
    }

    /// The same from `low` to `high`.
    pub fn whole_time(&mut self, low: Duration, high: Duration) -> Duration {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.whole_ms(ms(low), ms(high))
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.0.random_bool(probability.min(1.0))
    }

    /// Exponentially distributed, with mean 1.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.0.random::<f64>()).ln()
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.choose(&mut self.0)
    }

    /// Any order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        list.shuffle(&mut self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_roll_alike_and_others_do_not() {
        let roll = |class, seed| Dice::new(class, seed).seed();
        assert_eq!(roll("crash", 7), roll("crash", 7));
        assert_ne!(roll("crash", 7), roll("crash", 8));
        assert_ne!(roll("crash", 7), roll("start", 7));
    }
}
