//! Apps on a host whose guests are fakes.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tempfile::TempDir;
use vmcell::network::{Network, NetworkConfig, Subnet};

use super::*;
use crate::edge::{Refusal, Routes};
use crate::fault::{Fault, Result};
use crate::machine::Phase;
use crate::machine::fake_test::Fakes;
use crate::state::{Built, ReleaseStatus, State};

const WAIT: Duration = Duration::from_secs(10);

/// A folder that is there for others, or for the test alone.
pub(crate) struct Home(PathBuf, Option<TempDir>);

impl Home {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

pub(crate) struct Bench {
    pub(crate) home: Home,
    pub(crate) fakes: Arc<Fakes>,
    pub(crate) host: Arc<Host>,
}

fn build(source: &Path, into: &Path) -> Result<Built> {
    let text = std::fs::read_to_string(source).map_err(|error| Fault::new(error.to_string()))?;
    std::fs::write(into, &text).unwrap();
    Ok(Built { file: format!("{}.erofs", text.trim()), command: vec!["/bin/serve".into()], ..Built::default() })
}

/// The same, named by its digest as a real one.
fn digested(source: &Path, into: &Path) -> Result<Built> {
    let built = build(source, into)?;
    let digest = Sha256::digest(std::fs::read(into).unwrap());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Built { file: format!("{digest}.erofs"), ..built })
}

/// With the name and the address of the host, if it is to be in a mesh.
pub(super) fn host(home: &Path, fakes: &Arc<Fakes>, mesh: Option<(&str, SocketAddr)>) -> Arc<Host> {
    let folder = Folder::open(&home.join("state")).unwrap();
    let state = Arc::new(State::open(folder.path()).unwrap());
    let secrets = Arc::new(Secrets::open(&folder.secrets()).unwrap());
    let network = Network::new(NetworkConfig::new(Subnet::new([1, 2, 3], 1))).unwrap();
    let is_digested = mesh.is_some();
    let mesh = mesh.map(|(name, at)| Arc::new(Mesh::open(&network, &state, &secrets, (name, Some(at))).unwrap()));
    let launcher: Arc<Fakes> = Arc::clone(fakes);
    let parts = Parts {
        folder,
        state,
        secrets,
        network,
        laptops: None,
        mesh,
        launcher,
        build: if is_digested { Box::new(digested) } else { Box::new(build) },
        kernel: Some("/kernel".into()),
    };
    Arc::new(Host::new(parts))
}

impl Bench {
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("image"), "aa").unwrap();
        let mut bench = Self::at(home.path());
        bench.home.1 = Some(home);
        bench
    }

    /// A host with the state that is in a folder.
    pub(crate) fn at(home: &Path) -> Self {
        let fakes = Arc::new(Fakes::default());
        Self { host: host(home, &fakes, None), home: Home(home.to_owned(), None), fakes }
    }

    pub(crate) fn text(mode: &str, more: &str) -> String {
        format!(
            "name = \"web\"\nimage = \"image\"\nenv = {{ MODE = \"{mode}\" }}\n{more}\n\
             [[services]]\nport = 80\ncheck = {{ path = \"/\", grace = \"1s\", interval = \"1s\" }}\n"
        )
    }

    pub(crate) fn deploy(&self, text: &str) -> Result<crate::state::Release> {
        deploy(&self.host, text, "app.toml", self.home.path(), false, &|_| {})
    }

    pub(crate) fn ask(&self) -> Result<String> {
        let machine = self.host.fleet_of("web")?.pick("web")?;
        let _counted = machine.count();
        let mut stream = machine.forward(80, WAIT)?;
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").map_err(|error| Fault::new(error.to_string()))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(|error| Fault::new(error.to_string()))?;
        Ok(answer.rsplit("\r\n").next().unwrap_or_default().to_owned())
    }

    pub(crate) fn phases(&self) -> Vec<Phase> {
        self.host.fleet_of("web").unwrap().machines().iter().map(|machine| machine.phase()).collect()
    }

    pub(crate) fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let began = Instant::now();
        while !is_so() {
            assert!(began.elapsed() < WAIT, "{what} did not come: {:?}", self.phases());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        shut_down(&self.host);
    }
}

