//! Apps that run at several hosts, whose guests are fakes.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::mesh_test::{Site, until};
use super::*;
use crate::edge::Routes;
use crate::fault::Result;
use crate::lines::Hidden;
use crate::link::Request;
use crate::machine::Phase;
use crate::state::{Built, Release, ReleaseStatus};

const LIMIT: Duration = Duration::from_secs(10);

fn text(hosts: &str, mode: &str, more: &str) -> String {
    format!(
        "name = \"web\"\nimage = \"aa\"\nhosts = {hosts}\nenv = {{ MODE = \"{mode}\" }}\n{more}\n\
         [[services]]\nport = 80\nnames = [\"www.example.com\"]\ncheck = {{ path = \"/\", grace = \"1s\", interval = \"1s\" }}\n"
    )
}

fn deploy_at(site: &Site, text: &str) -> Result<Release> {
    deploy(&site.host, text, "app.toml", site.home.path(), false, &|_| {})
}

/// Two hosts that know each other.
fn pair() -> (Site, Site) {
    let alpha = Site::first("alpha");
    let beta = alpha.invite("beta");
    until("both", || alpha.alive().len() == 2 && beta.alive().len() == 2);
    (alpha, beta)
}

fn phases(site: &Site) -> Vec<Phase> {
    let fleet = site.host.fleet_named("web");
    fleet.map(|fleet| fleet.machines().iter().map(|machine| machine.phase()).collect()).unwrap_or_default()
}

/// How many VMs are behind the service's address at a host, all told.
fn members(site: &Site) -> usize {
    let fleet = site.host.fleet_named("web");
    let here = fleet.as_ref().map_or(0, |fleet| fleet.machines().iter().filter(|vm| vm.takes_traffic()).count());
    let service = fleet.and_then(|fleet| fleet.service().ok());
    // Fakes have no port in the network, so they are not among its members.
    here + service.map_or(0, |service| service.members().iter().filter(|member| !member.draining).count())
}

/// Asks by the edge of a host.
fn ask(site: &Site) -> std::result::Result<String, String> {
    let routes = front::ToApps(Arc::downgrade(&site.host));
    let mut backend = routes.connect("www.example.com").map_err(|why| format!("{why:?}"))?;
    backend.stream.write_all(b"GET / HTTP/1.1\r\n\r\n").map_err(|why| why.to_string())?;
    let mut answer = String::new();
    backend.stream.read_to_string(&mut answer).map_err(|why| why.to_string())?;
    Ok(answer.rsplit("\r\n").next().unwrap_or_default().to_owned())
}

