//! Commands that are asked at one host and answered by VMs of others, whose guests are fakes.

use std::io::{BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::answer::answer;
use crate::api::{Answer, Request, receive, send};
use crate::guest::{Ended, Exec, Message};
use crate::host::mesh_test::{Site, until};
use crate::host::{Host, deploy};

const SERVICE: &str = "[[services]]\nport = 80\n";
const LIMIT: Duration = Duration::from_secs(20);

/// Asks a host; returns the client's end.
fn ask(host: &Arc<Host>, request: &Request) -> UnixStream {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(LIMIT)).unwrap();
    let host = Arc::clone(host);
    thread::spawn(move || answer(&host, &theirs));
    send(&mut ours, request).unwrap();
    ours
}

fn next(stream: &UnixStream) -> Option<Answer> {
    receive(&mut BufReader::with_capacity(1, stream)).unwrap()
}

/// All answers to a command.
fn all(site: &Site, request: &Request) -> Vec<Answer> {
    let stream = ask(&site.host, request);
    std::iter::from_fn(|| next(&stream)).collect()
}

fn refused(site: &Site, request: &Request) -> String {
    match all(site, request).pop() {
        Some(Answer::Refused(why)) => why.to_string(),
        other => panic!("{other:?}"),
    }
}

fn exec(app: &str, vm: Option<u32>, host: Option<&str>) -> Request {
    Request::Exec { app: app.into(), vm, host: host.map(str::to_owned) }
}

fn logs(app: &str, follow: bool) -> Request {
    Request::Logs { app: app.into(), follow }
}

/// Runs a command in a fake, which says what it was told and ends with 7.
fn run(site: &Site, request: &Request) -> String {
    let mut stream = ask(&site.host, request);
    assert_eq!(next(&stream), Some(Answer::Stream), "{request:?}");
    Message::Exec(Box::new(Exec { command: vec!["id".into()], ..Exec::default() })).write(&mut stream).unwrap();
    let output = Message::read(&mut stream).unwrap();
    assert_eq!(Message::read(&mut stream).unwrap(), Some(Message::Ended(Ended::Exited(7))));
    assert_eq!(Message::read(&mut stream).unwrap(), None);
    let Some(Message::Output(output)) = output else { panic!("{output:?}") };
    String::from_utf8(output).unwrap()
}

fn count_of(site: &Site) -> usize {
    let fleet = site.host.fleet_named("web").unwrap();
    fleet.machines().iter().map(|machine| machine.busy()).sum()
}

/// Three hosts, an app `web` with VMs at the first two, and one `own` at the first alone.
fn sites() -> [Site; 3] {
    let alpha = Site::first("alpha");
    let sites = [alpha.invite("beta"), alpha.invite("gamma")];
    let [beta, gamma] = sites;
    let all = [alpha, beta, gamma];
    until("all hosts", || all.iter().all(|site| site.alive().len() == 3));
    let web = format!("name = \"web\"\nimage = \"aa\"\nhosts = {{ alpha = 1, beta = 2 }}\n{SERVICE}");
    for text in [web.as_str(), "name = \"own\"\nimage = \"aa\"\n"] {
        deploy(&all[0].host, text, "app.toml", all[0].home.path(), false, &|_| {}).unwrap();
    }
    let is_known = |site: &Site| site.host.fleet_named("web").is_some_and(|fleet| fleet.ways().len() == 3);
    until("the VMs at all hosts", || all.iter().all(is_known));
    until("the other app", || {
        all.iter().all(|site| site.host.fleet_named("own").is_some_and(|own| own.ways().len() == 1))
    });
    all
}

/// As if a VM had said so.
fn say(site: &Site, vm: u32, text: &str) {
    let folder = site.host.parts.folder.logs("web");
    std::fs::create_dir_all(&folder).unwrap();
    let file = std::fs::File::options().create(true).append(true).open(folder.join(format!("{vm}.log")));
    file.unwrap().write_all(text.as_bytes()).unwrap();
}

fn line(host: &str, vm: u32, line: &str) -> Answer {
    Answer::Log { vm, host: Some(host.into()), line: line.into() }
}

