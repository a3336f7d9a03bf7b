//! Says that output of the guest was lost.

use crate::legacy::OutputBuffer;
use crate::logging::{LogLevel, Throttle, Voice};

pub(super) struct Losses {
    buffer: OutputBuffer,
    voice: Voice,
    seen: u64,
    throttle: Throttle,
}

impl Losses {
    pub(super) fn new(buffer: &OutputBuffer, voice: Voice) -> Self {
        Self { buffer: buffer.clone(), voice, seen: 0, throttle: Throttle::default() }
    }

    /// After each turn of the console.
    pub(super) fn look(&mut self) {
        let (dropped, lost) = self.buffer.missed();
        let all = dropped.saturating_add(lost);
        let new = all.saturating_sub(std::mem::replace(&mut self.seen, all));
        if new > 0
            && let Some((count, _)) = self.throttle.count(new)
        {
            self.buffer.tell_missed();
            self.voice.say(LogLevel::Warn, || {
                let why = format!("{dropped} in all because it was too slow, {lost} because it failed");
                format!("{count} bytes of output did not reach a reader, {why}")
            });
        }
    }
}

impl Drop for Losses {
    /// Its readers are gone, and what still waited for them is lost.
    fn drop(&mut self) {
        if let Some((dropped, lost)) = self.buffer.tell_missed() {
            say_all(&self.voice, dropped, lost);
        }
    }
}

/// Says what readers have missed since the beginning.
fn say_all(voice: &Voice, dropped: u64, lost: u64) {
    voice.say(LogLevel::Warn, || {
        format!("{dropped} bytes of output did not reach a reader because it was too slow, {lost} because it failed")
    });
}
