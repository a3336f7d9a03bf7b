//! What a piece is, to those who measure it.

/// Something that is measured alone.
#[derive(Clone, Copy)]
pub struct Piece {
    /// The room of the library that it is of.
    pub room: &'static str,
    pub name: &'static str,
    /// How many operations each call does: so many that what is not theirs, such as the beginning of a turn, hardly counts.
    pub operations: u64,
    /// Sets up what a call needs, and returns what is called again and again.
    pub make: fn() -> Box<dyn FnMut()>,
}
