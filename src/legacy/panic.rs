//! The register by which a guest's kernel says that it panicked: `pvpanic` in Linux, as QEMU has it (docs/specs/pvpanic).

use crate::bus::BusDevice;

/// The kernel panicked, and nothing more is to be expected of it.
const PANICKED: u8 = 1 << 0;
/// The kernel panicked, and goes on in the crash kernel that it has loaded.
const CRASH_KERNEL: u8 = 1 << 1;

/// One port, which reads as the events that it takes.
pub(crate) struct Panic<F> {
    on_event: F,
}

/// What a guest said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PanicEvent {
    Panicked,
    CrashKernel,
}

impl<F: Fn(PanicEvent) + Send + Sync> Panic<F> {
    /// The vCPU thread that says it calls `on_event`.
    pub(crate) fn new(on_event: F) -> Self {
        Self { on_event }
    }
}

impl<F: Fn(PanicEvent) + Send + Sync> BusDevice for Panic<F> {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        if let [value] = data {
            *value = PANICKED | CRASH_KERNEL;
        }
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        let [value] = *data else { return };
        if value & PANICKED != 0 {
            (self.on_event)(PanicEvent::Panicked);
        } else if value & CRASH_KERNEL != 0 {
            (self.on_event)(PanicEvent::CrashKernel);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn only_the_events_that_it_names_are_taken() {
        let events = Mutex::new(Vec::new());
        let register = Panic::new(|event| events.lock().unwrap().push(event));
        let mut supported = [0];
        register.read(0, &mut supported);
        assert_eq!(supported, [3]);
        for value in 0..=0xff {
            register.write(0, &[value]);
        }
        register.write(0, &[1, 0]);
        let expected = |value: u8| match value & 3 {
            0 => None,
            2 => Some(PanicEvent::CrashKernel),
            _ => Some(PanicEvent::Panicked),
        };
        assert_eq!(*events.lock().unwrap(), (0..=0xff).filter_map(expected).collect::<Vec<_>>());
    }
}
