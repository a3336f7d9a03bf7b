//! Whether what a snapshot says of its machine is what the machine is.

use std::fmt::Debug;

use vmcell::VmConfig;

use super::plan::Plan;
use super::{balloon, disks, memory, metadata};
use crate::fault::Fault;

/// Refuses a plan that is not of this machine, whose guest would be another one than clients are told. What belongs to the host, such as
/// paths and limits, may be another.
pub fn check(plan: &Plan, machine: &VmConfig) -> Result<(), Fault> {
    let wanted = &plan.machine;
    same("machine-config: vcpu_count", &u32::from(wanted.vcpu_count), &machine.vcpus)?;
    same("machine-config: mem_size_mib", &wanted.mem_size_mib, &machine.memory.mib)?;
    same("machine-config: huge_pages", &memory::memory(wanted).pages, &machine.memory.pages)?;
    same("machine-config: cpu_template", &memory::cpu(wanted)?, &machine.cpu)?;
    same("drives: their number", &plan.drives.len(), &machine.disks.len())?;
    for (drive, disk) in plan.drives.iter().zip(&machine.disks) {
        let (name, told) = (&drive.drive_id, disks::disk(drive)?);
        same(&format!("drive {name}: drive_id"), &told.serial, &disk.serial)?;
        same(&format!("drive {name}: is_read_only"), &told.read_only, &disk.read_only)?;
    }
    let cid = plan.vsock.as_ref().map(|vsock| u64::from(vsock.guest_cid));
    same("vsock: guest_cid", &cid, &machine.vsock.as_ref().map(|vsock| vsock.cid))?;
    same("entropy: whether it is there", &plan.entropy.is_some(), &machine.rng.is_some())?;
    let told = plan.balloon.as_ref().map(balloon::balloon);
    same("balloon: whether it is there", &told.is_some(), &machine.balloon.is_some())?;
    if let (Some(told), Some(balloon)) = (&told, &machine.balloon) {
        same("balloon: deflate_on_oom", &told.deflate_on_oom, &balloon.deflate_on_oom)?;
        same("balloon: free_page_reporting", &told.reporting, &balloon.reporting)?;
        same("balloon: whether it has statistics", &(told.statistics_s > 0), &(balloon.statistics_s > 0))?;
    }
    plan.mmds.as_ref().map_or(Ok(()), |mmds| metadata::check(mmds, &plan.nics))
}

fn same<T: PartialEq + Debug>(what: &str, told: &T, is: &T) -> Result<(), Fault> {
    if told == is {
        return Ok(());
    }
    Err(Fault::new(format!("{what} is {told:?}, and the machine that was saved has {is:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Balloon, Entropy, MachineConfig, MmdsConfig};

    #[test]
    fn each_thing_that_a_guest_would_notice_is_compared_by_its_name() {
        let plan = Plan::default();
        let mut machine = VmConfig::default();
        machine.memory = memory::memory(&MachineConfig::default());
        check(&plan, &machine).unwrap();
        let told = |change: &dyn Fn(&mut Plan)| {
            let mut plan = plan.clone();
            change(&mut plan);
            check(&plan, &machine).unwrap_err().message().to_owned()
        };
        let vcpus = told(&|plan| plan.machine.vcpu_count = 2);
        assert_eq!(vcpus, "machine-config: vcpu_count is 2, and the machine that was saved has 1");
        assert!(told(&|plan| plan.machine.mem_size_mib = 64).starts_with("machine-config: mem_size_mib is 64, "));
        let mmds: MmdsConfig = serde_json::from_str(r#"{"network_interfaces": ["none"]}"#).unwrap();
        assert!(told(&|plan| plan.mmds = Some(mmds.clone())).contains("no such network interface"));
        assert!(told(&|plan| plan.entropy = Some(Entropy::default())).starts_with("entropy: "));
        let mut plan = plan.clone();
        let mut balloon: Balloon = serde_json::from_str(r#"{"amount_mib": 0, "deflate_on_oom": true}"#).unwrap();
        machine.balloon = Some(super::balloon::balloon(&balloon));
        balloon.stats_polling_interval_s = 1;
        plan.balloon = Some(balloon);
        assert!(
            check(&plan, &machine).unwrap_err().message().starts_with("balloon: whether it has statistics is true")
        );
    }
}
