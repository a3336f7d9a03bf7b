//! What has come of a copy and is no part of it yet, streams that hang, and VMs that sleep or have ended.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::super::host_test::Bench;
use super::super::scale;
use super::files::{Part, Source};
use super::frames::{Link, Offer};
use super::replica_test::{Near, files, pass, read, replicated, said, sent, take, tidy, volume, write};
use super::replicate::Replicator;
use super::send::Sent;
use super::{promote, receive, sweep};
use crate::lines::{Hidden, send as say};
use crate::machine::Phase;

/// A copy at the second host, with the byte 1 in it.
fn copied() -> (Bench, Bench) {
    let (alpha, beta) = (Bench::new(), Bench::new());
    alpha.deploy(&replicated("4M")).unwrap();
    write(&alpha, 0, &[1; 4096]);
    take(&alpha);
    sent(&alpha, &beta).unwrap();
    (alpha, beta)
}

/// What the first host says of its volume, if there are so many snapshots.
fn offer(alpha: &Bench, app: &str, files: u32) -> Vec<u8> {
    let chain = (1..=files).map(|file| Link { file, created: 1, size: 4 << 20, stays: false }).collect();
    let key = alpha.host.parts.secrets.volume_key_text("web", "data").unwrap();
    let offer = Offer { app: app.into(), volume: "data".into(), generation: 0, size: 4 << 20, chain, key };
    let mut bytes = Vec::new();
    say(&mut bytes, &offer).unwrap();
    bytes
}

#[test]
fn a_promotion_ends_a_stream_that_hangs_and_the_other_host_hears_of_it() {
    let (alpha, beta) = copied();
    write(&alpha, 0, &[2; 4096]);
    take(&alpha);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let host = Arc::clone(&beta.host);
    let taking = thread::spawn(move || receive(&host, "alpha", &theirs));
    std::io::Write::write_all(&mut &ours, &offer(&alpha, "web", 2)).unwrap();
    let (mut lines, mut answer) = (BufReader::new(&ours), String::new());
    lines.read_line(&mut answer).unwrap();
    assert!(answer.contains("has") && !taking.is_finished(), "{answer}");
    assert!(sent(&alpha, &beta).unwrap_err().message.contains("is being received already"));
    let began = Instant::now();
    assert_eq!(promote(&beta.host, "web", "data").unwrap(), (1, 1));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    taking.join().unwrap();
    answer.clear();
    assert_eq!(lines.read_line(&mut answer).unwrap(), 0, "{answer}");
    assert_eq!((read(&beta, "web", 0), sent(&alpha, &beta).unwrap()), (1, Sent::Promoted(1)));
}

#[test]
fn a_copy_takes_what_a_promoted_one_has_in_place_of_what_the_first_host_has_written_under_the_same_numbers() {
    let (alpha, beta) = copied();
    let gamma = Bench::new();
    write(&alpha, 0, &[2; 4096]);
    assert_eq!((take(&alpha), sent(&alpha, &gamma).unwrap()), (2, Sent::Done(2)));
    write(&alpha, 0, &[3; 4096]);
    assert_eq!((take(&alpha), sent(&alpha, &gamma).unwrap(), read(&gamma, "web", 0)), (3, Sent::Done(3), 3));
    promote(&beta.host, "web", "data").unwrap();
    beta.deploy(&volume("size = \"4M\"")).unwrap();
    write(&beta, 0, &[9; 4096]);
    assert_eq!((take(&beta), sent(&beta, &gamma).unwrap(), read(&gamma, "web", 0)), (2, Sent::Done(2), 9));
    tidy(&gamma);
    assert_eq!(read(&gamma, "web", 0), 9);
    assert!(files(&gamma, "web").iter().all(|name| name.ends_with(".vol")), "{:?}", files(&gamma, "web"));
    write(&beta, 0, &[10; 4096]);
    assert_eq!((take(&beta), sent(&beta, &gamma).unwrap(), read(&gamma, "web", 0)), (3, Sent::Done(3), 10));
    assert_eq!(promote(&gamma.host, "web", "data").unwrap().0, 2);
    assert_eq!(read(&gamma, "web", 0), 10);
}

