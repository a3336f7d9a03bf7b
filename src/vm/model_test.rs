//! vCPUs that are paused, resumed and stopped while they enter the guest: in each order of the threads' steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::exit::{Exit, Status};
use super::lifecycle::Lifecycle;
use super::seat::Seat;
use super::threads::ThreadSetup;
use super::vcpu::{Duty, spawn};
use crate::board::Buses;
use crate::kvm::Vcpu;
use crate::sys::ThreadHandle;
use crate::sys::model::check;
use crate::sys::sync::thread;

struct Machine {
    lifecycle: Arc<Lifecycle>,
    in_guest: Arc<AtomicUsize>,
    ends: Arc<AtomicUsize>,
    threads: Vec<ThreadHandle>,
}

impl Machine {
    /// Starts vCPUs whose guests run until they are kicked.
    fn start(count: u32) -> Self {
        let in_guest = Arc::<AtomicUsize>::default();
        let vcpus: Vec<Vcpu> = (0..count)
            .map(|index| {
                let in_guest = Arc::clone(&in_guest);
                Vcpu::model(index, move |enters| match enters {
                    true => _ = in_guest.fetch_add(1, Ordering::SeqCst),
                    false => _ = in_guest.fetch_sub(1, Ordering::SeqCst),
                })
            })
            .collect();
        let lifecycle = Lifecycle::new("".into(), vcpus.iter().map(Vcpu::kicker).collect()).unwrap();
        let (lifecycle, ends) = (Arc::new(lifecycle), Arc::<AtomicUsize>::default());
        lifecycle.start(vcpus.len()).unwrap();
        let spawn = |vcpu: Vcpu| {
            let ends = Arc::clone(&ends);
            let duty = Duty {
                index: vcpu.index(),
                seat: Arc::new(Seat::new(vcpu)),
                buses: Arc::<Buses>::default(),
                lifecycle: Arc::clone(&lifecycle),
                on_last: Arc::new(move || _ = ends.fetch_add(1, Ordering::SeqCst)),
                setup: ThreadSetup::default(),
                counters: Arc::default(),
            };
            spawn(duty, std::sync::mpsc::channel().1).unwrap().0
        };
        let threads = vcpus.into_iter().map(spawn).collect();
        Self { lifecycle, in_guest, ends, threads }
    }

    fn in_guest(&self) -> usize {
        self.in_guest.load(Ordering::SeqCst)
    }

    /// Waits until all threads have ended, as a VM that is dropped does.
    fn join(self) {
        assert_eq!(self.lifecycle.wait(None).unwrap(), Exit::Stopped);
        self.lifecycle.ended().wait();
        assert_eq!((self.in_guest(), self.ends.load(Ordering::SeqCst)), (0, 1));
        assert_eq!(self.lifecycle.status(), Status::Ended);
        self.threads.into_iter().for_each(ThreadHandle::join);
    }
}

#[test]
fn a_stop_gets_every_vcpu_out_of_the_guest_wherever_it_is() {
    check(|| {
        let machine = Machine::start(2);
        machine.lifecycle.end(Exit::Stopped);
        machine.join();
    });
}

#[test]
fn after_a_pause_no_vcpu_is_in_the_guest_until_it_is_resumed() {
    check(|| {
        let machine = Machine::start(2);
        for _ in 0..2 {
            machine.lifecycle.pause(None).unwrap();
            assert_eq!(machine.in_guest(), 0);
            thread::yield_now();
            assert_eq!(machine.in_guest(), 0);
            machine.lifecycle.resume().unwrap();
        }
        machine.lifecycle.end(Exit::Stopped);
        machine.join();
    });
}

#[test]
fn pauses_and_resumes_of_two_threads_and_a_stop_of_a_third_all_return() {
    check(|| {
        let machine = Machine::start(1);
        let pauses = |lifecycle: Arc<Lifecycle>| {
            thread::spawn(move || {
                // Refused once it has ended.
                let _ = lifecycle.pause(None);
                let _ = lifecycle.resume();
            })
        };
        let threads = [pauses(Arc::clone(&machine.lifecycle)), pauses(Arc::clone(&machine.lifecycle))];
        machine.lifecycle.end(Exit::Stopped);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        machine.join();
    });
}
