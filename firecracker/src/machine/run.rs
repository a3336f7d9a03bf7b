//! What is done to a machine that was started, and how one is.

use std::time::{Duration, Instant};

use vmcell::{Status, Vm};

use super::serve::{json, no_balloon};
use super::state::Machine;
use super::{balloon, build, disks, snapshot};
use crate::api::{BalloonStatisticsUpdate, BalloonUpdate, SnapshotCreate, SnapshotLoad, SnapshotType, VmState};
use crate::fault::Fault;
use crate::http::Response;

impl Machine {
    pub(super) fn running(&self) -> Result<&Vm, Fault> {
        self.vm.as_ref().ok_or_else(Fault::before_start)
    }

    pub(super) fn start(&mut self) -> Result<(), Fault> {
        let builder = build::boot(&self.plan, &self.store, &self.setup, &self.log)?;
        let refused = |error: vmcell::Error| Fault::of("Start microvm error", &error);
        let files = disks::files(&self.plan.drives);
        let vm = builder.build().map_err(refused)?;
        vm.start().map_err(refused)?;
        (self.plan.files, self.vm) = (files, Some(vm));
        Ok(())
    }

    pub(super) fn set_state(&mut self, state: VmState) -> Result<(), Fault> {
        let began = Instant::now();
        let vm = self.running()?;
        let done = match state {
            // A machine that was loaded has not gone on yet, and stands still.
            VmState::Paused if vm.status() == Status::Ready => Ok(()),
            VmState::Paused => vm.pause(),
            VmState::Resumed if vm.status() == Status::Ready => vm.start(),
            VmState::Resumed => vm.resume(),
        };
        done.map_err(|error| Fault::of("vm", &error))?;
        let what = if state == VmState::Paused { "pause_vm" } else { "resume_vm" };
        self.meters.took(what, began.elapsed());
        Ok(())
    }

    pub(super) fn balloon_statistics(&self) -> Result<Response, Fault> {
        let vm = self.running()?;
        let wanted = self.plan.balloon.as_ref().ok_or_else(no_balloon)?;
        if wanted.stats_polling_interval_s == 0 {
            return Err(Fault::new(
                "balloon: there are no statistics, since stats_polling_interval_s was 0 at the start",
            ));
        }
        json(&balloon::statistics(&balloon::handle(vm)?))
    }

    pub(super) fn patch_balloon(&mut self, update: BalloonUpdate) -> Result<(), Fault> {
        let vm = self.vm.as_ref().ok_or_else(Fault::before_start)?;
        let wanted = self.plan.balloon.as_mut().ok_or_else(no_balloon)?;
        balloon::check_target(update.amount_mib, self.plan.machine.mem_size_mib)?;
        let handle = balloon::handle(vm)?;
        handle.set_target_mib(update.amount_mib.into()).map_err(balloon::refused)?;
        wanted.amount_mib = update.amount_mib;
        Ok(())
    }

    pub(super) fn patch_balloon_statistics(&mut self, update: BalloonStatisticsUpdate) -> Result<(), Fault> {
        let vm = self.vm.as_ref().ok_or_else(Fault::before_start)?;
        let wanted = self.plan.balloon.as_mut().ok_or_else(no_balloon)?;
        let (old, new) = (wanted.stats_polling_interval_s, update.stats_polling_interval_s);
        if (old == 0) != (new == 0) {
            let message = format!(
                "balloon: stats_polling_interval_s is {new} and was {old}; statistics cannot be turned on or off after the start"
            );
            return Err(Fault::new(message));
        }
        if new != old {
            let interval = Duration::from_secs(new.into());
            balloon::handle(vm)?.set_statistics_interval(interval).map_err(balloon::refused)?;
            wanted.stats_polling_interval_s = new;
        }
        Ok(())
    }

    pub(super) fn create_snapshot(&mut self, wanted: &SnapshotCreate) -> Result<(), Fault> {
        let began = Instant::now();
        let vm = self.running()?;
        match vm.status() {
            Status::Paused => {}
            Status::Ready => {
                return Err(Fault::new(
                    "snapshot/create: the machine was loaded and has not gone on yet; resume it first",
                ));
            }
            _ => return Err(Fault::new("snapshot/create: the machine runs; pause it first")),
        }
        let taken = snapshot::create(vm, &self.plan, self.last.as_ref(), wanted)?;
        self.last = taken;
        let what = match wanted.snapshot_type {
            SnapshotType::Full => "full_create_snapshot",
            SnapshotType::Diff => "diff_create_snapshot",
        };
        self.meters.took(what, began.elapsed());
        Ok(())
    }

    pub(super) fn load_snapshot(&mut self, wanted: &SnapshotLoad) -> Result<(), Fault> {
        let began = Instant::now();
        if self.is_planned {
            return Err(Fault::new(
                "snapshot/load: the machine was described already; a snapshot takes a process of which nothing was asked but logger, metrics and mmds",
            ));
        }
        let (mut plan, saved, clock) = snapshot::load(wanted)?;
        plan.serial = self.plan.serial.clone();
        plan.files = disks::files(&plan.drives);
        let refused = |error: vmcell::Error| Fault::of("snapshot/load", &error);
        let builder = build::with_serial(build::describe(&plan, &self.setup)?.builder(), &plan)?;
        let builder = build::with_log(build::with_nics(builder, &plan, &self.store)?, &self.log);
        let vm = builder.fork_of(&saved).fork_clock(clock).build().map_err(refused)?;
        if let Some(told) = &mut plan.balloon {
            balloon::read_target(told, &balloon::handle(&vm)?);
        }
        if wanted.resume_vm {
            vm.start().map_err(refused)?;
        }
        (self.plan, self.vm) = (plan, Some(vm));
        self.meters.took("load_snapshot", began.elapsed());
        Ok(())
    }
}
