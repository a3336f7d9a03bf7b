//! Everything that the repository does with itself: `cargo xtask run` and `cargo xtask test`.

fn main() {}
