//! The calls of a C program, as the input says.

use std::ffi::{CString, c_char};
use std::os::fd::IntoRawFd;
use std::ptr::{null, null_mut};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vmcell::{Engine, VmConfig};

use super::c::{self, Handle};
use super::model::Kind;
use super::{BAD_DESCRIPTOR, BAD_VALUE, DISK, INVALID_CONFIG, NULL_ARGUMENT, OK, Test, free, text, utf8};
use crate::input::Input;

/// Paths that a VM is to open lead nowhere.
pub(super) const NOWHERE: &str = "/nonexistent/";

const ENGINES: &[Engine] = &[Engine::Auto, Engine::Sync, Engine::Uring];

/// A number that means one of some choices, or nothing.
pub(super) fn choice<T: Copy>(input: &mut Input, choices: &[T]) -> (i32, Result<T, i32>) {
    let number = if input.one_in(4) { input.word() as i32 } else { i32::from(input.byte() % 4) };
    let found = usize::try_from(number).ok().and_then(|number| choices.get(number));
    (number, found.copied().ok_or(BAD_VALUE))
}

pub(super) fn pointer(text: Option<&CString>) -> *const c_char {
    text.map_or(null(), |text| text.as_ptr())
}

pub(super) fn perhaps_text(input: &mut Input) -> Option<CString> {
    let text = text(input);
    (!input.one_in(16)).then_some(text)
}

pub(super) fn result(result: Result<(), i32>) -> i32 {
    result.err().unwrap_or(OK)
}

// SAFETY of all calls below: handles are looked up and never followed, texts end with a NUL, arrays are as long as they are said to be, and
// results have places that live until the call returns.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one reason for all of them stands above")]
impl Test {
    pub(super) fn step(&mut self, input: &mut Input) {
        match input.below(32) {
            0 => self.create(input, Kind::Config, Some(VmConfig::default()), |out, error| unsafe {
                c::vmcell_config_new(out, error)
            }),
            1 => self.new_from_json(input),
            2 => self.write_json(input),
            3..=13 => self.set_config(input),
            14 => self.new_disk(input),
            15 => self.set_disk(input),
            16 => self.hand_over(input, Kind::Disk, |config, disk, error| unsafe {
                c::vmcell_config_add_disk(config, disk, error)
            }),
            17 => self.hand_over(input, Kind::Console, |config, console, error| unsafe {
                c::vmcell_config_set_console(config, console, error)
            }),
            18 => self.hand_over(input, Kind::Console, |config, console, error| unsafe {
                c::vmcell_config_add_console(config, console, error)
            }),
            19 => self.hand_over(input, Kind::Nic, |config, nic, error| unsafe {
                c::vmcell_config_add_nic(config, nic, error)
            }),
            20 => self.disk_handle(input),
            21 => self.nic(input),
            22 => {
                self.create(input, Kind::Console, None, |out, error| unsafe { c::vmcell_console_new_none(out, error) })
            }
            23 => self.console(input),
            24 => self.also(input),
            25..=29 => self.free(input),
            30 => self.vm_new(input),
            _ => self.vm(input),
        }
    }

    /// A call that makes an object, and may be given no place for it.
    fn create(
        &mut self,
        input: &mut Input,
        kind: Kind,
        config: Option<VmConfig>,
        call: impl FnOnce(*mut Handle, *mut Handle) -> i32,
    ) {
        let mut made: Handle = null_mut();
        let out = if input.one_in(16) { null_mut() } else { &raw mut made };
        let expected = if out.is_null() { NULL_ARGUMENT } else { OK };
        if self.call(input, expected, |error| call(out, error)) {
            self.model.add(kind, made, config);
        } else {
            assert!(made.is_null(), "a result of a call that failed");
        }
    }

    fn new_from_json(&mut self, input: &mut Input) {
        let place = !input.one_in(16);
        let len = input.byte();
        let bytes: Vec<u8> = (0..len).map(|_| input.byte()).collect();
        let read = std::str::from_utf8(&bytes).map_err(|_| super::NOT_UTF8);
        let read = read.and_then(|text| VmConfig::from_json(text).map_err(|_| INVALID_CONFIG));
        let mut made: Handle = null_mut();
        let out = if place { &raw mut made } else { null_mut() };
        let expected = if place { result(read.as_ref().map(|_| ()).map_err(|number| *number)) } else { NULL_ARGUMENT };
        if self.call(input, expected, |error| unsafe {
            c::vmcell_config_new_from_json(bytes.as_ptr().cast(), bytes.len(), out, error)
        }) {
            self.model.add(Kind::Config, made, read.ok());
        }
    }

