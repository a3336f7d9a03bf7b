//! The serial console in both directions, with the kernel's own driver.

mod support;

use std::time::{Duration, Instant};

use support::linux::LinuxGuest;

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn what_is_typed_reaches_a_shell() {
    let guest = LinuxGuest::new("exec sh -i").start(|builder| builder);
    guest.expect("# ");
    guest.type_in("echo $((6 * 7))-answer\n");
    guest.expect("42-answer");
    // Longer than the port's own buffer, so that the driver must come back for it.
    let long: String = (0..60).map(|n| format!("{n:03}")).collect();
    guest.type_in(&format!("echo {long} | wc -c\n"));
    guest.expect("181");
    guest.type_in("poweroff -f\n");
    guest.finish();
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn much_output_arrives_whole() {
    let text = LinuxGuest::new("seq 1 3000; echo done").run(|builder| builder);
    let numbers: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(numbers, (1..=3000).collect::<Vec<_>>());
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_guest_whose_console_nobody_reads_goes_on() {
    let (reader, writer) = std::io::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    // More than the pipe and our buffer hold.
    let script = "seq 1 15000; poweroff -f";
    let begin = Instant::now();
    let guest =
        LinuxGuest::new(script).start(|builder| builder.console(vmcell::Console::descriptors(writer.into(), None)));
    let exit = guest.vm.wait_timeout(Duration::from_secs(150)).unwrap();
    assert!(matches!(exit, vmcell::Exit::Shutdown), "{exit:?} after {:?}", begin.elapsed());
    drop(reader);
}
