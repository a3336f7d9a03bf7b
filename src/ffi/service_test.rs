//! A packet for a service has C asked for a member.

use std::ffi::c_void;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::super::failure::VMCELL_OK;
use super::super::network::{vmcell_network_free, vmcell_network_new};
use super::*;
use crate::network::{Injected, Rule};

/// Counts the calls, and has no member.
unsafe extern "C" fn ask(user: *mut c_void, service: *mut ServiceObject, host: u32, machine: u32) -> i32 {
    // SAFETY: it was given a number that lives until the end of the test.
    let calls = unsafe { &*user.cast::<AtomicU32>() };
    assert_eq!((host, machine), (0, 0));
    let mut was = 7;
    // SAFETY: there are places for the results.
    let number = unsafe { vmcell_service_drain(service, 1, 1, &raw mut was, null_mut()) };
    assert_eq!((number, was), (VMCELL_OK, 0));
    calls.fetch_add(1, Ordering::SeqCst);
    5
}

unsafe extern "C" fn release(user: *mut c_void) {
    // SAFETY: it was given a number that lives until the end of the test.
    unsafe { &*user.cast::<AtomicU32>() }.fetch_add(100, Ordering::SeqCst);
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_packet_without_a_member_has_c_asked_and_waits_until_it_is_refused() {
    let calls = AtomicU32::new(0);
    let user = (&raw const calls).cast_mut().cast();
    let settings = ServiceSettings {
        on_demand: Some(ask),
        user,
        release: Some(release),
        call_interval_ms: 10,
        ..ServiceSettings::NONE
    };
    let (mut network, mut service) = (null_mut(), null_mut());
    // SAFETY: there are places for the results, and the settings live.
    unsafe {
        assert_eq!(vmcell_network_new(0xac1705, 7, null(), &raw mut network, null_mut()), VMCELL_OK);
        assert_eq!(vmcell_service_new(network, 80, &raw const settings, &raw mut service, null_mut()), VMCELL_OK);
    }
    let inside = objects::get(network).unwrap().network().clone();
    inside.set_rules(&[Rule::allow()]).unwrap();
    let mut uplink = inside.uplink(1420, 4, || {}).unwrap();
    uplink.set_routes(&[inside.subnet().host_prefix(2)]).unwrap();
    // A datagram of no bytes from port 9 to port 9.
    let mut packet = vec![0x60, 0, 0, 0, 0, 8, 17, 64];
    packet.extend(inside.subnet().machine(2, 1).unwrap().ip().octets());
    packet.extend(inside.subnet().service(80).octets());
    packet.extend([0, 9, 0, 9, 0, 8, 0, 0]);
    let injected = uplink.inject(&packet);
    assert!(matches!(injected, Injected::Answered | Injected::Delivered), "{injected:?}");
    uplink.flush();
    wait_for("the call", || calls.load(Ordering::SeqCst) >= 1);
    let metrics = || objects::get(service).unwrap().0.metrics();
    wait_for("what waited is refused", || metrics()["service_refused"] == 1);
    assert_eq!((metrics()["service_held"], metrics()["service_calls_refused"]), (1, 1));
    assert_eq!(vmcell_service_free(service), VMCELL_OK);
    drop(uplink);
    wait_for("the user is released", || calls.load(Ordering::SeqCst) >= 101);
    assert_eq!(vmcell_network_free(network), VMCELL_OK);
}

#[test]
fn what_c_leaves_at_0_is_what_rust_has_if_nothing_is_said() {
    let of = |settings: ServiceSettings| {
        // SAFETY: it has neither a name nor a function.
        let config = unsafe { settings.config(User { user: null_mut(), release: None }) };
        format!("{:?}", config.ok().unwrap())
    };
    let usual = ServiceConfig::new();
    assert_eq!(of(ServiceSettings::NONE), format!("{usual:?}"));
    let (soft, hard) = usual.flow_limits();
    for (settings, limits) in [
        (ServiceSettings { soft_limit: 7, ..ServiceSettings::NONE }, (7, hard)),
        (ServiceSettings { soft_limit: 5000, ..ServiceSettings::NONE }, (5000, 5000)),
        (ServiceSettings { hard_limit: 7, ..ServiceSettings::NONE }, (7, 7)),
        (ServiceSettings { hard_limit: 5000, ..ServiceSettings::NONE }, (soft, 5000)),
        (ServiceSettings { soft_limit: 9, hard_limit: 7, ..ServiceSettings::NONE }, (9, 7)),
    ] {
        assert_eq!(of(settings), format!("{:?}", ServiceConfig::new().limits(limits.0, limits.1)));
    }
    let (packets, bytes) = usual.held_limits();
    let settings = ServiceSettings { held_bytes: 4096, ..ServiceSettings::NONE };
    assert_eq!(of(settings), format!("{:?}", ServiceConfig::new().held(packets, 4096)));
    let settings = ServiceSettings { held_packets: 3, ..ServiceSettings::NONE };
    assert_eq!(of(settings), format!("{:?}", ServiceConfig::new().held(3, bytes)));
}
