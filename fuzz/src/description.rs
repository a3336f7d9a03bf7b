//! Any text as the description of a VM: what is read is written, and read again, as the same.

use std::time::Duration;

use vmcell::{ErrorKind, VmConfig};

use crate::alloc::Meter;
use crate::clock::within;
use crate::input::Script;

/// What reading and writing may take, beside so many times as much as the text has.
const MOST_HELD: i64 = 64 << 10;
const TIMES: i64 = 400;
const PATIENCE: Duration = Duration::from_secs(2);

/// Words of which inputs may be made, one a byte.
const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "null",
    "true",
    "false",
    "0",
    "1",
    "16",
    "64",
    "-1",
    "1.5",
    "65536",
    "4294967296",
    "18446744073709551616",
    "1e400",
    "\"\"",
    "\"a\"",
    "\"v3\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"name\":",
    "\"vcpus\":",
    "\"cpu\":",
    "\"level\":",
    "\"with\":",
    "\"memory\":",
    "\"mib\":",
    "\"backing\":",
    "\"memfd\"",
    "\"pages\":",
    "\"transparent\"",
    "\"2mib\"",
    "\"prealloc\":",
    "\"numa_node\":",
    "\"locked\":",
    "\"boot\":",
    "\"kernel\":",
    "\"initrd\":",
    "\"cmdline\":",
    "\"protocol\":",
    "\"pvh\"",
    "\"discovery\":",
    "\"acpi\"",
    "\"disks\":",
    "\"path\":",
    "\"read_only\":",
    "\"serial\":",
    "\"engine\":",
    "\"sync\"",
    "\"direct\":",
    "\"queues\":",
    "\"nics\":",
    "\"tap\":",
    "\"mac\":",
    "\"02:00:00:00:00:01\"",
    "\"mtu\":",
    "\"console\":",
    "\"stdio\"",
    "\"file\":",
    "\"file\"",
    "\"all\":",
    "\"append\":",
    "\"max_bytes\":",
    "\"keep\":",
    "\"kick_signal\":",
    "\"poll_us\":",
    "\"affinity\":",
    "\"io\":",
    "\"vcpus\":{\"0\":[1]}",
    "\"core_scheduling\":",
    "\"seccomp\":",
    "\"refuse\"",
    "\n",
    " ",
    "[[[[[[[[",
    "{\"all\":[",
];

/// Runs one input: either the text itself, or the words that it is made of.
pub fn run(bytes: &[u8]) {
    let Some((choice, rest)) = bytes.split_first() else { return };
    let text = if choice % 2 == 0 {
        String::from_utf8_lossy(rest).into_owned()
    } else {
        rest.iter().map(|byte| WORDS[usize::from(*byte) % WORDS.len()]).collect()
    };
    let len = i64::try_from(text.len()).expect("it is short");
    let mut meter = Meter::new(MOST_HELD + TIMES * len);
    let read = within(PATIENCE, || meter.run(|| VmConfig::from_json(&text)));
    match read {
        Ok(config) => {
            let checked = within(PATIENCE, || meter.run(|| config.validate()));
            assert!(checked.is_ok_and(|()| config.boot.is_some()) || config.validate().is_err(), "it has no kernel");
            check_round_trip(&config, &mut meter);
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
            let message = error.to_string();
            assert!(!message.contains(char::is_control), "a message of several lines: {message:?}");
        }
    }
}

fn check_round_trip(config: &VmConfig, meter: &mut Meter) {
    // All that came from JSON can be JSON.
    let written = meter.run(|| config.to_json()).expect("its paths are UTF-8");
    let again = meter.run(|| VmConfig::from_json(&written)).expect("what is written can be read");
    assert!(again == *config, "it was read as another one: {written}");
    assert_eq!(again.to_json().expect("its paths are UTF-8"), written, "what is written twice");
    assert_eq!(again.validate().is_ok(), config.validate().is_ok(), "whether it is valid");
}

/// Inputs that reach far.
///
/// # Panics
/// If a word is none of those known.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let text = |text: &str| Script::new().bytes(&[0]).bytes(text.as_bytes()).done();
    let words = |words: &[&str]| {
        let number = |word: &&str| WORDS.iter().position(|known| known == word).expect("it is known") as u8;
        Script::new().bytes(&[1]).bytes(&words.iter().map(number).collect::<Vec<_>>()).done()
    };
    let everything = r#"{"name":"a","vcpus":2,"cpu":{"level":"v3","with":["avx2"]},"memory":{"mib":256,"backing":"memfd",
        "pages":"2mib","prealloc":true,"numa_node":1,"locked":true},"boot":{"kernel":"k","initrd":"i","cmdline":"c","protocol":"pvh",
        "discovery":"cmdline"},"disks":[{"path":"p","read_only":true,"serial":"s","engine":"uring","direct":true,"queues":4}],
        "nics":[{"tap":"t","mac":"02:00:00:00:00:10","mtu":1500,"queues":2}],"console":{"all":["stdio","none",{"file":{"path":"f",
        "append":true,"max_bytes":4096,"keep":3}}]},"kick_signal":16,"poll_us":50,"affinity":{"vcpus":{"0":[1,2]},"io":[3]},
        "core_scheduling":true,"seccomp":"kill"}"#;
    vec![
        ("example", text(include_str!("../../examples/vm.json"))),
        ("everything", text(everything)),
        ("least", text(r#"{"boot":{"kernel":"k"}}"#)),
        ("nested", text(&r#"{"console":{"all":["#.replace("}", "").repeat(60))),
        ("twice", text(r#"{"vcpus":1,"vcpus":2}"#)),
        ("array", text(r#"{"boot":["k",null,"","auto","acpi"]}"#)),
        ("words", words(&["{", "\"boot\":", "{", "\"kernel\":", "\"a\"", "}", ",", "\"console\":", "\"stdio\"", "}"])),
        ("no-choice", words(&["{", "\"console\":", "\"file\"", "}"])),
    ]
}
