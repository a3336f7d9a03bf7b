//! Whether a service of a VM works.

use std::io::{Read, Write};
use std::time::Instant;

use super::guest::{Guest, forward};
use crate::app::Service;
use crate::fault::{Context, Fault, Result};
use crate::guest::FORWARD_PORT;

/// So much is read of an answer, at most.
const MOST_STATUS: usize = 64;

/// Checks a service once.
///
/// # Errors
/// Nobody listens, the answer is no answer of HTTP or another status than 200 to 399, or it does not come in time.
pub fn check(guest: &dyn Guest, service: &Service) -> Result<()> {
    let limit = service.check.timeout;
    let deadline = Instant::now().checked_add(limit);
    let mut stream = forward(|| guest.connect(FORWARD_PORT, limit), service.port, limit)?;
    let Some(path) = &service.check.path else { return Ok(()) };
    let named = || format!("GET {path} at port {}", service.port);
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: cell\r\nConnection: close\r\n\r\n");
    stream.set_write_timeout(Some(limit)).context(named())?;
    stream.write_all(request.as_bytes()).context(named())?;
    let mut status = Vec::new();
    while !status.contains(&b'\n') && status.len() < MOST_STATUS {
        let left =
            deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero());
        let Some(left) = left else { return Err(Fault::new(format!("{}: no answer in {limit:?}", named()))) };
        stream.set_read_timeout(Some(left)).context(named())?;
        let mut piece = [0; MOST_STATUS];
        let read = stream.read(&mut piece).map_err(|_| Fault::new(format!("{}: no answer in {limit:?}", named())))?;
        if read == 0 {
            break;
        }
        status.extend_from_slice(piece.get(..read).unwrap_or_default());
    }
    let text = String::from_utf8_lossy(&status);
    let code: Option<u16> =
        text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|code| code.parse().ok());
    match code {
        Some(200..400) => Ok(()),
        Some(code) => Err(Fault::new(format!("{}: the status is {code}; wanted is 200 to 399", named()))),
        None => Err(Fault::new(format!("{}: the answer is not HTTP", named()))),
    }
}
