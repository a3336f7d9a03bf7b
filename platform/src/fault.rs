//! What a person is told when something is refused or fails.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What happened, and what to do about it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// What was refused or failed: the thing, its value, and what is allowed.
    pub message: String,
    /// What to do next, if there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A result with a [`Fault`].
pub type Result<T> = std::result::Result<T, Fault>;

impl Fault {
    /// A fault with nothing to do about it.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), next: None }
    }

    /// Says what to do next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        self.next.as_ref().map_or(Ok(()), |next| write!(f, "\n  {next}"))
    }
}

impl std::error::Error for Fault {}

impl From<vmcell::Error> for Fault {
    fn from(error: vmcell::Error) -> Self {
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !message.contains(&cause_text) {
                message = format!("{message}: {cause_text}");
            }
            source = cause.source();
        }
        Self::new(message)
    }
}

/// Says what was done when an error of another kind came.
pub trait Context<T> {
    /// Puts `what` in front of the error: "`what`: error".
    ///
    /// # Errors
    /// The error, as a [`Fault`].
    fn context(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Fault::new(format!("{what}: {error}")))
    }
}
