//! A queue at rest, as plain data.

/// How far a queue has come: what has to be known, apart from what the driver has [set](super::QueueConfig), to go on with it
/// elsewhere. Only a queue with nothing in flight has such a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct QueueState {
    /// The index, in the available ring, of the chain that is taken next.
    pub next_avail: u16,
    /// The index, in the used ring, of the chain that is given back next.
    pub next_used: u16,
}
