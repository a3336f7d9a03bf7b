//! Descriptions that are refused before anything is opened.

use super::*;
use crate::config::{CpuLevel, PageSize};

fn refusal(change: impl FnOnce(&mut VmConfig)) -> String {
    let mut config = VmConfig::new(Boot::linux("vmlinuz"));
    config.disks = vec![DiskConfig::new("root.img"), DiskConfig::new("data.img")];
    config.nics = vec![NicConfig::tap("tap0"), NicConfig::tap("tap1")];
    config.validate().unwrap();
    change(&mut config);
    let error = config.validate().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    error.to_string()
}

#[test]
fn each_bad_value_is_refused_without_opening_anything() {
    assert_eq!(refusal(|config| config.boot = None), "no kernel was given; `boot` says what the guest starts with");
    assert!(refusal(|config| config.boot = Some(Boot::linux("").cmdline("quiet"))).starts_with("no kernel was given"));
    assert!(refusal(|config| config.name = "a\n".into()).starts_with("the VM's name \"a\\n\""));
    assert!(refusal(|config| config.vcpus = 0).starts_with("0 vCPUs"));
    assert!(refusal(|config| config.affinity = Affinity::new().vcpu(1, [0])).starts_with("CPUs were given for vCPU 1"));
    assert!(refusal(|config| config.affinity = Affinity::new().vcpu(0, [])).starts_with("no CPU was given for vCPU 0"));
    assert!(refusal(|config| config.memory.mib = 1).starts_with("1 MiB"));
    assert!(refusal(|config| config.memory = MemoryConfig::mib(17).pages(PageSize::Huge2Mib)).starts_with("17 MiB"));
    assert!(refusal(|config| config.kick_signal = Some(9)).starts_with("signal 9"));
    assert_eq!(
        refusal(|config| config.poll_us = Some(1001)),
        "polling for 1001 us was asked for, allowed are 0 to 1000"
    );
    assert!(refusal(|config| config.console = ConsoleConfig::file("")).contains("console's file is empty"));
}

#[test]
fn names_of_cpu_features_are_checked_without_a_host() {
    let with = |level, name: &str| refusal(|config| config.cpu = CpuConfig::level(level).with("aes").with(name));
    let unknown = with(CpuLevel::Host, "a\0es");
    let beginning = r#"the CPU feature "a\0es" was asked for, allowed are adx, aes, "#;
    assert!(unknown.starts_with(beginning) && unknown.ends_with("vaes, vpclmulqdq"), "{unknown}");
    assert!(with(CpuLevel::V2, "vaes").contains("x86-64-v2 has none"));
}

#[test]
fn a_nul_in_any_text_is_refused_with_its_place() {
    let nul = |what, text| format!("{what} {text:?} has a NUL at byte 1, allowed is none");
    assert_eq!(refusal(|config| config.boot = Some(Boot::linux("k\0"))), nul("the kernel's path", "k\0"));
    let boot = || Boot::linux("vmlinuz");
    assert_eq!(refusal(|config| config.boot = Some(boot().initrd("i\0"))), nul("the initrd's path", "i\0"));
    assert_eq!(refusal(|config| config.boot = Some(boot().cmdline("q\0"))), nul("the command line", "q\0"));
    let disk = refusal(|config| config.disks[1].path = "d\0".into());
    assert_eq!(disk, format!("disk 1: {}", nul("its path", "d\0")));
    let log = refusal(|config| config.console = ConsoleConfig::All(vec![ConsoleConfig::file("l\0")]));
    assert_eq!(log, nul("the path of the console's file", "l\0"));
    assert!(refusal(|config| config.name = "n\0".into()).contains(r#""n\0" of 2 bytes"#));
    assert!(refusal(|config| config.nics[0].tap = "t\0".into()).contains("NUL"));
    assert!(refusal(|config| config.disks[0].serial = "s\0".into()).contains("allowed are 0 to 20 printable"));
}

#[test]
fn a_console_that_would_print_everything_twice_is_refused() {
    let twice = ConsoleConfig::All(vec![ConsoleConfig::Stdio, ConsoleConfig::Stdio]);
    let nested = ConsoleConfig::All(vec![ConsoleConfig::Stdio, ConsoleConfig::All(vec![twice.clone()])]);
    for (console, times) in [(twice, 2), (nested, 3)] {
        let refused = refusal(|config| config.console = console);
        assert_eq!(refused, format!("the console is connected to stdio {times} times, allowed is once"));
    }
}

#[test]
fn the_refusal_of_a_device_says_which_one_it_is() {
    assert_eq!(refusal(|config| config.disks[1].path = "".into()), "disk 1 () has an empty path");
    assert_eq!(
        refusal(|config| config.disks[1].queues = Some(17)),
        "disk 1 (data.img) has 17 queues, allowed are 1 to 16"
    );
    assert!(
        refusal(|config| config.disks[0].serial = "tab\t".into())
            .starts_with("disk 0 (root.img) has the serial number")
    );
    assert_eq!(
        refusal(|config| config.nics[1].mtu = Some(67)),
        "nic 1 (tap1): an MTU of 67 bytes was asked for, allowed are 68 to 65535"
    );
    assert_eq!(
        refusal(|config| config.nics[0].queues = Some(0)),
        "nic 0 (tap0): a network card with 0 queues was asked for, allowed are 1 to 16"
    );
    assert!(refusal(|config| config.nics[0].mac = Some([0xff; 6])).starts_with("nic 0 (tap0): MAC address ff:ff"));
    assert!(refusal(|config| config.nics[1].tap = "a/b".into()).starts_with("nic 1 (a/b): TAP name \"a/b\""));
}
