//! What devices of a group get, by a clock of the test's.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::{Limits, RateLimit};

const SECOND: Duration = Duration::from_secs(1);

fn rate(per_second: u64, burst: u64) -> RateLimit {
    RateLimit::per_second(per_second).burst(burst)
}

fn group(limits: Limits) -> LimitGroup {
    LimitGroup::new(limits).unwrap()
}

fn operations(per_second: u64, burst: u64) -> LimitGroup {
    group(Limits::new().operations(rate(per_second, burst)))
}

/// A device that always has a request of this cost.
struct Device {
    limiter: Limiter,
    cost: Cost,
    requests: u64,
    /// How often it had to wait.
    waits: u64,
    /// What it paid, and when.
    paid: Vec<(Instant, Cost)>,
}

impl Device {
    fn new(own: &LimitGroup, shared: Option<&LimitGroup>, cost: Cost) -> Self {
        let mut limiter = Limiter::new(own, shared);
        limiter.owe(cost);
        Self { limiter, cost, requests: 0, waits: 0, paid: Vec::new() }
    }

    /// Does what it may now; says when it is to be called again.
    fn serve(&mut self, now: Instant) -> Instant {
        self.limiter.look_again(now, false);
        loop {
            let before = self.limiter.due;
            let is_settled = self.limiter.settle(now);
            self.paid.push((now, before.minus(self.limiter.due)));
            if !is_settled {
                self.waits += 1;
                return self.limiter.until().unwrap();
            }
            self.limiter.done();
            self.requests += 1;
            let ahead = self.limiter.ahead;
            self.limiter.owe(self.cost);
            self.paid.push((now, ahead.minus(self.limiter.ahead)));
        }
    }
}

/// Serves all devices when they want to be, each `late` after that.
fn run(devices: &mut [Device], begin: Instant, time: Duration, late: &dyn Fn(usize) -> Duration) {
    let mut next = vec![begin; devices.len()];
    loop {
        let (at, index) = next.iter().copied().zip(0..).min().unwrap();
        if at > begin + time {
            return;
        }
        next[index] = devices[index].serve(at) + late(index);
    }
}

fn at_once(_: usize) -> Duration {
    Duration::ZERO
}

/// That in no window more was paid than the limits allow.
fn assert_kept(paid: &mut [(Instant, Cost)], operations: RateLimit, bytes: RateLimit) {
    paid.sort_by_key(|(at, _)| *at);
    for first in 0..paid.len() {
        let mut sum = Cost::default();
        for (at, cost) in &paid[first..] {
            sum = sum.plus(*cost);
            let nanos = (*at - paid[first].0).as_nanos();
            for (sum, rate) in [(sum.operations, operations), (sum.bytes, bytes)] {
                let allowed = u128::from(rate.burst) * 1_000_000_000 + nanos * u128::from(rate.per_second);
                assert!(u128::from(sum) * 1_000_000_000 <= allowed, "{sum} in {nanos} ns");
            }
        }
    }
}

#[test]
fn a_device_without_limits_never_waits() {
    let mut limiter = Limiter::new(&LimitGroup::default(), Some(&LimitGroup::default()));
    assert!(!limiter.is_limited());
    limiter.owe(Cost::new(1000, u64::MAX));
    assert!(limiter.settle(Instant::now()));
    assert_eq!(limiter.until(), None);
}

#[test]
fn a_request_larger_than_the_burst_waits_until_it_was_given_all_that_it_needs() {
    let own = group(Limits::new().bytes(rate(1000, 100)));
    let begin = Instant::now();
    let mut device = Device::new(&own, None, Cost::new(1, 1100));
    run(std::slice::from_mut(&mut device), begin, SECOND * 10, &at_once);
    // 100 at once, and 10,000 since then.
    assert_eq!(device.requests, 10_100 / 1100);
    assert_kept(&mut device.paid, rate(u64::from(u32::MAX), u64::from(u32::MAX)), rate(1000, 100));
}

#[test]
fn both_limits_are_kept_and_nothing_is_taken_of_one_without_the_other() {
    let own = group(Limits::new().operations(rate(10, 1)).bytes(rate(1_000_000, 4096)));
    let begin = Instant::now();
    let mut device = Device::new(&own, None, Cost::new(1, 512));
    run(std::slice::from_mut(&mut device), begin, SECOND, &at_once);
    assert_eq!(device.requests, 11);
    assert!(device.paid.iter().all(|(_, paid)| *paid == Cost::new(1, 512) || paid.is_zero()));
}

