//! A service as those who carry packets see it: which member gets a flow, and what happens if none can.

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use super::super::address::MachineAddress;
use super::super::pulse::Pulse;
use super::counters::Counters;
use super::held::{HeldPackets, Total};
use super::keeper::Bell;
use super::limits::{MOST_MEMBERS, ServiceLimits};
use super::member::{Lease, Member};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::lock;
use crate::sys::sync::Mutex;
use crate::sys::sync::atomic::{AtomicUsize, Ordering};

/// Calls the host program: for the flow of a member that does not run, or for whatever member there may be.
pub(in crate::network) type Call = dyn Fn(Option<MachineAddress>) -> Result<()> + Send + Sync;

pub(in crate::network) struct Balancer {
    pub(in crate::network) address: Ipv6Addr,
    pub(in crate::network) held: HeldPackets,
    pub(in crate::network) counters: Counters,
    limits: ServiceLimits,
    members: Mutex<Vec<Arc<Member>>>,
    /// Where the next choice begins, so that members with the same number of flows take turns.
    next: AtomicUsize,
    calls: Mutex<Calls>,
    bell: Arc<Bell>,
}

/// The calls of the host program, of which there is one at a time. Times are the network's.
#[derive(Default)]
struct Calls {
    /// Until the service is gone.
    call: Option<Arc<Call>>,
    stage: Stage,
    /// Not before this is there another one.
    next: Duration,
    /// The host program has said no: until then, nothing is held.
    refused_until: Duration,
}

#[derive(Default)]
enum Stage {
    #[default]
    Idle,
    Due(Option<MachineAddress>),
    Running,
}

/// What becomes of a flow that is to begin.
pub(in crate::network) enum Choice {
    Member(Lease),
    /// It waits for a member.
    Hold,
    Refuse,
}

impl Calls {
    fn may_begin(&self, now: Duration) -> bool {
        matches!(self.stage, Stage::Idle) && now >= self.next
    }
}

impl Balancer {
    pub(super) fn new(
        address: Ipv6Addr,
        limits: ServiceLimits,
        call: Option<Arc<Call>>,
        total: &Arc<Total>,
        bell: &Arc<Bell>,
    ) -> Self {
        Self {
            address,
            held: HeldPackets::new(limits.packets, limits.bytes, limits.hold_time, Arc::clone(total)),
            counters: Counters::default(),
            limits,
            members: Mutex::default(),
            next: AtomicUsize::new(0),
            calls: Mutex::new(Calls { call, ..Calls::default() }),
            bell: Arc::clone(bell),
        }
    }

    pub(super) fn add(&self, address: MachineAddress, pulse: &Arc<Pulse>) -> Result<()> {
        self.join(address, |member| member.is(pulse), || Member::new(address, Arc::clone(pulse)))
    }

    /// The same for a machine behind an uplink.
    pub(super) fn add_remote(&self, address: MachineAddress) -> Result<()> {
        self.join(address, |member| member.address() == address, || Member::remote(address))
    }

    fn join(
        &self,
        address: MachineAddress,
        is_same: impl Fn(&Member) -> bool,
        make: impl FnOnce() -> Member,
    ) -> Result<()> {
        let refused = |message| Err(Error::new(ErrorKind::InvalidConfig, message));
        let mut members = lock(&self.members);
        if let Some(member) = members.iter().find(|member| is_same(member)) {
            if !member.is_draining() {
                return refused(format!("the machine {address} is a member of the service {} already", self.address));
            }
            member.set_draining(false);
        } else if members.len() >= MOST_MEMBERS {
            return refused(format!("the service {} has {MOST_MEMBERS} members, which is the limit", self.address));
        } else {
            members.push(Arc::new(make()));
        }
        drop(members);
        self.bell.ring();
        Ok(())
    }

    /// Gives a member no new flows. Says whether it is one.
    pub(super) fn drain(&self, address: MachineAddress) -> bool {
        let members = lock(&self.members);
        let found = members.iter().find(|member| member.address() == address);
        found.inspect(|member| member.set_draining(true)).is_some()
    }

    /// Ends a member's flows. Says whether it was one.
    pub(super) fn remove(&self, address: MachineAddress) -> bool {
        self.remove_if(|member| member.address() == address)
    }

    /// Its port is gone.
    pub(in crate::network) fn remove_port(&self, pulse: &Arc<Pulse>) {
        self.remove_if(|member| member.is(pulse));
    }