#[test]
fn an_app_is_deployed_to_two_hosts_and_one_of_them_dies_and_comes_back() {
    let (alpha, beta) = pair();
    alpha.host.parts.secrets.set("web", "TOKEN", "hidden").unwrap();
    let release = deploy_at(&alpha, &text("{ alpha = 1, beta = 2 }", "", "secrets = [\"TOKEN\"]")).unwrap();
    assert_eq!((release.number, phases(&alpha).len(), phases(&beta)), (1, 1, vec![Phase::Healthy; 2]));
    until("all VMs at both", || members(&alpha) == 3 && members(&beta) == 3);
    let started = Arc::clone(&beta.fakes.started.lock().unwrap()[0]);
    assert_eq!(started.settings.lock().unwrap().as_ref().unwrap().secrets["TOKEN"], "hidden");
    assert_eq!(std::fs::read(&started.plan.root).unwrap(), b"aa", "the image has come over");
    let reports = alpha.host.reports_elsewhere(&alpha.host.parts.state.app("web").unwrap());
    assert_eq!(reports.iter().map(|(host, _)| host.as_str()).collect::<Vec<_>>(), ["beta", "beta"]);
    // Both edges lead to all.
    for site in [&alpha, &beta] {
        (0..6).for_each(|_| assert_eq!(ask(site).unwrap(), "release 1"));
    }
    for refused in [deploy_at(&beta, &text("{ beta = 1 }", "", "")).err(), scale(&beta.host, "web", 1, &|_| {}).err()] {
        assert!(refused.unwrap().message.contains("belongs to the host alpha"));
    }
    let gone = beta.end();
    until("a death", || members(&alpha) == 1);
    (0..3).for_each(|_| assert_eq!(ask(&alpha).unwrap(), "release 1"));
    let dead = deploy_at(&alpha, &text("{ alpha = 1, beta = 1 }", "", "")).unwrap_err();
    assert!(dead.message.contains("the host beta is dead") && dead.next.unwrap().contains("--without beta"));
    let without = ["beta".to_owned()];
    let text = text("{ alpha = 1, beta = 1 }", "", "");
    deploy_without(&alpha.host, &text, "app.toml", alpha.home.path(), (false, &without), &|_| {}).unwrap();
    assert_eq!((phases(&alpha).len(), ask(&alpha)), (1, Ok("release 2".into())));
    let beta = Site::start(gone.1, &gone.0, gone.2);
    // It begins with what it knows, and gets what it has missed.
    until("the release that it has missed", || {
        beta.host.parts.state.active("web").is_ok_and(|release| release.number == 2) && phases(&beta).len() == 1
    });
    until("all VMs", || members(&alpha) == 2);
    // What was missed may be under way yet.
    until("its end", || destroy(&alpha.host, "web", &|_| {}).is_ok());
    assert!(beta.host.parts.state.apps().unwrap().is_empty() && phases(&beta).is_empty());
}

#[test]
fn a_deploy_that_fails_at_one_host_has_changed_nothing_at_any() {
    let (alpha, beta) = pair();
    let both = "{ alpha = 1, beta = 1 }";
    deploy_at(&alpha, &text(both, "", "")).unwrap();
    for (site, name) in [(&alpha, "alpha"), (&beta, "beta")] {
        // The fakes of one host do not start.
        site.fakes.refuses.store(true, Ordering::SeqCst);
        let why = deploy_at(&alpha, &text(both, "other", "")).unwrap_err();
        site.fakes.refuses.store(false, Ordering::SeqCst);
        assert!(why.message.contains("release 1 goes on") && why.message.contains("VM"), "{name}: {why}");
        for site in [&alpha, &beta] {
            until("the old release", || phases(site) == [Phase::Healthy]);
            assert_eq!(site.host.parts.state.active("web").unwrap().number, 1);
            assert_eq!(ask(site).unwrap(), "release 1");
        }
    }
    let statuses = |site: &Site| -> Vec<_> {
        site.host.parts.state.releases(Some("web")).unwrap().into_iter().map(|release| release.status).collect()
    };
    assert_eq!(statuses(&alpha), [ReleaseStatus::Failed, ReleaseStatus::Failed, ReleaseStatus::Active]);
    assert_eq!(deploy_at(&alpha, &text(both, "", "")).unwrap().number, 4);
    assert_eq!(beta.host.parts.state.active("web").unwrap().number, 4);
    let machine = |site: &Site| site.host.fleet_named("web").unwrap().machines().remove(0);
    let before = [&alpha, &beta].map(machine);
    restart(&alpha.host, "web", &[], &|_| {}).unwrap();
    assert_eq!((phases(&alpha), phases(&beta)), (vec![Phase::Healthy], vec![Phase::Healthy]));
    for (site, before) in [&alpha, &beta].into_iter().zip(&before) {
        assert!(!Arc::ptr_eq(&machine(site), before), "there are new VMs at both");
        assert_eq!(site.host.parts.state.active("web").unwrap().number, 4);
    }
    // Without a host, its VMs end.
    deploy_at(&alpha, &text("{ alpha = 1 }", "", "")).unwrap();
    assert!(beta.host.parts.state.apps().unwrap().is_empty());
    assert!(deploy_at(&alpha, &text("{ gamma = 1 }", "", "")).unwrap_err().message.contains("there is no host gamma"));
}

