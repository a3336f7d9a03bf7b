//! virtio-rng with Linux's driver, its bytes judged by `rngtest`.

mod support;

use std::time::Instant;

use support::linux::{LinuxGuest, RunningGuest, root_disk};
use vmcell::{RateLimit, RngConfig};

const BEGIN: &str = r#"
for module in /spare/*rng*.ko; do insmod $module; done
echo "from $(cat /sys/class/misc/hw_random/rng_current)"
"#;

fn start(script: &str, rng: RngConfig) -> RunningGuest {
    LinuxGuest::in_distribution(&format!("{BEGIN}{script}")).start(|builder| builder.disk(root_disk()).rng(rng))
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn linux_gets_bytes_that_rngtest_takes_for_random() {
    let guest = start(
        "in_root sh -c 'dd if=/dev/hwrng bs=2500 count=220 iflag=fullblock | rngtest -c 200 2>&1'; echo judged",
        RngConfig::new(),
    );
    guest.expect("judged");
    let (text, counters) = (guest.transcript.text(), guest.vm.metrics().devices[1].clone());
    assert!(text.contains("from virtio_rng.0"), "{text}");
    let count = |what: &str| -> u32 {
        let (_, rest) = text.split_once(what).unwrap_or_else(|| panic!("{text}"));
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    // Of 1,000 blocks of good random bytes, one fails or so.
    assert!(count("FIPS 140-2 successes:") + 5 >= 200 && count("FIPS 140-2 failures:") <= 5, "{text}");
    assert_eq!(counters.name, "rng0");
    assert!(counters.counters["random_bytes"] >= 500_000, "{:?}", counters.counters);
    guest.finish();
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn linux_waits_for_bytes_that_are_limited() {
    let rate = RateLimit::per_second(1024).burst(512);
    let guest = start(
        "echo begin; dd if=/dev/hwrng bs=64 count=64 iflag=fullblock of=/dev/null; echo end",
        RngConfig::new().rate(rate),
    );
    guest.expect("begin");
    let begun = Instant::now();
    guest.expect("end");
    // 4096 bytes, of which 512 come at once; the driver itself has asked for some before.
    let (took, counters) = (begun.elapsed(), guest.vm.metrics().devices[1].counters.clone());
    assert!(took.as_secs_f64() > 2.5, "{took:?}, {counters:?}");
    assert!(counters["limited"] > 0, "{counters:?}");
    guest.finish();
}
