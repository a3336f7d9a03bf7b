//! What two hosts say to each other while one has the other run a release, line by line.

use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fault::{Context, Fault, Result};
use crate::lines::{receive, send};

/// The longest line, in bytes.
const MOST_LINE: u64 = 64 << 10;
/// The longest text of another host's that is shown.
const MOST_SHOWN: usize = 500;

/// What the host says that is to run it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// It has not got the image.
    Wants,
    /// It has got it.
    Has,
    /// What it is doing.
    Progress(String),
    /// All of the new VMs are healthy, and get no traffic yet.
    Healthy,
    /// They have taken over.
    Done,
    /// It was refused, or has failed; what ran before goes on.
    Failed(Fault),
}

/// What the host says that deploys it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The image was sent.
    Sent,
    /// The new VMs are to take over. If it does not come, they end.
    Go,
}

/// One end of such a talk.
pub struct Talk {
    lines: BufReader<UnixStream>,
}

impl Talk {
    /// Each line of the other side's may take so long.
    ///
    /// # Errors
    /// The stream is none any more.
    pub fn new(stream: UnixStream, limit: Duration) -> Result<Self> {
        stream.set_read_timeout(Some(limit)).context("another host")?;
        stream.set_write_timeout(Some(limit)).context("another host")?;
        Ok(Self { lines: BufReader::new(stream) })
    }

    /// Says a line.
    ///
    /// # Errors
    /// The other side is gone.
    pub fn say(&self, what: &impl Serialize) -> Result<()> {
        let mut stream = self.lines.get_ref();
        send(&mut stream, what)?;
        stream.flush().context("another host")
    }

    /// What the host that deploys says next.
    ///
    /// # Errors
    /// It is gone, or it is another order than this one.
    pub fn await_order(&mut self, order: Order) -> Result<()> {
        match receive::<Order>(&mut self.lines, MOST_LINE)? {
            Some(said) if said == order => Ok(()),
            _ => Err(Fault::new("the host that deploys has given up, or is gone")),
        }
    }

    /// What the host that runs says next, apart from what it is doing.
    ///
    /// # Errors
    /// It is gone, or has failed.
    pub fn hear(&mut self, progress: &(dyn Fn(&str) + Sync)) -> Result<Said> {
        loop {
            match receive::<Said>(&mut self.lines, MOST_LINE)? {
                Some(Said::Progress(what)) => progress(&shown(&what)),
                Some(Said::Failed(why)) => {
                    return Err(Fault { message: shown(&why.message), next: why.next.as_deref().map(shown) });
                }
                Some(said) => return Ok(said),
                None => return Err(Fault::new("the connection to it has ended")),
            }
        }
    }

    /// Waits for this.
    ///
    /// # Errors
    /// It is gone, has failed, or says something else.
    pub fn await_said(&mut self, wanted: &Said, progress: &(dyn Fn(&str) + Sync)) -> Result<()> {
        let said = self.hear(progress)?;
        if said == *wanted { Ok(()) } else { Err(Fault::new(format!("it does not keep to the protocol: {said:?}"))) }
    }
}

/// A text of another host's, short and on one line.
fn shown(text: &str) -> String {
    text.chars().take(MOST_SHOWN).map(|one| if one.is_control() { ' ' } else { one }).collect()
}
