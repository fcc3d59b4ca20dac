//! Sockets, packet filters and netlink: the only crate that may hold unsafe code.
//!
//! Owns every system call of the speaker's data path: [`clock`], the packet socket of each interface
//! ([`L2Socket`]) with its packet filter ([`filter`]), the interface [`monitor`], the solicited-node [`groups`],
//! the [`poller`] of the L2 loop, its thread's [`priority`], and the lock that allows one speaker per node
//! ([`instance`]).
//!
//! What must always hold: each `unsafe` block says why it is sound; no call blocks, but for
//! [`Poller::wait`](poller::Poller::wait) and the dumps of [`monitor::Monitor`], which therefore has a thread of
//! its own; an error names the operation, and what to do where somebody can do something.
//!
//! It decides nothing: which addresses matter, what to send and when is for `herald-l2`.

pub mod clock;
pub mod filter;
pub mod groups;
pub mod instance;
pub mod monitor;
pub mod poller;
pub mod priority;

mod l2_socket;

pub use crate::l2_socket::{L2Socket, OpenError, Queues, is_unbound};
