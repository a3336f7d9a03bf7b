//! Secrets in the tables of a guest: natively, with a guest that prints what is there each time that something is typed.

mod support;

use std::io::{Read, Write};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use support::memory::copies_in_memory;
use support::{Kernel, tiny};
use vmcell::secret::Secret;
use vmcell::testing::TinyGuest;
use vmcell::{Console, ConsoleReader, ConsoleWriter, ErrorKind, LoadMemory, Snapshot, Vm, VmBuilder};

/// Answers each byte that is typed by the first string of its tables.
fn reader() -> TinyGuest {
    TinyGuest::new([
        0x66, 0xba, 0xfd, 0x03, //       mov dx, 0x3fd
        0xec, //                         in al, dx
        0xa8, 0x01, //                   test al, 1
        0x74, 0xfb, //                   jz to the in
        0x66, 0xba, 0xf8, 0x03, //       mov dx, 0x3f8
        0xec, //                         in al, dx
        0xbe, 0x25, 0x20, 0x0f, 0x00, // mov esi, 0xf2025
        0x8a, 0x06, //                   mov al, [rsi]
        0x84, 0xc0, //                   test al, al
        0x74, 0x05, //                   jz behind the loop
        0xee, //                         out dx, al
        0xff, 0xc6, //                   inc esi
        0xeb, 0xf5, //                   jmp to the mov from [rsi]
        0xb0, 0x01, 0xee, //             mov al, 1; out dx, al
        0xeb, 0xdd, //                   jmp to the start
    ])
}

struct Guest {
    vm: Vm,
    output: ConsoleReader,
    input: ConsoleWriter,
}

impl Guest {
    fn start(builder: VmBuilder) -> Self {
        Self::start_after(builder, |_| ())
    }

    fn start_after(builder: VmBuilder, before: impl FnOnce(&Vm)) -> Self {
        let (console, output, input) = Console::pair().unwrap();
        let vm = builder.console(console).build().unwrap();
        before(&vm);
        vm.start().unwrap();
        Self { vm, output, input }
    }

    fn boot(secrets: impl IntoIterator<Item = Secret>) -> Self {
        let kernel = Kernel::new(&reader());
        Self::start(secrets.into_iter().fold(tiny(&kernel), VmBuilder::secret))
    }

    fn fork(snapshot: &Snapshot) -> Self {
        Self::start(Vm::builder().fork_of(snapshot))
    }

    fn reads(&mut self) -> String {
        self.input.write_all(b"x").unwrap();
        let mut text = Vec::new();
        let mut byte = [0];
        loop {
            self.output.read_exact(&mut byte).unwrap();
            if byte[0] == 1 {
                return String::from_utf8(text).unwrap();
            }
            text.push(byte[0]);
        }
    }
}

fn secret(name: &str, value: &[u8]) -> Secret {
    Secret::new(name, value).unwrap()
}

