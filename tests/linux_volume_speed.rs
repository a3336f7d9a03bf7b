//! How fast an encrypted volume is beside the kernel's dm-crypt, as disks of the same guest.

#[path = "support/figures.rs"]
mod figures;
mod support;

use std::time::Duration;

use support::is_long;
use support::linux::{LinuxGuest, Mapped, root_disk};
use vmcell::Disk;
use vmcell::volume::{Key, Volume};

const LIMIT: Duration = Duration::from_secs(400);
const SIZE: u64 = 64 << 20;
/// What `fio` does, and with how much at a time and at once.
const LOADS: [(&str, &str); 4] = [
    ("randread", "--bs=4k --iodepth=32"),
    ("randwrite", "--bs=4k --iodepth=32"),
    ("read", "--bs=256k --iodepth=4"),
    ("write", "--bs=256k --iodepth=4"),
];
/// The first disk is the root.
const DISKS: [(&str, &str); 2] = [("vmcell", "vdb"), ("dm-crypt", "vdc")];

/// Each measurement is a line: what, on which disk, and how many requests a second.
fn script(rounds: usize, seconds: u32) -> String {
    let mut script = String::new();
    for round in 0..=rounds {
        for (load, how) in LOADS {
            for (name, disk) in DISKS {
                // The first round fills both disks and their host's cache.
                let told = if round == 0 { format!("{load} {name} filled") } else { format!("measured {load} {name}") };
                let field = if load.ends_with("read") { 8 } else { 49 };
                script += &format!(
                    "echo {told} $(in_root fio --name=x --filename=/dev/{disk} --rw={load} {how} --direct=1 --ioengine=libaio \
                     --time_based --runtime={seconds} --minimal | cut -d';' -f{field})\n"
                );
            }
        }
    }
    script
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test --long"]
fn an_encrypted_volume_is_not_far_behind_dm_crypt() {
    let (rounds, seconds) = if is_long() { (5, 3) } else { (1, 1) };
    let folder = tempfile::tempdir().unwrap();
    let [ours, theirs, key_file] = ["ours", "theirs", "key"].map(|name| folder.path().join(name));
    std::fs::write(&key_file, [0x3c; 32]).unwrap();
    let key = Key::random_file(&key_file).unwrap();
    for path in [&ours, &theirs] {
        Volume::create(path, SIZE, &key).unwrap();
    }
    let mapped = Mapped::new("vmcell-speed", &theirs, &key_file);
    // The host would keep what dm-crypt has decrypted, and hardly ask it again.
    let theirs = Disk::open(mapped.path()).unwrap().direct(true);
    let disks = [Volume::open(&ours, &key).unwrap().into_disk(), theirs];
    let text = LinuxGuest::in_distribution(&script(rounds, seconds))
        .limit(LIMIT)
        .run(|builder| disks.into_iter().fold(builder.disk(root_disk()), vmcell::VmBuilder::disk));
    for (load, how) in LOADS {
        let [ours, theirs] = DISKS.map(|(name, _)| figures::median(&text, &format!("measured {load} {name} ")));
        figures::show(&format!("{load} {how}: vmcell {ours:.0}, dm-crypt {theirs:.0} a second: {:.2}", ours / theirs));
        assert!(ours > theirs / 5.0, "{load}: a volume does {ours} a second, dm-crypt {theirs}: {text}");
    }
}
