//! Assembling classic BPF from fragments.
//!
//! A fragment ends in every path: it accepts the frame, drops it, or *misses*, which means that the fragment behind
//! it goes on. So fragments can be put together in any way without labels, and conditional jumps, which reach only
//! 255 instructions, are made to reach further where a fragment is longer.

use super::intervals::{Interval, Intervals};

/// Addressed to this host.
pub(super) const PACKET_HOST: u32 = 0;
/// Addressed to another host, heard because the interface is promiscuous.
pub(super) const PACKET_OTHERHOST: u32 = 3;

/// The kernel's SKF_AD_OFF, -0x1000: loads from here on read what it knows beside the frame.
const ANCILLARY: u32 = 0xffff_f000;

const LD_W: u16 = 0x20;
const LD_H: u16 = 0x28;
const LD_B: u16 = 0x30;
const AND: u16 = 0x54;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const RET: u16 = 0x06;

/// Octets of an accepted frame that are kept: all.
const WHOLE: u32 = 0x4_0000;

/// One instruction, field by field as the kernel's `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// How many instructions to skip when a test passes.
    pub jt: u8,
    /// How many to skip when it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// Loads a value into the accumulator.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    code: u16,
    at: u32,
    mask: Option<u32>,
}

impl Load {
    /// `PACKET_HOST` and so on.
    pub(super) const PACKET_TYPE: Self = Self::word(ANCILLARY + 4);
    /// 1 if a VLAN tag was taken off.
    pub(super) const VLAN_TAG_PRESENT: Self = Self::word(ANCILLARY + 48);
    /// The VLAN of that tag: its lower 12 bits.
    pub(super) const VLAN_ID: Self = Self { mask: Some(0xfff), ..Self::word(ANCILLARY + 44) };

    pub(super) const fn byte(at: u32) -> Self {
        Self { code: LD_B, at, mask: None }
    }

    pub(super) const fn half(at: u32) -> Self {
        Self { code: LD_H, at, mask: None }
    }

    pub(super) const fn word(at: u32) -> Self {
        Self { code: LD_W, at, mask: None }
    }

    /// Loads, then goes on with `then`.
    pub(super) fn then(self, then: Fragment) -> Fragment {
        let mut ops = vec![Op::instruction(self.code, self.at)];
        ops.extend(self.mask.map(|mask| Op::instruction(AND, mask)));
        ops.extend(then.0);
        Fragment(ops)
    }
}

/// A test of the accumulator.
#[derive(Debug, Clone, Copy)]
pub(super) struct Test {
    code: u16,
    value: u32,
}

pub(super) const fn equals(value: u32) -> Test {
    Test { code: JEQ, value }
}

const fn at_least(value: u32) -> Test {
    Test { code: JGE, value }
}

const fn more_than(value: u32) -> Test {
    Test { code: JGT, value }
}

/// A piece of a program that accepts, drops or misses in each of its paths.
#[derive(Debug, Clone)]
pub(super) struct Fragment(Vec<Op>);

#[derive(Debug, Clone, Copy)]
enum Op {
    Instruction(Instruction),
    /// Goes on behind the fragment.
    Miss,
}

impl Op {
    const fn instruction(code: u16, k: u32) -> Self {
        Self::jump(code, k, 0, 0)
    }

    const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Self {
        Self::Instruction(Instruction { code, jt, jf, k })
    }
}

impl Fragment {
    pub(super) fn accept() -> Self {
        Self(vec![Op::instruction(RET, WHOLE)])
    }

    pub(super) fn drop() -> Self {
        Self(vec![Op::instruction(RET, 0)])
    }

