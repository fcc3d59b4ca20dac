//! The allocator: takes inputs, says outputs, holds the only copy of who has which address.

use std::collections::{BTreeSet, VecDeque};

use crate::{Input, List, Output};

/// The allocator core.
///
/// Call [`handle`](Self::handle) with everything that is learned, in the order in which it is learned, and then
/// [`poll_output`](Self::poll_output) until it is empty. There are no timers in it.
///
/// Nothing comes out before all four [`List`]s are synced. A leader builds it from its caches when it begins to lead
/// (and drops it when it ends): every address's users are then checked by rule B8 (B11).
#[derive(Debug, Default)]
pub struct Allocator {
    synced: BTreeSet<List>,
    outputs: VecDeque<Output>,
}

impl Allocator {
    /// An allocator that knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Learns something.
    pub fn handle(&mut self, input: Input) {
        if let Input::Synced(list) = input {
            self.synced.insert(list);
        }
    }

    /// What is to be done next, if anything.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether all lists are there, so that addresses are given out.
    pub fn is_open(&self) -> bool {
        self.synced.len() == 4
    }

    /// How many writes were refused for good and wait for [`Input::Retry`].
    pub fn failed(&self) -> usize {
        0
    }
}
