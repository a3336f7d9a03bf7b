//! What an app, a user or a crash cannot break for others.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::host_test::Bench;
use super::*;
use crate::machine::Phase;
use crate::state::ReleaseStatus;

fn named(name: &str) -> String {
    Bench::text("", "").replace("name = \"web\"", &format!("name = \"{name}\""))
}

#[test]
fn a_number_is_free_once_its_app_has_ended_whoever_still_has_a_connection() {
    let bench = Bench::new();
    bench.deploy(&Bench::text("", "")).unwrap();
    let fleet = bench.host.fleet_of("web").unwrap();
    let counted = fleet.pick("web").unwrap().count();
    let second = {
        let host = Arc::clone(&bench.host);
        std::thread::spawn(move || destroy(&host, "web", &|_| {}))
    };
    std::thread::sleep(Duration::from_millis(300));
    // Its VM drains for ten seconds.
    assert_eq!(bench.deploy(&named("other")).unwrap().number, 1);
    assert_eq!(bench.host.parts.state.app("other").unwrap().number, 2);
    second.join().unwrap().unwrap();
    assert_eq!(bench.deploy(&named("third")).unwrap().status, ReleaseStatus::Active);
    assert_eq!(bench.host.parts.state.app("third").unwrap().number, 1);
    drop((counted, fleet));
}

#[test]
fn a_release_with_more_rules_than_the_network_takes_leaves_all_as_it_was() {
    let bench = Bench::new();
    bench.deploy(&Bench::text("", "")).unwrap();
    let rules = || bench.host.parts.network.rule_counts().into_iter().map(|count| count.rule).collect::<Vec<_>>();
    let before = rules();
    let state = &bench.host.parts.state;
    let release = state.active("web").unwrap();
    for number in 0..40 {
        let spec = crate::app::App { name: format!("app{number}"), ..release.spec.clone() };
        state.begin_release(&spec, &release.image).unwrap();
    }
    let allow: Vec<String> = (0..40).map(|number| format!("\"app{number}\"")).collect();
    let services: String =
        (100..130).map(|port| format!("[[services]]\nport = {port}\nallow = [{}]\n", allow.join(","))).collect();
    let fault = bench.deploy(&(Bench::text("", "") + &services)).unwrap_err();
    assert!(fault.message.contains("the network would have 1282 rules, and 1024 are allowed"), "{fault}");
    assert_eq!((rules(), state.releases(Some("web")).unwrap().len()), (before, 1), "nothing was written down");
    // One that was begun before the others came.
    let spec = crate::app::parse(&(Bench::text("", "") + &services), "app.toml", bench.home.path()).unwrap();
    let late = state.begin_release(&spec, &release.image).unwrap();
    assert!(bench.host.activate(&late, 1).unwrap_err().message.contains("1024 are allowed"));
    assert_eq!((state.active("web").unwrap().number, bench.ask().unwrap().as_str()), (1, "release 1"));
}

#[test]
fn a_host_with_more_rules_than_its_network_takes_starts_what_ran() {
    let bench = Bench::new();
    let release = bench.deploy(&Bench::text("", "")).unwrap();
    let state = &bench.host.parts.state;
    for number in 0..512 {
        let spec = crate::app::App { name: format!("app{number}"), ..release.spec.clone() };
        state.begin_release(&spec, &release.image).unwrap();
    }
    let told = std::sync::Mutex::new(Vec::new());
    assert_eq!(resume(&bench.host, &|what| told.lock().unwrap().push(what.to_owned())).unwrap(), ["web"]);
    assert!(told.lock().unwrap()[0].contains("the network would have 1026 rules"), "{told:?}");
    assert_eq!(bench.host.fleet_of("app1").err().unwrap().message, "nothing of app1 runs");
}

#[test]
fn a_thousand_laptops_take_as_many_rules_as_one() {
    let bench = Bench::new();
    for number in 0..1000 {
        bench.host.parts.state.add_laptop(&format!("laptop{number}"), "key").unwrap();
    }
    bench.deploy(&Bench::text("", "")).unwrap();
    assert_eq!(bench.host.parts.network.rule_counts().len(), 4);
}

