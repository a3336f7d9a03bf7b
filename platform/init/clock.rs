//! The guest's clock, which follows the host's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, Timespec, clock_settime};

/// The time that a message takes, and more: within it, the clock is right.
const RIGHT: Duration = Duration::from_millis(500);

/// Sets the clock to so many milliseconds since 1970.
pub fn set(millis: u64) -> Result<(), String> {
    let seconds = i64::try_from(millis / 1000).map_err(|_| format!("the time {millis} ms"))?;
    let nanos = i64::try_from(millis % 1000).unwrap_or(0).saturating_mul(1_000_000);
    clock_settime(ClockId::Realtime, Timespec { tv_sec: seconds, tv_nsec: nanos })
        .map_err(|error| format!("the time {millis} ms: {error}"))
}

/// Sets the clock if it is not about right.
pub fn follow(millis: u64) {
    let own = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if own.abs_diff(Duration::from_millis(millis)) > RIGHT
        && let Err(why) = set(millis)
    {
        eprintln!("cell-init: {why}");
    }
}