    /// The service is gone. Those who have not noticed yet, as guests that say nothing, hold nothing for it, and nothing of the host program's.
    pub(super) fn close(&self) {
        let call = lock(&self.calls).call.take();
        // Not under the lock.
        drop(call);
        self.remove_if(|_| true);
    }

    fn remove_if(&self, is_meant: impl Fn(&Member) -> bool) -> bool {
        let mut members = lock(&self.members);
        let before = members.len();
        members.iter().filter(|member| is_meant(member)).for_each(|member| member.remove());
        members.retain(|member| !is_meant(member));
        members.len() < before
    }

    pub(super) fn each_member(&self, mut each: impl FnMut(&Member)) {
        lock(&self.members).iter().for_each(|member| each(member));
    }

    /// Finds a member for a flow: the one with the least, but for the client itself and one that the flow cannot go to. `leads` says whether
    /// an uplink leads from the client to the address of a member that has no port here.
    pub(in crate::network) fn choose(
        &self,
        client: Ipv6Addr,
        except: Option<Ipv6Addr>,
        leads: impl Fn(Ipv6Addr) -> bool,
        now: Duration,
    ) -> Choice {
        let members = lock(&self.members);
        let first = self.next.fetch_add(1, Ordering::Relaxed).checked_rem(members.len()).unwrap_or(0);
        let (before, from) = members.split_at_checked(first).unwrap_or_default();
        let takes = |member: &&Arc<Member>| {
            let ip = member.ip();
            let is_there = member.runs() && !member.is_draining() && ip != client && Some(ip) != except;
            is_there && (!member.is_remote() || leads(ip))
        };
        let least = from.iter().chain(before).filter(takes).min_by_key(|member| member.open());
        // Under the lock, so that nobody else counts meanwhile.
        let lease = least.filter(|member| member.open() < self.limits.hard).map(Member::lease);
        let is_busy = lease.is_none() || least.is_some_and(|member| member.open() > self.limits.soft);
        drop(members);
        let may_hold = is_busy && self.ask(None, now);
        match lease {
            Some(lease) => Choice::Member(lease),
            None if may_hold => Choice::Hold,
            None => Choice::Refuse,
        }
    }

    /// Whether any member runs.
    pub(in crate::network) fn runs(&self) -> bool {
        lock(&self.members).iter().any(|member| member.runs())
    }

    /// Has the host program called soon, unless that is just happening or was not long ago. Says whether to wait makes sense.
    pub(in crate::network) fn ask(&self, member: Option<MachineAddress>, now: Duration) -> bool {
        let mut calls = lock(&self.calls);
        if calls.call.is_none() || now < calls.refused_until {
            return false;
        }
        if calls.may_begin(now) {
            calls.stage = Stage::Due(member);
            drop(calls);
            self.bell.ring();
        }
        true
    }

    /// Whether the host program would be called now if it was asked for.
    pub(in crate::network) fn may_call(&self, now: Duration) -> bool {
        let calls = lock(&self.calls);
        calls.call.is_some() && calls.may_begin(now)
    }

    /// The call that is to be made now, if there is one.
    pub(in crate::network) fn take_call(&self) -> Option<(Arc<Call>, Option<MachineAddress>)> {
        let mut calls = lock(&self.calls);
        let (Stage::Due(member), Some(call)) = (&calls.stage, &calls.call) else { return None };
        let call = (Arc::clone(call), *member);
        calls.stage = Stage::Running;
        drop(calls);
        self.counters.calls.add(1);
        Some(call)
    }

    /// The call has returned, and a member is on its way or not.
    pub(in crate::network) fn called(&self, is_coming: bool, now: Duration) {
        let mut calls = lock(&self.calls);
        calls.stage = Stage::Idle;
        calls.next = now.saturating_add(self.limits.interval);
        if !is_coming {
            calls.refused_until = calls.refused_until.max(calls.next);
            self.counters.calls_refused.add(1);
        }
        drop(calls);
        self.bell.ring();
    }

    /// Whether the host program has said just before that there is no member to wait for.
    pub(in crate::network) fn is_refused(&self, now: Duration) -> bool {
        let calls = lock(&self.calls);
        calls.call.is_none() || now < calls.refused_until
    }

    /// Keeps a packet, in storage of [`held`](Self::held).
    pub(in crate::network) fn hold(&self, packet: Vec<u8>) {
        self.counters.held.add(1);
        if self.held.put(packet) {
            self.bell.ring();
        }
    }
}