#[test]
fn a_new_app_has_its_rules_before_its_checks_pass() {
    let bench = Bench::new();
    bench.deploy(&Bench::text("", "").replace("port = 80", "port = 80\nallow = [\"front\"]")).unwrap();
    let host = Arc::clone(&bench.host);
    let seen = std::sync::Mutex::new(0);
    let starts = |what: &str| {
        if what.starts_with("Starting") {
            *seen.lock().unwrap() = host.parts.network.rule_counts().len();
        }
    };
    deploy(&bench.host, &named("front"), "app.toml", bench.home.path(), false, &starts).unwrap();
    assert_eq!(*seen.lock().unwrap(), 5, "its own two, those of the other app, and what that allows it");
}

#[test]
fn an_app_whose_destroy_was_broken_off_is_forgotten_when_the_host_begins_anew() {
    let bench = Bench::new();
    bench.host.parts.secrets.set("web", "TOKEN", "one").unwrap();
    bench.deploy(&Bench::text("", "")).unwrap();
    let folder = &bench.host.parts.folder;
    let left = [folder.log("web", 1).unwrap(), folder.image(".web.new.partial")];
    left.iter().for_each(|path| std::fs::write(path, "x").unwrap());
    bench.host.parts.state.forget_releases("web").unwrap();
    assert!(resume(&bench.host, &|_| {}).unwrap().is_empty());
    assert!(left.iter().all(|path| !path.exists()) && bench.host.parts.secrets.list("web").unwrap().is_empty());
    assert!(bench.host.parts.state.app("web").is_err() && bench.host.parts.network.rule_counts().is_empty());
}

#[test]
fn a_vm_that_is_awake_already_is_there_for_whoever_asks() {
    let bench = Bench::new();
    bench.deploy(&Bench::text("", "")).unwrap();
    let fleet = bench.host.fleet_of("web").unwrap();
    let machine = fleet.pick("web").unwrap();
    assert!(fleet.wake(Some(machine.plan.address)) && fleet.wake(None));
    machine.drain();
    assert!(!fleet.wake(None));
    assert_eq!(machine.phase(), Phase::Healthy);
}

const VOLUME: &str = "[[volumes]]\nname = \"data\"\npath = \"/data\"\nsize = \"32M\"\n";

#[test]
fn a_vm_that_starts_does_not_take_a_snapshot_that_is_being_made_for_one_that_was_broken_off() {
    let bench = Bench::new();
    bench.deploy(&(Bench::text("", "") + VOLUME)).unwrap();
    let (state, volumes) = (&bench.host.parts.state, bench.host.volumes());
    let (first, _) = volumes.opened("web", "data").unwrap();
    let second = first.with_file_name("web.data.2.vol");
    let lock = state.volume_lock("web", "data");
    let alone = lock.lock().unwrap();
    let row = state.volume("web", "data").unwrap().unwrap();
    state.set_volume(&crate::state::VolumeRow { next: Some(2), ..row.clone() }).unwrap();
    std::fs::write(&second, "begun").unwrap();
    let host = Arc::clone(&bench.host);
    let starts = std::thread::spawn(move || host.volumes().opened("web", "data").unwrap().0);
    std::thread::sleep(Duration::from_millis(100));
    assert!(!starts.is_finished() && second.exists(), "it waits for the snapshot");
    state.snapshot_taken(&row, 2, row.size, crate::state::MadeBy::Person).unwrap();
    drop(alone);
    assert_eq!(starts.join().unwrap(), second);
}

#[test]
fn the_keys_of_the_host_are_no_secrets_of_an_app() {
    let bench = Bench::new();
    let secrets = &bench.host.parts.secrets;
    let key = secrets.tunnel_key().unwrap();
    secrets.volume_key("web", "data", true).unwrap();
    for (app, name) in [("tunnel.key", "tunnel.key"), ("volumes.keys", "web.data"), ("../web", "A"), ("", "A")] {
        let why = format!("{app:?} is no name of an app");
        assert_eq!(secrets.unset(app, name).unwrap_err().message, why);
        assert_eq!(secrets.set(app, "A", "x").unwrap_err().message, why);
        assert_eq!(secrets.list(app).unwrap_err().message, why);
        assert_eq!(secrets.values(app, &[name.to_owned()]).unwrap_err().message, why);
        assert_eq!(secrets.forget(app).unwrap_err().message, why);
    }
    assert_eq!(secrets.tunnel_key().unwrap(), key);
    secrets.volume_key("web", "data", false).unwrap();
}

