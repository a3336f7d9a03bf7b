//! The metadata service with Linux's own TCP and `curl` in the guest, on a TAP device whose host has a web server at the same address.

mod support;

use std::io::Write;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::linux::{HostTap, LinuxGuest, between, host, root_disk};
use vmcell::event::{Event, Io, Wants};
use vmcell::meter::Meter;
use vmcell::net::{Need, NicBackend, NicInfo, Offloads, RxBatch, TxBatch, TxFrame};
use vmcell::{Metadata, Nic};

const LONG: Duration = Duration::from_secs(240);
const SERVICE: [u8; 4] = [169, 254, 169, 254];

/// All that goes down to the TAP device.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<Vec<u8>>>>);

impl Captured {
    fn layer(&self, below: Box<dyn NicBackend>) -> Box<dyn NicBackend> {
        Box::new(Capture { below, captured: self.clone() })
    }

    fn frames(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap().clone()
    }
}

struct Capture {
    below: Box<dyn NicBackend>,
    captured: Captured,
}

impl NicBackend for Capture {
    fn info(&self) -> NicInfo {
        self.below.info()
    }

    fn attach(&mut self, io: &mut Io) -> vmcell::Result<()> {
        self.below.attach(io)
    }

    fn negotiate(&mut self, guest: Offloads) -> vmcell::Result<()> {
        self.below.negotiate(guest)
    }

    fn receive(&mut self, io: &mut Io, frames: &mut RxBatch) {
        self.below.receive(io, frames);
    }

    fn send(&mut self, io: &mut Io, frames: &mut TxBatch) {
        let look = |_: &mut Io, frame: &TxFrame| {
            let mut bytes = vec![0; frame.len() as usize];
            frame.data().copy_out(0, &mut bytes).unwrap();
            self.captured.0.lock().unwrap().push(bytes);
            false
        };
        frames.without(look, |frames| self.below.send(io, frames));
    }

    fn wants(&self, need: Need, wants: &mut Wants) {
        self.below.wants(need, wants);
    }

    fn woken(&mut self, io: &mut Io, event: &Event) {
        self.below.woken(io, event);
    }

    fn metrics(&self, meter: &mut Meter) {
        self.below.metrics(meter);
    }
}

