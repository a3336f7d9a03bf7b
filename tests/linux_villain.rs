//! The cases of virtio-villain (weltling/virtio-villain, version 1.0.0) against our devices: where its initramfs is named by
//! `VMCELL_VILLAIN`, a stock kernel runs it, and each of its cases says how it ended. `docs/hostile-list.md` says which of ours covers which.

#[path = "../examples/loopback_nic/cable.rs"]
#[allow(dead_code, reason = "its counter is for others")]
mod cable;
mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cable::cable;
use support::Transcript;
use support::linux::{empty_disk, path_of};
use vmcell::{Boot, Disk, Nic, Seccomp, Status, Vm};

/// For all of its cases, most of which take no time.
const ALL: Duration = Duration::from_secs(150);
const ONE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);
/// The verdicts by which it finds fault with a device, or with its own expectation of one.
const BAD: [&str; 3] = ["FAIL", "WEDGED", "XPASS"];

/// How each case ended, by its name.
type Verdicts = BTreeMap<String, String>;

/// A case's last word on the console: `[PASS] T0001`, and perhaps more behind that.
fn verdict(line: &str) -> Option<(String, String)> {
    let (verdict, rest) = line.trim().strip_prefix('[')?.split_once("] ")?;
    let name = rest.split(' ').next()?;
    let is_name = name.starts_with(|c: char| c.is_ascii_uppercase()) && name.ends_with(|c: char| c.is_ascii_digit());
    let known = ["PASS", "REJECT", "SKIP", "XFAIL"].iter().chain(&BAD).any(|word| *word == verdict);
    (is_name && known).then(|| (name.to_owned(), verdict.to_owned()))
}

fn verdicts(text: &str) -> Verdicts {
    text.lines().filter_map(verdict).collect()
}

/// Its last line if all of its cases ran: `1850/1900 tests passed`.
fn is_whole(text: &str) -> bool {
    text.lines().any(|line| line.trim().ends_with(" tests passed"))
}

/// Runs a case, or `all` of them, until `done` finds the end in what was printed.
fn run(initramfs: &PathBuf, case: &str, limit: Duration, done: impl Fn(&str) -> bool) -> String {
    let image = empty_disk(16);
    let transcript = Transcript::default();
    // No driver of the kernel's may have the devices, and the registers must be within reach of a program.
    let cmdline =
        format!("console=ttyS0 quiet panic=-1 iomem=relaxed initcall_blacklist=virtio_mmio_init vv.test={case}");
    let boot = Boot::linux(path_of("VMCELL_KERNEL_ELF")).initrd(initramfs).cmdline(cmdline);
    let (nic, _other_end) = cable(Duration::ZERO, 256);
    let vm = Vm::builder()
        .memory_mib(256)
        .boot(boot)
        .seccomp(Seccomp::Kill)
        .disk(Disk::open(image.path()).expect("the disk is opened"))
        .nic(Nic::backend(nic))
        .console(transcript.console())
        .build()
        .expect("the VM is built");
    vm.start().expect("the VM starts");
    let begin = Instant::now();
    // A guest that has ended says nothing more.
    while !transcript.wait_until(LOOK, &done) && vm.status() != Status::Ended {
        assert!(begin.elapsed() < limit, "{case}: no end within {limit:?} of:\n{}", transcript.text());
    }
    let text = transcript.text();
    vm.stop().expect("the VM is stopped, whatever the case has done to it");
    text
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
#[allow(clippy::print_stdout, reason = "the verdicts are what is asked for")]
fn each_case_of_the_public_list_has_a_verdict_and_none_is_bad() {
    let Some(initramfs) = std::env::var_os("VMCELL_VILLAIN").map(PathBuf::from) else {
        println!("skipped: VMCELL_VILLAIN names no initramfs of virtio-villain");
        return;
    };
    let text = run(&initramfs, "all", ALL, is_whole);
    let mut all = verdicts(&text);
    assert!(is_whole(&text) && !all.is_empty(), "it did not come to its end:\n{text}");
    // One that may only have met what another left behind has a guest of its own.
    for (name, first) in all.iter_mut().filter(|(_, verdict)| BAD.contains(&verdict.as_str())) {
        let text = run(&initramfs, name, ONE, |text| verdicts(text).contains_key(name));
        let again = verdicts(&text).remove(name).unwrap_or_else(|| "no verdict".to_owned());
        println!("{name}: {first} after others, {again} alone\n{text}");
        *first = again;
    }
    let mut counts = BTreeMap::<&str, u32>::new();
    for (name, verdict) in &all {
        println!("{verdict:>6} {name}");
        *counts.entry(verdict).or_default() += 1;
    }
    println!("{counts:?} of {} cases", all.len());
    let bad: Vec<_> =
        all.iter().filter(|(_, verdict)| !matches!(verdict.as_str(), "PASS" | "REJECT" | "SKIP" | "XFAIL")).collect();
    assert!(bad.is_empty(), "{bad:?}");
}

#[test]
fn a_verdict_is_read_from_its_line_and_from_no_other() {
    let text = "\n[vv] virtio-villain\n\n[    3.141592] random: crng init done\nvv-fail tests/mmio/m0010.c:34: status != 0\n\
                [SKIP] T0001 (no device 0x1042)\r\n[REJECT] M0005\n[WEDGED] M0013\n[PASS] PCI0114\n[NOTE] M0014\n[PASS] \n";
    let found: Vec<_> = verdicts(text).into_iter().collect();
    let expected = [("M0005", "REJECT"), ("M0013", "WEDGED"), ("PCI0114", "PASS"), ("T0001", "SKIP")];
    assert_eq!(found, expected.map(|(name, verdict)| (name.to_owned(), verdict.to_owned())));
    assert!(!is_whole(text) && is_whole("\n3/4 tests passed\n"));
}
