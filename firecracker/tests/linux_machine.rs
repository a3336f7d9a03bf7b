//! Debian's kernel in machines that stock programs of the host drive: `curl`, and Python's `http.client`.

#[path = "../../tests/support/mod.rs"]
mod library;
mod support;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use library::linux::{ENTER_ROOT, HostTap, host, initrd_with, path_of};
use serde_json::{Value, json};
use support::{Program, image};
use tempfile::NamedTempFile;

const LONG: Duration = Duration::from_secs(150);

/// What a guest does that has one of each device.
const EACH_DEVICE: &str = r#"
for module in /spare/*vsock*.ko /spare/*rng*.ko /spare/*-virtio_balloon.ko /spare/*-button.ko /spare/*-evdev.ko; do insmod $module; done
in_root ip link set lo up; in_root ip address add 10.99.1.2/24 dev eth0; in_root ip link set eth0 up
in_root ip route add 169.254.169.254 dev eth0
url=http://169.254.169.254
TOKEN=$(in_root curl -s --max-time 60 -X PUT -H "X-metadata-token-ttl-seconds: 600" $url/latest/api/token)
echo "metadata: $(in_root curl -s --max-time 60 -H "X-metadata-token: $TOKEN" $url/name)"
echo "host: $(in_root ping -c 1 -W 30 10.99.1.1 | grep -c ' 0% packet loss')"
echo "random: $(head -c 16 /dev/hwrng | wc -c)"
echo "serial: $(cat /sys/block/vdb/serial)"
echo "cmdline: $(cat /proc/cmdline)"
echo "memory: $(grep -c . /proc/meminfo)"
echo over the vsock | in_root socat - VSOCK-CONNECT:2:80
exec 3</dev/input/event0
echo ready
until [ "$(cat /sys/block/vdb/size)" = 32768 ]; do sleep 0.2; done
echo "the second disk: $(in_root head -c 17 /dev/vdb)"
dd bs=24 count=1 <&3 2>/dev/null | od -An -t u2 -j 16 -N 6
echo pressed
"#;

/// Asks by `curl`, as a person would.
fn curl(socket: &Path, method: &str, path: &str, body: &Value) -> (String, String) {
    let mut arguments = vec!["-s", "--max-time", "100", "-w", "\n%{http_code}", "-X", method, "--unix-socket"];
    let (socket, url, body) = (socket.to_str().unwrap(), format!("http://localhost{path}"), body.to_string());
    arguments.extend([socket, url.as_str()]);
    if body != "null" {
        arguments.extend(["-H", "Content-Type: application/json", "-d", &body]);
    }
    let text = host("curl", &arguments);
    let (answer, status) = text.rsplit_once('\n').unwrap();
    (status.to_owned(), answer.to_owned())
}

fn boot_source(initrd: &NamedTempFile) -> Value {
    json!({"kernel_image_path": path_of("VMCELL_KERNEL_ELF"), "initrd_path": initrd.path(),
           "boot_args": "console=ttyS0 quiet panic=-1"})
}

fn root() -> Value {
    json!({"drive_id": "root", "is_root_device": true, "is_read_only": true, "path_on_host": path_of("VMCELL_ROOTFS")})
}

/// What the guest has printed, which has to hold `wanted` before long.
fn expect(program: &Program, wanted: &str) -> String {
    let began = Instant::now();
    loop {
        let text = program.text_of("serial").replace('\r', "");
        if text.contains(wanted) {
            return text;
        }
        assert!(began.elapsed() < LONG, "no {wanted:?} in:\n{text}\n{}", program.text_of("stdout"));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn curl_describes_a_machine_with_each_device_and_changes_it_while_debian_runs() {
    let tap = HostTap::new("vmfc1", Some("10.99.1.1/24"), 1500);
    let mut program = Program::new(&[]);
    let folder = program.folder.path().to_owned();
    let initrd = initrd_with(&format!("{ENTER_ROOT}\n{EACH_DEVICE}"));
    let (one, two) = (image(&folder, "one", 8 << 20), image(&folder, "two", 16 << 20));
    std::fs::File::options().write(true).open(&two).unwrap().write_all(b"the second medium").unwrap();
    let listener = UnixListener::bind(folder.join("vsock_80")).unwrap();
    let socket = program.socket();
    let done = |method: &str, path: &str, body: Value| {
        let (status, answer) = curl(&socket, method, path, &body);
        assert_eq!((status.as_str(), answer.as_str()), ("204", ""), "{method} {path} {body}");
    };
    done("PUT", "/machine-config", json!({"vcpu_count": 2, "mem_size_mib": 256}));
    done("PUT", "/boot-source", boot_source(&initrd));
    done("PUT", "/drives/root", root());
    done("PUT", "/drives/data", json!({"drive_id": "data", "is_root_device": false, "path_on_host": one}));
    done(
        "PUT",
        "/network-interfaces/eth0",
        json!({"iface_id": "eth0", "host_dev_name": tap.name, "guest_mac": "06:00:0a:63:01:02"}),
    );
    done("PUT", "/mmds/config", json!({"version": "V2", "network_interfaces": ["eth0"]}));
    done("PUT", "/mmds", json!({"name": "web-1"}));
    done("PUT", "/vsock", json!({"guest_cid": 3, "uds_path": folder.join("vsock")}));
    done("PUT", "/balloon", json!({"amount_mib": 0, "deflate_on_oom": true, "stats_polling_interval_s": 1}));
    done("PUT", "/entropy", json!({}));
    done("PUT", "/serial", json!({"serial_out_path": folder.join("serial")}));
    done("PUT", "/actions", json!({"action_type": "InstanceStart"}));
    let mut over_vsock = String::new();
    listener.accept().unwrap().0.read_to_string(&mut over_vsock).unwrap();
    assert_eq!(over_vsock, "over the vsock\n");
    let text = expect(&program, "ready\n");
    for line in ["metadata: web-1\n", "host: 1\n", "random: 16\n", "serial: data\n", "pci=off root=/dev/vda ro\n"] {
        assert!(text.contains(line), "no {line:?} in:\n{text}");
    }
    done("PATCH", "/balloon", json!({"amount_mib": 32}));
    program.until("the guest's memory", |program| program.get("/balloon")["amount_mib"] == json!(32));
    let statistics = || program.get("/balloon/statistics");
    let began = Instant::now();
    while statistics()["actual_mib"] != json!(32) || statistics()["total_memory"] == Value::Null {
        assert!(began.elapsed() < LONG, "{}", statistics());
        std::thread::sleep(Duration::from_millis(100));
    }
    let limiter =
        json!({"bandwidth": {"size": 1 << 20, "refill_time": 100}, "ops": {"size": 1000, "refill_time": 100}});
    done(
        "PATCH",
        "/network-interfaces/eth0",
        json!({"iface_id": "eth0", "rx_rate_limiter": limiter, "tx_rate_limiter": limiter}),
    );
    assert_eq!(program.get("/vm/config")["network-interfaces"][0]["rx_rate_limiter"]["ops"]["size"], json!(1000));
    done("PATCH", "/vm", json!({"state": "Paused"}));
    done("PATCH", "/vm", json!({"state": "Resumed"}));
    done("PATCH", "/drives/data", json!({"drive_id": "data", "path_on_host": two, "rate_limiter": limiter}));
    expect(&program, "the second disk: the second medium\n");
    done("PUT", "/actions", json!({"action_type": "SendCtrlAltDel"}));
    expect(&program, "pressed\n");
    assert_eq!(program.wait().code(), Some(0));
    assert!(!folder.join("vsock").exists() && !socket.exists());
}

/// Starts four machines side by side, with the standard library alone.
const PYTHON: &str = r#"
import http.client, json, socket, sys
class Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=100)
        self.path = path
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(100)
        self.sock.connect(self.path)
for line in sys.stdin:
    path, calls = json.loads(line)
    connection = Connection(path)
    for method, url, body in calls:
        connection.request(method, url, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 204:
            sys.exit(f"{method} {url}: {answer.status} {text}")
print("all run")
"#;

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn python_starts_four_debians_side_by_side_and_each_runs_a_command_over_its_vsock() {
    let script = "for module in /spare/*vsock*.ko; do insmod $module; done\n\
                  in_root socat VSOCK-LISTEN:5000 EXEC:'sh'";
    let initrd = initrd_with(&format!("{ENTER_ROOT}\n{script}"));
    let mut programs: Vec<Program> = (0..4).map(|number| Program::new(&["--id", &format!("vm-{number}")])).collect();
    let calls = |program: &Program| {
        json!([program.socket(), [
            ["PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 160}],
            ["PUT", "/boot-source", boot_source(&initrd)],
            ["PUT", "/drives/root", root()],
            ["PUT", "/vsock", {"guest_cid": 3, "uds_path": program.path("vsock")}],
            ["PUT", "/serial", {"serial_out_path": program.path("serial")}],
            ["PUT", "/actions", {"action_type": "InstanceStart"}],
        ]])
    };
    let lines: String = programs.iter().map(|program| format!("{}\n", calls(program))).collect();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("calls"), lines).unwrap();
    let calls = folder.path().join("calls");
    assert!(host("sh", &["-c", &format!("python3 -c '{PYTHON}' < {}", calls.display())]).contains("all run"));
    for (number, program) in programs.iter_mut().enumerate() {
        let stream = connect(program, 5000);
        let mut stream = stream;
        stream.write_all(format!("echo $((6 * 7 + {number})); exit\n").as_bytes()).unwrap();
        let mut told = String::new();
        stream.read_to_string(&mut told).unwrap();
        assert_eq!(told, format!("{}\n", 42 + number));
        assert_eq!(program.wait().code(), Some(0), "the guest turns itself off");
    }
}

/// Connects to a port of the guest once something listens there.
fn connect(program: &Program, port: u32) -> UnixStream {
    let began = Instant::now();
    loop {
        let mut stream = UnixStream::connect(program.path("vsock")).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.write_all(format!("CONNECT {port}\n").as_bytes()).unwrap();
        let (mut line, mut byte) = (Vec::new(), [0]);
        while !line.ends_with(b"\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
            line.push(byte[0]);
        }
        if line.starts_with(b"OK ") {
            return stream;
        }
        assert!(began.elapsed() < LONG, "nobody listens: {}", program.text_of("serial"));
        std::thread::sleep(Duration::from_millis(200));
    }
}
