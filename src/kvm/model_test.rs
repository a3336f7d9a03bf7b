//! A kick that comes before, between and during the runs of a vCPU: in each order of the threads' steps.

use super::{Vcpu, VcpuExit};
use crate::sys::model::check;
use crate::sys::sync::thread;

/// Runs it until the kick is reported. Otherwise that is never.
fn run_until_kicked(vcpu: &mut Vcpu) {
    assert!(matches!(vcpu.run(), Ok(VcpuExit::Interrupted)));
}

#[test]
fn a_kick_is_reported_even_if_it_comes_before_any_thread_runs_the_vcpu() {
    check(|| {
        let mut vcpu = Vcpu::model(0, |_| {});
        let kicker = vcpu.kicker();
        let kicks = thread::spawn(move || kicker.kick());
        run_until_kicked(&mut vcpu);
        kicks.join().unwrap();
    });
}

#[test]
fn a_kick_that_comes_while_an_access_is_finished_is_left_for_the_next_run() {
    check(|| {
        let mut vcpu = Vcpu::model(0, |_| {});
        let kicker = vcpu.kicker();
        let kicks = thread::spawn(move || kicker.kick());
        for _ in 0..2 {
            assert!(matches!(vcpu.finish_access(), Ok(VcpuExit::Interrupted)));
        }
        run_until_kicked(&mut vcpu);
        kicks.join().unwrap();
    });
}

#[test]
fn a_kicker_that_outlives_its_vcpu_reaches_nobody() {
    check(|| {
        let mut vcpu = Vcpu::model(0, |_| {});
        let kickers = [vcpu.kicker(), vcpu.kicker()];
        let kicks = kickers.map(|kicker| thread::spawn(move || kicker.kick()));
        run_until_kicked(&mut vcpu);
        drop(vcpu);
        // Of the next vCPU of this thread, nothing is known of the kicks of the last.
        let mut next = Vcpu::model(0, |_| {});
        let kicker = next.kicker();
        kicks.into_iter().for_each(|kick| kick.join().unwrap());
        assert!(matches!(next.finish_access(), Ok(VcpuExit::Interrupted)));
        let last = thread::spawn(move || kicker.kick());
        run_until_kicked(&mut next);
        last.join().unwrap();
    });
}
