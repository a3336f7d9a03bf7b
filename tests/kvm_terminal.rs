//! The launcher on a terminal: raw for as long as the guest has it, put back however the launcher ends.

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use support::Kernel;
use vmcell::testing::TinyGuest;

const LIMIT: Duration = Duration::from_secs(20);

/// A launcher whose standard input and output are a pseudo-terminal.
struct OnTerminal {
    launcher: Child,
    ours: File,
    terminal: File,
    _kernel: Kernel,
}

impl OnTerminal {
    fn launch(guest: &TinyGuest) -> Self {
        let kernel = Kernel::new(guest);
        let ours: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let path = ptsname(&ours, Vec::new()).unwrap();
        let terminal = File::options().read(true).write(true).open(path.to_str().unwrap()).unwrap();
        let end = || Stdio::from(terminal.try_clone().unwrap());
        let launcher = support::launcher()
            .arg("--kernel")
            .arg(&kernel.path)
            .args(["--memory", "16"])
            .stdin(end())
            .stdout(end())
            .spawn()
            .expect("the launcher starts");
        Self { launcher, ours: ours.into(), terminal, _kernel: kernel }
    }

    fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.terminal).unwrap().local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    fn expect_raw(&self, raw: bool) {
        let end = Instant::now() + LIMIT;
        while self.is_raw() != raw {
            assert!(Instant::now() < end, "the terminal is raw: {}", self.is_raw());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.launcher.kill();
        let _ = self.launcher.wait();
    }
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn every_key_reaches_the_guest_and_a_killed_launcher_leaves_a_sane_terminal() {
    let mut on = OnTerminal::launch(&TinyGuest::echo());
    on.expect_raw(true);
    // Control-C and control-D among them: in raw mode they are keys like any other.
    let keys = b"a\x03b\x04c";
    on.ours.write_all(keys).unwrap();
    let mut back = [0; 5];
    on.ours.read_exact(&mut back).unwrap();
    assert_eq!(&back, keys);
    on.launcher.kill().unwrap();
    on.expect_raw(false);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_terminal_is_put_back_when_the_guest_ends() {
    let mut on = OnTerminal::launch(&TinyGuest::print("bye"));
    assert!(on.launcher.wait().unwrap().success());
    on.expect_raw(false);
    let mut text = [0; 3];
    on.ours.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"bye");
}
