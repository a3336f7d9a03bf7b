//! The machine: its plan, and its VM once it was started.

use std::time::{Duration, Instant};

use vmcell::{Exit, Status, Vm};

use super::metadata::Store;
use super::metrics::Meters;
use super::plan::Plan;
use super::setup::Setup;
use super::snapshot::Last;
use crate::api::InstanceState;
use crate::log::Log;

/// The one machine of this program.
pub struct Machine {
    pub(super) setup: Setup,
    pub(super) log: Log,
    pub(super) plan: Plan,
    /// Whether anything was said of the plan, after which no snapshot can be loaded.
    pub(super) is_planned: bool,
    pub(super) store: Store,
    pub(super) vm: Option<Vm>,
    pub(super) meters: Meters,
    /// The snapshot on which the next may build.
    pub(super) last: Option<Last>,
}

impl Machine {
    /// A machine that is not started.
    pub fn new(setup: Setup, log: Log) -> Self {
        let store = Store::new(setup.most_metadata);
        Self {
            setup,
            log,
            plan: Plan::default(),
            is_planned: false,
            store,
            vm: None,
            meters: Meters::default(),
            last: None,
        }
    }

    /// What it does.
    pub fn state(&self) -> InstanceState {
        match self.vm.as_ref().map(Vm::status) {
            None => InstanceState::NotStarted,
            Some(Status::Ready | Status::Paused) => InstanceState::Paused,
            Some(_) => InstanceState::Running,
        }
    }

    /// The VM, once it was started.
    pub fn vm(&self) -> Option<&Vm> {
        self.vm.as_ref()
    }

    /// How the guest ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        self.vm.as_ref()?.wait_timeout(Duration::ZERO).ok()
    }

    /// Counts a request, which `group` and `resource` name as metrics do.
    pub fn count(&mut self, group: &'static str, resource: &str, is_refused: bool) {
        self.meters.count(group, resource, is_refused);
    }

    /// Counts a request that used what is deprecated.
    pub fn count_deprecated(&mut self) {
        self.meters.count_deprecated();
    }

    /// When it wants a turn at the latest.
    pub fn due(&mut self, now: Instant) -> Option<Instant> {
        self.meters.due(self.vm.is_some(), now)
    }

    /// Writes metrics if they are due.
    pub fn turn(&mut self, now: Instant) {
        if let Some(vm) = &self.vm {
            self.meters.write_if_due(vm, &self.plan, &self.log, now);
        }
    }

    /// Writes metrics, if anybody wants them.
    ///
    /// # Errors
    /// What the host reports.
    pub fn flush(&mut self) -> std::io::Result<()> {
        self.vm.as_ref().map_or(Ok(()), |vm| self.meters.write(vm, &self.plan, &self.log))
    }
}