#[test]
fn an_app_is_deployed_and_answers() {
    let bench = Bench::new();
    let release = bench.deploy(&Bench::text("", "count = 2")).unwrap();
    assert_eq!((release.number, release.status), (1, ReleaseStatus::Active));
    assert_eq!(bench.ask().unwrap(), "release 1");
    assert_eq!(bench.phases(), [Phase::Healthy, Phase::Healthy]);
    let started = bench.fakes.started.lock().unwrap();
    let second = started.iter().find(|fake| fake.plan.slot == 2).unwrap();
    let settings = second.settings.lock().unwrap().clone().unwrap();
    assert_eq!((settings.command, settings.hostname.as_deref()), (vec!["/bin/serve".to_owned()], Some("web-2")));
    assert_eq!(settings.nameservers, [bench.host.parts.network.subnet().dns()]);
}

#[test]
fn a_failed_deploy_says_why_and_leaves_what_ran() {
    let bench = Bench::new();
    let first = bench.deploy(&Bench::text("sick", "")).unwrap_err();
    assert!(first.message.contains("nothing of it runs: VM 1: its health check has not passed in 1s"), "{first}");
    bench.deploy(&Bench::text("", "")).unwrap();
    for (mode, why) in [
        ("sick", "the status is 500; wanted is 200 to 399"),
        ("deaf", "port 80: connection refused"),
        ("dies", "the VM ended before its command ran: the guest's kernel panicked"),
        ("exits", "the command ended with the exit status 3"),
        ("no-command", "the command does not start: /bin/x: no such file"),
        ("refused", "the kernel is no kernel"),
    ] {
        let fault = bench.deploy(&Bench::text(mode, "")).unwrap_err();
        assert!(fault.message.contains(why) && fault.message.contains("release 2 goes on"), "{mode}: {fault}");
        assert_eq!((bench.ask().unwrap().as_str(), bench.phases().len()), ("release 2", 1), "{mode}");
        let last = bench.host.parts.state.releases(Some("web")).unwrap().remove(0);
        assert_eq!(last.status, ReleaseStatus::Failed);
        assert!(last.reason.unwrap().contains(why), "{mode}");
    }
}

#[test]
fn a_new_release_takes_over_without_a_refused_connection() {
    let bench = Arc::new(Bench::new());
    bench.deploy(&Bench::text("", "count = 2")).unwrap();
    let (over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let askers: Vec<_> = (0..3)
        .map(|_| {
            let (bench, over, asked) = (Arc::clone(&bench), Arc::clone(&over), Arc::clone(&asked));
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    asked.lock().unwrap().push(bench.ask());
                }
            })
        })
        .collect();
    for release in 2..5 {
        assert_eq!(bench.deploy(&Bench::text("", "")).unwrap().number, release);
    }
    over.store(true, Ordering::Relaxed);
    askers.into_iter().for_each(|asker| asker.join().unwrap());
    let asked = asked.lock().unwrap();
    assert!(asked.iter().all(Result::is_ok), "{:?}", asked.iter().find(|asked| asked.is_err()));
    assert!(asked.contains(&Ok("release 1".into())) && asked.contains(&Ok("release 3".into())));
    assert_eq!(bench.phases().len(), 2);
}

#[test]
fn two_deploys_at_once_are_one_after_the_other_or_refused() {
    let bench = Arc::new(Bench::new());
    let occupied = bench.host.occupy("web", false).unwrap();
    let fault = bench.deploy(&Bench::text("", "")).unwrap_err();
    assert!(fault.message.contains("is being changed by another command"), "{fault}");
    let second = Arc::clone(&bench);
    let waits = std::thread::spawn(move || {
        deploy(&second.host, &Bench::text("", ""), "app.toml", second.home.path(), true, &|_| {}).unwrap().number
    });
    std::thread::sleep(Duration::from_millis(50));
    assert!(!waits.is_finished());
    drop(occupied);
    assert_eq!(waits.join().unwrap(), 1);
}

#[test]
fn a_host_that_begins_anew_starts_what_ran_and_ends_what_was_begun() {
    let (home, fakes) = {
        let mut bench = Bench::new();
        let release = bench.deploy(&Bench::text("", "count = 2")).unwrap();
        // As if it was killed in the middle of another deploy.
        bench.host.parts.state.begin_release(&release.spec, &release.image).unwrap();
        shut_down(&bench.host);
        let home = bench.home.1.take().unwrap();
        (home, Arc::clone(&bench.fakes))
    };
    let host = host(home.path(), &fakes, None);
    let bench = Bench { home: Home(home.path().to_owned(), Some(home)), fakes, host };
    assert_eq!(resume(&bench.host, &|_| {}).unwrap(), ["web"]);
    bench.until("both VMs", || bench.phases() == [Phase::Healthy, Phase::Healthy]);
    assert_eq!(bench.ask().unwrap(), "release 1");
    let last = bench.host.parts.state.releases(Some("web")).unwrap().remove(0);
    assert_eq!((last.number, last.reason.as_deref()), (2, Some("cell serve ended during the deploy")));
}

