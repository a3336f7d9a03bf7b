package vmcell

/*
#include <stdint.h>
#include <vmcell.h>

extern int32_t vmcellGoThreadStart(int32_t role, uint32_t index, void *user);
extern void vmcellGoRelease(void *user);
*/
import "C"

import (
	"errors"
	"fmt"
	"math"
	"runtime/cgo"
	"syscall"
	"unsafe"
)

// ThreadRole is what a thread of a VM does.
type ThreadRole int32

const (
	// VCPUThread runs the vCPU of its index.
	VCPUThread ThreadRole = C.VMCELL_THREAD_VCPU
	// VMIOThread serves the VM's devices and its console; its index is 0.
	VMIOThread ThreadRole = C.VMCELL_THREAD_IO
	// DeviceIOThread serves one device alone. Its index is the place of the device in the order in which the guest finds them.
	DeviceIOThread ThreadRole = C.VMCELL_THREAD_DEVICE_IO
)

// String names the role.
func (r ThreadRole) String() string {
	switch r {
	case VCPUThread:
		return "vCPU"
	case VMIOThread:
		return "I/O"
	case DeviceIOThread:
		return "device I/O"
	}
	return fmt.Sprintf("role %d", int32(r))
}

// Thread is one thread of a VM. The kernel knows it as /proc/self/task/TID, by which it can be moved to a cgroup.
type Thread struct {
	Role  ThreadRole
	Index uint32
	TID   int
}

// Threads gives the threads of the VM: those of its vCPUs, once it was started, and then its own I/O threads.
func (vm *VM) Threads() ([]Thread, error) {
	// As many as a VM can have: 64 vCPUs, an I/O thread, and one for each device.
	var found [256]C.vmcell_thread
	var count C.size_t
	err := vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t {
		return C.vmcell_vm_threads(h, &found[0], C.size_t(len(found)), &count, e)
	})
	if err != nil {
		return nil, err
	}
	var threads []Thread
	for _, thread := range found[:count] {
		threads = append(threads, Thread{ThreadRole(thread.role), uint32(thread.index), int(thread.tid)})
	}
	return threads, nil
}

// Seccomp is what becomes of a system call that a thread of a VM has no reason to make; docs/confinement.md has the list. Functions of
// Go's that are called on these threads run under the filter, as do the threads that Go's runtime starts from there, so that a program
// whose console or backend is a function should leave it off.
type Seccomp int32

const (
	// SeccompDefault is what the description says, or else SeccompOff.
	SeccompDefault Seccomp = iota
	// SeccompOff filters nothing. The numbers of C's constants follow each other in this order.
	SeccompOff
	// SeccompRefuse has the call fail with ENOSYS, as if the kernel did not have it.
	SeccompRefuse
	// SeccompKill ends the process by SIGSYS.
	SeccompKill
)

func (c Config) threads(d *describer) {
	if c.Name != "" {
		d.withText(c.Name, func(t *C.char, e **C.vmcell_error) C.int32_t { return C.vmcell_config_set_name(d.config, t, e) })
	}
	for vcpu, cpus := range c.VCPUAffinity {
		d.do(func(e **C.vmcell_error) C.int32_t {
			return C.vmcell_config_set_vcpu_affinity(d.config, C.uint32_t(vcpu), numbers(cpus), C.size_t(len(cpus)), e)
		})
	}
	if c.Seccomp != SeccompDefault {
		number := C.int32_t(c.Seccomp - SeccompOff + C.VMCELL_SECCOMP_OFF)
		d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_config_set_seccomp(d.config, number, e) })
	}
	if c.CoreScheduling {
		d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_config_set_core_scheduling(d.config, 1, e) })
	}
	if c.IOAffinity != nil {
		d.do(func(e **C.vmcell_error) C.int32_t {
			return C.vmcell_config_set_io_affinity(d.config, numbers(c.IOAffinity), C.size_t(len(c.IOAffinity)), e)
		})
	}
	if c.Polling != nil {
		d.do(func(e **C.vmcell_error) C.int32_t {
			micros := c.Polling.Microseconds()
			if micros < 0 || micros > math.MaxUint32 {
				micros = math.MaxUint32 // refused, as all above a thousand are
			}
			return C.vmcell_config_set_polling(d.config, C.uint32_t(micros), e)
		})
	}
	if c.OnThreadStart != nil && d.err == nil {
		user := keep(c.OnThreadStart)
		d.do(func(e **C.vmcell_error) C.int32_t {
			return C.vmcell_config_set_thread_start(d.config, C.vmcell_thread_start(C.vmcellGoThreadStart), user,
				C.vmcell_release(C.vmcellGoRelease), e)
		})
	}
}

//export vmcellGoThreadStart
func vmcellGoThreadStart(role C.int32_t, index C.uint32_t, user unsafe.Pointer) C.int32_t {
	start := cgo.Handle(uintptr(user)).Value().(func(ThreadRole, uint32) error)
	err := start(ThreadRole(role), uint32(index))
	var errno syscall.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &errno) && errno != 0:
		return C.int32_t(errno)
	}
	return C.int32_t(syscall.ECANCELED)
}

// numbers points to the first of some numbers, which stay where they are for the call that it is made for.
func numbers(values []uint32) *C.uint32_t {
	if len(values) == 0 {
		return nil
	}
	return (*C.uint32_t)(&values[0])
}
