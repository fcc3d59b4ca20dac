//! The allocator against a small API server: scenarios one by one, and random histories judged by a naive model.

mod model;
mod order;
mod random;
mod scenarios;
mod world;