#[test]
fn a_vm_that_ends_is_started_again() {
    let bench = Bench::new();
    bench.deploy(&Bench::text("", "")).unwrap();
    let first = Arc::clone(&bench.fakes.started.lock().unwrap()[0]);
    first.end("the guest's kernel panicked");
    bench.until("the end", || matches!(&bench.phases()[0], Phase::Waiting(why) if why.contains("panicked")));
    assert!(bench.ask().unwrap_err().message.contains("no VM of web at this host takes connections"));
    bench.until("another VM", || bench.phases() == [Phase::Healthy]);
    assert_eq!(bench.fakes.started.lock().unwrap().len(), 2);
}

#[test]
fn scale_restart_and_destroy() {
    let bench = Bench::new();
    bench.deploy(&Bench::text("", "")).unwrap();
    scale(&bench.host, "web", 3, &|_| {}).unwrap();
    assert_eq!(bench.phases().len(), 3);
    scale(&bench.host, "web", 1, &|_| {}).unwrap();
    assert_eq!((bench.phases().len(), bench.host.parts.state.app("web").unwrap().count), (1, 1));
    restart(&bench.host, "web", &[], &|_| {}).unwrap();
    assert_eq!((bench.phases(), bench.fakes.started.lock().unwrap().len()), (vec![Phase::Healthy], 4));
    assert!(scale(&bench.host, "web", 101, &|_| {}).unwrap_err().message.contains("allowed are 0 to 100"));
    destroy(&bench.host, "web", &|_| {}).unwrap();
    assert!(bench.host.fleet_of("web").err().unwrap().message.contains("there is no app web"));
    assert_eq!(std::fs::read_dir(bench.host.parts.folder.image("")).unwrap().count(), 0, "its image is gone");
    assert_eq!(bench.deploy(&Bench::text("", "")).unwrap().number, 1);
}

#[test]
fn a_command_that_does_not_end_is_ended_with_its_vm() {
    let bench = Bench::new();
    bench.deploy(&Bench::text("stubborn", "stop_grace = \"0s\"")).unwrap();
    let began = Instant::now();
    destroy(&bench.host, "web", &|_| {}).unwrap();
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[test]
fn an_app_reaches_others_only_if_they_allow_it() {
    let bench = Bench::new();
    let other = "name = \"front\"\nimage = \"image\"\n";
    bench.deploy(&Bench::text("", "").replace("port = 80", "port = 80\nallow = [\"front\"]")).unwrap();
    assert_eq!(bench.host.parts.network.rule_counts().len(), 2, "an app reaches itself");
    bench.deploy(other).unwrap();
    let rules: Vec<String> =
        bench.host.parts.network.rule_counts().iter().map(|count| count.rule.to_string()).collect();
    let between: Vec<&String> = rules.iter().filter(|rule| rule.contains("tcp")).collect();
    assert_eq!((rules.len(), between.len()), (5, 1), "{rules:?}");
    assert!(between[0].starts_with("allow tcp 80-80 from"), "{between:?}");
}

#[test]
fn what_is_missing_is_said() {
    let bench = Bench::new();
    let fault = bench.deploy("name = \"web\"\nimage = \"nowhere\"\n").unwrap_err();
    assert!(fault.message.contains("No such file"), "{fault}");
    let fault = bench.deploy(&Bench::text("", "secrets = [\"TOKEN\"]")).unwrap_err();
    assert!(fault.message.contains("web wants the secret TOKEN, and it is not set"), "{fault}");
    assert!(fault.next.unwrap().contains("cell secrets set web TOKEN"));
    let second = Folder::open(&bench.home.path().join("state")).err().unwrap();
    assert!(second.message.contains("another cell serve has"), "{second}");
}

#[test]
fn a_secret_reaches_the_guest_alone_and_a_new_value_is_a_new_release() {
    let bench = Bench::new();
    let secrets = &bench.host.parts.secrets;
    secrets.set("web", "TOKEN", "one").unwrap();
    bench.deploy(&Bench::text("", "secrets = [\"TOKEN\"]")).unwrap();
    secrets.set("web", "TOKEN", "another").unwrap();
    assert_eq!(redeploy(&bench.host, "web", &[], &|_| {}).unwrap().number, 2);
    let told = |place: usize| {
        let fake = Arc::clone(&bench.fakes.started.lock().unwrap()[place]);
        let settings = fake.settings.lock().unwrap().clone().unwrap();
        settings.secrets["TOKEN"].clone()
    };
    assert_eq!((told(0), told(1)), ("one".to_owned(), "another".to_owned()));
    let listed = secrets.list("web").unwrap();
    assert_eq!((listed.len(), listed[0].version), (1, 2));
    for entry in std::fs::read_dir(bench.home.path().join("state/secrets")).unwrap().flatten() {
        let bytes = std::fs::read(entry.path()).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"another"), "{:?}", entry.path());
    }
    destroy(&bench.host, "web", &|_| {}).unwrap();
    assert!(bench.host.parts.secrets.list("web").unwrap().is_empty());
}

