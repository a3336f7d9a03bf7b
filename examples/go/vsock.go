package vmcell

/*
#include <vmcell.h>
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"time"
)

// Dial connects to a port of the guest, and waits until the guest has accepted or ctx is done. The connection is a Unix socket: CloseWrite
// of *net.UnixConn closes a half.
func (vm *VM) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		// In pieces, as a call of the library cannot be taken back.
		limit := time.Second
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < limit {
			limit = time.Until(deadline)
		}
		// 0 would not wait at all.
		if limit < time.Millisecond {
			limit = time.Millisecond
		}
		var fd C.int32_t
		err := vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t {
			return C.vmcell_vm_vsock_connect(h, C.uint32_t(port), C.uint32_t(limit.Milliseconds()), &fd, e)
		})
		if err == nil {
			return connection(fd)
		}
		if !errors.Is(err, ErrTimeout) {
			return nil, err
		}
	}
}

// Listener is a port of the host that a guest connects to. It implements net.Listener.
type Listener struct {
	handle *C.vmcell_vsock_listener
	port   uint32
	// A descriptor of our own for what can be accepted.
	ready   *os.File
	closing sync.Once
	closed  error
}

// VsockAddr is a port, of the host or of a guest.
type VsockAddr uint32

// Network implements net.Addr.
func (VsockAddr) Network() string { return "vsock" }

// String implements net.Addr.
func (a VsockAddr) String() string { return fmt.Sprint(uint32(a)) }

// Listen listens on a port of the host; what the guest connects to it is accepted here.
func (vm *VM) Listen(port uint32) (*Listener, error) {
	listener := &Listener{port: port}
	err := vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t {
		return C.vmcell_vsock_listener_new(h, C.uint32_t(port), &listener.handle, e)
	})
	if err != nil {
		return nil, err
	}
	var fd C.int32_t
	var e *C.vmcell_error
	err = failure(C.vmcell_vsock_listener_fd(listener.handle, &fd, &e), e)
	if err == nil {
		listener.ready, err = duplicate(uintptr(fd), "vmcell-vsock")
	}
	if err != nil {
		C.vmcell_vsock_listener_free(listener.handle)
		return nil, err
	}
	runtime.SetFinalizer(listener, func(l *Listener) { l.Close() })
	return listener, nil
}

// Accept implements net.Listener. It waits until the guest connects, the VM has ended, or the listener is closed, and no thread does.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		var fd C.int32_t
		var port C.uint32_t
		var e *C.vmcell_error
		err := failure(C.vmcell_vsock_listener_accept(l.handle, 0, &fd, &port, &e), e)
		runtime.KeepAlive(l)
		if err == nil {
			return connection(fd)
		}
		if !errors.Is(err, ErrTimeout) {
			return nil, err
		}
		if err := awaitReadable(context.Background(), l.ready); err != nil {
			return nil, err
		}
	}
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return VsockAddr(l.port) }

// Close implements net.Listener. Connections that were not accepted are closed.
func (l *Listener) Close() error {
	l.closing.Do(func() {
		runtime.SetFinalizer(l, nil)
		l.closed = failure(C.vmcell_vsock_listener_free(l.handle), nil)
		l.ready.Close()
	})
	return l.closed
}

// connection takes a descriptor of the library's.
func connection(fd C.int32_t) (net.Conn, error) {
	file := os.NewFile(uintptr(fd), "vmcell-vsock")
	defer file.Close()
	return net.FileConn(file)
}
