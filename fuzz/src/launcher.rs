//! Any arguments for the launcher: those of disks, TAP devices and logs against a model of their grammar.

use std::path::PathBuf;

use clap::Parser;
use vmcell::{Boot, CgroupConfig, ConsoleConfig, ConsoleFile, CpuShare, DiskConfig, Engine, NicConfig};

use crate::describe::describe;
use crate::input::Script;
use crate::options::{Cgroup, Options};

/// Between two arguments.
const SEPARATOR: u8 = 0xff;
const FLAGS: &[&str] = &[
    "--disk",
    "--tap",
    "--log",
    "--memory",
    "--vcpus",
    "--cpu",
    "--console",
    "--discovery",
    "--protocol",
    "--pages",
    "--numa-node",
    "--poll-us",
    "--seccomp",
    "--cmdline",
    "--initrd",
    "--lock-memory",
    "--core-scheduling",
    "-v",
    "--cgroup",
];

/// Runs one input: arguments, each a byte for a flag and its value.
pub fn run(bytes: &[u8]) {
    let mut arguments = vec!["launch".to_owned(), "--kernel=k".to_owned()];
    let (mut disks, mut taps, mut logs, mut others) = (Vec::new(), Vec::new(), Vec::new(), false);
    let (mut cgroups, mut is_free) = (Vec::new(), false);
    for part in bytes.split(|byte| *byte == SEPARATOR).filter(|part| !part.is_empty()).take(16) {
        let flag = FLAGS.get(usize::from(part[0]) % (FLAGS.len() + 1)).copied();
        let value = String::from_utf8_lossy(&part[1..]).into_owned();
        match flag {
            Some("--disk") => disks.push(disk(&value)),
            Some("--tap") => taps.push(tap(&value)),
            Some("--log") => logs.push(log(&value)),
            Some("--cgroup") => cgroups.push(cgroup(&value)),
            None => (others, is_free) = (true, true),
            _ => others = true,
        }
        match flag {
            Some(flag @ ("--lock-memory" | "--core-scheduling" | "-v")) => arguments.push(flag.to_owned()),
            Some(flag) => arguments.push(format!("{flag}={value}")),
            // Any argument, but none that has a file read.
            None if value.contains("config") || value.contains("restore") => {}
            None => arguments.push(value),
        }
    }
    let all_fit =
        disks.iter().all(Option::is_some) && taps.iter().all(Option::is_some) && logs.iter().all(Option::is_some);
    // It can be given once.
    let all_fit = all_fit && cgroups.iter().all(Option::is_some) && cgroups.len() < 2;
    match Options::try_parse_from(arguments) {
        Ok(options) => {
            assert!(options.config.is_none() && options.restore.is_none() && !options.doctor, "nobody asked for these");
            let config = describe(&options, None).expect("no file is read");
            let _ = config.validate();
            assert!(all_fit, "an argument was taken that breaks the grammar");
            let found = (&config.disks, &config.nics, &config.boot.is_some());
            if !is_free {
                assert_eq!(options.cgroup, cgroups.into_iter().flatten().next());
            }
            // An argument that is no value may be a disk as well.
            if !others {
                let expected = (disks.into_iter().flatten().collect(), taps.into_iter().flatten().collect());
                assert_eq!(found, (&expected.0, &expected.1, &true));
                check_console(&config.console, logs.into_iter().flatten().collect());
                assert_eq!(config.boot, Some(Boot::linux("k")));
            }
        }
        Err(error) => {
            let said = error.to_string();
            assert!(!said.is_empty() && (others || !all_fit), "arguments of the grammar were refused: {said}");
        }
    }
}

fn check_console(console: &ConsoleConfig, logs: Vec<ConsoleFile>) {
    let expected = match logs.is_empty() {
        true => ConsoleConfig::Stdio,
        false => {
            let logs = logs.into_iter().map(ConsoleConfig::File);
            ConsoleConfig::All(std::iter::once(ConsoleConfig::Stdio).chain(logs).collect())
        }
    };
    assert_eq!(*console, expected);
}

/// `PATH[,OPTION]...`: a path without a comma that is not empty, and options of which each is a word, or a name and its value. Returns
/// the path, and what the options become one after the other.
fn grammar<T>(
    text: &str,
    begin: impl FnOnce(&str) -> T,
    option: impl Fn(&mut T, &str, Option<&str>) -> Option<()>,
) -> Option<T> {
    let (path, rest) = match text.find(',') {
        Some(end) => (&text[..end], Some(&text[end + 1..])),
        None => (text, None),
    };
    let mut value = (!path.is_empty()).then(|| begin(path))?;
    for word in rest.into_iter().flat_map(|rest| rest.split(',')) {
        match word.find('=') {
            Some(end) => option(&mut value, &word[..end], Some(&word[end + 1..]))?,
            None => option(&mut value, word, None)?,
        }
    }
    Some(value)
}

fn disk(text: &str) -> Option<DiskConfig> {
    grammar(
        text,
        |path| DiskConfig::new(PathBuf::from(path)),
        |disk, name, value| {
            match (name, value) {
                ("ro", None) => disk.read_only = true,
                ("direct", None) => disk.direct = true,
                ("engine", Some("sync")) => disk.engine = Engine::Sync,
                ("engine", Some("uring")) => disk.engine = Engine::Uring,
                _ => return None,
            }
            Some(())
        },
    )
}

