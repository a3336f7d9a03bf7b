//! How fast a vsock is beside virtio-net on TAP, in the same guest.

#[path = "support/figures.rs"]
mod figures;
mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use support::linux::{HostTap, LinuxGuest, root_disk};
use vmcell::{Nic, VsockConfig};

const PORT: u32 = 5000;
const LIMIT: Duration = Duration::from_secs(240);

/// Each measurement is a line: what, how, and how many megabytes or round trips a second.
const PROGRAM: &str = r#"
import socket, sys, time
rounds, size, trips = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
def connect(how):
    kind, address = (socket.AF_VSOCK, (2, 5000)) if how == "vsock" else (socket.AF_INET, ("10.77.8.1", 5000))
    stream = socket.socket(kind, socket.SOCK_STREAM)
    stream.connect(address)
    if how == "tap":
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream
def sent(stream):
    stream.sendall(b"s")
    piece = bytes(1 << 16)
    for _ in range(size >> 16):
        stream.sendall(piece)
    stream.shutdown(socket.SHUT_WR)
    assert stream.recv(1) == b"k"
    return size / 1e6
def got(stream):
    stream.sendall(b"g" + size.to_bytes(8, "little"))
    left = size
    while left:
        left -= len(stream.recv(1 << 16))
    return size / 1e6
def trips_of_one_byte(stream):
    stream.sendall(b"e")
    for _ in range(trips):
        stream.sendall(b"x")
        assert stream.recv(1) == b"x"
    return trips
for _ in range(rounds):
    for measure in (sent, got, trips_of_one_byte):
        for how in ("vsock", "tap"):
            stream = connect(how)
            begun = time.monotonic()
            count = measure(stream)
            print("measured", measure.__name__, how, count / (time.monotonic() - begun), flush=True)
            stream.close()
"#;

/// Serves one measurement after the other.
fn serve(mut stream: impl Read + Write) -> std::io::Result<()> {
    let (mut what, mut bytes) = ([0], vec![0; 1 << 16]);
    stream.read_exact(&mut what)?;
    match what[0] {
        b's' => {
            while stream.read(&mut bytes)? > 0 {}
            stream.write_all(b"k")
        }
        b'g' => {
            let mut size = [0; 8];
            stream.read_exact(&mut size)?;
            (0..u64::from_le_bytes(size) >> 16).try_for_each(|_| stream.write_all(&bytes))
        }
        _ => loop {
            match stream.read(&mut bytes)? {
                0 => return Ok(()),
                len => stream.write_all(&bytes[..len])?,
            }
        },
    }
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test --long"]
fn a_vsock_is_not_far_behind_a_network_card_on_tap() {
    let tap = HostTap::new("vmc-speed", Some("10.77.8.1/24"), 1500);
    let (rounds, mib, trips) = if support::is_long() { (5, 16, 1000) } else { (1, 8, 200) };
    let script = format!(
        "for module in /spare/*vsock*.ko; do insmod $module; done
in_root ip address add 10.77.8.2/24 dev eth0; in_root ip link set eth0 up
cat > /root/tmp/test.py <<'END'\n{PROGRAM}\nEND
echo ready; read line; in_root python3 /tmp/test.py {rounds} {} {trips}",
        mib << 20
    );
    let nic = Nic::tap(&tap.name).expect("the TAP device is opened");
    let guest = LinuxGuest::in_distribution(&script)
        .limit(LIMIT)
        .start(|builder| builder.disk(root_disk()).nic(nic).vsock(VsockConfig::new(3)));
    let by_vsock = guest.vm.vsock().unwrap().listen(PORT).unwrap();
    let by_tap = TcpListener::bind(("10.77.8.1", PORT as u16)).unwrap();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = by_vsock.accept() {
            let _ = serve(stream);
        }
    });
    std::thread::spawn(move || {
        while let Ok((stream, _)) = by_tap.accept() {
            let _ = stream.set_nodelay(true).and_then(|()| serve(stream));
        }
    });
    guest.expect("ready");
    guest.type_in("\n");
    let text = guest.finish();
    for what in ["sent", "got", "trips_of_one_byte"] {
        let [vsock, tap] = ["vsock", "tap"].map(|how| figures::median(&text, &format!("measured {what} {how} ")));
        figures::show(&format!("{what}: vsock {vsock:.1}, card {tap:.1}: {:.2}", vsock / tap));
        assert!(vsock > tap / 5.0, "{what}: a vsock does {vsock} a second, the card {tap}: {text}");
    }
}