const VOLUME: &str = "[[volumes]]\nname = \"data\"\npath = \"/data\"\nsize = \"32M\"\n";

#[test]
fn a_volume_is_in_one_vm_at_a_time_and_a_failed_deploy_starts_the_old_one_again() {
    let bench = Bench::new();
    let text = |mode| Bench::text(mode, "") + VOLUME;
    bench.deploy(&text("")).unwrap();
    let settings = bench.fakes.started.lock().unwrap()[0].settings.lock().unwrap().clone().unwrap();
    assert_eq!((settings.volumes[0].path.as_str(), settings.volumes[0].is_new), ("/data", true));
    bench.deploy(&text("")).unwrap();
    assert_eq!(bench.fakes.most_at_once(), 1);
    assert!(!bench.fakes.started.lock().unwrap()[1].settings.lock().unwrap().as_ref().unwrap().volumes[0].is_new);
    bench.deploy(&text("exits")).unwrap_err();
    bench.until("the old release", || bench.phases() == [Phase::Healthy]);
    assert_eq!((bench.ask().unwrap().as_str(), bench.fakes.most_at_once()), ("release 2", 1));
}

#[test]
fn volumes_have_snapshots_that_are_restored_forked_and_extended() {
    let bench = Bench::new();
    bench.deploy(&(Bench::text("", "") + VOLUME)).unwrap();
    let volumes = || bench.host.volumes().list("web").unwrap().remove(0);
    assert_eq!((volumes().size, volumes().snapshots.len()), (32 << 20, 0));
    assert_eq!(snapshot(&bench.host, "web", "data").unwrap(), 1);
    extend(&bench.host, "web", "data", 64 << 20).unwrap();
    assert!(extend(&bench.host, "web", "data", 1).unwrap_err().message.contains("has 64M, and 1 is not more"));
    assert_eq!(restore(&bench.host, "web", "data", 1, &|_| {}).unwrap(), 2);
    assert_eq!((volumes().size, volumes().snapshots.len(), bench.phases()), (32 << 20, 2, vec![Phase::Healthy]));
    assert_eq!(bench.host.volumes().opened("web", "data").unwrap().0.file_name().unwrap(), "web.data.3.vol");
    fork(&bench.host, ("web", "data"), 2, ("other", "copy")).unwrap();
    assert_eq!(bench.host.volumes().list("other").unwrap()[0].size, 64 << 20);
    let (file, key) = bench.host.volumes().opened("other", "copy").unwrap();
    vmcell::volume::Volume::open(file, &key).unwrap();
    for (name, number, why) in [("data", 9, "has no snapshot 9"), ("date", 1, "has no volume date")] {
        assert!(restore(&bench.host, "web", name, number, &|_| {}).unwrap_err().message.contains(why));
    }
}

