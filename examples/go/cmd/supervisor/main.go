// Supervisor keeps many VMs running, with a goroutine for each: each has a log of its own, and is started again if it crashes.
//
//	supervisor [-n VMS] [-m MIB] [-i INITRD] [-c CMDLINE] [-l FOLDER] KERNEL
//
// Exit status: 0 all VMs have ended, by themselves or because SIGINT or SIGTERM came; 1 something failed; 2 bad arguments.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	vmcell "example.com/vmcell"
)

const (
	failed       = 1
	badArguments = 2

	// A VM waits this long after its first crash, and twice as long after each further one.
	firstDelay   = 100 * time.Millisecond
	longestDelay = 30 * time.Second
	// After it has run for this long, a crash counts as its first.
	longRun = time.Minute
	// How long VMs may take to end once they were told to. It is a matter of milliseconds, unless the host hangs.
	endLimit = 10 * time.Second
)

func main() {
	number := flag.Uint("n", 20, "how many `VMS`, 1 to 1000")
	memory := flag.Uint64("m", 128, "the memory of each in `MIB`, 16 or more")
	initrd := flag.String("i", "", "`PATH` of an initial RAM disk")
	cmdline := flag.String("c", "console=ttyS0 panic=-1", "the kernel's command line, a `TEXT` to which a host name is added")
	logs := flag.String("l", ".", "the `FOLDER` for the logs")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: supervisor [-n VMS] [-m MIB] [-i INITRD] [-c CMDLINE] [-l FOLDER] KERNEL")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 || *number < 1 || *number > 1000 || *memory == 0 {
		flag.CommandLine.SetOutput(os.Stderr)
		flag.Usage()
		os.Exit(badArguments)
	}
	kernel := vmcell.Config{Kernel: flag.Arg(0), Initrd: *initrd, Cmdline: *cmdline, MemoryMiB: *memory}
	err := run(kernel, int(*number), *logs)
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "supervisor:", err)
	if errors.Is(err, vmcell.ErrInvalidConfig) {
		os.Exit(badArguments)
	}
	os.Exit(failed)
}

// run supervises VMs until each has ended for good, or a signal comes.
func run(config vmcell.Config, number int, logs string) error {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	done := make(chan error)
	for i := 0; i < number; i++ {
		vm := config
		vm.Name = fmt.Sprintf("vm-%d", i)
		vm.Cmdline += " hostname=" + vm.Name
		path := filepath.Join(logs, vm.Name+".log")
		go func() { done <- supervise(ctx, vm, path) }()
	}
	var first error
	var late <-chan time.Time
	stopping := ctx.Done()
	for number > 0 {
		select {
		case err := <-done:
			number--
			if err != nil {
				cancel()
			}
			if first == nil {
				first = err
			}
		case <-stopping:
			stopping, late = nil, time.After(endLimit)
		case <-late:
			return fmt.Errorf("%d VMs have not ended after %v", number, endLimit)
		}
	}
	return first
}

// supervise runs a VM, and starts it again for as long as it crashes. If it cannot be started the first time, that is an error; later
// it counts as a crash, since the host may be short of something for a while.
func supervise(ctx context.Context, config vmcell.Config, path string) error {
	log, err := openLog(path)
	if err != nil {
		return err
	}
	defer log.close()
	config.Stdout = log
	delay := firstDelay
	for isFirst := true; ctx.Err() == nil; isFirst = false {
		begun := time.Now()
		exit, err := runOnce(ctx, config)
		log.endLine()
		switch {
		case ctx.Err() != nil && err != nil:
			return nil // it was told to end before it was started
		case err != nil && isFirst:
			return err
		case err != nil:
			say(config.Name, "cannot be started: %v", err)
		default:
			say(config.Name, "ended: %v", exit)
			if !exit.IsCrash() {
				return nil
			}
		}
		if time.Since(begun) > longRun {
			delay = firstDelay
		}
		say(config.Name, "restarts in %d ms", delay.Milliseconds())
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
		if delay *= 2; delay > longestDelay {
			delay = longestDelay
		}
	}
	return nil
}

// runOnce runs a VM from a start to its end, which comes early when ctx is done. The guests have nothing to save; VMs with disks would
// get RequestShutdown and some time.
func runOnce(ctx context.Context, config vmcell.Config) (vmcell.Exit, error) {
	vm, err := vmcell.New(config)
	if err != nil {
		return vmcell.Exit{}, err
	}
	defer vm.Close()
	if err := vm.Start(ctx); err != nil {
		return vmcell.Exit{}, err
	}
	say(config.Name, "started")
	return vm.Wait(context.Background())
}

func say(name, format string, values ...any) {
	fmt.Printf(name+": "+format+"\n", values...)
}
