//! Where requests go, which the edge asks for each one.

use std::any::Any;
use std::os::unix::net::UnixStream;

/// Knows which app serves which name.
pub trait Routes: Send + Sync + 'static {
    /// Returns a connection to a backend of the app that serves `host`, a name in lower case without a port. May block for some seconds,
    /// while a VM wakes up; it is called on a thread for that.
    ///
    /// # Errors
    /// If there is none.
    fn connect(&self, host: &str) -> Result<Backend, Refusal>;

    /// Returns whose name this is. All names of one owner share how many requests look for a backend at once. Does not block.
    fn owner(&self, host: &str) -> String {
        host.to_owned()
    }

    /// Returns the names that are served, in lower case, each of which is to have a certificate.
    fn names(&self) -> Vec<String>;
}

/// A connection to a backend.
pub struct Backend {
    /// Its bytes are those of the app's TCP connection.
    pub stream: UnixStream,
    /// What is to be dropped when its request is over, or the stream that came of it.
    pub kept: Kept,
    /// Asked before another request goes by the same connection. Without it, none does.
    pub again: Option<Again>,
}

/// What is kept as long as a request lasts.
pub type Kept = Box<dyn Any + Send + Sync>;

/// Says whether a connection may have another request: what is to be kept meanwhile, or `None` if it is to be closed. Does not block.
pub type Again = Box<dyn Fn() -> Option<Kept> + Send + Sync>;

/// It may have any number of requests.
impl From<UnixStream> for Backend {
    fn from(stream: UnixStream) -> Self {
        Self { stream, kept: Box::new(()), again: Some(Box::new(|| Some(Box::new(())))) }
    }
}

/// Why there is no backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No app serves this name.
    Unknown,
    /// The app has no VM that answers, for this reason. The client may try again.
    NoBackend(String),
}

/// Refuses what is no name of a host on the internet, to have a certificate: dots between labels of letters, digits and hyphens.
///
/// # Errors
/// What is wrong with it, and what is allowed.
pub fn check_name(name: &str) -> Result<(), String> {
    let is_label = |label: &str| {
        let is_right = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(is_right)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let labels: Vec<&str> = name.split('.').collect();
    let is_address = labels.last().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    if name.len() <= 253 && labels.len() >= 2 && labels.into_iter().all(is_label) && !is_address {
        return Ok(());
    }
    Err(format!(
        "{name:?} is no name for a certificate, allowed are two labels and more of a-z, 0-9 and - with dots between them, such as www.example.com"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels_with_dots_between_them() {
        for name in ["example.com", "a.b.c-d.example", "xn--bcher-kva.example", "1.example"] {
            check_name(name).unwrap();
        }
        let long = format!("{}.example", "x".repeat(64));
        for name in [
            "",
            "localhost",
            "Example.com",
            "a..b",
            ".a.b",
            "a.b.",
            "-a.b",
            "a_b.c",
            "10.0.0.1",
            "*.example.com",
            "a/b.c",
            &long,
        ] {
            assert!(check_name(name).unwrap_err().contains("allowed are two labels"), "{name}");
        }
    }
}
