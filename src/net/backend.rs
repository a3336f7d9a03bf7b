//! What frames come from and go to. It knows no queue.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::header::{Header, Offers};
use crate::error::Result;
use crate::memory::IoRanges;

/// A source and sink of frames, each with a header in front. No call blocks.
pub(super) trait Backend: Send {
    /// What to wait on: readable when there is a frame, writable when one may be sent.
    fn fd(&self) -> Arc<OwnedFd>;

    /// Says what the guest can cope with in frames that it receives.
    fn set_offloads(&mut self, offers: Offers) -> Result<()>;

    /// Fills `buffers` with one header and frame, cut where they are too small; says how many bytes came. The two bytes
    /// of the header that say how many buffers there are may be left as they are.
    ///
    /// # Errors
    /// `WouldBlock` where there is no frame.
    fn receive(&mut self, buffers: &IoRanges) -> io::Result<usize>;

    /// Sends one frame.
    ///
    /// # Errors
    /// `WouldBlock` where it cannot be taken now. After any other error the frame is lost.
    fn send(&mut self, header: &Header, frame: &IoRanges) -> io::Result<()>;
}
