//! A set of numbers as intervals: lowest, take-this and give-back in O(log n) of the number of gaps, however wide
//! the set.
//!
//! Holds always: intervals are not empty, disjoint and never adjacent (adjacent ones are merged). Here the numbers
//! are pages of [`crate::free::Free`].

use std::collections::BTreeMap;

/// A set of numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Intervals {
    /// Last number of each interval, to its first. Keyed by the last, so that taking the lowest number and giving
    /// it back change a value in place.
    by_last: BTreeMap<u128, u128>,
}

impl Intervals {
    /// `0..size`.
    pub(crate) fn full(size: u128) -> Self {
        let by_last = size.checked_sub(1).map(|last| (last, 0)).into_iter().collect();
        Self { by_last }
    }

    /// The lowest number.
    pub(crate) fn lowest(&self) -> Option<u128> {
        self.by_last.first_key_value().map(|(_, &first)| first)
    }

    /// Whether `number` is in it.
    pub(crate) fn contains(&self, number: u128) -> bool {
        self.by_last.range(number..).next().is_some_and(|(_, &first)| first <= number)
    }

    /// Takes this number out; false if it was not in it.
    pub(crate) fn take(&mut self, number: u128) -> bool {
        let Some((&last, first)) = self.by_last.range_mut(number..).next() else { return false };
        let low = *first;
        if number < low {
            return false;
        }
        // What remains above stays under its key; what remains below gets a key of its own.
        if number == last {
            self.by_last.remove(&last);
        } else {
            *first = number + 1;
        }
        if low < number {
            self.by_last.insert(number - 1, low);
        }
        true
    }

    /// Puts a number back; false if it was in it already.
    pub(crate) fn give_back(&mut self, number: u128) -> bool {
        let above = self.by_last.range(number..).next().map(|(&last, &first)| (last, first));
        if above.is_some_and(|(_, first)| first <= number) {
            return false;
        }
        let below = number.checked_sub(1).and_then(|last| self.by_last.remove(&last));
        let last = match above {
            Some((last, first)) if first - 1 == number => last,
            _ => number,
        };
        // Joined above, this replaces the first number under the key that is there already.
        self.by_last.insert(last, below.unwrap_or(number));
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Take(u128),
        GiveBack(u128),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0_u128..40).prop_map(Step::Take),
            4 => (0_u128..40).prop_map(Step::GiveBack),
        ];
        prop::collection::vec(step, 0..200)
    }

    fn assert_well_formed(intervals: &Intervals) {
        let mut before: Option<u128> = None;
        for (&last, &first) in &intervals.by_last {
            assert!(first <= last, "an interval is not empty: {intervals:?}");
            assert!(before.is_none_or(|before| before + 1 < first), "neighbours are merged: {intervals:?}");
            before = Some(last);
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_set_of_numbers(size in 0_u128..40, steps in steps()) {
            let mut model: BTreeSet<u128> = (0..size).collect();
            let mut intervals = Intervals::full(size);
            for step in steps {
                match step {
                    Step::Take(number) => prop_assert_eq!(intervals.take(number), model.remove(&number)),
                    Step::GiveBack(number) if number < size => {
                        prop_assert_eq!(intervals.give_back(number), model.insert(number));
                    }
                    Step::GiveBack(_) => {}
                }
                assert_well_formed(&intervals);
                prop_assert_eq!(intervals.lowest(), model.first().copied());
                for number in 0..size {
                    prop_assert_eq!(intervals.contains(number), model.contains(&number));
                }
            }
        }
    }
}