#[test]
fn a_snapshot_that_a_crash_broke_off_was_taken_or_was_not() {
    let bench = Bench::new();
    bench.deploy(&(Bench::text("", "") + VOLUME)).unwrap();
    let (state, volumes) = (&bench.host.parts.state, bench.host.volumes());
    let row = state.volume("web", "data").unwrap().unwrap();
    state.set_volume(&crate::state::VolumeRow { next: Some(2), ..row.clone() }).unwrap();
    let (first, key) = volumes.opened("web", "data").unwrap();
    assert_eq!(state.volume("web", "data").unwrap().unwrap(), row, "nothing was there yet");
    vmcell::volume::Volume::fork(&first, &key, first.with_file_name("web.data.2.vol"), &key).unwrap();
    state.set_volume(&crate::state::VolumeRow { next: Some(2), ..row }).unwrap();
    assert_eq!(volumes.opened("web", "data").unwrap().0.file_name().unwrap(), "web.data.2.vol");
    assert_eq!(volumes.list("web").unwrap()[0].snapshots.len(), 1);
}

#[test]
fn an_idle_vm_is_suspended_and_a_connection_wakes_it() {
    let bench = Bench::new();
    bench.deploy(&Bench::text("", "idle = \"1s\"")).unwrap();
    bench.until("sleep", || bench.phases() == [Phase::Suspended]);
    assert_eq!((bench.ask().unwrap().as_str(), bench.phases()), ("release 1", vec![Phase::Healthy]));
    bench.until("sleep again", || bench.phases() == [Phase::Suspended]);
    bench.deploy(&Bench::text("sleepless", "idle = \"1s\"")).unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(bench.phases(), [Phase::Healthy]);
}

#[test]
fn a_laptop_gets_a_configuration_and_reaches_services_alone() {
    let bench = Bench::new();
    let parts = &bench.host.parts;
    let endpoint = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let laptops = Laptops::open(&parts.network, &parts.state, &parts.secrets, endpoint).unwrap();
    let text = laptops.create(&parts.network, &parts.state, "mine").unwrap();
    let config = vmcell::network::wireguard::Config::parse(&text).unwrap();
    let subnet = parts.network.subnet();
    assert_eq!(
        (config.dns, config.peers[0].allowed_ips.clone()),
        (vec![subnet.dns().into()], vec![subnet.prefix().into()])
    );
    assert!(laptops.create(&parts.network, &parts.state, "mine").unwrap_err().message.contains("already"));
    bench.deploy(&Bench::text("", "")).unwrap();
    let rules: Vec<String> = parts.network.rule_counts().iter().map(|count| count.rule.to_string()).collect();
    assert!(
        rules.len() == 4 && rules[0].contains("udp 53") && rules[3].ends_with("to fd01:203:0:1:0:1:0:1/128"),
        "{rules:?}"
    );
    drop(laptops);
    let again = Laptops::open(&parts.network, &parts.state, &parts.secrets, endpoint).unwrap();
    again.remove(&parts.state, "mine").unwrap();
    assert!(again.remove(&parts.state, "mine").unwrap_err().message.contains("no laptop mine"));
    assert!(super::laptops(&parts.network, &parts.state).unwrap().is_empty());
}

#[test]
fn a_public_name_leads_to_a_vm_of_its_app_which_is_busy_meanwhile() {
    let bench = Bench::new();
    let named = |app: &str, names: &str| {
        let text = Bench::text("", "").replace("port = 80\n", &format!("port = 80\nnames = {names}\n"));
        text.replace("name = \"web\"", &format!("name = \"{app}\""))
    };
    bench.deploy(&named("web", "[\"www.example.com\", \"Example.com\"]")).unwrap();
    let routes = front::ToApps(Arc::downgrade(&bench.host));
    assert_eq!(
        (routes.names().join(" ").as_str(), routes.owner("example.com").as_str()),
        ("example.com www.example.com", "web")
    );
    let mut backend = routes.connect("example.com").unwrap();
    let machine = bench.host.fleet_of("web").unwrap().pick("web").unwrap();
    assert_eq!(machine.busy(), 1);
    backend.stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    backend.stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("release 1"), "{answer}");
    drop(backend);
    assert_eq!(machine.busy(), 0);
    assert_eq!(routes.connect("other.example.com").err(), Some(Refusal::Unknown));
    let fault = bench.deploy(&named("other", "[\"www.example.com\"]")).unwrap_err();
    assert!(fault.message.contains("the app web serves www.example.com already"), "{fault}");
    // A release without the names gives them up.
    bench.deploy(&named("web", "[]")).unwrap();
    assert!(routes.names().is_empty());
    bench.deploy(&named("other", "[\"www.example.com\"]")).unwrap();
    scale(&bench.host, "other", 0, &|_| {}).unwrap();
    assert!(matches!(routes.connect("www.example.com").err(), Some(Refusal::NoBackend(why)) if why.contains("no VM")));
}

