package vmcell

/*
#include <stdint.h>
#include <stdlib.h>
#include <vmcell.h>

extern void vmcellGoUnknownPeer(void *user, vmcell_unknown_peer *peer, char *public_key, char *source);
extern void vmcellGoRelease(void *user);
*/
import "C"

import (
	"encoding/json"
	"net/netip"
	"runtime"
	"runtime/cgo"
	"strings"
	"time"
	"unsafe"
)

// NewWireGuardKey makes a private key, as text. It is the caller's to protect.
func NewWireGuardKey() (string, error) {
	return readKey(func(buffer *C.char, capacity C.size_t, length *C.size_t, e **C.vmcell_error) C.int32_t {
		return C.vmcell_wireguard_private_key(buffer, capacity, length, e)
	})
}

// NewPresharedKey makes a secret that two peers share beside their key pairs, as text.
func NewPresharedKey() (string, error) {
	return readKey(func(buffer *C.char, capacity C.size_t, length *C.size_t, e **C.vmcell_error) C.int32_t {
		return C.vmcell_wireguard_preshared_key(buffer, capacity, length, e)
	})
}

// WireGuardPublicKey is the key by which peers know a private one.
func WireGuardPublicKey(privateKey string) (string, error) {
	var key string
	err := withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		var number C.int32_t
		key = keyText(func(buffer *C.char, capacity C.size_t, length *C.size_t) {
			number = C.vmcell_wireguard_public_key(texts[0], buffer, capacity, length, e)
		})
		return number
	}, privateKey)
	return key, err
}

func readKey(call func(buffer *C.char, capacity C.size_t, length *C.size_t, e **C.vmcell_error) C.int32_t) (string, error) {
	var e *C.vmcell_error
	var number C.int32_t
	key := keyText(func(buffer *C.char, capacity C.size_t, length *C.size_t) { number = call(buffer, capacity, length, &e) })
	return key, failure(number, e)
}

// keyText gives what was written to a buffer for a key.
func keyText(call func(buffer *C.char, capacity C.size_t, length *C.size_t)) string {
	var room [C.VMCELL_WIREGUARD_KEY_BYTES]C.char
	var length C.size_t
	call(&room[0], C.size_t(len(room)), &length)
	return C.GoString(&room[0])
}

// TunnelOptions are settings of a tunnel that its configuration does not have.
type TunnelOptions struct {
	// ListenAddress is the IP address of the host that the socket is bound to. The default is all of them.
	ListenAddress netip.Addr
	// IOThread serves the tunnel, rather than one of its own.
	IOThread *IOThread
	// Packets is how many packets of the network may wait for the tunnel, 1 to 65536. 1024 by default.
	Packets int
	// Peers is how many peers it may have, 1 to 65536. 1024 by default.
	Peers int
	// OnUnknownPeer is asked about peers that are not known, one after the other, and may block. It accepts or refuses the peer, or has
	// another goroutine do that later. By default, their handshakes are dropped.
	OnUnknownPeer func(peer *UnknownPeer)
}

// Tunnel is a WireGuard interface whose inside is a private network and whose outside is a UDP socket: no TUN device, no kernel module, no right of
// root's. Any goroutine may use it.
type Tunnel struct{ handle *C.vmcell_tunnel }

// NewTunnel makes a tunnel from the text of a wg-quick file, of which it takes PrivateKey, ListenPort, MTU and the peers. What the peers are allowed
// lies behind the tunnel from now on; the rules of the network say what may pass. An endpoint is an address: look names up before.
func (network *Network) NewTunnel(config string, options TunnelOptions) (*Tunnel, error) {
	var settings C.vmcell_tunnel_settings
	settings.struct_size = C.size_t(unsafe.Sizeof(settings))
	var read settingsReader
	settings.packets = C.size_t(read.number("Packets", options.Packets))
	settings.peers = C.size_t(read.number("Peers", options.Peers))
	if read.err != nil {
		return nil, read.err
	}
	if options.IOThread != nil {
		settings.io_thread = options.IOThread.handle
	}
	address := ""
	if options.ListenAddress.IsValid() {
		address = options.ListenAddress.String()
	}
	tunnel := &Tunnel{}
	err := withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		if address != "" {
			settings.listen_address = texts[1]
		}
		// Here, as only the call itself releases it.
		if options.OnUnknownPeer != nil {
			settings.on_unknown_peer = C.vmcell_unknown_peer_call(C.vmcellGoUnknownPeer)
			settings.user = keep(options.OnUnknownPeer)
			settings.release = C.vmcell_release(C.vmcellGoRelease)
		}
		return C.vmcell_tunnel_new(network.pointer(), texts[0], &settings, &tunnel.handle, e)
	}, config, address)
	runtime.KeepAlive(options.IOThread)
	if err != nil {
		return nil, err
	}
	return tunnel, nil
}

// PublicKey is the key by which peers know the tunnel.
func (tunnel *Tunnel) PublicKey() (string, error) {
	return readKey(func(buffer *C.char, capacity C.size_t, length *C.size_t, e **C.vmcell_error) C.int32_t {
		return C.vmcell_tunnel_public_key(tunnel.handle, buffer, capacity, length, e)
	})
}

// LocalAddress is where the socket is bound to, with the port that was chosen.
func (tunnel *Tunnel) LocalAddress() (netip.AddrPort, error) {
	text, err := readText(func(buffer *C.char, capacity C.size_t, length *C.size_t) error {
		var e *C.vmcell_error
		return failure(C.vmcell_tunnel_local_address(tunnel.handle, buffer, capacity, length, &e), e)
	})
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.ParseAddrPort(string(text))
}

