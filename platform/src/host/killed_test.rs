//! A host whose process is killed at any moment, and begun anew: nothing is lost, nothing is doubled.
//!
//! The test starts itself as another process, whose guests are fakes, and kills that.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use vmcell::volume::Volume;

use super::host_test::Bench;
use super::*;
use crate::machine::Phase;
use crate::state::ReleaseStatus;

/// Where the process that is to be killed works.
const HOME: &str = "CELL_KILLED_TEST_HOME";
const CHILD: &str = "host::killed_test::this_process_is_killed_at_any_moment";
const APPS: [&str; 3] = ["web", "sick", "data"];

fn text(app: &str, round: u64) -> String {
    let volume = "[[volumes]]\nname = \"files\"\npath = \"/files\"\nsize = \"1M\"\n";
    let more = if app == "data" { volume } else { "" };
    let mode = if app == "sick" && round.is_multiple_of(2) { "sick" } else { "" };
    let image = round % 3;
    Bench::text(mode, "").replace("\"web\"", &format!("\"{app}\"")).replace("\"image\"", &format!("\"image{image}\""))
        + more
}

/// Writes down what was promised, once it was.
fn told(home: &Path, what: &str) {
    let mut file = std::fs::File::options().create(true).append(true).open(home.join("told")).unwrap();
    writeln!(file, "{what}").unwrap();
}

#[test]
#[ignore = "the other test starts it"]
fn this_process_is_killed_at_any_moment() {
    let Some(home) = std::env::var_os(HOME) else { return };
    let home = Path::new(&home);
    let bench = Bench::at(home);
    resume(&bench.host, &|_| {}).unwrap();
    let host = &bench.host;
    std::thread::scope(|scope| {
        for app in APPS {
            scope.spawn(move || {
                for round in 0.. {
                    change(host, home, app, round);
                }
            });
        }
    });
}

/// One change after the other, each of which is told when it is done.
fn change(host: &std::sync::Arc<Host>, home: &Path, app: &str, round: u64) {
    let done = |what: String| told(home, &format!("{app} {what}"));
    match deploy(host, &text(app, round), "app.toml", home, false, &|_| {}) {
        Ok(release) => done(format!("release {}", release.number)),
        Err(why) => assert!(app == "sick" && why.message.contains("health check"), "{why}"),
    }
    let value = format!("{app}{round}");
    host.parts.secrets.set(app, "TOKEN", &value).unwrap();
    done(format!("secret {value}"));
    match app {
        "web" => {
            let count = u32::try_from(round % 3).unwrap();
            scale(host, app, count, &|_| {}).unwrap();
            done(format!("count {count}"));
            restart(host, app, &[], &|_| {}).unwrap();
        }
        "data" => {
            let taken = match snapshot(host, app, "files") {
                Ok(taken) => taken,
                Err(why) => return assert!(why.message.contains("lies over more volumes"), "{why}"),
            };
            done(format!("snapshot {taken}"));
            restore(host, app, "files", taken, &|_| {}).unwrap();
            if round % 4 == 3 {
                let copy = format!("copy{round}-{}", std::process::id());
                fork(host, (app, "files"), taken, (&copy, "files")).unwrap();
            }
        }
        _ => {
            destroy(host, app, &|_| {}).unwrap();
            done("gone".into());
        }
    }
}

/// Starts the process, and kills it after a while.
fn kill_one(home: &Path, after: Duration) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", CHILD]).env(HOME, home).stdout(Stdio::null());
    let errors = std::fs::File::create(home.join("errors")).unwrap();
    let mut child = command.stderr(errors).spawn().unwrap();
    let began = Instant::now();
    while began.elapsed() < after {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "{ended:?}: {}", std::fs::read_to_string(home.join("errors")).unwrap());
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What was promised last of an app.
fn promises(home: &Path, app: &str) -> BTreeMap<String, String> {
    let all = std::fs::read_to_string(home.join("told")).unwrap_or_default();
    let mut last = BTreeMap::new();
    for line in all.lines() {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            [of, "gone"] if of == app => last.clear(),
            [of, what, value] if of == app => drop(last.insert(what.to_owned(), value.to_owned())),
            _ => {}
        }
    }
    last
}

fn check(bench: &Bench, home: &Path) {
    let (host, state) = (&bench.host, &bench.host.parts.state);
    let mut images = BTreeSet::new();
    for release in state.releases(None).unwrap() {
        assert_ne!(release.status, ReleaseStatus::Deploying, "{release:?}");
        images.insert(release.image.file);
    }
    let there = std::fs::read_dir(host.parts.folder.image("")).unwrap();
    let there: BTreeSet<_> = there.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(there.is_subset(&images), "{there:?}, needed are {images:?}");
    for row in state.apps().unwrap() {
        let active: Vec<_> = state.releases(Some(&row.name)).unwrap();
        let active: Vec<_> = active.iter().filter(|release| release.status == ReleaseStatus::Active).collect();
        let numbers: Vec<_> = active.iter().map(|release| release.number).collect();
        assert_eq!(numbers, Vec::from_iter(row.active), "{}", row.name);
        for release in active {
            assert!(there.contains(&release.image.file), "{}: {} is gone", row.name, release.image.file);
            let fleet = host.fleet_of(&row.name).unwrap();
            let wanted = usize::try_from(row.count).unwrap();
            bench.until("the VMs", || {
                let machines = fleet.machines();
                machines.len() == wanted && machines.iter().all(|machine| machine.phase() == Phase::Healthy)
            });
        }
    }
    APPS.iter().for_each(|app| check_promises(bench, home, app));
}

fn check_promises(bench: &Bench, home: &Path, app: &str) {
    let promised = promises(home, app);
    let number = |what: &str| promised.get(what).and_then(|value| value.parse::<u32>().ok());
    if let Some(release) = number("release").filter(|_| app != "sick") {
        assert!(bench.host.parts.state.active(app).unwrap().number >= release);
    }
    let (secrets, volumes) = (&bench.host.parts.secrets, bench.host.volumes());
    if let Some(value) = promised.get("secret").filter(|_| app != "sick") {
        let found = secrets.values(app, &["TOKEN".into()]).unwrap();
        let found = format!("{:?}", found.get("TOKEN"));
        let round: u64 = value.trim_start_matches(char::is_alphabetic).parse().unwrap();
        // The next one may have been set, and not been told.
        assert!([round, round + 1].iter().any(|round| found.contains(&format!("{app}{round}"))), "{found} for {value}");
    }
    for told in volumes.list(app).unwrap() {
        let (file, key) = volumes.opened(app, &told.name).unwrap();
        drop(Volume::open(file, &key).unwrap());
        let taken: Vec<_> = told.snapshots.iter().map(|one| one.snapshot).collect();
        assert!(number("snapshot").is_none_or(|promised| taken.contains(&promised)), "{promised:?} of {taken:?}");
    }
}

#[test]
fn a_host_that_is_killed_at_any_moment_and_begun_anew_has_lost_and_doubled_nothing() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    for image in 0..3 {
        std::fs::write(home.join(format!("image{image}")), image.to_string()).unwrap();
    }
    let rounds: u64 = std::env::var("VMCELL_LONG").map_or(12, |_| 300);
    for round in 0..rounds {
        // From one that has hardly begun to one that has done much.
        kill_one(home, Duration::from_millis(30 + round * 7919 % 600));
        // Each process counts anew.
        let bench = Bench::at(home);
        resume(&bench.host, &|_| {}).unwrap();
        check(&bench, home);
        drop(bench);
        std::fs::remove_file(home.join("told")).unwrap_or_default();
    }
}
