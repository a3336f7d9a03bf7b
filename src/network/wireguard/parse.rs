//! Reads `wg-quick` files: wg-quick(8) and wg(8), "CONFIGURATION FILE FORMAT".

use std::fmt::Display;
use std::str::FromStr;

use super::allowed_ip::{AllowedIp, split};
use super::check::{Seen, host_name};
use super::config::{Config, Endpoint, InterfaceAddress, MAX_ALLOWED_IPS, MAX_PEERS, PeerConfig, check_mtu};
use super::key::{PresharedKey, PrivateKey, PublicKey};
use super::{refused, shown};
use crate::error::{Error, Result};

/// The longest text, in bytes: that of the most peers, with a few prefixes each.
const MAX_TEXT: usize = 32 << 20;
/// The most values of a list of the interface.
const MAX_LIST: usize = 1024;

/// The settings that are known to `wg-quick` and refused here, with the reason.
const REFUSED: [(&str, &str); 8] = [
    ("PreUp", COMMANDS),
    ("PostUp", COMMANDS),
    ("PreDown", COMMANDS),
    ("PostDown", COMMANDS),
    ("SaveConfig", "a configuration is written by the program that has it, and only when it says so"),
    ("Table", ROUTES),
    ("FwMark", ROUTES),
    ("AdvancedSecurity", "messages are those of WireGuard and no other protocol"),
];
const COMMANDS: &str = "no command is run from a file";
const ROUTES: &str = "the routes of the host are not touched, so there is nothing that it could be for";

impl Config {
    /// Reads a `wg-quick` file.
    ///
    /// # Errors
    /// [`Network`](crate::ErrorKind::Network), with the number of the line: a bad value, a setting given twice, a key or a prefix of two
    /// peers, and any setting not known. `PostUp` and the like are refused, since a library runs no commands from a file, as are `FwMark` and
    /// `Table`, which belong to the kernel's routing.
    pub fn parse(text: &str) -> Result<Self> {
        parse(text)
    }
}

/// What was read so far.
#[derive(Default)]
struct File {
    section: Section,
    interface: Interface,
    peers: Vec<Peer>,
}

#[derive(Default)]
struct Interface {
    started: Option<usize>,
    private_key: Option<(usize, PrivateKey)>,
    listen_port: Option<(usize, u16)>,
    mtu: Option<(usize, u16)>,
    rest: Lists,
}

#[derive(Default)]
struct Lists {
    addresses: Vec<InterfaceAddress>,
    dns: Vec<std::net::IpAddr>,
    search_domains: Vec<String>,
}

#[derive(Default)]
struct Peer {
    started: usize,
    public_key: Option<(usize, PublicKey)>,
    preshared_key: Option<(usize, PresharedKey)>,
    allowed_ips: Vec<(usize, AllowedIp)>,
    endpoint: Option<(usize, Endpoint)>,
    persistent_keepalive: Option<(usize, u16)>,
}

#[derive(Default)]
enum Section {
    #[default]
    None,
    Interface,
    Peer,
}

fn parse(text: &str) -> Result<Config> {
    if text.len() > MAX_TEXT {
        return Err(refused(format!("a configuration of {} bytes, allowed are {MAX_TEXT}", text.len())));
    }
    let mut file = File::default();
    for (number, line) in (1_usize..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            file.read(line, number).map_err(|error| error.about(&format!("line {number}")))?;
        }
    }
    assemble(file.interface, file.peers)
}

impl File {
    fn read(&mut self, line: &str, number: usize) -> Result<()> {
        if line.starts_with('[') {
            return self.begin(line, number);
        }
        let Some((name, value)) = line.split_once('=').map(|(name, value)| (name.trim(), value.trim())) else {
            return Err(refused("neither a section, as `[Peer]`, nor a setting, as `MTU = 1420`"));
        };
        if value.is_empty() && !name.eq_ignore_ascii_case("AllowedIPs") {
            return Err(refused(format!("`{}` has no value", shown(name))));
        }
        let read = match (&self.section, self.peers.last_mut()) {
            (Section::Interface, _) => self.interface.set(name, value, number),
            (Section::Peer, Some(peer)) => peer.set(name, value, number),
            _ => Err(refused("a setting before the first section, which is `[Interface]` or `[Peer]`")),
        };
        read.map_err(|error| error.about(&format!("`{}`", shown(name))))
    }

    fn begin(&mut self, line: &str, number: usize) -> Result<()> {
        if line.eq_ignore_ascii_case("[Interface]") {
            if let Some(first) = self.interface.started.replace(number) {
                return Err(refused(format!("a second `[Interface]`, the first is in line {first}")));
            }
            self.section = Section::Interface;
        } else if line.eq_ignore_ascii_case("[Peer]") {
            if self.peers.len() >= MAX_PEERS {
                return Err(refused(format!("more peers than {MAX_PEERS}")));
            }
            self.peers.push(Peer { started: number, ..Peer::default() });
            self.section = Section::Peer;
        } else {
            return Err(refused(format!("the section `{}`, known are `[Interface]` and `[Peer]`", shown(line))));
        }
        Ok(())
    }
}

/// Takes the value of a setting that may be given once.
fn once<T>(slot: &mut Option<(usize, T)>, line: usize, value: T) -> Result<()> {
    match slot {
        Some((first, _)) => Err(refused(format!("given again, first in line {first}"))),
        None => {
            *slot = Some((line, value));
            Ok(())
        }
    }
}

fn number<T: FromStr + Display + PartialOrd>(value: &str, least: T, most: T) -> Result<T> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    let number = value.parse().ok().filter(|number| digits && *number >= least && *number <= most);
    number.ok_or_else(|| refused(format!("`{}`, allowed are {least} to {most}", shown(value))))
}

