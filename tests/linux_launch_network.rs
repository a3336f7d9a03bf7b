//! Two launchers on one machine, whose Linux guests are in one network: they reach each other, also after one of them was killed and started again.

mod support;

use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::linux::{ENTER_ROOT, between, initrd_with, path_of};
use tempfile::NamedTempFile;

const LIMIT: Duration = Duration::from_secs(200);
/// FNV-1a of "lab".
const NETWORK: &str = "fd12:6596:1dc1:ebb4:0:";

fn address(host: u16) -> String {
    format!("{NETWORK}{host:x}ff:fe00:1")
}

/// A launcher and what its guest has printed.
struct Launched {
    child: Child,
    printed: Arc<Mutex<Vec<u8>>>,
    _initrd: NamedTempFile,
}

impl Drop for Launched {
    fn drop(&mut self) {
        // By SIGKILL.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Launched {
    fn new(folder: &Path, round: u32, script: &str) -> Self {
        let setup = r#"
mount -t tmpfs -o size=90% big /tmp
in_root ip link set lo up; in_root ip link set eth0 up
for n in $(seq 200); do in_root ip -6 -o address show dev eth0 scope global -tentative | grep -q inet6 && break; sleep 0.2; done
echo addresses=$(in_root ip -6 -o address show dev eth0 scope global | grep -o 'inet6 [^ ]*')-end mtu=$(cat /sys/class/net/eth0/mtu)-end
"#;
        let initrd = initrd_with(&format!("{ENTER_ROOT}\n{setup}\n{script}"));
        let mut launch = support::launcher();
        launch.arg("--kernel").arg(path_of("VMCELL_KERNEL_ELF")).arg("--initrd").arg(initrd.path());
        launch.args(["--memory", "512", "--cmdline", &format!("console=ttyS0 quiet panic=-1 round={round}")]);
        launch.arg("--disk").arg(format!("{},ro", path_of("VMCELL_ROOTFS").display()));
        launch.arg("--network").arg(format!("lab,socket={}", folder.display())).args(["--seccomp", "kill"]);
        let mut child = launch.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the launcher starts");
        let (printed, mut output) = (Arc::<Mutex<Vec<u8>>>::default(), child.stdout.take().expect("a pipe"));
        let into = Arc::clone(&printed);
        std::thread::spawn(move || {
            let mut room = [0; 4096];
            while let Ok(len @ 1..) = output.read(&mut room) {
                into.lock().unwrap().extend_from_slice(&room[..len]);
            }
        });
        Self { child, printed, _initrd: initrd }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.printed.lock().unwrap()).replace('\r', "")
    }

    fn expect(&self, wanted: &str) -> String {
        let end = Instant::now() + LIMIT;
        loop {
            let text = self.text();
            if text.contains(wanted) {
                return text;
            }
            assert!(Instant::now() < end, "no {wanted:?} in:\n{text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Takes bytes, says what they are, and sends them back; and says which round it is, in place of the one that was killed.
const SERVER: &str = r#"
in_root sh -c 'socat TCP6-LISTEN:7002,fork,reuseaddr SYSTEM:"grep -o round=. /proc/cmdline" & sleep 1'
echo listening
in_root socat -u TCP6-LISTEN:7000,reuseaddr STDOUT > /tmp/data
echo got=$(md5sum < /tmp/data | cut -d' ' -f1)-end
in_root socat -u STDIN TCP6-LISTEN:7001,reuseaddr < /tmp/data
echo served; sleep 1000
"#;

/// Asks for each round of the server, pings it, and has bytes go there and back. Meanwhile it says something to a neighbour that never listens.
fn client(server: &str, deaf: &str, mib: u32) -> String {
    format!(
        r#"
in_root sh -c 'ping -i 0.01 -s 4000 {deaf} >/dev/null 2>&1 &'
for round in 1 2; do
  for n in $(seq 200); do in_root timeout 5 socat -u TCP6:[{server}]:7002 STDOUT 2>/dev/null | grep -q round=$round && break; sleep 0.5; done
  echo round $round: $(in_root ping -c 5 -i 0.2 -W 5 {server} | grep -o '[0-9]* received')
  dd if=/dev/urandom of=/tmp/data bs=1M count={mib} 2>/dev/null
  echo sent$round=$(md5sum < /tmp/data | cut -d' ' -f1)-end
  in_root socat -u STDIN TCP6:[{server}]:7000 < /tmp/data
  for n in 1 2 3 4 5 6 7 8 9; do in_root socat -u TCP6:[{server}]:7001 STDOUT > /tmp/back && break; sleep 1; done
  echo back$round=$(md5sum < /tmp/back | cut -d' ' -f1)-end
done
"#
    )
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test --long"]
fn guests_of_two_launchers_reach_each_other_also_after_one_was_killed_and_started_again() {
    let above = tempfile::tempdir().unwrap();
    let folder = above.path().join("lab");
    let mib = if support::is_long() { 100 } else { 8 };
    let server = Launched::new(&folder, 1, SERVER);
    server.expect("listening");
    // As a launcher that has stopped would: it is there, and takes nothing.
    let _deaf = UnixDatagram::bind(folder.join("9")).unwrap();
    let mut asking = Launched::new(&folder, 1, &client(&address(1), &address(9), mib));
    let first = asking.expect("back1=");
    let got = server.expect("-end\nserved");
    drop(server);
    let server = Launched::new(&folder, 2, SERVER);
    let end = Instant::now() + LIMIT;
    while asking.child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < end, "{}\n{}", asking.text(), server.text());
        std::thread::sleep(Duration::from_millis(50));
    }
    let text = asking.text();
    assert_eq!(between(&text, "addresses=", "-end"), format!("inet6 {}/64", address(2)), "{text}");
    assert_eq!(between(&text, "mtu=", "-end"), "9000");
    assert_eq!(between(&got, "got=", "-end"), between(&first, "sent1=", "-end"), "{first}");
    for round in [1, 2] {
        assert!(text.contains(&format!("round {round}: 5 received")), "{text}");
        let sum = between(&text, &format!("sent{round}="), "-end");
        assert_eq!(between(&text, &format!("back{round}="), "-end"), sum, "{text}");
    }
    assert!(server.text().contains(&format!("addresses=inet6 {}/64-end", address(1))), "{}", server.text());
}