#[test]
fn a_command_runs_in_the_vm_that_is_meant_wherever_it_is_asked() {
    let [alpha, beta, gamma] = sites();
    // Of its own VMs first; a host without any asks another one.
    for (site, request) in [
        (&alpha, exec("web", None, None)),
        (&alpha, exec("web", Some(2), None)),
        (&alpha, exec("web", Some(1), Some("beta"))),
        (&beta, exec("web", None, Some("alpha"))),
        (&gamma, exec("web", None, None)),
        (&gamma, exec("own", Some(1), None)),
    ] {
        assert_eq!(run(site, &request), "id", "{request:?}");
    }
    // A VM is in use as long as a command runs in it, whoever has asked.
    let stream = ask(&gamma.host, &exec("web", Some(2), Some("beta")));
    assert_eq!((next(&stream), count_of(&beta), count_of(&alpha)), (Some(Answer::Stream), 1, 0));
    drop(stream);
    until("its end", || count_of(&beta) == 0);
    for (site, request, why) in [
        (&gamma, exec("web", Some(1), None), "there is such a VM of web at several hosts: alpha, beta"),
        (&alpha, exec("web", Some(3), None), "web has no VM 3"),
        (&alpha, exec("web", Some(3), Some("beta")), "beta has no VM 3 of web"),
        (&alpha, exec("web", None, Some("gamma")), "gamma has no VM that takes connections of web"),
        (&alpha, exec("web", None, Some("delta")), "there is no host delta"),
        (&gamma, exec("other", None, None), "there is no app other"),
    ] {
        let told = refused(site, &request);
        assert!(told.contains(why), "{why}: {told}");
    }
}

#[test]
fn a_port_of_an_app_is_reached_from_every_host_if_it_is_one_of_a_service() {
    let [alpha, _beta, gamma] = sites();
    let connect = |app: &str, port| Request::Connect { app: app.into(), port };
    for _ in 0..4 {
        let mut stream = ask(&gamma.host, &connect("web", 80));
        assert_eq!(next(&stream), Some(Answer::Stream));
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("release 1"), "{answer}");
    }
    let told = refused(&gamma, &connect("web", 22));
    assert!(told.contains("web has no service at port 22") && told.contains("services alone are reached"), "{told}");
    // At its own host, any port.
    assert_eq!(next(&ask(&alpha.host, &connect("own", 22))), Some(Answer::Stream));
}

#[test]
fn logs_of_all_hosts_are_told_and_followed_at_any_of_them() {
    let [alpha, beta, gamma] = sites();
    say(&alpha, 1, "one\n");
    say(&beta, 2, "two\x1b[2J\n");
    for site in [&alpha, &beta, &gamma] {
        let mut told = all(site, &logs("web", false));
        assert_eq!(told.pop(), Some(Answer::Done(serde_json::Value::Null)));
        told.sort_by_key(|answer| format!("{answer:?}"));
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told.contains(&line("alpha", 1, "one")) && told.contains(&line("beta", 2, "two\u{fffd}[2J")),
            "{told:?}"
        );
    }
    let followed = ask(&gamma.host, &logs("web", true));
    (0..2).for_each(|_| assert!(matches!(next(&followed), Some(Answer::Log { .. }))));
    say(&beta, 1, "three\n");
    assert_eq!(next(&followed), Some(line("beta", 1, "three")));
    assert!(refused(&gamma, &logs("other", false)).contains("there is no app other"));
}

#[test]
fn a_host_that_dies_in_the_middle_is_named() {
    let [alpha, beta, gamma] = sites();
    say(&alpha, 1, "one\n");
    let followed = ask(&alpha.host, &logs("web", true));
    assert_eq!(next(&followed), Some(line("alpha", 1, "one")));
    let mut command = ask(&gamma.host, &exec("web", Some(2), None));
    assert_eq!(next(&command), Some(Answer::Stream));
    beta.end();
    // What ends is seen by the end, and those who follow go on with the others.
    let mut rest = Vec::new();
    command.read_to_end(&mut rest).unwrap();
    let told = next(&followed);
    assert!(matches!(&told, Some(Answer::Progress(why)) if why.contains("VMs at beta")), "{told:?}");
    say(&alpha, 1, "two\n");
    assert_eq!(next(&followed), Some(line("alpha", 1, "two")));
    until("the death", || alpha.alive().len() == 2 && gamma.alive().len() == 2);
    let told = all(&alpha, &logs("web", false));
    assert!(told.contains(&line("alpha", 1, "two")), "{told:?}");
    assert!(
        matches!(told.last(), Some(Answer::Refused(why)) if why.message.contains("beta have said is here: it is dead"))
    );
    assert!(refused(&gamma, &exec("web", None, Some("beta"))).contains("the host beta is dead"));
    assert_eq!(run(&gamma, &exec("web", None, None)), "id");
}
