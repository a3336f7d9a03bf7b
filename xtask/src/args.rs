//! The command line: four commands, a few flags, no dependency. Nothing here knows what the commands do.

/// Printed by `cargo xtask --help`.
pub const USAGE: &str = "\
cargo xtask run [--nested] [--vcpus N] [--memory MIB]
    Boot a distribution's kernel and root file system in a micro-VM, with a disk and a network, and show its console.
    Standard input goes to the guest's shell; at its end the guest powers off.
      --nested      use the nested host even if this host could boot Linux itself
      --vcpus N     vCPUs of the guest (1 to 64, default 1)
      --memory MIB  memory of the guest (128 to 65536, default 512)

cargo xtask test [FILTER] [--skip-checks] [--check NAME] [--nested] [--long]
    Run the checks and tests, and end with a summary.
      FILTER         only the KVM tests whose file or name contains it, and no other check
      --skip-checks  only the KVM tests
      --check NAME   only this one of the checks that need no guest: format, clippy, docs, unit, volumes, secrets, edge,
                     page, models, nightly (Miri and sanitizers), package, interface, version, fuzz, licences
      --nested       run all KVM tests in the nested host
      --long         all tests, each under more load, and fuzz each target for minutes: some hours in all

cargo xtask fuzz TARGET [--seconds N]
    Run one of the targets in fuzz/fuzz_targets, guided by coverage if there is a C++ compiler, otherwise by chance.
      --seconds N  for how long (1 to 604800, default 60)

cargo xtask bench [--rows FILTER]... [--rounds N] [--millis N] [--launcher SPEC]... [--firecracker PATH] [--no-qemu]
                  [--dir PATH] [--disk-mib N] [--json FILE]
    Measure one guest under our launcher, Firecracker, QEMU's microvm, and without a guest, in alternating rounds.
      --rows FILTER       only the rows whose name contains it; `boot`, in the nested host, runs only if it is asked for
      --rounds N          rounds that count (1 to 999, default 7); one more comes first, to warm up
      --millis N          how long a run is measured (20 to 60000, default 1000)
      --launcher SPEC     a launcher of ours, LABEL=[PATH][,DISK_OPTION]...[ ARGUMENT]...; without PATH the one of this tree.
                          Several are compared: --launcher old=/tmp/launch --launcher 'new=,engine=uring --poll-us 50'
      --firecracker PATH  the program firecracker
      --no-qemu           leave QEMU out
      --dir PATH          where the disk's file is (default target/xtask/bench)
      --disk-mib N        its size (16 to 65536, default 512)
      --json FILE         write every sample there

cargo xtask bench --instructions [--rows FILTER]... [--against REVISION | --accept]
    Count the instructions of each piece of the library, beside those recorded in benches/instructions.txt.
      --rows FILTER       only the pieces whose name contains it
      --against REVISION  beside those of a git revision's library instead
      --accept            record them: cargo xtask test fails if a piece needs 15 % more than recorded

cargo xtask bench scale [--vms N]
    Show what many VMs in one process take: descriptors, mappings, threads, memory, and time to start and to end.
      --vms N             how many (1 to 100000, default 1000)

cargo xtask bench api [--firecracker PATH] [--rounds N] [--millis N]
    Measure vmcell-firecracker, and Firecracker if it is given, driven over the socket of their API, in alternating rounds: the
    time to the start's answer and to the guest's first byte, memory, and requests a second. The flags are those of bench.

cargo xtask bench network [ports | demand | switch | wireguard]
    Show what private networks take: the memory of a port, a service that is started on demand, guest to guest beside two
    TAP devices and a bridge (needs root), and WireGuard beside wireguard-go, if that is installed. Or one of these parts.

cargo xtask bench platform [edge | apps]
    Measure the platform: requests a second through its edge beside nginx as a proxy of the same backend; then, with Debian's kernel, the
    time from a deploy to the first byte by HTTPS, that of a request which wakes a VM, and memory with 100 apps that sleep. Or one of both.

Environment:
    VMCELL_KERNEL  a guest kernel (bzImage or ELF) instead of the distribution's; its modules are taken from beside it
                   (lib/modules/VERSION or ../lib/modules/VERSION, as unpacked from a package)
    VMCELL_ROOTFS  a root file system (raw ext4 image) instead of the one made here; it is not modified
    VMCELL_VILLAIN an initramfs of virtio-villain, each of whose cases `test linux_villain` runs against our devices
    VMCELL_FIRECRACKER  the whole path of a Firecracker 1.16.1, whose answers `test kvm_original` compares with those of vmcell-firecracker
    VMCELL_CACHE   where prepared guests are kept (default $XDG_CACHE_HOME/vmcell or ~/.cache/vmcell)
