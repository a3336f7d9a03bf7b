//! What every kind of run needs: to start a contender, and to know the time that its work took.

use std::process::Command;
use std::time::Duration;

use crate::args::BenchOptions;
use crate::bench::contender::{Contender, Disk, Machine};
use crate::bench::process;
use crate::bench::session::Session;
use crate::bench::setup::Setup;
use crate::exec::{Error, Result};

/// Added to the time that the guest takes by its own clock.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Runner<'a> {
    pub setup: &'a Setup,
    pub options: &'a BenchOptions,
    number: u32,
}

impl<'a> Runner<'a> {
    pub fn new(setup: &'a Setup, options: &'a BenchOptions) -> Self {
        Self { setup, options, number: 0 }
    }

    /// Another run begins.
    pub fn count(&mut self) {
        // The guest has 16 bits for the number.
        self.number = self.number % 0xffff + 1;
    }

    /// The number of this run, of 16 bits and not 0.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// How long to warm up and to be measured, as the guest and the floor are told it.
    pub fn times(&self) -> String {
        let run_ms = self.options.run_ms;
        format!("warm_ms={} run_ms={run_ms}", run_ms / 5)
    }

    /// How long to wait for what a run is to bring.
    pub fn patience(&self) -> Duration {
        PATIENCE + Duration::from_millis(self.options.run_ms.into())
    }

    /// Starts a monitor with a guest that does this work.
    pub fn start(
        &self,
        contender: &Contender,
        work: &str,
        disk: Option<Disk<'_>>,
        tap: Option<&str>,
    ) -> Result<Session> {
        self.start_on(contender, work, disk, tap, true)
    }

    /// Does the same, with or without transparent huge pages.
    pub fn start_on(
        &self,
        contender: &Contender,
        work: &str,
        disk: Option<Disk<'_>>,
        tap: Option<&str>,
        huge_pages: bool,
    ) -> Result<Session> {
        let setup = self.setup;
        let cmdline = format!("{work} tsc_khz={} {}", setup.tsc_khz, self.times());
        let machine = Machine {
            guest: &setup.guest,
            initrd: None,
            cmdline,
            disk,
            tap,
            huge_pages,
            scratch: setup.scratch.path(),
        };
        let command = contender.command(&machine)?;
        let mut command = command.ok_or_else(|| Error::new(format!("{} is no monitor", contender.label)))?;
        self.session(&mut command)
    }

    /// Starts any program that talks as a guest does.
    pub fn session(&self, command: &mut Command) -> Result<Session> {
        Session::start(command, self.setup.scratch.path().join("errors"))
    }

    /// The floor for this work, which is words.
    pub fn floor(&self, work: &str) -> Command {
        let mut command = Command::new(&self.setup.floor);
        command.args(work.split(' '));
        command
    }

    /// Waits for the line that begins with `end`; returns it, and the host's CPU time since the call.
    pub fn end_and_cpu(&self, session: &mut Session) -> Result<(String, f64)> {
        let before = process::cpu_us_beside_vcpus(session.process())?;
        let told = session.expect("end", self.patience())?;
        Ok((told, process::cpu_us_beside_vcpus(session.process())? - before))
    }
}
