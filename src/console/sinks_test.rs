//! Sinks that fail, several at once, and the pair of halves.

use std::io::{Read, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::rig_test::{LIMIT, Port, until};
use super::*;
use crate::logging::{LogRecord, Logger};
use crate::sys::Attempt;

/// Storage that is full until it is told otherwise.
struct Storage {
    has_room: Arc<AtomicBool>,
    refusals: Arc<AtomicU32>,
    taken: std::sync::mpsc::Sender<Vec<u8>>,
}

impl Target for Storage {
    fn attempt(&mut self, _: &[u8]) -> std::io::Result<Attempt> {
        Ok(Attempt::MayWait)
    }

    fn take_waiting(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if !self.has_room.load(Ordering::SeqCst) {
            self.refusals.fetch_add(1, Ordering::SeqCst);
            return Err(std::io::Error::from_raw_os_error(libc::ENOSPC));
        }
        self.taken.send(bytes.to_vec()).unwrap();
        Ok(bytes.len())
    }

    fn polled(&self) -> Option<&Arc<std::fs::File>> {
        None
    }

    fn keeps(&self) -> bool {
        true
    }

    fn ends_with_guest(&self) -> bool {
        true
    }
}

/// A file that cannot be renamed each time.
struct Unrotated;

impl Target for Unrotated {
    fn attempt(&mut self, _: &[u8]) -> std::io::Result<Attempt> {
        Ok(Attempt::MayWait)
    }

    fn take_waiting(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn polled(&self) -> Option<&Arc<std::fs::File>> {
        None
    }

    fn keeps(&self) -> bool {
        true
    }

    fn ends_with_guest(&self) -> bool {
        true
    }

    fn trouble(&mut self) -> Option<std::io::Error> {
        Some(std::io::Error::from_raw_os_error(libc::EACCES))
    }
}

/// What was said.
type Heard = Arc<Mutex<Vec<String>>>;

fn voice() -> (Voice, Heard) {
    let heard = Heard::default();
    let hears = Arc::clone(&heard);
    let call = move |record: &LogRecord<'_>| hears.lock().unwrap().push(record.to_string());
    (Logger::new("web".into(), Some(Box::new(call))).about("console"), heard)
}

/// A sink named `log` on a thread of its own.
fn sink_on(target: impl Target) -> (OutputBuffer, Heard, Membership) {
    let (voice, heard) = voice();
    let output = OutputBuffer::new().unwrap();
    let serial = Arc::new(Serial::new(output.clone()).unwrap());
    let sink = Sink::new(Box::new(target), output.reader("log"), "log".to_owned(), voice);
    let losses = Losses::new(&output, Voice::default());
    let pump = Pump::new(Sinks::new(vec![sink], &serial, &output).unwrap(), Vec::new(), &serial, losses).unwrap();
    let membership = IoThread::new("console-test").unwrap().add(Box::new(pump)).unwrap();
    (output, heard, membership)
}

#[test]
fn a_source_that_cannot_be_read_is_told() {
    let folder = std::fs::File::open(std::env::temp_dir()).unwrap();
    let name = format!("descriptor {}", folder.as_raw_fd());
    let output = OutputBuffer::new().unwrap();
    let serial = Arc::new(Serial::new(output.clone()).unwrap());
    let (voice, heard) = voice();
    let console = Console::descriptors(std::fs::File::create("/dev/null").unwrap().into(), Some(folder.into()));
    let thread = IoThread::new("console-test").unwrap();
    let _membership = console.connect(&serial, &output, &thread, voice).unwrap();
    until("it is told", || !heard.lock().unwrap().is_empty());
    let told =
        format!("web: console: cannot read the console's input from {name}: Is a directory (os error 21) (1 so far)");
    assert_eq!(*heard.lock().unwrap(), [told]);
}

#[test]
fn a_file_that_cannot_be_renamed_is_told_and_not_each_time() {
    let (output, heard, _membership) = sink_on(Unrotated);
    let status = || ConsoleStatus::of(&output).sinks.remove(0);
    for times in 1..=20 {
        output.clone().write_all(b"x").unwrap();
        until("it is counted", || status().failed_rotations >= times);
    }
    let heard = heard.lock().unwrap();
    assert_eq!(
        heard[0],
        "web: console: cannot begin another file in place of log: Permission denied (os error 13) (1 so far)"
    );
    assert!(heard.len() < 20, "{heard:?}");
}

#[test]
fn a_log_whose_disk_was_full_goes_on_when_there_is_room() {
    let has_room = Arc::new(AtomicBool::new(false));
    let refusals = Arc::new(AtomicU32::new(0));
    let (taken, receive) = channel();
    let (output, heard, _membership) =
        sink_on(Storage { has_room: Arc::clone(&has_room), refusals: Arc::clone(&refusals), taken });
    let status = || ConsoleStatus::of(&output).sinks.remove(0);
    output.clone().write_all(b"kept").unwrap();
    until("it fails", || status().last_error.is_some());
    let error = status().last_error.unwrap();
    let cause = std::error::Error::source(&error).unwrap().downcast_ref::<std::io::Error>();
    assert_eq!(cause.unwrap().raw_os_error(), Some(libc::ENOSPC));
    assert_eq!((status().waiting, status().lost), (4, 0));
    until("it was tried again", || refusals.load(Ordering::SeqCst) > 1);
    has_room.store(true, Ordering::SeqCst);
    assert_eq!(receive.recv_timeout(LIMIT).unwrap(), b"kept");
    output.clone().write_all(b" and on").unwrap();
    assert_eq!(receive.recv_timeout(LIMIT).unwrap(), b" and on");
    until("it is counted", || status().delivered == 11);
    assert_eq!((status().lost, status().dropped), (0, 0));
    let told = "web: console: cannot write the console's output to log: No space left on device (os error 28)";
    assert_eq!(*heard.lock().unwrap(), [told]);
}

#[test]
fn a_log_whose_disk_is_full_when_the_guest_ends_is_tried_once_more_and_what_it_kept_is_lost() {
    let refusals = Arc::new(AtomicU32::new(0));
    let (taken, receive) = channel();
    let has_room = Arc::new(AtomicBool::new(false));
    let storage = Storage { has_room: Arc::clone(&has_room), refusals: Arc::clone(&refusals), taken: taken.clone() };
    let (output, _, _membership) = sink_on(storage);
    let status = || ConsoleStatus::of(&output).sinks.remove(0);
    output.clone().write_all(&[b'x'; 5000]).unwrap();
    until("it fails", || status().last_error.is_some());
    assert_eq!((status().waiting, status().lost), (5000, 0));
    output.end();
    output.wait_drained();
    assert_eq!((status().waiting, status().lost, status().delivered), (0, 5000, 0));
    let tried = refusals.load(Ordering::SeqCst);
    assert!(tried >= 2, "it was tried {tried} times");
    // Nobody tries again, whatever there is room for.
    has_room.store(true, Ordering::SeqCst);
    output.wait_drained();
    assert!(receive.try_recv().is_err());

    let (output, _, _membership) = sink_on(Storage { has_room: Arc::clone(&has_room), refusals, taken });
    has_room.store(false, Ordering::SeqCst);
    output.clone().write_all(b"kept").unwrap();
    until("it fails", || ConsoleStatus::of(&output).sinks[0].last_error.is_some());
    has_room.store(true, Ordering::SeqCst);
    output.end();
    output.wait_drained();
    assert_eq!(receive.recv_timeout(LIMIT).unwrap(), b"kept", "there is room by then");
    assert_eq!(output.missed(), (0, 0));
}

#[test]
fn what_still_waits_for_a_slow_reader_when_the_vm_is_dropped_is_lost_and_told() {
    let output = OutputBuffer::new().unwrap();
    let serial = Arc::new(Serial::new(output.clone()).unwrap());
    let (voice, heard) = voice();
    let (_slow, writer) = std::io::pipe().unwrap();
    let thread = IoThread::new("console-test").unwrap();
    let membership = Console::descriptors(writer.into(), None).connect(&serial, &output, &thread, voice).unwrap();
    let status = || ConsoleStatus::of(&output).sinks.remove(0);
    output.clone().write_all(&[b'x'; 60_000]).unwrap();
    until("the pipe has it", || status().delivered == 60_000);
    output.clone().write_all(&[b'x'; 40_000]).unwrap();
    assert!(heard.lock().unwrap().is_empty());
    drop(membership);
    let SinkStatus { lost, waiting, delivered, .. } = status();
    assert_eq!((lost, waiting), (100_000 - delivered, 0));
    assert!(lost >= 100_000 - (64 << 10), "a pipe has no more room");
    let told = format!(
        "web: console: 0 bytes of output did not reach a reader because it was too slow, {lost} because it failed"
    );
    assert_eq!(*heard.lock().unwrap(), [told]);
}

#[test]
fn thousands_of_sinks_have_turns_that_end_in_time_and_all_get_everything() {
    let console = (0..2000).fold(Console::none(), |console, _| console.also(Console::callback(|_| {})));
    let thread = IoThread::new("console-test").unwrap();
    thread.measure_turns();
    let port = Port::on(&thread, console);
    for count in 1..=3 {
        port.print(b"x");
        until("all have it", || ConsoleStatus::of(&port.output).sinks.iter().all(|sink| sink.delivered == count));
    }
    // By the CPU's time: one after the other, without a look at the clock, they take a hundred times as long.
    let longest = thread.longest_turn();
    assert!(longest < std::time::Duration::from_millis(20), "a turn took {longest:?}");
}

#[test]
fn a_device_that_is_full_loses_what_it_cannot_keep_and_says_so() {
    let port = Port::new(Console::file("/dev/full"));
    until("bytes are lost", || {
        port.print(&[b'x'; 16 << 10]);
        port.status().lost > 0
    });
    assert_eq!(port.status().name, "/dev/full");
    let error = port.status().last_error.unwrap();
    assert_eq!(error.to_string(), "cannot write the console's output to /dev/full");
    assert!(error.chain().contains("No space left on device"), "{error:?}");
}

#[test]
fn a_callback_that_panics_is_not_called_again_and_its_bytes_are_lost() {
    let mut calls = 0;
    let port = Port::new(Console::callback(move |_| {
        calls += 1;
        assert!(calls < 2, "a callback of the test panics, as it should");
    }));
    port.print(b"one");
    until("it is delivered", || port.status().delivered == 3);
    port.print(b"two");
    until("it is lost", || port.status().lost == 3);
    assert!(port.status().last_error.unwrap().chain().ends_with("the callback panicked, and is not called any more"));
}

#[test]
fn each_of_several_sinks_gets_everything_and_a_stuck_one_holds_up_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let (send, receive) = channel();
    let (_stuck, writer) = std::io::pipe().unwrap();
    let console = Console::descriptors(writer.into(), None)
        .also(Console::file(&path))
        .also(Console::callback(move |bytes| send.send(bytes.to_vec()).unwrap()));
    let mut port = Port::new(console);
    let text: Vec<u8> = (0..400_000u32).map(|n| b'a' + (n % 26) as u8).collect();
    let mut seen = Vec::new();
    for piece in text.chunks(8000) {
        port.print(piece);
        until("both have it", || {
            seen.extend(receive.try_iter().flatten());
            let status = ConsoleStatus::of(&port.output);
            status.sinks[1].waiting == 0 && status.sinks[2].waiting == 0
        });
    }
    seen.extend(receive.try_iter().flatten());
    assert!(seen == text && std::fs::read(&path).unwrap() == text);
    let status = ConsoleStatus::of(&port.output);
    assert_eq!(status.sinks.iter().map(|sink| sink.dropped + sink.lost).collect::<Vec<_>>()[1..], [0, 0]);
    assert!(status.sinks[0].dropped > 200_000 && status.dropped() == status.sinks[0].dropped, "{status:?}");
    port.ends_soon("three sinks");
}

#[test]
fn several_sources_type_into_one_console() {
    let (first, mut one) = std::io::pipe().unwrap();
    let (second, mut two) = std::io::pipe().unwrap();
    let null = || std::fs::File::create("/dev/null").unwrap().into();
    let console =
        Console::descriptors(null(), Some(first.into())).also(Console::descriptors(null(), Some(second.into())));
    let port = Port::new(console);
    one.write_all(b"one").unwrap();
    assert_eq!(port.typed(3), b"one");
    two.write_all(b"two").unwrap();
    assert_eq!(port.typed(3), b"two");
}

#[test]
fn a_pair_reads_and_types_and_ends_with_the_guest() {
    let (console, mut reader, mut writer) = Console::pair().unwrap();
    let port = Port::new(console);
    port.print(b"login: ");
    let mut bytes = [0; 7];
    reader.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"login: ");
    writer.write_all(b"root").unwrap();
    assert_eq!(port.typed(4), b"root");
    reader.set_nonblocking(true).unwrap();
    assert_eq!(reader.read(&mut bytes).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    reader.set_nonblocking(false).unwrap();
    port.print(b"bye");
    port.output.end();
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "bye");
    until("there is nobody to type to", || writer.write(b"x").is_err());
    assert_eq!(writer.write(b"x").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
}

#[test]
fn a_pair_ends_when_the_vm_is_dropped_and_a_vm_does_without_either_half() {
    let (console, mut reader, writer) = Console::pair().unwrap();
    let mut port = Port::new(console);
    port.ends_soon("a pair");
    assert_eq!(reader.read(&mut [0; 4]).unwrap(), 0);
    drop((port, reader, writer));

    let (console, reader, writer) = Console::pair().unwrap();
    let mut port = Port::new(console);
    drop((reader, writer));
    port.print(b"for nobody");
    until("it is lost", || port.status().lost == 10);
    port.serves_others("a pair");
    port.ends_soon("a pair");
}

#[test]
fn standard_output_twice_is_refused_when_it_is_connected() {
    let output = OutputBuffer::new().unwrap();
    let serial = Arc::new(Serial::new(output.clone()).unwrap());
    let io_thread = IoThread::new("console-test").unwrap();
    let twice = Console::stdio().also(Console::stdio());
    let error = twice.connect(&serial, &output, &io_thread, Voice::default()).err().unwrap();
    assert_eq!(error.to_string(), "the console is connected to stdio 2 times, allowed is once");
}

#[test]
fn a_file_that_cannot_be_opened_is_refused_when_it_is_connected() {
    let output = OutputBuffer::new().unwrap();
    let serial = Arc::new(Serial::new(output.clone()).unwrap());
    let console = Console::stdio().also(Console::file("/nowhere/log"));
    assert_eq!(
        format!("{console:?}"),
        "Console { outputs: [stdout, ConsoleFile { path: \"/nowhere/log\", append: false, max_bytes: None, keep: 0 }], \
         inputs: [stdin] }"
    );
    let io_thread = IoThread::new("console-test").unwrap();
    let error = console.connect(&serial, &output, &io_thread, Voice::default()).err().unwrap();
    assert_eq!(error.to_string(), "cannot open /nowhere/log for the console's output");
}

#[test]
fn limited_output_comes_whole_at_the_limits_pace_and_the_rest_when_the_guest_has_ended() {
    let seen: Arc<Mutex<Vec<u8>>> = Arc::default();
    let sink = Arc::clone(&seen);
    let thread = IoThread::new("limited").unwrap();
    let console = Console::callback(move |bytes| sink.lock().unwrap().extend(bytes));
    let port = Port::on(&thread, console);
    port.output.limit(Some(crate::RateLimit::per_second(4000).burst(1000)));
    let text: Vec<u8> = (0..3000u32).map(|n| n.to_le_bytes()[0]).collect();
    let (begun, turns) = (Instant::now(), thread.metrics().turns);
    text.chunks(10).for_each(|piece| port.print(piece));
    while seen.lock().unwrap().len() < text.len() {
        assert!(begun.elapsed() < LIMIT);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(begun.elapsed() > Duration::from_millis(450), "{:?}", begun.elapsed());
    assert!(*seen.lock().unwrap() == text);
    let turns = thread.metrics().turns - turns;
    assert!(turns < 60, "{turns} turns");
    assert!((1..20).contains(&port.output.limited()), "{} waits", port.output.limited());

    port.output.limit(Some(crate::RateLimit::per_second(1).burst(1)));
    port.print(&text);
    std::thread::sleep(Duration::from_millis(50));
    assert!(seen.lock().unwrap().len() < text.len() + 10);
    port.output.limit(None);
    while seen.lock().unwrap().len() < 2 * text.len() {
        assert!(begun.elapsed() < LIMIT, "without a limit, what waits goes at once");
        std::thread::sleep(Duration::from_millis(1));
    }

    port.output.limit(Some(crate::RateLimit::per_second(1).burst(1)));
    port.print(&text);
    port.output.end();
    port.output.wait_drained();
    assert_eq!(seen.lock().unwrap().len(), 3 * text.len(), "the end of a VM does not wait for the limit");
}
