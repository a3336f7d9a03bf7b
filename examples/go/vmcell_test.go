package vmcell_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	vmcell "example.com/vmcell"
)

// guest gives the path of a guest of a few instructions, which VMCELL_GUESTS holds.
func guest(t testing.TB, name string) string {
	folder := os.Getenv("VMCELL_GUESTS")
	if folder == "" {
		t.Skip("VMCELL_GUESTS names no folder with guests; cargo xtask test does")
	}
	return filepath.Join(folder, name)
}

func newVM(t testing.TB, config vmcell.Config) *vmcell.VM {
	config.MemoryMiB = 16
	vm, err := vmcell.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { vm.Close() })
	return vm
}

func started(t testing.TB, ctx context.Context, config vmcell.Config) *vmcell.VM {
	vm := newVM(t, config)
	if err := vm.Start(ctx); err != nil {
		t.Fatal(err)
	}
	return vm
}

func wait(t testing.TB, vm *vmcell.VM) vmcell.Exit {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	exit, err := vm.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return exit
}

func TestEachWayToEndIsToldApart(t *testing.T) {
	for _, test := range []struct {
		guest string
		kind  vmcell.ExitKind
		cause vmcell.ResetCause
	}{
		{"power_off", vmcell.Shutdown, 0},
		{"acpi_reset", vmcell.Reset, vmcell.ResetACPI},
		{"keyboard_reset", vmcell.Reset, vmcell.ResetKeyboardController},
		{"triple_fault", vmcell.Reset, vmcell.ResetTripleFault},
		{"panic", vmcell.Panicked, 0},
		{"failing", vmcell.Failed, 0},
	} {
		// What the library itself says of it, before Wait returns.
		var said string
		log := func(record vmcell.LogRecord) { said = record.Message }
		exit := wait(t, started(t, context.Background(), vmcell.Config{Kernel: guest(t, test.guest), Log: log}))
		if said != "ended: "+exit.String() {
			t.Errorf("%s: %q, but the library says %q", test.guest, exit, said)
		}
		crashed := test.kind >= vmcell.Failed || test.cause == vmcell.ResetTripleFault
		if exit.Kind != test.kind || exit.Cause != test.cause || (exit.Err != nil) != (test.kind == vmcell.Failed) || exit.IsCrash() != crashed {
			t.Errorf("%s: %v", test.guest, exit)
		}
	}
}

func TestOutputIsCompleteWhenWaitReturns(t *testing.T) {
	var output bytes.Buffer
	wait(t, started(t, context.Background(), vmcell.Config{Kernel: guest(t, "hello"), Stdout: &output}))
	if output.String() != "hello" {
		t.Errorf("%q", output.String())
	}
}

func TestOutputMayBeAFile(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	wait(t, started(t, context.Background(), vmcell.Config{Kernel: guest(t, "hello"), Stdout: file}))
	if text, _ := os.ReadFile(file.Name()); string(text) != "hello" {
		t.Errorf("%q", text)
	}
	if _, err := file.WriteString("still ours"); err != nil {
		t.Error(err)
	}
}

// syncBuffer is a buffer that may be read while it is written.
type syncBuffer struct {
	sync.Mutex
	bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.Lock()
	defer b.Unlock()
	return b.Buffer.Write(p)
}

func (b *syncBuffer) expect(t *testing.T, wanted string) {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		b.Lock()
		text := b.String()
		b.Unlock()
		if text == wanted {
			return
		}
		if len(text) >= len(wanted) {
			break
		}
	}
	t.Fatalf("%d bytes instead of %d", b.Len(), len(wanted))
}

func TestWhatIsTypedComesBack(t *testing.T) {
	text := strings.Repeat("0123456789", 300)
	var fromReader, fromWriter syncBuffer
	started(t, context.Background(), vmcell.Config{Kernel: guest(t, "echo"), Stdout: &fromReader, Stdin: strings.NewReader(text)})
	vm := started(t, context.Background(), vmcell.Config{Kernel: guest(t, "echo"), Stdout: &fromWriter})
	if n, err := io.WriteString(vm.Console(), text); n != len(text) || err != nil {
		t.Fatal(n, err)
	}
	fromReader.expect(t, text)
	fromWriter.expect(t, text)
	if dropped, err := vm.Dropped(); dropped != 0 || err != nil {
		t.Error(dropped, err)
	}
}

