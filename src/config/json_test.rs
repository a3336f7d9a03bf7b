//! Descriptions go to JSON and come back the same; what is wrong with one is said with its place.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::*;
use crate::config::{
    Affinity, BalloonConfig, Boot, BootProtocol, CgroupConfig, ConsoleConfig, ConsoleFile, CpuConfig, CpuLevel,
    CpuShare, Discovery, DiskConfig, Engine, ForkClock, Limits, MemoryBacking, MemoryConfig, NicConfig, PageSize,
    RateLimit, RngConfig, Seccomp, VsockConfig,
};

/// Every setting of every part, and none at its default. Nothing is left to `..`, so that a new setting must be added here.
fn full() -> VmConfig {
    VmConfig {
        name: "web-1".into(),
        vcpus: 2,
        cpu: CpuConfig { level: CpuLevel::V3, with: vec!["aes".into()] },
        memory: MemoryConfig {
            mib: 256,
            backing: MemoryBacking::Memfd,
            pages: PageSize::Huge2Mib,
            prealloc: true,
            numa_node: Some(1),
            locked: true,
        },
        boot: Some(Boot {
            kernel: "vmlinuz".into(),
            initrd: Some("initrd.img".into()),
            cmdline: "console=ttyS0 \"quoted\"".into(),
            protocol: BootProtocol::Linux64,
            discovery: Discovery::Cmdline,
        }),
        disks: vec![DiskConfig {
            path: "root.img".into(),
            read_only: true,
            serial: "root".into(),
            engine: Engine::Uring,
            direct: true,
            queues: Some(2),
            limits: Limits {
                operations: Some(RateLimit { per_second: 2000, burst: 100 }),
                bytes: Some(RateLimit { per_second: 8 << 20, burst: 1 << 20 }),
            },
            limit_group: Some("tenant".into()),
        }],
        nics: vec![NicConfig {
            tap: "tap0".into(),
            mac: Some([0x02, 0, 0, 0, 0xab, 0x10]),
            mtu: Some(9000),
            queues: Some(4),
            receive_limits: Limits { operations: None, bytes: Some(RateLimit { per_second: 1, burst: 2 }) },
            send_limits: Limits { operations: Some(RateLimit { per_second: 3, burst: 4 }), bytes: None },
            receive_group: Some("tenant".into()),
            send_group: Some("second".into()),
        }],
        rng: Some(RngConfig { rate: Some(RateLimit { per_second: 1024, burst: 4096 }) }),
        balloon: Some(BalloonConfig { mib: 64, deflate_on_oom: false, reporting: false, statistics_s: 10 }),
        limit_groups: [
            ("second".into(), Limits::default()),
            ("tenant".into(), Limits { operations: None, bytes: Some(RateLimit { per_second: 5, burst: 6 }) }),
        ]
        .into(),
        vsock: Some(VsockConfig { cid: 3, path: Some(PathBuf::from("guest.vsock")), max_connections: 64 }),
        console: ConsoleConfig::All(vec![
            ConsoleConfig::Stdio,
            ConsoleConfig::File(ConsoleFile::new("guest.log").append(true).rotate(1 << 20, 3)),
        ]),
        console_rate: Some(RateLimit { per_second: 7, burst: 8 }),
        kick_signal: Some(10),
        poll_us: Some(0),
        affinity: Affinity { vcpus: [(0, vec![2]), (1, vec![3])].into(), io: vec![0, 1] },
        cgroup: Some(CgroupConfig {
            folder: "/sys/fs/cgroup/vms".into(),
            name: Some("first".into()),
            cpu: Some(CpuShare { quota_us: 6250, period_us: 100_000, burst_us: 5000 }),
            weight: Some(50),
        }),
        core_scheduling: true,
        seccomp: Seccomp::Kill,
        never_snapshot: true,
        fork_clock: ForkClock::Keep,
    }
}