fn unknown(name: &str, known: &str) -> Error {
    match REFUSED.iter().find(|(refused, _)| refused.eq_ignore_ascii_case(name)) {
        Some((_, reason)) => refused(format!("refused: {reason}")),
        None => refused(format!("no setting of this section; known are {known}")),
    }
}

fn values(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim)
}

impl Interface {
    fn set(&mut self, name: &str, value: &str, line: usize) -> Result<()> {
        match name.to_ascii_lowercase().as_str() {
            "privatekey" => once(&mut self.private_key, line, value.parse()?),
            "listenport" => once(&mut self.listen_port, line, number(value, 0, u16::MAX)?),
            "mtu" => {
                let mtu = number(value, 0, u16::MAX)?;
                check_mtu(mtu)?;
                once(&mut self.mtu, line, mtu)
            }
            "address" => values(value).try_for_each(|value| {
                let (address, prefix_len) = split(value)?;
                push(&mut self.rest.addresses, InterfaceAddress { address, prefix_len }, MAX_LIST)
            }),
            "dns" => values(value).try_for_each(|value| self.rest.dns(value)),
            _ => Err(unknown(name, "PrivateKey, ListenPort, Address, MTU and DNS")),
        }
    }
}

fn push<T: PartialEq + Display>(list: &mut Vec<T>, value: T, most: usize) -> Result<()> {
    if list.contains(&value) {
        return Err(refused(format!("`{value}` is given twice")));
    }
    if list.len() >= most {
        return Err(refused(format!("more values than {most}")));
    }
    list.push(value);
    Ok(())
}

impl Lists {
    fn dns(&mut self, value: &str) -> Result<()> {
        match value.parse() {
            Ok(server) => push(&mut self.dns, server, MAX_LIST),
            Err(_) => push(&mut self.search_domains, host_name(value)?.to_owned(), MAX_LIST),
        }
    }
}

impl Peer {
    fn set(&mut self, name: &str, value: &str, line: usize) -> Result<()> {
        match name.to_ascii_lowercase().as_str() {
            "publickey" => once(&mut self.public_key, line, value.parse()?),
            "presharedkey" => once(&mut self.preshared_key, line, value.parse()?),
            "allowedips" if value.is_empty() => Ok(()),
            "allowedips" => values(value).try_for_each(|value| {
                if self.allowed_ips.len() >= MAX_ALLOWED_IPS {
                    return Err(refused(format!("more prefixes than {MAX_ALLOWED_IPS}")));
                }
                self.allowed_ips.push((line, value.parse()?));
                Ok(())
            }),
            "endpoint" => once(&mut self.endpoint, line, endpoint(value)?),
            "persistentkeepalive" => {
                let off = value.eq_ignore_ascii_case("off");
                let seconds = if off { 0 } else { number(value, 0, u16::MAX)? };
                once(&mut self.persistent_keepalive, line, seconds)
            }
            _ => Err(unknown(name, "PublicKey, PresharedKey, AllowedIPs, Endpoint and PersistentKeepalive")),
        }
    }
}

fn endpoint(value: &str) -> Result<Endpoint> {
    if let Ok(address) = value.parse::<std::net::SocketAddr>() {
        number(&address.port().to_string(), 1, u16::MAX)?;
        return Ok(Endpoint::Address(address));
    }
    let Some((host, port)) = value.rsplit_once(':') else {
        return Err(refused(format!("`{}` has no port, as `192.0.2.1:51820` or `[fd00::1]:51820`", shown(value))));
    };
    let port = number(port, 1, u16::MAX)?;
    if host.parse::<std::net::Ipv6Addr>().is_ok() {
        let meant = format!("`[{host}]:{port}`");
        return Err(refused(format!("`{}` has an IPv6 address without brackets, as {meant} has them", shown(value))));
    }
    Ok(Endpoint::Name { host: host_name(host)?.to_owned(), port })
}

fn assemble(interface: Interface, peers: Vec<Peer>) -> Result<Config> {
    if interface.started.is_none() {
        return Err(refused("a configuration without the section `[Interface]`"));
    }
    let Some((_, private_key)) = interface.private_key else {
        return Err(refused("a configuration without the setting `PrivateKey` of the section `[Interface]`"));
    };
    let mut seen = Seen::new(&private_key);
    let mut config = Config::new(private_key);
    config.listen_port = interface.listen_port.map(|(_, port)| port);
    config.mtu = interface.mtu.map(|(_, mtu)| mtu);
    let Lists { addresses, dns, search_domains } = interface.rest;
    (config.addresses, config.dns, config.search_domains) = (addresses, dns, search_domains);
    for peer in peers {
        config.peers.push(assemble_peer(peer, &mut seen)?);
    }
    Ok(config)
}

fn assemble_peer(peer: Peer, seen: &mut Seen) -> Result<PeerConfig> {
    let at = |line: usize| move |error: Error| error.about(&format!("line {line}"));
    let Some((line, public_key)) = peer.public_key else {
        return Err(at(peer.started)(refused("this `[Peer]` has no `PublicKey`")));
    };
    seen.key(&public_key, line).map_err(at(line))?;
    for (line, prefix) in &peer.allowed_ips {
        seen.prefix(*prefix, *line).map_err(at(*line))?;
    }
    let mut config = PeerConfig::new(public_key);
    config.preshared_key = peer.preshared_key.map(|(_, key)| key);
    config.allowed_ips = peer.allowed_ips.into_iter().map(|(_, prefix)| prefix).collect();
    config.endpoint = peer.endpoint.map(|(_, endpoint)| endpoint);
    config.persistent_keepalive = peer.persistent_keepalive.map_or(0, |(_, seconds)| seconds);
    Ok(config)
}

#[cfg(test)]
#[path = "parse_test.rs"]
mod tests;
