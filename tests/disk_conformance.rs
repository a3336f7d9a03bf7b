//! The suite for disk backends: the crate's own, a layer of a user's, and layers that break one rule each.

#[path = "support/broken.rs"]
mod broken;
#[path = "../examples/encrypted_disk/cipher.rs"]
mod cipher;

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use broken::{Broken, Fault};
use cipher::{Encrypted, ToyCipher};
use vmcell::block::{DiskBackend, FileBackend, Operation, Slab};
use vmcell::testing::{DiskConformance, IoRig, SimulatedDisk, guest_ranges, memory_disk, patterned_memory};
use vmcell::volume::Key;
use vmcell::{Buffer, Engine, GuestAddress};

const SIZE: u64 = 2 << 20;
/// `O_DIRECT` on x86-64.
const O_DIRECT: i32 = 0o40000;

type Backend = Box<dyn DiskBackend>;

/// The suite for `layer` on a disk in memory, with all that can happen to one.
fn suite(disk: fn() -> SimulatedDisk, layer: impl Fn(SimulatedDisk) -> Backend + Copy + 'static) -> DiskConformance {
    DiskConformance::new(move || layer(disk()))
        .failing(move || {
            let disk = disk();
            let handle = disk.handle();
            (layer(disk), Box::new(move || handle.fail(1)))
        })
        .growing(move || {
            let disk = disk();
            let handle = disk.handle();
            let grow = move || {
                handle.set_capacity(2 * SIZE);
                2 * SIZE
            };
            (layer(disk), Box::new(grow))
        })
        .losing_power(move || {
            let disk = disk();
            let handle = disk.handle();
            (layer(disk), Box::new(move || layer(handle.power_failure())))
        })
}

const DISKS: [fn() -> SimulatedDisk; 4] = [
    || SimulatedDisk::new(SIZE),
    || SimulatedDisk::new(SIZE).delay(Duration::from_micros(200)),
    || SimulatedDisk::new(SIZE).room(1),
    || SimulatedDisk::new(SIZE).delay(Duration::from_micros(50)).room(3),
];

#[test]
fn the_backend_for_files_passes() {
    let in_memory = || memory_disk(SIZE);
    let on_disk = || {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SIZE).unwrap();
        file
    };
    let past_the_cache = || {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = directory.path().join("disk");
        let mut options = File::options();
        options.read(true).write(true).create_new(true).custom_flags(O_DIRECT);
        let file = options.open(path).unwrap();
        file.set_len(SIZE).unwrap();
        file
    };
    let cases: [(fn() -> File, Engine); 5] = [
        (in_memory, Engine::Auto),
        (on_disk, Engine::Auto),
        (on_disk, Engine::Sync),
        (past_the_cache, Engine::Auto),
        (past_the_cache, Engine::Sync),
    ];
    for (make, engine) in cases {
        DiskConformance::new(move || Box::new(FileBackend::new(make()).unwrap().engine(engine)))
            .growing(move || {
                let file = make();
                let backend = FileBackend::new(file.try_clone().unwrap()).unwrap().engine(engine);
                let grow = move || {
                    file.set_len(2 * SIZE).unwrap();
                    2 * SIZE
                };
                (Box::new(backend), Box::new(grow))
            })
            .run();
    }
}

#[test]
fn a_disk_in_memory_passes_however_awkward_it_is() {
    DISKS.into_iter().for_each(|disk| suite(disk, |disk| Box::new(disk)).run());
}

#[test]
fn a_cipher_passes_on_every_disk() {
    DISKS.into_iter().for_each(|disk| suite(disk, |disk| Box::new(Encrypted::new(disk, ToyCipher(1)))).run());
    DiskConformance::new(|| Box::new(Encrypted::new(FileBackend::new(memory_disk(SIZE)).unwrap(), ToyCipher(2)))).run();
}

#[test]
fn a_volume_passes_on_every_disk() {
    let volume = |sector_size| {
        move |disk: SimulatedDisk| {
            let key = Key::of_data(&[7; 64]).unwrap();
            Box::new(vmcell::volume::Encrypted::over(disk, &key, sector_size).unwrap()) as Backend
        }
    };
    DISKS.into_iter().for_each(|disk| suite(disk, volume(512)).run());
    DISKS.into_iter().for_each(|disk| suite(disk, volume(4096)).run());
}

#[test]
fn ciphers_on_ciphers_pass() {
    let layers = |disk| {
        let one: Backend = Box::new(Encrypted::new(disk, ToyCipher(1)));
        let two: Backend = Box::new(Encrypted::new(one, ToyCipher(2)));
        Box::new(Encrypted::new(two, ToyCipher(1))) as Backend
    };
    DISKS.into_iter().for_each(|disk| suite(disk, layers).run());
}

#[test]
fn a_layer_that_changes_nothing_passes() {
    DISKS.into_iter().for_each(|disk| suite(disk, |disk| Box::new(Broken::new(disk, Fault::None))).run());
}

