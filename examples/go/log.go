package vmcell

/*
#include <stdint.h>
#include <vmcell.h>

extern void vmcellGoLog(int32_t level, char *vm, char *target, char *message, void *user);
extern void vmcellGoRelease(void *user);
*/
import "C"

import (
	"fmt"
	"runtime/cgo"
	"unsafe"
)

// LogLevel is how much a record matters.
type LogLevel int32

const (
	// LogError tells of a VM or a device that has failed.
	LogError LogLevel = C.VMCELL_LOG_ERROR
	// LogWarn tells of something that is not as it should be, and goes on all the same.
	LogWarn LogLevel = C.VMCELL_LOG_WARN
	// LogInfo tells what a VM does.
	LogInfo LogLevel = C.VMCELL_LOG_INFO
)

// String names the level.
func (l LogLevel) String() string {
	switch l {
	case LogError:
		return "error"
	case LogWarn:
		return "warn"
	case LogInfo:
		return "info"
	}
	return fmt.Sprintf("level %d", int32(l))
}

// LogRecord is something that is said of a VM.
type LogRecord struct {
	Level LogLevel
	// VM is the VM's name, or empty.
	VM string
	// Target is what it is about: "vm", "console", "disk0" and so on.
	Target string
	// Message is one line.
	Message string
}

// String shows the record as a line without its level.
func (r LogRecord) String() string {
	if r.VM == "" {
		return r.Target + ": " + r.Message
	}
	return r.VM + ": " + r.Target + ": " + r.Message
}

func (c Config) log(d *describer) {
	if c.Log == nil || d.err != nil {
		return
	}
	user := keep(c.Log)
	d.do(func(e **C.vmcell_error) C.int32_t {
		return C.vmcell_config_set_log(d.config, C.vmcell_log_sink(C.vmcellGoLog), user, C.vmcell_release(C.vmcellGoRelease), e)
	})
}

// keep gives what the library passes back as it is, until vmcellGoRelease gets it: a number that stands for a value.
func keep(value any) unsafe.Pointer {
	handle := cgo.NewHandle(value)
	return *(*unsafe.Pointer)(unsafe.Pointer(&handle))
}

//export vmcellGoLog
func vmcellGoLog(level C.int32_t, vm, target, message *C.char, user unsafe.Pointer) {
	tell := cgo.Handle(uintptr(user)).Value().(func(LogRecord))
	tell(LogRecord{LogLevel(level), C.GoString(vm), C.GoString(target), C.GoString(message)})
}

//export vmcellGoRelease
func vmcellGoRelease(user unsafe.Pointer) {
	cgo.Handle(uintptr(user)).Delete()
}
