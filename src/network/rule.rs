//! What may pass, as the host program says it.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::packet::{Flow, ICMP, TCP, UDP};
use super::prefix::Prefix;
use crate::error::{Error, ErrorKind, Result};

/// Says of some flows whether they may begin. Rules stand in a list, of which the first that fits decides; where none fits, nothing may
/// pass. Answers pass by themselves, so a rule looks at who begins.
///
/// ```
/// use vmcell::network::{Rule, Subnet};
///
/// # fn main() -> vmcell::Result<()> {
/// let subnet = Subnet::new([0xac, 0x17, 0x05], 7);
/// let rules = [
///     Rule::deny().from(subnet.host_prefix(9)), // nothing from host 9, except for answers
///     Rule::allow().to(subnet.machine(1, 2)?.into()).tcp(80..=80),
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

impl FromStr for Rule {
    type Err = Error;

    /// Reads what a rule is [written](fmt::Display) as: `allow` or `deny`; then `all`, `tcp`, `udp`, `icmp` or `protocol` and its number;
    /// behind `tcp` and `udp`, a port or the first and the last one as `80-89`, if not all; then `from` and `to`, each with a
    /// [prefix](Prefix), if not everybody. `allow tcp 80 to fd00:1::/64`.
    fn from_str(text: &str) -> Result<Self> {
        let refused = |what: &str| {
            let message =
                format!("{text:?} is no rule: {what}; one looks like \"allow tcp 80-89 from fd00::/64 to fd00::2\"");
            Error::new(ErrorKind::InvalidConfig, message)
        };
        let mut words = text.split_whitespace().peekable();
        let rule = match words.next() {
            Some("allow") => Self::allow(),
            Some("deny") => Self::deny(),
            _ => return Err(refused("it begins with neither allow nor deny")),
        };
        let what = words.next();
        let ports = match words.peek() {
            Some(word) if matches!(what, Some("tcp" | "udp")) && !matches!(*word, "from" | "to") => {
                let none = || refused(&format!("{word:?} is no port, and no range as 80-89, of 0 to 65535"));
                let ports = read_ports(word).ok_or_else(none)?;
                words.next();
                ports
            }
            _ => 0..=u16::MAX,
        };
        let mut rule = match what {
            Some("all") => rule,
            Some("tcp") => rule.tcp(ports),
            Some("udp") => rule.udp(ports),
            Some("icmp") => rule.icmp(),
            Some("protocol") => {
                let number = words.next().and_then(|number| number.parse().ok());
                rule.protocol(number.ok_or_else(|| refused("its protocol is no number from 0 to 255"))?)
            }
            _ => return Err(refused("it names none of all, tcp, udp, icmp and protocol")),
        };
        let mut side = |name: &str| -> Result<Option<Prefix>> {
            if words.next_if_eq(&name).is_none() {
                return Ok(None);
            }
            let prefix: Result<Prefix> = words.next().ok_or_else(|| refused("it ends where a prefix belongs"))?.parse();
            prefix.map(Some).map_err(|error| error.about(&format!("the rule {text:?}")))
        };
        if let Some(from) = side("from")? {
            rule = rule.from(from);
        }
        if let Some(to) = side("to")? {
            rule = rule.to(to);
        }
        match words.next() {
            Some("from") => {
                return Err(refused("\"from\" stands behind \"to\", or twice, allowed is once in front of it"));
            }
            Some(word) => return Err(refused(&format!("it goes on with {word:?} where it should end"))),
            None => {}
        }
        rule.check()?;
        Ok(rule)
    }
}

/// One port, or the first and the last.
fn read_ports(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(first.parse().ok()?..=last.parse().ok()?)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_rule_is_read_as_it_was_written(
            allows: bool, protocol: Option<u8>, ports: (u16, u16), from: u128, from_bits in 0u8..=128, to: u128,
        ) {
            let rule = if allows { Rule::allow() } else { Rule::deny() };
            let rule = rule.from(Prefix::cut(from.into(), from_bits)).to(Prefix::from(std::net::Ipv6Addr::from(to)));
            let ports = ports.0.min(ports.1)..=ports.0.max(ports.1);
            let rule = match protocol {
                None => rule,
                Some(TCP) => rule.tcp(ports),
                Some(UDP) => rule.udp(ports),
                Some(number) => rule.protocol(number),
            };
            prop_assert_eq!(rule.to_string().parse::<Rule>().unwrap(), rule);
        }
    }

    #[test]
    fn what_may_be_left_out_of_a_rule_is() {
        let prefix: Prefix = "fd00:1::/64".parse().unwrap();
        for (text, rule) in [
            ("allow all", Rule::allow()),
            ("deny  tcp", Rule::deny().tcp(0..=u16::MAX)),
            ("allow tcp 80 to fd00:1::/64", Rule::allow().tcp(80..=80).to(prefix)),
            ("allow udp 1-2 from fd00:1::/64", Rule::allow().udp(1..=2).from(prefix)),
            ("allow protocol 132", Rule::allow().protocol(132)),
        ] {
            assert_eq!(text.parse::<Rule>().unwrap(), rule);
        }
    }

    #[test]
    fn what_is_no_rule_is_refused_with_what_is_wrong_about_it() {
        for (text, says) in [
            ("", "begins with neither allow nor deny"),
            ("allow", "names none of all, tcp, udp, icmp and protocol"),
            ("allow sctp", "names none of all, tcp, udp, icmp and protocol"),
            ("allow tcp eighty", "\"eighty\" is no port, and no range as 80-89, of 0 to 65535"),
            ("allow tcp 80-65536", "\"80-65536\" is no port"),
            ("allow tcp 80,443", "\"80,443\" is no port"),
            ("allow tcp 81-80", "a rule for the ports 81 to 80 fits nothing"),
            ("allow protocol 256", "its protocol is no number from 0 to 255"),
            ("allow all from", "it ends where a prefix belongs"),
            ("allow all from fd00::1/64", "has bits behind it"),
            (
                "allow tcp 80 to 10.0.0.1",
                "the rule \"allow tcp 80 to 10.0.0.1\": \"10.0.0.1\" is no prefix of IPv6 addresses",
            ),
            ("allow all to fd00::1 from fd00::2", "\"from\" stands behind \"to\""),
            ("allow all from fd00::1 from fd00::2", "\"from\" stands behind \"to\", or twice"),
            ("allow icmp 8", "goes on with \"8\" where it should end"),
        ] {
            let error = text.parse::<Rule>().unwrap_err();
            assert!(error.kind() == ErrorKind::InvalidConfig && error.to_string().contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn the_first_rule_that_fits_is_about_its_own_flows_alone() {
        let [one, two] = ["fd00::1", "fd00::2"].map(|text| text.parse().unwrap());
        let flow = |protocol, port| Flow { source: one, destination: two, protocol, source_port: 9, port };
        let from_two = Rule::allow().from(Prefix::from(two));
        for (rule, fitting) in [
            (Rule::allow(), [true; 4]),
            (Rule::allow().tcp(80..=81), [true, false, false, false]),
            (Rule::allow().udp(80..=80), [false, false, true, false]),
            (Rule::allow().icmp(), [false, false, false, true]),
            (Rule::allow().from(one.into()).to(two.into()), [true; 4]),
            (from_two, [false; 4]),
        ] {
            let flows = [flow(TCP, 80), flow(TCP, 82), flow(UDP, 80), flow(ICMP, 7)];
            assert_eq!(flows.map(|flow| rule.fits(&flow)), fitting, "{rule}");
        }
    }
}
