//! What the thread does that looks after services: it makes calls, carries on what waits, refuses what has waited for too long, and forgets
//! flows that have ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::packet::{HEAD_LEN, Packet};
use super::super::parcel::{Parcel, Source, Undone};
use super::super::party::Destination;
use super::super::reason::Refusal;
use super::super::refuse::No;
use super::super::view::View;
use super::balancer::Balancer;
use super::held::HeldPacket;
use crate::sys::{catch_panic, lock, spawn};

/// How often flows are looked at that may have ended.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// How often what waits is looked at, for a member that has room again.
const RETRY_EVERY: Duration = Duration::from_millis(50);
/// What is waited for without a service: the bell rings before.
const LONG: Duration = Duration::from_secs(3600);

/// One round. Says how long to wait for the next one. `swept` is when flows were looked at.
pub(super) fn round(view: &View, swept: &mut Option<Instant>) -> Duration {
    let now = Instant::now();
    let mut wait = LONG;
    for service in view.table.services.values() {
        if let Some((call, member)) = service.take_call() {
            start_call(view, service, move || call(member).is_ok());
        }
        if service.is_refused(view.shared.time(now)) {
            refuse_all(view, service);
        }
        if let Some(until) = service.held.until() {
            replay(view, service, now);
            wait = wait.min(RETRY_EVERY).min(until.saturating_duration_since(now));
        }
    }
    if !view.table.services.is_empty() {
        if swept.is_none_or(|at| now.saturating_duration_since(at) >= SWEEP_EVERY) {
            sweep(view, view.shared.time(now));
            *swept = Some(now);
        }
        wait = wait.min(SWEEP_EVERY);
    }
    wait.max(Duration::from_millis(1))
}

/// Calls the host program, on a thread of its own.
fn start_call(view: &View, service: &Arc<Balancer>, call: impl FnOnce() -> bool + Send + 'static) {
    let (shared, called) = (Arc::clone(&view.shared), Arc::clone(service));
    let started = spawn("vmcell-demand", move || {
        let is_coming = catch_panic(call).unwrap_or(false);
        called.called(is_coming, shared.time(Instant::now()));
    });
    if started.is_err() {
        service.called(false, view.shared.time(Instant::now()));
    }
}

/// Carries on what waits for a member, as far as members have room, and refuses what has waited for too long.
fn replay(view: &View, service: &Arc<Balancer>, now: Instant) {
    while let Some(held) = service.held.take_late(now) {
        refuse(view, service, held);
    }
    if service.runs() {
        let waits: Vec<_> = service.held.take().into_iter().filter_map(|held| carry_on(view, service, held)).collect();
        // In the order in which they came.
        waits.into_iter().rev().for_each(|held| service.held.put_back(held));
    } else if service.may_call(view.shared.time(now)) {
        // It came too soon after a call. Its sender may say nothing more, so that nobody else asks.
        let first = service.held.take_first();
        let waits = first.and_then(|held| carry_on(view, service, held));
        waits.into_iter().for_each(|held| service.held.put_back(held));
    }
}

/// Sends a packet that waits on its way, as its sender would now. Gives it back if it still has to wait.
fn carry_on(view: &View, service: &Balancer, held: HeldPacket) -> Option<HeldPacket> {
    let carried = try_carry(view, &held.bytes);
    match carried {
        Ok(None) => return Some(held),
        Ok(Some(to)) => {
            service.held.let_go(&held);
            to.ring(view.shared.time(Instant::now()));
            service.counters.replayed.add(1);
        }
        Err(Refusal::NoMember) => refuse(view, service, held),
        Err(reason) => {
            service.held.let_go(&held);
            view.shared.refusals.count(reason);
        }
    }
    None
}

/// Says to whom a packet has gone; `None` if it has to wait.
fn try_carry(view: &View, bytes: &[u8]) -> Result<Option<Destination>, Refusal> {
    let (packet, mut head) = read(bytes)?;
    let from = view.find(packet.flow.source).ok_or(Refusal::SourceAddress)?;
    let flows = from.flows().ok_or(Refusal::SourceAddress)?;
    let to = view.find(packet.flow.destination).ok_or(Refusal::NoDestination)?;
    // It is one of those that wait, which have been taken out, so it does not wait for itself.
    let (to, translation) = view.way(&packet, flows, to, view.shared.time(Instant::now()))?;
    if matches!(to, Destination::Service(_)) {
        return Ok(None);
    }
    let mut packet = packet;
    translation.apply(&mut packet, &mut head, false);
    let mut parcel = Parcel { packet: &packet, head, source: Source::Host(bytes), undone: Undone::default() };
    parcel.deliver(&to)?;
    Ok(Some(to))
}

fn read(bytes: &[u8]) -> Result<(Packet, [u8; HEAD_LEN]), Refusal> {
    let mut head = [0; HEAD_LEN];
    for (to, byte) in head.iter_mut().zip(bytes) {
        *to = *byte;
    }
    let shown = bytes.get(..bytes.len().min(HEAD_LEN)).unwrap_or_default();
    Ok((Packet::parse(shown, bytes.len() as u64)?, head))
}

/// Tells the sender of a packet that there is nobody for it.
fn refuse(view: &View, service: &Balancer, held: HeldPacket) {
    service.held.let_go(&held);
    service.counters.refused.add(1);
    view.shared.refusals.count(Refusal::NoMember);
    let Ok((mut packet, mut head)) = read(&held.bytes) else { return };
    let Some(sender) = view.find(packet.flow.source) else { return };
    sender.back_at_guest().apply(&mut packet, &mut head, false);
    let shown = head.get(..held.bytes.len().min(HEAD_LEN)).unwrap_or_default();
    if let Some(no) = No::to(&packet, shown) {
        sender.answer(no.bytes());
    }
}

/// The same for all that wait.
pub(super) fn refuse_all(view: &View, service: &Balancer) {
    for held in service.held.take() {
        refuse(view, service, held);
    }
}

/// Forgets flows to services that have ended, which would count for their members until something takes their places.
fn sweep(view: &View, now: Duration) {
    let all = view.table.ports.iter().map(|port| &port.flows).chain(view.uplinks().map(|uplink| &uplink.flows));
    for flows in all {
        let mut from = Some(0);
        // The lock is held for some of them at a time.
        while let Some(at) = from {
            from = lock(flows).sweep(at, now);
        }
    }
}
