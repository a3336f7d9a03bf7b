//! Bounds the time that a call takes, by the thread's own CPU clock: a busy machine makes no difference.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Makes the call.
///
/// # Panics
/// If it takes more of the CPU's time than `limit`.
pub fn within<R>(limit: Duration, call: impl FnOnce() -> R) -> R {
    let before = cpu_time();
    let result = call();
    let taken = cpu_time().saturating_sub(before);
    assert!(taken <= limit, "it took {taken:?}, allowed are {limit:?}");
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_works_for_too_long_is_refused() {
        within(Duration::from_millis(100), || std::thread::sleep(Duration::from_millis(150)));
        let works = || {
            let begin = cpu_time();
            while cpu_time() - begin < Duration::from_millis(2) {}
        };
        assert!(std::panic::catch_unwind(|| within(Duration::from_millis(1), works)).is_err());
    }
}
