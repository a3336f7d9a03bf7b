//! Two VMs on a private network in this process: no TAP device, no bridge, no root. The second may be reached as the rules say, and no
//! other way.
//!
//! `cargo run --release --features network --example private_network -- vmlinuz --initrd initrd.img --rule 'allow tcp 80' --rule 'allow icmp'`
//!
//! In the first guest: `ip link set eth0 up`, and then `ping -6 two.internal`, once /etc/resolv.conf has the name server that is printed.
#![allow(clippy::print_stdout, reason = "a program talks to the person who runs it")]

use std::path::PathBuf;

use clap::Parser;
use vmcell::network::{Network, NetworkConfig, Refusal, Rule, Subnet};
use vmcell::{Boot, Console, Vm};

/// Boots two guests on one private network.
#[derive(Parser)]
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
}

fn build(options: &Options, network: &Network, machine: u32, name: &str, console: Console) -> vmcell::Result<Vm> {
    let mut boot = Boot::linux(&options.kernel).cmdline(&options.cmdline);
    if let Some(initrd) = &options.initrd {
        boot = boot.initrd(initrd);
    }
    let port = network.port(network.subnet().machine(1, machine)?)?.named(name)?;
    println!("{name}.internal has {}", port.address());
    Vm::builder().memory_mib(256).boot(boot).nic(port.into_nic()).console(console).build()
}

fn main() -> vmcell::Result<()> {
    let options = Options::parse();
    // A realm of one's own is drawn by lot, once.
    let network = Network::new(NetworkConfig::new(Subnet::new([0xac, 0x17, 0x05], 1)))?;
    network.set_rules(&options.rules)?;
    println!("names are known at {}", network.subnet().dns());
    let second = build(&options, &network, 2, "two", Console::file(&options.second_console))?;
    let first = build(&options, &network, 1, "one", Console::stdio())?;
    second.start()?;
    first.start()?;
    println!("the first guest ended: {:?}", first.wait()?);
    second.stop()?;
    for count in network.rule_counts() {
        println!("{}: {} flows, {} packets", count.rule, count.flows, count.packets);
    }
    println!("packets that no rule allowed: {}", network.dropped(Refusal::Policy));
    Ok(())
}
