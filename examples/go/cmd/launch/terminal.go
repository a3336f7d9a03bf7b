package main

import (
	"os"
	"syscall"
	"unsafe"
)

// enterRaw makes the terminal pass on each key, if standard input is one, and gives what puts it back.
func enterRaw() func() {
	var cooked syscall.Termios
	if !terminal(syscall.TCGETS, &cooked) {
		return func() {}
	}
	raw := cooked
	raw.Iflag &^= syscall.IGNBRK | syscall.BRKINT | syscall.PARMRK | syscall.ISTRIP | syscall.INLCR | syscall.IGNCR | syscall.ICRNL | syscall.IXON
	raw.Oflag &^= syscall.OPOST
	raw.Lflag &^= syscall.ECHO | syscall.ECHONL | syscall.ICANON | syscall.ISIG | syscall.IEXTEN
	raw.Cc[syscall.VMIN], raw.Cc[syscall.VTIME] = 1, 0
	terminal(syscall.TCSETS, &raw)
	return func() { terminal(syscall.TCSETS, &cooked) }
}

func terminal(request uintptr, mode *syscall.Termios) bool {
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, os.Stdin.Fd(), request, uintptr(unsafe.Pointer(mode)))
	return errno == 0
}