";

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    Help,
    Run(RunOptions),
    Test(TestOptions),
    Fuzz(FuzzOptions),
    Bench(BenchOptions),
    Instructions(InstructionOptions),
    Scale(ScaleOptions),
    Snapshot(SnapshotOptions),
    Volume,
    Api(ApiOptions),
    /// Of which part alone, if of one.
    Network(Option<String>),
    /// Of which part alone, if of one.
    Platform(Option<String>),
}

/// Flags of `cargo xtask run`.
#[derive(Debug, PartialEq, Eq)]
pub struct RunOptions {
    pub nested: bool,
    pub vcpus: u32,
    pub memory_mib: u32,
}

/// Flags of `cargo xtask test`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TestOptions {
    pub filter: Option<String>,
    pub skip_checks: bool,
    pub check: Option<String>,
    pub nested: bool,
    pub long: bool,
}

/// Flags of `cargo xtask fuzz`.
#[derive(Debug, PartialEq, Eq)]
pub struct FuzzOptions {
    pub target: String,
    pub seconds: u32,
}

/// Flags of `cargo xtask bench`.
#[derive(Debug, PartialEq, Eq)]
pub struct BenchOptions {
    pub rows: Vec<String>,
    pub rounds: u32,
    pub run_ms: u32,
    pub launchers: Vec<LauncherOption>,
    pub firecracker: Option<String>,
    pub qemu: bool,
    pub dir: Option<String>,
    pub disk_mib: u32,
    pub json: Option<String>,
    /// The profile of cargo by which our programs are built; not an option of the command line.
    pub profile: &'static str,
}

/// Flags of `cargo xtask bench --instructions`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct InstructionOptions {
    pub rows: Vec<String>,
    pub against: Option<String>,
    pub accept: bool,
}

/// Flags of `cargo xtask bench scale`.
#[derive(Debug, PartialEq, Eq)]
pub struct ScaleOptions {
    pub vms: u32,
}

/// Flags of `cargo xtask bench snapshot`.
#[derive(Debug, PartialEq, Eq)]
pub struct SnapshotOptions {
    pub forks: u32,
}

/// Flags of `cargo xtask bench api`.
#[derive(Debug, PartialEq, Eq)]
pub struct ApiOptions {
    pub firecracker: Option<String>,
    pub rounds: u32,
    pub run_ms: u32,
}

/// A launcher of ours that is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LauncherOption {
    pub label: String,
    /// Empty for the one of this tree.
    pub path: String,
    pub disk_options: Vec<String>,
    pub arguments: Vec<String>,
}

impl Default for LauncherOption {
    fn default() -> Self {
        Self { label: "vmcell".into(), path: String::new(), disk_options: Vec::new(), arguments: Vec::new() }
    }
}

/// Reads the arguments after the program's name.
///
/// # Errors
/// An unknown command or flag, or a bad value: the message says which, and what is allowed.
pub fn parse(args: impl Iterator<Item = String>) -> Result<Command, String> {
    let args: Vec<String> = args.collect();
    let Some((command, rest)) = args.split_first() else {
        return Err("no command given; allowed: run, test, fuzz, bench (cargo xtask --help tells more)".into());
    };
    if args.iter().any(|arg| arg == "--help" || arg == "-h") || command == "help" {
        return Ok(Command::Help);
    }
    match command.as_str() {
        "run" => parse_run(rest).map(Command::Run),
        "test" => parse_test(rest).map(Command::Test),
        "fuzz" => parse_fuzz(rest).map(Command::Fuzz),
        "bench" if rest.iter().any(|arg| arg == "--instructions") => {
            parse_instructions(rest).map(Command::Instructions)
        }
        "bench" if rest.first().is_some_and(|arg| arg == "scale") => parse_scale(&rest[1..]).map(Command::Scale),
        "bench" if rest.first().is_some_and(|arg| arg == "snapshot") => {
            parse_snapshot(&rest[1..]).map(Command::Snapshot)
        }
        "bench" if rest.first().is_some_and(|arg| arg == "api") => parse_api(&rest[1..]).map(Command::Api),
        "bench" if rest.first().is_some_and(|arg| arg == "volume") => parse_volume(&rest[1..]),
        "bench" if rest.first().is_some_and(|arg| arg == "network") => parse_network(&rest[1..]),
        "bench" if rest.first().is_some_and(|arg| arg == "platform") => parse_platform(&rest[1..]),
        "bench" => parse_bench(rest).map(Command::Bench),
        other => Err(format!("unknown command `{other}`; allowed: run, test, fuzz, bench")),
    }
}

