//! The layer-2 protocol core: who lives, who holds which address, and every frame that says so.
//!
//! No sockets, no clock, no threads, no Kubernetes: frames, time and specs come in, frames and events go out, and the
//! same inputs with the same seed give the same outputs. `docs/protocol.md` part A has the rules; the code cites them
//! as "rule A17". Where each rule lives:
//!
//! | module | rules | owns |
//! |---|---|---|
//! | `core` | A1, A24 (stall), A42 (lists) | the node: interfaces, specs, time, dispatch |
//! | `placement` | A50 | which interface carries an address |
//! | `segment` | A3, A24, A51 | one interface: state, and what is due |
//! | `receive` | A5, A9, A39, A52 | hello frames in, check by check |
//! | `leave` | A44 | BYE |
//! | `kernel` | A22 | kernel probes |
//! | `grace` | A23, A45, A31 (vouched for) | speakers gone, machines not; deputies |
//! | `specs` | A29, A42 | its specs, groups and filter |
//! | `vips`, `holdings` | A30, A31, A34, A37 | what is known of each address; decisions carried out |
//! | `peers` | A6, A7, A9, A31 (reservations) | who is known, replay, challenge |
//! | `hello`, `tables` | A10-A15 | what hellos say and when, table versions, deltas, SYNC |
//! | `detect` | A17-A21 | loss, suspicion, evidence, death |
//! | `proof` | A25, A26 | two-way proof, mute |
//! | `ownership` | A28-A36, A41, A42 | pure decisions over plain data |
//! | `announce` | A37-A39, A46 | announcing, paced by the governor |
//! | `answer` | (RFC 826, 4861, 4862) | ARP and NS, the hot path |
//! | `conflict` | A33 (probes), A47 | foreign owners |
//! | `alone` | A35, A48, A49 | nobody else heard |
//!
//! # Driving it
//!
//! One [`Core`] per node, one loop:
//!
//! ```text
//! loop {
//!     wait for a frame, an input from elsewhere, or poll_timeout()
//!     if core.begin_turn(now()) == Turn::Stalled { read all sockets empty, throw the frames away }
//!     for frame in sockets (at most a few dozen each) { core.handle(now(), Input::Frame { .. }) }
//!     for input in queue { core.handle(now(), input) }
//!     core.handle_timeout(now())
//!     while let Some(output) = core.poll_output() { do it }
//! }
//! ```
//!
//! - After **every** `handle` and `handle_timeout`, outputs may be waiting: call [`Core::poll_output`] until it
//!   returns `None`. Answers to clients are among them, so drain before handling the next burst of frames.
//! - After every call that takes `now`, [`Core::poll_timeout`] may have changed. It only says when
//!   [`Core::handle_timeout`] is next needed; calling that early or often does no harm.
//! - [`Core::begin_turn`] comes first in each turn, before any frame that queued up is read. Timeouts are at most h
//!   (40 ms, fast profile 8 ms) apart while any segment exists; a turn that begins more than 3h after the core was last
//!   called means that this process was stopped, and what it believes is stale (rule A24). Keep turns short all the
//!   same: what the core does not send while the driver is busy, peers count as silence.
//! - After [`Event::ListShrank`], list again in 10 s and hand that in as [`Input::SpecsReplaced`] (rule A42).
//! - `now` never goes back; an earlier one is taken for the latest seen.

mod alone;
mod announce;
mod answer;
mod config;
mod conflict;
mod context;
mod core;
mod detect;
mod grace;
mod hello;
mod holdings;
mod input;
mod kernel;
mod leave;
mod output;
mod ownership;
mod peers;
mod placement;
mod proof;
mod receive;
mod segment;
mod snapshot;
mod specs;
mod tables;
mod time;
mod vips;

#[cfg(feature = "ablation")]
pub use config::Ablation;
pub use config::{Config, NodeName, Profile};
pub use core::Core;
pub use herald_wire::hello::Keyring;
pub use herald_wire::{Boot, ClusterId, Epoch, MacAddr, NodeId, Revision};
pub use input::{Input, Interface, NodeState, Nodes, VipSpec};
pub use output::{Cause, Event, Gone, Holding, Output, PeerId, ReleaseReason, Traffic, Turn};
pub use placement::glob_matches;
pub use snapshot::{
    Counters, Lifecycle, OtherVip, PeerSnapshot, PeerState, Refusals, SegmentSnapshot, Snapshot,
};
pub use time::Instant;
