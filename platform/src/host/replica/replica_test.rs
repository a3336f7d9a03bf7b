//! A volume of one host, and its copy at another one, with guests that are fakes and streams that lie.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use vmcell::DiskConfig;
use vmcell::volume::{Volume, VolumeOptions};

use super::super::host_test::Bench;
use super::super::schedule::Moment;
use super::super::upkeep::Tidier;
use super::super::{destroy, remove, restore, snapshot};
use super::frames::{Answer, Link, Offer};
use super::replicate::{Replicator, To};
use super::send::{Sent, send};
use super::{Follower, promote, receive};
use crate::fault::{Fault, Result};
use crate::lines::{Hidden, send as say};
use crate::machine::Phase;
use crate::state::MadeBy;

#[path = "../../../../tests/support/plain.rs"]
mod plain;

use plain::Plain;

const MIB: u64 = 1 << 20;

pub(super) fn volume(more: &str) -> String {
    Bench::text("", "") + &format!("[[volumes]]\nname = \"data\"\npath = \"/data\"\n{more}\n")
}

pub(super) fn replicated(size: &str) -> String {
    volume(&format!("size = \"{size}\"\nreplicate = {{ to = \"beta\", every = \"2s\" }}"))
}

/// Writes a byte to a volume that no VM has, as the guest does.
pub(super) fn write(bench: &Bench, at: u64, bytes: &[u8]) {
    let (file, key) = bench.host.volumes().opened("web", "data").unwrap();
    let mut disk = Plain::new(Volume::open(file, &key).unwrap().into_backend());
    for (piece, number) in bytes.chunks(MIB as usize).zip(0..) {
        disk.write(at + number * MIB, piece).unwrap();
    }
    disk.flush().unwrap();
}

/// What the newest file of a volume has at some place, whether it is a copy or not.
pub(super) fn read(bench: &Bench, app: &str, at: u64) -> u8 {
    let row = bench.host.parts.state.volume(app, "data").unwrap().unwrap();
    let mut disk = DiskConfig::new(bench.host.volumes().file(app, "data", row.file));
    disk.read_only = true;
    let key = bench.host.parts.secrets.volume_key(app, "data", false).unwrap();
    let mut disk = Plain::new(Volume::open_with(VolumeOptions::new(disk), &key).unwrap().into_backend());
    let bytes = disk.read(at, 4096).unwrap();
    assert!(bytes.iter().all(|byte| *byte == bytes[0]));
    bytes[0]
}