fn parse_run(args: &[String]) -> Result<RunOptions, String> {
    let mut options = RunOptions { nested: false, vcpus: 1, memory_mib: 512 };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--nested" => options.nested = true,
            "--vcpus" => options.vcpus = number("--vcpus", args.next(), 1, 64)?,
            "--memory" => options.memory_mib = number("--memory", args.next(), 128, 65536)?,
            other => {
                return Err(format!("run: unknown argument `{other}`; allowed: --nested, --vcpus N, --memory MIB"));
            }
        }
    }
    Ok(options)
}

fn parse_test(args: &[String]) -> Result<TestOptions, String> {
    let mut options = TestOptions::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--skip-checks" => options.skip_checks = true,
            "--check" => options.check = Some(text(arg, args.next())?),
            "--nested" => options.nested = true,
            "--long" => options.long = true,
            flag if flag.starts_with('-') => {
                return Err(format!(
                    "test: unknown flag `{flag}`; allowed: --skip-checks, --check NAME, --nested, --long, and one FILTER"
                ));
            }
            filter if options.filter.is_none() => options.filter = Some(filter.into()),
            second => return Err(format!("test: a second filter `{second}`; at most one is allowed")),
        }
    }
    Ok(options)
}

fn parse_fuzz(args: &[String]) -> Result<FuzzOptions, String> {
    let (mut target, mut seconds) = (None, 60);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--seconds" => seconds = number("--seconds", args.next(), 1, 604_800)?,
            flag if flag.starts_with('-') => {
                return Err(format!("fuzz: unknown flag `{flag}`; allowed: one TARGET and --seconds N"));
            }
            name if target.is_none() => target = Some(name.into()),
            second => return Err(format!("fuzz: a second target `{second}`; allowed: one")),
        }
    }
    let target = target.ok_or("fuzz: no target given; allowed: one of those in fuzz/fuzz_targets")?;
    Ok(FuzzOptions { target, seconds })
}

impl Default for BenchOptions {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            rounds: 7,
            run_ms: 1000,
            launchers: Vec::new(),
            firecracker: None,
            qemu: true,
            dir: None,
            disk_mib: 512,
            json: None,
            profile: "tuned",
        }
    }
}

fn parse_bench(args: &[String]) -> Result<BenchOptions, String> {
    let mut options = BenchOptions::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let flag = arg.as_str();
        match flag {
            "--rows" => options.rows.push(text(flag, args.next())?),
            "--rounds" => options.rounds = number(flag, args.next(), 1, 999)?,
            "--millis" => options.run_ms = number(flag, args.next(), 20, 60_000)?,
            "--launcher" => options.launchers.push(parse_launcher(&text(flag, args.next())?)?),
            "--firecracker" => options.firecracker = Some(text(flag, args.next())?),
            "--no-qemu" => options.qemu = false,
            "--dir" => options.dir = Some(text(flag, args.next())?),
            "--disk-mib" => options.disk_mib = number(flag, args.next(), 16, 65_536)?,
            "--json" => options.json = Some(text(flag, args.next())?),
            other => {
                return Err(format!(
                    "bench: unknown argument `{other}`; allowed: --rows, --rounds, --millis, --launcher, --firecracker, \
                     --no-qemu, --dir, --disk-mib, --json; or --instructions, or scale"
                ));
            }
        }
    }
    Ok(options)
}

fn parse_scale(args: &[String]) -> Result<ScaleOptions, String> {
    let mut options = ScaleOptions { vms: 1000 };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--vms" => options.vms = number(arg, args.next(), 1, 100_000)?,
            other => return Err(format!("bench scale: unknown argument `{other}`; allowed: --vms")),
        }
    }
    Ok(options)
}

fn parse_snapshot(args: &[String]) -> Result<SnapshotOptions, String> {
    let mut options = SnapshotOptions { forks: 1000 };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--forks" => options.forks = number(arg, args.next(), 1, 100_000)?,
            other => return Err(format!("bench snapshot: unknown argument `{other}`; allowed: --forks")),
        }
    }
    Ok(options)
}

