package vmcell

/*
#include <vmcell.h>
*/
import "C"

import (
	"runtime"
	"unsafe"
)

// Secret has a name, and a value of 1 byte to 64 KiB in locked memory outside of Go's, which is zeroed by Close.
type Secret struct{ handle *C.vmcell_secret }

// NewSecret makes a secret of value, which is copied: zero your own. A name has 1 to 255 ASCII letters, digits, '_', '-' and '.', and does
// not begin with a dot.
func NewSecret(name string, value []byte) (*Secret, error) {
	secret := &Secret{}
	place, length := bytesOf(value)
	return secret, withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		return C.vmcell_secret_new(texts[0], place, length, &secret.handle, e)
	}, name)
}

// NewSecretFromFile makes a secret of all that is in a file, of a line's end as well.
func NewSecretFromFile(name, path string) (*Secret, error) {
	secret := &Secret{}
	return secret, withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		return C.vmcell_secret_new_from_file(texts[0], texts[1], &secret.handle, e)
	}, name, path)
}

// Name is what it is called.
func (secret *Secret) Name() (string, error) {
	var room [256]C.char
	var length C.size_t
	var e *C.vmcell_error
	number := C.vmcell_secret_name(secret.pointer(), &room[0], C.size_t(len(room)), &length, &e)
	runtime.KeepAlive(secret)
	return C.GoString(&room[0]), failure(number, e)
}

// The most bytes of a value, and the most that sealing adds to it.
const mostValue, mostSealing = 64 << 10, 2 << 10

// Value copies the value into Go's memory: zero it when it is not needed any more.
func (secret *Secret) Value() ([]byte, error) {
	room := make([]byte, mostValue)
	var length C.size_t
	var e *C.vmcell_error
	number := C.vmcell_secret_value(secret.pointer(), (*C.uint8_t)(unsafe.Pointer(&room[0])), C.size_t(len(room)), &length, &e)
	runtime.KeepAlive(secret)
	return room[:length], failure(number, e)
}

// Seal seals the secret to the owner of a sealing key. It opens only for the same application and version, which is 1 to 2^53 - 1, and under
// its name.
func (secret *Secret) Seal(sealingKey, application string, version uint64) ([]byte, error) {
	room := make([]byte, mostValue+mostSealing)
	var length C.size_t
	err := withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		place := (*C.uint8_t)(unsafe.Pointer(&room[0]))
		return C.vmcell_secret_seal(secret.pointer(), texts[0], texts[1], C.uint64_t(version), place, C.size_t(len(room)), &length, e)
	}, sealingKey, application)
	runtime.KeepAlive(secret)
	return append([]byte(nil), room[:length]...), err
}

// Close zeroes the secret.
func (secret *Secret) Close() {
	C.vmcell_secret_free(secret.handle)
	secret.handle = nil
}

func (secret *Secret) pointer() *C.vmcell_secret {
	if secret == nil {
		return nil
	}
	return secret.handle
}

// Suite is the algorithms that a HostKey is for.
type Suite int32

const (
	// SuiteX25519: X25519, HKDF-SHA256, ChaCha20-Poly1305 (RFC 9180).
	SuiteX25519 Suite = C.VMCELL_SUITE_X25519
	// SuiteXWing: X-Wing in the place of X25519, so that what is sealed stays so if that falls to a quantum computer.
	SuiteXWing Suite = C.VMCELL_SUITE_X_WING
)

// HostKey is the private key of a host: it opens what was sealed to it. It lies in locked memory outside of Go's, which is zeroed by Close.
type HostKey struct{ handle *C.vmcell_host_key }

// NewHostKey makes a random key.
func NewHostKey(suite Suite) (*HostKey, error) { return hostKeyOf(suite, nil, 0) }

// HostKeyOf makes the key of 32 random bytes, which are copied: zero your own.
func HostKeyOf(suite Suite, bytes []byte) (*HostKey, error) {
	place, length := bytesOf(bytes)
	if place == nil {
		// Without a place, it would be a random key.
		place = new(C.uint8_t)
	}
	return hostKeyOf(suite, place, length)
}

func hostKeyOf(suite Suite, place *C.uint8_t, length C.size_t) (*HostKey, error) {
	key := &HostKey{}
	var e *C.vmcell_error
	number := C.vmcell_host_key_new(C.int32_t(suite), place, length, &key.handle, &e)
	return key, failure(number, e)
}

// NewHostKeyFromFile reads a key that Save has written. A file that users other than its owner may change, or that any but its owner and
// group may read, is refused.
func NewHostKeyFromFile(path string) (*HostKey, error) {
	key := &HostKey{}
	return key, withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		return C.vmcell_host_key_new_from_file(texts[0], &key.handle, e)
	}, path)
}

// Save writes the key to a new file that nobody else may read.
func (key *HostKey) Save(path string) error {
	err := withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		return C.vmcell_host_key_save(key.pointer(), texts[0], e)
	}, path)
	runtime.KeepAlive(key)
	return err
}

// SealingKey is the text of the public half, which others need to seal secrets to this host.
func (key *HostKey) SealingKey() (string, error) {
	var room [mostSealing]C.char
	var length C.size_t
	var e *C.vmcell_error
	number := C.vmcell_host_key_sealing_key(key.pointer(), &room[0], C.size_t(len(room)), &length, &e)
	runtime.KeepAlive(key)
	return C.GoString(&room[0]), failure(number, e)
}

// Open opens what Seal has made, if it is what the caller takes it for.
func (key *HostKey) Open(sealed []byte, application, name string, version uint64) (*Secret, error) {
	secret := &Secret{}
	place, length := bytesOf(sealed)
	err := withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		return C.vmcell_host_key_open(key.pointer(), place, length, texts[0], texts[1], C.uint64_t(version), &secret.handle, e)
	}, application, name)
	runtime.KeepAlive(key)
	return secret, err
}

// Close zeroes the key.
func (key *HostKey) Close() {
	C.vmcell_host_key_free(key.handle)
	key.handle = nil
}

func (key *HostKey) pointer() *C.vmcell_host_key {
	if key == nil {
		return nil
	}
	return key.handle
}

func bytesOf(bytes []byte) (*C.uint8_t, C.size_t) {
	if len(bytes) == 0 {
		return nil, 0
	}
	return (*C.uint8_t)(unsafe.Pointer(&bytes[0])), C.size_t(len(bytes))
}
