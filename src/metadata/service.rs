//! The service as the host program holds it: its settings, and what it tells the guest.

use std::mem;
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde_json::Value;

use super::document::{Document, Form, Missing, Piece, merge};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::lock;
use crate::sys::sync::Mutex;

/// The address that cloud images ask.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// A metadata service for the guest: a JSON document that the guest reads over HTTP at a link-local address, as at a cloud's. Give it to
/// a card by [`Nic::metadata`](crate::Nic::metadata), and change the document whenever you like.
///
/// It speaks as version 2 of Firecracker's MMDS does, and so nearly as Amazon EC2's: the guest asks for a token by
/// `PUT /latest/api/token`, with the token's seconds (1 to 21,600) in `X-metadata-token-ttl-seconds`, and for a part of the document by
/// `GET` of its path, with the token in `X-metadata-token`. Both headers may have EC2's names as well. With `Accept: application/json`
/// the answer is JSON; otherwise a string is given as it is, and an object as the list of its keys. Any program in the guest that may
/// open a connection can read all of the document, so secrets do not belong in it.
///
/// What the guest sends to the address never reaches the network, and nothing from the network reaches the service. The guest needs a
/// route to the address, for instance by `ip route add 169.254.169.254 dev eth0`.
///
/// A clone is a handle to the same document. Several cards may have one service: each gives out tokens of its own, which are good on
/// that card alone.
///
/// ```no_run
/// use vmcell::{Metadata, Nic};
///
/// let metadata = Metadata::new();
/// metadata.set(r#"{"latest": {"meta-data": {"instance-id": "i-1"}, "user-data": "hello"}}"#)?;
/// let nic = Nic::tap("tap0")?.metadata(&metadata);
/// // Later, while the VM runs:
/// metadata.patch(r#"{"latest": {"user-data": "bye"}}"#)?;
/// # Ok::<(), vmcell::Error>(())
/// ```
#[derive(Clone)]
pub struct Metadata {
    pub(super) settings: Settings,
    contents: Arc<Contents>,
}

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) address: Ipv4Addr,
    pub(super) limit: usize,
    pub(super) needs_token: bool,
    pub(super) always_text: bool,
}

/// What several handles and cards share.
struct Contents {
    /// Held for a look or an exchange, and for nothing longer, since I/O threads wait for it. They never drop a document, which takes
    /// long if it is large.
    document: Mutex<Document>,
    /// Held by the one that makes a document from the last.
    writing: Mutex<()>,
}

impl Metadata {
    /// The most bytes that a document has as JSON without white space, unless [`limit`](Self::limit) says otherwise: 51,200.
    pub const DEFAULT_LIMIT: usize = 51_200;

    /// Makes a service at 169.254.169.254 with an empty object as its document.
    pub fn new() -> Self {
        let limit = Self::DEFAULT_LIMIT;
        let settings = Settings { address: ADDRESS, limit, needs_token: true, always_text: false };
        let document = Mutex::new(Document::new(&Value::Object(serde_json::Map::new())));
        Self { settings, contents: Arc::new(Contents { document, writing: Mutex::new(()) }) }
    }

    /// Sets the address: one from 169.254.1.0 to 169.254.254.255, those of RFC 3927. Cards that have the service already keep theirs.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for any other address.
    pub fn address(mut self, address: Ipv4Addr) -> Result<Self> {
        let [.., block, _] = address.octets();
        if !address.is_link_local() || matches!(block, 0 | 255) {
            let message = format!(
                "the address of a metadata service is {address}, allowed are 169.254.1.0 to 169.254.254.255 (link-local)"
            );
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        self.settings.address = address;
        Ok(self)
    }

    /// Sets how many bytes a document may have as JSON without white space, for what is [set](Self::set) by this handle and the clones
    /// that are made of it from now on. The default is [`DEFAULT_LIMIT`](Self::DEFAULT_LIMIT). A document takes several times as
    /// many of the host's memory, and each of 30 connections that is slow to read keeps the answer that it was given.
    #[must_use]
    pub fn limit(mut self, bytes: usize) -> Self {
        self.settings.limit = bytes;
        self
    }

    /// Sets whether the guest needs a token, which is the default. Without that, a program in the guest that forwards requests for
    /// others, such as a proxy, is all it takes to read the document. Cards that have the service already keep to what they had.
    #[must_use]
    pub fn needs_token(mut self, needs_token: bool) -> Self {
        self.settings.needs_token = needs_token;
        self
    }

    /// Sets whether answers are text whatever a request accepts, as EC2's are. By default, one that accepts `application/json` is
    /// answered by JSON. Cards that have the service already keep to what they had.
    #[must_use]
    pub fn always_text(mut self, always_text: bool) -> Self {
        self.settings.always_text = always_text;
        self
    }

    /// Replaces the document. A request sees either the old one or the new one. Blocks while another thread changes it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a text that is not JSON, that has more than 127 levels, or that is longer than the
    /// [limit](Self::limit). The document stays what it was.
    pub fn set(&self, json: &str) -> Result<()> {
        let value = parsed(json, "metadata is not JSON")?;
        let _writing = lock(&self.contents.writing);
        self.exchange(&value)
    }

    /// Changes the document by a JSON merge patch (RFC 7396): members of objects are replaced or added, and those that are null in the
    /// patch are removed. Blocks while another thread changes it.
    ///
    /// # Errors
    /// Those of [`set`](Self::set). The document stays what it was.
    pub fn patch(&self, json: &str) -> Result<()> {
        let patch = parsed(json, "a patch of metadata is not JSON")?;
        let _writing = lock(&self.contents.writing);
        let mut value = parsed(&self.get(), "metadata is not JSON any more")?;
        merge(&mut value, patch);
        self.exchange(&value)
    }

    /// Returns the document as JSON without white space.
    pub fn get(&self) -> String {
        let json = Arc::clone(lock(&self.contents.document).json());
        json.as_ref().to_owned()
    }

    fn exchange(&self, value: &Value) -> Result<()> {
        let document = Document::new(value);
        let (len, limit) = (document.json().len(), self.settings.limit);
        if len > limit {
            let message = format!("metadata of {len} bytes of JSON, allowed are at most {limit}");
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        let old = mem::replace(&mut *lock(&self.contents.document), document);
        drop(old);
        Ok(())
    }

    pub(super) fn find(&self, path: &str, form: Form) -> std::result::Result<Piece, Missing> {
        lock(&self.contents.document).find(path, form)
    }
}

impl Default for Metadata {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Metadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metadata").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn parsed(json: &str, what: &str) -> Result<Value> {
    serde_json::from_str(json).map_err(|e| Error::new(ErrorKind::InvalidConfig, what).with_source(e))
}

#[cfg(test)]
#[path = "service_test.rs"]
mod tests;
