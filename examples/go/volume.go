package vmcell

/*
#include <vmcell.h>

// In Go, the function that is told of progress is called by its caller's number.
int32_t vmcellVolumeProgress(void *user, uint64_t done, uint64_t total);
*/
import "C"

import (
	"encoding/json"
	"runtime"
	"runtime/cgo"
	"time"
	"unsafe"
)

// KeyKind is what the bytes of a Key are.
type KeyKind int32

const (
	// KeyPassphrase: a key slot for it takes a tenth of a second and 64 MiB to open.
	KeyPassphrase KeyKind = C.VMCELL_KEY_PASSPHRASE
	// KeyRandom: at least 32 bytes that the caller vouches are random; a key slot for them takes milliseconds to open.
	KeyRandom KeyKind = C.VMCELL_KEY_RANDOM
	// KeyOfData: the key of the data itself, 32 or 64 bytes, which needs no key slot.
	KeyOfData KeyKind = C.VMCELL_KEY_OF_DATA
)

// Key opens encrypted volumes. Its bytes lie in locked memory outside of Go's, which is zeroed by Close.
type Key struct{ handle *C.vmcell_key }

// NewKey makes a key of bytes, at most 64 KiB. They are copied: zero your own.
func NewKey(kind KeyKind, bytes []byte) (*Key, error) {
	key := &Key{}
	var e *C.vmcell_error
	var place *C.uint8_t
	if len(bytes) > 0 {
		place = (*C.uint8_t)(unsafe.Pointer(&bytes[0]))
	}
	number := C.vmcell_key_new(C.int32_t(kind), place, C.size_t(len(bytes)), &key.handle, &e)
	return key, failure(number, e)
}

// NewKeyFromFile makes a key of all that is in a file, of a line's end as well. The kind is KeyPassphrase or KeyRandom.
func NewKeyFromFile(kind KeyKind, path string) (*Key, error) {
	key := &Key{}
	return key, withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		return C.vmcell_key_new_from_file(C.int32_t(kind), texts[0], &key.handle, e)
	}, path)
}

// Close zeroes the key. Volumes that it has opened stay open.
func (key *Key) Close() {
	C.vmcell_key_free(key.handle)
	key.handle = nil
}

// Volume makes a Disk of the encrypted volume (LUKS2) at its Path.
type Volume struct {
	// Key opens it.
	Key *Key
	// Header is where its header is, if that is not in front of the data.
	Header string
	// Discard lets the guest give space back, which shows whoever has the file what is not in use.
	Discard bool

	// Since a VM was made with it.
	inUse *volumeHandle
}

func (disk Disk) openVolume(d *describer, h **C.vmcell_disk) {
	var flags C.uint32_t
	for flag, is := range map[C.uint32_t]bool{
		C.VMCELL_VOLUME_READ_ONLY: disk.ReadOnly,
		C.VMCELL_VOLUME_DISCARD:   disk.Volume.Discard,
		C.VMCELL_VOLUME_DIRECT:    disk.Direct,
	} {
		if is {
			flags |= flag
		}
	}
	if d.err == nil {
		d.err = withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
			header := texts[1]
			if disk.Volume.Header == "" {
				header = nil
			}
			return C.vmcell_disk_new_volume(texts[0], disk.Volume.Key.pointer(), header, flags, C.int32_t(disk.Engine), h, e)
		}, disk.Path, disk.Volume.Header)
	}
	runtime.KeepAlive(disk.Volume.Key)
	d.do(func(e **C.vmcell_error) C.int32_t {
		handle := &volumeHandle{}
		runtime.SetFinalizer(handle, func(handle *volumeHandle) { C.vmcell_volume_handle_free(handle.handle) })
		disk.Volume.inUse = handle
		return C.vmcell_volume_handle_new(*h, &handle.handle, e)
	})
}

func (key *Key) pointer() *C.vmcell_key {
	if key == nil {
		return nil
	}
	return key.handle
}

// VolumeFormat is how a volume is created. The zero value has the defaults.
type VolumeFormat struct {
	// Label is a name for people, which is not encrypted.
	Label string
	// SectorSize is 512, 1024, 2048 or 4096 bytes; 0 means 4096.
	SectorSize int
	// Header is where the header goes, if not in front of the data.
	Header string
}

