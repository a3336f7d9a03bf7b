package vmcell

/*
#include <stdlib.h>
#include <vmcell.h>
*/
import "C"

import (
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// Protocol is how the kernel is entered.
type Protocol int32

const (
	// ProtocolAuto is PVH for an ELF image that carries the note, and Linux64 for everything else.
	ProtocolAuto Protocol = C.VMCELL_PROTOCOL_AUTO
	// ProtocolLinux64 is the 64-bit Linux boot protocol.
	ProtocolLinux64 Protocol = C.VMCELL_PROTOCOL_LINUX64
	// ProtocolPVH is PVH, only for an ELF image that carries the note.
	ProtocolPVH Protocol = C.VMCELL_PROTOCOL_PVH
)

// CPULevel is which instructions a guest finds, by the levels of the x86-64 psABI.
type CPULevel int32

const (
	// CPUHost is all that the host can give.
	CPUHost CPULevel = C.VMCELL_CPU_HOST
	// CPUV2 is x86-64-v2: up to SSE4.2.
	CPUV2 CPULevel = C.VMCELL_CPU_V2
	// CPUV3 is x86-64-v3: AVX2, BMI and FMA.
	CPUV3 CPULevel = C.VMCELL_CPU_V3
	// CPUV4 is x86-64-v4: AVX-512.
	CPUV4 CPULevel = C.VMCELL_CPU_V4
)

// Discovery is how the guest finds its devices.
type Discovery int32

const (
	// DiscoveryACPI describes them in ACPI tables.
	DiscoveryACPI Discovery = C.VMCELL_DISCOVERY_ACPI
	// DiscoveryCmdline appends them to the command line.
	DiscoveryCmdline Discovery = C.VMCELL_DISCOVERY_CMDLINE
)

// Backing is where the host takes the guest's memory from.
type Backing int32

const (
	// Anonymous is private anonymous memory.
	Anonymous Backing = C.VMCELL_MEMORY_ANONYMOUS
	// Memfd is an unnamed file in memory.
	Memfd Backing = C.VMCELL_MEMORY_MEMFD
)

// Pages are the pages that back the guest's memory.
type Pages int32

const (
	// DefaultPages are what the host's policy gives.
	DefaultPages Pages = C.VMCELL_PAGES_DEFAULT
	// TransparentPages asks for transparent huge pages.
	TransparentPages Pages = C.VMCELL_PAGES_TRANSPARENT
	// Huge2MiBPages are of the host's reserved pool.
	Huge2MiBPages Pages = C.VMCELL_PAGES_HUGE_2_MIB
)

// Engine is how requests reach a disk's file.
type Engine int32

const (
	// EngineAuto is EngineUring if the host has it, otherwise EngineSync.
	EngineAuto Engine = C.VMCELL_ENGINE_AUTO
	// EngineSync makes ordinary system calls; requests that wait for the storage do so one after another.
	EngineSync Engine = C.VMCELL_ENGINE_SYNC
	// EngineUring is the io_uring of the disk's I/O thread.
	EngineUring Engine = C.VMCELL_ENGINE_URING
)

// Disk is a raw file or block device that the guest gets as a disk.
type Disk struct {
	// Path is a raw file or a block device.
	Path string
	// File is one that is open already, in place of Path; open for writing as well unless ReadOnly. It stays the caller's, who may
	// close it after New.
	File     *os.File
	ReadOnly bool
	// Volume says that Path is an encrypted volume, and what opens it.
	Volume *Volume
	// Serial is what the guest is told: at most 20 printable ASCII characters.
	Serial string
	Engine Engine
	// Direct makes the guest's data go past the host's page cache.
	Direct bool
	// Queues is how many queues the guest's driver may use, 1 to 16; 0 means one for each vCPU, but no more than four.
	Queues uint16
	// Limits is what the guest may do with the disk; VM.SetDiskLimits changes them. LimitGroup has limits that others share.
	Limits     Limits
	LimitGroup *LimitGroup
	// IOThread serves the disk, rather than the VM's own thread.
	IOThread *IOThread
}

// NIC is a network interface on a TAP device of the host, or on a port of a private network.
type NIC struct {
	// Tap is the name of a TAP device.
	Tap string
	// Files are descriptors of /dev/net/tun, in place of Tap, that the caller has attached to one TAP device with IFF_TAP, IFF_NO_PI
	// and IFF_VNET_HDR, and with IFF_MULTI_QUEUE if there are several: each is a pair of queues. They are made non-blocking. They
	// stay the caller's, who may close them after New.
	Files []*os.File
	// Port is a machine's place in a private network, in place of Tap. New takes it. MAC and MTU belong to it, and stay empty.
	Port *Port
	// Passt starts passt, in place of Tap, which serves the interface and ends with it. MTU stays empty.
	Passt *Passt
	// MAC is what the guest is told. The default is a random one.
	MAC net.HardwareAddr
	// MTU is the largest packet that the guest is told to send. The default is to say nothing.
	MTU uint16
	// Queues is how many pairs of queues the guest's driver may use, 1 to 16; 0 means one for each vCPU, but no more than four, if
	// the TAP device was made with several queues, and otherwise one.
	Queues uint16
	// ReceiveLimits are for the frames that the guest gets, SendLimits for those that it sends; VM.SetReceiveLimits and VM.SetSendLimits
	// change them. The groups have limits that others share; it may be the same one.
	ReceiveLimits, SendLimits Limits
	ReceiveGroup, SendGroup   *LimitGroup
	// IOThread serves the interface, rather than the VM's own thread.
	IOThread *IOThread
	// Metadata is a metadata service for the guest on this interface. Nil is none.
	Metadata *Metadata
}

// RNG is a source of random bytes of the host's kernel (virtio 1.2, section 5.4).
type RNG struct {
	// PerSecond and Burst are how many bytes the guest gets a second, and at once; both 0 for as many as it asks for.
	PerSecond, Burst uint64
}

// Balloon is a balloon, by which the guest gives memory back to the host (virtio 1.2, section 5.5). VM.SetBalloon asks for more or less
// while the VM runs.
type Balloon struct {
	// MiB is how much the guest is asked to give back from the beginning, at most its RAM.
	MiB uint64
	// KeepOnOOM keeps the guest from taking memory back by itself when it runs out.
	KeepOnOOM bool
	// NoReporting keeps the guest from reporting pages that it has freed, which go back to the host at once.
	NoReporting bool
	// StatisticsEvery is how often the guest is asked for statistics by itself, in seconds, of which a part counts as a whole one, at most a day; 0 for
	// never.
	StatisticsEvery time.Duration
}

// Vsock is sockets between host and guest, without a network (virtio 1.2, section 5.10). VM.Dial and VM.Listen use them.
type Vsock struct {
	// CID is the guest's context ID, 3 to 4294967294.
	CID uint64
	// Path is where a Unix socket is made by which other programs of the host use them, as vmcell_config_set_vsock says; empty for none.
	Path string
	// MaxConnections is how many connections there may be at once, 1 to 4096, or 0 for 1024.
	MaxConnections uint32
}

// Cgroup is a cgroup of version 2 for the threads of a VM, with a share of the CPUs. It is made in Folder, and removed when the VM is closed.
type Cgroup struct {
	// Folder is that of the cgroup in which the process is (JoinCgroup), and which the program owns.
	Folder string
	// Name is 1 to 64 letters, digits, "-", "_" and ".", and does not begin with a "."; the default is the VM's name.
	Name string
	// Quota is for how long the threads run at most in each Period, of 1 ms to 1 s; 0 is no limit. Burst is how much of what was not used is
	// kept at most. Microseconds count.
	Quota, Period, Burst time.Duration
	// Weight is how much they get beside those of other cgroups in the folder, 1 to 10000, or 0 for the kernel's default, which is 100.
	Weight uint32
}

// set is a call of its own for what has two texts.
func (c *Cgroup) set(d *describer) {
	d.withText(c.Folder, func(folder *C.char, e **C.vmcell_error) C.int32_t {
		var name *C.char
		if c.Name != "" {
			text, err := newText(c.Name)
			if d.err = err; err != nil {
				return C.VMCELL_OK
			}
			defer text.free()
			name = text.pointer
		}
		return C.vmcell_config_set_cgroup(d.config, folder, name, micros(c.Quota), micros(c.Period), micros(c.Burst), C.uint32_t(c.Weight), e)
	})
}

// micros rounds up, so that little is not nothing, and gives more than is allowed for what does not fit.
func micros(duration time.Duration) C.uint32_t {
	if duration < 0 || duration > math.MaxUint32*time.Microsecond {
		return math.MaxUint32
	}
	return C.uint32_t((duration + time.Microsecond - 1) / time.Microsecond)
}

// Unlimited leaves a limit of JoinCgroup as it is.
const Unlimited = math.MaxUint64

// JoinCgroup moves the process with all its threads to a cgroup of version 2, given by its folder, which exists, and limits the memory of all
// its processes in bytes (memory.max). Unlimited leaves that as it is. If the kernel refuses a part of it, the error says which, and the rest is in place.
func JoinCgroup(folder string, memoryMax uint64) error {
	text, err := newText(folder)
	if err != nil {
		return err
	}
	defer text.free()
	var e *C.vmcell_error
	return failure(C.vmcell_cgroup_join(text.pointer, C.uint64_t(memoryMax), math.MaxUint64, math.MaxUint64, &e), e)
}

// Config says what a VM is to be. The zero value of each field is its default; only Kernel has none.
type Config struct {
	// Description is a VM as JSON, as docs/description.md lists its settings. Other fields that are not zero replace what it says,
	// and Disks and NICs come behind its own. Nil is none.
	Description []byte
	// ForkOf is a snapshot that the VM begins with, rather than boot a kernel: vCPUs, memory, RNG and balloon are those of its source. Disks and NICs are as
	// many as the source had, and disks have the content that they had. It is not used with Description.
	ForkOf *Snapshot
	// ForkClock is what the clocks show then.
	ForkClock ForkClock
	// NeverSnapshot has Snapshot and Suspend refuse the VM: what is in its memory is never to be copied.
	NeverSnapshot bool
	// Secrets are given to the guest as system credentials of systemd, until ScrubSecrets or the time limit. They stay the caller's to close. A
	// fork is given none: see VM.RenewSecret.
	Secrets []*Secret
	// ScrubSecretsAfter is how long after the start they are written over; the default is five minutes. Less than 0 is no limit.
	ScrubSecretsAfter time.Duration
	// Name stands in messages and in the names of the VM's threads: at most 64 printable ASCII characters.
	Name string
	// VCPUs is how many vCPUs there are, 1 to 64; the default is 1.
	VCPUs uint32
	// CPU is what the vCPUs can do, and CPUFeatures what is wanted beyond that, by the names of /proc/cpuinfo.
	CPU         CPULevel
	CPUFeatures []string
	// MemoryMiB is how much RAM there is, 16 or more; the default is 128.
	MemoryMiB uint64
	Backing   Backing
	Pages     Pages
	// Prealloc takes all RAM from the host when the VM is made, rather than page by page when the guest first uses one.
	Prealloc bool
	// NUMANode is the NUMA node that the host takes RAM from, as long as that has some, 0 to 1023. Nil is the host's choice.
	NUMANode *uint32
	// LockMemory keeps RAM that the guest has used from being written to swap space. It counts against RLIMIT_MEMLOCK.
	LockMemory bool
	// Kernel is the path of a bzImage or an ELF image.
	Kernel    string
	Initrd    string
	Cmdline   string
	Protocol  Protocol
	Discovery Discovery
	// Disks are /dev/vda, /dev/vdb and so on in Linux.
	Disks []Disk
	NICs  []NIC
	// ConsoleRate is how many bytes of the guest's output the console's readers get at most. The zero value is no limit.
	ConsoleRate Rate
	// RNG is a source of random bytes, or nil for none.
	RNG *RNG
	// Balloon is a balloon, or nil for none.
	Balloon *Balloon
	// Vsock is sockets between host and guest, or nil for none.
	Vsock *Vsock
	// Stdout gets what the guest prints on its serial console, and Stdin types into it, as with exec.Cmd. If both are nil, the console
	// is what Description says, or nothing.
	Stdout io.Writer
	Stdin  io.Reader
	// LogFiles get what the guest prints as well, each at its own pace.
	LogFiles []LogFile
	// Pair gets what the guest prints, and types into it, as well. It is for one VM.
	Pair *ConsolePair
	// KickSignal makes vCPU threads leave the guest. It is never delivered, and must not be sent to the whole process. The
	// default is SIGSTKFLT, which nothing else uses.
	KickSignal syscall.Signal
	// IOThread serves the VM's devices, rather than a thread of its own.
	IOThread *IOThread
	// VCPUAffinity says on which of the host's CPUs the thread of a vCPU may run, by the index of the vCPU, and IOAffinity says so
	// of the VM's own I/O threads. By default they may run anywhere.
	VCPUAffinity map[uint32][]uint32
	IOAffinity   []uint32
	// Cgroup is where the VM's threads are, with a share of the CPUs; nil is the cgroup of the process.
	Cgroup *Cgroup
	// CoreScheduling makes the VM's threads run on the hyperthreads of a core only beside each other, so that no other tenant is there
	// to watch what the guest does. The host needs Linux 5.14 with CONFIG_SCHED_CORE, or no hyperthreads that share a core. What a
	// callback on such a thread starts, another VM for instance, counts as this VM's, unless it has core scheduling itself.
	CoreScheduling bool
	// Polling is for how long at most the VM's own I/O threads look for more to do before they sleep, 0 to a millisecond. Nil means the
	// default, which is 50 µs.
	Polling *time.Duration
	// OnThreadStart is called on each new thread of the VM before that does anything, to set its priority or its cgroup: in New on I/O
	// threads, in Start on those of vCPUs, which wait for it. The goroutine is locked to the thread meanwhile. If it fails, New or Start
	// does, with the syscall.Errno that its error wraps, or else ECANCELED. It must not call a method of this VM. It is not called for
	// an IOThread.
	OnThreadStart func(role ThreadRole, index uint32) error
	// Seccomp says what becomes of a system call that a thread of the VM has no reason to make.
	Seccomp Seccomp
	// Log is told what happens to the VM: that it starts and how it ends, a device that fails, output that is lost. It is called on the
	// VM's threads and in New, Start and Close, one call at a time; it must not block, and must not call a method of this VM. Nobody is told by default.
	Log func(LogRecord)
}

// text is a string for a call, which must not hold a NUL.
type text struct{ pointer *C.char }

func newText(value string) (text, error) {
	if strings.IndexByte(value, 0) >= 0 {
		return text{}, &Error{Number: ErrInvalidConfig, Message: fmt.Sprintf("%q holds a NUL", value)}
	}
	return text{C.CString(value)}, nil
}

func (t text) free() { C.free(unsafe.Pointer(t.pointer)) }

// describer collects the calls that make a configuration, up to the first that fails.
type describer struct {
	config *C.vmcell_config
	err    error
}

func (d *describer) do(call func(e **C.vmcell_error) C.int32_t) {
	if d.err == nil {
		var e *C.vmcell_error
		number := call(&e)
		d.err = failure(number, e)
	}
}

// about adds which element of the configuration it is to the error of what is added.
func (d *describer) about(element string, add func(d *describer)) {
	if d.err != nil {
		return
	}
	add(d)
	if e, ok := d.err.(*Error); ok {
		d.err = &Error{Number: e.Number, Message: element + ": " + e.Message, Cause: e.Cause}
	} else if d.err != nil {
		d.err = fmt.Errorf("%s: %w", element, d.err)
	}
}

func (d *describer) withText(value string, call func(text *C.char, e **C.vmcell_error) C.int32_t) {
	if d.err != nil {
		return
	}
	var t text
	if t, d.err = newText(value); d.err == nil {
		defer t.free()
		d.do(func(e **C.vmcell_error) C.int32_t { return call(t.pointer, e) })
	}
}

func (d *describer) withThread(thread *IOThread, call func(h *C.vmcell_io_thread, e **C.vmcell_error) C.int32_t) {
	if thread != nil {
		d.do(func(e **C.vmcell_error) C.int32_t { return call(thread.handle, e) })
	}
}

// describe makes the library's configuration, which the caller hands over or frees.
func (c Config) describe(console *streams) (*C.vmcell_config, error) {
	d := &describer{}
	c.begin(d)
	c.machine(d)
	for index, disk := range c.Disks {
		d.about(fmt.Sprintf("Disks[%d]", index), disk.add)
	}
	for index, nic := range c.NICs {
		d.about(fmt.Sprintf("NICs[%d]", index), nic.add)
	}
	d.withThread(c.IOThread, func(h *C.vmcell_io_thread, e **C.vmcell_error) C.int32_t {
		return C.vmcell_config_set_io_thread(d.config, h, e)
	})
	c.threads(d)
	c.log(d)
	console.connect(d)
	if d.err != nil {
		C.vmcell_config_free(d.config)
		return nil, d.err
	}
	return d.config, nil
}

func (c Config) begin(d *describer) {
	if c.ForkOf != nil {
		d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_config_new_fork(c.ForkOf.handle, 0, &d.config, e) })
		d.do(func(e **C.vmcell_error) C.int32_t {
			return C.vmcell_config_set_fork_clock(d.config, C.int32_t(c.ForkClock), e)
		})
		return
	}
	if c.Description == nil {
		d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_config_new(&d.config, e) })
		return
	}
	var json *C.char
	if len(c.Description) > 0 {
		json = (*C.char)(unsafe.Pointer(&c.Description[0]))
	}
	d.do(func(e **C.vmcell_error) C.int32_t {
		return C.vmcell_config_new_from_json(json, C.size_t(len(c.Description)), &d.config, e)
	})
}

