//! What may pass, as the host program says it.

use std::fmt;
use std::ops::RangeInclusive;

use super::packet::{Flow, ICMP, TCP, UDP};
use super::prefix::Prefix;
use crate::error::{Error, ErrorKind, Result};

/// Says of some flows whether they may begin. Rules stand in a list, of which the first that fits decides; where none fits, nothing may
/// pass. Answers pass by themselves, so a rule looks at who begins.
///
/// ```
/// use vmcell::network::Rule;
///
/// # fn main() -> vmcell::Result<()> {
/// let web = "fdac:1705:0:7:0:1ff:fe00:2".parse::<vmcell::network::Prefix>()?;
/// let rules = [
///     Rule::deny().from("fdac:1705:0:7:0:900::/88".parse()?), // nothing from host 9, except for answers
///     Rule::allow().to(web).tcp(80..=80),
///     Rule::allow().icmp(), // everybody may ping everybody
/// ];
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    allows: bool,
    from: Prefix,
    to: Prefix,
    protocol: Option<u8>,
    ports: RangeInclusive<u16>,
}

impl Rule {
    /// A rule that allows every flow, until it is narrowed.
    pub const fn allow() -> Self {
        Self { allows: true, from: Prefix::ALL, to: Prefix::ALL, protocol: None, ports: 0..=u16::MAX }
    }

    /// A rule that allows no flow, until it is narrowed.
    pub const fn deny() -> Self {
        Self { allows: false, ..Self::allow() }
    }

    /// Narrows it to flows from these addresses: those of a machine, a host, a network, or whatever lies behind a tunnel.
    #[must_use]
    pub fn from(mut self, from: Prefix) -> Self {
        self.from = from;
        self
    }

    /// Narrows it to flows to these addresses.
    #[must_use]
    pub fn to(mut self, to: Prefix) -> Self {
        self.to = to;
        self
    }

    /// Narrows it to TCP connections to these ports.
    #[must_use]
    pub fn tcp(self, ports: RangeInclusive<u16>) -> Self {
        Self { protocol: Some(TCP), ports, ..self }
    }

    /// Narrows it to UDP to these ports.
    #[must_use]
    pub fn udp(self, ports: RangeInclusive<u16>) -> Self {
        Self { protocol: Some(UDP), ports, ..self }
    }

    /// Narrows it to echo requests, which `ping` sends. Errors about flows that may pass need no rule, and nothing else of ICMPv6 passes.
    #[must_use]
    pub fn icmp(self) -> Self {
        self.protocol(ICMP)
    }

    /// Narrows it to an IP protocol by its number, such as 132 for SCTP. Extension headers are no protocols, and never pass.
    #[must_use]
    pub fn protocol(self, number: u8) -> Self {
        Self { protocol: Some(number), ports: 0..=u16::MAX, ..self }
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.ports.is_empty() {
            let (first, last) = (self.ports.start(), self.ports.end());
            let message = format!("a rule for the ports {first} to {last} fits nothing: the first is above the last");
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        Ok(())
    }

    pub(super) fn allows(&self) -> bool {
        self.allows
    }

    pub(super) fn fits(&self, flow: &Flow) -> bool {
        let has_ports = matches!(flow.protocol, TCP | UDP);
        self.protocol.is_none_or(|protocol| protocol == flow.protocol)
            && (!has_ports || self.ports.contains(&flow.port))
            && self.from.contains(flow.source)
            && self.to.contains(flow.destination)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.allows { "allow" } else { "deny" })?;
        match self.protocol {
            None => f.write_str(" all")?,
            Some(TCP) => f.write_str(" tcp")?,
            Some(UDP) => f.write_str(" udp")?,
            Some(ICMP) => f.write_str(" icmp")?,
            Some(number) => write!(f, " protocol {number}")?,
        }
        if self.ports != (0..=u16::MAX) {
            write!(f, " {}-{}", self.ports.start(), self.ports.end())?;
        }
        write!(f, " from {} to {}", self.from, self.to)
    }
}
