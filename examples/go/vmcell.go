// Package vmcell runs micro-VMs on Linux/KVM.
//
// It wraps the C library of the same name, which pkg-config must find. A first VM:
//
//	vm, err := vmcell.New(vmcell.Config{Kernel: "vmlinuz", Cmdline: "console=ttyS0", Stdout: os.Stdout})
//	if err != nil {
//		return err
//	}
//	defer vm.Close()
//	if err := vm.Start(ctx); err != nil {
//		return err
//	}
//	exit, err := vm.Wait(ctx)
//
// A VM may be used by any number of goroutines at once, and none of them needs to stay on its thread. A call holds a thread
// only for as long as the library works; waiting for a VM does not.
package vmcell

/*
#cgo pkg-config: vmcell
#include <stdlib.h>
#include <vmcell.h>
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"sync"
	"time"
	"unsafe"
)

// Version tells which version of the library is in use.
func Version() string {
	return C.GoString(C.vmcell_version())
}

// HasFeature tells whether the library in use has a feature; vmcell.h lists their names.
func HasFeature(name string) bool {
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	return C.vmcell_has_feature(text) == 1
}

// Objects counts the objects of the library that this process holds: for tests that want to know whether one was left over.
func Objects() uint64 {
	return uint64(C.vmcell_handle_count())
}

// Status is what a VM is doing.
type Status int32

const (
	// Ready is a VM that was made and not started.
	Ready Status = C.VMCELL_STATUS_READY
	// Running is a VM whose vCPUs run.
	Running Status = C.VMCELL_STATUS_RUNNING
	// Paused is a VM whose vCPUs and devices stand still.
	Paused Status = C.VMCELL_STATUS_PAUSED
	// Ended is a VM that has ended: Wait returns at once.
	Ended Status = C.VMCELL_STATUS_ENDED
	// Ending is a VM that is about to end: it executes nothing more, and not all of its threads have left.
	Ending Status = C.VMCELL_STATUS_ENDING
)

// String names the status.
func (s Status) String() string {
	switch s {
	case Ready:
		return "ready"
	case Running:
		return "running"
	case Paused:
		return "paused"
	case Ended:
		return "ended"
	case Ending:
		return "ending"
	}
	return fmt.Sprintf("status %d", int32(s))
}

// VM is a virtual machine. Close it when it is no longer needed.
type VM struct {
	handle *C.vmcell_vm
	// A descriptor of our own for the end of the VM.
	ended   *os.File
	console *streams

	mu      sync.Mutex
	unwatch context.CancelFunc

	closing sync.Once
	closed  error
}

// New makes a VM: everything is checked, the kernel is loaded, nothing runs. Start starts it.
func New(config Config) (*VM, error) {
	console, err := newStreams(config)
	if err != nil {
		return nil, err
	}
	c, err := config.describe(console)
	if err != nil {
		console.abandon()
		return nil, err
	}
	vm := &VM{console: console}
	var e *C.vmcell_error
	// The configuration is taken, whatever comes of it.
	if err := failure(C.vmcell_vm_new(c, &vm.handle, &e), e); err != nil {
		console.abandon()
		return nil, err
	}
	if vm.ended, err = endedFile(vm.handle); err != nil {
		C.vmcell_vm_free(vm.handle)
		console.abandon()
		return nil, err
	}
	// Only a safety net: a VM holds memory and threads that the garbage collector knows nothing of.
	runtime.SetFinalizer(vm, func(vm *VM) { vm.Close() })
	return vm, nil
}

// call makes one call with the VM, which stays alive for as long as that takes.
func (vm *VM) call(do func(handle *C.vmcell_vm, e **C.vmcell_error) C.int32_t) error {
	var e *C.vmcell_error
	number := do(vm.handle, &e)
	runtime.KeepAlive(vm)
	return failure(number, e)
}

// Start starts the vCPUs and returns at once. When ctx is done before the VM has ended, the VM is stopped, as
// exec.CommandContext does with a process; also if ctx was done before the call, which gives its error then.
func (vm *VM) Start(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		vm.RequestStop()
		return err
	}
	err := vm.console.start(func() error {
		return vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t { return C.vmcell_vm_start(h, e) })
	})
	if err != nil {
		return err
	}
	if ctx.Done() == nil {
		return nil
	}
	watching, unwatch := context.WithCancel(ctx)
	vm.mu.Lock()
	vm.unwatch = unwatch
	vm.mu.Unlock()
	handle := vm.handle
	// Not the VM itself, which would never be garbage then. A handle that was freed is refused, and does no harm.
	go func() {
		<-watching.Done()
		if ctx.Err() != nil {
			C.vmcell_vm_stop(handle, nil)
		}
	}()
	return nil
}

// Pause makes vCPUs and devices stand still; it waits for a slow disk for at most ten seconds.
func (vm *VM) Pause() error {
	return vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t { return C.vmcell_vm_pause(h, e) })
}

// PauseWithin does the same as Pause, for at most limit, of which a part of a millisecond counts as a whole one. If a device still has
// requests in flight then, or a vCPU is in the guest, it fails with ErrTimeout, and the VM goes on.
func (vm *VM) PauseWithin(limit time.Duration) error {
	millis, err := limitMillis("a pause", limit)
	if err != nil {
		return err
	}
	return vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t { return C.vmcell_vm_pause_within(h, millis, e) })
}

// limitMillis gives a time limit in milliseconds, of which a part counts as a whole one. One above seven weeks is as good as seven weeks.
func limitMillis(what string, limit time.Duration) (C.uint32_t, error) {
	switch {
	case limit < 0:
		return 0, &Error{Number: ErrBadValue, Message: fmt.Sprintf("%s within %v was asked for, allowed are 0 and above", what, limit)}
	case limit >= math.MaxUint32*time.Millisecond:
		return math.MaxUint32, nil
	}
	return C.uint32_t((uint64(limit) + uint64(time.Millisecond) - 1) / uint64(time.Millisecond)), nil
}

// Resume lets a paused VM go on.
func (vm *VM) Resume() error {
	return vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t { return C.vmcell_vm_resume(h, e) })
}

// RequestShutdown asks the guest to shut down, as a power button does. A guest that does not listen goes on: wait with a time limit,
// then Stop it. A guest that was started with DiscoveryCmdline has no such button.
func (vm *VM) RequestShutdown() error {
	return vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t { return C.vmcell_vm_request_shutdown(h, e) })
}

// Stop ends the VM within 100 ms, whatever the guest does. The guest gets no chance to write its disks back.
func (vm *VM) Stop() error {
	return vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t { return C.vmcell_vm_stop(h, e) })
}

// RequestStop tells the VM to end, as Stop does, and does not wait for that; Wait does.
func (vm *VM) RequestStop() error {
	return vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t { return C.vmcell_vm_request_stop(h, e) })
}

// Status tells what the VM is doing.
func (vm *VM) Status() (Status, error) {
	var status C.int32_t
	err := vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t { return C.vmcell_vm_status(h, &status, e) })
	return Status(status), err
}

// Wait waits until the VM has ended and tells how, or until ctx is done, which does not end the VM. Everything that the
// guest printed has been written to Config.Stdout then. Any number of goroutines may wait, also before Start, and no thread
// does.
func (vm *VM) Wait(ctx context.Context) (Exit, error) {
	if err := vm.look(); err != nil && !errors.Is(err, ErrTimeout) {
		return Exit{}, err
	}
	if err := awaitReadable(ctx, vm.ended); err != nil {
		if errors.Is(err, os.ErrClosed) {
			return Exit{}, vm.look()
		}
		return Exit{}, err
	}
	if err := vm.console.finish(ctx); err != nil {
		return Exit{}, err
	}
	return vm.exit()
}

func (vm *VM) look() error {
	return vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t { return C.vmcell_vm_wait(h, 0, nil, e) })
}

// Close stops the VM and frees what it holds: its memory, its threads, its descriptors. A second call does nothing.
func (vm *VM) Close() error {
	return vm.close(func() C.int32_t { return C.vmcell_vm_free(vm.handle) })
}

// Discard does what Close does, on a thread of the library, and does not wait for it.
func (vm *VM) Discard() error {
	return vm.close(func() C.int32_t { return C.vmcell_vm_discard(vm.handle) })
}

// Discarded counts the VMs of this process that were discarded and are not freed yet.
func Discarded() uint64 {
	return uint64(C.vmcell_vms_discarded())
}

// WaitDiscarded waits until no such VM is left, or ctx is done.
func WaitDiscarded(ctx context.Context) error {
	var fd C.int32_t
	var e *C.vmcell_error
	if err := failure(C.vmcell_vms_discards_done_fd(&fd, &e), e); err != nil {
		return err
	}
	done, err := duplicate(uintptr(fd), "vmcell-discards-done")
	if err != nil {
		return err
	}
	defer done.Close()
	return awaitReadable(ctx, done)
}

// Abandoned counts what waits for a host that does not answer, although its VM was closed: threads of consoles, threads of disks, and
// transfers of disks by io_uring. Each ends when the host answers, or with the process.
func Abandoned() (consoleThreads, diskThreads, diskTransfers uint64) {
	return uint64(C.vmcell_console_threads_abandoned()), uint64(C.vmcell_disk_threads_abandoned()),
		uint64(C.vmcell_disk_transfers_abandoned())
}

func (vm *VM) close(free func() C.int32_t) error {
	vm.closing.Do(func() {
		runtime.SetFinalizer(vm, nil)
		vm.closed = failure(free(), nil)
		vm.mu.Lock()
		if vm.unwatch != nil {
			vm.unwatch()
		}
		vm.mu.Unlock()
		vm.ended.Close()
		vm.console.abandon()
	})
	return vm.closed
}

// Console gives a writer that types into the guest's console, for VMs without Config.Stdin and with it. It waits while the
// guest does not read, until the VM has ended.
func (vm *VM) Console() io.Writer {
	return consoleWriter{vm}
}

type consoleWriter struct{ vm *VM }

// How long to leave a guest alone that has not read what was typed.
const patience = 2 * time.Millisecond

// Write implements io.Writer.
func (w consoleWriter) Write(bytes []byte) (int, error) {
	written := 0
	for written < len(bytes) {
		var taken C.size_t
		rest := bytes[written:]
		err := w.vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t {
			return C.vmcell_vm_write_console(h, (*C.uint8_t)(unsafe.Pointer(&rest[0])), C.size_t(len(rest)), &taken, e)
		})
		if err != nil {
			return written, err
		}
		written += int(taken)
		if taken == 0 {
			if status, err := w.vm.Status(); err != nil || status == Ended || status == Ending {
				return written, io.ErrClosedPipe
			}
			time.Sleep(patience)
		}
	}
	return written, nil
}

// Dropped tells how many bytes of what the guest printed were dropped so far, since nobody took them.
func (vm *VM) Dropped() (uint64, error) {
	var bytes C.uint64_t
	err := vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t {
		return C.vmcell_vm_console_dropped(h, &bytes, e)
	})
	return uint64(bytes), err
}
