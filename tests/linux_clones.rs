//! What a Linux guest knows once it is a fork: that it is one, what time it is, and that its vsock is another.

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime};

use support::Transcript;
use support::linux::{LinuxGuest, RunningGuest, root_disk};
use vmcell::{BalloonConfig, Exit, ForkClock, RngConfig, Seccomp, Snapshot, Vm, VsockConfig};

const LONG: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
/// How far a clock may be off.
const ALLOWED: f64 = 0.5;

/// Answers `look` with what a fork is to know.
const SCRIPT: &str = r#"
sources=/sys/devices/system/clocksource/clocksource0
in_root date >/dev/null
echo "clocksources $(cat $sources/available_clocksource) end"
said=$(dmesg | wc -l)
echo ready
while read -r word argument; do
    case "$word" in
    clocksource) echo $argument >$sources/current_clocksource; echo "clocksource $(cat $sources/current_clocksource) set" ;;
    look)
        clock=$(in_root date +%s.%N)
        echo "look $argument clock $clock uptime $(cat /proc/uptime) end"
        ;;
    end) break ;;
    esac
done
dmesg | tail -n +$((said + 1)) | grep -iE 'lockup|stall|unstable|hung|watchdog: mark' | sed 's/^/trouble: /'
"#;

struct Guest {
    vm: Vm,
    transcript: Transcript,
}

/// What a guest answered, and when it was asked.
struct Look {
    /// How far its clock is ahead of the host's at least, and at most, in seconds.
    ahead: (f64, f64),
    uptime: f64,
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).expect("a host in our time").as_secs_f64()
}

fn look(vm: &Vm, transcript: &Transcript, name: &str) -> Look {
    let asked = seconds(SystemTime::now());
    let line = format!("look {name}\n");
    assert_eq!(vm.write_console(line.as_bytes()), line.len());
    let (begin, end) = (format!("look {name} clock "), " end");
    let answered = |text: &str| text.rsplit_once(&begin).is_some_and(|(_, rest)| rest.contains(end));
    assert!(transcript.wait_until(LONG, answered), "{}", transcript.text());
    let answered = seconds(SystemTime::now());
    let text = transcript.text();
    let words: Vec<_> = text.rsplit_once(&begin).expect("seen").1.split_whitespace().collect();
    let &[clock, "uptime", uptime, ..] = &words[..] else { panic!("{words:?}") };
    let clock: f64 = clock.parse().expect("a number");
    Look { ahead: (clock - answered, clock - asked), uptime: uptime.parse().expect("a number") }
}

impl Guest {
    fn fork(snapshot: &Snapshot, clock: ForkClock) -> Self {
        let transcript = Transcript::default();
        let builder = Vm::builder().fork_of(snapshot).fork_clock(clock).disk(root_disk());
        let vm = builder.console(transcript.console()).seccomp(Seccomp::Kill).build();
        let vm = vm.unwrap_or_else(|e| panic!("{}", e.chain()));
        vm.start().expect("the fork starts");
        Self { vm, transcript }
    }

    fn look(&self, name: &str) -> Look {
        look(&self.vm, &self.transcript, name)
    }

    fn finish(self) {
        assert_eq!(self.vm.write_console(b"end\n"), 4);
        let ended = self.vm.wait_timeout(LONG);
        let text = self.transcript.text();
        assert!(matches!(ended, Ok(Exit::Shutdown)), "{ended:?} after:\n{text}");
        assert!(!text.contains("trouble"), "{text}");
    }
}

fn start(vcpus: u32, cmdline: &str) -> RunningGuest {
    let guest = LinuxGuest::in_distribution(SCRIPT).limit(LONG).cmdline(cmdline);
    let guest = guest.start(|builder| builder.vcpus(vcpus).disk(root_disk()));
    guest.expect("ready");
    guest
}

fn finish(guest: RunningGuest) {
    guest.type_in("end\n");
    let text = guest.finish();
    assert!(!text.contains("trouble"), "{text}");
}