func (c Config) machine(d *describer) {
	if c.NeverSnapshot {
		d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_config_set_never_snapshot(d.config, 1, e) })
	}
	c.secrets(d)
	if c.VCPUs != 0 {
		d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_config_set_vcpus(d.config, C.uint32_t(c.VCPUs), e) })
	}
	c.memory(d)
	if c.Prealloc {
		d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_config_set_prealloc(d.config, 1, e) })
	}
	c.placement(d)
	if c.ConsoleRate != (Rate{}) {
		d.do(func(e **C.vmcell_error) C.int32_t {
			return C.vmcell_config_set_console_rate(d.config, C.uint64_t(c.ConsoleRate.PerSecond), C.uint64_t(c.ConsoleRate.Burst), e)
		})
	}
	if c.RNG != nil {
		d.do(func(e **C.vmcell_error) C.int32_t {
			return C.vmcell_config_set_rng(d.config, C.uint64_t(c.RNG.PerSecond), C.uint64_t(c.RNG.Burst), e)
		})
	}
	if c.Balloon != nil {
		d.do(func(e **C.vmcell_error) C.int32_t { return setBalloon(d.config, c.Balloon, e) })
	}
	if c.Cgroup != nil {
		c.Cgroup.set(d)
	}
	if c.Vsock != nil {
		set := func(path *C.char, e **C.vmcell_error) C.int32_t {
			return C.vmcell_config_set_vsock(d.config, C.uint64_t(c.Vsock.CID), path, C.uint32_t(c.Vsock.MaxConnections), e)
		}
		if c.Vsock.Path == "" {
			d.do(func(e **C.vmcell_error) C.int32_t { return set(nil, e) })
		} else {
			d.withText(c.Vsock.Path, set)
		}
	}
	if c.Kernel != "" {
		d.withText(c.Kernel, func(t *C.char, e **C.vmcell_error) C.int32_t { return C.vmcell_config_set_kernel(d.config, t, e) })
	}
	if c.Initrd != "" {
		d.withText(c.Initrd, func(t *C.char, e **C.vmcell_error) C.int32_t { return C.vmcell_config_set_initrd(d.config, t, e) })
	}
	if c.CPU != CPUHost || len(c.CPUFeatures) > 0 {
		d.withText(strings.Join(c.CPUFeatures, ","), func(t *C.char, e **C.vmcell_error) C.int32_t {
			return C.vmcell_config_set_cpu(d.config, C.int32_t(c.CPU), t, e)
		})
	}
	if c.Cmdline != "" {
		d.withText(c.Cmdline, func(t *C.char, e **C.vmcell_error) C.int32_t { return C.vmcell_config_set_cmdline(d.config, t, e) })
	}
	if c.Protocol != ProtocolAuto {
		d.do(func(e **C.vmcell_error) C.int32_t {
			return C.vmcell_config_set_protocol(d.config, C.int32_t(c.Protocol), e)
		})
	}
	if c.Discovery != DiscoveryACPI {
		d.do(func(e **C.vmcell_error) C.int32_t {
			return C.vmcell_config_set_discovery(d.config, C.int32_t(c.Discovery), e)
		})
	}
	if c.KickSignal != 0 {
		d.do(func(e **C.vmcell_error) C.int32_t {
			return C.vmcell_config_set_kick_signal(d.config, C.int32_t(c.KickSignal), e)
		})
	}
}

