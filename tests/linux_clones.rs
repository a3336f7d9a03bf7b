//! What a Linux guest knows once it is a fork: that it is one, what time it is, and that its network is another.

mod support;

use std::time::{Duration, SystemTime};

use support::Transcript;
use support::linux::{LinuxGuest, RunningGuest, root_disk};
use vmcell::{Exit, ForkClock, Seccomp, Snapshot, Vm};

const LONG: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
/// How far a clock may be off.
const ALLOWED: f64 = 0.5;

/// Answers `look` with what a fork is to know.
const SCRIPT: &str = r#"
for bus in acpi platform; do [ ! -e /sys/bus/$bus/drivers/vmgenid ] || echo "hears of forks"; done
sources=/sys/devices/system/clocksource/clocksource0
in_root date >/dev/null; in_root sh -c 'od -An </dev/null; tr a b </dev/null'
echo "clocksources $(cat $sources/available_clocksource) end"
echo ready
while read -r word argument; do
    case "$word" in
    clocksource) echo $argument >$sources/current_clocksource; echo "clocksource $(cat $sources/current_clocksource) set" ;;
    look)
        clock=$(in_root date +%s.%N)
        random=$(in_root sh -c 'head -c 16 /dev/urandom | od -An -tx1 | tr -d " \n"')
        echo "look $argument clock $clock uptime $(cat /proc/uptime) random $random reseeds $(dmesg | grep -c 'virtual machine fork') end"
        ;;
    end) break ;;
    esac
done
dmesg | grep -iE 'lockup|stall|unstable|hung|watchdog: mark' | sed 's/^/trouble: /'
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
    random: String,
    reseeds: u32,
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
    let &[clock, "uptime", uptime, _, "random", random, "reseeds", reseeds, ..] = &words[..] else {
        panic!("{words:?}")
    };
    let clock: f64 = clock.parse().expect("a number");
    Look {
        ahead: (clock - answered, clock - asked),
        uptime: uptime.parse().expect("a number"),
        random: random.to_owned(),
        reseeds: reseeds.parse().expect("a number"),
    }
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

    /// Looks until the guest has been told `count` times that it is a fork.
    fn look_once_told(&self, name: &str, count: u32) -> Look {
        for turn in 0.. {
            let looked = self.look(&format!("{name}{turn}"));
            assert!(
                turn < 100 && looked.reseeds <= count,
                "{} reseeds in:\n{}",
                looked.reseeds,
                self.transcript.text()
            );
            if looked.reseeds == count {
                return looked;
            }
        }
        unreachable!("there are a hundred turns")
    }

    fn finish(self) {
        assert_eq!(self.vm.write_console(b"end\n"), 4);
        let ended = self.vm.wait_timeout(LONG);
        let text = self.transcript.text();
        assert!(matches!(ended, Ok(Exit::Shutdown)), "{ended:?} after:\n{text}");
        assert!(!text.contains("trouble"), "{text}");
    }
}

fn start(vcpus: u32) -> RunningGuest {
    let guest = LinuxGuest::in_distribution(SCRIPT).limit(LONG).start(|builder| builder.vcpus(vcpus).disk(root_disk()));
    guest.expect("ready");
    guest
}

fn finish(guest: RunningGuest) {
    guest.type_in("end\n");
    let text = guest.finish();
    assert!(!text.contains("trouble"), "{text}");
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_fork_is_told_that_it_is_one_and_draws_random_numbers_of_its_own() {
    let source = start(1);
    // Debian's 6.1 for the cloud does not: it must boot, be forked, and go on.
    let hears = source.transcript.text().contains("hears of forks");
    assert_eq!(look(&source.vm, &source.transcript, "source").reseeds, 0);
    let snapshot = source.vm.snapshot().expect("a snapshot");
    let told = |times| if hears { times } else { 0 };
    let forks = [(); 2].map(|()| Guest::fork(&snapshot, ForkClock::Jump));
    let looks = [0, 1].map(|index| forks[index].look_once_told("fork", told(1)));
    assert!(!hears || looks[0].random != looks[1].random, "{}", looks[0].random);
    let second = forks[0].vm.snapshot().expect("a snapshot of a fork");
    Guest::fork(&second, ForkClock::Jump).look_once_told("second", told(2));
    assert_eq!(look(&source.vm, &source.transcript, "after").reseeds, 0);
    forks.into_iter().for_each(Guest::finish);
    finish(source);
}

/// Whether two clocks, of which each is ahead of the host's by a range of seconds, may differ by `shift`, give or take what is allowed.
fn differ_by(one: (f64, f64), other: (f64, f64), shift: f64) -> bool {
    one.1 - other.0 >= shift - ALLOWED && one.0 - other.1 <= shift + ALLOWED
}

#[allow(clippy::print_stderr, reason = "says why it was skipped")]
fn forks_have_the_time(vcpus: u32, clocksource: &str) {
    let source = start(vcpus);
    let sources = source.transcript.text();
    if !support::linux::between(&sources, "clocksources ", " end").split_whitespace().any(|has| has == clocksource) {
        eprintln!("skipped: this kernel has no clock source {clocksource} here: {sources}");
        return finish(source);
    }
    source.type_in(&format!("clocksource {clocksource}\n"));
    source.expect(&format!("clocksource {clocksource} set"));
    look(&source.vm, &source.transcript, "warm");
    let right = look(&source.vm, &source.transcript, "source");
    let mut snapshot = source.vm.snapshot().expect("a snapshot");
    let taken = seconds(SystemTime::now());
    std::thread::sleep(Duration::from_secs(10));
    let jumps = Guest::fork(&snapshot, ForkClock::Jump);
    let passed = seconds(SystemTime::now()) - taken;
    let keeps = Guest::fork(&snapshot, ForkClock::Keep);
    assert!(snapshot.age(DAY));
    let next_day = Guest::fork(&snapshot, ForkClock::Jump);
    for (guest, shift) in [(&jumps, 0.0), (&keeps, -passed), (&next_day, DAY.as_secs_f64())] {
        // The first look finds caches cold, and says little.
        let looks = ["first", "second", "third"].map(|name| guest.look(name));
        for looked in &looks {
            let (is, was) = (looked.ahead, right.ahead);
            assert!(differ_by(is, was, shift), "{shift}: {is:?}, was {was:?} on {clocksource}");
        }
        // The time since boot takes part.
        let since = looks[0].uptime - right.uptime - passed;
        assert!(since >= shift - 1.0 && since < shift + 60.0, "{since} rather than {shift}");
        assert!(looks.windows(2).all(|pair| pair[0].uptime <= pair[1].uptime));
    }
    [jumps, keeps, next_day].into_iter().for_each(Guest::finish);
    finish(source);
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn forks_have_the_time_that_they_are_to_have_on_kvm_clock() {
    forks_have_the_time(1, "kvm-clock");
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn forks_with_four_vcpus_have_the_time_that_they_are_to_have_on_the_time_stamp_counter() {
    forks_have_the_time(4, "tsc");
}