    pub(super) fn miss() -> Self {
        Self(vec![Op::Miss])
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Goes on with `next` where this one misses.
    pub(super) fn or_else(self, next: Self) -> Self {
        let len = self.0.len();
        let jump = |at| Op::instruction(JA, distance(len - at - 1));
        let ops = self.0.into_iter().enumerate().map(|(at, op)| match op {
            Op::Miss => jump(at),
            op @ Op::Instruction(_) => op,
        });
        Self(ops.chain(next.0).collect())
    }

    /// Accepts when the address at octet `at` lies in `intervals`.
    pub(super) fn search(at: u32, intervals: &Intervals) -> Self {
        Self::search_words(at, &intervals.list, intervals.words)
    }

    /// Word by word: an interval that covers part of what one first word leads to goes on with the next.
    fn search_words(at: u32, intervals: &[Interval], words: u32) -> Self {
        let spans = spans(intervals, words);
        if spans.is_empty() { Self::miss() } else { Load::word(at).then(search_spans(at, &spans, words)) }
    }

    /// The program. Nothing follows, so a miss drops.
    pub(super) fn assemble(self) -> Vec<Instruction> {
        let ops = self.or_else(Self::drop()).0;
        let mut program: Vec<_> = ops
            .into_iter()
            .filter_map(|op| match op {
                Op::Instruction(instruction) => Some(instruction),
                Op::Miss => None,
            })
            .collect();
        thread_jumps(&mut program);
        program
    }
}

/// `yes` when the accumulator passes the test, else `no`.
pub(super) fn branch(test: Test, yes: Fragment, no: Fragment) -> Fragment {
    let mut ops = match u8::try_from(no.len()) {
        Ok(over_no) => vec![Op::jump(test.code, test.value, over_no, 0)],
        Err(_) => vec![Op::jump(test.code, test.value, 0, 1), Op::instruction(JA, distance(no.len()))],
    };
    ops.extend(no.0);
    ops.extend(yes.0);
    Fragment(ops)
}

/// Values of one word, from the first to the last.
struct Span {
    first: u32,
    last: u32,
    /// The intervals of the words behind it; empty: all of them.
    within: Vec<Interval>,
}

fn spans(intervals: &[Interval], words: u32) -> Vec<Span> {
    let bits_behind = 32 * (words - 1);
    let all_behind = (1 << bits_behind) - 1;
    let word = |address: u128| u32::try_from(address >> bits_behind).unwrap_or(u32::MAX);
    let mut spans: Vec<Span> = Vec::new();
    let mut push = |first, last, within: Interval| match spans.last_mut() {
        _ if within == (Interval { first: 0, last: all_behind }) => {
            spans.push(Span { first, last, within: Vec::new() });
        }
        Some(span) if span.first == first && !span.within.is_empty() => span.within.push(within),
        _ => spans.push(Span { first, last, within: vec![within] }),
    };
    for interval in intervals {
        let (first, last) = (word(interval.first), word(interval.last));
        let (from, to) = (interval.first & all_behind, interval.last & all_behind);
        if first == last {
            push(first, last, Interval { first: from, last: to });
            continue;
        }
        let whole_first = if from == 0 { first } else { first + 1 };
        let whole_last = if to == all_behind { last } else { last - 1 };
        if from != 0 {
            push(first, first, Interval { first: from, last: all_behind });
        }
        if whole_first <= whole_last {
            push(whole_first, whole_last, Interval { first: 0, last: all_behind });
        }
        if to != all_behind {
            push(last, last, Interval { first: 0, last: to });
        }
    }
    spans
}

/// Binary search over the word in the accumulator, the one at octet `at`.
fn search_spans(at: u32, spans: &[Span], words: u32) -> Fragment {
    match spans {
        [] => Fragment::miss(),
        [span] => {
            let hit = if span.within.is_empty() {
                Fragment::accept()
            } else {
                Fragment::search_words(at + 4, &span.within, words - 1)
            };
            if span.first == span.last {
                branch(equals(span.first), hit, Fragment::miss())
            } else {
                let below_last = branch(more_than(span.last), Fragment::miss(), hit);
                branch(at_least(span.first), below_last, Fragment::miss())
            }
        }
        _ => {
            let (lower, upper) = spans.split_at(spans.len() / 2);
            let first = upper.first().map_or(0, |span| span.first);
            branch(at_least(first), search_spans(at, upper, words), search_spans(at, lower, words))
        }
    }
}

/// Lets conditional jumps that lead to an unconditional one go where that goes, as far as they reach.
fn thread_jumps(program: &mut [Instruction]) {
    // From the end, so that targets are final when they are looked at.
    for at in (0..program.len()).rev() {
        let threaded = |offset: u8| {
            let target = at + 1 + usize::from(offset);
            let onward = program.get(target).filter(|target| target.code == JA)?;
            u8::try_from(u32::from(offset) + 1 + onward.k).ok()
        };
        let Some(instruction) = program.get(at).filter(|op| matches!(op.code, JEQ | JGT | JGE)) else {
            continue;
        };
        let (jt, jf) = (instruction.jt, instruction.jf);
        let (jt, jf) = (threaded(jt).unwrap_or(jt), threaded(jf).unwrap_or(jf));
        if let Some(instruction) = program.get_mut(at) {
            (instruction.jt, instruction.jf) = (jt, jf);
        }
    }
}

/// A jump's reach. A fragment is never longer than a few thousand instructions.
fn distance(instructions: usize) -> u32 {
    u32::try_from(instructions).unwrap_or(u32::MAX)
}