/// A guest with an address, a way to the service, and `get` and `status` to ask it with.
fn guest(address: &str, script: &str) -> LinuxGuest {
    let setup = format!(
        r#"
in_root ip link set lo up; in_root ip address add {address}/24 dev eth0; in_root ip link set eth0 up
in_root ip route add 169.254.169.254 dev eth0
url=http://169.254.169.254
curl() {{ in_root curl -s --max-time 60 "$@"; }}
token() {{ curl -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: ${{1:-21600}}" $url/latest/api/token; }}
get() {{ path=$1; shift; curl -f -H "X-aws-ec2-metadata-token: $TOKEN" "$@" $url/$path; }}
status() {{ curl -o /dev/null -w '%{{http_code}}' "$@"; }}
"#
    );
    LinuxGuest::in_distribution(&format!("{setup}\n{script}")).limit(LONG)
}

/// Asks for what cloud-init's data source `Ec2` asks for, as it does: a token, the latest version that there is, and all that is listed
/// below `meta-data/`, where `0=web` stands for the key at `0/openssh-key`.
const WALK: &str = r#"
import socket
def ask(method, path, header):
    stream = socket.create_connection(("169.254.169.254", 80), 60)
    lines = [f"{method} /{path} HTTP/1.1", "Host: 169.254.169.254", "User-Agent: Cloud-Init/22.4.2", "Accept-Encoding: gzip, deflate",
             "Accept: */*", "Connection: close", header]
    stream.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    head, body = b"".join(iter(lambda: stream.recv(65536), b"")).split(b"\r\n\r\n", 1)
    return int(head.split()[1]), body.decode()
token = ask("PUT", "latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 21600")[1]
def get(path):
    status, body = ask("GET", path, "X-aws-ec2-metadata-token: " + token)
    return body if status == 200 else None
def walk(path):
    found = {}
    for entry in get(path).splitlines():
        number, is_key, name = entry.partition("=")
        if entry.endswith("/"):
            found[entry[:-1]] = walk(path + entry)
        else:
            found[name or entry] = get(path + number + "/openssh-key" if is_key else path + entry)
    return found
versions = ["2021-03-23", "2018-09-24", "2016-09-02", "2009-04-04"]
version = next(version for version in versions if get(version + "/meta-data/instance-id"))
print("walked", version, walk(version + "/meta-data/"), repr(get(version + "/user-data")))
"#;

/// The answers that data source `Ec2` of cloud-init needs, and a long one.
fn metadata(long: &str) -> Metadata {
    let metadata = Metadata::new();
    let meta = r#"{"instance-id":"i-17","local-hostname":"web-1","public-keys":{"0=web":"","0":{"openssh-key":"ssh-ed25519 AAAA"}}}"#;
    let document = format!(
        "{{\"2009-04-04\":{{\"meta-data\":{meta},\"user-data\":\"#cloud-config\\nx: 1\\n\"}},\"latest\":{{\"meta-data\":{meta}}},\"long\":\"{long}\"}}"
    );
    metadata.set(&document).unwrap();
    metadata
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn curl_reads_what_the_host_program_sets_and_the_tap_device_carries_none_of_it() {
    // The host answers at the address, too, if it is asked.
    let tap = HostTap::new("vmc-meta", Some("10.77.9.1/24"), 1500);
    host("ip", &["address", "add", "169.254.169.254/32", "dev", &tap.name]);
    let decoy = TcpListener::bind("169.254.169.254:80").unwrap();
    decoy.set_nonblocking(true).unwrap();
    let long = "0123456789abcde\\n".repeat(2_500);
    let metadata = metadata(&long);
    let captured = Captured::default();
    let layer = captured.clone();
    let nic = Nic::tap(&tap.name).unwrap().layer(move |below| layer.layer(below)).never_blocks().metadata(&metadata);
    let script = r#"
TOKEN=$(token)
in_root python3 /tmp/walk.py
echo "list=$(get 2009-04-04/meta-data/ | tr '\n' ' ')-end"
echo "id=$(get 2009-04-04/meta-data/instance-id)-end"
echo "keys=$(get 2009-04-04/meta-data/public-keys/ | tr '\n' ' ') $(get 2009-04-04/meta-data/public-keys/0/)-end"
echo "key=$(get 2009-04-04/meta-data/public-keys/0/openssh-key)-end"
echo "user=$(get 2009-04-04/user-data | md5sum | cut -d' ' -f1)-end"
echo "json=$(get latest/meta-data/public-keys -H 'Accept: application/json')-end"
echo "refused=$(status $url/latest) $(status -H 'X-metadata-token: 00' $url/latest) $(status -X PUT $url/latest/api/token) $(status -X POST -d x $url/latest) $(status -X PUT -H 'X-Forwarded-For: 1.2.3.4' -H 'X-metadata-token-ttl-seconds: 60' $url/latest/api/token) $(status -H "X-metadata-token: $TOKEN" $url/none)-end"
short=$(token 1); sleep 2; echo "ended=$(status -H "X-metadata-token: $short" $url/latest)-end"
echo "long=$(get long | md5sum | cut -d' ' -f1)-end"
in_root bash -c 'for n in $(seq 40); do curl -s -f --retry 5 --max-time 60 -H "X-metadata-token: '$TOKEN'" '$url'/long | md5sum & done; wait' | sort | uniq -c | while read count sum rest; do echo "many=$count $sum-end"; done
echo "kept=$(get '{latest,2009-04-04}/meta-data/instance-id' -w ':%{num_connects} ')-end"
in_root bash -c 'for n in $(seq 30); do exec {fd}<>/dev/tcp/169.254.169.254/80; printf "GET / HT" >&$fd; done; sleep 2; curl -s -f --max-time 60 -H "X-metadata-token: '$TOKEN'" '$url'/latest/meta-data/instance-id; echo " beside thirty"'
echo "ping=$(in_root ping -c 3 -i 0.2 -W 5 10.77.9.1 | grep -o '[0-9]* received')-end"
echo ready
until [ "$(get latest/meta-data/instance-id)" = i-18 ]; do sleep 1; done
echo "patched, and $(get latest/meta-data/local-hostname) is what it was"
"#;
    let script = format!("cat > /root/tmp/walk.py <<'END'\n{WALK}\nEND\n{script}");
    let guest = guest("10.77.9.2", &script).start(|builder| builder.disk(root_disk()).nic(nic));
    guest.expect("ready");
    metadata.patch(r#"{"latest":{"meta-data":{"instance-id":"i-18"}}}"#).unwrap();
    let text = guest.finish();
    let walked = "walked 2009-04-04 {'instance-id': 'i-17', 'local-hostname': 'web-1', 'public-keys': {'0': {'openssh-key': \
                  'ssh-ed25519 AAAA'}, 'web': 'ssh-ed25519 AAAA'}} '#cloud-config\\nx: 1\\n'";
    assert!(text.contains(walked), "{text}");
    assert_eq!(between(&text, "list=", "-end"), "instance-id local-hostname public-keys/");
    assert_eq!(between(&text, "id=", "-end"), "i-17");
    assert_eq!(between(&text, "keys=", "-end"), "0/ 0=web openssh-key");
    assert_eq!(between(&text, "key=", "-end"), "ssh-ed25519 AAAA");
    assert_eq!(between(&text, "user=", "-end"), md5("#cloud-config\nx: 1\n"));
    assert_eq!(between(&text, "json=", "-end"), r#"{"0":{"openssh-key":"ssh-ed25519 AAAA"},"0=web":""}"#);
    assert_eq!(between(&text, "refused=", "-end"), "401 401 400 405 400 404");
    assert_eq!(between(&text, "ended=", "-end"), "401");
    let sum = md5(&long.replace("\\n", "\n"));
    assert_eq!(between(&text, "long=", "-end"), sum);
    assert_eq!(between(&text, "many=", "-end"), format!("40 {sum}"), "{text}");
    assert_eq!(between(&text, "kept=", "-end"), "i-17:1 i-17:0");
    assert!(text.contains("i-17 beside thirty"), "{text}");
    assert_eq!(between(&text, "ping=", "-end"), "3 received");
    assert!(text.contains("patched, and web-1 is what it was"), "{text}");
    assert!(decoy.accept().is_err(), "the host was asked");
    let frames = captured.frames();
    assert!(frames.iter().any(|frame| frame.windows(4).any(|bytes| bytes == [10, 77, 9, 1])), "the ping was captured");
    for frame in frames {
        assert!(!frame.windows(4).any(|bytes| bytes == SERVICE), "the TAP device was given {frame:02x?}");
    }
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test --long"]
fn each_cpu_reads_over_its_own_queue() {
    let tap = HostTap::multi_queue("vmc-metaq", "10.77.10.1/24");
    let metadata = metadata("x").needs_token(false);
    let script = r#"
for cpu in 0 1 0 1; do echo "cpu$cpu=$(in_root taskset -c $cpu curl -s --max-time 60 $url/latest/meta-data/instance-id)-end"; done
echo "queues=$(ls -d /sys/class/net/eth0/queues/tx-* | wc -l)-end"
"#;
    let nic = Nic::tap(&tap.name).unwrap().metadata(&metadata);
    let text = guest("10.77.10.2", script).run(|builder| builder.vcpus(2).disk(root_disk()).nic(nic));
    assert_eq!(text.matches("=i-17-end").count(), 4, "{text}");
    assert_eq!(between(&text, "queues=", "-end"), "2");
}

/// Runs cloud-init's stages as systemd's units do.
const CLOUD_INIT: &str = r#"
cp -a /root/etc /root/tmp/etc && mount -o bind /root/tmp/etc /root/etc
mount -t tmpfs lib /root/var/lib; mount -t tmpfs log /root/var/log
cat >/root/etc/cloud/cloud.cfg.d/99-vmcell.cfg <<'END'
datasource_list: [Ec2]
datasource: {Ec2: {strict_id: false, metadata_urls: ["http://169.254.169.254"]}}
network: {config: disabled}
cloud_init_modules: [set_hostname]
cloud_config_modules: []
cloud_final_modules: [scripts-user]
END
in_root cloud-init init
echo "instance=$(in_root cloud-init query v1.instance_id)-end"
echo "hostname=$(in_root hostname)-end"
echo "key=$(in_root cloud-init query ds.meta_data.public-keys.web)-end"
in_root cloud-init modules --mode=final
"#;

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn cloud_init_takes_name_key_and_script_from_the_metadata() {
    let tap = HostTap::new("vmc-cloud", Some("10.77.12.1/24"), 1500);
    // It takes no token where it does not take the machine for one of Amazon's.
    let metadata = Metadata::new().needs_token(false);
    let script = "#!/bin/sh\necho script of $(hostname)\n";
    let meta = r#"{"instance-id":"i-17","local-hostname":"web-1","public-keys":{"0=web":"","0":{"openssh-key":"ssh-ed25519 AAAA"}}}"#;
    let document = format!(r#"{{"2009-04-04":{{"meta-data":{meta},"user-data":{script:?}}},"latest":{{}}}}"#);
    metadata.set(&document).unwrap();
    let nic = Nic::tap(&tap.name).unwrap().metadata(&metadata);
    let text = guest("10.77.12.2", CLOUD_INIT).run(|builder| builder.disk(root_disk()).nic(nic));
    assert_eq!(between(&text, "instance=", "-end"), "i-17", "{text}");
    assert_eq!(between(&text, "hostname=", "-end"), "web-1", "{text}");
    assert_eq!(between(&text, "key=", "-end"), "ssh-ed25519 AAAA", "{text}");
    assert!(text.contains("script of web-1"), "{text}");
}

fn md5(text: &str) -> String {
    use std::process::{Command, Stdio};
    let mut child = Command::new("md5sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("md5sum starts");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("md5sum reads");
    let output = child.wait_with_output().expect("md5sum ends");
    String::from_utf8_lossy(&output.stdout).split_whitespace().next().expect("a sum").to_owned()
}
