//! Peers that a WireGuard tunnel does not know yet, and what C says of a peer.

use std::ffi::{CString, c_char, c_void};
use std::net::SocketAddr;
use std::sync::Mutex;

use zeroize::Zeroizing;

use super::caller::User;
use super::convert::read_text;
use super::failure::{Failure, FfiResult, VMCELL_ERROR_BAD_VALUE};
use super::guard::{free, guard};
use super::objects::{self, Object};
use super::report::{ErrorObject, Report};
use super::slot::{Described, Slot, hand_over};
use crate::error::Error;
use crate::network::wireguard::{PeerConfig, PublicKey, UnknownPeer};
use crate::sys::lock;

/// A peer that has begun a handshake with a tunnel and is not known. Made for each call of `on_unknown_peer`; taken by vmcell_unknown_peer_accept; freed by
/// vmcell_unknown_peer_free, which refuses it. Any thread may make any call.
pub struct UnknownPeerObject(Slot<UnknownPeer>);

impl Object for UnknownPeerObject {
    const NAME: &'static str = "vmcell_unknown_peer";
}

impl Described for UnknownPeerObject {
    type Value = UnknownPeer;

    fn slot(&self) -> &Slot<UnknownPeer> {
        &self.0
    }
}

/// Is asked about a peer that is not known. `peer` belongs to the function, which accepts or frees it, or has another thread do that later. `public_key` is what it
/// claims to be, and `source` the address and the port that its handshake came from; both are valid until the function returns. It is called on a thread of its
/// own, for one peer after the other, and may block: the tunnel goes on meanwhile. It must not unwind: no C++ exception, no longjmp.
pub type UnknownPeerCall = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        peer: *mut UnknownPeerObject,
        public_key: *const c_char,
        source: *const c_char,
    ),
>;

type Ask = unsafe extern "C" fn(*mut c_void, *mut UnknownPeerObject, *const c_char, *const c_char);

/// What asks C about a peer.
///
/// # Safety
/// `call` may be called with `user` and a peer on any thread until `user` is released.
pub(super) unsafe fn asking(call: Ask, user: Mutex<User>) -> impl Fn(UnknownPeer) + Send + 'static {
    move |peer| {
        let texts = [peer.public_key().to_string(), peer.source().to_string()].map(CString::new);
        let ([Ok(key), Ok(source)], user) = (texts, lock(&user)) else { return };
        // Without a handle nobody can accept it, so it is refused.
        let Ok(handle) = objects::insert(UnknownPeerObject(Slot::new(peer))) else { return };
        // SAFETY: the caller promises that it may be called; the texts live, and the lock keeps other threads away.
        unsafe { call(user.user, handle, key.as_ptr(), source.as_ptr()) };
    }
}

/// What C says of a peer.
pub(super) struct PeerTexts {
    pub(super) preshared_key: *const c_char,
    pub(super) allowed_ips: *const c_char,
    pub(super) endpoint: *const c_char,
    pub(super) keepalive_s: u32,
}

impl PeerTexts {
    /// # Safety
    /// Each text is NULL or points to bytes that end with a NUL and stay as they are until the call returns.
    pub(super) unsafe fn read(&self, key: PublicKey) -> FfiResult<PeerConfig> {
        let mut peer = PeerConfig::new(key);
        if !self.preshared_key.is_null() {
            // SAFETY: the caller promises the same.
            let text = Zeroizing::new(unsafe { read_text(self.preshared_key, "preshared_key") }?);
            peer = peer.preshared_key(text.parse().map_err(|e: Error| e.about("preshared_key"))?);
        }
        // SAFETY: the caller promises the same.
        let allowed = unsafe { read_text(self.allowed_ips, "allowed_ips") }?;
        for prefix in allowed.split(',').map(str::trim).filter(|prefix| !prefix.is_empty()) {
            peer = peer.allow(prefix.parse().map_err(|e: Error| e.about("allowed_ips"))?);
        }
        if !self.endpoint.is_null() {
            // SAFETY: the caller promises the same.
            let text = unsafe { read_text(self.endpoint, "endpoint") }?;
            peer = peer.endpoint(text.parse::<SocketAddr>().map_err(|_| {
                let looks = "which looks like 192.0.2.7:51820 or [2001:db8::7]:51820";
                Failure::new(
                    VMCELL_ERROR_BAD_VALUE,
                    format!("endpoint is {text:?}, which is no address with a port, {looks}"),
                )
            })?);
        }
        let seconds = u16::try_from(self.keepalive_s).map_err(|_| {
            Failure::new(VMCELL_ERROR_BAD_VALUE, format!("keepalive_s is {}, allowed are 0 to 65535", self.keepalive_s))
        })?;
        Ok(peer.persistent_keepalive(seconds))
    }
}

/// Makes an unknown peer a peer, as vmcell_tunnel_add_peer does, and answers its handshake. `peer` is taken. It is forgotten when it has had no key for ten
/// minutes, and asked about again the next time. The key is only claimed until the handshake has ended: an impostor is forgotten after 15 seconds. A range
/// that another peer has refuses the peer. Never blocks.
///
/// Errors: NETWORK for what is no key or no range; BAD_VALUE for another `endpoint` or `keepalive_s`. Then the peer is refused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_unknown_peer_accept(
    peer: *mut UnknownPeerObject,
    preshared_key: *const c_char,
    allowed_ips: *const c_char,
    endpoint: *const c_char,
    keepalive_s: u32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let peer = hand_over(peer)?;
        let texts = PeerTexts { preshared_key, allowed_ips, endpoint, keepalive_s };
        // SAFETY: the header demands NULL or texts that end with a NUL.
        let config = unsafe { texts.read(peer.public_key()) }?;
        peer.accept(config);
        Ok(())
    })
}

/// Refuses an unknown peer: its handshake has no answer, and it is not asked about again for ten seconds. NULL is fine. Never blocks.
///
/// Errors: BAD_HANDLE, also if it was accepted.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_unknown_peer_free(peer: *mut UnknownPeerObject) -> i32 {
    free(peer, drop)
}
