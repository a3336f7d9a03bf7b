//! The command line: the caller's, with the devices in it if no ACPI tables describe them.

use std::fmt::Write;

use super::loaded::Placed;
use crate::arch::x86_64::layout::{CMDLINE, CMDLINE_ROOM, MMIO_DEVICE_SIZE, MmioSlot};
use crate::config::{Boot, Discovery};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::GuestMemory;

/// Writes the command line and its NUL; `limit` is the longest that the kernel takes, without the NUL.
pub(super) fn write(memory: &GuestMemory, boot: &Boot, devices: &[MmioSlot], limit: u32) -> Result<Placed> {
    let devices = if boot.discovery == Discovery::Cmdline { devices } else { &[] };
    let text = with_devices(&boot.cmdline, devices)?;
    let limit = limit.min(CMDLINE_ROOM - 1) as usize;
    if let Some(position) = text.find('\0') {
        return Err(refuse(format!("the command line has a NUL at byte {position}, allowed is none")));
    }
    if text.len() > limit {
        let appended = match text.len().saturating_sub(boot.cmdline.len()) {
            0 => String::new(),
            appended => format!(", {appended} of them for devices"),
        };
        return Err(refuse(format!("the command line has {} bytes{appended}; allowed are {limit}", text.len())));
    }
    let mut bytes = text.into_bytes();
    bytes.push(0);
    memory.write(CMDLINE, &bytes)?;
    Ok(Placed { start: CMDLINE, len: bytes.len() as u64 })
}

/// Adds `virtio_mmio.device=SIZE@ADDR:IRQ` for each device (Documentation/admin-guide/kernel-parameters.txt).
///
/// The words after a lone `--` go to the guest's init, so the devices stand before it.
fn with_devices(cmdline: &str, devices: &[MmioSlot]) -> Result<String> {
    if devices.is_empty() {
        return Ok(cmdline.to_owned());
    }
    let (kernel, init) = cmdline.split_at(init_arguments(cmdline)?);
    let mut text = kernel.trim_end_matches(' ').to_owned();
    for device in devices {
        let separator = if text.is_empty() { "" } else { " " };
        let size = MMIO_DEVICE_SIZE >> 10;
        // Writing into a String does not fail.
        let _ = write!(text, "{separator}virtio_mmio.device={size}K@{}:{}", device.gpa, device.gsi);
    }
    if !init.is_empty() {
        text.push(' ');
        text.push_str(init);
    }
    Ok(text)
}

/// Where the word `--` starts, or else the end. Linux splits at white space outside of double quotes, and takes quotes around a whole
/// word off (`next_arg` in lib/cmdline.c).
///
/// # Errors
/// If a quote is open at the end: what is appended would become part of a word.
fn init_arguments(cmdline: &str) -> Result<usize> {
    let (mut quote, mut word) = (None, 0);
    for (at, byte) in cmdline.bytes().chain([b' ']).enumerate() {
        match byte {
            b'"' => quote = if quote.is_none() { Some(at) } else { None },
            _ if is_space(byte) && quote.is_none() => {
                if matches!(cmdline.get(word..at), Some("--" | "\"--\"")) {
                    return Ok(word);
                }
                word = at.saturating_add(1);
            }
            _ => {}
        }
    }
    match quote {
        None => Ok(cmdline.len()),
        Some(at) => Err(refuse(format!(
            "the command line has a double quote at byte {at} that is not closed, so no devices can stand behind it; \
             allowed are pairs"
        ))),
    }
}

/// As Linux sees it: in its table of characters (lib/ctype.c), 0xa0 is a space.
fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ' | 0xa0)
}

fn refuse(message: String) -> Error {
    Error::new(ErrorKind::BootImage, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::x86_64::mmio_device;

    #[test]
    fn devices_stand_before_the_arguments_of_init() {
        let device = "virtio_mmio.device=4K@0xd0000000:5";
        let with = |cmdline| with_devices(cmdline, &[mmio_device(0)]).unwrap();
        assert_eq!(with(""), device);
        assert_eq!(with("quiet"), format!("quiet {device}"));
        assert_eq!(with("quiet  "), format!("quiet {device}"));
        assert_eq!(with("quiet -- single --"), format!("quiet {device} -- single --"));
        assert_eq!(with("quiet\t--"), format!("quiet\t {device} --"));
        assert_eq!(with("-- single"), format!("{device} -- single"));
        assert_eq!(with("a--b --c"), format!("a--b --c {device}"));
        assert_eq!(with("dyndbg=\"a -- b\" x"), format!("dyndbg=\"a -- b\" x {device}"));
    }

    #[test]
    fn words_are_told_apart_as_linux_does() {
        let device = "virtio_mmio.device=4K@0xd0000000:5";
        let with = |cmdline| with_devices(cmdline, &[mmio_device(0)]).unwrap();
        assert_eq!(with("quiet \"--\" x"), format!("quiet {device} \"--\" x"));
        assert_eq!(with("quiet\u{b}--\u{b}x"), format!("quiet\u{b} {device} --\u{b}x"));
        // Its last byte is 0xa0.
        assert_eq!(with("\u{e0}-- x"), format!("\u{e0} {device} -- x"));
        assert_eq!(with("\"\"-- x"), format!("\"\"-- x {device}"));
    }

    #[test]
    fn nothing_is_appended_inside_of_a_quote() {
        for (cmdline, at) in [("a=\"b", 2), ("\"a\" \"-- x", 4), ("\"--", 0)] {
            let refused = with_devices(cmdline, &[mmio_device(0)]).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::BootImage);
            assert!(
                refused.to_string().contains(&format!("a double quote at byte {at} that is not closed")),
                "{refused}"
            );
            assert_eq!(with_devices(cmdline, &[]).unwrap(), cmdline);
        }
    }

    #[test]
    fn without_devices_nothing_is_changed() {
        assert_eq!(with_devices(" quiet  -- a ", &[]).unwrap(), " quiet  -- a ");
    }
}
