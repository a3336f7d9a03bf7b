//! WireGuard tunnels, by which private networks go on at other hosts.

use std::ffi::{c_char, c_void};
use std::net::IpAddr;
use std::sync::Mutex;

use zeroize::Zeroizing;

use super::caller::{ReleaseUser, User};
use super::convert::{Out, OutText, read_structure, read_text};
use super::failure::{Failure, FfiResult, VMCELL_ERROR_BAD_VALUE};
use super::guard::{free, guard};
use super::io_thread::IoThreadObject;
use super::network::NetworkObject;
use super::objects::{self, Object};
use super::report::{ErrorObject, Report};
use super::unknown_peer::{UnknownPeerCall, asking};
use crate::network::wireguard::{Config, Tunnel, TunnelBuilder, TunnelLimits};

/// A WireGuard interface whose inside is a private network and whose outside is a UDP socket. It needs no TUN device, no kernel module and no right of
/// root's. Its peers are tunnels of other processes, or any other WireGuard. Made by vmcell_tunnel_new; freed by vmcell_tunnel_free. Any thread may
/// make any call.
pub struct TunnelObject(Tunnel);

impl Object for TunnelObject {
    const NAME: &'static str = "vmcell_tunnel";
}

impl TunnelObject {
    pub(super) fn tunnel(&self) -> &Tunnel {
        &self.0
    }
}

/// The settings of a tunnel that its configuration does not have. Set `struct_size` to sizeof(vmcell_tunnel_settings), and what has no need of another
/// value to 0 or NULL, which stands for the default.
#[repr(C)]
pub struct TunnelSettings {
    /// The size of this structure, in bytes.
    pub struct_size: usize,
    /// The IP address of the host that the socket is bound to. The default is all of them, of IPv4 and IPv6.
    pub listen_address: *const c_char,
    /// The I/O thread that serves the tunnel, borrowed; its system calls may not be filtered (vmcell_io_thread_confine). The default is a thread of the
    /// tunnel's own.
    pub io_thread: *const IoThreadObject,
    /// How many packets of the network may wait for the tunnel, 1 to 65536. The default is 1024.
    pub packets: usize,
    /// How many peers the tunnel may have, 1 to 65536. The default is 1024.
    pub peers: usize,
    /// Is asked about peers that are not known, and may make them just in time. The default is that their handshakes are dropped.
    pub on_unknown_peer: UnknownPeerCall,
    /// Passed to `on_unknown_peer`.
    pub user: *mut c_void,
    /// Called for `user` at the end, also if vmcell_tunnel_new fails, unless it fails for the settings' `struct_size`. It may come
    /// after vmcell_tunnel_free has returned. The default is that nothing is called.
    pub release: ReleaseUser,
}

impl TunnelSettings {
    const NONE: Self = Self {
        struct_size: size_of::<Self>(),
        listen_address: std::ptr::null(),
        io_thread: std::ptr::null(),
        packets: 0,
        peers: 0,
        on_unknown_peer: None,
        user: std::ptr::null_mut(),
        release: None,
    };

    /// # Safety
    /// The address is NULL or points to bytes that end with a NUL, and `on_unknown_peer` may be called with what the header says.
    unsafe fn apply(&self, mut builder: TunnelBuilder, user: Mutex<User>) -> FfiResult<TunnelBuilder> {
        if !self.listen_address.is_null() {
            // SAFETY: the caller promises the same.
            let text = unsafe { read_text(self.listen_address, "settings->listen_address") }?;
            let address: IpAddr = text.parse().map_err(|_| {
                let message = format!("settings->listen_address is {text:?}, which is no IP address");
                Failure::new(VMCELL_ERROR_BAD_VALUE, message)
            })?;
            builder = builder.listen_on(address);
        }
        if !self.io_thread.is_null() {
            builder = builder.io_thread(&objects::get(self.io_thread)?.thread());
        }
        if self.packets != 0 {
            builder = builder.packets(self.packets);
        }
        if self.peers != 0 {
            builder = builder.limits(TunnelLimits { peers: self.peers, ..TunnelLimits::default() });
        }
        if let Some(call) = self.on_unknown_peer {
            // SAFETY: the caller promises the same.
            builder = builder.on_unknown_peer(unsafe { asking(call, user) });
        }
        Ok(builder)
    }
}

/// Makes a tunnel of a network from the text of a wg-quick file, of which it takes PrivateKey, ListenPort, MTU and the peers. The network's packets
/// that go there are no longer than the MTU, 1420 if there is none. What the peers are allowed lies behind the tunnel from now on; the rules of the network
/// say what may pass. `network` is borrowed, `settings` copied; NULL stands for the defaults. An endpoint is an address: look names up before. The
/// caller erases its text, which holds the private key. Waits for the tunnel's thread, at most for ten seconds.
///
/// Errors: NETWORK for a configuration that is refused, with the number of the line, and if the port cannot be bound; BAD_VALUE for a `struct_size` or a
/// `listen_address`; INVALID_CONFIG for an address that lies behind another tunnel, and for an MTU below 1280 or another setting that is out of
/// range; INVALID_STATE for an `io_thread` that is filtered, and in a function that this thread calls; TIMEOUT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_tunnel_new(
    network: *const NetworkObject,
    config: *const c_char,
    settings: *const TunnelSettings,
    tunnel: *mut *mut TunnelObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let settings = match settings.is_null() {
            true => TunnelSettings::NONE,
            // SAFETY: not NULL, so the header demands a structure whose size stands in front.
            false => unsafe { read_structure(settings, size_of::<TunnelSettings>(), "settings") }?,
        };
        let user = Mutex::new(User { user: settings.user, release: settings.release });
        // SAFETY: the header demands NULL or a place for the result.
        let tunnel = unsafe { Out::new(tunnel, "tunnel") }?;
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let text = Zeroizing::new(unsafe { read_text(config, "config") }?);
        let network = objects::get(network)?;
        let config = Config::parse(&text)?;
        // SAFETY: the header demands what is asked for here.
        let builder = unsafe { settings.apply(Tunnel::builder(config), user) }?;
        tunnel.insert(TunnelObject(builder.join(network.network())?))
    })
}

/// Writes the key by which peers know the tunnel, as vmcell_wireguard_public_key does. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_tunnel_public_key(
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
        out.write(&objects::get(tunnel)?.0.public_key().to_string());
        Ok(())
    })
}

/// Writes where the socket is bound to, with the port that was chosen, such as "192.0.2.7:51820" or "[::]:51820", with a NUL behind it, into `buffer` of
/// `capacity` bytes, if it fits; `length` is set to what it needs without the NUL, at most 58. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_tunnel_local_address(
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
        out.write(&objects::get(tunnel)?.0.local_address().to_string());
        Ok(())
    })
}

/// Writes the tunnel's counters as a JSON object, with a NUL behind it, into `buffer` of `capacity` bytes, if it fits; `length` is set to what it needs without
/// the NUL. They begin at 0 and only go up: "wireguard_sent_packets", "wireguard_received_bytes", "wireguard_handshakes", and one for each reason for
/// which something is dropped, "wireguard_dropped_unknown_peer" for instance. A later version may have more. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_tunnel_metrics_json(
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
        out.write(&serde_json::json!(objects::get(tunnel)?.0.metrics()).to_string());
        Ok(())
    })
}

/// Closes a tunnel: nothing lies behind it any more, and its port is free. Waits for its thread, but not for a call of `on_unknown_peer`. NULL is
/// fine.
///
/// Errors: BAD_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_tunnel_free(tunnel: *mut TunnelObject) -> i32 {
    free(tunnel, drop)
}
