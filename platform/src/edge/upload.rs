//! The body of a request on its way to a backend, and the wait for the answer, which begins anew with each piece of the body.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, timeout_at};

/// When a body last moved.
#[derive(Clone)]
pub struct Moved(Arc<Mutex<Instant>>);

/// A body that says when it moves.
pub struct Upload<B> {
    inner: B,
    moved: Moved,
}

impl Moved {
    fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> Upload<B> {
    /// Has not moved yet; the wait begins now.
    pub fn new(inner: B) -> (Self, Moved) {
        let moved = Moved(Arc::new(Mutex::new(Instant::now())));
        (Self { inner, moved: moved.clone() }, moved)
    }
}

impl<B: Body + Unpin> Body for Upload<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let came = Pin::new(&mut self.inner).poll_frame(cx);
        if came.is_ready() {
            self.moved.now();
        }
        came
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Waits for an answer until `limit` has passed since the body last moved; `None` then.
pub async fn answered<T>(answer: impl Future<Output = T>, moved: &Moved, limit: Duration) -> Option<T> {
    let mut answer = pin!(answer);
    loop {
        let seen = moved.last();
        if let Ok(answer) = timeout_at(seen.checked_add(limit)?, &mut answer).await {
            return Some(answer);
        }
        if moved.last() == seen {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};
    use hyper::body::Bytes;
    use tokio::time::sleep;

    use super::*;

    #[test]
    fn the_wait_for_an_answer_begins_anew_as_long_as_the_body_moves() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let limit = Duration::from_millis(200);
            let (_, moved) = Upload::new(Full::new(Bytes::new()));
            let slow = async {
                for _ in 0..6 {
                    sleep(Duration::from_millis(80)).await;
                    moved.now();
                }
                7
            };
            assert_eq!(answered(slow, &moved, limit).await, Some(7));
            let began = Instant::now();
            assert_eq!(answered(sleep(Duration::from_secs(60)), &moved, limit).await, None);
            assert!(began.elapsed() < Duration::from_secs(30));
        });
    }

    #[test]
    fn a_body_comes_as_it_is_and_is_seen_to_move() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (body, moved) = Upload::new(Full::new(Bytes::from_static(b"text")));
            let before = moved.last();
            assert_eq!(body.size_hint().exact(), Some(4));
            sleep(Duration::from_millis(5)).await;
            assert_eq!(body.collect().await.unwrap().to_bytes(), "text");
            assert!(moved.last() > before);
        });
    }
}