func (c Config) memory(d *describer) {
	if c.MemoryMiB != 0 {
		d.do(func(e **C.vmcell_error) C.int32_t {
			return C.vmcell_config_set_memory_mib(d.config, C.uint64_t(c.MemoryMiB), e)
		})
	}
	if c.Backing != Anonymous {
		d.do(func(e **C.vmcell_error) C.int32_t {
			return C.vmcell_config_set_memory_backing(d.config, C.int32_t(c.Backing), e)
		})
	}
	if c.Pages != DefaultPages {
		d.do(func(e **C.vmcell_error) C.int32_t {
			return C.vmcell_config_set_memory_pages(d.config, C.int32_t(c.Pages), e)
		})
	}
}

func (c Config) placement(d *describer) {
	if c.NUMANode != nil {
		node := C.int32_t(math.MaxInt32) // no host has that one, nor any above
		if *c.NUMANode < math.MaxInt32 {
			node = C.int32_t(*c.NUMANode)
		}
		d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_config_set_numa_node(d.config, node, e) })
	}
	if c.LockMemory {
		d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_config_set_memory_locked(d.config, 1, e) })
	}
}

func (disk Disk) add(d *describer) {
	var h *C.vmcell_disk
	disk.open(d, &h)
	if disk.ReadOnly {
		d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_disk_set_read_only(h, 1, e) })
	}
	d.withText(disk.Serial, func(t *C.char, e **C.vmcell_error) C.int32_t { return C.vmcell_disk_set_serial(h, t, e) })
	d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_disk_set_engine(h, C.int32_t(disk.Engine), e) })
	if disk.Queues != 0 {
		d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_disk_set_queues(h, C.uint16_t(disk.Queues), e) })
	}
	if disk.Direct {
		d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_disk_set_direct(h, 1, e) })
	}
	disk.limit(d, h)
	d.withThread(disk.IOThread, func(thread *C.vmcell_io_thread, e **C.vmcell_error) C.int32_t {
		return C.vmcell_disk_set_io_thread(h, thread, e)
	})
	if d.err != nil {
		C.vmcell_disk_free(h)
		return
	}
	d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_config_add_disk(d.config, h, e) })
}

