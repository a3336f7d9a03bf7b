//! What a host of the mesh may tell, and what comes of it: nothing that belongs to others.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use vmcell::network::wireguard::PrivateKey;

use super::beat::{AppTold, Beat, ServiceTold, VmTold};
use super::mesh_test::Site;
use super::token::Token;
use super::*;
use crate::edge::Routes;
use crate::machine::{Phase, Report};
use crate::state::{APPS_OF_A_HOST, Member};

/// A host, and others of its mesh that say what the tests have them say.
fn site(others: &[&str]) -> Site {
    let alpha = Site::silent("alpha");
    let mesh = alpha.host.mesh().unwrap();
    for (name, key) in others.iter().zip(2..) {
        let token: Token = mesh.invite().unwrap().parse().unwrap();
        let tunnel = PrivateKey::from_bytes([key; 32]).public_key().to_string();
        let (endpoint, certificate) = (SocketAddr::from(([192, 0, 2, key], 7000)), format!("{key:064x}"));
        let new = Member { number: 0, name: (*name).into(), endpoint, moves: 0, certificate, tunnel };
        mesh.admit(&token.secret, new).unwrap();
    }
    alpha
}

/// The number of an app of a host's.
fn number(host: u16, app: u32) -> u32 {
    (u32::from(host) - 1) * (APPS_OF_A_HOST + 1) + app
}

fn app(name: &str, number: u32, hosts: &[u16]) -> AppTold {
    let (services, vms) = (Vec::new(), Vec::new());
    AppTold { name: name.into(), number, release: Some(1), hosts: hosts.into(), services, vms }
}

fn vm(number: u32) -> VmTold {
    let report =
        Report { vm: number, release: 1, address: "::".into(), phase: Phase::Healthy, restarts: 0, seconds: 1 };
    VmTold { report, takes: true }
}

fn serves(name: &str) -> ServiceTold {
    ServiceTold { port: 80, names: vec![name.into()], allow: Vec::new() }
}

fn tell(site: &Site, host: u16, apps: Vec<AppTold>) {
    let beat = Beat { roster: None, apps };
    beat.check().unwrap();
    site.host.mesh().unwrap().heard(host, Some(beat));
    site.host.others_changed();
}

fn web(site: &Site) {
    let text = "name = \"web\"\nimage = \"aa\"\n[[services]]\nport = 80\nnames = [\"www.example.com\"]\n";
    deploy(&site.host, text, "app.toml", site.home.path(), false, &|_| {}).unwrap();
}

#[test]
fn a_host_that_tells_of_apps_without_end_has_its_share_and_the_others_theirs() {
    let alpha = site(&["beta", "gamma"]);
    let many = |host: u16| (1..=APPS_OF_A_HOST).map(move |app| (format!("app-{host}-{app}"), number(host, app)));
    let told = |host| many(host).map(|(name, number)| app(&name, number, &[host])).collect::<Vec<_>>();
    tell(&alpha, 2, told(2));
    tell(&alpha, 3, vec![app("db", number(3, 1), &[3])]);
    let fleets = || alpha.host.fleets_by_name().len();
    assert!(alpha.host.fleet_named("db").is_some() && fleets() == 257, "{}", fleets());
    let began = Instant::now();
    tell(&alpha, 3, told(3));
    assert!(began.elapsed() < Duration::from_secs(30));
    assert_eq!(fleets(), 512);
    // There is room for those of this host.
    web(&alpha);
}

#[test]
fn a_host_whose_tunnel_key_only_looks_like_one_is_written_down_by_nobody() {
    let alpha = site(&["beta"]);
    let mesh = alpha.host.mesh().unwrap();
    let known = mesh.roster();
    let (endpoint, certificate) = (SocketAddr::from(([192, 0, 2, 9], 7000)), format!("{:064x}", 9));
    // Everybody knows what is agreed on with it.
    let tunnel = format!("{}=", "A".repeat(43));
    let bad = Member { number: 3, name: "gamma".into(), endpoint, moves: 0, certificate, tunnel };
    let mut told = known.as_ref().clone();
    told.hosts.push(bad.clone());
    assert!(mesh.adopt(&told, 2).unwrap_err().message.contains("proves nothing"));
    let token: Token = mesh.invite().unwrap().parse().unwrap();
    assert!(mesh.admit(&token.secret, bad.clone()).unwrap_err().message.contains("proves nothing"));
    let written = alpha.host.parts.state.roster().unwrap().unwrap();
    assert_eq!((mesh.roster().as_ref(), &written), (known.as_ref(), known.as_ref()));
    // Nothing of it is left that would be in the way of one with a key.
    let good = Member { tunnel: PrivateKey::from_bytes([9; 32]).public_key().to_string(), ..bad };
    assert_eq!(mesh.admit(&token.secret, good).unwrap(), 3);
}

#[test]
fn the_apps_of_a_host_and_their_public_names_are_its_own_word() {
    let alpha = site(&["beta"]);
    web(&alpha);
    let own = alpha.host.parts.state.app("web").unwrap().number;
    let lies = vec![
        app("web", number(2, 1), &[2]),
        app("other", number(1, 7), &[2]),
        AppTold { vms: vec![vm(1)], ..app("web", own, &[1, 2]) },
        AppTold {
            services: vec![serves("www.example.com"), serves("new.example.com")],
            ..app("x", number(2, 3), &[2])
        },
    ];
    tell(&alpha, 2, lies);
    assert!(alpha.host.fleet_named("other").is_none());
    assert_eq!(alpha.host.fleet_named("web").unwrap().number, own);
    assert!(alpha.host.fleet_named("web").unwrap().elsewhere().is_empty());
    let routes = front::ToApps(std::sync::Arc::downgrade(&alpha.host));
    assert_eq!((routes.owner("www.example.com"), routes.owner("new.example.com")), ("web".into(), "x".into()));
}

#[test]
fn a_host_has_no_share_of_the_traffic_of_an_app_that_is_not_to_run_there() {
    let alpha = site(&["beta", "gamma"]);
    let db = |hosts: &[u16]| app("db", number(2, 1), hosts);
    tell(&alpha, 2, vec![AppTold { vms: vec![vm(1)], ..db(&[2]) }]);
    tell(&alpha, 3, vec![AppTold { vms: vec![vm(1)], ..db(&[2, 3]) }]);
    let hosts = || alpha.host.fleet_named("db").unwrap().elsewhere().iter().map(|vm| vm.host).collect::<Vec<_>>();
    assert_eq!(hosts(), [2]);
    // Its owner says so.
    tell(&alpha, 2, vec![AppTold { vms: vec![vm(1)], ..db(&[2, 3]) }]);
    assert_eq!(hosts(), [2, 3]);
}

#[test]
fn rules_without_end_leave_those_that_were_there() {
    let alpha = site(&["beta"]);
    web(&alpha);
    let rules = || alpha.host.parts.network.rule_counts().len();
    let before = rules();
    let allow: Vec<String> = (1..=100).map(|app| format!("app-{app}")).collect();
    let service = |port| ServiceTold { port, names: Vec::new(), allow: allow.clone() };
    let services = (1..=32).map(service).collect::<Vec<_>>();
    let told = |place: u32| AppTold {
        services: services.clone(),
        ..app(&format!("app-{place}"), number(2, place), &(1..=16).collect::<Vec<_>>())
    };
    let began = Instant::now();
    tell(&alpha, 2, (1..=100).map(told).collect());
    assert!(began.elapsed() < Duration::from_secs(30));
    assert_eq!(rules(), before);
}
