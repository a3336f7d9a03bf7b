use super::*;
use crate::api::CacheType;

fn cmdline(args: Option<&str>, root: Option<(&str, bool)>) -> String {
    let source = BootSource { boot_args: args.map(str::to_owned), ..BootSource::default() };
    let drive = root.map(|(partuuid, is_read_only)| Drive {
        drive_id: "root".to_owned(),
        partuuid: Some(partuuid.to_owned()).filter(|text| !text.is_empty()),
        is_root_device: true,
        cache_type: CacheType::Unsafe,
        is_read_only: Some(is_read_only),
        path_on_host: None,
        rate_limiter: None,
        io_engine: None,
        socket: None,
    });
    kernel(&source, drive.as_ref()).cmdline
}

#[test]
fn a_kernel_is_told_of_its_root_and_init_keeps_its_words() {
    assert_eq!(cmdline(Some("console=ttyS0"), None), "console=ttyS0 pci=off");
    assert_eq!(cmdline(Some(""), Some(("", true))), "pci=off root=/dev/vda ro");
    let told = cmdline(Some("quiet -- one two"), Some(("0123-ab", false)));
    assert_eq!(told, "quiet pci=off root=PARTUUID=0123-ab rw -- one two");
    assert!(cmdline(None, None).starts_with("reboot=k panic=1 "));
}

#[test]
fn a_kernel_without_acpi_finds_its_devices_on_the_command_line() {
    let discovery =
        |args: &str| kernel(&BootSource { boot_args: Some(args.to_owned()), ..BootSource::default() }, None).discovery;
    assert_eq!(discovery("quiet acpi=off"), Discovery::Cmdline);
    assert_eq!(discovery("quiet -- acpi=off"), Discovery::Acpi);
}
