//! Settings of a configuration, of which a model keeps a copy.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr::null;

use vmcell::{Boot, BootProtocol, Discovery, MemoryBacking, PageSize, VmConfig};

use super::c::{self, Handle};
use super::calls::{NOWHERE, choice, perhaps_text, pointer, result};
use super::model::{Kind, Pick};
use super::{NULL_ARGUMENT, Test, text, utf8};
use crate::input::Input;

const BACKINGS: &[MemoryBacking] = &[MemoryBacking::Anonymous, MemoryBacking::Memfd];
const PAGES: &[PageSize] = &[PageSize::Default, PageSize::Transparent, PageSize::Huge2Mib];
const PROTOCOLS: &[BootProtocol] = &[BootProtocol::Auto, BootProtocol::Linux64, BootProtocol::Pvh];
const DISCOVERIES: &[Discovery] = &[Discovery::Acpi, Discovery::Cmdline];

fn boot(config: &mut VmConfig) -> &mut Boot {
    config.boot.get_or_insert_with(|| Boot::linux(""))
}

// SAFETY of all calls below: handles are looked up and never followed, texts end with a NUL, arrays are as long as they are said to be, and
// errors have places that live until the call returns.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one reason for all of them stands above")]
impl Test {
    /// Any setting.
    pub(super) fn set_config(&mut self, input: &mut Input) {
        let pick = self.model.pick(input, Kind::Config);
        match input.below(10) {
            0..=3 => self.set_number(input, pick),
            4 => self.set_memory(input, pick),
            5 | 6 => self.set_path(input, pick),
            7 => self.set_text(input, pick),
            8 => self.set_cpus(input, pick),
            _ => self.set_boot(input, pick),
        }
    }

    /// What is given is looked at before the handle is.
    fn change(
        &mut self,
        input: &mut Input,
        pick: Pick,
        given: Result<(), i32>,
        change: impl FnOnce(&mut VmConfig),
        call: impl FnOnce(Handle, *mut Handle) -> i32,
    ) {
        let index = given.and_then(|()| self.model.check(pick, Kind::Config));
        let done = self.call(input, result(index.map(|_| ())), |error| call(pick.handle, error));
        if let (true, Ok(index)) = (done, index)
            && let Some(config) = self.model.config(index)
        {
            change(config);
        }
    }

    fn set_number(&mut self, input: &mut Input, pick: Pick) {
        let number = input.word();
        let signed = number as i32;
        match input.below(4) {
            0 => self.change(
                input,
                pick,
                Ok(()),
                |config| config.vcpus = number,
                |config, error| unsafe { c::vmcell_config_set_vcpus(config, number, error) },
            ),
            1 => self.change(
                input,
                pick,
                Ok(()),
                |config| config.kick_signal = Some(signed),
                |config, error| unsafe { c::vmcell_config_set_kick_signal(config, signed, error) },
            ),
            2 => self.change(
                input,
                pick,
                Ok(()),
                |config| config.poll_us = Some(number),
                |config, error| unsafe { c::vmcell_config_set_polling(config, number, error) },
            ),
            _ => self.change(
                input,
                pick,
                Ok(()),
                |config| config.core_scheduling = signed != 0,
                |config, error| unsafe { c::vmcell_config_set_core_scheduling(config, signed, error) },
            ),
        }
    }

    fn set_memory(&mut self, input: &mut Input, pick: Pick) {
        let mib = input.long();
        let ((backing, known), (pages, size)) = (choice(input, BACKINGS), choice(input, PAGES));
        let given = known.and_then(|backing| size.map(|pages| (backing, pages)));
        let change = |config: &mut VmConfig| {
            let (backing, pages) = given.unwrap_or_default();
            (config.memory.mib, config.memory.backing, config.memory.pages) = (mib, backing, pages);
        };
        self.change(input, pick, given.map(|_| ()), change, |config, error| unsafe {
            c::vmcell_config_set_memory(config, mib, backing, pages, error)
        });
    }

    fn set_path(&mut self, input: &mut Input, pick: Pick) {
        let bytes = [NOWHERE.as_bytes(), text(input).as_bytes()].concat();
        let path = (!input.one_in(8)).then(|| CString::new(bytes).expect("it has no NUL"));
        let said = path.as_ref().map(|path| PathBuf::from(OsStr::from_bytes(path.as_bytes())));
        let place = pointer(path.as_ref());
        if input.one_in(2) {
            return self.change(
                input,
                pick,
                Ok(()),
                |config| boot(config).initrd = said,
                |config, error| unsafe { c::vmcell_config_set_initrd(config, place, error) },
            );
        }
        let given = said.is_some().then_some(()).ok_or(NULL_ARGUMENT);
        let kernel = said.unwrap_or_default();
        self.change(
            input,
            pick,
            given,
            |config| boot(config).kernel = kernel,
            |config, error| unsafe { c::vmcell_config_set_kernel(config, place, error) },
        );
    }

    fn set_text(&mut self, input: &mut Input, pick: Pick) {
        let text = perhaps_text(input);
        let given = utf8(text.as_ref());
        let (said, given) = (given.clone().unwrap_or_default(), given.map(|_| ()));
        let place = pointer(text.as_ref());
        if input.one_in(2) {
            self.change(
                input,
                pick,
                given,
                |config| boot(config).cmdline = said,
                |config, error| unsafe { c::vmcell_config_set_cmdline(config, place, error) },
            );
        } else {
            self.change(
                input,
                pick,
                given,
                |config| config.name = said,
                |config, error| unsafe { c::vmcell_config_set_name(config, place, error) },
            );
        }
    }

    fn set_cpus(&mut self, input: &mut Input, pick: Pick) {
        let cpus: Vec<u32> = (0..input.byte() % 8).map(|_| input.word()).collect();
        let absent = input.one_in(8);
        let given = if absent && !cpus.is_empty() { Err(NULL_ARGUMENT) } else { Ok(()) };
        let numbers = if absent { null() } else { cpus.as_ptr() };
        self.change(
            input,
            pick,
            given,
            |config| config.affinity.io.clone_from(&cpus),
            |config, error| unsafe { c::vmcell_config_set_io_affinity(config, numbers, cpus.len(), error) },
        );
    }

    fn set_boot(&mut self, input: &mut Input, pick: Pick) {
        if input.one_in(2) {
            let (number, given) = choice(input, PROTOCOLS);
            let change = |config: &mut VmConfig| boot(config).protocol = given.unwrap_or_default();
            self.change(input, pick, given.map(|_| ()), change, |config, error| unsafe {
                c::vmcell_config_set_protocol(config, number, error)
            });
        } else {
            let (number, given) = choice(input, DISCOVERIES);
            let change = |config: &mut VmConfig| boot(config).discovery = given.unwrap_or_default();
            self.change(input, pick, given.map(|_| ()), change, |config, error| unsafe {
                c::vmcell_config_set_discovery(config, number, error)
            });
        }
    }
}