// CreateVolume creates an encrypted volume for size bytes of data in a new file, with a key slot for key. The file is on storage when it returns.
func CreateVolume(path string, size uint64, key *Key, format VolumeFormat) error {
	err := withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		header := texts[2]
		if format.Header == "" {
			header = nil
		}
		return C.vmcell_volume_create(texts[0], C.uint64_t(size), key.pointer(), texts[1], C.size_t(format.SectorSize), header, e)
	}, path, format.Label, format.Header)
	runtime.KeepAlive(key)
	return err
}

// FormatDevice makes a block device an encrypted volume, as large as the device but for the 16 MiB in front. What was on it is lost. A header in a file of its own
// is for volumes in files.
func FormatDevice(path string, key *Key, format VolumeFormat) error {
	if format.Header != "" {
		return &Error{Number: ErrVolume, Message: "a header in a file of its own is for volumes in files"}
	}
	err := withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		return C.vmcell_volume_format_device(texts[0], key.pointer(), texts[1], C.size_t(format.SectorSize), e)
	}, path, format.Label)
	runtime.KeepAlive(key)
	return err
}

// VolumeInfo is what a volume's header tells without a key. Nothing vouches for it.
type VolumeInfo struct {
	UUID       string `json:"uuid"`
	Label      string `json:"label"`
	Cipher     string `json:"cipher"`
	SectorSize int    `json:"sector_size"`
	DataOffset uint64 `json:"data_offset"`
	// Capacity is 0 of a fork, which tells it to who has its key alone.
	Capacity uint64 `json:"capacity"`
	// IsFork says that it builds on another volume, IsBase that others build on it, so that it may only be read.
	IsFork bool `json:"is_fork"`
	IsBase bool `json:"is_base"`
	// Slots are its key slots.
	Slots []struct {
		Number   uint32 `json:"number"`
		OpenedBy string `json:"opened_by"`
	} `json:"slots"`
	// HeaderProblem says what is wrong with one of the header's two copies, or nothing.
	HeaderProblem string `json:"header_problem"`
}

// InspectVolume reads a volume's header, and changes nothing.
func InspectVolume(path string) (VolumeInfo, error) {
	var info VolumeInfo
	var length C.size_t
	room := make([]C.char, 4096)
	for {
		err := withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
			return C.vmcell_volume_info(texts[0], &room[0], C.size_t(len(room)), &length, e)
		}, path)
		if err != nil {
			return info, err
		}
		if int(length) < len(room) {
			return info, json.Unmarshal([]byte(C.GoString(&room[0])), &info)
		}
		room = make([]C.char, length+1)
	}
}

// ForkVolume creates a volume in a new file that begins as base, which baseKey opens, and takes space only for what is changed in it. It has a key
// slot for key, which opens it with all that it builds on. From now on, until ReleaseVolume, the base may only be read.
func ForkVolume(base string, baseKey *Key, path string, key *Key) error {
	err := withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		return C.vmcell_volume_fork(texts[0], baseKey.pointer(), texts[1], key.pointer(), e)
	}, base, path)
	runtime.KeepAlive([]*Key{baseKey, key})
	return err
}

// VolumeSnapshot is a snapshot of a volume in use that is prepared: all is done but for the moment itself.
type VolumeSnapshot struct{ handle *C.vmcell_volume_snapshot }

// Snapshot takes a snapshot of a volume while the VM that was made last with it runs: what is in its file stays as it is, and the VM goes on writing to a
// new file at path, a fork that key opens, which is the one to open for the VM from now on. It returns for how long the disk stood still.
func (volume *Volume) Snapshot(path string, key *Key, limit time.Duration) (time.Duration, error) {
	snapshot, err := volume.PrepareSnapshot(path, key, limit)
	if err != nil {
		return 0, err
	}
	defer snapshot.Close()
	if err := snapshot.Take(); err != nil {
		return 0, err
	}
	return snapshot.Wait(limit)
}

// PrepareSnapshot does what takes time of Snapshot, so that Take is done in no time: in the function of VM.Snapshot, for instance, so that RAM and
// disks are of one instant.
func (volume *Volume) PrepareSnapshot(path string, key *Key, limit time.Duration) (*VolumeSnapshot, error) {
	inUse := volume.inUse
	if inUse == nil {
		return nil, &Error{Number: ErrInvalidState, Message: "a snapshot was to be taken of a volume with which no VM was made"}
	}
	millis, err := limitMillis("a snapshot of a volume", limit)
	if err != nil {
		return nil, err
	}
	snapshot := &VolumeSnapshot{}
	err = withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		return C.vmcell_volume_handle_prepare_snapshot(inUse.handle, texts[0], key.pointer(), millis, &snapshot.handle, e)
	}, path)
	runtime.KeepAlive(inUse)
	runtime.KeepAlive(key)
	if err != nil {
		return nil, err
	}
	return snapshot, nil
}

