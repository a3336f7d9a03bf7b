//! Descriptions that are refused before anything is opened.

use super::*;
use crate::config::PageSize;

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
