//! Both ways of a console as one participant of the I/O thread.

use super::input::Input;
use super::output::Drain;
use crate::error::Result;
use crate::event::{Event, Io, Participant, Wants};

pub(super) struct Pump {
    output: Option<Drain>,
    input: Input,
}

impl Pump {
    pub(super) fn new(output: Option<Drain>, input: Input) -> Self {
        Self { output, input }
    }
}

impl Participant for Pump {
    fn attach(&mut self, io: &mut Io) -> Result<()> {
        if let Some(output) = &mut self.output {
            output.attach(io);
        }
        self.input.attach(io);
        Ok(())
    }

    fn turn(&mut self, io: &mut Io, events: &[Event]) {
        if let Some(output) = &mut self.output {
            output.turn(io, events);
        }
        self.input.turn(events);
    }

    fn wants(&self, wants: &mut Wants) {
        if let Some(output) = &self.output {
            output.wants(wants);
        }
        self.input.wants(wants);
    }
}
