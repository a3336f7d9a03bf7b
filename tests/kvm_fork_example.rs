//! `examples/fork.rs`, with a guest that repeats a line and turns itself off.

#[allow(dead_code, reason = "its main is for people")]
#[path = "../examples/fork.rs"]
mod fork;
mod support;

use std::collections::BTreeSet;

use support::Kernel;
use vmcell::testing::TinyGuest;

/// Prints `ready` and a line feed; then repeats what is typed up to a line feed, and turns itself off by the sleep control register of ACPI.
fn repeats_a_line() -> TinyGuest {
    let mut code = vec![0x66, 0xba, 0xf8, 0x03]; //          mov dx, 0x3f8
    for byte in b"ready\n" {
        code.extend([0xb0, *byte, 0xee]); //                 mov al, byte; out dx, al
    }
    code.extend([0x66, 0xba, 0xfd, 0x03, 0xec]); //     1:   mov dx, 0x3fd; in al, dx
    code.extend([0xa8, 0x01, 0x74, 0xf7]); //                test al, 1; jz 1
    code.extend([0x66, 0xba, 0xf8, 0x03, 0xec, 0xee]); //    mov dx, 0x3f8; in al, dx; out dx, al
    code.extend([0x3c, b'\n', 0x75, 0xed]); //               cmp al, 10; jne 1
    code.extend([0x66, 0xba, 0x00, 0x06, 0xb0, 0x34]); //    mov dx, 0x600; mov al, SLP_EN | 5 << 2
    code.extend([0xee, 0xeb, 0xfe]); //                      out dx, al; spin
    TinyGuest::new(code)
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn each_fork_says_its_own_number_and_ends() {
    let kernel = Kernel::new(&repeats_a_line());
    let mut said = Vec::new();
    let rest = ["25".to_owned()];
    fork::run(kernel.path.to_str().unwrap(), "ready", &rest, |line| said.push(line)).unwrap();
    let numbers: BTreeSet<String> = said.iter().filter(|line| line.contains(": ")).cloned().collect();
    assert_eq!(numbers, (0..25).map(|number| format!("{number}: {number}")).collect());
    assert!(said[0].starts_with("ready after") && said.last().unwrap().starts_with("25 forks in"), "{said:?}");
    let error = fork::run(kernel.path.to_str().unwrap(), "ready", &["many".to_owned()], |_| {}).unwrap_err();
    assert!(error.to_string().contains("is no number of forks"), "{error}");
}
