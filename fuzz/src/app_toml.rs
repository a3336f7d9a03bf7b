//! Any text as an app.toml: it is refused by its line and column, or is an app that is within all limits.

use std::path::Path;
use std::time::Duration;

use crate::alloc::Meter;
use crate::app::{App, MOST_HOSTS, MOST_SERVICES, MOST_VMS, check_told, is_name, parse};
use crate::clock::within;
use crate::input::text_of;

const PATIENCE: Duration = Duration::from_secs(2);
/// What reading may hold, beside so many times as much as the text has.
const MOST_HELD: i64 = 512 << 10;
const TIMES: i64 = 200;

const WORDS: &[&str] = &[
    "command = [\"/bin/serve\", \"-v\"]\n",
    "size = \"small\"\n",
    "size = \"x\"\n",
    "vcpus = 2\n",
    "vcpus = 65\n",
    "memory = \"512M\"\n",
    "memory = \"18446744073709551615G\"\n",
    "count = 2\n",
    "count = -9223372036854775808\n",
    "hosts = { alpha = 60, beta = 60 }\n",
    "hosts = { alpha = 1 }\n",
    "secrets = [\"TOKEN\", \"A B\"]\n",
    "env = { MODE = \"fast\", \"a=b\" = \"\" }\n",
    "idle = \"5m\"\n",
    "idle = \"9999999999999999years\"\n",
    "stop_grace = \"6m\"\n",
    "kernel = \"../vmlinuz\"\n",
    "[[services]]\nport = 8080\n",
    "[[services]]\nport = 65536\n",
    "allow = [\"front\", \"-\"]\n",
    "names = [\"www.example.com\"]\n",
    "names = [\"*\"]\n",
    "check = { path = \"/health\", interval = \"5s\", timeout = \"2s\", grace = \"60s\" }\n",
    "check = { path = \"x\\r\\ny\" }\n",
    "[[volumes]]\nname = \"data\"\npath = \"/var/lib/data\"\n",
    "[[volumes]]\nname = \"..\"\npath = \"/a/../..\"\n",
    "size = \"10G\"\n",
    "snapshots = { every = \"1d\", keep = \"5d\" }\n",
    "snapshots = { every = \"1s\", keep = \"99years\" }\n",
    "replicate = { to = \"beta\", every = \"10s\" }\n",
    "replica_of = \"db\"\n",
    "# \u{1b}[2J é\n",
    "\"\"\"",
    "= [",
    "\u{0}",
];

/// Runs one input: a text, or words behind a beginning that is right.
pub fn run(bytes: &[u8]) {
    if let Some(text) = text_of(bytes, "name = \"web\"\nimage = \"site\"\n", WORDS) {
        read(&text);
    }
}

fn read(text: &str) {
    let mut meter = Meter::new(MOST_HELD + TIMES * text.len() as i64);
    match within(PATIENCE, || meter.run(|| parse(text, "app.toml", Path::new("/apps")))) {
        Ok(app) => check(&app),
        Err(fault) => {
            let mut parts = fault.message.splitn(4, ':');
            assert_eq!(parts.next(), Some("app.toml"), "{}", fault.message);
            let [line, column] = [(); 2].map(|()| parts.next().and_then(|number| number.parse::<usize>().ok()));
            let lines = text.split('\n').count();
            assert!(line.is_some_and(|line| (1..=lines).contains(&line)) && column.is_some(), "{}", fault.message);
            assert!(!fault.message.contains(char::is_control), "a message of several lines: {:?}", fault.message);
        }
    }
}

/// An app keeps the limits of the documentation, and is the same after it was written down and read.
fn check(app: &App) {
    let volumes = || app.volumes.iter();
    assert!(is_name(&app.name) && app.image.is_absolute(), "{app:?}");
    assert!((1..=64).contains(&app.vcpus) && (64..=1 << 20).contains(&app.memory_mib), "{app:?}");
    assert!(app.services.len() <= MOST_SERVICES && app.services.iter().all(|service| service.port > 0), "{app:?}");
    assert!(app.count.is_none_or(|count| count <= 100) && app.stop_grace <= Duration::from_secs(300), "{app:?}");
    assert!(app.hosts.as_ref().is_none_or(|hosts| hosts.len() <= MOST_HOSTS), "{app:?}");
    assert!(
        app.hosts.iter().flatten().map(|(_, count)| u64::from(*count)).sum::<u64>() <= u64::from(MOST_VMS),
        "{app:?}"
    );
    assert!(
        volumes().all(|one| is_name(&one.name) && one.path.starts_with('/') && !one.path.contains("..")),
        "{app:?}"
    );
    let told = App { kernel: None, ..app.clone() };
    check_told(&told).expect("what a text can say, another host may tell");
    let written = serde_json::to_string(app).expect("it can be written");
    assert_eq!(serde_json::from_str::<App>(&written).ok().as_ref(), Some(app), "{written}");
}

/// Inputs that reach far.
///
/// # Panics
/// If a word is none of those known.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let text = |text: &str| [vec![0], text.as_bytes().to_vec()].concat();
    let words = |words: &[&str]| {
        let number = |word: &&str| WORDS.iter().position(|known| known.starts_with(word)).expect("it is known") as u8;
        [vec![1], words.iter().map(number).collect()].concat()
    };
    vec![
        ("postgres", text(include_str!("../../platform/examples/postgres.toml"))),
        (
            "service",
            words(&[
                "command",
                "count = 2",
                "idle = \"5m",
                "[[services]]\nport = 8080",
                "allow",
                "names = [\"www",
                "check = { path = \"/h",
            ]),
        ),
        (
            "volume",
            words(&[
                "size = \"small",
                "[[volumes]]\nname = \"data",
                "size = \"10G",
                "snapshots = { every = \"1d",
                "replicate",
            ]),
        ),
        ("replica", words(&["[[volumes]]\nname = \"data", "replica_of"])),
        ("hosts", words(&["hosts = { alpha = 1", "memory = \"512M", "vcpus = 2"])),
        ("control", words(&["# ", "= [", "\u{0}"])),
    ]
}
