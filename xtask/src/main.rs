//! Project chores: generating and checking committed files.
fn main() {}
