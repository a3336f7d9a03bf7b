// Launch is a micro-VM launcher in Go, with the command line of the one in Rust (examples/launch), without --doctor, --network and --print-config, and without those
// of snapshots.
//
// One guest, its serial console on standard output, everything else on standard error. Exit status: 0 the guest shut down or
// reset itself; 1 it failed; 2 bad arguments.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
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
	options := parse()
	exit, err := launch(options)
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

// A process can be jailed by the library as long as it has one thread. Start this program in a jail of another's instead.
var errNoJail = errors.New("not jailed, since a Go program has several threads before it can ask for that")

func refuse(err error) {
	fmt.Fprintln(os.Stderr, "launch:", err)
	os.Exit(badArguments)
}

// protect adds the volumes, opened by their key files, and the secrets.
func protect(config *vmcell.Config, options options) error {
	for _, volume := range options.volumes {
		key, err := vmcell.NewKeyFromFile(vmcell.KeyPassphrase, volume.keyFile)
		if err != nil {
			return err
		}
		volume.disk.Volume.Key = key
		config.Disks = append(config.Disks, volume.disk)
	}
	for _, secret := range options.secrets {
		name, file, _ := strings.Cut(secret, "=")
		secret, err := vmcell.NewSecretFromFile(name, file)
		if err != nil {
			return err
		}
		config.Secrets = append(config.Secrets, secret)
	}
	return nil
}

func launch(options options) (vmcell.Exit, error) {
	if options.jail {
		return vmcell.Exit{}, errNoJail
	}
	if !options.noJail {
		fmt.Fprintf(os.Stderr, "launch: %v\r\n", errNoJail)
	}
	begin := time.Now()
	config, console := options.config, options.console
	switch console {
	case "": // what the description says
	case "none":
		config.Stdout = io.Discard
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
	if err := protect(&config, options); err != nil {
		return vmcell.Exit{}, err
	}
	if options.verbose {
		config.Log = func(record vmcell.LogRecord) { fmt.Fprintf(os.Stderr, "launch: %v\r\n", record) }
	}
	if config.Cgroup != nil {
		if err := vmcell.JoinCgroup(config.Cgroup.Folder, options.memoryMax); err != nil {
			return vmcell.Exit{}, err
		}
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
	if options.verbose {
		fmt.Fprintf(os.Stderr, "launch: built and started in %d us\r\n", time.Since(begin).Microseconds())
	}
	exit, err := vm.Wait(context.Background())
	if options.verbose {
		fmt.Fprintf(os.Stderr, "launch: ended after %d ms: %v\r\n", time.Since(begin).Milliseconds(), exit)
	}
	return exit, err
}
