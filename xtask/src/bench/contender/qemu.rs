//! QEMU's `microvm`, with io_uring and an I/O thread for its disk.

use std::process::Command;

use super::machine::{MEMORY_MIB, Machine};

pub const PROGRAM: &str = "qemu-system-x86_64";
/// Nothing that the guest does not use, and the modern registers of virtio-mmio.
const MACHINE: &str = "microvm,acpi=off,rtc=off,pit=off,pic=off,isa-serial=on,auto-kernel-cmdline=on";
/// Without the MSR that software KVM refuses.
const CPU: &str = "host,-arch-capabilities";

pub fn command(machine: &Machine<'_>) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["-M", MACHINE, "-enable-kvm", "-cpu", CPU, "-smp", "1", "-m", &MEMORY_MIB.to_string()]);
    command.args(["-global", "virtio-mmio.force-legacy=false", "-nodefaults", "-no-user-config", "-no-reboot"]);
    // Threads have names, by which the vCPU's is known.
    command.args(["-display", "none", "-serial", "stdio", "-name", "bench,debug-threads=on"]);
    command.arg("-kernel").arg(machine.guest).args(["-append", &machine.cmdline]);
    if let Some(disk) = &machine.disk {
        let direct = if disk.direct { "on" } else { "off" };
        let path = disk.path.display();
        let medium = format!("driver=file,node-name=disk,filename={path},aio=io_uring,cache.direct={direct}");
        command.args(["-object", "iothread,id=io", "-blockdev", &medium]);
        command.args(["-device", "virtio-blk-device,drive=disk,iothread=io"]);
    }
    if let Some(tap) = machine.tap {
        let card = format!("tap,id=net,ifname={tap},script=no,downscript=no,vhost=off");
        command.args(["-netdev", &card, "-device", "virtio-net-device,netdev=net"]);
    }
    command
}
