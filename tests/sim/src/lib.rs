//! Deterministic simulation of a LAN of speakers: real protocol cores, a learning switch, hosts with Linux's neighbour
//! cache, an API server that may be out of reach, virtual time, and faults; everything from one seed.
//!
//! - `world` lets time pass; `switch`, `node`, `host`, `kernel`, `neighbour` and `api` are what it is made of.
//! - [`classes`] is the table of fault classes with what each promises; `schedule` and `faults` say what happens.
//! - `check` watches while time passes (`excuses`: which moves are right), `sent` what is said in an address's name, `verdict` judges what has settled.
//! - [`run`] runs seeds, [`figures`] measures detection, [`trace`] tells what happened.
//!
//! Same class, same seed: same history, on every machine. `cargo run -p herald-sim -- --class crash --seed 1 --trace`
//! shows one; `cargo test -p herald-sim` runs thousands (`HERALD_SIM_SEEDS` of each class).

mod api;
mod check;
pub mod classes;
mod disasters;
mod disturbances;
mod excuses;
mod faults;
pub mod figures;
mod host;
mod kernel;
mod neighbour;
mod node;
mod record;
pub mod run;
mod schedule;
mod sent;
mod switch;
pub mod trace;
mod verdict;
mod watch;
mod world;

/// Virtual time since the start of a run. Nodes' own clocks show something else.
type Moment = std::time::Duration;
