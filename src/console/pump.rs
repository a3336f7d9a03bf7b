//! Both ways of a console as one participant of the I/O thread.

use std::sync::Arc;

use super::input::Input;
use super::losses::Losses;
use super::output::Output;
use crate::error::Result;
use crate::event::{Event, Io, Participant, Token, Wants};
use crate::legacy::Serial;
use crate::sys::EventFd;

pub(super) struct Pump {
    output: Output,
    inputs: Vec<Input>,
    serial: Arc<Serial>,
    /// Signalled when the guest has taken what the port held.
    wanted: Arc<EventFd>,
    token: Option<Token>,
    losses: Losses,
}

impl Pump {
    pub(super) fn new(output: Output, inputs: Vec<Input>, serial: &Arc<Serial>, losses: Losses) -> Result<Self> {
        let wanted = Arc::new(serial.input_wanted().try_clone()?);
        Ok(Self { output, inputs, serial: Arc::clone(serial), wanted, token: None, losses })
    }
}

impl Participant for Pump {
    fn attach(&mut self, io: &mut Io) -> Result<()> {
        self.token = Some(io.token());
        self.output.attach(io);
        self.inputs.iter_mut().for_each(|input| input.attach(io));
        Ok(())
    }

    fn turn(&mut self, io: &mut Io, events: &[Event]) {
        self.output.turn(io, events);
        if events.iter().any(|event| Some(event.token) == self.token) {
            self.serial.feed();
        }
        let has_ended = self.output.has_ended();
        for input in &mut self.inputs {
            if has_ended {
                input.let_go();
            } else {
                input.turn(io, events);
            }
        }
        self.losses.look();
    }

    fn wants(&self, wants: &mut Wants) {
        if let Some(token) = self.token {
            wants.doorbell(token, &self.wanted);
        }
        self.output.wants(wants);
        self.inputs.iter().for_each(|input| input.wants(wants));
    }
}
