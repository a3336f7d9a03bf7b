//! The command line: three commands, a few flags, no dependency. Nothing here knows what the commands do.

/// Printed by `cargo xtask --help`.
pub const USAGE: &str = "\
cargo xtask run [--nested] [--vcpus N] [--memory MIB]
    Boot a distribution's kernel and root file system in a micro-VM, with a disk and a network, and show its console.
    Standard input goes to the guest's shell; at its end the guest powers off.
      --nested      use the nested host even if this host could boot Linux itself
      --vcpus N     vCPUs of the guest (1 to 64, default 1)
      --memory MIB  memory of the guest (128 to 65536, default 512)

cargo xtask test [FILTER] [--skip-checks] [--nested] [--long]
    Run every check and test, and end with a summary.
      FILTER         only the KVM tests whose file or name contains it, and no other check
      --skip-checks  only the KVM tests
      --nested       run all KVM tests in the nested host
      --long         put each test under more load, and fuzz each target for minutes: some hours in all

cargo xtask fuzz TARGET [--seconds N]
    Run one of the targets in fuzz/fuzz_targets, guided by coverage if there is a C++ compiler, otherwise by chance.
      --seconds N  for how long (1 to 604800, default 60)

Environment:
    VMCELL_KERNEL  a guest kernel (bzImage or ELF) instead of the distribution's
    VMCELL_ROOTFS  a root file system (raw ext4 image) instead of the one made here; it is not modified
    VMCELL_CACHE   where prepared guests are kept (default $XDG_CACHE_HOME/vmcell or ~/.cache/vmcell)
";

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    Help,
    Run(RunOptions),
    Test(TestOptions),
    Fuzz(FuzzOptions),
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
    pub nested: bool,
    pub long: bool,
}

/// Flags of `cargo xtask fuzz`.
#[derive(Debug, PartialEq, Eq)]
pub struct FuzzOptions {
    pub target: String,
    pub seconds: u32,
}

/// Reads the arguments after the program's name.
///
/// # Errors
/// An unknown command or flag, or a bad value: the message says which, and what is allowed.
pub fn parse(args: impl Iterator<Item = String>) -> Result<Command, String> {
    let args: Vec<String> = args.collect();
    let Some((command, rest)) = args.split_first() else {
        return Err("no command given; allowed: run, test, fuzz (cargo xtask --help tells more)".into());
    };
    if args.iter().any(|arg| arg == "--help" || arg == "-h") || command == "help" {
        return Ok(Command::Help);
    }
    match command.as_str() {
        "run" => parse_run(rest).map(Command::Run),
        "test" => parse_test(rest).map(Command::Test),
        "fuzz" => parse_fuzz(rest).map(Command::Fuzz),
        other => Err(format!("unknown command `{other}`; allowed: run, test, fuzz")),
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
    for arg in args {
        match arg.as_str() {
            "--skip-checks" => options.skip_checks = true,
            "--nested" => options.nested = true,
            "--long" => options.long = true,
            flag if flag.starts_with('-') => {
                return Err(format!(
                    "test: unknown flag `{flag}`; allowed: --skip-checks, --nested, --long, and one FILTER"
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
        let options = TestOptions { filter: Some("linux_disk".into()), skip_checks: true, nested: false, long: true };
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
    fn unknown_words_are_refused_with_what_is_allowed() {
        for line in ["", "build", "run --tap", "test --fast", "fuzz", "fuzz a --fast"] {
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