#[test]
fn a_snapshot_that_is_not_there_ends_no_vm_and_a_fork_waits_for_no_deploy() {
    let bench = Bench::new();
    bench.deploy(&(Bench::text("", "") + VOLUME)).unwrap();
    assert!(restore(&bench.host, "web", "data", 7, &|_| {}).unwrap_err().message.contains("no snapshot 7"));
    assert_eq!(bench.fakes.started.lock().unwrap().len(), 1, "its VM goes on");
    snapshot(&bench.host, "web", "data").unwrap();
    let occupied = bench.host.occupy("other", false).unwrap();
    let to = ("other", "data");
    assert!(fork(&bench.host, ("web", "data"), 1, to).unwrap_err().message.contains("is being changed"));
    drop(occupied);
    fork(&bench.host, ("web", "data"), 1, to).unwrap();
}

#[test]
fn a_release_that_cannot_be_written_down_is_not_active_and_neither_are_its_rules_and_names() {
    let bench = Bench::new();
    bench.deploy(&named("front")).unwrap();
    bench.deploy(&Bench::text("", "")).unwrap();
    let rules = || bench.host.parts.network.rule_counts().into_iter().map(|count| count.rule).collect::<Vec<_>>();
    let before = rules();
    let path = bench.host.parts.folder.path().join("state.db");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let refuse = "CREATE TRIGGER full BEFORE UPDATE ON apps BEGIN SELECT RAISE(FAIL, 'the disk is full'); END";
    rusqlite::Connection::open(path).unwrap().execute_batch(refuse).unwrap();
    let public = Bench::text("", "").replace("port = 80", "port = 80\nallow = [\"front\"]\nnames = [\"a.example\"]");
    let fault = bench.deploy(&public).unwrap_err();
    assert!(fault.message.contains("release 1 goes on: state: the disk is full"), "{fault}");
    assert_eq!((rules(), bench.ask().unwrap().as_str(), bench.phases().len()), (before, "release 1", 1));
    assert!(bench.host.front.names().is_empty());
}

#[test]
fn a_name_that_another_app_took_during_a_deploy_is_refused() {
    let bench = Bench::new();
    let public = |app| named(app).replace("port = 80", "port = 80\nnames = [\"a.example\"]");
    let began = |what: &str| {
        if what.starts_with("Starting") {
            bench.deploy(&public("other")).unwrap();
        }
    };
    let fault = deploy(&bench.host, &public("web"), "app.toml", bench.home.path(), false, &began).unwrap_err();
    assert!(fault.message.contains("the app other serves a.example already"), "{fault}");
    assert_eq!(bench.host.front.names().get("a.example").unwrap().0, "other");
}

