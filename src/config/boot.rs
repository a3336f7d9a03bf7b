//! The parts that a guest starts with: kernel, initrd, command line, and the way the kernel is entered.

use std::path::{Path, PathBuf};

use super::text::refuse_nul;
use crate::error::Result;

/// How the kernel is entered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum BootProtocol {
    /// PVH for an ELF image that carries the note, the 64-bit Linux protocol for everything else.
    #[default]
    Auto,
    /// The 64-bit Linux boot protocol: long mode, with the zero page in `rsi`.
    Linux64,
    /// PVH: 32-bit protected mode, with the start info in `ebx`. Only for an ELF image that carries the note.
    Pvh,
}

/// How the guest finds its devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum Discovery {
    /// ACPI tables describe them.
    #[default]
    Acpi,
    /// `virtio_mmio.device=SIZE@ADDR:IRQ` is appended to the command line, and there are no ACPI tables. The kernel finds
    /// its CPUs and the IOAPIC by an MP table, which it reads if it was built with `CONFIG_X86_MPPARSE`.
    Cmdline,
}

/// A kernel to boot, with its initrd and its command line.
///
/// Nothing is opened before [`build`](crate::VmBuilder::build).
///
/// ```
/// use vmcell::{Boot, BootProtocol};
///
/// let boot = Boot::linux("vmlinuz").initrd("initrd.img").cmdline("console=ttyS0").protocol(BootProtocol::Linux64);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields, expecting = "an object such as { \"kernel\": \"vmlinuz\" }")
)]
#[non_exhaustive]
pub struct Boot {
    /// The path of a bzImage or an ELF image.
    pub kernel: PathBuf,
    /// The path of an initial RAM disk. There is none by default.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "super::written::is_default"))]
    pub initrd: Option<PathBuf>,
    /// The kernel's command line; see [`cmdline`](Self::cmdline()). It is empty by default.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "super::written::is_default"))]
    pub cmdline: String,
    /// How the kernel is entered. The default is [`BootProtocol::Auto`].
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "super::written::is_default"))]
    pub protocol: BootProtocol,
    /// How the guest finds its devices. The default is [`Discovery::Acpi`].
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "super::written::is_default"))]
    pub discovery: Discovery,
}

impl Boot {
    /// A Linux kernel, or a guest that is entered like one: a bzImage or an ELF image.
    pub fn linux(kernel: impl AsRef<Path>) -> Self {
        Self {
            kernel: kernel.as_ref().to_owned(),
            initrd: None,
            cmdline: String::new(),
            protocol: BootProtocol::default(),
            discovery: Discovery::default(),
        }
    }

    /// An initial RAM disk, handed to the kernel as it is.
    #[must_use]
    pub fn initrd(mut self, initrd: impl AsRef<Path>) -> Self {
        self.initrd = Some(initrd.as_ref().to_owned());
        self
    }

    /// The kernel's command line: at most 2047 bytes including what discovery appends to it, and no NUL. If discovery appends something,
    /// double quotes must come in pairs, as far as the kernel reads: up to a lone `--`.
    #[must_use]
    pub fn cmdline(mut self, cmdline: impl Into<String>) -> Self {
        self.cmdline = cmdline.into();
        self
    }

    /// How the kernel is entered.
    #[must_use]
    pub fn protocol(mut self, protocol: BootProtocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// How the guest finds its devices.
    #[must_use]
    pub fn discovery(mut self, discovery: Discovery) -> Self {
        self.discovery = discovery;
        self
    }

    /// Refuses what can be no path, and no command line.
    pub(crate) fn validate(&self) -> Result<()> {
        refuse_nul("the kernel's path", self.kernel.as_os_str())?;
        if let Some(initrd) = &self.initrd {
            refuse_nul("the initrd's path", initrd.as_os_str())?;
        }
        refuse_nul("the command line", self.cmdline.as_ref())
    }
}