#[test]
fn files_that_never_come_whole_are_bounded_for_each_host_and_go_after_a_day() {
    let (alpha, beta) = copied();
    let folder = beta.host.parts.folder.volumes();
    let now = SystemTime::now();
    let part = |name: &str, age: u64| {
        let file = File::create(folder.join(name)).unwrap();
        file.set_modified(now - Duration::from_secs(age)).unwrap();
    };
    (0..300).for_each(|number| part(&format!("a{number}.data.1.alpha.aa-1.part"), 1000 + number));
    part("web.data.9.alpha.aa-1.part", 5);
    part("web.data.2.gamma.arrived", 5);
    part("b.alpha.1.gamma.aa-1.part", 5);
    part("c.data.1.gamma.arrived", 100_000);
    let answer =
        said(&beta, "alpha", &[offer(&alpha, "web", 2), b"{\"file\":2,\"len\":9,\"tag\":\"ab\"}\n".into()].concat());
    assert!(answer.contains("in the middle of a file"), "{answer}");
    let mut of = BTreeMap::<String, Vec<String>>::new();
    for name in (0..300).flat_map(|number| files(&beta, &format!("a{number}"))) {
        of.entry("alpha".into()).or_default().push(name);
    }
    assert_eq!(of["alpha"].len(), 255, "with the new one, there are as many as there may be");
    assert!(of["alpha"].contains(&"a0.data.1.alpha.aa-1.part".to_owned()) && files(&beta, "a299").is_empty());
    let unfinished: Vec<String> = files(&beta, "web").into_iter().filter(|name| !name.ends_with(".vol")).collect();
    assert_eq!(unfinished, ["web.data.2.alpha.ab.part"]);
    sweep(&beta.host);
    assert_eq!((files(&beta, "b").len(), files(&beta, "c").len()), (1, 0), "those of another host stay for a day");
}

#[test]
fn the_key_of_a_volume_that_never_comes_is_not_kept() {
    let (alpha, beta) = copied();
    let answer = said(&beta, "alpha", &offer(&alpha, "other", 1));
    assert!(answer.contains("the stream ends before a file"), "{answer}");
    assert!(beta.host.parts.secrets.volume_key("other", "data", false).is_err());
    assert!(beta.host.parts.secrets.check_volume_key("web", "data", &Hidden("07".repeat(32)), true).is_err());
}

#[test]
fn a_file_that_is_another_one_with_the_same_number_and_length_is_sent_from_its_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let (path, part) = (folder.path().join("web.data.1.vol"), folder.path().join("part"));
    let fill = |byte: u8| {
        let file = File::options().create(true).truncate(false).write(true).open(&path).unwrap();
        (0..40).for_each(|at| file.write_all_at(&vec![byte; 1 << 20], at << 20).unwrap());
        file.sync_all().unwrap();
        Source::open(&path, 1).unwrap()
    };
    let before = fill(1);
    let mut coming = Part::open(part.with_extension(&before.head.tag), before.head.clone()).unwrap();
    let _ = before.pieces(
        0,
        |at, bytes| if at < 24 << 20 { coming.put(at, bytes) } else { Err(crate::fault::Fault::new("cut")) },
    );
    drop(coming);
    let again = Part::open(part.with_extension(&before.head.tag), before.head.clone()).unwrap();
    assert_eq!(again.from(), 16 << 20, "the same one goes on");
    thread::sleep(Duration::from_millis(20));
    let after = fill(2);
    assert_eq!((after.head.file, after.head.len), (before.head.file, before.head.len));
    let mut coming = Part::open(part.with_extension(&after.head.tag), after.head.clone()).unwrap();
    after.pieces(coming.from(), |at, bytes| coming.put(at, bytes)).unwrap();
    let whole = folder.path().join("whole");
    coming.end(&whole).unwrap();
    assert!(std::fs::read(whole).unwrap().iter().all(|byte| *byte == 2));
}

#[test]
fn what_a_vm_wrote_before_it_slept_or_ended_is_sent_and_it_is_not_woken_for_nothing() {
    let (alpha, beta) = (Bench::new(), Bench::new());
    let volume = "[[volumes]]\nname = \"data\"\npath = \"/data\"\nsize = \"4M\"\nreplicate = { to = \"beta\", every = \"2s\" }\n";
    alpha.deploy(&(Bench::text("", "idle = \"1s\"") + volume)).unwrap();
    let mut replicator = Replicator::new(&alpha.host, Arc::new(Near(Arc::clone(&beta.host))));
    let sleeps = || alpha.until("sleep", || alpha.phases() == [Phase::Suspended]);
    write(&alpha, 0, &[1; 4096]);
    pass(&mut replicator, 0);
    assert_eq!(read(&beta, "web", 0), 1);
    sleeps();
    write(&alpha, 0, &[2; 4096]);
    pass(&mut replicator, 10);
    assert_eq!(read(&beta, "web", 0), 2);
    sleeps();
    pass(&mut replicator, 20);
    assert_eq!(alpha.phases(), [Phase::Suspended], "nothing was written");
    scale(&alpha.host, "web", 0, &|_| {}).unwrap();
    write(&alpha, 0, &[3; 4096]);
    pass(&mut replicator, 30);
    assert_eq!((read(&beta, "web", 0), alpha.host.trouble("web", "data")), (3, None));
}