fn tap(text: &str) -> Option<NicConfig> {
    grammar(
        text,
        |name| NicConfig::tap(name),
        |tap, name, value| {
            match (name, value) {
                ("mac", Some(mac)) => tap.mac = Some(address(mac)?),
                ("queues", Some(count)) => tap.queues = Some(number(count, 1, 16)? as u16),
                _ => return None,
            }
            Some(())
        },
    )
}

fn cgroup(text: &str) -> Option<Cgroup> {
    let begin = |folder: &str| (Cgroup { of_vm: CgroupConfig::new(folder), memory: None }, 0);
    let (mut cgroup, burst_us) = grammar(text, begin, |(cgroup, burst_us), name, value| {
        match (name, value?) {
            ("name", name) if !name.is_empty() => cgroup.of_vm.name = Some(name.to_owned()),
            ("cpu", share) => cgroup.of_vm.cpu = Some(self::share(share)?),
            ("burst", ms) => *burst_us = number(ms, 0, 1000)? as u32 * 1000,
            ("weight", weight) => cgroup.of_vm.weight = Some(number(weight, 1, 10_000)? as u32),
            ("memory", bytes) => cgroup.memory = Some(number(bytes, 1, u64::MAX)?),
            _ => return None,
        }
        Some(())
    })?;
    match &mut cgroup.of_vm.cpu {
        Some(share) => share.burst_us = burst_us,
        None if burst_us > 0 => return None,
        None => {}
    }
    Some(cgroup)
}

/// `N` or `N/M`.
fn share(text: &str) -> Option<CpuShare> {
    let most = u32::MAX.into();
    Some(match text.find('/') {
        Some(at) => {
            let (numerator, denominator) = (number(&text[..at], 1, most)?, number(&text[at + 1..], 1, most)?);
            CpuShare::fraction(numerator as u32, denominator as u32)
        }
        None => CpuShare::cpus(number(text, 1, most)? as u32),
    })
}

fn log(text: &str) -> Option<ConsoleFile> {
    grammar(
        text,
        |path| ConsoleFile::new(path),
        |log, name, value| {
            match (name, value) {
                ("append", None) => log.append = true,
                ("max", Some(bytes)) => log.max_bytes = Some(number(bytes, 0, u64::MAX)?),
                ("keep", Some(count)) => log.keep = number(count, 0, u32::MAX.into())? as u32,
                _ => return None,
            }
            Some(())
        },
    )
}

/// Decimal digits, behind a plus sign if there is one.
fn number(text: &str, least: u64, most: u64) -> Option<u64> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    if digits.is_empty() {
        return None;
    }
    let value = digits.bytes().try_fold(0u128, |value, byte| {
        byte.is_ascii_digit().then(|| (value * 10 + u128::from(byte - b'0')).min(u128::MAX / 16))
    })?;
    u64::try_from(value).ok().filter(|value| (least..=most).contains(value))
}

/// Six bytes of two digits each.
fn address(text: &str) -> Option<[u8; 6]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let bytes = text.as_bytes();
    if bytes.len() != 17 || (2..17).step_by(3).any(|at| bytes[at] != b':') {
        return None;
    }
    let mut mac = [0; 6];
    for (number, byte) in mac.iter_mut().enumerate() {
        *byte = digit(bytes[3 * number])? << 4 | digit(bytes[3 * number + 1])?;
    }
    Some(mac)
}

/// Inputs that reach far.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let arguments = |arguments: &[(u8, &str)]| {
        let parts = arguments.iter().map(|(flag, value)| [&[*flag], value.as_bytes()].concat());
        Script::new().bytes(&parts.collect::<Vec<_>>().join(&SEPARATOR)).done()
    };
    vec![
        ("disks", arguments(&[(0, "root.img,ro"), (0, "data.img,engine=uring,direct"), (0, "b,engine=sync")])),
        ("taps", arguments(&[(1, "tap0,mac=02:00:00:00:00:01,queues=4"), (1, "tap1")])),
        ("logs", arguments(&[(2, "a.log,append,max=4096,keep=3"), (2, "b.log")])),
        ("unknown-options", arguments(&[(0, "a,b"), (1, "a,b=c"), (2, "a,")])),
        ("wrong-values", arguments(&[(1, "t,mac=2:0:0:0:0:1"), (1, "t,queues=17"), (2, "f,keep=4294967296")])),
        ("empty", arguments(&[(0, ""), (0, ",ro")])),
        (
            "others",
            arguments(&[(3, "64"), (4, "2"), (5, "v3,avx2"), (6, "none"), (7, "acpi"), (8, "pvh"), (9, "2mib")]),
        ),
        (
            "more",
            arguments(&[(10, "0"), (11, "1000"), (12, "kill"), (13, "-- a"), (14, "i"), (15, ""), (16, ""), (17, "")]),
        ),
        ("cgroup", arguments(&[(18, "/c,cpu=1/16,burst=5,weight=50,memory=4096,name=web")])),
        ("cgroups", arguments(&[(18, "/c,cpu=2"), (18, "/c,burst=5,weight=0")])),
        ("any", arguments(&[(19, "--disk"), (19, "a,ro"), (19, "--help")])),
    ]
}
