package vmcell

/*
#include <vmcell.h>
*/
import "C"

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// ExitKind is how a VM ended.
type ExitKind int32

const (
	// Shutdown is a guest that turned itself off.
	Shutdown ExitKind = C.VMCELL_EXIT_SHUTDOWN
	// Reset is a guest that asked for a restart.
	Reset ExitKind = C.VMCELL_EXIT_RESET
	// Stopped is a VM that was ended from outside.
	Stopped ExitKind = C.VMCELL_EXIT_STOPPED
	// Failed is a guest that did something that cannot be served, or a host that failed.
	Failed ExitKind = C.VMCELL_EXIT_FAILED
	// Panicked is a guest whose kernel said that it panicked, by pvpanic.
	Panicked ExitKind = C.VMCELL_EXIT_PANICKED
)

// ResetCause is by which way a guest asked for a restart.
type ResetCause int32

const (
	// ResetACPI is the register that the ACPI tables name.
	ResetACPI ResetCause = C.VMCELL_RESET_ACPI
	// ResetKeyboardController is the reset line of the keyboard controller.
	ResetKeyboardController ResetCause = C.VMCELL_RESET_KEYBOARD_CONTROLLER
	// ResetTripleFault is a triple fault.
	ResetTripleFault ResetCause = C.VMCELL_RESET_TRIPLE_FAULT
	// ResetSystemEvent is a request to KVM itself.
	ResetSystemEvent ResetCause = C.VMCELL_RESET_SYSTEM_EVENT
)

// String names the way.
func (c ResetCause) String() string {
	switch c {
	case ResetACPI:
		return "the ACPI reset register"
	case ResetKeyboardController:
		return "the keyboard controller"
	case ResetTripleFault:
		return "a triple fault"
	case ResetSystemEvent:
		return "a request to KVM"
	}
	return fmt.Sprintf("cause %d", int32(c))
}

// Exit tells how a VM ended.
type Exit struct {
	Kind ExitKind
	// Cause is of a Reset only.
	Cause ResetCause
	// Err is of a Failed one only.
	Err error
}

// IsCrash tells whether the guest crashed, or the host failed under it: Panicked, Failed, and a Reset by a triple fault.
func (e Exit) IsCrash() bool {
	return e.Kind == Panicked || e.Kind == Failed || e.Kind == Reset && e.Cause == ResetTripleFault
}

// String tells it as a clause, with all causes of a failure.
func (e Exit) String() string {
	switch e.Kind {
	case Shutdown:
		return "the guest turned itself off"
	case Reset:
		return "the guest reset itself by " + e.Cause.String()
	case Stopped:
		return "the VM was stopped"
	case Panicked:
		return "the guest panicked"
	case Failed:
		return fmt.Sprintf("the VM failed: %v", e.Err)
	}
	return fmt.Sprintf("exit %d", int32(e.Kind))
}

// exit tells how a VM ended that has ended.
func (vm *VM) exit() (Exit, error) {
	var kind, reset C.int32_t
	err := vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t {
		// The descriptor says that it has; the threads are on their last steps.
		return C.vmcell_vm_wait(h, 1000, &kind, e)
	})
	exit := Exit{Kind: ExitKind(kind)}
	if err != nil {
		return exit, err
	}
	switch exit.Kind {
	case Reset:
		err = vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t { return C.vmcell_vm_reset_cause(h, &reset, e) })
		exit.Cause = ResetCause(reset)
	case Failed:
		var why *C.vmcell_error
		err = vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t { return C.vmcell_vm_exit_error(h, &why, e) })
		if err == nil {
			exit.Err = failure(C.vmcell_error_number(why), why)
		}
	}
	return exit, err
}

// endedFile duplicates the descriptor that tells of the end: ours may be closed.
func endedFile(handle *C.vmcell_vm) (*os.File, error) {
	var fd C.int32_t
	var e *C.vmcell_error
	if err := failure(C.vmcell_vm_ended_fd(handle, &fd, &e), e); err != nil {
		return nil, err
	}
	return duplicate(uintptr(fd), "vmcell-ended")
}

// duplicate gives a file of its own for what a descriptor refers to.
func duplicate(fd uintptr, name string) (*os.File, error) {
	own, _, errno := syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_DUPFD_CLOEXEC, 0)
	if errno != 0 {
		return nil, os.NewSyscallError("fcntl", errno)
	}
	return os.NewFile(own, name), nil
}

// duplicateFile is duplicate for a file that stays as it is, also if it is closed meanwhile.
func duplicateFile(file *os.File) (own *os.File, err error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	if failed := raw.Control(func(fd uintptr) { own, err = duplicate(fd, file.Name()) }); failed != nil {
		return nil, failed
	}
	return own, err
}

// pollfd is struct pollfd of poll(2).
type pollfd struct {
	fd      int32
	events  int16
	revents int16
}

const pollIn = 1

// isReadable looks, and does not wait.
func isReadable(fd uintptr) bool {
	poll := pollfd{fd: int32(fd), events: pollIn}
	var now syscall.Timespec
	count, _, _ := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&poll)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	return int(count) == 1
}

// awaitReadable parks the goroutine until the file is readable, which is not read from, or ctx is done.
func awaitReadable(ctx context.Context, file *os.File) error {
	// A file of this waiter's own: its deadline is nobody else's.
	own, err := duplicateFile(file)
	if err != nil {
		return err
	}
	defer own.Close()
	raw, err := own.SyscallConn()
	if err != nil {
		return err
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-ctx.Done():
			own.SetReadDeadline(time.Unix(1, 0))
		case <-done:
		}
	}()
	err = raw.Read(isReadable)
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
