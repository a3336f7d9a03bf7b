//! Debian's own kernel, unchanged, in machines of several shapes.

mod support;

use std::time::{Duration, SystemTime};

use support::linux::{LinuxGuest, between};
use vmcell::{BootProtocol, Exit, ResetCause};

/// Names each CPU on which a process ran, and the topology that the guest believes in.
const EVERY_CPU: &str = r#"
for cpu in $(seq 0 $(($(nproc) - 1))); do taskset -c $cpu sh -c "echo ran-on $cpu"; done
cd /sys/devices/system/cpu
echo "packages $(cat cpu*/topology/physical_package_id | sort -u | wc -l)"
echo "cores $(cat cpu*/topology/core_id | sort -u | wc -l)"
echo "siblings $(cat cpu*/topology/thread_siblings_list | sort -u | wc -l)"
dmesg | grep -iE 'acpi (bios )?error|firmware bug' && echo complained
"#;

fn boots_with_vcpus(vcpus: u32) {
    let text = LinuxGuest::new(EVERY_CPU).run(|builder| builder.vcpus(vcpus));
    for cpu in 0..vcpus {
        assert!(text.contains(&format!("ran-on {cpu}\n")), "{text}");
    }
    assert!(!text.contains(&format!("ran-on {vcpus}\n")), "{text}");
    for line in ["packages 1".to_owned(), format!("cores {vcpus}"), format!("siblings {vcpus}")] {
        assert!(text.contains(&format!("{line}\n")), "no {line:?} in:\n{text}");
    }
    assert!(!text.contains("complained"), "{text}");
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn one_vcpu_runs() {
    boots_with_vcpus(1);
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn two_vcpus_run() {
    boots_with_vcpus(2);
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn four_vcpus_run() {
    boots_with_vcpus(4);
}

/// The kernel's own memory test writes a pattern to every free page and reads it back before anything else runs.
fn all_memory_is_there(mib: u64) {
    let script = "grep MemTotal /proc/meminfo; dmesg | grep -E 'early_memtest|bad mem'; free -m";
    let limit = Duration::from_secs(300);
    let text = LinuxGuest::new(script).cmdline("memtest=1").limit(limit).run(|builder| builder.memory_mib(mib));
    let total: u64 = between(&text, "MemTotal:", "kB").parse().expect("a number");
    assert!(total >> 10 > mib * 85 / 100 - 20 && total >> 10 <= mib, "{total} kB of {mib} MiB:\n{text}");
    assert!(text.contains("early_memtest: # of tests: 1"), "{text}");
    assert!(!text.contains("bad mem"), "{text}");
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn memory_of_128_mib_is_all_there() {
    all_memory_is_there(128);
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn memory_of_1_gib_is_all_there() {
    all_memory_is_there(1024);
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn memory_of_4_gib_around_the_gap_is_all_there() {
    all_memory_is_there(4096);
}

/// What the kernel believes who loaded it: 0xff for an unknown loader, 0xb0 where it was entered by PVH.
fn loader_seen_by(kernel: &str, protocol: BootProtocol) -> u32 {
    let script = "echo loader=$(cat /proc/sys/kernel/bootloader_type)-end";
    let text = LinuxGuest::new(script).kernel(kernel, protocol).run(|builder| builder);
    between(&text, "loader=", "-end").parse().expect("a number")
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_bzimage_boots() {
    assert_eq!(loader_seen_by("VMCELL_KERNEL", BootProtocol::Auto) & 0xff, 0xff);
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn an_elf_image_boots_by_the_linux_protocol() {
    assert_eq!(loader_seen_by("VMCELL_KERNEL_ELF", BootProtocol::Linux64) & 0xff, 0xff);
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn an_elf_image_boots_by_pvh() {
    assert_eq!(loader_seen_by("VMCELL_KERNEL_ELF", BootProtocol::Pvh), 0xb0);
}

fn reset_by(script: &str, cmdline: &str) -> ResetCause {
    let guest = LinuxGuest::new(script).cmdline(cmdline).start(|builder| builder);
    match guest.vm.wait_timeout(support::linux::BOOT_LIMIT) {
        Ok(Exit::Reset(cause)) => cause,
        other => panic!("{other:?} after:\n{}", guest.transcript.text()),
    }
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn reboot_is_a_reset_by_acpi() {
    assert_eq!(reset_by("reboot -f", ""), ResetCause::Acpi);
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn reboot_through_the_keyboard_controller_is_told_apart() {
    assert_eq!(reset_by("reboot -f", "reboot=k"), ResetCause::KeyboardController);
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn reboot_by_a_triple_fault_is_told_apart() {
    assert_eq!(reset_by("reboot -f", "reboot=t"), ResetCause::TripleFault);
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_panic_is_a_reset() {
    reset_by("echo c > /proc/sysrq-trigger; sleep 60", "");
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn the_guest_knows_the_time() {
    let script =
        "cat /sys/devices/system/clocksource/clocksource0/current_clocksource; echo now=$(date +%s)-end; sleep 1";
    let guest = LinuxGuest::new(script).start(|builder| builder);
    guest.expect("-end");
    let here = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    let text = guest.finish();
    let there: u64 = between(&text, "now=", "-end").parse().expect("a number");
    assert!(here.abs_diff(there) <= 1, "here {here}, in the guest {there}:\n{text}");
    assert!(text.contains("kvm-clock") || text.contains("tsc"), "{text}");
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn pause_stops_a_loop_that_watches_the_clock_and_resume_goes_on() {
    let script = "while :; do read up rest < /proc/uptime; echo tick $up; usleep 50000; done";
    let guest = LinuxGuest::new(script).start(|builder| builder.vcpus(2));
    guest.expect("tick");
    for _ in 0..3 {
        guest.vm.pause().unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let before = guest.transcript.len();
        std::thread::sleep(Duration::from_millis(800));
        assert_eq!(guest.transcript.len(), before);
        guest.vm.resume().unwrap();
        assert!(guest.transcript.wait_until(Duration::from_secs(20), |text| text.len() > before + 20));
    }
    guest.vm.stop().unwrap();
    let text = guest.transcript.text();
    assert!(!text.contains("soft lockup") && !text.contains("rcu"), "{text}");
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn two_vms_run_in_one_process() {
    let begin = |name: &str| LinuxGuest::new(&format!("echo i-am-{name}")).start(|builder| builder);
    let (first, second) = (begin("first"), begin("second"));
    assert!(second.finish().contains("i-am-second"));
    assert!(first.finish().contains("i-am-first"));
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn memory_on_a_memfd_boots() {
    let memory = vmcell::MemoryConfig::mib(256).backing(vmcell::MemoryBacking::Memfd);
    assert!(LinuxGuest::new("echo it-runs").run(|builder| builder.memory(memory)).contains("it-runs"));
}