/// Passes bytes on, and may change them on their way, or end it.
fn between(change: impl FnMut(usize, &mut [u8]) -> bool + Send + 'static) -> (UnixStream, UnixStream) {
    let ((ours, mut near), (mut far, theirs)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
    let (mut back_from, mut back_to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
    thread::spawn(move || {
        let _ = std::io::copy(&mut back_from, &mut back_to);
        let _ = back_to.shutdown(Shutdown::Write);
    });
    let mut change = change;
    thread::spawn(move || {
        let (mut room, mut passed) = (vec![0; 64 << 10], 0);
        while let Ok(read) = near.read(&mut room)
            && read > 0
        {
            let piece = &mut room[..read];
            if !change(passed, piece) || far.write_all(piece).is_err() {
                break;
            }
            passed += read;
        }
        let (_, _) = (far.shutdown(Shutdown::Both), near.shutdown(Shutdown::Both));
    });
    (ours, theirs)
}

fn send_by(alpha: &Bench, beta: &Bench, ours: UnixStream, theirs: UnixStream) -> Result<Sent> {
    let host = Arc::clone(&beta.host);
    let taking = thread::spawn(move || receive(&host, "alpha", &theirs));
    let generation = alpha.host.parts.state.generation("web", "data").unwrap();
    let sent = send(&alpha.host.volumes(), "web", "data", generation, &ours);
    drop(ours);
    taking.join().unwrap();
    sent
}

pub(super) fn sent(alpha: &Bench, beta: &Bench) -> Result<Sent> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    send_by(alpha, beta, ours, theirs)
}

pub(super) fn take(bench: &Bench) -> u32 {
    bench.host.volumes().snapshot("web", "data", MadeBy::Replication, None).unwrap()
}

pub(super) fn files(bench: &Bench, app: &str) -> BTreeSet<String> {
    let names = std::fs::read_dir(bench.host.parts.folder.volumes()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(&format!("{app}."))).collect()
}

pub(super) fn tidy(bench: &Bench) {
    let mut tidier = Tidier::new(&bench.host);
    (0..20).for_each(|_| tidier.pass(Duration::ZERO, &|| true));
    assert_eq!(bench.host.trouble("web", "data"), None);
}

#[test]
fn a_copy_has_what_was_sent_and_only_what_has_changed_is_sent_again() {
    let (alpha, beta) = (Bench::new(), Bench::new());
    alpha.deploy(&replicated("64M")).unwrap();
    write(&alpha, 0, &vec![7; 4 << 20]);
    assert!(sent(&alpha, &beta).unwrap_err().message.contains("has no snapshot to send"));
    let first = take(&alpha);
    assert_eq!(sent(&alpha, &beta).unwrap(), Sent::Done(first));
    assert_eq!((read(&beta, "web", 0), read(&beta, "web", 1023 * 4096)), (7, 7));
    write(&alpha, 8192, &[8; 4096]);
    let second = take(&alpha);
    let counted = Arc::new(Mutex::new(0));
    let counts = Arc::clone(&counted);
    let (ours, theirs) = between(move |_, piece| {
        *counts.lock().unwrap() += piece.len();
        true
    });
    assert_eq!(send_by(&alpha, &beta, ours, theirs).unwrap(), Sent::Done(second));
    let bytes = *counted.lock().unwrap();
    assert!(bytes < 2 << 20, "{bytes} bytes were sent of a volume with 4 MiB");
    assert_eq!((read(&beta, "web", 0), read(&beta, "web", 8192)), (7, 8));
    // The same once more changes nothing.
    assert_eq!(sent(&alpha, &beta).unwrap(), Sent::Done(second));
    let told = beta.host.volumes().list("web").unwrap().remove(0);
    assert_eq!((told.size, told.copy_of.unwrap().host.as_str()), (64 << 20, "alpha"));
}

#[test]
fn a_stream_that_is_cut_anywhere_leaves_the_last_copy_and_goes_on_later() {
    let (alpha, beta) = (Bench::new(), Bench::new());
    alpha.deploy(&replicated("64M")).unwrap();
    write(&alpha, 0, &[1; 4096]);
    take(&alpha);
    sent(&alpha, &beta).unwrap();
    for at in 0..40_u64 {
        write(&alpha, at * MIB, &vec![2; MIB as usize]);
    }
    let newest = take(&alpha);
    let mut cuts = vec![0, 10, 300, 900, 5_000, 300_000];
    // In the end, so much is there that most need not come again.
    cuts.extend([20 << 20, 20 << 20]);
    for cut in cuts {
        let (ours, theirs) = between(move |passed, piece| passed + piece.len() <= cut);
        send_by(&alpha, &beta, ours, theirs).unwrap_err();
        assert_eq!(read(&beta, "web", 0), 1, "after {cut}");
        assert_eq!(beta.host.parts.state.volume("web", "data").unwrap().unwrap().file, 1);
    }
    let counted = Arc::new(Mutex::new(0));
    let counts = Arc::clone(&counted);
    let (ours, theirs) = between(move |_, piece| {
        *counts.lock().unwrap() += piece.len();
        true
    });
    assert_eq!(send_by(&alpha, &beta, ours, theirs).unwrap(), Sent::Done(newest));
    let bytes = *counted.lock().unwrap();
    assert!(bytes < 30 << 20, "{bytes} bytes were sent, although 16 MiB were there");
    assert_eq!((read(&beta, "web", 0), read(&beta, "web", 39 * MIB)), (2, 2));
    assert!(files(&beta, "web").iter().all(|name| name.ends_with(".vol")), "{:?}", files(&beta, "web"));
}

#[test]
fn a_stream_with_a_byte_that_is_another_is_refused_and_the_next_one_taken() {
    let (alpha, beta) = (Bench::new(), Bench::new());
    alpha.deploy(&replicated("4M")).unwrap();
    write(&alpha, 0, &[1; 4096]);
    take(&alpha);
    sent(&alpha, &beta).unwrap();
    write(&alpha, 0, &[3; 4096]);
    let newest = take(&alpha);
    // In the pieces: what is said around them, the link between hosts keeps whole.
    for at in [2_000_usize, 9_000, 40_000, 200_000] {
        let (ours, theirs) = between(move |passed, piece| {
            if let Some(byte) = at.checked_sub(passed).and_then(|at| piece.get_mut(at)) {
                *byte ^= 0x10;
            }
            true
        });
        let result = send_by(&alpha, &beta, ours, theirs);
        assert!(result.is_err(), "{at}: {result:?}");
        assert_eq!(beta.host.parts.state.volume("web", "data").unwrap().unwrap().file, 1, "{at}");
        read(&beta, "web", 0);
    }
    assert_eq!(sent(&alpha, &beta).unwrap(), Sent::Done(newest));
    assert_eq!(read(&beta, "web", 0), 3);
}

/// What a host answers to bytes that nobody should send.
pub(super) fn said(beta: &Bench, from: &str, bytes: &[u8]) -> String {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let (host, from) = (Arc::clone(&beta.host), from.to_owned());
    let taking = thread::spawn(move || receive(&host, &from, &theirs));
    let _ = ours.write_all(bytes);
    let _ = ours.shutdown(Shutdown::Write);
    let mut answer = String::new();
    let _ = ours.read_to_string(&mut answer);
    taking.join().unwrap();
    answer
}

#[test]
fn lies_are_refused_and_change_nothing() {
    let (alpha, beta) = (Bench::new(), Bench::new());
    alpha.deploy(&replicated("4M")).unwrap();
    write(&alpha, 0, &[1; 4096]);
    take(&alpha);
    sent(&alpha, &beta).unwrap();
    let before = files(&beta, "web");
    let link = |file| Link { file, created: 1, size: 4 << 20, stays: false };
    let offer = Offer {
        app: "web".into(),
        volume: "data".into(),
        generation: 0,
        size: 4 << 20,
        chain: vec![link(1), link(2)],
        key: alpha.host.parts.secrets.volume_key_text("web", "data").unwrap(),
    };
    let with = |change: &dyn Fn(&mut Offer), rest: &[u8]| {
        let mut offer = offer.clone();
        change(&mut offer);
        let mut bytes = Vec::new();
        say(&mut bytes, &offer).unwrap();
        said(&beta, "alpha", &[&bytes[..], rest].concat())
    };
    let piece = |at: u64, len: u32, bytes: &[u8]| {
        let digest = Sha256::new().chain_update(at.to_be_bytes()).chain_update(bytes).finalize();
        [&at.to_be_bytes()[..], &len.to_be_bytes(), &digest, bytes].concat()
    };
    let head = |text: &str, rest: &[u8]| [text.as_bytes(), b"\n", rest].concat();
    for (answer, why) in [
        (said(&beta, "alpha", b"GET / HTTP/1.1\r\n\r\n"), "a message"),
        (said(&beta, "alpha", b""), "offers nothing"),
        (said(&beta, "alpha", &vec![b' '; 128 << 10]), "has no end"),
        (with(&|offer| offer.app = "../web".into(), b""), "is no name of a volume"),
        (with(&|offer| offer.volume = "a/b".into(), b""), "is no name of a volume"),
        (with(&|offer| offer.chain = vec![], b""), "0 files; allowed are 1 to 32"),
        (with(&|offer| offer.chain = vec![link(2), link(1)], b""), "each with a larger number"),
        (with(&|offer| offer.chain = (1..40).map(link).collect(), b""), "39 files"),
        (with(&|offer| offer.size = u64::MAX, b""), "bytes; allowed are"),
        (with(&|offer| offer.app = "other".into(), b""), "the stream ends before a file"),
        (with(&|offer| (offer.app, offer.key) = ("third".into(), Hidden("07".into())), b""), "is no key"),
        (with(&|offer| offer.key = Hidden("09".repeat(32)), b""), "has another key"),
        (with(&|_| {}, b""), "the stream ends before a file"),
        (with(&|_| {}, &head("{\"file\":3,\"len\":1,\"tag\":\"a\"}", b"")), "expected is file 2"),
        (with(&|_| {}, &head("{\"file\":2,\"len\":99999999999,\"tag\":\"a\"}", b"")), "expected is file 2 of"),
        (with(&|_| {}, &head("{\"file\":2,\"len\":1,\"tag\":\"../a\"}", b"")), "expected is file 2"),
        (
            with(&|_| {}, &head("{\"file\":2,\"len\":4096,\"tag\":\"a\"}", &piece(0, u32::MAX, b""))),
            "allowed are 1048576",
        ),
        (
            with(&|_| {}, &head("{\"file\":2,\"len\":4096,\"tag\":\"a\"}", &piece(4095, 2, b"xx"))),
            "a piece at byte 4095",
        ),
        (
            with(&|_| {}, &head("{\"file\":2,\"len\":4096,\"tag\":\"a\"}", &piece(u64::MAX, 2, b"xx"))),
            "a piece at byte",
        ),
        (
            with(&|_| {}, &head("{\"file\":2,\"len\":4096,\"tag\":\"a\"}", &piece(0, 9, b"x"))),
            "ends in the middle of a file",
        ),
        (with(&|_| {}, &head("{\"file\":2,\"len\":4096,\"tag\":\"a\"}", &[0; 44])), "another digest"),
        (
            said(&beta, "gamma", &{
                let mut bytes = Vec::new();
                say(&mut bytes, &offer).unwrap();
                bytes
            }),
            "is a copy of that of alpha",
        ),
    ] {
        assert!(answer.contains(why), "{why}: {answer}");
    }
    let after: BTreeSet<String> = files(&beta, "web").into_iter().filter(|name| !name.ends_with(".part")).collect();
    assert_eq!(after, before);
    read(&beta, "web", 0);
    write(&alpha, 0, &[9; 4096]);
    take(&alpha);
    sent(&alpha, &beta).unwrap();
    assert_eq!(read(&beta, "web", 0), 9);
}

#[test]
fn what_was_sent_once_is_not_taken_again_later_and_a_volume_of_the_host_itself_is_not_overwritten() {
    let (alpha, beta) = (Bench::new(), Bench::new());
    alpha.deploy(&replicated("4M")).unwrap();
    write(&alpha, 0, &[1; 4096]);
    take(&alpha);
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    let (ours, theirs) = between(move |_, piece| {
        hears.lock().unwrap().extend_from_slice(piece);
        true
    });
    send_by(&alpha, &beta, ours, theirs).unwrap();
    write(&alpha, 0, &[2; 4096]);
    take(&alpha);
    sent(&alpha, &beta).unwrap();
    let answer = said(&beta, "alpha", &heard.lock().unwrap());
    assert!(answer.contains("snapshot 1 of web data; 2 is here already"), "{answer}");
    assert_eq!(read(&beta, "web", 0), 2);
    let own = Bench::new();
    own.deploy(&volume("size = \"4M\"")).unwrap();
    assert!(sent(&alpha, &own).unwrap_err().message.contains("has a volume data here that is no copy"));
}

#[test]
fn a_copy_is_not_written_to_until_it_is_promoted_and_then_takes_nothing_from_before() {
    let (alpha, beta) = (Bench::new(), Bench::new());
    alpha.deploy(&replicated("4M")).unwrap();
    write(&alpha, 0, &[1; 4096]);
    take(&alpha);
    sent(&alpha, &beta).unwrap();
    for fault in [
        beta.deploy(&volume("size = \"4M\"")).unwrap_err(),
        snapshot(&beta.host, "web", "data").unwrap_err(),
        beta.host.volumes().opened("web", "data").unwrap_err(),
        beta.host.volumes().extend("web", "data", 8 << 20, None).unwrap_err(),
    ] {
        assert!(fault.message.contains("is a copy of that of alpha"), "{fault}");
        assert!(fault.next.unwrap().contains("cell volumes promote web data"));
    }
    assert!(promote(&beta.host, "web", "date").unwrap_err().message.contains("no copy of a volume date"));
    assert_eq!(promote(&beta.host, "web", "data").unwrap(), (1, 1));
    assert!(promote(&beta.host, "web", "data").unwrap_err().message.contains("no copy"));
    beta.deploy(&volume("size = \"4M\"")).unwrap();
    write(&beta, 0, &[5; 4096]);
    // The old one comes back, and is told.
    write(&alpha, 0, &[2; 4096]);
    take(&alpha);
    assert_eq!(sent(&alpha, &beta).unwrap(), Sent::Promoted(1));
    let mut replicator = Replicator::new(&alpha.host, Arc::new(Near(Arc::clone(&beta.host))));
    pass(&mut replicator, 0);
    let trouble = alpha.host.trouble("web", "data").unwrap();
    assert!(trouble.contains("the copy at beta was promoted (generation 1)"), "{trouble}");
    assert_eq!(read(&beta, "web", 0), 5);
    // And remembers it, also if nobody is there to say so.
    let mut alone = Replicator::new(&alpha.host, Arc::new(super::Nowhere));
    pass(&mut alone, 0);
    assert_eq!(alpha.host.trouble("web", "data").unwrap(), trouble);
}

/// Another host in the same process.
pub(super) struct Near(pub Arc<super::super::apps::Host>);

impl To for Near {
    fn open(&self, host: &str) -> Result<UnixStream> {
        if host != "beta" {
            return Err(Fault::new("nobody"));
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        let host = Arc::clone(&self.0);
        thread::spawn(move || receive(&host, "alpha", &theirs));
        Ok(ours)
    }
}

pub(super) fn pass(replicator: &mut Replicator, seconds: u64) {
    replicator.pass(Moment { wall: 1_000_000 + seconds, running: Duration::from_secs(seconds) });
    let began = Instant::now();
    while !replicator.is_idle() {
        assert!(began.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_volume_that_is_written_to_for_long_has_a_copy_that_follows_and_both_have_few_files() {
    let (alpha, beta) = (Bench::new(), Bench::new());
    let text = replicated("4M").replace("replicate", "snapshots = { every = \"10s\", keep = \"30s\" }\nreplicate");
    alpha.deploy(&text).unwrap();
    let mut replicator = Replicator::new(&alpha.host, Arc::new(Near(Arc::clone(&beta.host))));
    let mut taker = super::super::upkeep::Taker::new(&alpha.host);
    for round in 0..16_u64 {
        write(&alpha, (round % 100) * 4096, &[round as u8; 4096]);
        write(&alpha, 200 * 4096, &[round as u8; 4096]);
        taker.pass(Moment { wall: 1_000_000 + round * 2, running: Duration::from_secs(round * 2) });
        pass(&mut replicator, round * 2);
        assert_eq!(read(&beta, "web", 200 * 4096), round as u8);
        if round % 4 != 3 {
            continue;
        }
        tidy(&alpha);
        tidy(&beta);
        let counts = (files(&alpha, "web").len(), files(&beta, "web").len());
        assert!(counts.0 <= 14 && counts.1 <= 14, "{round}: {counts:?}");
    }
    assert!((0..16).all(|round| read(&beta, "web", round * 4096) == round as u8));
    // Nothing was written: nothing is taken or sent.
    let newest = alpha.host.parts.state.volume("web", "data").unwrap().unwrap().file;
    pass(&mut replicator, 500);
    assert_eq!(alpha.host.parts.state.volume("web", "data").unwrap().unwrap().file, newest);
    let target = alpha.host.parts.state.target("web", "data", "beta").unwrap();
    assert_eq!(target.acknowledged, Some(newest - 1));
    // After a restore, the copy goes back as well.
    let kept = alpha.host.volumes().list("web").unwrap()[0].snapshots[0].snapshot;
    restore(&alpha.host, "web", "data", kept, &|_| {}).unwrap();
    let back = read(&alpha, "web", 200 * 4096);
    write(&alpha, 300 * 4096, &[77; 4096]);
    pass(&mut replicator, 600);
    assert_eq!((read(&beta, "web", 200 * 4096), read(&beta, "web", 300 * 4096)), (back, 77));
    tidy(&beta);
    assert_eq!(alpha.host.trouble("web", "data"), None);
}

#[test]
fn what_the_copy_has_put_together_is_not_sent_again() {
    let (alpha, beta) = (Bench::new(), Bench::new());
    alpha.deploy(&replicated("4M")).unwrap();
    for number in 1..=3_u8 {
        write(&alpha, u64::from(number) * 4096, &[number; 4096]);
        take(&alpha);
    }
    alpha.host.volumes().retire("web", "data", 2).unwrap();
    sent(&alpha, &beta).unwrap();
    let state = &beta.host.parts.state;
    let second = state.snapshots("web", "data").unwrap().into_iter().find(|row| row.file == 2).unwrap();
    assert!(second.is_retired);
    // As after many more of them.
    let volumes = beta.host.volumes();
    let (path, key) =
        (volumes.file("web", "data", 3), beta.host.parts.secrets.volume_key("web", "data", false).unwrap());
    Volume::absorb(&path, &key, path.with_extension("new"), |_| std::ops::ControlFlow::Continue(())).unwrap();
    std::fs::remove_file(volumes.file("web", "data", 2)).unwrap();
    write(&alpha, 4 * 4096, &[4; 4096]);
    take(&alpha);
    sent(&alpha, &beta).unwrap();
    assert!(!volumes.file("web", "data", 2).exists());
    assert!((1..=4).all(|number| read(&beta, "web", number * 4096) == number as u8));
}

#[test]
fn an_app_that_follows_a_copy_is_replaced_when_more_has_come_and_stays_after_a_promotion() {
    let (alpha, beta) = (Bench::new(), Bench::new());
    alpha.deploy(&replicated("4M")).unwrap();
    let reads = volume("replica_of = \"web\"").replace("name = \"web\"", "name = \"reads\"");
    let early = beta.deploy(&reads).unwrap_err();
    assert!(early.message.contains("there is no copy of the volume data of web here"), "{early}");
    write(&alpha, 0, &[1; 4096]);
    take(&alpha);
    sent(&alpha, &beta).unwrap();
    beta.deploy(&reads).unwrap();
    // The fakes open no volumes.
    let opened = || beta.host.volumes().opened("reads", "data").unwrap().0;
    let first = opened();
    assert_eq!(read(&beta, "reads", 0), 1);
    let slot =
        || beta.host.fleet_of("reads").unwrap().machines().iter().map(|machine| machine.plan.slot).collect::<Vec<_>>();
    let mut follower = Follower::new(&beta.host);
    let before = slot();
    follower.pass(Duration::ZERO);
    assert_eq!(slot(), before, "it has all that has come");
    write(&alpha, 0, &[2; 4096]);
    take(&alpha);
    sent(&alpha, &beta).unwrap();
    follower.pass(Duration::ZERO);
    assert_ne!(slot(), before, "another VM took its place");
    assert_eq!(beta.host.fleet_of("reads").unwrap().machines()[0].phase(), Phase::Healthy);
    let second = opened();
    assert!(second != first && !first.exists() && read(&beta, "reads", 0) == 2);
    tidy(&beta);
    for fault in [
        snapshot(&beta.host, "reads", "data").unwrap_err(),
        restore(&beta.host, "reads", "data", 1, &|_| {}).unwrap_err(),
    ] {
        assert!(fault.message.contains("follows that of web") || fault.message.contains("has no snapshot"), "{fault}");
    }
    promote(&beta.host, "web", "data").unwrap();
    beta.deploy(&volume("size = \"4M\"")).unwrap();
    write(&beta, 0, &[3; 4096]);
    opened();
    assert_eq!(read(&beta, "reads", 0), 2, "up to the last snapshot");
    remove(&beta.host, "web", "data", 2).unwrap_or_else(|why| panic!("{why}"));
    destroy(&beta.host, "reads", &|_| {}).unwrap();
    assert!(files(&beta, "reads").is_empty() && beta.host.volumes().list("reads").unwrap().is_empty());
}

#[test]
fn answers_are_read_as_they_are_said() {
    for answer in [Answer::Has(vec![1, 2]), Answer::From(7), Answer::Promoted(3), Answer::Refused(Fault::new("no"))] {
        let text = serde_json::to_string(&answer).unwrap();
        assert_eq!(serde_json::from_str::<Answer>(&text).unwrap(), answer);
    }
}