    fn write_json(&mut self, input: &mut Input) {
        let pick = self.model.pick(input, Kind::Config);
        let capacity = usize::from(input.half());
        let mut buffer: Vec<c_char> = vec![0x55; capacity];
        let mut length = usize::MAX;
        let checked = self.model.check(pick, Kind::Config);
        let said = match checked {
            Ok(index) => self.model.config(index).as_ref().map(VmConfig::to_json),
            Err(_) => None,
        };
        let said = said.map(|said| said.map_err(|_| INVALID_CONFIG));
        let expected = match (checked, &said) {
            (Err(number), _) => number,
            (Ok(_), Some(Err(number))) => *number,
            _ => OK,
        };
        let written = self.call(input, expected, |error| unsafe {
            c::vmcell_config_to_json(pick.handle, buffer.as_mut_ptr(), capacity, &raw mut length, error)
        });
        let bytes: Vec<u8> = buffer.iter().map(|byte| *byte as u8).collect();
        let fits = written && length < capacity;
        let touched = if fits { length + 1 } else { 0 };
        assert!(bytes[touched..].iter().all(|byte| *byte == 0x55), "bytes behind the text were written");
        if let Some(Ok(said)) = said {
            assert_eq!(length, said.len(), "the length of the text");
            assert!(!fits || bytes[..touched] == [said.as_bytes(), &[0]].concat(), "what a configuration says");
        } else if !written {
            assert_eq!(length, usize::MAX, "a result of a call that failed");
        }
    }

    fn new_disk(&mut self, input: &mut Input) {
        let (open, place) = (!input.one_in(8), !input.one_in(8));
        let len = if input.one_in(8) { 0 } else { 4096 };
        let fd = if open { memory_file(len) } else { -1 };
        let mut made: Handle = null_mut();
        let out = if place { &raw mut made } else { null_mut() };
        let expected = match (open, place, len) {
            (false, ..) => BAD_DESCRIPTOR,
            (_, false, _) => NULL_ARGUMENT,
            (.., 0) => DISK,
            _ => OK,
        };
        if self.call(input, expected, |error| unsafe { c::vmcell_disk_new_from_fd(fd, out, error) }) {
            self.model.add(Kind::Disk, made, None);
        }
    }

    fn set_disk(&mut self, input: &mut Input) {
        let pick = self.model.pick(input, Kind::Disk);
        let disk = pick.handle;
        let checked = |test: &Self| test.model.check(pick, Kind::Disk).map(|_| ());
        match input.below(3) {
            0 => {
                let on = input.word() as i32;
                let expected = result(checked(self));
                self.call(input, expected, |error| unsafe { c::vmcell_disk_set_read_only(disk, on, error) });
            }
            1 => {
                let text = perhaps_text(input);
                let expected = result(utf8(text.as_ref()).and_then(|_| checked(self)));
                let serial = pointer(text.as_ref());
                self.call(input, expected, |error| unsafe { c::vmcell_disk_set_serial(disk, serial, error) });
            }
            _ => {
                let (number, given) = choice(input, ENGINES);
                let expected = result(given.and_then(|_| checked(self)));
                self.call(input, expected, |error| unsafe { c::vmcell_disk_set_engine(disk, number, error) });
            }
        }
    }

    /// A call that takes a device from its caller, even if the configuration is none.
    fn hand_over(&mut self, input: &mut Input, kind: Kind, call: impl FnOnce(Handle, Handle, *mut Handle) -> i32) {
        let config = self.model.pick(input, Kind::Config);
        let device = self.model.pick(input, kind);
        let taken = self.model.check(device, kind);
        if let Ok(index) = taken {
            self.model.end(index);
        }
        let expected = result(taken.and_then(|_| self.model.check(config, Kind::Config)).map(|_| ()));
        self.call(input, expected, |error| call(config.handle, device.handle, error));
    }

    fn disk_handle(&mut self, input: &mut Input) {
        if input.one_in(2) {
            let pick = self.model.pick(input, Kind::DiskHandle);
            let expected = result(self.model.check(pick, Kind::DiskHandle).map(|_| ()));
            self.call(input, expected, |error| unsafe { c::vmcell_disk_handle_refresh(pick.handle, error) });
            return;
        }
        let pick = self.model.pick(input, Kind::Disk);
        let mut made: Handle = null_mut();
        let expected = result(self.model.check(pick, Kind::Disk).map(|_| ()));
        if self.call(input, expected, |error| unsafe { c::vmcell_disk_handle_new(pick.handle, &raw mut made, error) }) {
            self.model.add(Kind::DiskHandle, made, None);
        }
    }

