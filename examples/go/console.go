package vmcell

/*
#include <vmcell.h>
*/
import "C"

import (
	"fmt"
	"os"
	"sync"
	"syscall"
)

// LogFile is a file that gets what the guest prints. It is opened when the VM is made, and emptied unless Append is set.
type LogFile struct {
	Path   string
	Append bool
	// MaxBytes limits the file, 4096 or more; 0 is no limit. If it would grow above that, it is renamed to Path with ".1" at the
	// end, an older ".1" to ".2" and so on, up to Keep of them, 0 to 100. With 0 it is emptied instead. No other LogFile of the VM
	// may have the same file, or one of those.
	MaxBytes uint64
	Keep     uint32
}

// ConsolePair is the host program's own end of a console. Hand it to Config.Pair.
type ConsolePair struct {
	// Reader gives what the guest prints, and io.EOF when the guest has ended and all was read, or the VM was closed.
	Reader *os.File
	// Writer types into the console. Writing waits while the guest does not read, and fails with EPIPE after the guest has ended.
	Writer *os.File

	mu      sync.Mutex
	console *C.vmcell_console
}

// NewConsolePair makes a pair of pipes. Reading and writing holds up no thread, and SetDeadline works.
func NewConsolePair() (*ConsolePair, error) {
	var reader, writer C.int32_t
	pair := &ConsolePair{}
	var e *C.vmcell_error
	if err := failure(C.vmcell_console_new_pair(&reader, &writer, &pair.console, &e), e); err != nil {
		return nil, err
	}
	pair.Reader, pair.Writer = polled(int(reader), "vmcell-output"), polled(int(writer), "vmcell-input")
	return pair, nil
}

// polled gives a descriptor as a file that the runtime polls.
func polled(fd int, name string) *os.File {
	syscall.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), name)
}

// Close closes both ends. A VM that has the pair goes on: what it prints is lost.
func (p *ConsolePair) Close() error {
	C.vmcell_console_free(p.take())
	err := p.Reader.Close()
	if writer := p.Writer.Close(); err == nil {
		err = writer
	}
	return err
}

// take gives the library's end away, once.
func (p *ConsolePair) take() *C.vmcell_console {
	p.mu.Lock()
	defer p.mu.Unlock()
	console := p.console
	p.console = nil
	return console
}

// add opens the file beside what the console is connected to already.
func (l LogFile) add(d *describer, console *C.vmcell_console) {
	var file *C.vmcell_console
	d.withText(l.Path, func(t *C.char, e **C.vmcell_error) C.int32_t { return C.vmcell_console_new_file(t, &file, e) })
	if l.Append {
		d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_console_set_append(file, 1, e) })
	}
	if l.MaxBytes != 0 {
		d.do(func(e **C.vmcell_error) C.int32_t {
			return C.vmcell_console_set_rotation(file, C.uint64_t(l.MaxBytes), C.uint32_t(l.Keep), e)
		})
	}
	if l.MaxBytes == 0 && l.Keep != 0 && d.err == nil {
		message := fmt.Sprintf("%s: Keep is %d, which needs MaxBytes above 0", l.Path, l.Keep)
		d.err = &Error{Number: ErrInvalidConfig, Message: message}
	}
	if d.err != nil {
		C.vmcell_console_free(file)
		return
	}
	d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_console_also(console, file, e) })
}

// Sink tells what became of the bytes that one sink of a VM's console should have got.
type Sink struct {
	Delivered uint64
	// Waiting wait to be written to it.
	Waiting uint64
	// Dropped were missed since it was too slow, Lost since writing to it failed.
	Dropped, Lost uint64
	// FailedRotations is how often a file could not be renamed when it had grown too large, and was emptied instead.
	FailedRotations uint64
	// LastError is why writing to it failed last. It may have worked again since.
	LastError error
}

// Sinks tells what became of the guest's output: first for Stdout, if there is Stdout or Stdin, and otherwise for what Description says;
// then for each of LogFiles, then for Pair.
func (vm *VM) Sinks() ([]Sink, error) {
	var count C.size_t
	err := vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t {
		return C.vmcell_vm_console_sinks(h, nil, 0, &count, e)
	})
	if err != nil || count == 0 {
		return nil, err
	}
	found := make([]C.vmcell_sink, count)
	err = vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t {
		return C.vmcell_vm_console_sinks(h, &found[0], count, &count, e)
	})
	if err != nil {
		return nil, err
	}
	sinks := make([]Sink, count)
	for index, sink := range found {
		var last *C.vmcell_error
		err := vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t {
			return C.vmcell_vm_console_sink_error(h, C.size_t(index), &last, e)
		})
		if err != nil {
			return nil, err
		}
		sinks[index] = Sink{
			Delivered: uint64(sink.delivered), Waiting: uint64(sink.waiting), Dropped: uint64(sink.dropped),
			Lost: uint64(sink.lost), FailedRotations: uint64(sink.failed_rotations),
		}
		if last != nil {
			sinks[index].LastError = failure(C.VMCELL_ERROR_CONSOLE, last)
		}
	}
	return sinks, nil
}
