//! What a guest is told of its devices where it does not read ACPI tables.

mod support;

use std::time::Duration;

use support::{Kernel, Transcript};
use vmcell::testing::TinyGuest;
use vmcell::{Boot, Discovery, Disk, Exit, Vm};

fn printed_by(guest: &TinyGuest, describe: impl Fn(Boot) -> Boot) -> String {
    let kernel = Kernel::new(guest);
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 20).unwrap();
    let transcript = Transcript::default();
    let vm = Vm::builder()
        .memory_mib(16)
        .boot(describe(kernel.boot()))
        .disk(Disk::open(image.path()).unwrap())
        .console(transcript.console())
        .build()
        .unwrap();
    vm.start().unwrap();
    assert!(matches!(vm.wait_timeout(Duration::from_secs(30)).unwrap(), Exit::Shutdown));
    transcript.text()
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_command_line_names_a_device_where_it_is() {
    let boot = |boot: Boot| boot.cmdline("quiet -- init-argument").discovery(Discovery::Cmdline);
    let cmdline = printed_by(&TinyGuest::print_cmdline(), boot);
    let (kernel_part, init_part) = cmdline.split_once(" -- ").expect("what is meant for init stays behind");
    assert_eq!(init_part, "init-argument");
    let device = kernel_part.strip_prefix("quiet virtio_mmio.device=").expect("the device is named");
    let (size, place) = device.split_once('@').expect("a size and a place");
    let (address, gsi) = place.split_once(':').expect("an address and an interrupt");
    assert_eq!((size, gsi), ("4K", "5"));
    let address = u32::from_str_radix(address.trim_start_matches("0x"), 16).expect("an address");
    assert_eq!(printed_by(&TinyGuest::print_register(address), boot), "virt");
    assert_eq!(printed_by(&TinyGuest::print_register(address + 8), boot), "\u{2}\0\0\0");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_command_line_stays_as_it_is_with_acpi() {
    let cmdline = printed_by(&TinyGuest::print_cmdline(), |boot| boot.cmdline("quiet"));
    assert_eq!(cmdline, "quiet");
}
