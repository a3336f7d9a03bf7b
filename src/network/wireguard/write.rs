//! Writes `wg-quick` files.

use std::fmt::{Display, Write};

use super::config::{Config, Endpoint, PeerConfig};

impl Config {
    /// Writes a `wg-quick` file. **It contains the private key**, and the preshared keys. A name that [`check`](Self::check) refuses is
    /// written with `?` for what no name has, and refused by [`parse`](Self::parse).
    pub fn to_text(&self) -> String {
        write(self)
    }
}

fn write(config: &Config) -> String {
    let mut text = String::from("[Interface]\n");
    line(&mut text, "PrivateKey", Some(config.private_key.reveal()));
    line(&mut text, "ListenPort", config.listen_port);
    list(&mut text, "Address", &config.addresses);
    line(&mut text, "MTU", config.mtu);
    list(&mut text, "DNS", &config.dns);
    let domains: Vec<_> = config.search_domains.iter().map(|domain| name(domain)).collect();
    list(&mut text, "DNS", &domains);
    config.peers.iter().for_each(|peer| write_peer(&mut text, peer));
    text
}

fn write_peer(text: &mut String, peer: &PeerConfig) {
    text.push_str("\n[Peer]\n");
    line(text, "PublicKey", Some(peer.public_key));
    line(text, "PresharedKey", peer.preshared_key.as_ref().map(|key| key.reveal()));
    list(text, "AllowedIPs", &peer.allowed_ips);
    let endpoint = peer.endpoint.as_ref().map(|endpoint| match endpoint {
        Endpoint::Address(address) => address.to_string(),
        Endpoint::Name { host, port } => format!("{}:{port}", name(host)),
    });
    line(text, "Endpoint", endpoint);
    let keepalive = Some(peer.persistent_keepalive).filter(|seconds| *seconds > 0);
    line(text, "PersistentKeepalive", keepalive);
}

/// A name. What a name cannot have is written as `?`, so that no reader takes a part of it for a setting.
fn name(text: &str) -> String {
    let fits = |one: char| one.is_ascii_alphanumeric() || matches!(one, '-' | '_' | '.');
    text.chars().map(|one| if fits(one) { one } else { '?' }).collect()
}

fn line(text: &mut String, name: &str, value: Option<impl Display>) {
    if let Some(value) = value {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name} = {value}");
    }
}

fn list(text: &mut String, name: &str, values: &[impl Display]) {
    let joined = values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    line(text, name, Some(joined).filter(|joined| !joined.is_empty()));
}