// Grow makes a volume larger while the VM that was made last with it runs, to size bytes, whether it is a fork or not. The guest sees the new size when this
// returns, which it does after limit at the latest once the file is written: with ErrTimeout if the VM's disk was not served by then, and the guest sees it once
// it is. What is added is zeroes in a fork, and noise otherwise until it is written.
func (volume *Volume) Grow(size uint64, limit time.Duration) error {
	inUse := volume.inUse
	if inUse == nil {
		return &Error{Number: ErrInvalidState, Message: "a volume was to grow with which no VM was made"}
	}
	millis, err := limitMillis("growth of a volume", limit)
	if err != nil {
		return err
	}
	var e *C.vmcell_error
	number := C.vmcell_volume_handle_grow(inUse.handle, C.uint64_t(size), millis, &e)
	runtime.KeepAlive(inUse)
	return failure(number, e)
}

// Take takes the snapshot: what the disk begins from now on goes to the new file. It never blocks.
func (snapshot *VolumeSnapshot) Take() error {
	var e *C.vmcell_error
	number := C.vmcell_volume_snapshot_take(snapshot.handle, &e)
	return failure(number, e)
}

// Wait waits until the snapshot is taken and the old file is stable, so that it may be read and forked. It returns for how long the disk stood still.
func (snapshot *VolumeSnapshot) Wait(limit time.Duration) (time.Duration, error) {
	millis, err := limitMillis("the end of a snapshot", limit)
	if err != nil {
		return 0, err
	}
	var pause C.uint64_t
	var e *C.vmcell_error
	number := C.vmcell_volume_snapshot_wait(snapshot.handle, millis, &pause, &e)
	return time.Duration(pause) * time.Microsecond, failure(number, e)
}

// Close frees the snapshot. If it was not taken, the volume is as it was, and the new file is removed.
func (snapshot *VolumeSnapshot) Close() {
	C.vmcell_volume_snapshot_free(snapshot.handle)
	snapshot.handle = nil
}

// volumeHandle takes snapshots of a volume and makes it larger.
type volumeHandle struct{ handle *C.vmcell_volume_handle }

// ReleaseVolume lets a base be written to again. The caller vouches that no volume builds on it any more: one that does is refused from now on.
func ReleaseVolume(base string) error {
	return withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		return C.vmcell_volume_release(texts[0], e)
	}, base)
}

// GrowVolume makes room for size bytes of data in a volume that is no fork. If it is in use, VM.RefreshDisk tells its guest; Volume.Grow does both.
func GrowVolume(path string, size uint64) error {
	return withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		return C.vmcell_volume_grow(texts[0], C.uint64_t(size), e)
	}, path)
}

// GrowVolumeFork makes a fork larger, to size bytes; what is added is zeroes. No VM may use it meanwhile: Volume.Grow is for one in use.
func GrowVolumeFork(path string, key *Key, size uint64) error {
	err := withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		return C.vmcell_volume_grow_fork(texts[0], key.pointer(), C.uint64_t(size), e)
	}, path)
	runtime.KeepAlive(key)
	return err
}

// VolumeProgress is told how far work on a volume has come, in bytes of its disk, each MiB. It returns false to break off.
type VolumeProgress func(done, total uint64) bool

// FlattenVolume copies what a fork has from the volumes that it builds on into its own file, so that it builds on none. It returns false if progress, which may
// be nil, has broken off; the fork is as good as before then, and flattening it again goes on there. No VM may use it meanwhile.
func FlattenVolume(path string, key *Key, progress VolumeProgress) (bool, error) {
	return withProgress(progress, func(texts []*C.char, call C.vmcell_volume_progress, user unsafe.Pointer, done *C.int32_t, e **C.vmcell_error) C.int32_t {
		defer runtime.KeepAlive(key)
		return C.vmcell_volume_flatten(texts[0], key.pointer(), call, user, done, e)
	}, path)
}

// FlattenVolumeTo copies a volume, with all that it builds on, to a new file: a volume of its own, opened by newKey, which cryptsetup opens as well. If progress,
// which may be nil, breaks off, it returns false, and there is no new file.
func FlattenVolumeTo(path string, key *Key, to string, newKey *Key, progress VolumeProgress) (bool, error) {
	return withProgress(progress, func(texts []*C.char, call C.vmcell_volume_progress, user unsafe.Pointer, done *C.int32_t, e **C.vmcell_error) C.int32_t {
		defer runtime.KeepAlive([]*Key{key, newKey})
		return C.vmcell_volume_flatten_to(texts[0], key.pointer(), texts[1], newKey.pointer(), call, user, done, e)
	}, path, to)
}

