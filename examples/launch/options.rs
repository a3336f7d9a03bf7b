//! The command line, which programs outside this project rely on.

use std::ffi::OsStr;
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::TypedValueParser;
use clap::{Arg, Command, Parser, ValueEnum};
use vmcell::{
    BalloonConfig, CgroupConfig, ConsoleConfig, ConsoleFile, CpuConfig, CpuLevel, CpuShare, DiskConfig, Engine, Limits,
    NicConfig, RateLimit, RngConfig, VsockConfig,
};

use crate::network::{NetworkOption, parse_network};

/// Boots one guest in a micro-VM.
#[derive(Parser)]
#[command(
    name = "launch",
    override_usage = "launch --kernel PATH [OPTIONS]\n       launch --config FILE [OPTIONS]\n       launch --restore DIR [OPTIONS]\n       launch --doctor",
    after_help = "Exit status: 0 the guest shut down or reset itself; 1 it failed; 2 bad arguments."
)]
pub struct Options {
    /// A description of the VM as JSON, of at most 1 MiB. Options beside it replace what it says, and disks and TAP devices are added behind its own.
    /// Defaults are those of the description, so that without a console in it the guest's output is discarded
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Prints the description of the VM as JSON, for --config, and does not run it
    #[arg(long)]
    pub print_config: bool,

    /// Prints what this host offers for the isolation and the speed of VMs, and what to do about it, and runs none. Ends with status 1
    /// if no VM can start here
    #[arg(long, exclusive = true)]
    pub doctor: bool,

