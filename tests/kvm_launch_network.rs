//! Launchers on one machine that are in a network: who has which place, and what others can do to them.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use support::Kernel;
use vmcell::testing::TinyGuest;

const LIMIT: Duration = Duration::from_secs(30);

/// A launcher whose guest runs until it is killed.
struct Launched {
    child: Child,
    /// What the launcher says of its guest's address.
    told: String,
}

impl Drop for Launched {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Launched {
    fn new(kernel: &Kernel, folder: &Path, more: &[&str]) -> Self {
        let mut launcher = support::launcher();
        launcher.arg("--kernel").arg(&kernel.path).args(["--memory", "16", "--network"]);
        launcher.arg(format!("lab,socket={}", folder.display())).args(more);
        let child = launcher.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("the launcher starts");
        let said = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut lines = said.lines().map_while(Result::ok);
        let told = lines.find(|line| line.contains("the guest has")).unwrap_or_default();
        // What it says later is read, so that it does not find the pipe broken.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, told: told.trim().to_owned() }
    }
}

/// What a launcher of the network "lab" says of its guest; the address is FNV-1a of that name, and the host's number.
fn told(host: u16) -> String {
    format!("launch: the guest has fd12:6596:1dc1:ebb4:0:{host:x}ff:fe00:1 in the network lab")
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn each_launcher_has_the_lowest_place_that_is_free_and_one_that_was_killed_leaves_its_own() {
    let (kernel, above) = (Kernel::new(&TinyGuest::spin()), tempfile::tempdir().unwrap());
    let folder = above.path().join("lab");
    let launch = |more: &[&str]| Launched::new(&kernel, &folder, more);
    let (first, second) = (launch(&[]), launch(&["--seccomp", "kill"]));
    assert_eq!((first.told.as_str(), second.told.as_str()), (told(1).as_str(), told(2).as_str()));
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    // By SIGKILL, so that it tidies nothing up.
    drop(first);
    assert!(folder.join("1").exists());
    let (again, third) = (launch(&["--no-jail"]), launch(&[]));
    assert_eq!((again.told.as_str(), third.told.as_str()), (told(1).as_str(), told(3).as_str()));
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_launcher_outlives_datagrams_that_are_no_packets_and_removes_its_socket_at_the_end() {
    let (kernel, above) = (Kernel::new(&TinyGuest::spin()), tempfile::tempdir().unwrap());
    let folder = above.path().join("lab");
    let mut launched = Launched::new(&kernel, &folder, &[]);
    let neighbour = UnixDatagram::unbound().unwrap();
    neighbour.connect(folder.join("1")).unwrap();
    neighbour.set_write_timeout(Some(LIMIT)).unwrap();
    // Each of them is taken, or the sender would wait for room.
    for len in (0..300).chain([1280, 9000, 9001, 65_535, 100_000]) {
        for first in [0x00, 0x45, 0x60] {
            let mut bytes = vec![0x55; len];
            bytes.iter_mut().take(1).for_each(|byte| *byte = first);
            neighbour.send(&bytes).unwrap();
        }
    }
    assert!(launched.child.try_wait().unwrap().is_none(), "it runs");
    drop(launched);
    let power_off = Kernel::new(&TinyGuest::power_off());
    let mut ending = Launched::new(&power_off, &folder, &["-v"]);
    assert!(ending.child.wait().unwrap().success() && ending.told == told(1));
    assert!(!folder.join("1").exists());
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_folder_is_that_of_one_network_as_long_as_its_launchers_run() {
    let (kernel, above) = (Kernel::new(&TinyGuest::power_off()), tempfile::tempdir().unwrap());
    let folder = above.path().join("lab");
    let spin = Kernel::new(&TinyGuest::spin());
    let first = Launched::new(&spin, &folder, &[]);
    assert_eq!(first.told, told(1));
    let other = || {
        let mut launcher = support::launcher();
        launcher.arg("--kernel").arg(&kernel.path).args(["--memory", "16", "--network"]);
        launcher.arg(format!("other,socket={}", folder.display())).stdin(Stdio::null()).output().unwrap()
    };
    let refused = other();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("that of the network \"lab\", and \"other\" was asked for"),
        "{said}"
    );
    drop(first);
    let taken = other();
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
}
