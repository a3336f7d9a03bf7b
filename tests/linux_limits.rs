//! Limits as Linux's drivers see them: `fio` and `iperf3` measure within 5 % of what was asked for.

mod support;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::linux::{HostTap, LinuxGuest, between, empty_disk, root_disk};
use vmcell::{Disk, LimitGroup, Limits, Nic, RateLimit};

const LONG: Duration = Duration::from_secs(240);
/// So often a rate is measured that a busy host may keep from being reached.
const ROUNDS: usize = 3;
/// The host's end of the card that is measured.
const HOST: &str = "10.77.9.1";

fn is_near(measured: f64, wanted: f64) -> bool {
    (measured - wanted).abs() <= wanted / 20.0
}

/// A line for a measurement of `fio`: its name, KiB a second, and requests a second.
fn fio(name: &str, device: &str, options: &str) -> String {
    format!(
        "echo {name}=$(in_root fio --name={name} --filename=/dev/{device} --size=8M --direct=1 --ioengine=libaio \
         --time_based --runtime=8 {options} --minimal | cut -d';' -f7,8)-end"
    )
}

/// What stands in such a line.
fn measured(text: &str, name: &str) -> (f64, f64) {
    let line = between(text, &format!("{name}="), "-end");
    let numbers = line.split_once(';').and_then(|(kib, iops)| Some((kib.parse().ok()?, iops.parse().ok()?)));
    numbers.unwrap_or_else(|| panic!("{name}: {text}"))
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn fio_gets_the_operations_and_the_bytes_that_a_disk_may_have() {
    // More than it may have, it never has. All of that it has if the host has time for it, which is tried again.
    let wanted = [300.0, 1024.0, 300.0];
    let mut rounds = (0..ROUNDS).map(|_| rates_of_limited_disks());
    let reached = rounds.any(|rates| {
        assert!(rates.iter().zip(wanted).all(|(rate, wanted)| *rate <= wanted * 1.05), "{rates:?}");
        rates.iter().zip(wanted).all(|(rate, wanted)| is_near(*rate, wanted))
    });
    assert!(reached, "{wanted:?} in none of {ROUNDS} rounds");
}

/// Requests a second, KiB a second, and requests a second one at a time.
fn rates_of_limited_disks() -> [f64; 3] {
    let images = [16, 16].map(empty_disk);
    let [few, slow] = images.each_ref().map(|image| Disk::open(image.path()).expect("the disk is opened"));
    let few = few.limits(Limits::new().operations(RateLimit::per_second(300).burst(10)));
    let slow = slow.limits(Limits::new().bytes(RateLimit::per_second(1 << 20).burst(64 << 10)));
    let handles = [few.handle(), slow.handle()];
    let script = [
        fio("few", "vdb", "--rw=randread --bs=4k --iodepth=16"),
        fio("slow", "vdc", "--rw=randread --bs=16k --iodepth=4"),
        // Nothing but one request at a time.
        fio("single", "vdb", "--rw=randread --bs=4k --iodepth=1"),
    ]
    .join("\n");
    let guest = LinuxGuest::in_distribution(&script)
        .limit(LONG)
        .start(|builder| builder.disk(root_disk()).disk(few).disk(slow));
    let text = guest.finish();
    for handle in handles {
        let metrics = handle.metrics();
        assert!(metrics.limited > 0 && metrics.limited_time > Duration::from_secs(4), "{metrics:?}");
    }
    [measured(&text, "few").1, measured(&text, "slow").0, measured(&text, "single").1]
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn disks_of_a_group_have_together_what_the_group_may_have() {
    let images = [16, 16].map(empty_disk);
    let group = LimitGroup::new(Limits::new().operations(RateLimit::per_second(400).burst(10))).unwrap();
    let [first, second] =
        images.each_ref().map(|image| Disk::open(image.path()).expect("the disk is opened").limit_group(&group));
    let options = "--rw=randread --bs=4k --iodepth=8";
    let script = format!("({}) &\n{}\nwait", fio("first", "vdb", options), fio("second", "vdc", options));
    let guest = LinuxGuest::in_distribution(&script)
        .limit(LONG)
        .start(|builder| builder.disk(root_disk()).disk(first).disk(second));
    let text = guest.finish();
    let (first, second) = (measured(&text, "first").1, measured(&text, "second").1);
    // They don't begin and end at the same moment, and the one that is left has all.
    assert!((380.0..=500.0).contains(&(first + second)), "{text}");
    assert!(first > 130.0 && second > 130.0, "{text}");
}

/// Whether a process of this host does. Nothing is connected for that: the server would take it for its client.
fn listens(port: u16) -> bool {
    const LISTENING: &str = "00000000:0000 0A";
    let sockets = std::fs::read_to_string("/proc/net/tcp").expect("the kernel lists them");
    sockets.lines().any(|socket| socket.contains(&format!(":{port:04X} {LISTENING}")))
}

/// An iperf3 server of the host for one measurement, so that none finds what another left. It ends with this.
struct Iperf(Child);

impl Iperf {
    /// Listens when this returns.
    fn start(port: u16) -> Self {
        assert!(!listens(port), "a server of another test listens on port {port}");
        let mut iperf = Command::new("iperf3");
        iperf.args(["-s", "-1", "-B", HOST, "-p", &port.to_string()]).stdout(Stdio::null());
        let mut server = Self(iperf.spawn().expect("iperf3 starts"));
        let begun = Instant::now();
        while !listens(port) {
            assert!(server.0.try_wait().expect("it is our child").is_none(), "iperf3 has ended");
            assert!(begun.elapsed() < Duration::from_secs(30), "iperf3 does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }
}

impl Drop for Iperf {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn iperf3_measures_the_bytes_that_a_card_may_send_and_get() {
    let tap = HostTap::new("vmc-limits", Some(&format!("{HOST}/24")), 1500);
    // A client that gets no answer says so, rather than hold the test up.
    let script = r#"
in_root ip link set lo up; in_root ip address add 10.77.9.2/24 dev eth0; in_root ip link set eth0 up
measure() {
    in_root timeout 45 iperf3 -c 10.77.9.1 --connect-timeout 10000 -t 8 -f k $2 > /root/tmp/iperf 2>&1 || echo "iperf3 ended with $?: $(cat /root/tmp/iperf)"
    echo $1=$(grep receiver /root/tmp/iperf | sed 's/.*Bytes *\([0-9.]*\) Kbits.*/\1/')-end
}
echo ready; read line
measure sent "-p 5201"
measure got "-p 5202 -R"
"#;
    // 16 and 24 Mbit/s.
    let rate = |bytes| Limits::new().bytes(RateLimit::per_second(bytes).burst(64 << 10));
    let nic = Nic::tap(&tap.name).expect("the TAP device is opened").send_limits(rate(2_000_000));
    let nic = nic.receive_limits(rate(3_000_000));
    let handle = nic.handle();
    let guest = LinuxGuest::in_distribution(script).limit(LONG).start(|builder| builder.disk(root_disk()).nic(nic));
    guest.expect("ready");
    // Not before: a server that has waited for two minutes has been seen to drop its client at once, and a guest may boot slowly.
    let _servers = [5201, 5202].map(Iperf::start);
    guest.type_in("\n");
    let text = guest.finish();
    for (name, wanted) in [("sent", 16_000.0), ("got", 24_000.0)] {
        let kbits: f64 = between(&text, &format!("{name}="), "-end").parse().unwrap_or_else(|_| panic!("{text}"));
        // iperf3 counts what is in the TCP segments: of each 1514 bytes of a frame, 1448 if it is no longer than that.
        let least = wanted * 1448.0 / 1514.0 * 0.95;
        assert!((least..=wanted * 1.05).contains(&kbits), "{name} {kbits} of {wanted}: {text}");
    }
    let metrics = handle.metrics();
    assert!(metrics.sent_limited > 0 && metrics.received_limited > 0, "{metrics:?}");
}
