//! Deterministic simulation of the control side: two real controllers (allocator, writer, watches, election) and a
//! model of the API server, virtual time, and disturbances; everything from one seed.
//!
//! ```text
//!  A: Assembly ── kube::Client ──┐  requests, each with its fate   ┌─────────────────────┐
//!     (own runtime, own clock)   ├───────── world, network ────────┤ api: objects, log,  │── commits ──▶ check
//!  B: Assembly ── kube::Client ──┘  answers, lines of watches      │ conditions, rules   │◀── users, cluster
//!                                                                  └─────────────────────┘
//! ```
//!
//! The controllers are `herald_controller::assembly::Assembly`, unchanged: everything but flags, signals, admin
//! endpoints and the hello Secret. Each runs in a tokio runtime of its own with paused time (`process`): its clock leaps
//! to the next timer when everybody in it waits, can stand still while the other's goes on, and dropping the runtime is
//! SIGKILL. Requests leave through a `tower` service instead of a connection. The world lets the processes run in short
//! steps, whoever is behind first, carries requests to the server in the order of their arrival, and answers back.
//!
//! What could not be repeated is kept out: jitter comes from `herald_runtime::random::seeded`, clocks from tokio, and
//! requests sent at one instant are put in an order of their own. The time by the wall is the machine's: it stands in
//! conditions and the Lease for people, and decides nothing.
//!
//! - [`classes`] is the table of disturbances; `users` does what people do, `faults` what befalls processes.
//! - `check` judges every write on the server's own state, `verdict` what has become quiet; `wish` reads requests anew.
//! - [`run`] runs seeds; a failed one prints its history (`trace`).
//!
//! `cargo run -p herald-controlsim -- --class kill --seed 1` shows one; `cargo test -p herald-controlsim` runs
//! thousands (`HERALD_SIM_SEEDS` of each class).

#![expect(clippy::indexing_slicing, reason = "of JSON values only, where what is missing reads as null")]

mod api;
mod check;
pub mod classes;
mod faults;
mod network;
mod process;
pub mod run;
mod trace;
mod users;
mod verdict;
mod wish;
mod world;

pub use api::Without;

/// Virtual time since the start of a run.
type Moment = std::time::Duration;
