package vmcell

/*
#include <vmcell.h>

// In Go, the function for the moment of a snapshot is called by its caller's number.
int32_t vmcellAtStandstill(void *user);
*/
import "C"

import (
	"errors"
	"runtime/cgo"
	"syscall"
	"time"
	"unsafe"
)

// LoadMemory is how the RAM of a snapshot is taken from its file.
type LoadMemory int32

const (
	// LoadCopy copies it, and compares its checksums. The file may be changed or deleted afterwards.
	LoadCopy LoadMemory = C.VMCELL_LOAD_COPY
	// LoadMap maps the file, and reads it as a guest uses it. The caller vouches that nobody changes or cuts it for as long as the
	// snapshot or a VM that began with it lives: an access to what was cut off ends the process (SIGBUS).
	LoadMap LoadMemory = C.VMCELL_LOAD_MAP
)

// ForkClock is what the clocks of a VM show that begins with a snapshot.
type ForkClock int32

const (
	// ForkClockJump: the time since the snapshot has passed.
	ForkClockJump ForkClock = C.VMCELL_FORK_CLOCK_JUMP
	// ForkClockKeep: no time has passed.
	ForkClockKeep ForkClock = C.VMCELL_FORK_CLOCK_KEEP
)

// Snapshot is a VM at one moment: all of it but the content of disks. Any number of VMs begin with it, by Config.ForkOf. Close it when it is no
// longer needed; VMs that began with it go on.
type Snapshot struct{ handle *C.vmcell_snapshot }

// Snapshot takes a snapshot of a VM that runs or is paused. If it ran, it goes on afterwards. With Backing Memfd, it stands still for some
// milliseconds; otherwise for as long as copying its RAM takes. If atStandstill is not nil, it is called meanwhile, on another goroutine's behalf,
// to copy disks for instance; its error is that of the call, and it must not call a method of a VM.
func (vm *VM) Snapshot(atStandstill func() error) (*Snapshot, error) {
	snapshot := &Snapshot{}
	var said error
	var call C.vmcell_at_standstill
	var user unsafe.Pointer
	if atStandstill != nil {
		number := cgo.NewHandle(func() error {
			said = atStandstill()
			return said
		})
		defer number.Delete()
		call, user = C.vmcell_at_standstill(C.vmcellAtStandstill), unsafe.Pointer(&number)
	}
	err := vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t {
		return C.vmcell_vm_snapshot(h, call, user, &snapshot.handle, e)
	})
	if said != nil {
		return nil, said
	}
	if err != nil {
		return nil, err
	}
	return snapshot, nil
}

//export vmcellAtStandstill
func vmcellAtStandstill(user unsafe.Pointer) C.int32_t {
	call := (*(*cgo.Handle)(user)).Value().(func() error)
	err := call()
	var number syscall.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &number) && number > 0:
		return C.int32_t(number)
	}
	return C.int32_t(syscall.ECANCELED)
}

// Suspend pauses the VM, saves it in a file as Snapshot.Save does, and gives its RAM back to the host until Resume takes it from the file: with
// LoadCopy all of it at once, with LoadMap as the guest uses it. Until then, nothing may be changed in the file.
func (vm *VM) Suspend(path string, memory LoadMemory) error {
	name, err := newText(path)
	if err != nil {
		return err
	}
	defer name.free()
	return vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t {
		return C.vmcell_vm_suspend(h, name.pointer, C.int32_t(memory), e)
	})
}

// SaveOptions say how a snapshot is put in a file. The zero value is all of it, as fast as it can be.
type SaveOptions struct {
	// Since is an older snapshot of the same VM, whose file is called SinceName and stays in the same folder: what lies there is left out.
	Since     *Snapshot
	SinceName string
	// BytesPerSecond is how much RAM is written a second at most, 65,536 or more; 0 is no limit.
	BytesPerSecond uint64
}

// Save puts the snapshot in a file, which takes the place of one of that name once it is whole and on storage. It can be read by its owner alone, and
// holds what the guest had in its memory, secrets too.
func (snapshot *Snapshot) Save(path string, options SaveOptions) error {
	name, err := newText(path)
	if err != nil {
		return err
	}
	defer name.free()
	var older *C.vmcell_snapshot
	var olderName text
	if options.Since != nil {
		if olderName, err = newText(options.SinceName); err != nil {
			return err
		}
		defer olderName.free()
		older = options.Since.handle
	}
	var e *C.vmcell_error
	number := C.vmcell_snapshot_save(snapshot.handle, name.pointer, older, olderName.pointer, C.uint64_t(options.BytesPerSecond), &e)
	return failure(number, e)
}

// LoadSnapshot takes a snapshot from a file, and from those that it builds on.
func LoadSnapshot(path string, memory LoadMemory) (*Snapshot, error) {
	name, err := newText(path)
	if err != nil {
		return nil, err
	}
	defer name.free()
	snapshot := &Snapshot{}
	var e *C.vmcell_error
	if err := failure(C.vmcell_snapshot_load(name.pointer, C.int32_t(memory), &snapshot.handle, &e), e); err != nil {
		return nil, err
	}
	return snapshot, nil
}

// SaveWorkingSet puts in a file which parts of its RAM the guest has used since the VM began, for [Snapshot.ReadAhead].
func (vm *VM) SaveWorkingSet(path string) error {
	name, err := newText(path)
	if err != nil {
		return err
	}
	defer name.free()
	return vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t {
		return C.vmcell_vm_save_working_set(h, name.pointer, e)
	})
}

// ReadAhead asks the host to read those parts of the RAM into its cache that a file of [VM.SaveWorkingSet] names: VMs that begin with a snapshot
// that was mapped ([LoadMap]) are faster then. It does not wait until all is read.
func (snapshot *Snapshot) ReadAhead(path string) error {
	name, err := newText(path)
	if err != nil {
		return err
	}
	defer name.free()
	var e *C.vmcell_error
	number := C.vmcell_snapshot_read_ahead(snapshot.handle, name.pointer, &e)
	return failure(number, e)
}

// Standstill is for how long the VM stood still for the snapshot; 0 if it was paused already, or if the snapshot was loaded.
func (snapshot *Snapshot) Standstill() (time.Duration, error) {
	var nanoseconds C.uint64_t
	var e *C.vmcell_error
	err := failure(C.vmcell_snapshot_standstill(snapshot.handle, &nanoseconds, &e), e)
	return time.Duration(nanoseconds), err
}

// Close lets go of the snapshot. VMs that began with it go on.
func (snapshot *Snapshot) Close() error {
	return failure(C.vmcell_snapshot_free(snapshot.handle), nil)
}

// MemoryUse is how many bytes the host keeps for the guest's RAM: what is this VM's alone, and what it uses of a snapshot, which others that
// began with it may use as well.
func (vm *VM) MemoryUse() (own, shared uint64, err error) {
	var ownBytes, sharedBytes C.uint64_t
	err = vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t {
		return C.vmcell_vm_memory_use(h, &ownBytes, &sharedBytes, e)
	})
	return uint64(ownBytes), uint64(sharedBytes), err
}
