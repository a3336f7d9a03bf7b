//! Two VMs on a private network in this process: no TAP device, no bridge, no root. The second may be reached as the rules say, and no
//! other way. It starts when the first packet comes for `web.internal`.
//!
//! `cargo run --release --features network --example private_network -- vmlinuz --initrd initrd.img --rule 'allow tcp 80' --rule 'allow icmp'`
//!
//! In the first guest: `ip link set eth0 up`, and then `ping -6 web.internal`, once /etc/resolv.conf has the name server that is printed.
//!
//! With the feature `wireguard`, `--laptop laptop.conf --endpoint 192.0.2.1:51820` lets a laptop in, too, with the file that this writes:
//! `wg-quick up ./laptop.conf`.
#![allow(clippy::print_stdout, reason = "a program talks to the person who runs it")]

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use clap::Parser;
use vmcell::network::{Demand, MachineAddress, Network, NetworkConfig, Refusal, Rule, ServiceConfig, Subnet};
use vmcell::{Boot, Console, Error, ErrorKind, Status, Vm};

/// Boots a guest on a private network, and another one when it is wanted.
#[derive(Clone, Parser)]
struct Options {
    /// A bzImage or an ELF image
    kernel: PathBuf,
    #[arg(long)]
    initrd: Option<PathBuf>,
    #[arg(long, default_value = "console=ttyS0", allow_hyphen_values = true)]
    cmdline: String,
    /// What may pass, such as "allow tcp 80"; the first that fits decides, and nothing passes if none does
    #[arg(long = "rule")]
    rules: Vec<Rule>,
    /// Where the second guest's console goes; the first one's is standard output
    #[arg(long, default_value = "second-guest.log")]
    second_console: PathBuf,
    /// What the second guest's console says once its server is up
    #[arg(long, default_value = "login:")]
    ready: String,
    /// Where to write the configuration of a laptop that may come in by WireGuard
    #[cfg(feature = "wireguard")]
    #[arg(long, requires = "endpoint")]
    laptop: Option<PathBuf>,
    /// By which address and port the laptop finds this host
    #[cfg(feature = "wireguard")]
    #[arg(long)]
    endpoint: Option<std::net::SocketAddr>,
}

/// A laptop's way into the network.
#[cfg(feature = "wireguard")]
mod laptop {
    use std::io::Write;
    use std::net::SocketAddr;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::Path;

    use vmcell::network::Network;
    use vmcell::network::wireguard::{AllowedIp, Config, InterfaceAddress, PeerConfig, PrivateKey, Tunnel};

    /// Writes the laptop's configuration, and opens the tunnel that it comes in by.
    pub fn let_in(network: &Network, file: &Path, endpoint: SocketAddr) -> vmcell::Result<Tunnel> {
        let subnet = network.subnet();
        let key = PrivateKey::generate()?;
        // Like a machine of a host that there is not.
        let address = subnet.machine(0xee, 1)?.ip();
        let mut own = Config::new(PrivateKey::generate()?);
        own.listen_port = Some(endpoint.port());
        own.peers.push(PeerConfig::new(key.public_key()).allow(AllowedIp::single(address.into())));
        let tunnel = Tunnel::builder(own).join(network)?;
        let mut config = Config::new(key);
        config.addresses.push(InterfaceAddress { address: address.into(), prefix_len: 128 });
        config.dns.push(subnet.dns().into());
        config.search_domains.push("internal".to_owned());
        config.mtu = Some(1420);
        let peer = PeerConfig::new(tunnel.public_key()).allow(subnet.prefix().into()).endpoint(endpoint);
        config.peers.push(peer.persistent_keepalive(25));
        // It holds the laptop's private key.
        let written = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
        let written = written.and_then(|mut file| file.write_all(config.to_text().as_bytes()));
        let what = format!("cannot write {}", file.display());
        written.map_err(|e| vmcell::Error::new(vmcell::ErrorKind::Host, what).with_source(e))?;
        Ok(tunnel)
    }
}

fn build(options: &Options, network: &Network, machine: MachineAddress, console: Console) -> vmcell::Result<Vm> {
    let mut boot = Boot::linux(&options.kernel).cmdline(&options.cmdline);
    if let Some(initrd) = &options.initrd {
        boot = boot.initrd(initrd);
    }
    let nic = network.port(machine)?.into_nic();
    Vm::builder().memory_mib(256).boot(boot).nic(nic).console(console).build()
}

/// A console that says once when a text has been seen.
fn watched(wanted: &str, file: &PathBuf) -> (Console, mpsc::Receiver<()>) {
    let (seen, ready) = mpsc::channel();
    let (wanted, mut last) = (wanted.as_bytes().to_vec(), Vec::new());
    let watch = Console::callback(move |bytes| {
        last.extend_from_slice(bytes);
        if last.windows(wanted.len().max(1)).any(|window| window.starts_with(&wanted)) {
            let _ = seen.send(());
        }
        // As much as the text may have begun in.
        last.drain(..last.len().saturating_sub(wanted.len()));
    });
    (Console::file(file).also(watch), ready)
}

/// Boots the second guest, and has it get what waits once its server is up.
fn start_second(options: &Options, network: &Network, demand: &Demand) -> vmcell::Result<Vm> {
    let machine = network.subnet().machine(1, 2)?;
    println!("somebody wants web.internal: the second guest starts");
    let (console, ready) = watched(&options.ready, &options.second_console);
    let vm = build(options, network, machine, console)?;
    vm.start()?;
    let late = |_| Error::new(ErrorKind::Timeout, "the second guest was not ready in a minute");
    ready.recv_timeout(Duration::from_secs(60)).map_err(late)?;
    demand.service().add(machine)?;
    Ok(vm)
}

fn main() -> vmcell::Result<()> {
    let options = Options::parse();
    // A realm of one's own is drawn by lot, once.
    let subnet = Subnet::new([0xac, 0x17, 0x05], 1);
    let network = Network::new(NetworkConfig::new(subnet))?;
    network.set_rules(&options.rules)?;
    if options.rules.is_empty() {
        println!("without a rule, nothing passes but questions for names: see --rule");
    }
    println!("names are known at {}", subnet.dns());
    let second = Arc::new(Mutex::new(None));
    let (keeps, starts, chosen) = (Arc::clone(&second), network.clone(), options.clone());
    let config = ServiceConfig::new().name("web").hold_time(Duration::from_secs(60)).on_demand(move |demand| {
        let mut second = keeps.lock().unwrap_or_else(PoisonError::into_inner);
        if second.as_ref().is_some_and(|vm: &Vm| vm.status() != Status::Ended) {
            return Err(Error::new(ErrorKind::InvalidState, "the second guest runs, and there is no third one"));
        }
        // Its port goes with it.
        second.take();
        *second = Some(start_second(&chosen, &starts, demand)?);
        Ok(())
    });
    let service = network.service(subnet.service(1), config)?;
    println!("web.internal has {}", service.address());
    #[cfg(feature = "wireguard")]
    let _tunnel = match (&options.laptop, options.endpoint) {
        (Some(file), Some(endpoint)) => Some(laptop::let_in(&network, file, endpoint)?),
        _ => None,
    };
    let first = build(&options, &network, subnet.machine(1, 1)?, Console::stdio())?;
    first.start()?;
    println!("the first guest ended: {:?}", first.wait()?);
    for count in network.rule_counts() {
        println!("{}: {} flows, {} packets", count.rule, count.flows, count.packets);
    }
    println!("{:?}", service.metrics());
    println!("packets that no rule allowed: {}", network.dropped(Refusal::Policy));
    Ok(())
}
