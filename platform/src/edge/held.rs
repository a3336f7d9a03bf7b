//! The body of an answer that holds something until all of it has left. HTTP/2 takes a body before its client does.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::{Body, Buf, Bytes, Frame, SizeHint};

use super::counts::Counted;

/// A body whose request counts as long as there is something of it.
pub struct Held<B> {
    inner: B,
    counted: Option<Arc<Counted>>,
}

/// Bytes of it.
pub struct Piece {
    bytes: Bytes,
    _counted: Option<Arc<Counted>>,
}

impl<B> Held<B> {
    /// Holds this, if it is something.
    pub fn new(inner: B, counted: Option<Counted>) -> Self {
        Self { inner, counted: counted.map(Arc::new) }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Held<B> {
    type Data = Piece;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Piece>, B::Error>>> {
        let came = Pin::new(&mut self.inner).poll_frame(cx);
        let piece = |bytes| Piece { bytes, _counted: self.counted.clone() };
        came.map(|came| came.map(|came| came.map(|frame| frame.map_data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        self.bytes.copy_to_bytes(len)
    }
}
