use super::*;
use crate::api::{CacheType, Mac};

fn drive(id: &str, is_root_device: bool) -> Drive {
    Drive {
        drive_id: id.to_owned(),
        partuuid: None,
        is_root_device,
        cache_type: CacheType::Unsafe,
        is_read_only: None,
        path_on_host: None,
        rate_limiter: None,
        io_engine: None,
        socket: None,
    }
}

fn ids(plan: &Plan) -> Vec<&str> {
    plan.drives.iter().map(|drive| drive.drive_id.as_str()).collect()
}

#[test]
fn the_root_device_comes_first_and_there_is_one() {
    let mut plan = Plan::default();
    plan.put_drive(drive("data", false)).unwrap();
    plan.put_drive(drive("root", true)).unwrap();
    assert_eq!(ids(&plan), ["root", "data"]);
    let refused = plan.put_drive(drive("data", true)).unwrap_err();
    assert_eq!(refused.message(), "drive data: the root device is root already, allowed is one");
    plan.put_drive(drive("root", false)).unwrap();
    plan.put_drive(drive("data", true)).unwrap();
    assert_eq!(ids(&plan), ["data", "root"]);
}

#[test]
fn a_card_may_be_named_again_and_has_an_address_of_its_own() {
    let nic = |id: &str, last| NetworkInterface {
        iface_id: id.to_owned(),
        host_dev_name: "tap0".to_owned(),
        guest_mac: Some(Mac([2, 0, 0, 0, 0, last])),
        mtu: None,
        rx_rate_limiter: None,
        tx_rate_limiter: None,
    };
    let mut plan = Plan::default();
    plan.put_nic(nic("eth0", 1)).unwrap();
    let refused = plan.put_nic(nic("eth1", 1)).unwrap_err();
    assert_eq!(refused.message(), "network interface eth1: the MAC address 02:00:00:00:00:01 is that of eth0");
    plan.put_nic(nic("eth1", 2)).unwrap();
    plan.put_nic(nic("eth0", 1)).unwrap();
    assert_eq!(plan.nics.len(), 2);
}
