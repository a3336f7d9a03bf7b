//! HTTP/1.1 as far as the API needs it: requests from bytes, and answers to bytes. No sockets.

mod request;
mod response;

pub use request::{Method, Parsed, Request, parse};
pub use response::{Response, Status};