const TOKEN: &str = "io.systemd.credential.binary:token=c2VzYW1l";

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_guest_reads_its_secret_until_it_is_scrubbed() {
    let mut guest = Guest::boot([secret("token", b"sesame"), secret("other", b"x")]);
    assert!(guest.vm.has_secrets_in_clear());
    assert_eq!([guest.reads(), guest.reads()], [TOKEN, TOKEN]);
    guest.vm.scrub_secrets().unwrap();
    guest.vm.scrub_secrets().unwrap();
    assert!(!guest.vm.has_secrets_in_clear());
    assert_eq!(guest.reads(), "-".repeat(TOKEN.len()));
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn secrets_are_scrubbed_when_their_time_is_up_and_that_is_told() {
    let (told, log) = std::sync::mpsc::channel();
    let kernel = Kernel::new(&reader());
    let limit = Duration::from_millis(400);
    let builder = tiny(&kernel).secret(secret("token", b"sesame")).scrub_secrets_after(limit);
    let begun = Instant::now();
    let mut guest =
        Guest::start(builder.log(move |record| drop(told.send(format!("{}: {}", record.target, record.message)))));
    while guest.vm.has_secrets_in_clear() {
        let text = guest.reads();
        // Otherwise it was read while it was scrubbed.
        if guest.vm.has_secrets_in_clear() {
            assert_eq!(text, TOKEN);
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "they are there for ever");
    }
    assert!(begun.elapsed() >= limit, "they were gone after {:?}", begun.elapsed());
    assert_eq!(guest.reads(), "-".repeat(TOKEN.len()));
    let said = "secrets: are scrubbed, since their time is up";
    assert!(log.iter().any(|line| line == said));
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_time_of_secrets_begins_with_the_start() {
    let kernel = Kernel::new(&reader());
    let limit = Duration::from_millis(200);
    let mut guest =
        Guest::start_after(tiny(&kernel).secret(secret("token", b"sesame")).scrub_secrets_after(limit), |_| {
            std::thread::sleep(2 * limit);
        });
    assert_eq!(guest.reads(), TOKEN);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn no_snapshot_has_a_secret_in_clear_and_a_fork_gets_one_if_the_caller_says_so() {
    let mut source = Guest::boot([secret("token", b"sesame")]);
    let error = source.vm.snapshot().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidState);
    assert!(error.to_string().ends_with("while its secrets are in clear; scrub them first"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    assert!(source.vm.suspend(folder.path().join("vm"), LoadMemory::Copy).is_err());
    source.vm.scrub_secrets().unwrap();
    let snapshot = source.vm.snapshot().unwrap();
    let scrubbed = "-".repeat(TOKEN.len());
    assert_eq!(Guest::fork(&snapshot).reads(), scrubbed);
    let renewed = |snapshot: &Snapshot, value: &[u8]| {
        Guest::start_after(Vm::builder().fork_of(snapshot), |vm| vm.renew_secret(&secret("token", value)).unwrap())
    };
    let mut one = renewed(&snapshot, b"fork 1");
    let mut two = renewed(&snapshot, b"2");
    assert_eq!(one.reads(), "io.systemd.credential.binary:token=Zm9yayAx");
    assert_eq!(two.reads(), "io.systemd.credential.binary:token=Mg==\n\n\n\n");
    assert_eq!(source.reads(), scrubbed);
    assert!(one.vm.snapshot().is_err());
    one.vm.scrub_secrets().unwrap();
    // Through a file, and a fork of a fork.
    one.vm.snapshot().unwrap().save(folder.path().join("saved")).unwrap();
    let mut loaded = renewed(&Snapshot::load(folder.path().join("saved")).unwrap(), b"again!");
    assert_eq!(loaded.reads(), "io.systemd.credential.binary:token=YWdhaW4h");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_guest_that_runs_is_given_another_value_for_a_while() {
    let kernel = Kernel::new(&reader());
    let limit = Duration::from_millis(300);
    let mut guest = Guest::start(tiny(&kernel).secret(secret("token", b"sesame")).scrub_secrets_after(limit));
    guest.vm.scrub_secrets().unwrap();
    guest.vm.renew_secret(&secret("token", b"lettuc")).unwrap();
    assert_eq!(guest.reads(), "io.systemd.credential.binary:token=bGV0dHVj");
    let begun = Instant::now();
    while guest.vm.has_secrets_in_clear() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it is there for ever");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(guest.reads(), "-".repeat(TOKEN.len()));
    let said = |secret: &Secret| guest.vm.renew_secret(secret).unwrap_err().to_string();
    assert!(said(&secret("token", b"sesame!")).contains("has 7 bytes, allowed are 6"));
    assert!(said(&secret("key", b"x")).contains("booted without a secret key; it has a place for: token"));
    assert!(!guest.vm.has_secrets_in_clear());
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn secrets_that_a_guest_cannot_be_given_are_refused_before_anything_is_made() {
    let kernel = Kernel::new(&reader());
    let said = |builder: VmBuilder| {
        let error = builder.open().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Secret);
        error.to_string()
    };
    let large = |builder: VmBuilder| builder.secret(secret("large", &[1; 40 << 10]));
    assert!(said(large(tiny(&kernel))).contains("take 54652 bytes in its tables, allowed are 49108"));
    let twice = tiny(&kernel).secret(secret("a", b"1")).secret(secret("a", b"2"));
    assert!(said(twice).contains("secret a was given twice"));
    let mut source = Guest::boot([]);
    assert_eq!(source.reads(), "");
    let snapshot = source.vm.snapshot().unwrap();
    let fork = Vm::builder().fork_of(&snapshot).secret(secret("a", b"1"));
    assert!(said(fork).contains("secret a was given to a fork, which has booted already; Vm::renew_secret"));
    assert!(source.vm.renew_secret(&secret("a", b"1")).unwrap_err().to_string().contains("it has a place for: none"));
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_guest_that_has_ended_leaves_no_secret_in_its_memory() {
    let kernel = Kernel::new(&TinyGuest::power_off());
    let vm = tiny(&kernel).secret(secret("token", b"sesame")).build().unwrap();
    vm.start().unwrap();
    vm.wait().unwrap();
    assert!(!vm.has_secrets_in_clear());
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn nothing_of_a_secret_is_left_in_memory_once_it_was_scrubbed() {
    let mut value = *b"0123456789abcdef0123456789abcdef";
    let random = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut value));
    random.unwrap();
    let expected = Secret::new("expected", &value).unwrap();
    let encoded = encoded(&expected);
    let guest = Guest::boot([Secret::new("token", &value).unwrap()]);
    value.fill(0);
    std::hint::black_box(&mut value);
    let count = |secret: &Secret| copies_in_memory(&secret.expose()[..28]);
    assert_eq!((count(&expected), count(&encoded)), (0, 1), "the guest's tables have it");
    guest.vm.scrub_secrets().unwrap();
    assert_eq!((count(&expected), count(&encoded)), (0, 0));
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_launcher_gives_secrets_from_files_and_says_why_it_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    reader().write_to(path("guest")).unwrap();
    std::fs::write(path("password"), "sesame").unwrap();
    std::fs::write(path("large"), [7; 65 << 10]).unwrap();
    let launcher = |arguments: &[&str]| {
        let mut launcher = support::launcher();
        launcher.current_dir(folder.path()).args(["--kernel", "guest", "--console", "stdio"]).args(arguments);
        launcher
    };
    let mut child = launcher(&["--secret", "token=password", "--scrub-secrets", "1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut reads = || {
        input.write_all(b"x").unwrap();
        let mut text = vec![0; TOKEN.len() + 1];
        output.read_exact(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    };
    assert_eq!(reads(), format!("{TOKEN}\u{1}"));
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(reads(), format!("{}\u{1}", "-".repeat(TOKEN.len())));
    child.kill().unwrap();
    child.wait().unwrap();
    for (arguments, status, said) in [
        (&["--secret", "token=none"][..], 1, "secret token: none cannot be read: No such file"),
        (&["--secret", "token=large"], 1, "secret token: large: the value has more than 65536 bytes"),
        (&["--secret", "to/ken=password"], 1, "secret \"to/ken\" has no name that is allowed"),
        (&["--secret", "token=password", "--secret", "token=password"], 1, "secret token was given twice"),
        (&["--secret", "hunter2"], 2, "--secret: allowed is NAME=FILE"),
        (&["--scrub-secrets", "1"], 2, "--secret"),
        (&["--secret", "token=password", "--scrub-secrets", "0"], 2, "0 is not in 1.."),
    ] {
        let Output { status: code, stderr, .. } = launcher(arguments).output().unwrap();
        let text = String::from_utf8(stderr).unwrap();
        assert!(
            code.code() == Some(status) && text.contains(said) && !text.contains("hunter2"),
            "{arguments:?}: {code:?} {text}"
        );
    }
}

/// The beginning of its base64, without a copy that stays.
fn encoded(secret: &Secret) -> Secret {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::with_capacity(64);
    for three in secret.expose().chunks_exact(3) {
        let number = three.iter().fold(0, |number, byte| number << 8 | usize::from(*byte));
        text.extend((0..4).rev().map(|digit| DIGITS[number >> (6 * digit) & 63]));
    }
    let encoded = Secret::new("encoded", &text).unwrap();
    text.fill(0);
    std::hint::black_box(&mut text);
    encoded
}
