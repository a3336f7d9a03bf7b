//! Debian's wireguard-go on the same path: datagrams go into its TUN device, and come out of a tunnel of ours.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddrV6, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vmcell::network::wireguard::{PeerConfig, PrivateKey};
use vmcell::{IoThread, Result};

use super::bridge::ip;
use super::cpu::Clock;
use super::failed;
use super::packet::{HEADERS, SUBNET};
use super::tunnel::{Site, gbit};

const PACKET: usize = 1420;
const PATIENCE: Duration = Duration::from_secs(10);

/// A process of it, and the tunnel that is its peer. Killed when dropped, with its device.
pub struct Peer {
    child: Child,
    site: Site,
    socket: UdpSocket,
}

impl Peer {
    /// Starts it, if it is installed and we are root.
    pub fn start() -> Result<Option<Self>> {
        let name = format!("vmw{}", std::process::id());
        let mut command = Command::new("wireguard-go");
        command.args(["-f", &name]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                println!("no wireguard-go to compare with: {error}");
                return Ok(None);
            }
        };
        // It takes its key in another form than files have it.
        let (mut bytes, key) = ([0; 32], PrivateKey::generate()?);
        fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).map_err(failed)?;
        let theirs = PrivateKey::from_bytes(bytes);
        let thread = IoThread::new("bench-wg-sink")?;
        let site = Site::new(2, 1, &key, PeerConfig::new(theirs.public_key()), &thread)?;
        let own = SUBNET.machine(1, 1)?.ip();
        // The device is there as soon as the program has begun.
        let control = format!("/var/run/wireguard/{name}.sock");
        wait_for(Path::new(&control))?;
        let hex = |key: &[u8]| key.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let settings = format!(
            "set=1\nprivate_key={}\npublic_key={}\nendpoint={}\nallowed_ip={}\n\n",
            hex(&bytes),
            hex(key.public_key().as_bytes()),
            site.address(),
            SUBNET.host_prefix(2),
        );
        let mut socket = UnixStream::connect(&control).map_err(failed)?;
        socket.write_all(settings.as_bytes()).map_err(failed)?;
        ip(&format!("link set dev {name} mtu {PACKET} up"))?;
        ip(&format!("-6 address add {own}/128 dev {name} nodad"))?;
        ip(&format!("-6 route add {} dev {name}", SUBNET.host_prefix(2)))?;
        let socket = UdpSocket::bind(SocketAddrV6::new(own, 7, 0, 0)).map_err(failed)?;
        socket.connect(SocketAddrV6::new(SUBNET.machine(2, 1)?.ip(), 7, 0, 0)).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        Ok(Some(Self { child, site, socket }))
    }

    /// Waits until it has agreed on keys.
    pub fn sealing(mut self) -> Result<Sealing> {
        let begun = Instant::now();
        while self.site.take() == 0 {
            if begun.elapsed() > PATIENCE {
                return Err(failed("wireguard-go did not agree on keys"));
            }
            let _ = self.socket.send(&[0; 100]);
            std::thread::sleep(Duration::from_millis(10));
        }
        let clock = Clock::of_process(self.child.id()).map_err(failed)?;
        Ok(Sealing { peer: self, clock })
    }
}

pub struct Sealing {
    peer: Peer,
    clock: Clock,
}

impl Sealing {
    /// Gbit of packets that have arrived, for each second of its CPU time.
    pub fn turn(&mut self, time: Duration) -> Result<f64> {
        let Peer { site, socket, .. } = &mut self.peer;
        let stop = AtomicBool::new(false);
        let (count, spent) = std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let data = [0; PACKET - HEADERS];
                while !stop.load(Ordering::Relaxed) {
                    if (0..64).any(|_| socket.send(&data).is_err()) {
                        std::thread::sleep(Duration::from_micros(50));
                    }
                }
            });
            let (begun, before, mut count) = (Instant::now(), self.clock.read(), 0u64);
            while begun.elapsed() < time {
                count += site.take();
                std::thread::sleep(Duration::from_micros(50));
            }
            stop.store(true, Ordering::Relaxed);
            let _ = sender.join();
            (count, (self.clock.read() - before).as_secs_f64())
        });
        std::thread::sleep(Duration::from_millis(10));
        site.take();
        if count == 0 {
            return Err(failed("no packet came from wireguard-go"));
        }
        Ok(gbit(count) / spent)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Its device goes with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_for(path: &Path) -> Result<()> {
    let begun = Instant::now();
    while fs::metadata(path).is_err() {
        if begun.elapsed() > PATIENCE {
            return Err(failed(format!("{} does not appear", path.display())));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
