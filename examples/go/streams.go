package vmcell

/*
#include <vmcell.h>
*/
import "C"

import (
	"context"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

// streams connect a VM's console to Go's readers and writers, by pipes, as os/exec does it. Files are handed to the library as
// they are.
type streams struct {
	stdout io.Writer
	stdin  io.Reader
	// What the library gets: -1 for nothing. Taken by it.
	output, input int
	// Our ends, where there are pipes.
	out, in *os.File

	logs []LogFile
	pair *ConsolePair

	// Held while the VM is being started, so that whoever sees it ended knows whether there is something to copy.
	mu       sync.Mutex
	started  bool
	copied   chan struct{}
	finished sync.Once
	// Written before copied is closed.
	failed error
}

func newStreams(config Config) (s *streams, err error) {
	s = &streams{stdout: config.Stdout, stdin: config.Stdin, output: -1, input: -1, copied: make(chan struct{})}
	s.logs, s.pair = config.LogFiles, config.Pair
	defer func() {
		if err != nil {
			s.abandon()
		}
	}()
	if s.stdout == nil && s.stdin == nil {
		return s, nil
	}
	switch stdout := s.stdout.(type) {
	case nil:
		s.output, err = syscall.Open(os.DevNull, syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	case *os.File:
		s.output, err = rawDuplicate(stdout)
	default:
		s.out, s.output, err = pipe(0)
	}
	if err != nil {
		return s, err
	}
	switch stdin := s.stdin.(type) {
	case nil:
	case *os.File:
		s.input, err = rawDuplicate(stdin)
	default:
		s.in, s.input, err = pipe(1)
	}
	return s, err
}

// pipe gives one end as a file that the runtime polls, and the other as it is.
func pipe(ours int) (*os.File, int, error) {
	var ends [2]int
	if err := syscall.Pipe2(ends[:], syscall.O_CLOEXEC); err != nil {
		return nil, -1, os.NewSyscallError("pipe2", err)
	}
	syscall.SetNonblock(ends[ours], true)
	return os.NewFile(uintptr(ends[ours]), "vmcell-console"), ends[1-ours], nil
}

// rawDuplicate duplicates a file's descriptor for the library.
func rawDuplicate(file *os.File) (int, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return -1, err
	}
	var own uintptr
	var errno syscall.Errno
	err = raw.Control(func(fd uintptr) {
		own, _, errno = syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_DUPFD_CLOEXEC, 0)
	})
	if err == nil && errno != 0 {
		err = os.NewSyscallError("fcntl", errno)
	}
	return int(own), err
}

// connect makes the library's console, which takes the descriptors.
func (s *streams) connect(d *describer) {
	if d.err != nil {
		return
	}
	var console *C.vmcell_console
	replaces := s.output >= 0
	if !replaces {
		d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_console_new_none(&console, e) })
	} else {
		output, input := C.int32_t(s.output), C.int32_t(s.input)
		s.output, s.input = -1, -1
		d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_console_new_fds(output, input, &console, e) })
	}
	for _, log := range s.logs {
		log.add(d, console)
	}
	if s.pair != nil {
		d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_console_also(console, s.pair.take(), e) })
	}
	d.do(func(e **C.vmcell_error) C.int32_t {
		if replaces {
			return C.vmcell_config_set_console(d.config, console, e)
		}
		return C.vmcell_config_add_console(d.config, console, e)
	})
	if d.err != nil {
		C.vmcell_console_free(console)
	}
}

// start runs begin, which starts the VM, and then the copying, which holds nothing of the VM.
func (s *streams) start(begin func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := begin(); err != nil {
		return err
	}
	s.started = true
	if s.out != nil {
		go s.copyOut()
	} else {
		close(s.copied)
	}
	if s.in != nil {
		go func() {
			io.Copy(s.in, s.stdin)
			s.in.Close()
		}()
	}
	return nil
}

func (s *streams) wasStarted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.started
}

// copyOut copies until the library closes its end, or the VM has ended and the pipe is empty.
func (s *streams) copyOut() {
	defer close(s.copied)
	defer s.out.Close()
	buffer := make([]byte, 16384)
	for {
		n, err := s.out.Read(buffer)
		s.write(buffer[:n])
		if os.IsTimeout(err) {
			s.drain(buffer)
			return
		}
		if err != nil {
			return
		}
	}
}

// drain copies what is in the pipe, and does not wait for more.
func (s *streams) drain(buffer []byte) {
	s.out.SetReadDeadline(time.Time{})
	raw, err := s.out.SyscallConn()
	if err != nil {
		return
	}
	raw.Read(func(fd uintptr) bool {
		for {
			n, err := syscall.Read(int(fd), buffer)
			if err == syscall.EINTR {
				continue
			}
			if err != nil || n <= 0 {
				return true
			}
			s.write(buffer[:n])
		}
	})
}

// write goes on after a writer has failed: the guest's output is drained all the same.
func (s *streams) write(bytes []byte) {
	if len(bytes) == 0 || s.failed != nil {
		return
	}
	_, s.failed = s.stdout.Write(bytes)
}

// finish waits until all that a VM that has ended printed has been copied, and tells what the writer failed with.
func (s *streams) finish(ctx context.Context) error {
	// A VM that ended without a start has printed nothing.
	if !s.wasStarted() {
		return nil
	}
	s.finished.Do(func() {
		if s.out != nil {
			s.out.SetReadDeadline(time.Unix(1, 0))
		}
	})
	select {
	case <-s.copied:
		return s.failed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// abandon closes what the library did not get, and what nobody copies from. Whoever copies notices the end.
func (s *streams) abandon() {
	for _, fd := range []int{s.output, s.input} {
		if fd >= 0 {
			syscall.Close(fd)
		}
	}
	s.output, s.input = -1, -1
	if s.in != nil {
		s.in.Close()
	}
	if s.out != nil && !s.wasStarted() {
		s.out.Close()
	}
}