/// Draws random bytes and says how often the kernel was told that it is a fork, for each line that is typed. It needs no disk.
const DRAW: &str = r#"
for driver in /sys/bus/*/drivers/vmgenid/*:*; do [ ! -e $driver ] || echo "hears of forks"; done
echo ready
while read -r name && [ "$name" != end ]; do
    random=$(head -c 16 /dev/urandom | md5sum | cut -c1-32)
    echo "draw $name $random reseeds $(dmesg | grep -c 'virtual machine fork') drawn"
done
"#;

/// Types a name; returns what was drawn, and how often the kernel was told.
fn draw(vm: &Vm, transcript: &Transcript, name: &str) -> (String, u32) {
    let line = format!("{name}\n");
    assert_eq!(vm.write_console(line.as_bytes()), line.len());
    let begin = format!("draw {name} ");
    let answer = move |text: &str| Some(text.rsplit_once(&begin)?.1.split_once(" drawn")?.0.to_owned());
    assert!(transcript.wait_until(LONG, |text| answer(text).is_some()), "{}", transcript.text());
    let answer = answer(&transcript.text()).expect("seen");
    let (random, reseeds) = answer.split_once(" reseeds ").expect("both");
    let reseeds = reseeds.parse().unwrap_or_else(|e| panic!("{e} in:\n{}", transcript.text()));
    (random.to_owned(), reseeds)
}

impl Guest {
    fn without_disk(snapshot: &Snapshot) -> Self {
        let transcript = Transcript::default();
        let builder = Vm::builder().fork_of(snapshot).console(transcript.console()).seccomp(Seccomp::Kill);
        let vm = builder.build().unwrap_or_else(|e| panic!("{}", e.chain()));
        vm.start().expect("the fork starts");
        Self { vm, transcript }
    }

    /// Draws until the kernel has been told `count` times; returns what was drawn then.
    fn draw_once_told(&self, name: &str, count: u32) -> String {
        for turn in 0..100 {
            let (random, reseeds) = draw(&self.vm, &self.transcript, &format!("{name}{turn}"));
            assert!(reseeds <= count, "{reseeds} reseeds in:\n{}", self.transcript.text());
            if reseeds == count {
                return random;
            }
        }
        panic!("not told in a hundred turns:\n{}", self.transcript.text())
    }
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_fork_is_told_that_it_is_one_and_draws_random_numbers_of_its_own() {
    let source = LinuxGuest::new(DRAW).limit(LONG).start(|builder| builder);
    source.expect("ready");
    // Debian's 6.1 for the cloud does not: it must boot, be forked, and go on.
    let hears = source.transcript.text().contains("hears of forks");
    let told = |times| if hears { times } else { 0 };
    assert_eq!(draw(&source.vm, &source.transcript, "before").1, 0);
    let snapshot = source.vm.snapshot().expect("a snapshot");
    let forks = [(); 2].map(|()| Guest::without_disk(&snapshot));
    let [one, other] = [0, 1].map(|index| forks[index].draw_once_told("fork", told(1)));
    assert!(!hears || one != other, "{one}");
    let second = forks[0].vm.snapshot().expect("a snapshot of a fork");
    let fork_of_fork = Guest::without_disk(&second);
    fork_of_fork.draw_once_told("second", told(2));
    assert_eq!(draw(&source.vm, &source.transcript, "after").1, 0);
    forks.into_iter().chain([fork_of_fork]).for_each(Guest::finish);
    finish(source);
}

/// Whether two clocks, of which each is ahead of the host's by a range of seconds, may differ by `shift`, a range as well, give or take what
/// is allowed.
fn differ_by(one: (f64, f64), other: (f64, f64), shift: (f64, f64)) -> bool {
    one.1 - other.0 >= shift.0 - ALLOWED && one.0 - other.1 <= shift.1 + ALLOWED
}

#[allow(clippy::print_stderr, reason = "says why it was skipped")]
fn forks_have_the_time(vcpus: u32, clocksource: &str) {
    // The kernel compares the counter with a slower clock, and distrusts it if the host does not run the guest in between.
    let source = start(vcpus, "tsc=reliable");
    let sources = source.transcript.text();
    if !support::linux::between(&sources, "clocksources ", " end").split_whitespace().any(|has| has == clocksource) {
        eprintln!("skipped: this kernel has no clock source {clocksource} here: {sources}");
        return finish(source);
    }
    source.type_in(&format!("clocksource {clocksource}\n"));
    source.expect(&format!("clocksource {clocksource} set"));
    look(&source.vm, &source.transcript, "warm");
    let right = look(&source.vm, &source.transcript, "source");
    // On a slow host, the moment is a while before the snapshot is there.
    let since = seconds(SystemTime::now());
    let mut snapshot = source.vm.snapshot().expect("a snapshot");
    let until = seconds(SystemTime::now());
    std::thread::sleep(Duration::from_secs(10));
    let jumps = Guest::fork(&snapshot, ForkClock::Jump);
    let before = seconds(SystemTime::now());
    let keeps = Guest::fork(&snapshot, ForkClock::Keep);
    let slept = (since - seconds(SystemTime::now()), until - before);
    assert!(snapshot.age(DAY));
    let next_day = Guest::fork(&snapshot, ForkClock::Jump);
    let day = DAY.as_secs_f64();
    for (guest, shift) in [(&jumps, (0.0, 0.0)), (&keeps, slept), (&next_day, (day, day))] {
        // The first look finds caches cold, and says little.
        let looks = ["first", "second", "third"].map(|name| guest.look(name));
        for looked in &looks {
            let (is, was) = (looked.ahead, right.ahead);
            assert!(differ_by(is, was, shift), "{shift:?}: {is:?}, was {was:?} on {clocksource}");
        }
        // The time since boot takes part.
        let more = looks[0].uptime - right.uptime;
        let expected = if shift.0 < 0.0 { 0.0 } else { shift.0 + 10.0 };
        assert!(more >= expected - 1.0 && more < expected + 60.0, "{more} rather than {expected}");
        assert!(looks.windows(2).all(|pair| pair[0].uptime <= pair[1].uptime));
    }
    [jumps, keeps, next_day].into_iter().for_each(Guest::finish);
    finish(source);
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test --long"]
fn forks_with_four_vcpus_have_the_time_that_they_are_to_have_on_kvm_clock() {
    forks_have_the_time(4, "kvm-clock");
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn forks_have_the_time_that_they_are_to_have_on_the_time_stamp_counter() {
    forks_have_the_time(1, "tsc");
}

/// Sends back what comes over a vsock, one connection after the other.
const ECHO: &str = r#"
for module in /spare/*vsock*.ko /spare/*-virtio_balloon.ko; do insmod $module; done
cat >/root/tmp/echo.py <<'EOF'
import errno, socket
listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
listener.bind((socket.VMADDR_CID_ANY, 5000))
listener.listen()
print("listens", flush=True)
while True:
    stream = listener.accept()[0]
    try:
        while piece := stream.recv(64):
            stream.sendall(piece)
        print("ended", flush=True)
    except OSError as error:
        # Linux 6.12 says that it is not connected.
        print("was reset" if error.errno in (errno.ECONNRESET, errno.ENOTCONN) else error, flush=True)
EOF
in_root python3 /tmp/echo.py
"#;

fn echo(stream: &mut UnixStream, word: &[u8; 4]) {
    stream.set_read_timeout(Some(LONG)).expect("a limit");
    stream.write_all(word).expect("the guest reads");
    let mut back = [0; 4];
    stream.read_exact(&mut back).expect("the guest answers");
    assert_eq!(&back, word);
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_fork_has_a_vsock_without_its_source_s_connections_and_a_balloon_of_its_own() {
    let guest = LinuxGuest::in_distribution(ECHO).limit(LONG);
    let source = guest.start(|builder| {
        builder.disk(root_disk()).vsock(VsockConfig::new(3)).balloon(BalloonConfig::new()).rng(RngConfig::new())
    });
    source.expect("listens");
    let mut stream = source.vm.vsock().expect("a vsock").connect(5000).expect("the guest listens");
    echo(&mut stream, b"one.");
    let snapshot = source.vm.snapshot().expect("a snapshot");
    let fork = Guest::fork(&snapshot, ForkClock::Jump);
    fork.transcript.expect("was reset", LONG);
    let mut own = fork.vm.vsock().expect("a vsock").connect(5000).expect("the guest listens");
    echo(&mut own, b"two.");
    let balloon = fork.vm.balloon().expect("a balloon");
    balloon.set_target_mib(32).expect("a target");
    let began = SystemTime::now();
    while balloon.actual() != 32 << 20 {
        assert!(began.elapsed().expect("a clock that goes on") < LONG, "{}", balloon.actual());
        std::thread::sleep(Duration::from_millis(10));
    }
    echo(&mut stream, b"tre.");
    assert_eq!(source.vm.balloon().expect("a balloon").actual(), 0);
    assert!(!source.transcript.text().contains("reset"), "{}", source.transcript.text());
    fork.vm.stop().expect("it stops");
    source.vm.stop().expect("it stops");
}