const FULL: &str = r#"{
  "name": "web-1",
  "vcpus": 2,
  "cpu": {
    "level": "v3",
    "with": [
      "aes"
    ]
  },
  "memory": {
    "mib": 256,
    "backing": "memfd",
    "pages": "2mib",
    "prealloc": true,
    "numa_node": 1,
    "locked": true
  },
  "boot": {
    "kernel": "vmlinuz",
    "initrd": "initrd.img",
    "cmdline": "console=ttyS0 \"quoted\"",
    "protocol": "linux64",
    "discovery": "cmdline"
  },
  "disks": [
    {
      "path": "root.img",
      "read_only": true,
      "serial": "root",
      "engine": "uring",
      "direct": true,
      "queues": 2,
      "limits": {
        "operations": {
          "per_second": 2000,
          "burst": 100
        },
        "bytes": {
          "per_second": 8388608,
          "burst": 1048576
        }
      },
      "limit_group": "tenant"
    }
  ],
  "nics": [
    {
      "tap": "tap0",
      "mac": "02:00:00:00:ab:10",
      "mtu": 9000,
      "queues": 4,
      "receive_limits": {
        "bytes": {
          "per_second": 1,
          "burst": 2
        }
      },
      "send_limits": {
        "operations": {
          "per_second": 3,
          "burst": 4
        }
      },
      "receive_group": "tenant",
      "send_group": "second"
    }
  ],
  "rng": {
    "rate": {
      "per_second": 1024,
      "burst": 4096
    }
  },
  "balloon": {
    "mib": 64,
    "deflate_on_oom": false,
    "reporting": false,
    "statistics_s": 10
  },
  "limit_groups": {
    "second": {},
    "tenant": {
      "bytes": {
        "per_second": 5,
        "burst": 6
      }
    }
  },
  "vsock": {
    "cid": 3,
    "path": "guest.vsock",
    "max_connections": 64
  },
  "console": {
    "all": [
      "stdio",
      {
        "file": {
          "path": "guest.log",
          "append": true,
          "max_bytes": 1048576,
          "keep": 3
        }
      }
    ]
  },
  "console_rate": {
    "per_second": 7,
    "burst": 8
  },
  "kick_signal": 10,
  "poll_us": 0,
  "affinity": {
    "vcpus": {
      "0": [
        2
      ],
      "1": [
        3
      ]
    },
    "io": [
      0,
      1
    ]
  },
  "cgroup": {
    "folder": "/sys/fs/cgroup/vms",
    "name": "first",
    "cpu": {
      "quota_us": 6250,
      "period_us": 100000,
      "burst_us": 5000
    },
    "weight": 50
  },
  "core_scheduling": true,
  "seccomp": "kill",
  "never_snapshot": true,
  "fork_clock": "keep"
}"#;

#[test]
fn every_setting_is_written_by_its_name_and_read_back() {
    assert_eq!(full().to_json().unwrap(), FULL);
    assert_eq!(VmConfig::from_json(FULL).unwrap(), full());
}

/// The names of all settings in a description.
fn names(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(settings) => settings.iter().for_each(|(name, value)| {
            found.push(name.clone());
            names(value, found);
        }),
        serde_json::Value::Array(values) => values.iter().for_each(|value| names(value, found)),
        _ => {}
    }
}

#[test]
fn every_setting_stands_in_the_manual() {
    let manual = include_str!("../../docs/description.md");
    let mut found = Vec::new();
    names(&serde_json::from_str(FULL).unwrap(), &mut found);
    let is_chosen = |name: &str| name.parse::<u32>().is_ok() || ["second", "tenant"].contains(&name);
    for name in found.iter().filter(|name| !is_chosen(name)) {
        // What a console is connected to stands in an example rather than in a table.
        let known = manual.contains(&format!("`{name}`")) || manual.contains(&format!("{{ \"{name}\": "));
        assert!(known, "{name} is not in docs/description.md");
    }
}

#[test]
fn settings_at_their_default_are_left_out_and_may_be_missing() {
    let mut plain = VmConfig::new(Boot::linux("vmlinuz"));
    plain.disks.push(DiskConfig::new("a.img"));
    plain.nics.push(NicConfig::tap("tap0"));
    let text: String = plain.to_json().unwrap().split_whitespace().collect();
    let parts = [
        r#"{"vcpus":1,"memory":{"mib":128},"boot":{"kernel":"vmlinuz"},"#,
        r#""disks":[{"path":"a.img"}],"nics":[{"tap":"tap0"}]}"#,
    ];
    assert_eq!(text, parts.concat());
    assert_eq!(VmConfig::from_json(&text).unwrap(), plain);
    assert_eq!(VmConfig::from_json("{}").unwrap(), VmConfig::default());
}