func TestAPairReadsAndTypesAndEndsWithTheGuest(t *testing.T) {
	pair, err := vmcell.NewConsolePair()
	if err != nil {
		t.Fatal(err)
	}
	vm := started(t, context.Background(), vmcell.Config{Kernel: guest(t, "echo"), Pair: pair})
	text := strings.Repeat("0123456789", 300)
	go io.WriteString(pair.Writer, text)
	back := make([]byte, len(text))
	if _, err := io.ReadFull(pair.Reader, back); err != nil || string(back) != text {
		t.Fatalf("%q %v", back, err)
	}
	if err := vm.Stop(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(pair.Reader); len(rest) != 0 || err != nil {
		t.Errorf("%q %v", rest, err)
	}
	if err := pair.Close(); err != nil {
		t.Error(err)
	}
	if _, err := vmcell.New(vmcell.Config{Kernel: guest(t, "echo"), Pair: pair}); err == nil {
		t.Error("a pair is for one VM")
	}
}

func TestSeveralSinksGetEverythingAndLossesAreCounted(t *testing.T) {
	folder := t.TempDir()
	log := filepath.Join(folder, "log")
	if err := os.WriteFile(log, bytes.Repeat([]byte("o"), 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	var output bytes.Buffer
	vm := started(t, context.Background(), vmcell.Config{
		Kernel: guest(t, "hello"), Stdout: &output,
		LogFiles: []vmcell.LogFile{{Path: log, Append: true, MaxBytes: 4096, Keep: 1}, {Path: "/dev/full"}},
	})
	wait(t, vm)
	if text, _ := os.ReadFile(log); output.String() != "hello" || string(text) != "hello" {
		t.Errorf("%q %q", output.String(), text)
	}
	if old, _ := os.ReadFile(log + ".1"); len(old) != 4096 {
		t.Errorf("%d bytes were kept", len(old))
	}
	sinks, err := vm.Sinks()
	if err != nil || len(sinks) != 3 {
		t.Fatal(sinks, err)
	}
	if sinks[0].Delivered != 5 || sinks[1].Delivered != 5 || sinks[2].Delivered != 0 || sinks[2].LastError == nil {
		t.Errorf("%+v", sinks)
	}
	if _, err := vmcell.New(vmcell.Config{Kernel: guest(t, "hello"), LogFiles: []vmcell.LogFile{{Path: folder}}}); err == nil {
		t.Error("a folder is no log")
	}
}

func TestAWriterIsToldThatTheVMEnded(t *testing.T) {
	vm := started(t, context.Background(), vmcell.Config{Kernel: guest(t, "spin")})
	time.AfterFunc(50*time.Millisecond, func() { vm.Stop() })
	if _, err := vm.Console().Write(make([]byte, 1<<20)); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}

func TestAContextThatEndsStopsTheVM(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	vm := started(t, ctx, vmcell.Config{Kernel: guest(t, "spin"), VCPUs: 2, KickSignal: syscall.SIGUSR2, Prealloc: true})
	time.AfterFunc(20*time.Millisecond, cancel)
	if exit := wait(t, vm); exit.Kind != vmcell.Stopped {
		t.Error(exit)
	}
	if err := newVM(t, vmcell.Config{Kernel: guest(t, "spin")}).Start(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestAWaitThatEndsLeavesTheVMAlone(t *testing.T) {
	vm := started(t, context.Background(), vmcell.Config{Kernel: guest(t, "spin")})
	var waiters sync.WaitGroup
	for i := 0; i < 8; i++ {
		waiters.Add(1)
		go func(i int) {
			defer waiters.Done()
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i)*10*time.Millisecond)
			defer cancel()
			if _, err := vm.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		}(i)
	}
	waiters.Wait()
	if status, err := vm.Status(); status != vmcell.Running || err != nil {
		t.Error(status, err)
	}
}

func TestPauseAndResume(t *testing.T) {
	vm := started(t, context.Background(), vmcell.Config{Kernel: guest(t, "spin")})
	// It does not listen.
	if err := vm.RequestShutdown(); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < 20; i++ {
		if err := vm.Pause(); err != nil {
			t.Fatal(err)
		}
		if status, _ := vm.Status(); status != vmcell.Paused {
			t.Error(status)
		}
		if err := vm.Resume(); err != nil {
			t.Fatal(err)
		}
	}
	if err := vm.PauseWithin(-time.Millisecond); !errors.Is(err, vmcell.ErrBadValue) {
		t.Error(err)
	}
	for _, limit := range []time.Duration{math.MaxInt64, time.Minute, 1, 0} {
		// Only the first two have to pause it: the others find it paused.
		if err := vm.PauseWithin(limit); err != nil {
			t.Error(limit, err)
		}
		if status, _ := vm.Status(); status != vmcell.Paused {
			t.Error(limit, status)
		}
		if limit == math.MaxInt64 {
			if err := vm.Resume(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestErrorsUnwrap(t *testing.T) {
	_, err := vmcell.New(vmcell.Config{Kernel: "/does/not/exist"})
	var own *vmcell.Error
	if !errors.Is(err, vmcell.ErrBootImage) || errors.Is(err, vmcell.ErrDisk) || !errors.As(err, &own) {
		t.Fatal(err)
	}
	if own.Number != vmcell.ErrBootImage || own.Unwrap() == nil || !strings.Contains(err.Error(), "No such file") {
		t.Error(err)
	}
	for _, test := range []struct {
		config vmcell.Config
		number vmcell.Number
	}{
		{vmcell.Config{}, vmcell.ErrInvalidConfig},
		{vmcell.Config{Kernel: "a\x00b"}, vmcell.ErrInvalidConfig},
		{vmcell.Config{Kernel: "k", Cmdline: "\xff"}, vmcell.ErrNotUTF8},
		{vmcell.Config{Kernel: "k", Protocol: 9}, vmcell.ErrBadValue},
		{vmcell.Config{Kernel: "k", Discovery: 9}, vmcell.ErrBadValue},
		{vmcell.Config{Kernel: "k", Backing: 9}, vmcell.ErrBadValue},
		{vmcell.Config{Kernel: "k", Disks: []vmcell.Disk{{Path: "/does/not/exist"}}}, vmcell.ErrDisk},
		{vmcell.Config{Kernel: "k", NICs: []vmcell.NIC{{Tap: "vmcell-none"}}}, vmcell.ErrNetwork},
		{vmcell.Config{Kernel: "k", VCPUs: 65}, vmcell.ErrInvalidConfig},
		{vmcell.Config{Kernel: "k", LogFiles: []vmcell.LogFile{{Path: "log", Keep: 2}}}, vmcell.ErrInvalidConfig},
		{vmcell.Config{Kernel: "k", KickSignal: syscall.SIGKILL}, vmcell.ErrInvalidConfig},
	} {
		if _, err := vmcell.New(test.config); !errors.Is(err, test.number) {
			t.Errorf("%+v: %v", test.config, err)
		}
	}
}

func TestTheErrorOfADeviceSaysWhichElementItIs(t *testing.T) {
	good := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(good, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	disks := []vmcell.Disk{{Path: good}, {Path: "/does/not/exist"}}
	_, err := vmcell.New(vmcell.Config{Kernel: "k", Disks: disks})
	if err == nil || !strings.HasPrefix(err.Error(), "Disks[1]: disk /does/not/exist cannot be opened: No such file") {
		t.Error(err)
	}
	_, err = vmcell.New(vmcell.Config{Kernel: "k", NICs: []vmcell.NIC{{Files: []*os.File{nil}}}})
	if err == nil || !strings.HasPrefix(err.Error(), "NICs[0]: ") || !errors.Is(err, os.ErrInvalid) {
		t.Error(err)
	}
}

func TestCallsAfterCloseAreRefused(t *testing.T) {
	vm := started(t, context.Background(), vmcell.Config{Kernel: guest(t, "spin")})
	waited := make(chan error)
	go func() {
		_, err := vm.Wait(context.Background())
		waited <- err
	}()
	time.Sleep(20 * time.Millisecond)
	if err := vm.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; !errors.Is(err, vmcell.ErrClosed) {
		t.Error(err)
	}
	for _, err := range []error{vm.Start(context.Background()), vm.Pause(), vm.Resume(), vm.Stop()} {
		if !errors.Is(err, vmcell.ErrClosed) {
			t.Error(err)
		}
	}
	if err := vm.Close(); err != nil {
		t.Error(err)
	}
	if _, err := vm.Wait(context.Background()); !errors.Is(err, vmcell.ErrClosed) {
		t.Error(err)
	}
	if _, err := vm.Dropped(); !errors.Is(err, vmcell.ErrClosed) {
		t.Error(err)
	}
}

func TestAWaitMayBeginBeforeTheStart(t *testing.T) {
	vm := newVM(t, vmcell.Config{Kernel: guest(t, "hello"), Stdout: &bytes.Buffer{}})
	waited := make(chan vmcell.Exit)
	go func() { waited <- wait(t, vm) }()
	time.Sleep(20 * time.Millisecond)
	if err := vm.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	if exit := <-waited; exit.Kind != vmcell.Shutdown || exit.IsCrash() {
		t.Error(exit)
	}
}

// However a start does not come about, nobody waits for good.
func TestAVMThatNeverStartedIsNotWaitedForInVain(t *testing.T) {
	done, cancel := context.WithCancel(context.Background())
	cancel()
	for _, end := range []func(*vmcell.VM) error{(*vmcell.VM).Stop, (*vmcell.VM).RequestStop, func(vm *vmcell.VM) error {
		if err := vm.Start(done); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		return nil
	}} {
		vm := newVM(t, vmcell.Config{Kernel: guest(t, "hello"), Stdout: &bytes.Buffer{}})
		if err := end(vm); err != nil {
			t.Error(err)
		}
		if err := vm.Start(context.Background()); !errors.Is(err, vmcell.ErrInvalidState) {
			t.Error(err)
		}
		if exit := wait(t, vm); exit.Kind != vmcell.Stopped {
			t.Error(exit)
		}
	}
}

func TestADiscardedVMIsFreedLater(t *testing.T) {
	vm := started(t, context.Background(), vmcell.Config{Kernel: guest(t, "spin")})
	if err := vm.Discard(); err != nil {
		t.Fatal(err)
	}
	if err := vm.Close(); err != nil {
		t.Error(err)
	}
	if _, err := vm.Status(); !errors.Is(err, vmcell.ErrClosed) {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := vmcell.WaitDiscarded(ctx); err != nil || vmcell.Discarded() != 0 {
		t.Fatal(err, vmcell.Discarded())
	}
}

func TestTheFinalizerIsASafetyNet(t *testing.T) {
	before := vmcell.Objects()
	func() {
		vm, err := vmcell.New(vmcell.Config{Kernel: guest(t, "spin"), MemoryMiB: 16})
		if err != nil {
			t.Fatal(err)
		}
		if err := vm.Start(context.Background()); err != nil {
			t.Fatal(err)
		}
	}()
	for deadline := time.Now().Add(30 * time.Second); vmcell.Objects() != before; time.Sleep(time.Millisecond) {
		runtime.GC()
		if time.Now().After(deadline) {
			t.Fatalf("%d objects, %d before", vmcell.Objects(), before)
		}
	}
}

// Ten goroutines make, run and end a VM each, many times, on whatever thread they are at the time.
func TestTenVMsFromTenGoroutines(t *testing.T) {
	shared, err := vmcell.NewIOThread("shared")
	if err != nil {
		t.Fatal(err)
	}
	defer shared.Close()
	var all sync.WaitGroup
	for i := 0; i < 10; i++ {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			for round := 0; round < 5; round++ {
				var output bytes.Buffer
				config := vmcell.Config{Kernel: guest(t, "hello"), MemoryMiB: 16, Stdout: &output}
				if i%2 == 0 {
					config.IOThread = shared
				}
				vm, err := vmcell.New(config)
				if err != nil {
					t.Error(err)
					return
				}
				for _, step := range []func() error{
					func() error { return vm.Start(context.Background()) },
					func() error { _, err := vm.Wait(context.Background()); return err },
					vm.Close,
				} {
					runtime.Gosched()
					if err := step(); err != nil {
						t.Error(err)
					}
				}
				if output.String() != "hello" {
					t.Errorf("%q", output.String())
				}
			}
		}(i)
	}
	all.Wait()
}

// The runtime preempts by SIGURG whatever runs for more than 10 ms; here every thread of the process gets far more of them.
func TestAStormOfSignalsDisturbsNobody(t *testing.T) {
	var output syncBuffer
	echo := started(t, context.Background(), vmcell.Config{Kernel: guest(t, "echo"), Stdout: &output})
	spin := started(t, context.Background(), vmcell.Config{Kernel: guest(t, "spin"), VCPUs: 2})
	stop := make(chan struct{})
	var storm sync.WaitGroup
	storm.Add(2)
	go func() {
		defer storm.Done()
		for sum := 0; ; sum++ { // what the runtime preempts
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	go func() {
		defer storm.Done()
		for {
			select {
			case <-stop:
				return
			default:
				sendToAllThreads(syscall.SIGURG)
			}
		}
	}()
	text := strings.Repeat("0123456789", 50)
	if _, err := io.WriteString(echo.Console(), text); err != nil {
		t.Error(err)
	}
	output.expect(t, text)
	for _, call := range []func() error{spin.Pause, spin.Resume} {
		if err := call(); err != nil {
			t.Error(err)
		}
	}
	status, err := spin.Status()
	close(stop)
	storm.Wait()
	if status != vmcell.Running || err != nil {
		t.Error(status, err)
	}
	for _, vm := range []*vmcell.VM{echo, spin} {
		if err := vm.Stop(); err != nil && !errors.Is(err, vmcell.ErrTimeout) {
			t.Error(err)
		}
		if exit := wait(t, vm); exit.Kind != vmcell.Stopped {
			t.Error(exit)
		}
	}
}

func sendToAllThreads(signal syscall.Signal) {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		panic(err)
	}
	for _, thread := range threads {
		number := 0
		for _, digit := range thread.Name() {
			number = number*10 + int(digit-'0')
		}
		syscall.RawSyscall(syscall.SYS_TGKILL, uintptr(os.Getpid()), uintptr(number), uintptr(signal))
	}
}

func TestVersionAndFeatures(t *testing.T) {
	if vmcell.Version() == "" || !vmcell.HasFeature("disk") || vmcell.HasFeature("none such") {
		t.Error(vmcell.Version())
	}
}

func TestDevicesAreChangedByTheirPositionInTheConfiguration(t *testing.T) {
	image := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(image, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	vm := started(t, context.Background(), vmcell.Config{Kernel: guest(t, "spin"), Disks: []vmcell.Disk{{Path: image}}})
	if err := os.Truncate(image, 8192); err != nil {
		t.Fatal(err)
	}
	if err := vm.RefreshDisk(0); err != nil {
		t.Error(err)
	}
	for _, err := range []error{vm.RefreshDisk(1), vm.RefreshDisk(-1), vm.SetLink(0, true), vm.Announce(0)} {
		if !errors.Is(err, vmcell.ErrInvalidConfig) {
			t.Error(err)
		}
	}
	vm.Close()
	if err := vm.RefreshDisk(0); !errors.Is(err, vmcell.ErrClosed) {
		t.Error(err)
	}
}

func TestADiskAndAnInterfaceMayBeOpenFiles(t *testing.T) {
	image := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(image, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	open := func(path string, flags int) *os.File {
		file, err := os.OpenFile(path, flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	both, read, closed := open(image, os.O_RDWR), open(image, os.O_RDONLY), open(image, os.O_RDWR)
	defer both.Close()
	defer read.Close()
	closed.Close()
	kernel := guest(t, "spin")
	vm := newVM(t, vmcell.Config{Kernel: kernel, Disks: []vmcell.Disk{{File: both}}})
	metrics, err := vm.Metrics()
	if err != nil || len(metrics.Devices) != 1 || metrics.Devices[0].Name != "disk0" {
		t.Error(metrics, err)
	}
	// The file is still the caller's.
	vm.Close()
	if _, err := both.WriteAt([]byte{1}, 0); err != nil {
		t.Error(err)
	}
	newVM(t, vmcell.Config{Kernel: kernel, Disks: []vmcell.Disk{{File: read, ReadOnly: true}}})
	for _, test := range []struct {
		config vmcell.Config
		want   error
	}{
		{vmcell.Config{Disks: []vmcell.Disk{{File: read}}}, vmcell.ErrDisk},
		{vmcell.Config{Disks: []vmcell.Disk{{File: both, Path: image}}}, vmcell.ErrInvalidConfig},
		{vmcell.Config{NICs: []vmcell.NIC{{Files: []*os.File{both}}}}, vmcell.ErrNetwork},
		{vmcell.Config{NICs: []vmcell.NIC{{Files: []*os.File{both}, Tap: "tap0"}}}, vmcell.ErrInvalidConfig},
		{vmcell.Config{NICs: []vmcell.NIC{{Files: []*os.File{nil}}}}, os.ErrInvalid},
	} {
		test.config.Kernel = kernel
		if vm, err := vmcell.New(test.config); !errors.Is(err, test.want) {
			t.Errorf("%v, not %v", err, test.want)
			if err == nil {
				vm.Close()
			}
		}
	}
	for _, config := range []vmcell.Config{{Disks: []vmcell.Disk{{File: closed}}}, {NICs: []vmcell.NIC{{Files: []*os.File{both, closed}}}}} {
		config.Kernel = kernel
		if _, err := vmcell.New(config); err == nil || !strings.Contains(err.Error(), image+": use of closed file") {
			t.Error(err)
		}
	}
}

func TestADescriptionIsJSONWithTheOtherFieldsBesideIt(t *testing.T) {
	folder := t.TempDir()
	images := []string{filepath.Join(folder, "a.img"), filepath.Join(folder, "b.img")}
	for _, image := range images {
		if err := os.WriteFile(image, make([]byte, 4096), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	description, err := json.Marshal(map[string]any{
		"boot":   map[string]any{"kernel": guest(t, "hello"), "cmdline": "quiet"},
		"memory": map[string]any{"mib": 16},
		"disks":  []any{map[string]any{"path": images[0], "read_only": true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var output bytes.Buffer
	config := vmcell.Config{Description: description, VCPUs: 2, Stdout: &output, Disks: []vmcell.Disk{{Path: images[1]}}}
	for i := 0; i < 2; i++ {
		vm, err := vmcell.New(config)
		if err != nil {
			t.Fatal(err)
		}
		if err := vm.Start(context.Background()); err != nil {
			t.Fatal(err)
		}
		wait(t, vm)
		for disk := 0; disk < 2; disk++ {
			if err := vm.RefreshDisk(disk); err != nil {
				t.Error(err)
			}
		}
		if err := vm.RefreshDisk(2); !errors.Is(err, vmcell.ErrInvalidConfig) {
			t.Error(err)
		}
		vm.Close()
	}
	if output.String() != "hellohello" {
		t.Error(output.String())
	}
	for _, test := range []struct{ json, says string }{
		{`{"disks": [{"path": "a", "ro": true}]}`, "disks[0].ro: unknown field `ro`"},
		{`{"vcpus": "two"}`, "vcpus: invalid type"},
		{``, "EOF"},
	} {
		_, err := vmcell.New(vmcell.Config{Description: []byte(test.json)})
		if !errors.Is(err, vmcell.ErrInvalidConfig) || !strings.Contains(err.Error(), test.says) {
			t.Error(err)
		}
	}
	polling := 2 * time.Millisecond
	config.Pages, config.Polling = vmcell.TransparentPages, &polling
	if _, err := vmcell.New(config); !errors.Is(err, vmcell.ErrInvalidConfig) || !strings.Contains(err.Error(), "2000 us") {
		t.Error(err)
	}
	polling = 0
	config.Backing = vmcell.Memfd
	newVM(t, config)
}

func TestTheConsoleOfADescriptionStaysUnlessStdoutReplacesIt(t *testing.T) {
	folder := t.TempDir()
	described, beside := filepath.Join(folder, "described"), filepath.Join(folder, "beside")
	description, err := json.Marshal(map[string]any{
		"boot":    map[string]any{"kernel": guest(t, "hello")},
		"memory":  map[string]any{"mib": 16},
		"console": map[string]any{"file": map[string]any{"path": described}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		stdout io.Writer
		files  []string
	}{{nil, []string{described, beside}}, {&bytes.Buffer{}, []string{beside}}} {
		config := vmcell.Config{Description: description, Stdout: test.stdout, LogFiles: []vmcell.LogFile{{Path: beside}}}
		wait(t, started(t, context.Background(), config))
		for _, path := range test.files {
			if text, err := os.ReadFile(path); err != nil || string(text) != "hello" {
				t.Errorf("%s: %q %v", path, text, err)
			}
			os.Remove(path)
		}
	}
	if _, err := os.Stat(described); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestThreadsAreNamedAndBoundToCPUs(t *testing.T) {
	config := vmcell.Config{Kernel: guest(t, "spin"), Name: "web-1", VCPUs: 2}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(status), "Cpus_allowed_list:")
	var first uint32
	if _, err := fmt.Sscan(list, &first); err != nil {
		t.Fatal(err)
	}
	config.VCPUAffinity = map[uint32][]uint32{1: {first}}
	config.IOAffinity = []uint32{first}
	vm := started(t, context.Background(), config)
	threads, err := vm.Threads()
	if err != nil || len(threads) != 3 {
		t.Fatal(threads, err)
	}
	for i, want := range []string{"web-1:vcpu0", "web-1:vcpu1", "web-1:io"} {
		comm, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/comm", threads[i].TID))
		if err != nil || strings.TrimSpace(string(comm)) != want {
			t.Errorf("%+v: %q, %v", threads[i], comm, err)
		}
	}
	if threads[1].Role != vmcell.VCPUThread || threads[1].Index != 1 || threads[2].Role != vmcell.VMIOThread {
		t.Error(threads)
	}
	config.IOAffinity = []uint32{8191}
	if _, err := vmcell.New(config); !errors.Is(err, vmcell.ErrInvalidConfig) {
		t.Error(err)
	}
}

func TestAFunctionIsCalledOnEachThreadOfAVM(t *testing.T) {
	var mu sync.Mutex
	called := map[string]int{}
	config := vmcell.Config{Kernel: guest(t, "spin"), Name: "mine", VCPUs: 2}
	config.OnThreadStart = func(role vmcell.ThreadRole, index uint32) error {
		mu.Lock()
		defer mu.Unlock()
		called[fmt.Sprint(role, " ", index)] = syscall.Gettid()
		return nil
	}
	vm := started(t, context.Background(), config)
	threads, err := vm.Threads()
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		if tid := called[fmt.Sprint(thread.Role, " ", thread.Index)]; tid != thread.TID {
			t.Errorf("%+v: %v", thread, called)
		}
	}
	if len(called) != 3 {
		t.Error(called)
	}
	for fails, says := range map[error]string{
		fmt.Errorf("no: %w", syscall.EPERM): "Operation not permitted", errors.New("no"): "Operation canceled",
	} {
		config.OnThreadStart = func(role vmcell.ThreadRole, index uint32) error {
			if role == vmcell.VCPUThread && index == 1 {
				return fails
			}
			return nil
		}
		err := newVM(t, config).Start(context.Background())
		if !errors.Is(err, vmcell.ErrHost) || !strings.Contains(err.Error(), says) {
			t.Error(err)
		}
	}
	config.OnThreadStart = func(vmcell.ThreadRole, uint32) error { return syscall.EPERM }
	if _, err := vmcell.New(config); !errors.Is(err, vmcell.ErrHost) {
		t.Error(err)
	}
}

func TestWhatAVMDoesIsCounted(t *testing.T) {
	image := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(image, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	var output bytes.Buffer
	config := vmcell.Config{Kernel: guest(t, "hello"), Name: "counted", Stdout: &output, Disks: []vmcell.Disk{{Path: image}}}
	vm := newVM(t, config)
	if err := vm.MeasureTurns(); err != nil {
		t.Error(err)
	}
	if err := vm.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	wait(t, vm)
	metrics, err := vm.Metrics()
	if err != nil {
		t.Fatal(err)
	}
	if metrics.VM != "counted" || metrics.Console.OutputBytes != 5 || metrics.VCPUs[0].Exits["pio_write"] != 6 {
		t.Errorf("%+v", metrics)
	}
	if disk := metrics.Devices[0].Disk; disk == nil || disk.Engine == "" || metrics.Devices[0].Name != "disk0" {
		t.Errorf("%+v", metrics.Devices)
	}
	if thread := metrics.IOThreads[0]; thread.LongestTurn == nil || !thread.IsOwn || thread.TID == 0 {
		t.Errorf("%+v", thread)
	}
	text, err := vmcell.OpenMetrics(vm, vm)
	if err != nil || !bytes.HasSuffix(text, []byte("# EOF\n")) || bytes.Count(text, []byte("pio_write\"} 6\n")) != 2 {
		t.Errorf("%s %v", text, err)
	}
	if text, err := vmcell.OpenMetrics(); err != nil || string(text) != "# EOF\n" {
		t.Errorf("%s %v", text, err)
	}
	vm.Close()
	if _, err := vm.Metrics(); !errors.Is(err, vmcell.ErrClosed) {
		t.Error(err)
	}
}

func TestForksGoOnFromASnapshotAndFromItsFileAndASuspendedVMComesBack(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "vm")
	var output syncBuffer
	vm := started(t, ctx, vmcell.Config{Kernel: guest(t, "echo"), Backing: vmcell.Memfd, Stdout: &output})
	answers := func(vm *vmcell.VM, output *syncBuffer, text, all string) {
		t.Helper()
		if _, err := io.WriteString(vm.Console(), text); err != nil {
			t.Fatal(err)
		}
		output.expect(t, all)
	}
	answers(vm, &output, "a", "a")
	calls := 0
	snapshot, err := vm.Snapshot(func() error { calls++; return nil })
	if err != nil || calls != 1 {
		t.Fatal(err, calls)
	}
	defer snapshot.Close()
	if standstill, err := snapshot.Standstill(); standstill <= 0 || err != nil {
		t.Error(standstill, err)
	}
	refusal := errors.New("the disk is full")
	if _, err := vm.Snapshot(func() error { return refusal }); err != refusal {
		t.Error(err)
	}
	if err := snapshot.Save(path, vmcell.SaveOptions{BytesPerSecond: 1 << 30}); err != nil {
		t.Fatal(err)
	}
	loaded, err := vmcell.LoadSnapshot(path, vmcell.LoadCopy)
	if err != nil {
		t.Fatal(err)
	}
	for _, source := range []*vmcell.Snapshot{snapshot, loaded} {
		var forked syncBuffer
		fork := started(t, ctx, vmcell.Config{ForkOf: source, ForkClock: vmcell.ForkClockKeep, Stdout: &forked})
		answers(fork, &forked, "b", "b")
		if own, shared, err := fork.MemoryUse(); err != nil || own > 1<<20 || shared == 0 {
			t.Error(own, shared, err)
		}
		if err := fork.SaveWorkingSet(path + ".parts"); err != nil {
			t.Fatal(err)
		}
		if err := source.ReadAhead(path + ".parts"); err != nil {
			t.Error(err)
		}
		if err := source.ReadAhead(path); !errors.Is(err, vmcell.ErrSnapshot) {
			t.Error(err)
		}
		if err := fork.Suspend(path+".away", vmcell.LoadCopy); err != nil {
			t.Fatal(err)
		}
		if err := fork.Resume(); err != nil {
			t.Fatal(err)
		}
		answers(fork, &forked, "c", "bc")
		newer, err := fork.Snapshot(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := newer.Save(path+".newer", vmcell.SaveOptions{Since: source, SinceName: "vm"}); err != nil {
			t.Error(err)
		}
		if err := newer.Close(); err != nil {
			t.Error(err)
		}
	}
	answers(vm, &output, "d", "ad")
	if err := loaded.Close(); err != nil {
		t.Error(err)
	}
	if _, err := vmcell.LoadSnapshot(guest(t, "echo"), vmcell.LoadMap); !errors.Is(err, vmcell.ErrSnapshot) {
		t.Error(err)
	}
	never := started(t, ctx, vmcell.Config{Kernel: guest(t, "echo"), NeverSnapshot: true})
	if _, err := never.Snapshot(nil); !errors.Is(err, vmcell.ErrInvalidState) {
		t.Error(err)
	}
}

func TestAVolumeIsADiskAndItsKeysChange(t *testing.T) {
	path, backup := filepath.Join(t.TempDir(), "volume"), filepath.Join(t.TempDir(), "backup")
	ours, err := vmcell.NewKey(vmcell.KeyRandom, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	other, err := vmcell.NewKey(vmcell.KeyPassphrase, []byte("a passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := vmcell.NewKeyFromFile(vmcell.KeyPassphrase, path); !errors.Is(err, vmcell.ErrVolume) {
		t.Error(err)
	}
	if err := vmcell.CreateVolume(path, 1<<20, ours, vmcell.VolumeFormat{Label: "tenant", SectorSize: 512}); err != nil {
		t.Fatal(err)
	}
	config := func(key *vmcell.Key) vmcell.Config {
		return vmcell.Config{Kernel: guest(t, "spin"), Disks: []vmcell.Disk{{Path: path, Volume: &vmcell.Volume{Key: key}}}}
	}
	if _, err := vmcell.New(config(other)); !errors.Is(err, vmcell.ErrVolumeKey) {
		t.Error(err)
	}
	vm := newVM(t, config(ours))
	if _, err := vmcell.New(config(ours)); !errors.Is(err, vmcell.ErrDisk) {
		t.Error(err)
	}
	if err := vmcell.BackUpVolumeHeader(path, backup); err != nil {
		t.Error(err)
	}
	if slot, err := vmcell.AddVolumeKey(path, ours, other); slot != 1 || err != nil {
		t.Error(slot, err)
	}
	if err := vmcell.RemoveVolumeKey(path, 0); err != nil {
		t.Error(err)
	}
	for _, format := range []vmcell.VolumeFormat{{}, {Header: path}} {
		if err := vmcell.FormatDevice("/dev/null", ours, format); !errors.Is(err, vmcell.ErrVolume) {
			t.Error(err)
		}
	}
	if err := vmcell.GrowVolume(path, 2<<20); err != nil {
		t.Error(err)
	}
	info, err := vmcell.InspectVolume(path)
	if err != nil || info.Label != "tenant" || info.Capacity != 2<<20 || len(info.Slots) != 1 || info.Slots[0].Number != 1 {
		t.Error(info, err)
	}
	if _, err := vmcell.ChangeVolumeKey(path, ours, other); !errors.Is(err, vmcell.ErrVolumeKey) {
		t.Error(err)
	}
	vm.Close()
	if err := vmcell.RestoreVolumeHeader(path, backup); err != nil {
		t.Error(err)
	}
	newVM(t, config(ours)).Close()
	fork := path + ".fork"
	if err := vmcell.ForkVolume(path, ours, fork, other); err != nil {
		t.Fatal(err)
	}
	if info, err := vmcell.InspectVolume(path); err != nil || !info.IsBase || info.IsFork {
		t.Error(info, err)
	}
	forked := vmcell.Disk{Path: fork, Volume: &vmcell.Volume{Key: other}}
	newVM(t, vmcell.Config{Kernel: guest(t, "spin"), Disks: []vmcell.Disk{forked}}).Close()
	if err := vmcell.ReleaseVolume(path); err != nil {
		t.Error(err)
	}
}

func TestAGuestHasASecretUntilItIsScrubbed(t *testing.T) {
	ctx := context.Background()
	secret, err := vmcell.NewSecret("token", []byte("sesame"))
	if err != nil {
		t.Fatal(err)
	}
	defer secret.Close()
	twice := vmcell.Config{Kernel: guest(t, "echo"), Secrets: []*vmcell.Secret{secret, secret}}
	if _, err := vmcell.New(twice); !errors.Is(err, vmcell.ErrSecret) {
		t.Error(err)
	}
	vm := started(t, ctx, vmcell.Config{Kernel: guest(t, "echo"), Secrets: []*vmcell.Secret{secret}, ScrubSecretsAfter: -1})
	if _, err := vm.Snapshot(nil); !errors.Is(err, vmcell.ErrInvalidState) {
		t.Error(err)
	}
	if err := vm.ScrubSecrets(); err != nil {
		t.Error(err)
	}
	snapshot, err := vm.Snapshot(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer snapshot.Close()
	fork := newVM(t, vmcell.Config{ForkOf: snapshot, ScrubSecretsAfter: time.Nanosecond})
	if err := fork.RenewSecret(secret); err != nil {
		t.Error(err)
	}
	if inClear, err := fork.HasSecretsInClear(); !inClear || err != nil {
		t.Error(inClear, err)
	}
	if err := fork.Start(ctx); err != nil {
		t.Error(err)
	}
	for tries := 0; tries < 1000; tries++ {
		if inClear, err := fork.HasSecretsInClear(); !inClear && err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("it is there for ever")
}

func TestSecretsAreSealedToAHostAndKeptInAStore(t *testing.T) {
	folder := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	secretOf := func(name, value string) *vmcell.Secret {
		secret, err := vmcell.NewSecret(name, []byte(value))
		must(err)
		t.Cleanup(secret.Close)
		return secret
	}
	opened := func(secret *vmcell.Secret, err error) string {
		t.Helper()
		must(err)
		defer secret.Close()
		value, err := secret.Value()
		must(err)
		return string(value)
	}
	refused := func(err error, said string) {
		t.Helper()
		if !errors.Is(err, vmcell.ErrSecret) || !strings.Contains(err.Error(), said) {
			t.Fatalf("%v", err)
		}
	}
	host, err := vmcell.NewHostKey(vmcell.SuiteXWing)
	must(err)
	defer host.Close()
	must(host.Save(filepath.Join(folder, "host.key")))
	again, err := vmcell.NewHostKeyFromFile(filepath.Join(folder, "host.key"))
	must(err)
	defer again.Close()
	public, err := host.SealingKey()
	must(err)

	sealed, err := secretOf("token", "hunter2").Seal(public, "shop", 2)
	must(err)
	if value := opened(again.Open(sealed, "shop", "token", 2)); value != "hunter2" {
		t.Fatal(value)
	}
	_, err = host.Open(sealed, "forum", "token", 2)
	refused(err, "it is of application shop")
	_, err = vmcell.HostKeyOf(vmcell.SuiteX25519, []byte("short"))
	refused(err, "5 were given")
	_, err = vmcell.HostKeyOf(vmcell.SuiteX25519, nil)
	refused(err, "0 were given")
	_, err = vmcell.NewSecretFromFile("token", folder)
	refused(err, "cannot be read")

	path := filepath.Join(folder, "secrets")
	must(vmcell.CreateSecretStore(path, "shop"))
	_, err = vmcell.OpenSecretStore(path, "shop", 1)
	refused(err, "an older copy was put back")
	store, err := vmcell.OpenSecretStore(path, "shop", 0)
	must(err)
	defer store.Close()
	if version, err := store.Set(public, secretOf("user", "u"), secretOf("password", "p")); version != 1 || err != nil {
		t.Fatal(version, err)
	}
	must(store.Put(sealed))
	refused(store.Put(sealed), "the next one is 3")
	if value := opened(store.Get(again, "token", 2)); value != "hunter2" {
		t.Fatal(value)
	}
	_, err = store.Get(host, "user", 2)
	refused(err, "it is version 1, asked for was 2")
	all, err := store.GetAll(host)
	if err != nil || len(all) != 3 {
		t.Fatal(all, err)
	}
	for i, name := range []string{"password", "token", "user"} {
		if found, err := all[i].Name(); found != name || err != nil {
			t.Fatal(found, err)
		}
		all[i].Close()
	}
	other, err := vmcell.NewHostKey(vmcell.SuiteX25519)
	must(err)
	defer other.Close()
	public, err = other.SealingKey()
	must(err)
	if version, err := store.Reseal(host, public); version != 3 || err != nil {
		t.Fatal(version, err)
	}
	if revision, err := store.Unset("user"); revision != 4 || err != nil {
		t.Fatal(revision, err)
	}
	info, err := store.List()
	if err != nil || info.Revision != 4 || len(info.Secrets) != 2 || info.Secrets[0].Name != "password" || info.Secrets[1].ValueLen != 7 {
		t.Fatalf("%+v %v", info, err)
	}
}

func TestASnapshotOfAVolumeInUseIsOfTheInstantOfTheVMs(t *testing.T) {
	folder := t.TempDir()
	path := func(name string) string { return filepath.Join(folder, name) }
	key, err := vmcell.NewKey(vmcell.KeyRandom, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	defer key.Close()
	if err := vmcell.CreateVolume(path("monday"), 1<<20, key, vmcell.VolumeFormat{}); err != nil {
		t.Fatal(err)
	}
	volume := &vmcell.Volume{Key: key}
	if _, err := volume.Snapshot(path("tuesday"), key, time.Minute); !errors.Is(err, vmcell.ErrInvalidState) {
		t.Error(err)
	}
	if err := volume.Grow(2<<20, time.Minute); !errors.Is(err, vmcell.ErrInvalidState) {
		t.Error(err)
	}
	disk := vmcell.Disk{Path: path("monday"), Volume: volume}
	vm := started(t, context.Background(), vmcell.Config{Kernel: guest(t, "spin"), Disks: []vmcell.Disk{disk}})
	if _, err := volume.Snapshot(path("tuesday"), key, time.Minute); err != nil {
		t.Fatal(err)
	}
	// In milliseconds, it is more than 32 bits hold, of which the last ones are zeroes.
	const tooLong = (1 << 32) * time.Millisecond
	if err := volume.Grow(64<<20, tooLong); err != nil {
		t.Fatal(err)
	}
	if err := volume.Grow(65<<20, -time.Millisecond); !errors.Is(err, vmcell.ErrBadValue) {
		t.Error(err)
	}
	if _, err := volume.Snapshot(path("never"), key, -time.Nanosecond); !errors.Is(err, vmcell.ErrBadValue) {
		t.Error(err)
	}
	if err := volume.Grow(32<<20, time.Minute); !errors.Is(err, vmcell.ErrVolume) {
		t.Error(err)
	}
	prepared, err := volume.PrepareSnapshot(path("wednesday"), key, tooLong)
	if err != nil {
		t.Fatal(err)
	}
	if err := volume.Grow(128<<20, time.Minute); !errors.Is(err, vmcell.ErrInvalidState) {
		t.Error(err)
	}
	defer prepared.Close()
	if _, err := prepared.Wait(time.Millisecond); !errors.Is(err, vmcell.ErrInvalidState) {
		t.Error(err)
	}
	ram, err := vm.Snapshot(prepared.Take)
	if err != nil {
		t.Fatal(err)
	}
	defer ram.Close()
	if _, err := prepared.Wait(-time.Millisecond); !errors.Is(err, vmcell.ErrBadValue) {
		t.Error(err)
	}
	if _, err := prepared.Wait(tooLong); err != nil {
		t.Error(err)
	}
	for name, is := range map[string][2]bool{"monday": {true, false}, "tuesday": {true, true}, "wednesday": {false, true}} {
		if info, err := vmcell.InspectVolume(path(name)); err != nil || [2]bool{info.IsBase, info.IsFork} != is {
			t.Error(name, info, err)
		}
	}
	vm.Close()
}

func TestAForkIsFlattenedCommittedAndGrown(t *testing.T) {
	folder := t.TempDir()
	path := func(name string) string { return filepath.Join(folder, name) }
	key, err := vmcell.NewKey(vmcell.KeyRandom, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	defer key.Close()
	if err := vmcell.CreateVolume(path("base"), 2<<20, key, vmcell.VolumeFormat{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "other"} {
		if err := vmcell.ForkVolume(path("base"), key, path(name), key); err != nil {
			t.Fatal(err)
		}
	}
	if err := vmcell.GrowVolumeFork(path("one"), key, 4<<20); err != nil {
		t.Error(err)
	}
	stop := func(done, total uint64) bool { return done < 1<<20 }
	if done, err := vmcell.FlattenVolume(path("one"), key, stop); done || err != nil {
		t.Error(done, err)
	}
	if done, err := vmcell.FlattenVolumeTo(path("one"), key, path("copy"), key, nil); !done || err != nil {
		t.Error(done, err)
	}
	if done, err := vmcell.FlattenVolume(path("one"), key, func(done, total uint64) bool { return total == 4<<20 }); !done || err != nil {
		t.Error(done, err)
	}
	if _, err := vmcell.CommitVolume(path("other"), key, vmcell.OtherForksRefuse, nil); !errors.Is(err, vmcell.ErrVolume) {
		t.Error(err)
	}
	if done, err := vmcell.CommitVolume(path("other"), key, vmcell.OtherForksGiveUp, nil); !done || err != nil {
		t.Error(done, err)
	}
	if info, err := vmcell.InspectVolume(path("copy")); err != nil || info.Capacity != 4<<20 || info.IsFork {
		t.Error(info, err)
	}
}

func TestASourceOfRandomBytesIsADeviceAndALimitOfNothingIsRefused(t *testing.T) {
	for _, rng := range []vmcell.RNG{{}, {PerSecond: 1024, Burst: 64}} {
		vm := started(t, context.Background(), vmcell.Config{Kernel: guest(t, "spin"), RNG: &rng})
		metrics, err := vm.Metrics()
		if err != nil || len(metrics.Devices) != 1 || metrics.Devices[0].Name != "rng0" {
			t.Error(metrics.Devices, err)
		}
		for _, set := range []func(vmcell.Rate) error{vm.SetRNGRate, vm.SetConsoleRate} {
			for _, rate := range []vmcell.Rate{vmcell.PerSecond(100), {}} {
				if err := set(rate); err != nil {
					t.Error(err)
				}
			}
			if err := set(vmcell.Rate{PerSecond: 1}); !errors.Is(err, vmcell.ErrBadValue) {
				t.Error(err)
			}
			if err := set(vmcell.PerSecond(1 << 41)); !errors.Is(err, vmcell.ErrInvalidConfig) {
				t.Error(err)
			}
		}
		vm.Close()
	}
	config := vmcell.Config{Kernel: guest(t, "spin"), RNG: &vmcell.RNG{PerSecond: 1}}
	if _, err := vmcell.New(config); !errors.Is(err, vmcell.ErrBadValue) || !strings.Contains(err.Error(), "burst is 0") {
		t.Error(err)
	}
}

func TestACgroupThatIsNoneIsRefused(t *testing.T) {
	refused := func(cgroup vmcell.Cgroup, said string) {
		t.Helper()
		vm, err := vmcell.New(vmcell.Config{Kernel: guest(t, "spin"), Name: "web", Cgroup: &cgroup})
		if vm != nil || !errors.Is(err, vmcell.ErrInvalidConfig) || !strings.Contains(err.Error(), said) {
			t.Errorf("%v, not %q", err, said)
		}
	}
	folder := t.TempDir()
	refused(vmcell.Cgroup{Folder: folder}, "is not the folder of a cgroup")
	refused(vmcell.Cgroup{Folder: folder, Name: "a/b"}, `the name "a/b" was asked for`)
	refused(vmcell.Cgroup{Folder: folder, Quota: time.Nanosecond, Period: time.Second}, "of 1 us in each 1000000 us")
	refused(vmcell.Cgroup{Folder: folder, Quota: 2 * time.Hour, Period: -1}, "of 4294967295 us in each 4294967295 us")
	refused(vmcell.Cgroup{Folder: folder, Weight: 10001}, "the weight 10001")
	if err := vmcell.JoinCgroup(folder, vmcell.Unlimited); !errors.Is(err, vmcell.ErrInvalidConfig) {
		t.Error(err)
	}
}

func TestABalloonHasATargetOfAtMostTheRAM(t *testing.T) {
	balloon := vmcell.Balloon{MiB: 1, KeepOnOOM: true, StatisticsEvery: time.Second}
	config := vmcell.Config{Kernel: guest(t, "spin"), MemoryMiB: 32, Balloon: &balloon}
	vm := started(t, context.Background(), config)
	state, err := vm.Balloon()
	if err != nil || state != (vmcell.BalloonState{Target: 1 << 20}) {
		t.Error(state, err)
	}
	if err := vm.SetBalloon(3*4096 + 1); err != nil {
		t.Error(err)
	}
	if state, err := vm.Balloon(); err != nil || state.Target != 3*4096 {
		t.Error(state, err)
	}
	if metrics, err := vm.Metrics(); err != nil || metrics.Devices[0].Balloon.TargetBytes != 3*4096 || metrics.Devices[0].Balloon.Statistics != nil {
		t.Error(metrics.Devices, err)
	}
	if err := vm.SetBalloon(32<<20 + 1); !errors.Is(err, vmcell.ErrInvalidConfig) {
		t.Error(err)
	}
	// A part of a second counts as a whole one, so that little is not never.
	if err := vm.SetBalloonStatistics(24*time.Hour + time.Nanosecond); !errors.Is(err, vmcell.ErrInvalidConfig) {
		t.Error(err)
	}
	if said, err := vm.BalloonStatistics(-time.Second); !errors.Is(err, vmcell.ErrBadValue) {
		t.Error(said, err)
	}
	// There is no driver in this guest.
	for _, limit := range []time.Duration{0, time.Microsecond, 20 * time.Millisecond} {
		if said, err := vm.BalloonStatistics(limit); !errors.Is(err, vmcell.ErrTimeout) {
			t.Error(said, err)
		}
	}
	vm.Close()
	balloon.MiB = 33
	if _, err := vmcell.New(config); !errors.Is(err, vmcell.ErrInvalidConfig) || !strings.Contains(err.Error(), "0 to 32 MiB") {
		t.Error(err)
	}
	none := started(t, context.Background(), vmcell.Config{Kernel: guest(t, "spin")})
	defer none.Close()
	if _, err := none.Balloon(); !errors.Is(err, vmcell.ErrInvalidConfig) {
		t.Error(err)
	}
}

func TestLimitsAreSetAndChangedAndThoseOfNothingAreRefused(t *testing.T) {
	image := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(image, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	group, err := vmcell.NewLimitGroup(vmcell.Limits{Bytes: vmcell.PerSecond(1 << 20)})
	if err != nil {
		t.Fatal(err)
	}
	disk := vmcell.Disk{Path: image, Limits: vmcell.Limits{Operations: vmcell.Rate{PerSecond: 100, Burst: 10}}, LimitGroup: group}
	vm := started(t, context.Background(), vmcell.Config{Kernel: guest(t, "spin"), Disks: []vmcell.Disk{disk}})
	if err := vm.SetDiskLimits(0, vmcell.Limits{}); err != nil {
		t.Error(err)
	}
	if err := vm.SetDiskLimits(0, vmcell.Limits{Bytes: vmcell.PerSecond(1 << 41)}); !errors.Is(err, vmcell.ErrInvalidConfig) {
		t.Error(err)
	}
	for _, err := range []error{vm.SetReceiveLimits(0, vmcell.Limits{}), vm.SetSendLimits(0, vmcell.Limits{}), vm.SetDiskLimits(1, vmcell.Limits{})} {
		if !errors.Is(err, vmcell.ErrInvalidConfig) {
			t.Error(err)
		}
	}
	if err := group.SetLimits(vmcell.Limits{Operations: vmcell.Rate{PerSecond: 1}}); !errors.Is(err, vmcell.ErrBadValue) {
		t.Error(err)
	}
	if err := group.Close(); err != nil {
		t.Error(err)
	}
	vm.Close()
	disk.LimitGroup, disk.Limits.Operations.Burst = nil, 0
	config := vmcell.Config{Kernel: guest(t, "spin"), Disks: []vmcell.Disk{disk}}
	if _, err := vmcell.New(config); !errors.Is(err, vmcell.ErrBadValue) || !strings.Contains(err.Error(), "operations_burst is 0") {
		t.Error(err)
	}
}

func TestMetadataIsSetAndPatchedAndWhatItCannotBeIsRefused(t *testing.T) {
	metadata, err := vmcell.NewMetadata(vmcell.MetadataOptions{Address: "169.254.1.1", Limit: 32, WithoutToken: true, AlwaysText: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := metadata.Set(`{ "a": {"b": "c"} }`); err != nil {
		t.Error(err)
	}
	if err := metadata.Patch(`{"a":{"b":null,"d":"ä"}}`); err != nil {
		t.Error(err)
	}
	if err := metadata.Set(`"` + strings.Repeat("x", 31) + `"`); !errors.Is(err, vmcell.ErrInvalidConfig) || !strings.Contains(err.Error(), "at most 32") {
		t.Error(err)
	}
	if err := metadata.Patch("{"); !errors.Is(err, vmcell.ErrInvalidConfig) {
		t.Error(err)
	}
	if text, err := metadata.JSON(); err != nil || text != `{"a":{"d":"ä"}}` {
		t.Error(text, err)
	}
	if err := metadata.Close(); err != nil {
		t.Error(err)
	}
	if err := metadata.Set("{}"); !errors.Is(err, vmcell.ErrBadHandle) {
		t.Error(err)
	}
	if _, err := vmcell.NewMetadata(vmcell.MetadataOptions{Address: "10.0.0.1"}); !errors.Is(err, vmcell.ErrInvalidConfig) {
		t.Error(err)
	}
}

func TestAVsockWaitsForItsGuestAndEndsWithIt(t *testing.T) {
	// The test's own folder may have a path that is too long for a socket.
	folder, err := os.MkdirTemp("/tmp", "vmcell-vsock-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(folder)
	path := filepath.Join(folder, "guest.vsock")
	vm := started(t, context.Background(), vmcell.Config{Kernel: guest(t, "spin"), Vsock: &vmcell.Vsock{CID: 3, Path: path}})
	metrics, err := vm.Metrics()
	if err != nil || len(metrics.Devices) != 1 || metrics.Devices[0].Name != "vsock0" {
		t.Error(metrics.Devices, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Type() != os.ModeSocket || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
	// This guest has no driver.
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := vm.Dial(ctx, 52); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	listener, err := vm.Listen(80)
	if err != nil || listener.Addr().String() != "80" {
		t.Fatal(err)
	}
	defer listener.Close()
	if _, err := vm.Listen(80); !errors.Is(err, vmcell.ErrVsock) {
		t.Error(err)
	}
	accepted := make(chan error)
	go func() {
		_, err := listener.Accept()
		accepted <- err
	}()
	if err := vm.Stop(); err != nil {
		t.Error(err)
	}
	if err := <-accepted; !errors.Is(err, vmcell.ErrInvalidState) {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	without := started(t, context.Background(), vmcell.Config{Kernel: guest(t, "spin")})
	if _, err := without.Dial(context.Background(), 52); !errors.Is(err, vmcell.ErrInvalidConfig) {
		t.Error(err)
	}
	if _, err := vmcell.New(vmcell.Config{Kernel: guest(t, "spin"), Vsock: &vmcell.Vsock{CID: 2}}); !errors.Is(err, vmcell.ErrInvalidConfig) {
		t.Error(err)
	}
}

func TestMemoryLiesWhereItIsAskedToAndANodeThatIsMissingIsRefused(t *testing.T) {
	var node uint32
	config := vmcell.Config{Kernel: guest(t, "hello"), NUMANode: &node, LockMemory: os.Geteuid() == 0}
	check, err := vmcell.CheckHost()
	for _, finding := range check.Findings {
		config.CoreScheduling = config.CoreScheduling || finding.Name == "core-scheduling" && finding.Level == vmcell.FindingFine
	}
	if err != nil {
		t.Fatal(err)
	}
	wait(t, started(t, context.Background(), config))
	for _, node = range []uint32{1023, 1024, 1 << 31, 1<<32 - 1} {
		if _, err := vmcell.New(config); !errors.Is(err, vmcell.ErrInvalidConfig) || !strings.Contains(err.Error(), "NUMA node") {
			t.Errorf("%d: %v", node, err)
		}
	}
}

func TestTheHostIsLookedAt(t *testing.T) {
	check, err := vmcell.CheckHost()
	if err != nil || len(check.Findings) == 0 {
		t.Fatalf("%+v %v", check, err)
	}
	var highest vmcell.FindingLevel
	for _, finding := range check.Findings {
		if finding.Name == "" || finding.Found == "" || (finding.Advice != "") != (finding.Level >= vmcell.FindingAdvice) {
			t.Errorf("%+v", finding)
		}
		if finding.Level > highest {
			highest = finding.Level
		}
	}
	kvm := check.Findings[0]
	if kvm.Name != "kvm" || kvm.Level != vmcell.FindingFine || check.Level != highest || highest >= vmcell.FindingProblem {
		t.Errorf("%v %+v", check.Level, kvm)
	}
	text, err := json.Marshal(kvm)
	if want := `{"name":"kvm","level":"fine","found":"`; err != nil || !strings.HasPrefix(string(text), want) {
		t.Errorf("%s %v", text, err)
	}
}

func TestAGuestThatBreaksItsDiskIsOneFailureWithACount(t *testing.T) {
	image := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(image, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	config := vmcell.Config{Kernel: guest(t, "break_queues"), Disks: []vmcell.Disk{{Path: image}}}
	vm := started(t, context.Background(), config)
	var failures []vmcell.DeviceFailure
	for deadline := time.Now().Add(30 * time.Second); len(failures) == 0 || failures[0].Count < 3; {
		var err error
		if failures, err = vm.DeviceFailures(); err != nil || time.Now().After(deadline) {
			t.Fatal(failures, err)
		}
	}
	failure := failures[0]
	if len(failures) != 1 || failure.Device != "disk0" || failure.Cause != "broken_queue" || failure.IsFinal {
		t.Errorf("%+v", failures)
	}
	if !strings.HasPrefix(failure.String(), "disk 0 ("+image+"): ") || time.Since(time.Unix(0, failure.AtNS)) > time.Hour {
		t.Errorf("%v", failure)
	}
	if metrics, err := vm.Metrics(); err != nil || metrics.Devices[0].Failures < failure.Count {
		t.Errorf("%+v %v", metrics, err)
	}
	vm.Close()
	if _, err := vm.DeviceFailures(); !errors.Is(err, vmcell.ErrClosed) {
		t.Error(err)
	}
}

func TestALogTellsThatAVMStartsAndHowItEnds(t *testing.T) {
	records := make(chan vmcell.LogRecord, 10)
	tell := func(record vmcell.LogRecord) { records <- record }
	vm := started(t, context.Background(), vmcell.Config{Kernel: guest(t, "hello"), Name: "told", Log: tell})
	wait(t, vm)
	vm.Close()
	close(records)
	var lines []string
	for record := range records {
		lines = append(lines, record.Level.String()+" "+record.String())
	}
	want := []string{"info told: vm: starts with 1 vCPU", "info told: vm: ended: the guest turned itself off"}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("%q", lines)
	}
}

func TestNothingIsLeft(t *testing.T) {
	for deadline := time.Now().Add(30 * time.Second); vmcell.Objects() != 0; time.Sleep(time.Millisecond) {
		runtime.GC()
		if time.Now().After(deadline) {
			t.Fatalf("%d objects", vmcell.Objects())
		}
	}
	if consoles, disks, transfers := vmcell.Abandoned(); consoles+disks+transfers != 0 {
		t.Error(consoles, disks, transfers)
	}
}