#[test]
fn a_new_release_takes_over_at_two_hosts_without_a_refused_request() {
    let (alpha, beta) = pair();
    let both = "{ alpha = 1, beta = 1 }";
    deploy_at(&alpha, &text(both, "", "")).unwrap();
    until("all VMs at both", || members(&alpha) == 2 && members(&beta) == 2);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let asker = |site| {
            let over = &over;
            scope.spawn(move || {
                let mut answers = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    answers.push(ask(site));
                    thread::sleep(Duration::from_millis(5));
                }
                answers
            })
        };
        let askers = [asker(&alpha), asker(&beta)];
        let deployed = deploy_at(&alpha, &text(both, "", ""));
        thread::sleep(Duration::from_secs(2));
        over.store(true, Ordering::Relaxed);
        deployed.unwrap();
        for asker in askers {
            let answers = asker.join().unwrap();
            let wrong = answers.iter().find(|answer| !matches!(answer.as_deref(), Ok("release 1" | "release 2")));
            assert!(wrong.is_none(), "{wrong:?} among {}", answers.len());
            assert_eq!(answers.last(), Some(&Ok("release 2".into())));
        }
    });
}

#[test]
fn an_app_that_was_destroyed_while_a_host_was_dead_ends_there_when_it_is_back() {
    let (alpha, beta) = pair();
    deploy_at(&alpha, &text("{ alpha = 1, beta = 1 }", "", "")).unwrap();
    let gone = beta.end();
    until("a death", || alpha.alive() == ["alpha"]);
    destroy(&alpha.host, "web", &|_| {}).unwrap();
    let beta = Site::start(gone.1, &gone.0, gone.2);
    assert_eq!(beta.host.parts.state.apps().unwrap().len(), 1);
    until("its end", || beta.host.parts.state.apps().unwrap().is_empty());
}

