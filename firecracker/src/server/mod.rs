//! The API's socket and its connections. It has no thread: the program's loop lends its turns.

mod connection;
mod listener;

pub use listener::Server;