#[test]
fn a_deploy_that_waits_is_cancelled_and_what_ran_before_goes_on() {
    let bench = Bench::new();
    bench.deploy(&Bench::text("", "")).unwrap();
    assert!(cancel(&bench.host, "web").unwrap_err().message.contains("no release of web is being deployed"));
    let began = Instant::now();
    // Its check never passes, for an hour.
    let slow = Bench::text("sick", "").replace("grace = \"1s\"", "grace = \"1h\"");
    std::thread::scope(|scope| {
        let deploying = scope.spawn(|| bench.deploy(&slow));
        bench.until("its VM", || bench.host.fleet_of("web").unwrap().machines().len() == 2);
        assert!(scale(&bench.host, "web", 2, &|_| {}).unwrap_err().next.unwrap().contains("cell cancel web"));
        assert_eq!(cancel(&bench.host, "web").unwrap(), 2);
        let why = deploying.join().unwrap().unwrap_err().message;
        assert!(why.contains("release 2 of web failed, and release 1 goes on"), "{why}");
    });
    assert!(began.elapsed() < Duration::from_secs(60));
    let releases = bench.host.parts.state.releases(Some("web")).unwrap();
    assert_eq!((releases[0].status, releases[0].reason.as_deref()), (ReleaseStatus::Failed, Some("it was cancelled")));
    assert_eq!(bench.ask().unwrap(), "release 1");
    bench.deploy(&Bench::text("", "")).unwrap();
}

#[test]
fn a_volume_is_destroyed_once_no_app_uses_it_and_none_begins_as_it() {
    let bench = Bench::new();
    let with = Bench::text("", "") + "[[volumes]]\nname = \"data\"\npath = \"/data\"\nsize = \"1M\"\n";
    bench.deploy(&with).unwrap();
    let snapshot = super::snapshot(&bench.host, "web", "data").unwrap();
    fork(&bench.host, ("web", "data"), snapshot, ("other", "data")).unwrap();
    let files = || std::fs::read_dir(bench.host.parts.folder.volumes()).unwrap().count();
    let refused = |app: &str, name: &str| destroy_volume(&bench.host, app, name).unwrap_err().message;
    assert!(refused("web", "data").contains("the app web uses its volume data"));
    assert!(refused("web", "date").contains("web has no volume date"));
    destroy(&bench.host, "web", &|_| {}).unwrap();
    assert!(refused("web", "data").contains("the volume data of other begins as a snapshot of data of web"));
    assert_eq!(files(), 3);
    destroy_volume(&bench.host, "other", "data").unwrap();
    destroy_volume(&bench.host, "web", "data").unwrap();
    assert_eq!((files(), bench.host.parts.state.all_volumes().unwrap().len()), (0, 0));
    assert!(bench.host.parts.secrets.volume_key("web", "data", false).is_err());
    // One of its name begins anew.
    bench.deploy(&with).unwrap();
    assert_eq!(bench.host.volumes().list("web").unwrap()[0].snapshots, []);
}

#[test]
fn requests_to_a_public_name_go_to_all_vms_of_its_app_in_turn() {
    let bench = Bench::new();
    let named = Bench::text("", "count = 2").replace("port = 80\n", "port = 80\nnames = [\"www.example.com\"]\n");
    bench.deploy(&named).unwrap();
    let routes = front::ToApps(Arc::downgrade(&bench.host));
    let backends: Vec<_> = (0..6).map(|_| routes.connect("www.example.com").unwrap()).collect();
    let busy: Vec<usize> =
        bench.host.fleet_of("web").unwrap().machines().iter().map(|machine| machine.busy()).collect();
    assert_eq!((busy, backends.len()), (vec![3, 3], 6));
}

#[test]
fn a_guest_s_clock_follows_the_host_s() {
    let bench = Bench::new();
    bench.deploy(&Bench::text("", "")).unwrap();
    let fake = Arc::clone(&bench.fakes.started.lock().unwrap()[0]);
    let clock = || *fake.clock.lock().unwrap() / 1000;
    bench.until("the time", || clock() > 0);
    let before = clock();
    bench.until("it once more", || clock() > before);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(now.abs_diff(clock()) < 5);
}