#[test]
fn every_word_for_a_choice_comes_back_as_the_same_choice() {
    let mut config = full();
    let mut check = |change: &dyn Fn(&mut VmConfig), word: &str| {
        change(&mut config);
        let text = config.to_json().unwrap();
        assert!(word.is_empty() || text.contains(&format!(": \"{word}\"")), "no {word:?} in {text}");
        assert_eq!(VmConfig::from_json(&text).unwrap(), config);
    };
    for (pages, word) in [(PageSize::Default, ""), (PageSize::Transparent, "transparent"), (PageSize::Huge2Mib, "2mib")]
    {
        check(&|config| config.memory.pages = pages, word);
    }
    for (engine, word) in [(Engine::Auto, ""), (Engine::Sync, "sync"), (Engine::Uring, "uring")] {
        check(&|config| config.disks[0].engine = engine, word);
    }
    for (console, word) in [(ConsoleConfig::None, ""), (ConsoleConfig::Stdio, "stdio")] {
        check(&|config| config.console = console.clone(), word);
    }
    for (protocol, word) in [(BootProtocol::Auto, ""), (BootProtocol::Linux64, "linux64"), (BootProtocol::Pvh, "pvh")] {
        check(&|config| config.boot = Some(Boot::linux("vmlinuz").protocol(protocol)), word);
    }
}