fn parse_api(args: &[String]) -> Result<ApiOptions, String> {
    let BenchOptions { firecracker, rounds, run_ms, .. } = BenchOptions::default();
    let mut options = ApiOptions { firecracker, rounds, run_ms };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let flag = arg.as_str();
        match flag {
            "--firecracker" => options.firecracker = Some(text(flag, args.next())?),
            "--rounds" => options.rounds = number(flag, args.next(), 1, 999)?,
            "--millis" => options.run_ms = number(flag, args.next(), 20, 60_000)?,
            other => {
                return Err(format!(
                    "bench api: unknown argument `{other}`; allowed: --firecracker, --rounds, --millis"
                ));
            }
        }
    }
    Ok(options)
}

fn parse_volume(args: &[String]) -> Result<Command, String> {
    match args.first() {
        None => Ok(Command::Volume),
        Some(other) => Err(format!("bench volume: unknown argument `{other}`; none is allowed")),
    }
}

fn parse_network(args: &[String]) -> Result<Command, String> {
    const PARTS: [&str; 4] = ["ports", "demand", "switch", "wireguard"];
    match args {
        [] => Ok(Command::Network(None)),
        [part] if PARTS.contains(&part.as_str()) => Ok(Command::Network(Some(part.clone()))),
        [other, ..] => {
            Err(format!("bench network: unknown argument `{other}`; allowed is one of {}", PARTS.join(", ")))
        }
    }
}

fn parse_platform(args: &[String]) -> Result<Command, String> {
    match args {
        [] => Ok(Command::Platform(None)),
        [part] if ["edge", "apps"].contains(&part.as_str()) => Ok(Command::Platform(Some(part.clone()))),
        [other, ..] => Err(format!("bench platform: unknown argument `{other}`; allowed is one of edge, apps")),
    }
}

fn parse_instructions(args: &[String]) -> Result<InstructionOptions, String> {
    let mut options = InstructionOptions::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let flag = arg.as_str();
        match flag {
            "--instructions" => {}
            "--rows" => options.rows.push(text(flag, args.next())?),
            "--against" => options.against = Some(text(flag, args.next())?),
            "--accept" => options.accept = true,
            other => {
                return Err(format!(
                    "bench --instructions: unknown argument `{other}`; allowed: --rows, --against, --accept"
                ));
            }
        }
    }
    if options.accept && options.against.is_some() {
        return Err("bench --instructions: both --against and --accept; allowed: one of them".into());
    }
    Ok(options)
}

/// `LABEL=[PATH][,DISK_OPTION]...[ ARGUMENT]...`
fn parse_launcher(spec: &str) -> Result<LauncherOption, String> {
    let refused = || format!("--launcher `{spec}` is refused; allowed: LABEL=[PATH][,DISK_OPTION]...[ ARGUMENT]...");
    let (label, rest) = spec.split_once('=').ok_or_else(refused)?;
    if label.is_empty() || label.contains('/') {
        return Err(refused());
    }
    let mut words = rest.split(' ');
    let mut disk = words.next().unwrap_or_default().split(',').map(String::from);
    let path = disk.next().unwrap_or_default();
    let arguments = words.filter(|word| !word.is_empty()).map(String::from).collect();
    Ok(LauncherOption { label: label.into(), path, disk_options: disk.collect(), arguments })
}

fn text(flag: &str, value: Option<&String>) -> Result<String, String> {
    value.cloned().ok_or_else(|| format!("{flag} needs a value; allowed: any text"))
}

