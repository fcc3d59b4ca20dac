//! Free numbers: lowest-free, take-this and give-back in O(log n), the same from empty to full and for any width.
//!
//! Pages with something free are kept as intervals, so width costs nothing; of those that are partly taken, a bitmap
//! of half a cache line, so that millions of gaps stay small. A page that is wholly free needs no bitmap, one that is
//! wholly taken is in neither. So single numbers taken here and there leave the intervals alone: each costs one
//! look-up among the bitmaps, and another when it comes back.
//!
//! Holds always: a page with a bitmap is in `open`, a bitmap is neither empty nor full, and `count` is the number of
//! free numbers. Knows nothing of addresses; numbers are ranks of a [`crate::space::Space`].

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::intervals::Intervals;

/// A set of free numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Free {
    /// Pages with something free.
    open: Intervals,
    /// Those of them that are partly taken.
    mixed: BTreeMap<u128, Page>,
    /// A space never has all 2^128 numbers (`RangeError::Special`), so this cannot overflow.
    count: u128,
}

/// A bit per number, set if it is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Page([u64; WORDS]);

/// Half a cache line: larger ones cost memory where single addresses lie far apart, smaller ones where every page has
/// gaps (docs/decisions/0007).
const WORDS: usize = 4;
const WORD_BITS: u128 = 64;
const PAGE: u128 = 256;

impl Free {
    /// `0..size`, all free.
    pub(crate) fn full(size: u128) -> Self {
        let mut mixed = BTreeMap::new();
        let mut rest = Page::EMPTY;
        for number in 0..size % PAGE {
            rest.set(number);
        }
        if rest != Page::EMPTY {
            mixed.insert(size / PAGE, rest);
        }
        Self { open: Intervals::full(size.div_ceil(PAGE)), mixed, count: size }
    }

    /// How many are free.
    pub(crate) fn count(&self) -> u128 {
        self.count
    }

    /// The lowest free number: of the lowest page that has one.
    pub(crate) fn lowest(&self) -> Option<u128> {
        let page = self.open.lowest()?;
        let bits = self.mixed.first_key_value().filter(|(mixed, _)| **mixed == page);
        let place = bits.map_or(Some(0), |(_, bits)| bits.lowest())?;
        Some(page * PAGE + place)
    }

    /// Takes this number; false if it was not free.
    pub(crate) fn take(&mut self, number: u128) -> bool {
        let (page, place) = (number / PAGE, number % PAGE);
        match self.mixed.entry(page) {
            Entry::Occupied(mut bits) => {
                if !bits.get_mut().clear(place) {
                    return false;
                }
                if *bits.get() == Page::EMPTY {
                    bits.remove();
                    self.open.take(page);
                }
            }
            Entry::Vacant(vacant) => {
                if !self.open.contains(page) {
                    return false;
                }
                let mut bits = Page::FULL;
                bits.clear(place);
                vacant.insert(bits);
            }
        }
        self.count -= 1;
        true
    }

    /// Gives a number back; false if it was free already.
    pub(crate) fn give_back(&mut self, number: u128) -> bool {
        let (page, place) = (number / PAGE, number % PAGE);
        match self.mixed.entry(page) {
            Entry::Occupied(mut bits) => {
                if !bits.get_mut().set(place) {
                    return false;
                }
                if *bits.get() == Page::FULL {
                    bits.remove();
                }
            }
            Entry::Vacant(vacant) => {
                if !self.open.give_back(page) {
                    return false;
                }
                let mut bits = Page::EMPTY;
                bits.set(place);
                vacant.insert(bits);
            }
        }
        self.count += 1;
        true
    }
}

impl Page {
    const EMPTY: Self = Self([0; WORDS]);
    const FULL: Self = Self([u64::MAX; WORDS]);

    /// Marks a number of the page free; false if it was.
    fn set(&mut self, place: u128) -> bool {
        self.change(place, |word, bit| (*word & bit == 0, *word | bit))
    }

    /// Marks it taken; false if it was.
    fn clear(&mut self, place: u128) -> bool {
        self.change(place, |word, bit| (*word & bit != 0, *word & !bit))
    }

    fn lowest(&self) -> Option<u128> {
        let (index, word) =
            self.0.iter().zip(0_u128..).map(|(word, index)| (index, word)).find(|(_, it)| **it != 0)?;
        Some(index * WORD_BITS + u128::from(word.trailing_zeros()))
    }

    fn change(&mut self, place: u128, change: impl Fn(&u64, u64) -> (bool, u64)) -> bool {
        let word = usize::try_from(place / WORD_BITS).ok().and_then(|index| self.0.get_mut(index));
        let Some(word) = word else { return false };
        let (changes, changed) = change(word, 1 << (place % WORD_BITS));
        *word = changed;
        changes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Lowest(usize),
        Take(u128),
        GiveBack(u128),
    }

    /// Few pages, and many steps at their ends.
    const SIZE: u128 = 3 * PAGE + 5;

    fn number() -> impl Strategy<Value = u128> {
        prop_oneof![0..SIZE, PAGE - 3..PAGE + 3, 2 * PAGE - 3..2 * PAGE + 3, SIZE - 3..SIZE]
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            1 => (0_usize..600).prop_map(Step::Lowest),
            3 => number().prop_map(Step::Take),
            4 => number().prop_map(Step::GiveBack),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        #[test]
        fn agrees_with_a_set_of_numbers(size in 0..=SIZE, steps in steps()) {
            let mut model: BTreeSet<u128> = (0..size).collect();
            let mut free = Free::full(size);
            for step in steps {
                match step {
                    Step::Lowest(times) => {
                        for _ in 0..times {
                            prop_assert_eq!(free.lowest(), model.first().copied());
                            let Some(lowest) = model.pop_first() else { break };
                            prop_assert!(free.take(lowest));
                        }
                    }
                    Step::Take(number) => prop_assert_eq!(free.take(number), model.remove(&number)),
                    Step::GiveBack(number) if number < size => {
                        prop_assert_eq!(free.give_back(number), model.insert(number));
                    }
                    Step::GiveBack(_) => {}
                }
                prop_assert_eq!(free.lowest(), model.first().copied());
                prop_assert_eq!(usize::try_from(free.count()), Ok(model.len()));
                for (page, bits) in &free.mixed {
                    prop_assert!(*bits != Page::EMPTY && *bits != Page::FULL, "page {} is mixed", page);
                    prop_assert!(free.open.contains(*page), "page {} has something free", page);
                }
            }
        }
    }
}