    /// Goes on with the VM that was saved in this folder by --snapshot-to. Its disks and its TAP devices are those of the saved VM by their paths and
    /// names, unless one of that kind is given. Disks must have the content that they had
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with_all = ["config", "kernel", "initrd", "cmdline", "vcpus", "cpu", "memory", "discovery", "protocol", "rng", "balloon"]
    )]
    pub restore: Option<PathBuf>,

    /// Saves the VM in this folder at each signal SIGUSR1, in the place of what was saved there before. The guest stands still for some
    /// milliseconds, and goes on while it is saved. The folder is made if it is not there
    #[arg(long, value_name = "DIR")]
    pub snapshot_to: Option<PathBuf>,

    /// A bzImage or an ELF image; needed unless the --config says which one
    #[arg(long, value_name = "PATH", required_unless_present_any = ["config", "doctor", "restore"])]
    pub kernel: Option<PathBuf>,

    /// An initial RAM disk
    #[arg(long, value_name = "PATH")]
    pub initrd: Option<PathBuf>,

    /// The kernel's command line [default: empty]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub cmdline: Option<String>,

    /// How many vCPUs, 1 to 64 [default: 1]
    #[arg(long, value_name = "N")]
    pub vcpus: Option<u32>,

    /// What the vCPUs can do: all that the host can give, or a level of the x86-64 psABI and features beyond it [default: host]
    #[arg(long, value_name = "host|v2|v3|v4[,FEATURE]...", value_parser = parse_cpu)]
    pub cpu: Option<CpuConfig>,

    /// The guest's memory in MiB, 16 or more [default: 128]
    #[arg(long, value_name = "MIB")]
    pub memory: Option<u64>,

    /// The pages that the host backs the memory with: of the sizes that its policy gives, transparent huge ones, or reserved ones of
    /// 2 MiB [default: default]
    #[arg(long)]
    pub pages: Option<Pages>,

    /// The NUMA node that the host takes the memory from, as long as that has some
    #[arg(long, value_name = "N")]
    pub numa_node: Option<u32>,

    /// Locks memory that the guest has used, so that it is never written to swap space
    #[arg(long)]
    pub lock_memory: bool,

    /// Runs the VM's threads on the hyperthreads of a core only beside each other
    #[arg(long)]
    pub core_scheduling: bool,

    /// Joins the cgroup of version 2 in that folder, limits the memory of all its processes, and makes a cgroup in it for the VM's threads,
    /// with a share of the CPUs (1/16 or 2, for instance), milliseconds that are kept of what was not used, and a weight [default: stays
    /// where it is]
    #[arg(
        long,
        value_name = "DIR[,name=NAME][,cpu=N[/M]][,burst=MS][,weight=N][,memory=BYTES]",
        value_parser = parse_cgroup
    )]
    pub cgroup: Option<Cgroup>,

    /// A raw disk image or block device; may be given several times. Limits are so many requests a second and so many at once, which are
    /// as many as in a second unless a burst is given, and the same of bytes
    #[arg(
        long = "disk",
        value_name = "PATH[,ro][,engine=uring|sync][,direct][,iops=N[:BURST]][,bandwidth=BYTES[:BURST]]",
        value_parser = parse_disk
    )]
    pub disks: Vec<DiskConfig>,

    /// An encrypted volume (LUKS2) as a disk, opened by what is in the key file; may be given several times. Volumes come behind the disks.
    /// The options of a disk apply; with "discard" the guest may give space back, which shows what it does not use
    #[arg(
        long = "volume",
        value_name = "PATH,key-file=FILE[,discard][,ro][,engine=uring|sync][,direct][,iops=N[:BURST]][,bandwidth=BYTES[:BURST]]",
        value_parser = parse_volume
    )]
    pub volumes: Vec<VolumeOption>,

    /// A TAP device; may be given several times. Limits are those of a disk, for the frames that the guest gets (rx) and for those that
    /// it sends (tx)
    #[arg(
        long = "tap",
        value_name = "NAME[,mac=XX:XX:XX:XX:XX:XX][,queues=N][,{rx|tx}-{frames|bandwidth}=N[:BURST]]...",
        value_parser = parse_tap
    )]
    pub taps: Vec<NicConfig>,

    /// Puts the VM in a private network with those of other launchers of this user that name the same one, behind the TAP devices: IPv6, without root.
    /// Everybody there may reach everybody. They meet in a folder of the user's own [default: $XDG_RUNTIME_DIR/vmcell/NAME, or
    /// /tmp/vmcell-UID/NAME]
    #[arg(
        long,
        value_name = "NAME[,socket=PATH]",
        value_parser = parse_network,
        conflicts_with_all = ["restore", "snapshot_to"]
    )]
    pub network: Option<NetworkOption>,

    /// JSON that the guest reads at 169.254.169.254 by the first --tap, of at most 51,200 bytes without white space [default: none]
    #[arg(long, value_name = "FILE")]
    pub metadata: Option<PathBuf>,

    /// A source of random bytes: as many as the guest asks for, or so many a second and so many at once, which are as many as in a second
    /// unless a burst is given [default: none]
    #[arg(long, value_name = "unlimited|BYTES[,burst=BYTES]", value_parser = parse_rng)]
    pub rng: Option<RngConfig>,

    /// A balloon: how much memory the guest is asked to give back, whether it may take some back when it runs out, whether it reports
    /// free pages (both: on), and how often it is asked for statistics [default: none]
    #[arg(
        long,
        value_name = "MIB[,deflate-on-oom=on|off][,reporting=on|off][,statistics=SECONDS]",
        value_parser = parse_balloon
    )]
    pub balloon: Option<BalloonConfig>,

    /// Sockets between host and guest, which has this context ID; with a path, other programs of the host use them by a Unix socket
    /// there [default: none]
    #[arg(long, value_name = "CID[,path=PATH]", value_parser = parse_vsock)]
    pub vsock: Option<VsockConfig>,

    /// A secret of the guest's, which is what the file holds: systemd in the guest has it as a credential, by LoadCredential=NAME. May be given
    /// several times
    #[arg(long = "secret", value_name = "NAME=FILE", value_parser = SecretParser)]
    pub secrets: Vec<SecretOption>,

    /// How many seconds after the start the secrets are wiped from where the guest finds them [default: 300]
    #[arg(long, value_name = "SECONDS", requires = "secrets", value_parser = clap::value_parser!(u64).range(1..))]
    pub scrub_secrets: Option<u64>,

    /// How the guest finds its devices [default: acpi]
    #[arg(long)]
    pub discovery: Option<Discovery>,

    /// How the kernel is entered [default: auto]
    #[arg(long)]
    pub protocol: Option<Protocol>,

    /// What the serial port is connected to: stdio, none, or a file [default: stdio]
    #[arg(long, value_name = "stdio|none|PATH", value_parser = parse_console)]
    pub console: Option<ConsoleConfig>,

    /// How many bytes a second of what the guest prints are passed on, and how many at once, which are as many as in a second unless a
    /// burst is given [default: no limit]
    #[arg(long, value_name = "BYTES[:BURST]", value_parser = |text: &str| parse_rate(text, text))]
    pub console_rate: Option<RateLimit>,

    /// A file that gets what the guest prints as well; may be given several times
    #[arg(long = "log", value_name = "PATH[,append][,max=BYTES][,keep=N]", value_parser = parse_log)]
    pub logs: Vec<ConsoleFile>,

    /// For how many microseconds at most the I/O thread looks for more to do before it sleeps; 0 turns that off [default: 50]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub poll_us: Option<u32>,

    /// What becomes of a system call that a thread of the VM has no reason to make: it fails as if the kernel did not have it, it ends the
    /// launcher, or it is made [default: refuse, or what the --config says]
    #[arg(long, value_name = "refuse|kill|off")]
    pub seccomp: Option<Seccomp>,

    /// Gives up what the VM does not need, and refuses to go on if the host does not take all of it [default: gives up what it can, and
    /// says on standard error what is missing]
    #[arg(long, conflicts_with = "no_jail")]
    pub jail: bool,

    /// Gives up nothing, for debuggers and the like
    #[arg(long)]
    pub no_jail: bool,

    /// Says on standard error how long things took, what happens to the VM, and how the guest ended
    #[arg(short)]
    pub verbose: bool,
}