#[test]
fn the_average_is_that_of_the_limit_however_short_the_burst() {
    for (per_second, burst) in [(20_000, 1), (20_000, 20), (20_000, 20_000), (3, 1)] {
        let begin = Instant::now();
        let mut device = Device::new(&operations(per_second, burst), None, Cost::new(1, 0));
        run(std::slice::from_mut(&mut device), begin, SECOND * 2, &at_once);
        // The clock may have gone on a moment since the bucket was made.
        let most = 2 * per_second + burst;
        assert!(
            (most - 1..=most).contains(&device.requests),
            "{} of {per_second} a second, {burst} at once",
            device.requests
        );
    }
}

#[test]
fn one_that_waits_is_looked_after_once_a_millisecond_rather_than_for_each_request() {
    let begin = Instant::now();
    let mut device = Device::new(&operations(20_000, 100), None, Cost::new(1, 0));
    run(std::slice::from_mut(&mut device), begin, SECOND, &at_once);
    assert!(device.waits <= 1010, "{} waits", device.waits);
}

#[test]
fn devices_that_want_more_than_there_is_get_the_same() {
    for per_second in [500, 20_000] {
        let (group, begin) = (operations(per_second, 100), Instant::now());
        let device = |_| Device::new(&LimitGroup::default(), Some(&group), Cost::new(1, 4096));
        let mut devices: Vec<_> = (0..5).map(device).collect();
        run(&mut devices, begin, SECOND * 20, &at_once);
        let requests: Vec<_> = devices.iter().map(|device| device.requests).collect();
        let fair = per_second * 20 / 5;
        assert!(requests.iter().all(|count| count.abs_diff(fair) <= fair / 10), "{requests:?} of {fair}");
    }
}

#[test]
fn a_device_with_large_requests_does_not_starve_beside_small_ones_nor_they_beside_it() {
    let group = group(Limits::new().bytes(rate(1 << 20, 256 << 10)));
    let begin = Instant::now();
    let device = |bytes| Device::new(&LimitGroup::default(), Some(&group), Cost::new(1, bytes));
    let mut devices = [device(512), device(4 << 20), device(512)];
    run(&mut devices, begin, SECOND * 60, &at_once);
    let bytes = |device: &Device| device.paid.iter().map(|(_, paid)| paid.bytes).sum::<u64>();
    let large = bytes(&devices[1]);
    assert!(large > 10 << 20, "{large}");
    for small in [&devices[0], &devices[2]] {
        assert!(bytes(small) > 64 << 10, "{} of {large}", bytes(small));
    }
    let all: u64 = devices.iter().map(bytes).sum();
    assert!(all.abs_diff(60 << 20) < 1 << 20, "{all}");
}

#[test]
fn a_device_whose_thread_is_held_up_keeps_its_place_but_holds_up_nobody() {
    let (group, begin) = (operations(100, 1), Instant::now());
    let device = || Device::new(&LimitGroup::default(), Some(&group), Cost::new(1, 0));
    let mut devices = [device(), device()];
    let late = |index: usize| if index == 0 { SECOND } else { Duration::ZERO };
    run(&mut devices, begin, SECOND * 10, &late);
    // It comes once a second, and is served then or a moment later.
    assert!((5..=11).contains(&devices[0].requests), "{}", devices[0].requests);
    // 100 ms of each second, the others wait for it.
    assert!(devices[1].requests > 800, "{}", devices[1].requests);
}

#[test]
fn what_a_request_has_paid_goes_back_if_it_is_not_done() {
    let own = group(Limits::new().bytes(rate(1, 1000)));
    let (now, mut limiter) = (Instant::now(), Limiter::new(&own, None));
    limiter.owe(Cost::new(1, 1500));
    assert!(!limiter.settle(now));
    assert_eq!(limiter.due.bytes, 500);
    limiter.cancel();
    limiter.owe(Cost::new(1, 1000));
    assert!(limiter.settle(now) && limiter.until().is_none());
}

#[test]
fn what_was_taken_ahead_in_a_turn_is_there_for_others_in_the_next() {
    let own = operations(1, 10);
    let (now, mut limiter) = (Instant::now(), Limiter::new(&own, None));
    limiter.owe(Cost::new(1, 0));
    assert!(limiter.settle(now));
    assert_eq!(limiter.ahead.operations, 9);
    let later = now + Duration::from_millis(1);
    assert!(limiter.settle(later) && limiter.ahead.is_zero());
    for _ in 0..9 {
        limiter.owe(Cost::new(1, 0));
        assert!(limiter.settle(later));
        limiter.done();
    }
    limiter.owe(Cost::new(1, 0));
    assert!(!limiter.settle(later));
    let mut other = Limiter::new(&own, None);
    other.owe(Cost::new(1, 0));
    assert!(!other.settle(now + SECOND / 2));
    assert!(limiter.settle(now + SECOND) && limiter.ahead.is_zero(), "with two of them, nothing is taken ahead");
}

