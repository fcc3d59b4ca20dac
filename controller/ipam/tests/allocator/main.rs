//! The allocator against a small API server: scenarios one by one, and random histories judged by a naive model.

#[cfg(test)]
mod model;
#[cfg(test)]
mod order;
#[cfg(test)]
mod random;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod semantics;
#[cfg(test)]
mod sharing;
#[cfg(test)]
mod world;
#[cfg(test)]
mod writers;
