//! Both ways of a console as one participant of the I/O thread.

use super::input::Input;
use super::output::Output;
use crate::error::Result;
use crate::event::{Event, Io, Participant, Wants};

pub(super) struct Pump {
    output: Output,
    input: Input,
}

impl Pump {
    pub(super) fn new(output: Output, input: Input) -> Self {
        Self { output, input }
    }
}

impl Participant for Pump {
    fn attach(&mut self, io: &mut Io) -> Result<()> {
        self.output.attach(io);
        self.input.attach(io);
        Ok(())
    }

    fn turn(&mut self, io: &mut Io, events: &[Event]) {
        self.output.turn(io, events);
        self.input.turn(io, events);
    }

    fn wants(&self, wants: &mut Wants) {
        self.output.wants(wants);
        self.input.wants(wants);
    }
}