// Peer is another end of a tunnel.
type Peer struct {
	PublicKey string
	// PresharedKey is a secret that is shared with it, or empty.
	PresharedKey string
	// AllowedIPs are the sources that its packets may have, and the destinations that go to it. Another host of the network has
	// MachineAddress.HostPrefix.
	AllowedIPs []netip.Prefix
	// Endpoint is where it is found first. Without one, it is where its first message comes from.
	Endpoint netip.AddrPort
	// Keepalive is after how long without a message to it an empty one is sent, in seconds up to 65535, of which a part counts as a whole one. 0
	// is never.
	Keepalive time.Duration
}

// with makes a call with the peer as C has it.
func (peer Peer) with(call func(key, preshared, allowed, endpoint *C.char, keepalive C.uint32_t, e **C.vmcell_error) C.int32_t) error {
	allowed := make([]string, len(peer.AllowedIPs))
	for i, prefix := range peer.AllowedIPs {
		allowed[i] = prefix.String()
	}
	endpoint := ""
	if peer.Endpoint.IsValid() {
		endpoint = peer.Endpoint.String()
	}
	return withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		optional := func(text string, pointer *C.char) *C.char {
			if text == "" {
				return nil
			}
			return pointer
		}
		return call(texts[0], optional(peer.PresharedKey, texts[1]), texts[2], optional(endpoint, texts[3]), seconds(peer.Keepalive), e)
	}, peer.PublicKey, peer.PresharedKey, strings.Join(allowed, ","), endpoint)
}

// AddPeer adds a peer.
func (tunnel *Tunnel) AddPeer(peer Peer) error {
	return peer.with(func(key, preshared, allowed, endpoint *C.char, keepalive C.uint32_t, e **C.vmcell_error) C.int32_t {
		return C.vmcell_tunnel_add_peer(tunnel.handle, key, preshared, allowed, endpoint, keepalive, e)
	})
}

// RemovePeer removes a peer: nothing is sent to it or taken from it any more. It says whether there was one.
func (tunnel *Tunnel) RemovePeer(publicKey string) (bool, error) {
	var wasThere C.int32_t
	err := withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		return C.vmcell_tunnel_remove_peer(tunnel.handle, texts[0], &wasThere, e)
	}, publicKey)
	return wasThere != 0, err
}

// PeerStatus is what became of a peer so far.
type PeerStatus struct {
	PublicKey string `json:"public_key"`
	// Endpoint is where its last authentic message came from, if one has.
	Endpoint netip.AddrPort `json:"endpoint"`
	// LastHandshakeMillis is how many milliseconds ago keys were exchanged last, or nil.
	LastHandshakeMillis *uint64 `json:"last_handshake_ms"`
	SentBytes           uint64  `json:"sent_bytes"`
	ReceivedBytes       uint64  `json:"received_bytes"`
}

// Peers gives what became of each peer, also of those that were made just in time.
func (tunnel *Tunnel) Peers() ([]PeerStatus, error) {
	var peers []PeerStatus
	text, err := readText(func(buffer *C.char, capacity C.size_t, length *C.size_t) error {
		var e *C.vmcell_error
		return failure(C.vmcell_tunnel_peers_json(tunnel.handle, buffer, capacity, length, &e), e)
	})
	if err == nil {
		err = json.Unmarshal(text, &peers)
	}
	return peers, err
}

// Metrics gives the tunnel's counters by their names, such as "wireguard_handshakes".
func (tunnel *Tunnel) Metrics() (map[string]uint64, error) {
	var metrics map[string]uint64
	text, err := readText(func(buffer *C.char, capacity C.size_t, length *C.size_t) error {
		var e *C.vmcell_error
		return failure(C.vmcell_tunnel_metrics_json(tunnel.handle, buffer, capacity, length, &e), e)
	})
	if err == nil {
		err = json.Unmarshal(text, &metrics)
	}
	return metrics, err
}

// Close closes the tunnel: nothing lies behind it any more, and its port is free. It does not wait for a call of OnUnknownPeer. A second call gives an
// error and does no harm.
func (tunnel *Tunnel) Close() error {
	return failure(C.vmcell_tunnel_free(tunnel.handle), nil)
}

// UnknownPeer has begun a handshake with a tunnel and is not known.
type UnknownPeer struct {
	// PublicKey is what it claims to be, and Source where its handshake came from.
	PublicKey string
	Source    netip.AddrPort
	handle    *C.vmcell_unknown_peer
}

// Accept makes it a peer, whose PublicKey is its own whatever peer says, and answers its handshake. It is forgotten when it has had no key for ten
// minutes.
func (unknown *UnknownPeer) Accept(peer Peer) error {
	runtime.SetFinalizer(unknown, nil)
	return peer.with(func(_, preshared, allowed, endpoint *C.char, keepalive C.uint32_t, e **C.vmcell_error) C.int32_t {
		return C.vmcell_unknown_peer_accept(unknown.handle, preshared, allowed, endpoint, keepalive, e)
	})
}

// Refuse leaves its handshake without an answer. It is not asked about again for ten seconds.
func (unknown *UnknownPeer) Refuse() error {
	runtime.SetFinalizer(unknown, nil)
	return failure(C.vmcell_unknown_peer_free(unknown.handle), nil)
}

//export vmcellGoUnknownPeer
func vmcellGoUnknownPeer(user unsafe.Pointer, peer *C.vmcell_unknown_peer, publicKey, source *C.char) {
	ask := cgo.Handle(uintptr(user)).Value().(func(*UnknownPeer))
	// What the library writes is an address.
	from, _ := netip.ParseAddrPort(C.GoString(source))
	unknown := &UnknownPeer{PublicKey: C.GoString(publicKey), Source: from, handle: peer}
	runtime.SetFinalizer(unknown, func(unknown *UnknownPeer) { unknown.Refuse() })
	ask(unknown)
}
