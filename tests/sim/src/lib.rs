//! x
pub mod dice;
pub mod host;
pub mod kernel;
pub mod neighbour;
pub mod switch;
/// m
pub type Moment = std::time::Duration;
