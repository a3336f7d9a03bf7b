// Machines starts many machines side by side over Firecracker's API, talks to each guest, and ends them all.
//
//	machines [-n MACHINES] [-m MIB] PROGRAM KERNEL
//
// PROGRAM is vmcell-firecracker, or Firecracker. KERNEL is a guest that prints what is typed, and answers over its vsock with the first 16
// bytes of its disk and what it got. Each machine has a disk and a vsock, and a network card if root runs this, who may make TAP devices.
// It says how long that took. Exit status: 0 all did as they should; 1 one did not.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// For whatever a machine does.
const limit = 60 * time.Second

// The guest finds its devices on its command line, which names them if there is no ACPI.
const bootArgs = "console=ttyS0 acpi=off case=answerer"

// Where the guest listens, as on any port.
const port = 52

// How many bytes of its disk the guest answers with.
const onDisk = 16

func nameOnDisk(name string) string {
	return fmt.Sprintf("%-*s", onDisk, name)
}

func main() {
	number := flag.Int("n", 100, "how many `MACHINES`")
	memory := flag.Int("m", 16, "the memory of each in `MIB`")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: machines [-n MACHINES] [-m MIB] PROGRAM KERNEL")
		os.Exit(1)
	}
	if err := run(*number, *memory, flag.Arg(0), flag.Arg(1)); err != nil {
		fmt.Fprintln(os.Stderr, "machines:", err)
		os.Exit(1)
	}
}

func run(number, memory int, program, kernel string) error {
	folder, err := os.MkdirTemp("", "machines")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	machines := make([]*machine, number)
	began := time.Now()
	err = each(number, func(index int) (err error) {
		name := fmt.Sprintf("vm-%d", index)
		machines[index], err = start(program, kernel, filepath.Join(folder, name), name, memory)
		return err
	})
	started := time.Since(began)
	if err == nil {
		err = each(number, func(index int) error { return machines[index].talk(fmt.Sprintf("machine %d", index)) })
	}
	ended := each(number, func(index int) error { return machines[index].end() })
	if err == nil {
		err = ended
	}
	if err != nil {
		return err
	}
	var starts []time.Duration
	for _, machine := range machines {
		starts = append(starts, machine.start)
	}
	sort.Slice(starts, func(i, j int) bool { return starts[i] < starts[j] })
	cards := "without network cards"
	if hasCards() {
		cards = "with a network card each"
	}
	fmt.Printf("%d machines ran side by side %s, started in %v (InstanceStart: %v median, %v longest), all ended after %v\n",
		number, cards, started.Round(time.Millisecond), starts[number/2].Round(time.Microsecond), starts[number-1].Round(time.Microsecond),
		time.Since(began).Round(time.Millisecond))
	return nil
}

// Does something for each machine, side by side, and returns the first error.
func each(number int, do func(int) error) error {
	ended := make(chan error, number)
	for index := 0; index < number; index++ {
		go func(index int) { ended <- do(index) }(index)
	}
	var first error
	for index := 0; index < number; index++ {
		if err := <-ended; err != nil && first == nil {
			first = err
		}
	}
	return first
}

type machine struct {
	name    string
	process *exec.Cmd
	client  http.Client
	typed   io.WriteCloser
	printed *bufio.Reader
	vsock   string
	// The TAP device; empty if there is none.
	tap string
	// How long InstanceStart took.
	start time.Duration
}

func start(program, kernel, folder, name string, memory int) (*machine, error) {
	if err := os.Mkdir(folder, 0o700); err != nil {
		return nil, err
	}
	socket, disk := filepath.Join(folder, "api"), filepath.Join(folder, "disk")
	if err := os.WriteFile(disk, append([]byte(nameOnDisk(name)), make([]byte, 1<<16-onDisk)...), 0o600); err != nil {
		return nil, err
	}
	m := &machine{name: name, vsock: filepath.Join(folder, "vsock")}
	m.process = exec.Command(program, "--api-sock", socket, "--id", name, "--level", "Error")
	m.process.Stderr = os.Stderr
	var err error
	if m.typed, err = m.process.StdinPipe(); err != nil {
		return nil, err
	}
	printed, err := m.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	m.printed = bufio.NewReader(printed)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	m.client = http.Client{Transport: &http.Transport{DialContext: dial}, Timeout: limit}
	if hasCards() {
		m.tap = fmt.Sprintf("m%d-%s", os.Getpid(), name[len("vm-"):])
		if err := setTap(m.tap, true); err != nil {
			return nil, fmt.Errorf("%s: %w", m.tap, err)
		}
	}
	if err := m.process.Start(); err != nil {
		m.removeTap()
		return nil, err
	}
	if err := m.describe(kernel, disk, memory); err != nil {
		m.process.Process.Kill()
		m.process.Wait()
		m.removeTap()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

type object = map[string]any

func (m *machine) describe(kernel, disk string, memory int) error {
	// The socket is there soon.
	began := time.Now()
	for m.ask("GET", "/version", nil) != nil {
		if time.Since(began) > limit {
			return errors.New("it did not make its socket")
		}
		time.Sleep(time.Millisecond)
	}
	type call struct {
		path string
		body object
	}
	calls := []call{
		{"/machine-config", object{"vcpu_count": 1, "mem_size_mib": memory}},
		{"/boot-source", object{"kernel_image_path": kernel, "boot_args": bootArgs}},
		{"/drives/data", object{"drive_id": "data", "is_root_device": false, "path_on_host": disk}},
		{"/vsock", object{"guest_cid": 3, "uds_path": m.vsock}},
	}
	if m.tap != "" {
		calls = append(calls, call{"/network-interfaces/net", object{"iface_id": "net", "host_dev_name": m.tap}})
	}
	for _, call := range calls {
		if err := m.ask("PUT", call.path, call.body); err != nil {
			return err
		}
	}
	began = time.Now()
	err := m.ask("PUT", "/actions", object{"action_type": "InstanceStart"})
	m.start = time.Since(began)
	return err
}

func (m *machine) ask(method, path string, body object) error {
	var text io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return err
		}
		text = bytes.NewReader(encoded)
	}
	request, err := http.NewRequest(method, "http://localhost"+path, text)
	if err != nil {
		return err
	}
	answer, err := m.client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	told, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, told)
	}
	return err
}

