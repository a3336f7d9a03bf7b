//! Split queues (2.7): what a driver sets up, and what runs.

mod chain;
mod config;
mod descriptor;
mod queues;
mod ring;
mod running;
mod shared;
mod state;
mod walk;

pub use chain::Chain;
pub use config::QueueConfig;
pub use descriptor::Segment;
pub use queues::Queues;
pub use running::Queue;
pub(super) use running::Start;
pub use state::QueueState;