#[test]
fn a_vm_that_is_being_suspended_is_looked_at_without_waiting_and_woken_once_it_sleeps() {
    let bench = Bench::new();
    bench.deploy(&Bench::text("slow", "idle = \"1s\"")).unwrap();
    let fleet = bench.host.fleet_of("web").unwrap();
    let machine = fleet.pick("web").unwrap();
    // It begins after a second or two, and takes two.
    let (began, mut slowest) = (Instant::now(), Duration::ZERO);
    while began.elapsed() < Duration::from_millis(2500) {
        let asked = Instant::now();
        assert!(machine.takes_traffic() && machine.report().vm == 1);
        slowest = slowest.max(asked.elapsed());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    assert!(fleet.wake(Some(machine.plan.address)));
    assert_eq!((machine.phase(), bench.ask().unwrap().as_str()), (Phase::Healthy, "release 1"));
}

#[test]
fn a_vm_that_is_being_suspended_goes_on_at_once_for_a_connection_and_sleeps_later() {
    let bench = Bench::new();
    bench.deploy(&Bench::text("long", "idle = \"1s\"")).unwrap();
    let fake = Arc::clone(&bench.fakes.started.lock().unwrap()[0]);
    for times in 1..=2 {
        bench.until("a suspension", || fake.turns.lock().unwrap().0 == times);
        let asked = Instant::now();
        assert_eq!((bench.ask().unwrap().as_str(), bench.phases()), ("release 1", vec![Phase::Healthy]));
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    }
}

#[test]
fn a_secret_that_is_refused_tells_whether_it_is_for_its_name_or_for_its_value() {
    let bench = Bench::new();
    let said = |name: &str, value: &str| bench.host.parts.secrets.set("web", name, value).unwrap_err();
    for name in ["", "A B", "1A", "A=b", &"A".repeat(201)] {
        let fault = said(name, "text");
        assert!(fault.message.contains("not a digit first") && !fault.message.contains("value of"), "{fault}");
    }
    for (value, why) in [("", "the value of TOKEN is empty"), ("a\0b", "the value of TOKEN has a NUL in it")] {
        let fault = said("TOKEN", value);
        assert!(fault.message.starts_with(why), "{fault}");
        assert!(fault.next.unwrap().contains("cell secrets set web TOKEN < FILE"));
    }
    assert!(bench.host.parts.secrets.list("web").unwrap().is_empty());
}

#[test]
fn a_deploy_without_a_kernel_tells_how_to_name_one_and_not_to_read_a_log() {
    let mut bench = Bench::new();
    Arc::get_mut(&mut bench.host).expect("nobody else has it").parts.kernel = None;
    let fault = bench.deploy(&Bench::text("", "")).unwrap_err();
    assert!(fault.message.contains("web names no kernel, and cell serve has none"), "{fault}");
    assert!(fault.next.unwrap().contains("cell serve --kernel PATH"));
}

/// A person who writes another size expects it, and one who destroys an app expects that its data go, too.
#[test]
fn it_is_told_that_a_volume_keeps_its_size_and_that_it_stays() {
    let bench = Bench::new();
    let told = std::sync::Mutex::new(Vec::new());
    let progress = |what: &str| told.lock().unwrap().push(what.to_owned());
    let of_volumes = || {
        let all = std::mem::take(&mut *told.lock().unwrap());
        all.into_iter().filter(|what| what.contains("The volume")).collect::<Vec<_>>()
    };
    let sized = |size: &str| {
        let text =
            Bench::text("", "") + &format!("[[volumes]]\nname = \"data\"\npath = \"/data\"\nsize = \"{size}\"\n");
        deploy(&bench.host, &text, "app.toml", bench.home.path(), false, &progress).unwrap();
        of_volumes()
    };
    assert!(sized("2G").is_empty() && sized("2G").is_empty());
    assert_eq!(
        sized("2304M"),
        ["The volume data stays at 2G, and app.toml says 2304M: `cell volumes extend web data 2304M` makes it larger"]
    );
    assert_eq!(sized("1G"), ["The volume data stays at 2G, and app.toml says 1G: a volume does not become smaller"]);
    destroy(&bench.host, "web", &progress).unwrap();
    assert_eq!(of_volumes(), ["The volume data stays; `cell volumes destroy web data --yes data` removes it"]);
}

/// The old VM of an app with a volume ends first, which takes its time; it is to come back at once.
#[test]
fn a_deploy_that_is_cancelled_while_the_old_vm_ends_does_not_wait_for_a_new_one() {
    let bench = Bench::new();
    let text = Bench::text("", "") + "[[volumes]]\nname = \"data\"\npath = \"/data\"\nsize = \"32M\"\n";
    bench.deploy(&text).unwrap();
    let counted = bench.host.fleet_of("web").unwrap().pick("web").unwrap().count();
    let told = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let progress = |what: &str| told.lock().unwrap().push(what.to_owned());
        let (host, home, text, told) = (&bench.host, bench.home.path(), &text, &told);
        let deploying = scope.spawn(move || deploy(host, text, "app.toml", home, false, &progress).unwrap_err());
        bench.until("the end of the old VM", || told.lock().unwrap().iter().any(|what| what.starts_with("Ending")));
        assert_eq!(cancel(&bench.host, "web").unwrap(), 2);
        drop(counted);
        let why = deploying.join().unwrap().message;
        assert!(why.contains("release 1 goes on") && why.contains("was cancelled"), "{why}");
    });
    let told = told.into_inner().unwrap();
    assert!(!told.iter().any(|what| what.ends_with("is healthy")), "{told:?}");
    bench.until("the old release", || bench.phases() == [Phase::Healthy]);
    assert_eq!(bench.ask().unwrap(), "release 1");
}
