package vmcell

/*
#include <stdint.h>
#include <vmcell.h>
*/
import "C"

// Rate is how much a device may do: so much a second, and so much at once after a time in which it did nothing, each 1 to 2^40. The zero
// value is no limit.
type Rate struct {
	PerSecond, Burst uint64
}

// PerSecond is so much a second, and as much at once as in a second.
func PerSecond(n uint64) Rate {
	return Rate{PerSecond: n, Burst: n}
}

// Limits is what a disk may do, or one direction of an interface. A read, a write, a flush, each range of a discard, and a frame is an
// operation; bytes are those of reads, writes, zeroes and frames. What exceeds a limit waits, and does not hold other devices up.
type Limits struct {
	Operations, Bytes Rate
}

// numbers has them in the order in which C takes them.
func (l Limits) numbers() (C.uint64_t, C.uint64_t, C.uint64_t, C.uint64_t) {
	return C.uint64_t(l.Operations.PerSecond), C.uint64_t(l.Operations.Burst), C.uint64_t(l.Bytes.PerSecond), C.uint64_t(l.Bytes.Burst)
}

// LimitGroup is limits that several disks and interfaces keep to together, of one VM or of several. None of them starves, and those that
// want more than there is get the same in the long run.
type LimitGroup struct{ handle *C.vmcell_limit_group }

// NewLimitGroup makes a group.
func NewLimitGroup(limits Limits) (*LimitGroup, error) {
	group := &LimitGroup{}
	var e *C.vmcell_error
	operations, operationsBurst, bytes, bytesBurst := limits.numbers()
	number := C.vmcell_limit_group_new(operations, operationsBurst, bytes, bytesBurst, &group.handle, &e)
	if err := failure(number, e); err != nil {
		return nil, err
	}
	return group, nil
}

// SetLimits sets other limits, at once and also for requests that wait.
func (group *LimitGroup) SetLimits(limits Limits) error {
	var e *C.vmcell_error
	operations, operationsBurst, bytes, bytesBurst := limits.numbers()
	return failure(C.vmcell_limit_group_set_limits(group.handle, operations, operationsBurst, bytes, bytesBurst, &e), e)
}

// Close lets go of the group. Devices that are in it keep to its limits.
func (group *LimitGroup) Close() error {
	return failure(C.vmcell_limit_group_free(group.handle), nil)
}

func (d *describer) withGroup(group *LimitGroup, call func(h *C.vmcell_limit_group, e **C.vmcell_error) C.int32_t) {
	if group != nil {
		d.do(func(e **C.vmcell_error) C.int32_t { return call(group.handle, e) })
	}
}

func (disk Disk) limit(d *describer, h *C.vmcell_disk) {
	if disk.Limits != (Limits{}) {
		a, b, c, f := disk.Limits.numbers()
		d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_disk_set_limits(h, a, b, c, f, e) })
	}
	d.withGroup(disk.LimitGroup, func(group *C.vmcell_limit_group, e **C.vmcell_error) C.int32_t {
		return C.vmcell_disk_set_limit_group(h, group, e)
	})
}

func (nic NIC) limit(d *describer, h *C.vmcell_nic) {
	if nic.ReceiveLimits != (Limits{}) {
		a, b, c, f := nic.ReceiveLimits.numbers()
		d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_nic_set_receive_limits(h, a, b, c, f, e) })
	}
	if nic.SendLimits != (Limits{}) {
		a, b, c, f := nic.SendLimits.numbers()
		d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_nic_set_send_limits(h, a, b, c, f, e) })
	}
	d.withGroup(nic.ReceiveGroup, func(group *C.vmcell_limit_group, e **C.vmcell_error) C.int32_t {
		return C.vmcell_nic_set_receive_group(h, group, e)
	})
	d.withGroup(nic.SendGroup, func(group *C.vmcell_limit_group, e **C.vmcell_error) C.int32_t {
		return C.vmcell_nic_set_send_group(h, group, e)
	})
}

// SetRNGRate sets how many random bytes the guest gets at most, at once and also for a request that waits. The zero value is no limit. The
// error is ErrInvalidConfig if the VM has no RNG.
func (vm *VM) SetRNGRate(rate Rate) error {
	return vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t {
		return C.vmcell_vm_set_rng_rate(h, C.uint64_t(rate.PerSecond), C.uint64_t(rate.Burst), e)
	})
}

// SetConsoleRate sets how many bytes of the guest's output the console's sinks get at most, at once and also for output that waits. The zero
// value is no limit.
func (vm *VM) SetConsoleRate(rate Rate) error {
	return vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t {
		return C.vmcell_vm_set_console_rate(h, C.uint64_t(rate.PerSecond), C.uint64_t(rate.Burst), e)
	})
}

// SetDiskLimits sets other limits for a disk, counted as by RefreshDisk, at once and also for a request that waits. The zero value is no
// limits.
func (vm *VM) SetDiskLimits(index int, limits Limits) error {
	a, b, c, f := limits.numbers()
	return vm.changeDisk(index, func(handle *C.vmcell_disk_handle, e **C.vmcell_error) C.int32_t {
		return C.vmcell_disk_handle_set_limits(handle, a, b, c, f, e)
	})
}

// SetReceiveLimits sets other limits for the frames that the guest gets from an interface, counted as by SetLink.
func (vm *VM) SetReceiveLimits(index int, limits Limits) error {
	a, b, c, f := limits.numbers()
	return vm.changeNIC(index, func(handle *C.vmcell_nic_handle, e **C.vmcell_error) C.int32_t {
		return C.vmcell_nic_handle_set_receive_limits(handle, a, b, c, f, e)
	})
}

// SetSendLimits sets other limits for the frames that the guest sends.
func (vm *VM) SetSendLimits(index int, limits Limits) error {
	a, b, c, f := limits.numbers()
	return vm.changeNIC(index, func(handle *C.vmcell_nic_handle, e **C.vmcell_error) C.int32_t {
		return C.vmcell_nic_handle_set_send_limits(handle, a, b, c, f, e)
	})
}