fn number(flag: &str, value: Option<&String>, min: u32, max: u32) -> Result<u32, String> {
    let value = value.ok_or_else(|| format!("{flag} needs a value, {min} to {max}"))?;
    match value.parse() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(format!("{flag} `{value}` is refused; allowed: a number from {min} to {max}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(String::from))
    }

    #[test]
    fn run_takes_its_flags_in_any_order() {
        let options = RunOptions { nested: true, vcpus: 4, memory_mib: 1024 };
        assert_eq!(parse_line("run --memory 1024 --nested --vcpus 4"), Ok(Command::Run(options)));
    }

    #[test]
    fn test_takes_one_filter() {
        let filter = Some("linux_disk".into());
        let options = TestOptions { filter, skip_checks: true, long: true, ..TestOptions::default() };
        assert_eq!(parse_line("test linux_disk --skip-checks --long"), Ok(Command::Test(options)));
        assert!(parse_line("test a b").unwrap_err().contains("second filter `b`"));
    }

    #[test]
    fn fuzz_takes_one_target() {
        let options = FuzzOptions { target: "queue".into(), seconds: 5 };
        assert_eq!(parse_line("fuzz --seconds 5 queue"), Ok(Command::Fuzz(options)));
        assert!(parse_line("fuzz a b").unwrap_err().contains("second target `b`"));
    }

    #[test]
    fn bench_takes_launchers_with_options_and_arguments() {
        let arguments = ["bench", "--rows", "disk", "--launcher", "new=/l,engine=uring,x --poll-us 50"];
        let Ok(Command::Bench(options)) = parse(arguments.into_iter().map(String::from)) else {
            panic!("refused");
        };
        let [launcher] = &options.launchers[..] else { panic!("{options:?}") };
        assert_eq!((launcher.label.as_str(), launcher.path.as_str()), ("new", "/l"));
        assert_eq!(launcher.disk_options, ["engine=uring", "x"]);
        assert_eq!(launcher.arguments, ["--poll-us", "50"]);
        assert_eq!((options.rows.len(), options.rounds, options.qemu), (1, 7, true));
        assert!(parse_line("bench --launcher /l").unwrap_err().contains("LABEL="));
    }

    #[test]
    fn instructions_are_compared_or_accepted() {
        let options = InstructionOptions { rows: vec!["queue".into()], against: Some("main".into()), accept: false };
        let line = "bench --rows queue --instructions --against main";
        assert_eq!(parse_line(line), Ok(Command::Instructions(options)));
        assert!(parse_line(&format!("{line} --accept")).unwrap_err().contains("allowed: one"));
        assert!(parse_line("bench --accept").is_err());
    }

    #[test]
    fn scale_takes_a_number_of_vms() {
        assert_eq!(parse_line("bench scale"), Ok(Command::Scale(ScaleOptions { vms: 1000 })));
        assert_eq!(parse_line("bench scale --vms 20"), Ok(Command::Scale(ScaleOptions { vms: 20 })));
        assert!(parse_line("bench scale --vms 0").unwrap_err().contains("1 to 100000"));
        assert!(parse_line("bench scale --rows disk").unwrap_err().contains("allowed: --vms"));
    }

    #[test]
    fn api_takes_a_peer_and_how_long_to_measure() {
        let options = |firecracker: Option<&str>, rounds| {
            Ok(Command::Api(ApiOptions { firecracker: firecracker.map(String::from), rounds, run_ms: 1000 }))
        };
        assert_eq!(parse_line("bench api"), options(None, 7));
        assert_eq!(parse_line("bench api --rounds 3 --firecracker /f"), options(Some("/f"), 3));
        assert!(parse_line("bench api --rows memory").unwrap_err().contains("allowed: --firecracker"));
    }

    #[test]
    fn volume_takes_no_argument() {
        assert_eq!(parse_line("bench volume"), Ok(Command::Volume));
        assert!(parse_line("bench volume --size 9").unwrap_err().contains("none is allowed"));
    }

    #[test]
    fn network_takes_one_of_its_parts() {
        assert_eq!(parse_line("bench network"), Ok(Command::Network(None)));
        assert_eq!(parse_line("bench network switch"), Ok(Command::Network(Some("switch".into()))));
        assert!(parse_line("bench network disks").unwrap_err().contains("ports, demand, switch"));
    }

    #[test]
    fn snapshot_takes_a_number_of_forks() {
        assert_eq!(parse_line("bench snapshot"), Ok(Command::Snapshot(SnapshotOptions { forks: 1000 })));
        assert_eq!(parse_line("bench snapshot --forks 9"), Ok(Command::Snapshot(SnapshotOptions { forks: 9 })));
        assert!(parse_line("bench snapshot --vms 9").unwrap_err().contains("allowed: --forks"));
    }

    #[test]
    fn unknown_words_are_refused_with_what_is_allowed() {
        for line in [
            "",
            "build",
            "run --tap",
            "test --fast",
            "fuzz",
            "fuzz a --fast",
            "bench --fast",
            "bench --instructions --fast",
        ] {
            let error = parse_line(line).unwrap_err();
            assert!(error.contains("allowed: "), "{line}: {error}");
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for line in ["run --vcpus", "run --vcpus 0", "run --vcpus 65", "run --memory lots"] {
            assert!(parse_line(line).is_err(), "{line}");
        }
    }

    #[test]
    fn help_wins_over_everything() {
        assert_eq!(parse_line("run --bogus --help"), Ok(Command::Help));
    }
}
