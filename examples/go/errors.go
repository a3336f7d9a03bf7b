package vmcell

/*
#include <vmcell.h>
*/
import "C"

import "fmt"

// Number tells apart what went wrong. It is an error itself, for errors.Is: errors.Is(err, vmcell.ErrTimeout).
type Number int32

// The numbers of vmcell.h, where each is explained.
const (
	ErrInvalidConfig  Number = C.VMCELL_ERROR_INVALID_CONFIG
	ErrBootImage      Number = C.VMCELL_ERROR_BOOT_IMAGE
	ErrDisk           Number = C.VMCELL_ERROR_DISK
	ErrNetwork        Number = C.VMCELL_ERROR_NETWORK
	ErrConsole        Number = C.VMCELL_ERROR_CONSOLE
	ErrKVMUnavailable Number = C.VMCELL_ERROR_KVM_UNAVAILABLE
	ErrKVM            Number = C.VMCELL_ERROR_KVM
	ErrHostMemory     Number = C.VMCELL_ERROR_HOST_MEMORY
	ErrGuestAddress   Number = C.VMCELL_ERROR_GUEST_ADDRESS
	ErrInvalidState   Number = C.VMCELL_ERROR_INVALID_STATE
	ErrHost           Number = C.VMCELL_ERROR_HOST
	ErrGuest          Number = C.VMCELL_ERROR_GUEST
	ErrTimeout        Number = C.VMCELL_ERROR_TIMEOUT
	ErrVirtqueue      Number = C.VMCELL_ERROR_VIRTQUEUE
	ErrVsock          Number = C.VMCELL_ERROR_VSOCK
	ErrSnapshot       Number = C.VMCELL_ERROR_SNAPSHOT
	ErrVolume         Number = C.VMCELL_ERROR_VOLUME
	ErrVolumeKey      Number = C.VMCELL_ERROR_VOLUME_KEY
	ErrSecret         Number = C.VMCELL_ERROR_SECRET
	ErrNullArgument   Number = C.VMCELL_ERROR_NULL_ARGUMENT
	ErrBadHandle      Number = C.VMCELL_ERROR_BAD_HANDLE
	ErrNotUTF8        Number = C.VMCELL_ERROR_NOT_UTF8
	ErrBadValue       Number = C.VMCELL_ERROR_BAD_VALUE
	ErrBadDescriptor  Number = C.VMCELL_ERROR_BAD_DESCRIPTOR
	ErrPanic          Number = C.VMCELL_ERROR_PANIC
)

// ErrClosed is what a call with a VM gives after Close.
const ErrClosed = ErrBadHandle

// Error implements error.
func (n Number) Error() string {
	if n == ErrBadHandle {
		return "it was closed or handed over before"
	}
	return fmt.Sprintf("vmcell error %d", int32(n))
}

// Error is why a call failed. It unwraps to its cause.
type Error struct {
	Number  Number
	Message string
	// Cause is nil where there is none.
	Cause error
}

// Error gives the message and its causes.
func (e *Error) Error() string {
	if e.Cause == nil {
		return e.Message
	}
	return e.Message + ": " + e.Cause.Error()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error {
	return e.Cause
}

// Is says whether target is the number of this error.
func (e *Error) Is(target error) bool {
	number, ok := target.(Number)
	return ok && number == e.Number
}

// cause is one link of the chain behind an Error.
type cause struct {
	message string
	next    error
}

func (c *cause) Error() string {
	if c.next == nil {
		return c.message
	}
	return c.message + ": " + c.next.Error()
}

func (c *cause) Unwrap() error {
	return c.next
}

// failure makes an error of what a call returned, and frees the library's.
func failure(number C.int32_t, e *C.vmcell_error) error {
	if number == C.VMCELL_OK {
		return nil
	}
	if e == nil {
		return &Error{Number: Number(number), Message: Number(number).Error()}
	}
	defer C.vmcell_error_free(e)
	var next error
	for index := C.vmcell_error_cause_count(e); index > 0; index-- {
		next = &cause{C.GoString(C.vmcell_error_cause(e, index-1)), next}
	}
	return &Error{Number: Number(number), Message: C.GoString(C.vmcell_error_message(e)), Cause: next}
}
