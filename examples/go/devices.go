package vmcell

/*
#include <vmcell.h>
*/
import "C"

import (
	"fmt"
	"runtime"
)

// change makes a call with the handle of a device, which is counted from 0.
func change[H any](vm *VM, what string, index int, get func(vm *C.vmcell_vm, index C.size_t, handle **H, e **C.vmcell_error) C.int32_t,
	free func(handle *H), do func(handle *H, e **C.vmcell_error) C.int32_t) error {
	if index < 0 {
		return &Error{Number: ErrInvalidConfig, Message: fmt.Sprintf("%s %d was asked for, allowed are 0 and above", what, index)}
	}
	var handle *H
	err := vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t { return get(h, C.size_t(index), &handle, e) })
	if err != nil {
		return err
	}
	defer free(handle)
	var e *C.vmcell_error
	number := do(handle, &e)
	runtime.KeepAlive(vm)
	return failure(number, e)
}

func (vm *VM) changeDisk(index int, do func(handle *C.vmcell_disk_handle, e **C.vmcell_error) C.int32_t) error {
	get := func(vm *C.vmcell_vm, index C.size_t, handle **C.vmcell_disk_handle, e **C.vmcell_error) C.int32_t {
		return C.vmcell_disk_handle_new_from_vm(vm, index, handle, e)
	}
	return change(vm, "disk", index, get, func(handle *C.vmcell_disk_handle) { C.vmcell_disk_handle_free(handle) }, do)
}

func (vm *VM) changeNIC(index int, do func(handle *C.vmcell_nic_handle, e **C.vmcell_error) C.int32_t) error {
	get := func(vm *C.vmcell_vm, index C.size_t, handle **C.vmcell_nic_handle, e **C.vmcell_error) C.int32_t {
		return C.vmcell_nic_handle_new_from_vm(vm, index, handle, e)
	}
	return change(vm, "nic", index, get, func(handle *C.vmcell_nic_handle) { C.vmcell_nic_handle_free(handle) }, do)
}

// RefreshDisk says that the file or block device of a disk may have another size now. The disk, counted from 0 in the order
// of Config.Description and then of Config.Disks, looks at it soon, and tells the guest.
func (vm *VM) RefreshDisk(index int) error {
	return vm.changeDisk(index, func(handle *C.vmcell_disk_handle, e **C.vmcell_error) C.int32_t {
		return C.vmcell_disk_handle_refresh(handle, e)
	})
}

// SetLink connects the link of an interface, or cuts it: the guest sees its cable plugged in, or pulled out. The interface is
// counted from 0 in the order of Config.Description and then of Config.NICs. At first its link is connected.
func (vm *VM) SetLink(index int, up bool) error {
	var connected C.int32_t
	if up {
		connected = 1
	}
	return vm.changeNIC(index, func(handle *C.vmcell_nic_handle, e **C.vmcell_error) C.int32_t {
		return C.vmcell_nic_handle_set_link(handle, connected, e)
	})
}

// Announce asks the guest to announce an interface to its neighbours, as after a move to another host. The interface is
// counted as by SetLink.
func (vm *VM) Announce(index int) error {
	return vm.changeNIC(index, func(handle *C.vmcell_nic_handle, e **C.vmcell_error) C.int32_t {
		return C.vmcell_nic_handle_announce(handle, e)
	})
}
