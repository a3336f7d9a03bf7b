//! Secrets in Linux's hands: systemd as the guest's first program gives them to a unit, and the kernel's own driver shows the tables.

mod support;

use support::Transcript;
use support::linux::{BOOT_LIMIT, LinuxGuest, between, initrd_with_file, path_of, root_disk};
use vmcell::secret::Secret;
use vmcell::{Boot, BootProtocol, Exit, Seccomp, Vm, VmBuilder};

/// Starts the distribution's systemd in place of the initrd's own first program, with one unit.
const SYSTEMD: &str = r#"#!/bin/sh
export PATH=/bin
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys
for module in /modules/*.ko; do insmod $module 2>/dev/null; done
mkdir -p /root && mount -o ro /dev/vda /root && mount -t tmpfs -o mode=755 run /root/run
mkdir -p /root/run/systemd/system
cat >/root/run/systemd/system/reader.service <<'END'
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
LoadCredential=token
LoadCredential=key.bin
StandardOutput=tty
TTYPath=/dev/console
ExecStart=/bin/sh -c 'echo "token is $(cat $$CREDENTIALS_DIRECTORY/token)"'
ExecStart=/bin/sh -c 'echo "key has $(sha256sum <$$CREDENTIALS_DIRECTORY/key.bin)"'
ExecStart=/bin/sh -c 'stat -c "%%a %%U %%n" /run/credentials/@system/token'
ExecStart=/bin/sh /run/later.sh
ExecStartPost=/bin/sh -c 'echo o >/proc/sysrq-trigger; sleep 1000'
END
cat >/root/run/later.sh <<'END'
exec </dev/console
echo ready; read line
echo "tables: $(tr -d -c - </sys/firmware/dmi/entries/11-0/raw | wc -c)"; read line
echo "anew: $(grep -a -o token=.* /sys/firmware/dmi/entries/11-0/raw)"
echo "token is still $(cat $CREDENTIALS_DIRECTORY/token)"
END
for dir in dev proc sys; do mount --move /$dir /root/$dir; done
exec switch_root /root /lib/systemd/systemd
"#;

#[test]
#[ignore = "needs a KVM that boots Linux: cargo xtask test"]
fn a_unit_of_systemd_reads_its_credential_and_the_tables_are_scrubbed_afterwards() {
    let initrd = initrd_with_file("systemd.sh", SYSTEMD);
    let transcript = Transcript::default();
    let cmdline =
        "console=ttyS0 quiet panic=-1 rdinit=/systemd.sh systemd.unit=reader.service systemd.log_level=warning";
    let boot = Boot::linux(path_of("VMCELL_KERNEL_ELF")).initrd(initrd.path()).cmdline(cmdline);
    let key: Vec<u8> = (0..=255).collect();
    let vm = Vm::builder()
        .memory_mib(256)
        .boot(boot)
        .seccomp(Seccomp::Kill)
        .disk(root_disk())
        .secret(Secret::new("token", b"open sesame").unwrap())
        .secret(Secret::new("key.bin", &key).unwrap())
        .console(transcript.console())
        .build()
        .unwrap_or_else(|e| panic!("{}", e.chain()));
    vm.start().unwrap();
    transcript.expect("ready", 2 * BOOT_LIMIT);
    vm.scrub_secrets().unwrap();
    assert_eq!(vm.write_console(b"\n"), 1);
    transcript.expect("tables: ", BOOT_LIMIT);
    vm.renew_secret(&Secret::new("token", b"another").unwrap()).unwrap();
    assert_eq!(vm.write_console(b"\n"), 1);
    let ended = vm.wait_timeout(BOOT_LIMIT);
    let text = transcript.text().replace('\r', "");
    assert!(matches!(ended, Ok(Exit::Shutdown)), "{ended:?} after:\n{text}");
    assert!(text.contains("token is open sesame\n"), "{text}");
    // Of the 256 bytes.
    let sum = "40aff2e9d2d8922e47afd4648e6967497158785fbd1da870e7110266bf944880";
    assert!(text.contains(&format!("key has {sum}")), "{text}");
    assert!(text.contains("400 root /run/credentials/@system/token"), "{text}");
    // What the tables had in 29 + 5 + 1 + 16 and 29 + 7 + 1 + 344 bytes.
    assert!(text.contains("tables: 432\n"), "{text}");
    assert!(text.contains("anew: token=YW5vdGhlcg==\n"), "{text}");
    assert!(text.contains("token is still open sesame\n"), "{text}");
}

#[test]
#[ignore = "needs a KVM that boots Linux: cargo xtask test"]
fn a_kernel_boots_with_as_many_secrets_as_are_allowed() {
    // One of as many bytes as there is room for, and 255 that take as many together.
    let largest = vec![Secret::new("all", &[0xff; 36_804]).unwrap()];
    let many: Vec<_> =
        (0..255).map(|index| Secret::new(&format!("secret-{index:03}"), &[0xff; 110]).unwrap()).collect();
    for (secrets, slashes, kernel) in [(largest, 49_072, "VMCELL_KERNEL_ELF"), (many, 255 * 146, "VMCELL_KERNEL")] {
        let count = "tr -d -c / </sys/firmware/dmi/entries/11-0/raw | wc -c";
        let guest = LinuxGuest::new(&format!("echo begin $({count}) end")).kernel(kernel, BootProtocol::Auto);
        let text = guest.run(|builder| secrets.into_iter().fold(builder, VmBuilder::secret));
        assert_eq!(between(&text, "begin ", " end"), slashes.to_string());
    }
}