/// The cgroup of the VM's threads, and what memory all processes have in the one above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    pub of_vm: CgroupConfig,
    pub memory: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Discovery {
    Acpi,
    Cmdline,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Seccomp {
    Refuse,
    Kill,
    Off,
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

impl From<Seccomp> for vmcell::Seccomp {
    fn from(seccomp: Seccomp) -> Self {
        match seccomp {
            Seccomp::Refuse => Self::Refuse,
            Seccomp::Kill => Self::Kill,
            Seccomp::Off => Self::Off,
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

fn parse_console(text: &str) -> Result<ConsoleConfig, String> {
    match text {
        "" => Err("allowed are stdio, none, or the path of a file".to_owned()),
        "stdio" => Ok(ConsoleConfig::Stdio),
        "none" => Ok(ConsoleConfig::None),
        path => Ok(ConsoleConfig::file(path)),
    }
}

fn parse_cpu(text: &str) -> Result<CpuConfig, String> {
    let (level, features) = text.split_once(',').map_or((text, None), |(level, features)| (level, Some(features)));
    let level = match level {
        "host" => CpuLevel::Host,
        "v2" => CpuLevel::V2,
        "v3" => CpuLevel::V3,
        "v4" => CpuLevel::V4,
        other => return Err(format!("{other:?} was given, allowed are host, v2, v3 and v4")),
    };
    let features = features.into_iter().flat_map(|features| features.split(','));
    Ok(features.fold(CpuConfig::level(level), |cpu, feature| cpu.with(feature)))
}

fn parse_log(text: &str) -> Result<ConsoleFile, String> {
    let (path, options) = split(text)?;
    let mut file = ConsoleFile::new(path);
    for option in options {
        match option.split_once('=') {
            None if option == "append" => file.append = true,
            Some(("max", bytes)) => file.max_bytes = Some(parse_number(bytes, option, u64::MAX)?),
            Some(("keep", count)) => file.keep = parse_number(count, option, u32::MAX)?,
            _ => return Err(format!("unknown log option '{option}', allowed are append, max=BYTES and keep=N")),
        }
    }
    Ok(file)
}

fn parse_cgroup(text: &str) -> Result<Cgroup, String> {
    let (folder, options) = split(text)?;
    let (mut of_vm, mut memory, mut burst) = (CgroupConfig::new(folder), None, 0);
    for option in options {
        match option.split_once('=') {
            Some(("name", name)) if !name.is_empty() => of_vm.name = Some(name.to_owned()),
            Some(("cpu", share)) => of_vm.cpu = Some(parse_share(share)?),
            Some(("burst", ms)) => burst = parse_from_to(ms, option, 0, 1000)?,
            Some(("weight", weight)) => of_vm.weight = Some(parse_from_to(weight, option, 1, 10_000)?),
            Some(("memory", bytes)) => memory = Some(parse_from_to(bytes, option, 1, u64::MAX)?),
            _ => {
                let allowed = "name=NAME, cpu=N[/M], burst=MS, weight=N and memory=BYTES";
                return Err(format!("unknown cgroup option '{option}', allowed are {allowed}"));
            }
        }
    }
    match &mut of_vm.cpu {
        Some(share) => share.burst_us = burst * 1000,
        None if burst > 0 => return Err("a burst means nothing without cpu".to_owned()),
        None => {}
    }
    Ok(Cgroup { of_vm, memory })
}

fn parse_share(text: &str) -> Result<CpuShare, String> {
    let (numerator, denominator) = text.split_once('/').unwrap_or((text, "1"));
    match (numerator.parse(), denominator.parse()) {
        (Ok(numerator @ 1..), Ok(denominator @ 1..)) => Ok(CpuShare::fraction(numerator, denominator)),
        _ => Err(format!("'{text}' is no share of a CPU, allowed are N and N/M, as in 1/16")),
    }
}

fn parse_from_to<T: FromStr + Display + PartialOrd>(
    digits: &str,
    option: &str,
    least: T,
    most: T,
) -> Result<T, String> {
    let number = digits.parse().ok().filter(|number| (&least..=&most).contains(&number));
    number
        .ok_or_else(|| format!("'{option}' has no number that is allowed, which are {least} to {most}, without a unit"))
}

fn parse_rng(text: &str) -> Result<RngConfig, String> {
    if text == "unlimited" {
        return Ok(RngConfig::new());
    }
    let (per_second, options) = text.split_once(',').map_or((text, None), |(first, rest)| (first, Some(rest)));
    let rate = per_second.parse().map_err(|_| {
        format!("'{per_second}' is no number of bytes a second, allowed are unlimited and BYTES[,burst=BYTES]")
    });
    let mut rate = RateLimit::per_second(rate?);
    if let Some(option) = options {
        let burst = option.strip_prefix("burst=");
        let burst = burst.ok_or_else(|| format!("unknown rng option '{option}', allowed is burst=BYTES"))?;
        rate = rate.burst(parse_number(burst, option, u64::MAX)?);
    }
    Ok(RngConfig::new().rate(rate))
}

fn parse_balloon(text: &str) -> Result<BalloonConfig, String> {
    let mut parts = text.split(',');
    let mib = parts.next().unwrap_or_default();
    let mut balloon = BalloonConfig::new().mib(mib.parse().map_err(|_| format!("'{mib}' is no number of MiB"))?);
    for option in parts {
        match option.split_once('=') {
            Some(("deflate-on-oom", word @ ("on" | "off"))) => balloon.deflate_on_oom = word == "on",
            Some(("reporting", word @ ("on" | "off"))) => balloon.reporting = word == "on",
            Some(("statistics", seconds)) => balloon.statistics_s = parse_number(seconds, option, 86_400)?,
            _ => {
                let allowed = "deflate-on-oom=on|off, reporting=on|off and statistics=SECONDS";
                return Err(format!("unknown balloon option '{option}', allowed are {allowed}"));
            }
        }
    }
    Ok(balloon)
}

fn parse_number<T: FromStr + Display>(digits: &str, option: &str, most: T) -> Result<T, String> {
    digits.parse().map_err(|_| format!("'{option}' has no number, allowed are 0 to {most}, without a unit"))
}

fn parse_vsock(text: &str) -> Result<VsockConfig, String> {
    let (cid, path) = text.split_once(",path=").map_or((text, None), |(cid, path)| (cid, Some(path)));
    let cid: u32 = cid.parse().map_err(|e| format!("'{cid}': {e}, allowed are 3 to 4294967294"))?;
    let vsock = VsockConfig::new(cid.into());
    Ok(match path {
        Some(path) => vsock.unix_path(path),
        None => vsock,
    })
}

/// A volume, and what opens it.
#[derive(Clone, Debug)]
pub struct VolumeOption {
    pub disk: DiskConfig,
    pub key_file: PathBuf,
    pub discard: bool,
}

fn parse_volume(text: &str) -> Result<VolumeOption, String> {
    let (path, options) = split(text)?;
    let (mut key_file, mut discard, mut of_disk) = (None, false, Vec::new());
    for option in options {
        match option.split_once('=') {
            Some(("key-file", file)) if !file.is_empty() => key_file = Some(PathBuf::from(file)),
            None if option == "discard" => discard = true,
            _ => of_disk.push(option),
        }
    }
    let key_file = key_file.ok_or("a volume needs key-file=FILE")?;
    Ok(VolumeOption { disk: disk_with(path, of_disk)?, key_file, discard })
}

/// What a secret is called, and the file that has it.
#[derive(Clone, Debug)]
pub struct SecretOption {
    pub name: String,
    pub file: PathBuf,
}

/// With a message of its own: the usual one shows what was given, which may be the secret itself.
#[derive(Clone)]
struct SecretParser;

impl TypedValueParser for SecretParser {
    type Value = SecretOption;

    fn parse_ref(&self, command: &Command, _arg: Option<&Arg>, text: &OsStr) -> clap::error::Result<SecretOption> {
        match text.to_str().and_then(|text| text.split_once('=')) {
            Some((name, file)) if !name.is_empty() && !file.is_empty() => {
                Ok(SecretOption { name: name.to_owned(), file: PathBuf::from(file) })
            }
            _ => {
                let message = "--secret: allowed is NAME=FILE, with the file that has the secret\n";
                Err(clap::Error::raw(clap::error::ErrorKind::ValueValidation, message).with_cmd(command))
            }
        }
    }
}

fn parse_disk(text: &str) -> Result<DiskConfig, String> {
    let (path, options) = split(text)?;
    disk_with(path, options)
}

fn disk_with<'a>(path: &str, options: impl IntoIterator<Item = &'a str>) -> Result<DiskConfig, String> {
    let mut disk = DiskConfig::new(path);
    for option in options {
        match option.split_once('=') {
            None if option == "ro" => disk.read_only = true,
            None if option == "direct" => disk.direct = true,
            Some(("engine", "sync")) => disk.engine = Engine::Sync,
            Some(("engine", "uring")) => disk.engine = Engine::Uring,
            Some(("iops", rate)) => disk.limits.operations = Some(parse_rate(rate, option)?),
            Some(("bandwidth", rate)) => disk.limits.bytes = Some(parse_rate(rate, option)?),
            _ => {
                let allowed =
                    "allowed are ro, engine=uring, engine=sync, direct, iops=N[:BURST] and bandwidth=BYTES[:BURST]";
                return Err(format!("unknown disk option '{option}', {allowed}"));
            }
        }
    }
    Ok(disk)
}

fn parse_tap(text: &str) -> Result<NicConfig, String> {
    let (name, options) = split(text)?;
    let mut tap = NicConfig::tap(name);
    for option in options {
        match option.split_once('=') {
            Some(("mac", mac)) => tap.mac = Some(parse_mac(mac)?),
            Some(("queues", queues)) => tap.queues = Some(parse_queues(queues)?),
            Some((what @ ("rx-frames" | "rx-bandwidth"), rate)) => {
                limit_frames(&mut tap.receive_limits, what, parse_rate(rate, option)?);
            }
            Some((what @ ("tx-frames" | "tx-bandwidth"), rate)) => {
                limit_frames(&mut tap.send_limits, what, parse_rate(rate, option)?);
            }
            _ => {
                let allowed = "allowed are mac=XX:XX:XX:XX:XX:XX, queues=N, and rx-frames, rx-bandwidth, tx-frames and \
                               tx-bandwidth with =N[:BURST]";
                return Err(format!("unknown tap option '{option}', {allowed}"));
            }
        }
    }
    Ok(tap)
}

fn limit_frames(limits: &mut Limits, what: &str, rate: RateLimit) {
    if what.ends_with("frames") {
        limits.operations = Some(rate);
    } else {
        limits.bytes = Some(rate);
    }
}

/// So many a second, and so many at once.
fn parse_rate(text: &str, option: &str) -> Result<RateLimit, String> {
    let (per_second, burst) = text.split_once(':').unwrap_or((text, text));
    let per_second = RateLimit::per_second(parse_number(per_second, option, 1 << 40)?);
    Ok(per_second.burst(parse_number(burst, option, 1 << 40)?))
}

fn split(text: &str) -> Result<(&str, impl Iterator<Item = &str>), String> {
    let mut parts = text.split(',');
    match parts.next() {
        None | Some("") => Err("a path or a name is missing in front of the options".to_owned()),
        Some(first) => Ok((first, parts)),
    }
}

fn parse_queues(text: &str) -> Result<u16, String> {
    let queues = text.parse().ok().filter(|queues| (1..=16).contains(queues));
    queues.ok_or_else(|| format!("'{text}' is no number of queues, allowed are 1 to 16"))
}

fn parse_mac(text: &str) -> Result<[u8; 6], String> {
    let refused = || format!("'{text}' is no MAC address, allowed are six bytes as in 02:00:00:00:00:01");
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).ok().filter(|_| byte.len() == 2 && !byte.starts_with('+')))
        .collect();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(refused)
}