/// Each fault, the kind of disk below it, and the rule that finds it.
const FAULTS: &[(Fault, usize, &str)] = &[
    (Fault::ImpossibleInfo, 0, "its info is possible"),
    (Fault::InfoThatChanges, 0, "its info is possible"),
    (Fault::CompletesTwice, 0, "each operation is completed once"),
    (Fault::LosesAnOperation, 0, "each operation is completed once"),
    (Fault::InventsATag, 0, "each operation is completed once"),
    (Fault::ExchangesBuffers, 0, "each operation is completed once"),
    (Fault::CorruptsAByte, 0, "what is written is read back"),
    (Fault::WorksInTheGuestsMemory, 0, "what is written is read back"),
    (Fault::TakesFewParts, 0, "a buffer in many parts"),
    (Fault::MixesUpOperations, 0, "operations in flight at once"),
    (Fault::ForgetsZeroes, 0, "zeroes are read"),
    (Fault::ZeroesTooMuch, 0, "zeroes are read"),
    (Fault::DiscardsTooMuch, 0, "a discard spares"),
    (Fault::Blocks, 0, "no call blocks"),
    (Fault::NeverWakes, 1, "what is written is read back"),
    (Fault::LosesWhatHasNoRoom, 2, "more than it has room for"),
    (Fault::GivesBackAnotherWhenFull, 2, "more than it has room for"),
    (Fault::IsFullForEver, 0, "more than it has room for"),
    (Fault::NeedsLentBuffers, 0, "lends no buffers"),
    (Fault::LosesWhatIsCancelled, 0, "all that is cancelled"),
    (Fault::StaysOnItsThread, 0, "a move to another thread"),
    (Fault::BelievesEveryEvent, 0, "events of others"),
    (Fault::HoldsBuffersForEver, 0, "lets go of its buffers"),
    (Fault::HidesErrors, 0, "an error is reported"),
    (Fault::FailsForEver, 0, "an error is reported"),
    (Fault::ForgetsToRefresh, 0, "another size"),
    (Fault::IgnoresStable, 0, "survives a loss of power"),
    (Fault::IgnoresFlush, 0, "survives a loss of power"),
    (Fault::Panics, 0, "it panicked"),
];

#[test]
fn a_layer_that_breaks_one_rule_fails_the_suite_by_that_rule() {
    for &(fault, disk, rule) in FAULTS {
        let suite = suite(DISKS[disk], move |disk| Box::new(Broken::new(disk, fault)));
        let failures = suite.patience(Duration::from_millis(50)).failures();
        assert!(failures.iter().any(|failure| failure.contains(rule)), "{fault:?}: {failures:#?}");
    }
}

/// A guest that looks while a cipher works, and one that writes.
#[test]
fn a_guest_sees_no_ciphertext_and_changes_none() {
    let disk = SimulatedDisk::new(SIZE).delay(Duration::from_millis(5));
    let handle = disk.handle();
    let mut layer = Encrypted::new(disk, ToyCipher(9));
    let mut rig = IoRig::new();
    layer.attach(&mut rig.turn()).unwrap();
    let memory = patterned_memory(1 << 20);
    let (gpa, len) = (GuestAddress(0x1000), 4096);
    let buffer = || Buffer::Guest(guest_ranges(&memory, &[(gpa, len as u32)]).unwrap());
    let seen = || {
        let mut bytes = vec![0; len];
        memory.read(gpa, &mut bytes).unwrap();
        bytes
    };
    let mut tags = Slab::new(1);
    let mut run = |operation, meanwhile: &dyn Fn()| {
        let tag = tags.insert(()).unwrap();
        layer.submit(&mut rig.turn(), tag, operation).unwrap();
        layer.commit(&mut rig.turn());
        meanwhile();
        loop {
            if let Some(done) = layer.completed(&mut rig.turn()) {
                tags.remove(done.tag);
                return done.result.unwrap();
            }
            rig.wait(Duration::from_secs(10), |wants| layer.wants(wants)).unwrap();
        }
    };
    memory.write(gpa, &[1; 4096]).unwrap();
    run(Operation::Write { at: 0, from: buffer(), stable: false }, &|| memory.write(gpa, &[2; 4096]).unwrap());
    let mut stored = handle.bytes();
    assert!(stored[..len].windows(8).all(|bytes| bytes != [1; 8]), "plain text on the disk");
    ToyCipher(9).decrypt(0, &mut stored);
    assert!(stored[..len].iter().all(|byte| *byte == 1), "the guest changed what it had already given");
    run(Operation::Read { at: 0, into: buffer() }, &|| assert_eq!(seen(), [2; 4096]));
    assert_eq!(seen(), [1; 4096]);
    // What could not be read is not shown half decrypted.
    memory.write(gpa, &[3; 4096]).unwrap();
    handle.fail(1);
    let tag = tags.insert(()).unwrap();
    layer.submit(&mut rig.turn(), tag, Operation::Read { at: 0, into: buffer() }).unwrap();
    std::thread::sleep(Duration::from_millis(6));
    assert!(layer.completed(&mut rig.turn()).unwrap().result.is_err());
    assert_eq!(seen(), [3; 4096]);
}
