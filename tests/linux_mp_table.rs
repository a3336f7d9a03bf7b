//! A stock kernel that reads no ACPI tables: it finds its CPUs and the IOAPIC by the MP table.

mod support;

use support::linux::{BOOT_LIMIT, LinuxGuest};
use vmcell::{BootProtocol, Discovery, Exit, ResetCause};

/// Without ACPI a kernel looks long for what a PC may have besides, which takes minutes on an emulated host.
const LEAN: &str = "reboot=k pci=off initcall_blacklist=i8042_init";

/// Names each CPU on which a process ran, and the interrupts of the serial port after a line of input. Without ACPI there is
/// no way to turn the machine off.
const EVERY_CPU: &str = r#"
for cpu in $(seq 0 $(($(nproc) - 1))); do taskset -c $cpu sh -c "echo ran-on $cpu"; done
echo "tables $(ls /sys/firmware/acpi/tables 2>/dev/null | wc -l)"
echo ready; read line; echo "got $line"
grep ttyS0 /proc/interrupts
reboot -f
"#;

fn finds_every_cpu(vcpus: u32, discovery: Discovery, cmdline: &str, protocol: BootProtocol) {
    let guest = LinuxGuest::new(EVERY_CPU).kernel("VMCELL_KERNEL_PC", protocol).discovery(discovery);
    let guest = guest.cmdline(&format!("{LEAN} {cmdline}")).start(|builder| builder.vcpus(vcpus));
    guest.expect("ready");
    guest.type_in("a-line\n");
    let exit = guest.vm.wait_timeout(BOOT_LIMIT);
    let text = guest.transcript.text().replace('\r', "");
    assert!(matches!(exit, Ok(Exit::Reset(ResetCause::KeyboardController))), "{exit:?} after:\n{text}");
    for cpu in 0..vcpus {
        assert!(text.contains(&format!("ran-on {cpu}\n")), "{text}");
    }
    assert!(!text.contains(&format!("ran-on {vcpus}\n")), "{text}");
    assert!(text.contains("tables 0\n") && text.contains("got a-line\n"), "{text}");
    let serial = text.lines().rfind(|line| line.ends_with("ttyS0")).unwrap_or_else(|| panic!("{text}"));
    let mut words = serial.split_whitespace().skip(1);
    let counts: u64 = words.by_ref().take(vcpus as usize).map(|count| count.parse::<u64>().expect("a count")).sum();
    assert!(counts > 0 && words.next() == Some("IO-APIC"), "{serial}");
    assert_eq!(words.next(), Some("4-edge"), "{serial}");
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test --long"]
fn two_vcpus_are_found_without_acpi_tables() {
    finds_every_cpu(2, Discovery::Cmdline, "", BootProtocol::Auto);
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn four_vcpus_are_found_without_acpi_tables() {
    finds_every_cpu(4, Discovery::Cmdline, "", BootProtocol::Linux64);
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn two_vcpus_are_found_by_a_kernel_that_is_told_not_to_read_acpi_tables() {
    finds_every_cpu(2, Discovery::Acpi, "acpi=off", BootProtocol::Auto);
}
