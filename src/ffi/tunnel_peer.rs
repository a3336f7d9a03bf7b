//! The peers of WireGuard tunnels.

use std::ffi::c_char;

use super::convert::{Out, OutText};
use super::guard::guard;
use super::objects;
use super::report::{ErrorObject, Report};
use super::tunnel::TunnelObject;
use super::unknown_peer::PeerTexts;
use super::wireguard_key::read_public_key;
use crate::network::wireguard::{PeerStatus, PublicKey};

/// Adds a peer by its public key. `preshared_key` is a secret that is shared with it, or NULL. `allowed_ips` are ranges of addresses, separated by commas: the
/// sources that its packets may have, and the destinations that go to it; another host of the network has the range of VMCELL_ADDRESS_HOST. `endpoint` is the
/// address and the port where it is found first, or NULL: then it is where its first message comes from. After `keepalive_s` seconds without a message to it, an
/// empty one is sent; 0 is never. Waits for the tunnel's thread, at most for ten seconds.
///
/// Errors: NETWORK for what is no key or no range, for a key or a range that another peer has, and above the limit of peers; BAD_VALUE for another `endpoint` or
/// `keepalive_s`; INVALID_CONFIG for a range that lies behind another tunnel of the network; INVALID_STATE in a function that the library calls; TIMEOUT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_tunnel_add_peer(
    tunnel: *mut TunnelObject,
    public_key: *const c_char,
    preshared_key: *const c_char,
    allowed_ips: *const c_char,
    endpoint: *const c_char,
    keepalive_s: u32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or texts that end with a NUL.
        let peer = unsafe {
            let key = read_public_key(public_key)?;
            PeerTexts { preshared_key, allowed_ips, endpoint, keepalive_s }.read(key)?
        };
        Ok(objects::get(tunnel)?.tunnel().add_peer(&peer)?)
    })
}

/// Removes a peer: nothing is sent to it or taken from it any more. `was_there` is set to 1 if there was one, else to 0, unless it is NULL. Waits for the
/// tunnel's thread, at most for ten seconds.
///
/// Errors: NETWORK for what is no key; INVALID_STATE in a function that the library calls; TIMEOUT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_tunnel_remove_peer(
    tunnel: *mut TunnelObject,
    public_key: *const c_char,
    was_there: *mut i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let key = unsafe { read_public_key(public_key) }?;
        let removed = objects::get(tunnel)?.tunnel().remove_peer(&key)?;
        if !was_there.is_null() {
            // SAFETY: not NULL, so the header demands a place for the result.
            unsafe { Out::new(was_there, "was_there") }?.write(i32::from(removed));
        }
        Ok(())
    })
}

/// Writes what became of each peer, also of those that were made just in time, as a JSON array with a NUL behind it, into `buffer` of `capacity` bytes, if it
/// fits; `length` is set to what it needs without the NUL. The members of each element are "public_key", "endpoint" (where its last authentic message came
/// from, or null), "last_handshake_ms" (how many milliseconds ago keys were exchanged last, or null), "sent_bytes" and "received_bytes". Never
/// blocks for long.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_tunnel_peers_json(
    tunnel: *const TunnelObject,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands so many bytes, and a place for the length.
        let out = unsafe { OutText::new(buffer, capacity, length) }?;
        let peers = objects::get(tunnel)?.tunnel().peers();
        out.write(&serde_json::Value::Array(peers.iter().map(json_of).collect()).to_string());
        Ok(())
    })
}

fn json_of((key, status): &(PublicKey, PeerStatus)) -> serde_json::Value {
    serde_json::json!({
        "public_key": key.to_string(),
        "endpoint": status.endpoint.map(|endpoint| endpoint.to_string()),
        "last_handshake_ms": status.last_handshake.map(|ago| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)),
        "sent_bytes": status.sent_bytes,
        "received_bytes": status.received_bytes,
    })
}
