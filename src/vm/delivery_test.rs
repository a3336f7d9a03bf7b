use std::sync::Barrier;

use super::*;
use crate::memory::GuestAddress;

#[test]
fn a_secret_that_is_renewed_in_the_moment_in_which_time_is_up_has_a_time_of_its_own() {
    const ROUNDS: usize = 20_000;
    let memory = GuestMemory::anonymous(&[(GuestAddress(0), 16 << 20)]).unwrap();
    let secret = Secret::new("token", b"sesame").unwrap();
    let places = Place::for_all(&memory, std::slice::from_ref(&secret)).unwrap();
    let (logger, state) = (Logger::new("".into(), None), Mutex::default());
    let secrets = Secrets { memory, places, scrub_after: Duration::from_secs(3600), logger, state };
    secrets.begin();
    let together = Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                together.wait();
                secrets.look();
                together.wait();
            }
        });
        let mut lost = 0;
        for _ in 0..ROUNDS {
            *lock(&secrets.state) =
                State { in_clear: true, has_started: true, scrub_at: Some(Instant::now()), waker: None };
            together.wait();
            secrets.renew(&secret).unwrap();
            together.wait();
            lost += usize::from(!secrets.is_in_clear());
        }
        assert_eq!(lost, 0, "of {ROUNDS} new secrets were scrubbed at once");
    });
}