#[test]
fn a_wait_is_counted_once_however_often_it_is_asked_about() {
    let own = operations(1, 1);
    let (now, mut limiter) = (Instant::now(), Limiter::new(&own, None));
    limiter.owe(Cost::new(2, 0));
    for n in 0..10 {
        limiter.look_again(now, true);
        assert!(!limiter.settle(now + Duration::from_millis(n)));
    }
    assert_eq!(own.waits(), (1, Duration::ZERO));
    assert!(limiter.settle(now + SECOND));
    assert_eq!(own.waits(), (1, SECOND));
}

#[test]
fn other_limits_are_those_of_a_request_that_waits_too() {
    let own = operations(1, 1);
    let (now, mut limiter) = (Instant::now(), Limiter::new(&own, None));
    limiter.owe(Cost::new(100, 0));
    assert!(!limiter.settle(now));
    own.set_limits(Limits::new()).unwrap();
    limiter.look_again(now, true);
    assert!(limiter.settle(now) && !limiter.is_limited());
    assert_eq!(own.set_limits(Limits::new().bytes(rate(0, 1))).unwrap_err().kind(), crate::ErrorKind::InvalidConfig);
    assert!(!limiter.is_limited(), "what was refused changes nothing");
}

#[test]
fn one_that_leaves_the_line_lets_those_behind_it_go() {
    let (group, now) = (operations(1, 1), Instant::now());
    let mut limiters: Vec<_> = (0..3).map(|_| Limiter::new(&LimitGroup::default(), Some(&group))).collect();
    limiters.iter_mut().for_each(|limiter| limiter.owe(Cost::new(1, 0)));
    let settled: Vec<_> = limiters.iter_mut().map(|limiter| limiter.settle(now)).collect();
    assert_eq!(settled, [true, false, false]);
    let last = limiters.pop().unwrap();
    assert!(last.until() > Some(now + SECOND));
    limiters.push(last);
    drop(limiters.remove(1));
    limiters[1].look_again(now, true);
    assert!(!limiters[1].settle(now));
    assert!(limiters[1].until() <= Some(now + SECOND));
    assert!(limiters[1].settle(now + SECOND));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the devices ask for and however late they come: by exact arithmetic, between any two moments at which something was
    /// paid. And no device is left without.
    #[test]
    fn devices_that_share_limits_never_get_more_than_these_allow_and_none_starves(
        operations in (1..=5000u64, 1..=100u64),
        bytes in (1000..=10_000_000u64, 1..=1_000_000u64),
        costs in prop::collection::vec((1..=3u64, 0..=200_000u64), 1..6),
        lateness in prop::collection::vec(0..=5_000_000u64, 6),
    ) {
        let (operations, bytes) = (rate(operations.0, operations.1), rate(bytes.0, bytes.1));
        let group = group(Limits::new().operations(operations).bytes(bytes));
        let begin = Instant::now();
        let device = |(operations, bytes): &(u64, u64)| {
            Device::new(&LimitGroup::default(), Some(&group), Cost::new(*operations, *bytes))
        };
        let mut devices: Vec<_> = costs.iter().map(device).collect();
        // So long that each could have five turns of its own.
        let of_all = costs.iter().fold(Cost::default(), |sum, (operations, bytes)| sum.plus(Cost::new(*operations, *bytes)));
        let parts = costs.iter().map(|(_, bytes)| bytes / (64 << 10) + 1).max().unwrap();
        let turn = (of_all.operations / operations.per_second).max(of_all.bytes / bytes.per_second) + 1;
        let late = |index: usize| Duration::from_nanos(lateness[index]);
        run(&mut devices, begin, Duration::from_secs((turn * parts * 2).min(400)), &late);
        prop_assert!(devices.iter().all(|device| device.requests > 0), "{:?}", devices.iter().map(|device| device.requests).collect::<Vec<_>>());
        let mut paid: Vec<_> = devices.iter().flat_map(|device| &device.paid).copied().filter(|(_, cost)| !cost.is_zero()).collect();
        paid.sort_by_key(|(at, _)| *at);
        paid.truncate(1500);
        assert_kept(&mut paid, operations, bytes);
    }
}
