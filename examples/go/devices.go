package vmcell

/*
#include <vmcell.h>
*/
import "C"

import "fmt"

// devices holds the handles by which the devices of a VM are changed, in the order of the configuration.
type devices struct {
	disks []*C.vmcell_disk_handle
	nics  []*C.vmcell_nic_handle
}

func (d devices) free() {
	for _, disk := range d.disks {
		C.vmcell_disk_handle_free(disk)
	}
	for _, nic := range d.nics {
		C.vmcell_nic_handle_free(nic)
	}
}

// at gives the handle of a device that the configuration has.
func at[H any](handles []H, what string, index int) (handle H, err error) {
	if index < 0 || index >= len(handles) {
		message := fmt.Sprintf("%s %d was asked for, the VM has %d", what, index, len(handles))
		return handle, &Error{Number: ErrInvalidConfig, Message: message}
	}
	return handles[index], nil
}

// RefreshDisk says that the file or block device of a disk may have another size now. The disk, counted from 0 in the order
// of Config.Disks, looks at it soon, and tells the guest.
func (vm *VM) RefreshDisk(index int) error {
	handle, err := at(vm.devices.disks, "disk", index)
	if err != nil {
		return err
	}
	return vm.call(func(_ *C.vmcell_vm, e **C.vmcell_error) C.int32_t { return C.vmcell_disk_handle_refresh(handle, e) })
}

// SetLink connects the link of an interface, or cuts it: the guest sees its cable plugged in, or pulled out. The interface is
// counted from 0 in the order of Config.NICs. At first its link is connected.
func (vm *VM) SetLink(index int, up bool) error {
	handle, err := at(vm.devices.nics, "interface", index)
	if err != nil {
		return err
	}
	var connected C.int32_t
	if up {
		connected = 1
	}
	return vm.call(func(_ *C.vmcell_vm, e **C.vmcell_error) C.int32_t {
		return C.vmcell_nic_handle_set_link(handle, connected, e)
	})
}

// Announce asks the guest to announce an interface to its neighbours, as after a move to another host. The interface is
// counted as by SetLink.
func (vm *VM) Announce(index int) error {
	handle, err := at(vm.devices.nics, "interface", index)
	if err != nil {
		return err
	}
	return vm.call(func(_ *C.vmcell_vm, e **C.vmcell_error) C.int32_t { return C.vmcell_nic_handle_announce(handle, e) })
}
