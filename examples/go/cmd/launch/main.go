// Launch is a micro-VM launcher in Go, with the command line of the one in Rust (examples/launch).
//
// One guest, its serial console on standard output, everything else on standard error. Exit status: 0 the guest shut down or
// reset itself; 1 it failed; 2 bad arguments.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	vmcell "example.com/vmcell"
)

const (
	failed       = 1
	badArguments = 2
)

func main() {
	var config vmcell.Config
	var verbose bool
	console := describe(&config, &verbose)
	flag.Parse()
	if flag.NArg() > 0 {
		refuse(fmt.Errorf("unknown argument '%s'", flag.Arg(0)))
	}
	if config.Kernel == "" {
		refuse(errors.New("--kernel is missing"))
	}
	if config.MemoryMiB == 0 {
		refuse(errors.New("--memory is 0, allowed are 16 or more")) // in a Config it is the default
	}
	exit, err := launch(config, *console, verbose)
	if err == nil && (exit.Kind == vmcell.Shutdown || exit.Kind == vmcell.Reset) {
		return
	}
	if err == nil {
		err = errors.New(exit.String())
	}
	fmt.Fprintln(os.Stderr, "launch:", err)
	if errors.Is(err, vmcell.ErrInvalidConfig) {
		os.Exit(badArguments)
	}
	os.Exit(failed)
}

func refuse(err error) {
	fmt.Fprintln(os.Stderr, "launch:", err)
	os.Exit(badArguments)
}

// describe tells the flag package of all flags; it ends the program with status 2 where one is refused.
func describe(config *vmcell.Config, verbose *bool) (console *string) {
	flag.StringVar(&config.Kernel, "kernel", "", "`PATH` of a bzImage or an ELF image")
	flag.StringVar(&config.Initrd, "initrd", "", "`PATH` of an initial RAM disk")
	flag.StringVar(&config.Cmdline, "cmdline", "", "the kernel's command line")
	flag.Func("vcpus", "how many vCPUs, 1 to 64 (default 1)", func(text string) error {
		number, err := strconv.ParseUint(text, 10, 32)
		if err == nil && number == 0 {
			err = errors.New("allowed are 1 to 64")
		}
		config.VCPUs = uint32(number)
		return err
	})
	flag.Uint64Var(&config.MemoryMiB, "memory", 128, "the guest's memory in MiB, 16 or more")
	flag.BoolVar(verbose, "v", false, "tell how long things took and how the guest ended")
	console = flag.String("console", "stdio", "what the serial port is connected to: stdio, none, or a file")
	flag.Func("disk", "`PATH[,ro][,engine=uring|sync][,direct]` of a raw disk image; may be given several times", func(text string) error {
		disk, err := parseDisk(text)
		config.Disks = append(config.Disks, disk)
		return err
	})
	flag.Func("tap", "`NAME[,mac=XX:XX:XX:XX:XX:XX][,queues=N]` of a TAP device; may be given several times", func(text string) error {
		nic, err := parseTap(text)
		config.NICs = append(config.NICs, nic)
		return err
	})
	flag.Func("discovery", "how the guest finds its devices: `acpi` or cmdline", func(text string) error {
		return choose(&config.Discovery, text, map[string]vmcell.Discovery{"acpi": vmcell.DiscoveryACPI, "cmdline": vmcell.DiscoveryCmdline})
	})
	flag.Func("protocol", "how the kernel is entered: `auto`, linux64 or pvh", func(text string) error {
		return choose(&config.Protocol, text, map[string]vmcell.Protocol{
			"auto": vmcell.ProtocolAuto, "linux64": vmcell.ProtocolLinux64, "pvh": vmcell.ProtocolPVH})
	})
	return console
}

func choose[T any](place *T, text string, choices map[string]T) error {
	value, known := choices[text]
	if !known {
		return errors.New("unknown")
	}
	*place = value
	return nil
}

func parseDisk(text string) (vmcell.Disk, error) {
	parts := strings.Split(text, ",")
	disk := vmcell.Disk{Path: parts[0]}
	if disk.Path == "" {
		return disk, errors.New("a path is missing in front of the options")
	}
	for _, option := range parts[1:] {
		switch option {
		case "ro":
			disk.ReadOnly = true
		case "engine=sync":
			disk.Engine = vmcell.EngineSync
		case "engine=uring":
			disk.Engine = vmcell.EngineUring
		case "direct":
			disk.Direct = true
		default:
			return disk, fmt.Errorf("unknown disk option '%s', allowed are ro, engine=uring, engine=sync and direct", option)
		}
	}
	return disk, nil
}

func parseTap(text string) (vmcell.NIC, error) {
	parts := strings.Split(text, ",")
	nic := vmcell.NIC{Tap: parts[0]}
	if nic.Tap == "" {
		return nic, errors.New("a name is missing in front of the options")
	}
	for _, option := range parts[1:] {
		if strings.HasPrefix(option, "queues=") {
			text := strings.TrimPrefix(option, "queues=")
			queues, err := strconv.ParseUint(text, 10, 16)
			if err != nil || queues < 1 || queues > 16 {
				return nic, fmt.Errorf("'%s' is no number of queues, allowed are 1 to 16", text)
			}
			nic.Queues = uint16(queues)
			continue
		}
		address, err := net.ParseMAC(strings.TrimPrefix(option, "mac="))
		if !strings.HasPrefix(option, "mac=") || err != nil || len(address) != 6 {
			return nic, fmt.Errorf("unknown tap option '%s', allowed are mac=XX:XX:XX:XX:XX:XX and queues=N", option)
		}
		nic.MAC = address
	}
	return nic, nil
}

func launch(config vmcell.Config, console string, verbose bool) (vmcell.Exit, error) {
	begin := time.Now()
	switch console {
	case "":
		refuse(errors.New("'' is no value for --console, allowed are stdio, none, or the path of a file"))
	case "none":
	case "stdio":
		config.Stdout, config.Stdin = os.Stdout, os.Stdin
	default:
		file, err := os.Create(console)
		if err != nil {
			return vmcell.Exit{}, err
		}
		defer file.Close()
		config.Stdout = file
	}
	vm, err := vmcell.New(config)
	if err != nil {
		return vmcell.Exit{}, err
	}
	defer vm.Close()
	if console == "stdio" {
		defer enterRaw()()
	}
	// A signal that ends the launcher ends the VM first, and the terminal is put back.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGHUP, os.Interrupt)
	defer stop()
	if err := vm.Start(ctx); err != nil {
		return vmcell.Exit{}, err
	}
	if verbose {
		fmt.Fprintf(os.Stderr, "launch: built and started in %d us\r\n", time.Since(begin).Microseconds())
	}
	exit, err := vm.Wait(context.Background())
	if verbose {
		fmt.Fprintf(os.Stderr, "launch: ended after %d ms: %v\r\n", time.Since(begin).Milliseconds(), exit)
	}
	return exit, err
}
