//! Debian's own kernel, unchanged, in machines of several shapes.

mod support;

use std::time::{Duration, SystemTime};

use support::linux::{LinuxGuest, between, root_disk};
use vmcell::{BootProtocol, Exit, MemoryBacking, MemoryConfig, PageSize, ResetCause};

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
    // Linux 6.12 takes its time for 64 of them on one CPU of a slow host.
    let limit = Duration::from_secs(170);
    let text = LinuxGuest::new(EVERY_CPU).limit(limit).run(|builder| builder.vcpus(vcpus));
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

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test --long"]
fn sixty_four_vcpus_run() {
    boots_with_vcpus(64);
}

/// Fills the free memory with blocks that all differ, then reads all of them back and compares.
const FILL_MEMORY: &str = r#"
grep MemTotal /proc/meminfo
in_root perl -e '
  open(my $meminfo, "<", "/proc/meminfo"); my ($free) = join("", <$meminfo>) =~ /MemAvailable: *(\d+)/;
  open(my $random, "<", "/dev/urandom"); read($random, my $block, 4 << 20);
  my $count = int(($free / 1024 - 24) / 4);
  my @blocks = map { pack("Q", $_) . $block } 1 .. $count;
  for (1 .. $count) { print "differs\n" unless $blocks[$_ - 1] eq pack("Q", $_) . $block }
  print "compared=", $count * 4, "-end\n"'
"#;

fn all_memory_is_there(mib: u64) {
    // On an emulated host each first touch of a page is dear, and a large page is one touch.
    let memory = MemoryConfig::mib(mib).pages(PageSize::Transparent);
    let text = LinuxGuest::in_distribution(FILL_MEMORY)
        .limit(Duration::from_secs(170))
        .run(|builder| builder.memory(memory).disk(root_disk()));
    let total: u64 = between(&text, "MemTotal:", "kB").parse().expect("a number");
    // What the kernel keeps for itself: its image, of up to 24 MiB in Linux 6.12, and a share.
    assert!(total >> 10 > mib * 85 / 100 - 24 && total >> 10 <= mib, "{total} kB of {mib} MiB:\n{text}");
    assert!(!text.contains("differs"), "{text}");
    let compared: u64 = between(&text, "compared=", "-end").parse().expect("a number");
    assert!(compared >= (mib * 85 / 100).saturating_sub(90), "only {compared} of {mib} MiB:\n{text}");
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
#[ignore = "needs a KVM that runs Linux: cargo xtask test --long"]
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
    let script = r#"
cat /sys/devices/system/clocksource/clocksource0/current_clocksource
for n in 1 2 3 4; do echo now$n=$(date +%s)-end; sleep 1; done
"#;
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    // A line may come late on a busy host, but not before it was written: it was after the one before it had come.
    let mut here = vec![now()];
    let guest = LinuxGuest::new(script).start(|builder| builder);
    for n in 1..=4 {
        let line = format!("now{n}=");
        assert!(guest.transcript.wait_until(support::linux::BOOT_LIMIT, |text| {
            text.split_once(&line).is_some_and(|(_, rest)| rest.contains("-end"))
        }));
        here.push(now());
    }
    let text = guest.finish();
    let there: Vec<u64> =
        (1..=4).map(|n| between(&text, &format!("now{n}="), "-end").parse().expect("a number")).collect();
    let is_right = |(here, there): (&[u64], &u64)| (here[0] - 1..=here[1] + 1).contains(there);
    assert!(here.windows(2).zip(&there).all(is_right), "here {here:?}, in the guest {there:?}:\n{text}");
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
    let memory = MemoryConfig::mib(256).backing(MemoryBacking::Memfd);
    assert!(LinuxGuest::new("echo it-runs").run(|builder| builder.memory(memory)).contains("it-runs"));
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn memory_on_huge_pages_boots() {
    let pool = "/proc/sys/vm/nr_hugepages";
    let before = std::fs::read_to_string(pool).unwrap();
    std::fs::write(pool, "80").expect("the pool is ours to change");
    for backing in [MemoryBacking::Anonymous, MemoryBacking::Memfd] {
        let memory = MemoryConfig::mib(128).backing(backing).pages(PageSize::Huge2Mib);
        assert!(LinuxGuest::new("echo it-runs").run(|builder| builder.memory(memory)).contains("it-runs"));
    }
    std::fs::write(pool, before).unwrap();
}
