//! The VM's place in a private network of several launchers on one machine.

use std::path::PathBuf;
use std::sync::Arc;

use vmcell::network::{Network, NetworkConfig, Prefix, Rule, Subnet, Uplink};
use vmcell::{EventFd, Nic};

use crate::place::{Place, usual_folder};
use crate::wire::Wire;

/// As long as packets may be: a Unix socket takes longer ones than WireGuard on a usual link does, and few that are long are fewer to carry.
const MTU: u16 = 9000;
/// So many packets may wait for the thread that carries them.
const PACKETS: usize = 1024;
/// The launcher's VM is the only one of its host number.
const MACHINE: u32 = 1;

/// What a network is called, and where its launchers meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkOption {
    name: String,
    folder: Option<PathBuf>,
}

/// Reads `NAME[,socket=PATH]`. A path may have commas.
pub fn parse_network(text: &str) -> Result<NetworkOption, String> {
    let (name, option) = text.split_once(',').map_or((text, None), |(name, option)| (name, Some(option)));
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if !(1..=63).contains(&name.len()) || !name.bytes().all(is_plain) || name.starts_with('-') || name.ends_with('-') {
        return Err(format!(
            "'{name}' is no name of a network, allowed are 1 to 63 letters, digits and hyphens inside"
        ));
    }
    let folder = match option.map(|option| option.strip_prefix("socket=").ok_or(option)) {
        None => None,
        Some(Ok("")) => return Err("'socket=' has no path, which is that of a folder".to_owned()),
        Some(Ok(path)) => Some(PathBuf::from(path)),
        Some(Err(option)) => return Err(format!("unknown network option '{option}', allowed is socket=PATH")),
    };
    Ok(NetworkOption { name: name.to_owned(), folder })
}

/// A network that was joined, before anything is carried.
pub struct Joined {
    uplink: Uplink,
    bell: Arc<EventFd>,
    place: Place,
    told: String,
}

impl Joined {
    /// Takes a place in the network, and makes the VM's card.
    pub fn new(option: &NetworkOption) -> vmcell::Result<(Self, Nic)> {
        let folder = option.folder.clone().map_or_else(|| usual_folder(&option.name), Ok)?;
        let place = Place::take(&folder, &option.name)?;
        let subnet = subnet_of(&option.name);
        let network = Network::new(NetworkConfig::new(subnet).mtu(MTU))?;
        // It is there to be tried by hand: whoever has the folder may reach everybody.
        let whole = subnet.prefix();
        network.set_rules(&[Rule::allow().from(whole).to(whole)])?;
        let bell = Arc::new(EventFd::new()?);
        let rung = Arc::clone(&bell);
        let mut uplink = network.uplink(MTU, PACKETS, move || rung.signal())?;
        uplink.set_routes(&others(subnet, place.host)?)?;
        let port = network.port(subnet.machine(place.host, MACHINE)?)?;
        let told = format!("the guest has {} in the network {}", port.address(), option.name);
        Ok((Self { uplink, bell, place, told }, port.into_nic()))
    }

    /// The folder in which sockets are found and removed.
    pub fn folder(&self) -> &std::path::Path {
        &self.place.folder
    }

    /// Says which address the guest has.
    pub fn told(&self) -> &str {
        &self.told
    }

    /// Carries packets from now on, on a thread of its own.
    pub fn start(self) -> vmcell::Result<Wire> {
        Wire::start(self.uplink, self.place, self.bell)
    }
}

/// The addresses of a network by its name, which all launchers of it agree on: of FNV-1a with 64 bits over the name, the first three bytes are the realm,
/// and the last four the network's number.
fn subnet_of(name: &str) -> Subnet {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let [r0, r1, r2, _, n0, n1, n2, n3] = hash.to_be_bytes();
    Subnet::new([r0, r1, r2], u32::from_be_bytes([n0, n1, n2, n3]))
}

/// All hosts but this one, as ranges: those that have the first bits of its number in common with it, and not the next one.
fn others(subnet: Subnet, host: u16) -> vmcell::Result<Vec<Prefix>> {
    (0..16)
        .map(|bit| {
            let other = subnet.host_prefix(host ^ (0x8000 >> bit)).address();
            let bits = 73 + bit;
            let cut = u128::from(other) >> (128 - u32::from(bits)) << (128 - u32::from(bits));
            Prefix::new(cut.into(), bits)
        })
        .collect()
}
