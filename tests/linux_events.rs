//! What a stock kernel is told by the host, and tells it, beside its devices: a power button, and panics.

mod support;

use support::linux::{BOOT_LIMIT, LinuxGuest};
use vmcell::Exit;

/// Waits for a key event of the power button: type 1, code 116, value 1 (struct input_event, behind 16 bytes of time). Events from
/// before the file was opened are lost.
const LISTEN: &str = r#"
for module in /spare/*-button.ko /spare/*-evdev.ko; do insmod $module; done
exec 3</dev/input/event0
echo ready
dd bs=24 count=1 <&3 2>/dev/null | od -An -t u2 -j 16 -N 6
"#;

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_guest_that_is_asked_to_shut_down_sees_its_power_button_pressed() {
    let guest = LinuxGuest::new(LISTEN).start(|builder| builder);
    guest.expect("ready");
    guest.vm.request_shutdown().unwrap();
    let text = guest.finish();
    let event: Vec<&str> = text.split_once("ready").expect("it was").1.split_whitespace().take(3).collect();
    assert_eq!(event, ["1", "116", "1"], "{text}");
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_paused_guest_sees_its_power_button_pressed_when_it_goes_on() {
    let guest = LinuxGuest::new(LISTEN).start(|builder| builder.vcpus(2));
    guest.expect("ready");
    guest.vm.pause().unwrap();
    guest.vm.request_shutdown().unwrap();
    guest.vm.resume().unwrap();
    assert!(guest.finish().contains("116"));
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_panic_is_told_apart_once_its_driver_is_loaded() {
    let script = "for module in /spare/*pvpanic*.ko; do insmod $module; done; echo c > /proc/sysrq-trigger; sleep 600";
    // Without the driver this guest would hang for good.
    let guest = LinuxGuest::new(script).cmdline("panic=0").start(|builder| builder.vcpus(2));
    let exit = guest.vm.wait_timeout(BOOT_LIMIT);
    let text = guest.transcript.text();
    assert!(matches!(exit, Ok(Exit::Panicked)), "{exit:?} after:\n{text}");
    assert!(text.contains("sysrq triggered crash"), "what it had to say is lost:\n{text}");
}