    /// None comes to be: there is no TAP device here.
    fn nic(&mut self, input: &mut Input) {
        let mut made: Handle = null_mut();
        let found = match input.below(3) {
            0 => self.call_any(input, |error| unsafe { c::vmcell_nic_new(null(), &raw mut made, error) }),
            1 => self.call_any(input, |error| unsafe { c::vmcell_nic_new_from_fd(-1, &raw mut made, error) }),
            _ => {
                let fd = memory_file(0);
                self.call_any(input, |error| unsafe { c::vmcell_nic_new_from_fd(fd, &raw mut made, error) })
            }
        };
        assert!(found != OK && made.is_null(), "a network interface on nothing");
    }

    fn console(&mut self, input: &mut Input) {
        let pick = self.model.pick(input, Kind::Console);
        let expected = result(self.model.check(pick, Kind::Console).map(|_| ()));
        match input.below(3) {
            0 => {
                let mut path = NOWHERE.as_bytes().to_vec();
                path.extend(text(input).as_bytes());
                let path = CString::new(path).expect("it has no NUL");
                self.create(input, Kind::Console, None, |out, error| unsafe {
                    c::vmcell_console_new_file(path.as_ptr(), out, error)
                });
            }
            1 => {
                let on = input.word() as i32;
                self.call(input, expected, |error| unsafe { c::vmcell_console_set_append(pick.handle, on, error) });
            }
            _ => {
                let (bytes, keep) = (input.long(), input.word());
                self.call(input, expected, |error| unsafe {
                    c::vmcell_console_set_rotation(pick.handle, bytes, keep, error)
                });
            }
        }
    }

    /// The other one is taken first, even if it is the same.
    fn also(&mut self, input: &mut Input) {
        let (console, other) = (self.model.pick(input, Kind::Console), self.model.pick(input, Kind::Console));
        let taken = self.model.check(other, Kind::Console);
        if let Ok(index) = taken {
            self.model.end(index);
        }
        let expected = result(taken.and_then(|_| self.model.check(console, Kind::Console)).map(|_| ()));
        self.call(input, expected, |error| unsafe { c::vmcell_console_also(console.handle, other.handle, error) });
    }

    fn free(&mut self, input: &mut Input) {
        const KINDS: [Kind; 7] =
            [Kind::Config, Kind::Disk, Kind::DiskHandle, Kind::Nic, Kind::Console, Kind::Error, Kind::Vm];
        let kind = KINDS[usize::from(input.byte()) % KINDS.len()];
        let pick = self.model.pick(input, kind);
        let expected = match self.model.check(pick, kind) {
            Ok(index) => {
                self.model.end(index);
                OK
            }
            Err(NULL_ARGUMENT) => OK,
            Err(number) => number,
        };
        assert_eq!(free(kind, pick.handle), expected, "what freeing returns");
    }

    /// A configuration that leads nowhere becomes no VM, but is taken.
    fn vm_new(&mut self, input: &mut Input) {
        let pick = self.model.pick(input, Kind::Config);
        let checked = self.model.check(pick, Kind::Config);
        if let Ok(index) = checked {
            // One that a text described may lead anywhere, and take much of the host.
            if !self.model.config(index).as_ref().is_some_and(leads_nowhere) {
                return;
            }
            self.model.end(index);
        }
        let mut made: Handle = null_mut();
        let found = self.call_any(input, |error| unsafe { c::vmcell_vm_new(pick.handle, &raw mut made, error) });
        assert!(made.is_null(), "a VM of nothing");
        match checked {
            Ok(_) => assert_ne!(found, OK, "a VM of nothing"),
            Err(number) => assert_eq!(found, number, "what the call returns"),
        }
    }

    /// There is no VM, so that no call finds one.
    fn vm(&mut self, input: &mut Input) {
        let pick = self.model.pick(input, Kind::Vm);
        let expected = result(self.model.check(pick, Kind::Vm).map(|_| ()));
        if input.one_in(2) {
            self.call(input, expected, |error| unsafe { c::vmcell_vm_start(pick.handle, error) });
        } else {
            self.call(input, expected, |error| unsafe { c::vmcell_vm_stop(pick.handle, error) });
        }
    }
}

/// Whether no VM comes of a configuration, and little is done to find that out.
fn leads_nowhere(config: &VmConfig) -> bool {
    let mut plain = VmConfig::default();
    plain.boot.clone_from(&config.boot);
    plain.memory = config.memory;
    let is_small = config.memory.mib <= 128 && !config.memory.prealloc && !config.memory.locked;
    *config == plain && is_small && config.boot.as_ref().is_none_or(|boot| boot.kernel.starts_with(NOWHERE))
}

/// A descriptor of a file of so many bytes.
fn memory_file(len: u64) -> i32 {
    let file = memfd_create("disk", MemfdFlags::CLOEXEC).expect("the host has memory for a file");
    ftruncate(&file, len).expect("the host has memory for a file");
    file.into_raw_fd()
}
