//! The command line, which programs outside this project rely on.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use vmcell::Engine;

/// Boots one guest in a micro-VM.
#[derive(Parser)]
#[command(name = "launch")]
pub struct Options {
    /// A bzImage or an ELF image
    #[arg(long, value_name = "PATH")]
    pub kernel: PathBuf,

    /// An initial RAM disk
    #[arg(long, value_name = "PATH")]
    pub initrd: Option<PathBuf>,

    /// The kernel's command line
    #[arg(long, value_name = "TEXT", default_value = "", allow_hyphen_values = true)]
    pub cmdline: String,

    /// How many vCPUs, 1 to 64
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub vcpus: u32,

    /// The guest's memory in MiB, 16 or more
    #[arg(long, value_name = "MIB", default_value_t = 128)]
    pub memory: u64,

    /// The pages that the host backs the memory with: of the sizes that its policy gives, transparent huge ones, or reserved ones of
    /// 2 MiB
    #[arg(long, default_value = "default")]
    pub pages: Pages,

    /// A raw disk image or block device; may be given several times
    #[arg(long = "disk", value_name = "PATH[,ro][,engine=uring|sync][,direct]", value_parser = parse_disk)]
    pub disks: Vec<DiskOption>,

    /// A TAP device; may be given several times
    #[arg(long = "tap", value_name = "NAME[,mac=XX:XX:XX:XX:XX:XX]", value_parser = parse_tap)]
    pub taps: Vec<TapOption>,

    /// How the guest finds its devices
    #[arg(long, default_value = "acpi")]
    pub discovery: Discovery,

    /// How the kernel is entered
    #[arg(long, default_value = "auto")]
    pub protocol: Protocol,

    /// What the serial port is connected to: stdio, none, or a file
    #[arg(long, value_name = "stdio|none|PATH", default_value = "stdio", value_parser = parse_console)]
    pub console: ConsoleOption,

    /// For how many microseconds at most the I/O thread looks for more to do before it sleeps; 0 turns that off
    #[arg(long = "poll-us", value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(0..=1000))]
    pub poll_us: u64,

    /// Says on standard error how long things took and how the guest ended
    #[arg(short)]
    pub verbose: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Discovery {
    Acpi,
    Cmdline,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Pages {
    Default,
    Transparent,
    #[value(name = "2mib")]
    Huge2Mib,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Protocol {
    Auto,
    Linux64,
    Pvh,
}

#[derive(Clone, PartialEq, Eq)]
pub enum ConsoleOption {
    Stdio,
    None,
    File(PathBuf),
}

#[derive(Clone)]
pub struct DiskOption {
    pub path: PathBuf,
    pub read_only: bool,
    pub engine: Engine,
    pub direct: bool,
}

#[derive(Clone)]
pub struct TapOption {
    pub name: String,
    pub mac: Option<[u8; 6]>,
}

impl From<Discovery> for vmcell::Discovery {
    fn from(discovery: Discovery) -> Self {
        match discovery {
            Discovery::Acpi => Self::Acpi,
            Discovery::Cmdline => Self::Cmdline,
        }
    }
}

impl From<Pages> for vmcell::PageSize {
    fn from(pages: Pages) -> Self {
        match pages {
            Pages::Default => Self::Default,
            Pages::Transparent => Self::Transparent,
            Pages::Huge2Mib => Self::Huge2Mib,
        }
    }
}

impl From<Protocol> for vmcell::BootProtocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Auto => Self::Auto,
            Protocol::Linux64 => Self::Linux64,
            Protocol::Pvh => Self::Pvh,
        }
    }
}

fn parse_console(text: &str) -> Result<ConsoleOption, String> {
    match text {
        "" => Err("allowed are stdio, none, or the path of a file".to_owned()),
        "stdio" => Ok(ConsoleOption::Stdio),
        "none" => Ok(ConsoleOption::None),
        path => Ok(ConsoleOption::File(path.into())),
    }
}

fn parse_disk(text: &str) -> Result<DiskOption, String> {
    let (path, options) = split(text)?;
    let mut disk = DiskOption { path: path.into(), read_only: false, engine: Engine::Auto, direct: false };
    for option in options {
        match option {
            "ro" => disk.read_only = true,
            "engine=sync" => disk.engine = Engine::Sync,
            "engine=uring" => disk.engine = Engine::Uring,
            "direct" => disk.direct = true,
            other => {
                let allowed = "allowed are ro, engine=uring, engine=sync and direct";
                return Err(format!("unknown disk option '{other}', {allowed}"));
            }
        }
    }
    Ok(disk)
}

fn parse_tap(text: &str) -> Result<TapOption, String> {
    let (name, options) = split(text)?;
    let mut tap = TapOption { name: name.to_owned(), mac: None };
    for option in options {
        match option.strip_prefix("mac=") {
            Some(mac) => tap.mac = Some(parse_mac(mac)?),
            None => return Err(format!("unknown tap option '{option}', allowed is mac=XX:XX:XX:XX:XX:XX")),
        }
    }
    Ok(tap)
}

fn split(text: &str) -> Result<(&str, impl Iterator<Item = &str>), String> {
    let mut parts = text.split(',');
    match parts.next() {
        None | Some("") => Err("a path or a name is missing in front of the options".to_owned()),
        Some(first) => Ok((first, parts)),
    }
}

fn parse_mac(text: &str) -> Result<[u8; 6], String> {
    let refused = || format!("'{text}' is no MAC address, allowed are six bytes as in 02:00:00:00:00:01");
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).ok().filter(|_| byte.len() == 2 && !byte.starts_with('+')))
        .collect();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(refused)
}