// Has the guest stand still and go on, types a line, which it prints, and asks it over the vsock.
func (m *machine) talk(line string) error {
	for _, state := range []string{"Paused", "Resumed"} {
		if err := m.ask("PATCH", "/vm", object{"state": state}); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	if _, err := io.WriteString(m.typed, line+"\n"); err != nil {
		return err
	}
	printed, err := m.printed.ReadString('\n')
	if err != nil || printed != line+"\n" {
		return fmt.Errorf("%s printed %q, not %q: %v", m.name, printed, line, err)
	}
	if err := m.askGuest(line); err != nil {
		return fmt.Errorf("%s: vsock: %w", m.name, err)
	}
	return nil
}

// Sends a line over a connection of the vsock, and takes what the guest answers.
func (m *machine) askGuest(line string) error {
	client, err := net.Dial("unix", m.vsock)
	if err != nil {
		return err
	}
	defer client.Close()
	client.SetDeadline(time.Now().Add(limit))
	if _, err := fmt.Fprintf(client, "CONNECT %d\n", port); err != nil {
		return err
	}
	answers := bufio.NewReader(client)
	told, err := answers.ReadString('\n')
	if err != nil || !strings.HasPrefix(told, "OK ") {
		return fmt.Errorf("the answer to CONNECT is %q: %v", told, err)
	}
	if _, err := io.WriteString(client, line+"\n"); err != nil {
		return err
	}
	if told, err = answers.ReadString('\n'); told != nameOnDisk(m.name)+line+"\n" {
		return fmt.Errorf("the guest answers %q to %q: %v", told, line, err)
	}
	return nil
}

func (m *machine) end() (err error) {
	if m == nil {
		return nil
	}
	// Also if it does not end as it should.
	defer func() {
		if failed := m.removeTap(); err == nil && failed != nil {
			err = fmt.Errorf("%s: %w", m.tap, failed)
		}
	}()
	if err := m.process.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("%s: %w", m.name, err)
	}
	killed := time.AfterFunc(limit, func() { m.process.Process.Kill() })
	defer killed.Stop()
	if err := m.process.Wait(); err != nil {
		return fmt.Errorf("%s: %w", m.name, err)
	}
	if _, err := os.Stat(m.vsock); !os.IsNotExist(err) {
		return fmt.Errorf("%s left its vsock behind: %v", m.name, err)
	}
	return nil
}

func hasCards() bool {
	_, err := os.Stat("/dev/net/tun")
	return err == nil && os.Geteuid() == 0
}

func (m *machine) removeTap() error {
	if m.tap == "" {
		return nil
	}
	return setTap(m.tap, false)
}

// What TUNSETIFF takes: a name, and that of a TAP device whose frames have no number in front, but a header of virtio.
type interfaceRequest struct {
	name  [16]byte
	flags uint16
	_     [22]byte
}

const (
	setInterface  = 0x400454ca
	setPersistent = 0x400454cb
	tapDevice     = 0x0002 | 0x1000 | 0x4000
)

// Makes a TAP device that stays until this is called once more to remove it.
func setTap(name string, stays bool) error {
	// A process that is started meanwhile would have the device, too, until it executes its program.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	file, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	request := interfaceRequest{flags: tapDevice}
	copy(request.name[:], name)
	if _, _, failed := syscall.Syscall(syscall.SYS_IOCTL, file.Fd(), setInterface, uintptr(unsafe.Pointer(&request))); failed != 0 {
		return failed
	}
	persistent := uintptr(0)
	if stays {
		persistent = 1
	}
	if _, _, failed := syscall.Syscall(syscall.SYS_IOCTL, file.Fd(), setPersistent, persistent); failed != 0 {
		return failed
	}
	return nil
}
