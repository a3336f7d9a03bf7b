package vmcell

/*
#include <vmcell.h>
*/
import "C"

import (
	"encoding/json"
	"runtime"
)

// SecretStore is a file with the sealed secrets of one application. Any number of goroutines and processes may change and read it at once. All of its
// methods block while they read and write.
type SecretStore struct{ handle *C.vmcell_secret_store }

// CreateSecretStore makes an empty store in a new file that nobody else may read.
func CreateSecretStore(path, application string) error {
	return withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		return C.vmcell_secret_store_create(texts[0], texts[1], e)
	}, path, application)
}

// OpenSecretStore opens the store of an application. If its file is at a lower revision than atLeast, now or later, an older copy was put
// back, and it is refused; 0 for no such bound.
func OpenSecretStore(path, application string, atLeast uint64) (*SecretStore, error) {
	store := &SecretStore{}
	return store, withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		return C.vmcell_secret_store_new(texts[0], texts[1], C.uint64_t(atLeast), &store.handle, e)
	}, path, application)
}

// Close gives the store's memory back.
func (store *SecretStore) Close() {
	C.vmcell_secret_store_free(store.handle)
	store.handle = nil
}

// Set seals secrets to the owner of a sealing key, and puts each in the place of the one of its name, all at once. It returns their version.
func (store *SecretStore) Set(sealingKey string, secrets ...*Secret) (uint64, error) {
	var version C.uint64_t
	// One more, so that there is a first.
	handles := make([]*C.vmcell_secret, len(secrets)+1)
	for i, secret := range secrets {
		handles[i] = secret.pointer()
	}
	err := withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		return C.vmcell_secret_store_set(store.handle, texts[0], &handles[0], C.size_t(len(secrets)), &version, e)
	}, sealingKey)
	runtime.KeepAlive(secrets)
	return uint64(version), err
}

// Put puts what Seal has made in the place of the secret of its name. Its version must be one more than the store's revision.
func (store *SecretStore) Put(sealed []byte) error {
	var e *C.vmcell_error
	place, length := bytesOf(sealed)
	number := C.vmcell_secret_store_put(store.handle, place, length, &e)
	return failure(number, e)
}

// Unset takes a secret out. It returns the store's revision without it.
func (store *SecretStore) Unset(name string) (uint64, error) {
	var revision C.uint64_t
	err := withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		return C.vmcell_secret_store_unset(store.handle, texts[0], &revision, e)
	}, name)
	return uint64(revision), err
}

// Reseal opens all secrets by one host's key and seals them to the owner of a sealing key, at once. It returns the version that all have then.
func (store *SecretStore) Reseal(from *HostKey, to string) (uint64, error) {
	var version C.uint64_t
	err := withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		return C.vmcell_secret_store_reseal(store.handle, from.pointer(), texts[0], &version, e)
	}, to)
	runtime.KeepAlive(from)
	return uint64(version), err
}

// Get opens the secret of this name, if it is of this version; 0 for any.
func (store *SecretStore) Get(key *HostKey, name string, version uint64) (*Secret, error) {
	secret := &Secret{}
	err := withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		return C.vmcell_secret_store_get(store.handle, key.pointer(), texts[0], C.uint64_t(version), &secret.handle, e)
	}, name)
	runtime.KeepAlive(key)
	return secret, err
}

// GetAll opens all secrets, in the order of their names: those of one moment.
func (store *SecretStore) GetAll(key *HostKey) ([]*Secret, error) {
	var handles [1024]*C.vmcell_secret
	var count C.size_t
	var e *C.vmcell_error
	number := C.vmcell_secret_store_get_all(store.handle, key.pointer(), &handles[0], C.size_t(len(handles)), &count, &e)
	runtime.KeepAlive(key)
	secrets := make([]*Secret, count)
	for i := range secrets {
		secrets[i] = &Secret{handles[i]}
	}
	return secrets, failure(number, e)
}

// SecretStoreInfo is what a store tells without a key. Nothing vouches for it.
type SecretStoreInfo struct {
	Application string `json:"application"`
	// Revision counts the changes.
	Revision uint64 `json:"revision"`
	// Secrets are in the order of their names.
	Secrets []struct {
		Name string `json:"name"`
		// Version is the revision in which it was set.
		Version uint64 `json:"version"`
		Suite   string `json:"suite"`
		// SealedTo names the key that opens it.
		SealedTo string `json:"sealed_to"`
		ValueLen int    `json:"value_len"`
		// Digest is of the sealed bytes, and tells nothing of the value.
		Digest string `json:"digest"`
	} `json:"secrets"`
}

// List tells which secrets there are.
func (store *SecretStore) List() (SecretStoreInfo, error) {
	var info SecretStoreInfo
	var length C.size_t
	room := make([]C.char, 4096)
	for {
		var e *C.vmcell_error
		number := C.vmcell_secret_store_list(store.handle, &room[0], C.size_t(len(room)), &length, &e)
		if number != C.VMCELL_OK {
			return info, failure(number, e)
		}
		if int(length) < len(room) {
			return info, json.Unmarshal([]byte(C.GoString(&room[0])), &info)
		}
		room = make([]C.char, length+1)
	}
}