func (nic NIC) add(d *describer) {
	var h *C.vmcell_nic
	nic.open(d, &h)
	if nic.MAC != nil {
		if len(nic.MAC) != C.VMCELL_MAC_BYTES && d.err == nil {
			d.err = &Error{Number: ErrInvalidConfig, Message: fmt.Sprintf("MAC address %v has %d bytes, allowed are 6", nic.MAC, len(nic.MAC))}
		}
		d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_nic_set_mac(h, (*C.uint8_t)(&nic.MAC[0]), e) })
	}
	if nic.MTU != 0 {
		d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_nic_set_mtu(h, C.uint16_t(nic.MTU), e) })
	}
	if nic.Queues != 0 {
		d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_nic_set_queues(h, C.uint16_t(nic.Queues), e) })
	}
	nic.limit(d, h)
	d.withThread(nic.IOThread, func(thread *C.vmcell_io_thread, e **C.vmcell_error) C.int32_t {
		return C.vmcell_nic_set_io_thread(h, thread, e)
	})
	if nic.Metadata != nil {
		d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_nic_set_metadata(h, nic.Metadata.handle, e) })
	}
	if d.err != nil {
		C.vmcell_nic_free(h)
		return
	}
	d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_config_add_nic(d.config, h, e) })
}

// IOThread serves devices of one VM or of many.
type IOThread struct{ handle *C.vmcell_io_thread }

// NewIOThread starts a thread; of its name Linux keeps 15 bytes.
func NewIOThread(name string) (*IOThread, error) {
	thread := &IOThread{}
	d := &describer{}
	d.withText(name, func(t *C.char, e **C.vmcell_error) C.int32_t { return C.vmcell_io_thread_new(t, &thread.handle, e) })
	if d.err != nil {
		return nil, d.err
	}
	return thread, nil
}

// Close lets go of the thread, which goes on for as long as a VM uses it. A second call gives an error and does no harm.
func (thread *IOThread) Close() error {
	return failure(C.vmcell_io_thread_free(thread.handle), nil)
}
