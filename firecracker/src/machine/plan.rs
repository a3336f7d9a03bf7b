//! What the machine is to be, as clients have said it.

use crate::api::{
    Balloon, BootSource, Drive, Entropy, MachineConfig, MmdsConfig, NetworkInterface, Serial, VmConfig, Vsock,
};
use crate::fault::Fault;

/// The most disks, cards and other devices: each has an interrupt of its own.
const MOST_DEVICES: usize = 19;

/// A file of the host, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    pub(super) device: u64,
    pub(super) inode: u64,
}

/// All resources. Each of them was checked by itself.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// CPUs and memory.
    pub machine: MachineConfig,
    /// What the guest starts with.
    pub boot: Option<BootSource>,
    /// The root device first.
    pub drives: Vec<Drive>,
    /// Which files these are, once the machine was started.
    pub files: Vec<Option<File>>,
    /// In the order in which they were named.
    pub nics: Vec<NetworkInterface>,
    /// Sockets between host and guest.
    pub vsock: Option<Vsock>,
    /// Memory that the guest gives back.
    pub balloon: Option<Balloon>,
    /// Random bytes.
    pub entropy: Option<Entropy>,
    /// Where the guest's output goes.
    pub serial: Serial,
    /// How the guest reaches its metadata.
    pub mmds: Option<MmdsConfig>,
}

impl Plan {
    /// Adds a disk, or replaces the one of its name. The root device becomes the first.
    pub fn put_drive(&mut self, drive: Drive) -> Result<(), Fault> {
        let at = self.drives.iter().position(|other| other.drive_id == drive.drive_id);
        let root = self.drives.iter().find(|other| other.is_root_device);
        if let Some(root) = root.filter(|root| drive.is_root_device && root.drive_id != drive.drive_id) {
            let message =
                format!("drive {}: the root device is {} already, allowed is one", drive.drive_id, root.drive_id);
            return Err(Fault::new(message));
        }
        let is_root = drive.is_root_device;
        match at.and_then(|at| self.drives.get_mut(at)) {
            Some(place) => *place = drive,
            None => {
                self.check_room(&format!("drive {}", drive.drive_id))?;
                self.drives.push(drive);
            }
        }
        if is_root {
            let at = at.unwrap_or(self.drives.len().saturating_sub(1));
            self.drives.swap(0, at);
        }
        Ok(())
    }

    /// Adds a card, or replaces the one of its name.
    pub fn put_nic(&mut self, nic: NetworkInterface) -> Result<(), Fault> {
        let same_mac = |other: &&NetworkInterface| other.guest_mac == nic.guest_mac && other.iface_id != nic.iface_id;
        if let (Some(mac), Some(other)) = (nic.guest_mac, self.nics.iter().find(same_mac)) {
            let message =
                format!("network interface {}: the MAC address {mac} is that of {}", nic.iface_id, other.iface_id);
            return Err(Fault::new(message));
        }
        match self.nics.iter_mut().find(|other| other.iface_id == nic.iface_id) {
            Some(place) => *place = nic,
            None => {
                self.check_room(&format!("network interface {}", nic.iface_id))?;
                self.nics.push(nic);
            }
        }
        Ok(())
    }

    /// Sets the vsock.
    pub fn put_vsock(&mut self, vsock: Vsock) -> Result<(), Fault> {
        self.vsock.as_ref().map_or_else(|| self.check_room("vsock"), |_| Ok(()))?;
        self.vsock = Some(vsock);
        Ok(())
    }

    /// Sets the balloon.
    pub fn put_balloon(&mut self, balloon: Balloon) -> Result<(), Fault> {
        self.balloon.as_ref().map_or_else(|| self.check_room("balloon"), |_| Ok(()))?;
        self.balloon = Some(balloon);
        Ok(())
    }

    /// Sets the source of random bytes.
    pub fn put_entropy(&mut self, entropy: Entropy) -> Result<(), Fault> {
        self.entropy.as_ref().map_or_else(|| self.check_room("entropy"), |_| Ok(()))?;
        self.entropy = Some(entropy);
        Ok(())
    }

    /// Refuses a device more than there can be, which `what` names.
    fn check_room(&self, what: &str) -> Result<(), Fault> {
        let single = [self.vsock.is_some(), self.balloon.is_some(), self.entropy.is_some()];
        let single = single.into_iter().filter(|is_there| *is_there).count();
        let count = [self.drives.len(), self.nics.len(), single].into_iter().fold(0, usize::saturating_add);
        if count < MOST_DEVICES {
            return Ok(());
        }
        let message = format!(
            "{what}: there are {count} drives, network interfaces and other devices already, allowed are {MOST_DEVICES}"
        );
        Err(Fault::new(message))
    }

    /// As clients are told of it.
    pub fn described(&self) -> VmConfig {
        let mut drives = self.drives.clone();
        // The original has no third way.
        drives.iter_mut().for_each(|drive| drive.io_engine = Some(drive.io_engine.unwrap_or_default()));
        VmConfig {
            balloon: self.balloon.clone(),
            drives,
            boot_source: self.boot.clone().unwrap_or_default(),
            cpu_config: None,
            logger: None,
            machine_config: Some(self.machine.clone()),
            metrics: None,
            mmds_config: self.mmds.clone(),
            network_interfaces: self.nics.clone(),
            vsock: self.vsock.clone(),
            entropy: self.entropy.clone(),
            pmem: Vec::new(),
            memory_hotplug: None,
        }
    }
}

#[cfg(test)]
#[path = "plan_test.rs"]
mod tests;
