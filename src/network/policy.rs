//! The rules of a network, and who counts what they let pass.

use super::packet::Flow;
use super::rule::Rule;
use crate::error::{Error, ErrorKind, Result};
use crate::meter::Counter;

/// A network has no more rules.
pub(super) const MOST_RULES: usize = 1024;

/// How often a rule has decided.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuleCount {
    /// The rule.
    pub rule: Rule,
    /// How many flows it has let begin, or how many packets that would have begun one it has refused.
    pub flows: u64,
    /// How many packets have passed by it, answers among them.
    pub packets: u64,
    /// Their bytes, with the IPv6 headers.
    pub bytes: u64,
}

/// The rules that are in force. Each change of them makes a new one.
#[derive(Clone, Default)]
pub(super) struct Policy {
    /// Flows that were let pass by another version are looked at again.
    version: u32,
    rules: Vec<Counted>,
}

#[derive(Clone)]
struct Counted {
    rule: Rule,
    flows: Counter,
    packets: Counter,
    bytes: Counter,
}

impl Policy {
    /// These rules in place of those before. A rule that was there already goes on counting.
    pub(super) fn with(&self, rules: &[Rule]) -> Result<Self> {
        if rules.len() > MOST_RULES {
            let message = format!("{} rules were given to a network, allowed are {MOST_RULES}", rules.len());
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        rules.iter().try_for_each(Rule::check)?;
        let counted = |rule: &Rule| {
            let before = self.rules.iter().find(|before| before.rule == *rule).cloned();
            before.unwrap_or_else(|| Counted {
                rule: rule.clone(),
                flows: Counter::new(),
                packets: Counter::new(),
                bytes: Counter::new(),
            })
        };
        Ok(Self { version: self.version.wrapping_add(1), rules: rules.iter().map(counted).collect() })
    }

    pub(super) fn version(&self) -> u32 {
        self.version
    }

    /// Which rule lets a flow begin, if any does.
    pub(super) fn admit(&self, flow: &Flow) -> Option<u16> {
        let rule = self.judge(flow)?;
        self.begun(rule);
        Some(rule)
    }

    /// The same for a flow that may have to wait. If it may begin, it is counted when it [does](Self::begun).
    pub(super) fn judge(&self, flow: &Flow) -> Option<u16> {
        let index = self.rules.iter().position(|counted| counted.rule.fits(flow))?;
        let counted = self.rules.get(index)?;
        if counted.rule.allows() {
            return u16::try_from(index).ok();
        }
        counted.flows.add(1);
        None
    }

    /// Counts a flow that a rule has let begin.
    pub(super) fn begun(&self, rule: u16) {
        if let Some(counted) = self.rules.get(usize::from(rule)) {
            counted.flows.add(1);
        }
    }

    /// Counts a packet that passes by a rule.
    pub(super) fn count(&self, rule: u16, bytes: usize) {
        if let Some(counted) = self.rules.get(usize::from(rule)) {
            counted.packets.add(1);
            counted.bytes.add(bytes as u64);
        }
    }

    pub(super) fn counts(&self) -> Vec<RuleCount> {
        let read = |Counted { rule, flows, packets, bytes }: &Counted| RuleCount {
            rule: rule.clone(),
            flows: flows.get(),
            packets: packets.get(),
            bytes: bytes.get(),
        };
        self.rules.iter().map(read).collect()
    }
}
