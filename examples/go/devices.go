package vmcell

/*
#include <vmcell.h>
*/
import "C"

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
)

// withFiles makes a call that takes copies of open files.
func (d *describer) withFiles(files []*os.File, call func(fds []C.int32_t, e **C.vmcell_error) C.int32_t) {
	if d.err != nil {
		return
	}
	fds := make([]C.int32_t, len(files))
	for i, file := range files {
		// If the file is closed, this error has its name; that of the duplication has none.
		_, err := file.Stat()
		fd := -1
		if err == nil {
			fd, err = rawDuplicate(file)
		}
		if err != nil {
			closeAll(fds[:i])
			d.err = err
			return
		}
		fds[i] = C.int32_t(fd)
	}
	d.do(func(e **C.vmcell_error) C.int32_t { return call(fds, e) })
}

func closeAll(fds []C.int32_t) {
	for _, fd := range fds {
		syscall.Close(int(fd))
	}
}

// refuseBoth refuses a device that is described in two ways.
func (d *describer) refuseBoth(what, one, other string) {
	if d.err == nil {
		d.err = &Error{Number: ErrInvalidConfig, Message: fmt.Sprintf("%s has %s and %s, allowed is one of them", what, one, other)}
	}
}

func (disk Disk) open(d *describer, h **C.vmcell_disk) {
	switch {
	case disk.Volume != nil && disk.File == nil:
		disk.openVolume(d, h)
	case disk.Volume != nil:
		d.refuseBoth("a disk", "a volume by its path", "an open file")
	case disk.File == nil:
		d.withText(disk.Path, func(t *C.char, e **C.vmcell_error) C.int32_t { return C.vmcell_disk_new(t, h, e) })
	case disk.Path != "":
		d.refuseBoth("a disk", fmt.Sprintf("the path %q", disk.Path), "an open file")
	default:
		d.withFiles([]*os.File{disk.File}, func(fds []C.int32_t, e **C.vmcell_error) C.int32_t {
			return C.vmcell_disk_new_from_fd(fds[0], h, e)
		})
	}
}

func (nic NIC) open(d *describer, h **C.vmcell_nic) {
	switch {
	case nic.Passt != nil && (nic.Port != nil || nic.Tap != "" || len(nic.Files) > 0):
		d.refuseBoth("an interface", "passt", "a port, a TAP device or open files")
	case nic.Passt != nil:
		nic.Passt.open(d, h)
	case nic.Port != nil && (nic.Tap != "" || len(nic.Files) > 0):
		d.refuseBoth("an interface", "a port of a private network", "a TAP device or open files")
	case nic.Port != nil:
		nic.openPort(d, h)
	case len(nic.Files) == 0:
		d.withText(nic.Tap, func(t *C.char, e **C.vmcell_error) C.int32_t { return C.vmcell_nic_new(t, h, e) })
	case nic.Tap != "":
		d.refuseBoth("an interface", fmt.Sprintf("the TAP device %q", nic.Tap), "open files")
	default:
		d.withFiles(nic.Files, func(fds []C.int32_t, e **C.vmcell_error) C.int32_t {
			return C.vmcell_nic_new_from_fds(&fds[0], C.size_t(len(fds)), h, e)
		})
	}
}

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