// OtherForks is what becomes of other forks of a base to which one is committed.
type OtherForks int32

const (
	// OtherForksRefuse: the commit is refused, unless the base's header says that this is the only fork that was ever made over it.
	OtherForksRefuse OtherForks = C.VMCELL_OTHER_FORKS_REFUSE
	// OtherForksGiveUp: the caller vouches that there are none any more. If there is one, it is refused from the commit on.
	OtherForksGiveUp OtherForks = C.VMCELL_OTHER_FORKS_GIVE_UP
)

// CommitVolume writes a fork's changes into its base, which then may be written to, and removes the fork. It returns false if progress, which may be nil, has
// broken off: the fork has all data as before then, and the base opens alone no longer until the fork is committed again. No VM may use either meanwhile.
func CommitVolume(path string, key *Key, others OtherForks, progress VolumeProgress) (bool, error) {
	return withProgress(progress, func(texts []*C.char, call C.vmcell_volume_progress, user unsafe.Pointer, done *C.int32_t, e **C.vmcell_error) C.int32_t {
		defer runtime.KeepAlive(key)
		return C.vmcell_volume_commit(texts[0], key.pointer(), C.int32_t(others), call, user, done, e)
	}, path)
}

// withProgress makes a call that tells of its progress.
func withProgress(progress VolumeProgress, do func(texts []*C.char, call C.vmcell_volume_progress, user unsafe.Pointer, done *C.int32_t, e **C.vmcell_error) C.int32_t,
	values ...string) (bool, error) {
	var call C.vmcell_volume_progress
	var user unsafe.Pointer
	if progress != nil {
		number := cgo.NewHandle(progress)
		defer number.Delete()
		call, user = C.vmcell_volume_progress(C.vmcellVolumeProgress), unsafe.Pointer(&number)
	}
	var done C.int32_t
	err := withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t { return do(texts, call, user, &done, e) }, values...)
	return done != 0, err
}

//export vmcellVolumeProgress
func vmcellVolumeProgress(user unsafe.Pointer, done, total C.uint64_t) C.int32_t {
	if (*(*cgo.Handle)(user)).Value().(VolumeProgress)(uint64(done), uint64(total)) {
		return 0
	}
	return 1
}

// AddVolumeKey adds a key slot for key to the volume or the detached header at path, which may be in use and which with opens already. It returns the
// number of the key slot.
func AddVolumeKey(path string, with, key *Key) (uint32, error) {
	var slot C.uint32_t
	err := withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		return C.vmcell_volume_add_key(texts[0], with.pointer(), key.pointer(), &slot, e)
	}, path)
	runtime.KeepAlive([]*Key{with, key})
	return uint32(slot), err
}

// ChangeVolumeKey puts key in the place of old. At any moment one of them opens the volume.
func ChangeVolumeKey(path string, old, key *Key) (uint32, error) {
	var slot C.uint32_t
	err := withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		return C.vmcell_volume_change_key(texts[0], old.pointer(), key.pointer(), &slot, e)
	}, path)
	runtime.KeepAlive([]*Key{old, key})
	return uint32(slot), err
}

// RemoveVolumeKey overwrites a key slot and takes it out.
func RemoveVolumeKey(path string, slot uint32) error {
	return withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		return C.vmcell_volume_remove_key(texts[0], C.uint32_t(slot), e)
	}, path)
}

// BackUpVolumeHeader copies a header and its key slots to a new file, as cryptsetup luksHeaderBackup does.
func BackUpVolumeHeader(path, to string) error {
	return withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		return C.vmcell_volume_back_up_header(texts[0], texts[1], e)
	}, path, to)
}

// RestoreVolumeHeader puts a header back that was copied before: the keys of that moment open the volume again, and later ones no longer.
func RestoreVolumeHeader(path, from string) error {
	return withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		return C.vmcell_volume_restore_header(texts[0], texts[1], e)
	}, path, from)
}

// withTexts makes a call that takes texts.
func withTexts(call func(texts []*C.char, e **C.vmcell_error) C.int32_t, values ...string) error {
	pointers := make([]*C.char, len(values))
	for i, value := range values {
		t, err := newText(value)
		if err != nil {
			return err
		}
		defer t.free()
		pointers[i] = t.pointer
	}
	var e *C.vmcell_error
	number := call(pointers, &e)
	return failure(number, e)
}