#[test]
fn words_for_defaults_may_be_written() {
    let text = r#"{
        "memory": { "mib": 128, "backing": "anonymous", "pages": "default", "prealloc": false, "numa_node": null, "locked": false },
        "boot": { "kernel": "k", "initrd": null, "cmdline": "", "protocol": "auto", "discovery": "acpi" },
        "disks": [{ "path": "d", "read_only": false, "serial": "", "engine": "auto", "direct": false, "queues": null }],
        "nics": [{ "tap": "t", "mac": null, "mtu": null, "queues": null }],
        "console": {"file": {"path": "c", "append": false, "max_bytes": null, "keep": 0}},
        "rng": null,
        "balloon": null,
        "vsock": null,
        "cgroup": null,
        "kick_signal": null,
        "core_scheduling": false,
        "seccomp": "off",
        "never_snapshot": false,
        "fork_clock": "jump"
    }"#;
    let mut plain = VmConfig::new(Boot::linux("k"));
    plain.disks.push(DiskConfig::new("d"));
    plain.nics.push(NicConfig::tap("t"));
    plain.console = ConsoleConfig::file("c");
    assert_eq!(VmConfig::from_json(text).unwrap(), plain);
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_what_is_allowed() {
    let cases = [
        (
            r#"{"vcpu": 2}"#,
            "vcpu: unknown field `vcpu`, expected one of `name`, `vcpus`, `cpu`, `memory`, `boot`, `disks`",
        ),
        (
            r#"{"disks": [{"path": "a"}, {"path": "b", "ro": true}]}"#,
            "disks[1].ro: unknown field `ro`, expected one of",
        ),
        (r#"{"a\nb": 1}"#, r"a\nb: unknown field `a\nb`, expected one of"),
        (
            r#"{"console": {"file": {"path": "p", "\u001b[2J\r": 1}}}"#,
            r"console.file.\u{1b}[2J\r: unknown field `\u{1b}[2J\r`",
        ),
        (r#"{"console": "tty\n"}"#, r"console: unknown variant `tty\n`, expected one of"),
        (r#"{"memory": {"mb": 1}}"#, "memory.mb: unknown field `mb`, expected one of `mib`, `backing`"),
        (r#"{"boot": {"kernel": "k", "init": "i"}}"#, "boot.init: unknown field `init`"),
        (r#"{"nics": [{"tap": "t", "name": "t"}]}"#, "nics[0].name: unknown field `name`"),
        (r#"{"console": {"file": {"path": "p", "size": 1}}}"#, "console.file.size: unknown field `size`"),
        (r#"{"cgroup": {"name": "a"}}"#, "cgroup: missing field `folder`"),
        (r#"{"cgroup": {"folder": "a", "cpu": {"quota_us": 1}}}"#, "cgroup.cpu: missing field `period_us`"),
        (r#"{"affinity": {"cpu": []}}"#, "affinity.cpu: unknown field `cpu`"),
        (r#"{"affinity": {"vcpus": {"a": [1]}}}"#, "affinity.vcpus: invalid value: expected key to be a number"),
        (r#"{"console": "tty"}"#, "console: unknown variant `tty`, expected one of `none`, `stdio`, `file`, `all`"),
        (r#"{"disks": [{"path": "a", "engine": "aio"}]}"#, "disks[0].engine: unknown variant `aio`, expected one of"),
        (r#"{"boot": {"cmdline": "quiet"}}"#, "boot: missing field `kernel`"),
        (r#"{"memory": {}}"#, "memory: missing field `mib`"),
        (r#"{"vcpus": "two"}"#, "vcpus: invalid type: string \"two\", expected u32"),
        (r#"{"vcpus": -1}"#, "vcpus: invalid value: integer `-1`, expected u32"),
        (r#"{"vcpus": 4294967296}"#, "vcpus: invalid value: integer `4294967296`, expected u32"),
        (r#"{"vcpus": 1.5}"#, "vcpus: invalid type: floating point `1.5`, expected u32"),
        (r#"{"disks": [{"path": "a", "queues": 65536}]}"#, "disks[0].queues: invalid value: integer `65536`"),
        (r#"{"disks": [{"path": "a", "read_only": "yes"}]}"#, "disks[0].read_only: invalid type: string \"yes\""),
        (r#"{"disks": {"path": "a"}}"#, "disks: invalid type: map, expected a sequence"),
        (r#"{"vcpus": 1, "vcpus": 2}"#, "the description of a VM: duplicate field `vcpus`"),
        (r#"{"affinity": {"vcpus": {"0": [0], "0": [1]}}}"#, "affinity.vcpus: duplicate field `0`"),
        (r#"{"affinity": {"vcpus": [[0]]}}"#, "affinity.vcpus: invalid type: sequence, expected an object"),
        (r#"{"memory": 256}"#, r#"memory: invalid type: integer `256`, expected an object such as { "mib": 256 }"#),
        ("null", "the description of a VM: invalid type: null, expected an object"),
        (r#"{"console": null}"#, "console: neither a word in quotes nor, for a console, an object with one member"),
        (r#"{"console": ["stdio"]}"#, "console: neither a word in quotes nor"),
        (r#"{"console": {"all": [{}]}}"#, "console.all[0]: neither a word in quotes nor"),
        (r#"{"console": {"file": {"path": "c"}, "all": []}}"#, "console: neither a word in quotes nor"),
        (
            r#"{"console": "file"}"#,
            r#"console.file: needs settings, as in { "file": { "path": "guest.log" } }, at line"#,
        ),
        (r#"{"console": {"all": ["all"]}}"#, "console.all[0].all: needs settings, as in"),
        (r#"{"cpu": {"level": null}}"#, "cpu.level: neither a word in quotes nor"),
        (r#"{"console": nul}"#, "console: expected value at line 1"),
        ("", "the description of a VM: EOF while parsing a value at line 1 column 0"),
        ("{\n  \"vcpus\": 1,\n}", "the description of a VM: trailing comma at line 3 column 1"),
        ("{} {}", "behind the description of a VM: trailing characters at line 1 column 4"),
    ];
    for (text, expected) in cases {
        let error = VmConfig::from_json(text).expect_err(text);
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().starts_with(expected), "{text}: {error}");
        assert!(error.to_string().contains("line"), "{text}: {error}");
    }
}

#[test]
fn an_array_is_not_taken_for_the_settings_of_an_object() {
    let cases = [
        ("[]", "the description of a VM"),
        (r#"["web-1", 2]"#, "the description of a VM"),
        (r#"{"memory": [256]}"#, "memory"),
        (r#"{"boot": ["vmlinuz"]}"#, "boot"),
        (r#"{"disks": [{"path": "a"}, ["b", true]]}"#, "disks[1]"),
        (r#"{"nics": [["tap0"]]}"#, "nics[0]"),
        (r#"{"cpu": ["host"]}"#, "cpu"),
        (r#"{"affinity": []}"#, "affinity"),
        (r#"{"console": {"all": ["stdio", {"file": ["guest.log"]}]}}"#, "console.all[1].file"),
    ];
    for (text, place) in cases {
        let error = VmConfig::from_json(text).expect_err(text);
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert_eq!(error.to_string(), format!("{place}: invalid type: an array, expected an object"));
    }
}

#[test]
fn addresses_are_six_bytes_in_pairs_of_digits() {
    let read = |mac: &str| VmConfig::from_json(&format!(r#"{{"nics": [{{"tap": "t", "mac": {mac}}}]}}"#));
    assert_eq!(read("\"02:00:00:00:AB:cd\"").unwrap().nics[0].mac, Some([2, 0, 0, 0, 0xab, 0xcd]));
    for wrong in ["02:00:00:00:00", "02:00:00:00:00:01:02", "2:0:0:0:0:1", "02-00-00-00-00-01", "+2:00:00:00:00:01", ""]
    {
        let error = read(&format!("{wrong:?}")).unwrap_err().to_string();
        let expected =
            format!("nics[0].mac: invalid value: string {wrong:?}, expected six bytes as in \"02:00:00:00:00:01\"");
        assert!(error.starts_with(&expected), "{error}");
    }
    assert!(read("[2, 0, 0, 0, 0, 1]").unwrap_err().to_string().starts_with("nics[0].mac: invalid type: sequence"));
}

#[test]
fn a_path_that_is_not_utf_8_is_refused_rather_than_changed() {
    let path = PathBuf::from(OsStr::from_bytes(b"disk\xff.img"));
    let mut config = VmConfig::default();
    config.disks.push(DiskConfig::new(path));
    let error = config.to_json().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("UTF-8"), "{error}");
}

#[test]
fn a_rate_without_a_burst_has_one_of_a_second() {
    let config = VmConfig::from_json(
        r#"{ "disks": [{ "path": "a", "limits": { "operations": { "per_second": 7 }, "bytes": { "per_second": 8, "burst": null } } }] }"#,
    )
    .unwrap();
    let limits = Limits::new().operations(RateLimit::per_second(7)).bytes(RateLimit::per_second(8));
    assert_eq!(config.disks[0].limits, limits);
}

#[test]
fn a_group_is_one_that_is_described_and_described_once() {
    let checked = |groups: &str, devices: &str| {
        let json = format!(r#"{{ "boot": {{ "kernel": "k" }}, "limit_groups": {{ {groups} }}, {devices} }}"#);
        VmConfig::from_json(&json).and_then(|config| config.validate()).map_err(|error| error.to_string())
    };
    let disk = r#""disks": [{ "path": "a", "limit_group": "x" }]"#;
    checked(r#""x": {}"#, disk).unwrap();
    let why = "the limit group \"x\" was asked for, allowed are those that are described: \"y\", \"z\"";
    assert_eq!(checked(r#""y": {}, "z": {}"#, disk), Err(format!("disk 0 (a): {why}")));
    let nic = r#""nics": [{ "tap": "t", "send_group": "x" }]"#;
    assert_eq!(checked(r#""y": {}, "z": {}"#, nic), Err(format!("nic 0 (t): {why}")));
    let none = checked("", nic).unwrap_err();
    assert!(none.ends_with("allowed are those that are described: none is described"), "{none}");
    let twice = checked(r#""x": {}, "x": {}"#, disk).unwrap_err();
    assert!(twice.contains("duplicate field `x`"), "{twice}");
    let refused = checked(r#""x": { "bytes": { "per_second": 0 } }"#, disk).unwrap_err();
    assert!(refused.starts_with("limit group \"x\": bytes: a limit of 0 a second"), "{refused}");
}