#[test]
fn a_host_runs_nothing_that_is_not_the_askers_or_that_no_description_says() {
    let (alpha, beta) = pair();
    deploy_at(&alpha, &text("{ alpha = 1 }", "", "")).unwrap();
    let good = alpha.host.parts.state.active("web").unwrap();
    let mesh = alpha.host.mesh().unwrap();
    let peer = mesh.peer(2).unwrap();
    let run = |number: u32, change: &dyn Fn(&mut Release)| {
        let mut release = good.clone();
        release.image = Built { file: format!("{}.erofs", "a".repeat(64)), ..Built::default() };
        change(&mut release);
        let run = Request::Run { number, release: Box::new(release), count: 1, secrets: BTreeMap::<_, Hidden>::new() };
        let stream = mesh.link.stream(&peer, run, LIMIT).unwrap();
        run::Talk::new(stream, LIMIT).unwrap().hear(&|_| {}).map_err(|why| why.message)
    };
    let own = alpha.host.parts.state.app("web").unwrap().number;
    assert!(run(own + 1024, &|_| {}).unwrap_err().contains("is none of that host's"));
    for file in ["../../x.erofs", "a.erofs", "", &format!("{}/.erofs", "a".repeat(63))] {
        assert!(
            run(own, &|release| release.image.file = file.to_owned()).unwrap_err().contains("is no name of an image")
        );
    }
    let wrong = |change: &dyn Fn(&mut crate::app::App)| run(own, &|release| change(&mut release.spec)).unwrap_err();
    assert!(wrong(&|spec| spec.name = "other".into()).contains("is none of that host's"));
    assert!(wrong(&|spec| spec.kernel = Some("/etc/shadow".into())).contains("a kernel of its own"));
    assert!(wrong(&|spec| spec.vcpus = 0).contains("a wrong size"));
    let volume = serde_json::json!({ "name": "../x", "path": "/x", "size": 1 << 30 });
    let volume: crate::app::Mount = serde_json::from_value(volume).unwrap();
    assert!(wrong(&|spec| spec.volumes = vec![volume.clone()]).contains("wrong volumes"));
    // An image that nobody wants is not taken, and one that is not what it says neither.
    let send = |file: &str, bytes: u64, data: &[u8]| {
        let mut stream = mesh.link.stream(&peer, Request::Image { file: file.to_owned(), bytes }, LIMIT).unwrap();
        let _ = stream.write_all(data).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
        run::Talk::new(stream, LIMIT).unwrap().hear(&|_| {}).map_err(|why| why.message)
    };
    let file = format!("{}.erofs", "a".repeat(64));
    assert!(send("../x", 1, b"x").unwrap_err().contains("is no name of an image"));
    assert!(send(&file, 1, b"x").unwrap_err().contains("no release here has the image"));
    assert!(
        send(&file, 1 << 40, b"x").unwrap_err().contains("an image of 1099511627776 bytes; allowed are 21474836480")
    );
    assert_eq!(run(own, &|_| {}).unwrap(), run::Said::Wants);
    assert!(send(&file, 1, b"x").unwrap_err().contains("the image has the digest"));
    assert!(send(&file, 5, b"x").unwrap_err().contains("1 bytes of the image came, and 5 were said"));
    assert!(send(&file, 1, &[0; 1 << 20]).is_err());
    let left: Vec<_> = std::fs::read_dir(beta.home.path().join("state/images")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    // Whoever asked is gone, so it has failed.
    until("the end of it", || {
        let releases = beta.host.parts.state.releases(Some("web")).unwrap();
        releases.iter().all(|release| release.status == ReleaseStatus::Failed)
    });
}

#[test]
fn an_app_of_another_host_gets_no_volume_or_secret_that_was_here_before_under_its_name() {
    let (alpha, beta) = pair();
    let volume = "[[volumes]]\nname = \"data\"\npath = \"/data\"\nsize = \"4M\"\n";
    let text = |more: &str| text("{ beta = 1 }", "", more) + volume;
    let own = "name = \"web\"\nimage = \"aa\"\n".to_owned() + volume;
    deploy_at(&beta, &own).unwrap();
    destroy(&beta.host, "web", &|_| {}).unwrap();
    // Its volume stays, as if it was to be deployed again.
    until("its end", || alpha.host.known(None).unwrap().is_empty());
    let refused = deploy_at(&alpha, &text("")).unwrap_err();
    assert!(refused.message.contains("there is a volume data of another app web already"), "{refused}");
    assert!(beta.host.parts.state.apps().unwrap().is_empty());
    destroy(&alpha.host, "web", &|_| {}).unwrap();
    until("its end", || beta.host.known(None).unwrap().is_empty());
    deploy_at(&beta, &own).unwrap();
    destroy(&beta.host, "web", &|_| {}).unwrap();
    beta.host.parts.secrets.set("other", "TOKEN", "beta's own").unwrap();
    alpha.host.parts.secrets.set("other", "TOKEN", "alpha's").unwrap();
    until("its end", || alpha.host.known(None).unwrap().is_empty());
    let other = |more: &str| text(more).replace("name = \"web\"", "name = \"other\"");
    for more in ["", "secrets = [\"TOKEN\"]"] {
        let refused = deploy_at(&alpha, &other(more)).unwrap_err();
        assert!(refused.message.contains("there is a secret TOKEN of another app other already"), "{refused}");
    }
    assert_eq!(beta.host.parts.secrets.values("other", &["TOKEN".into()]).unwrap()["TOKEN"], "beta's own");
    beta.host.parts.secrets.unset("other", "TOKEN").unwrap();
    deploy_at(&alpha, &other("secrets = [\"TOKEN\"]")).unwrap();
    // What that host has made here is its own, also after the app was destroyed.
    destroy(&alpha.host, "other", &|_| {}).unwrap();
    until("its end", || beta.host.known(None).unwrap().is_empty());
    alpha.host.parts.secrets.set("other", "TOKEN", "alpha's").unwrap();
    deploy_at(&alpha, &other("secrets = [\"TOKEN\"]")).unwrap();
}
