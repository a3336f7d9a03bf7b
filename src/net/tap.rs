//! The TAP backend.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::backend::Backend;
use super::header::{Header, Offers};
use crate::error::Result;
use crate::memory::IoRanges;
use crate::sys::{Offloads, Tap};

impl Backend for Tap {
    fn fd(&self) -> Arc<OwnedFd> {
        Tap::fd(self)
    }

    fn set_offloads(&mut self, offers: Offers) -> Result<()> {
        let Offers { checksum, tso4, tso6, ecn } = offers;
        Tap::set_offloads(self, Offloads { checksum, tso4, tso6, ecn })
    }

    fn receive(&mut self, buffers: &IoRanges) -> io::Result<usize> {
        buffers.fill_once(self.as_fd())
    }

    fn send(&mut self, header: &Header, frame: &IoRanges) -> io::Result<()> {
        frame.drain_once(self.as_fd(), &header.bytes()).map(drop)
    }
}
