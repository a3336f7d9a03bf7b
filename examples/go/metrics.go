package vmcell

/*
#include <vmcell.h>
*/
import "C"

import (
	"encoding/json"
	"runtime"
	"time"
	"unsafe"
)

// Metrics is what a VM has done since it was made. Counters begin at 0 and only go up.
type Metrics struct {
	VM        string            `json:"vm"`
	VCPUs     []VCPUMetrics     `json:"vcpus"`
	IOThreads []IOThreadMetrics `json:"io_threads"`
	Devices   []DeviceMetrics   `json:"devices"`
	Console   ConsoleMetrics    `json:"console"`
}

// VCPUMetrics is what a vCPU has done.
type VCPUMetrics struct {
	// Exits counts how often the vCPU left the guest, by why: "pio_read", "pio_write", "mmio_read", "mmio_write", "interrupted",
	// "shutdown", "other".
	Exits map[string]uint64 `json:"exits"`
	// CPUTime is how long its thread has run on a CPU, in the guest and in the host.
	CPUTime time.Duration `json:"cpu_ns"`
}

// IOThreadMetrics is what an I/O thread has done.
type IOThreadMetrics struct {
	Name string `json:"name"`
	TID  int    `json:"tid"`
	// IsOwn tells whether the VM made the thread for itself.
	IsOwn   bool          `json:"is_own"`
	CPUTime time.Duration `json:"cpu_ns"`
	Turns   uint64        `json:"turns"`
	// LongestTurn is nil unless turns are measured.
	LongestTurn *time.Duration `json:"longest_turn_ns"`
	Polling     struct {
		Looks uint64        `json:"looks"`
		Finds uint64        `json:"finds"`
		Time  time.Duration `json:"time_ns"`
	} `json:"polling"`
}

// DeviceMetrics is what a device has done. Disk is nil unless it is a disk, and NIC unless it is a network interface.
type DeviceMetrics struct {
	// Name is "disk0", "disk1", "nic0" and so on.
	Name          string `json:"name"`
	Chains        uint64 `json:"chains"`
	RefusedChains uint64 `json:"refused_chains"`
	Doorbells     uint64 `json:"doorbells"`
	Interrupts    uint64 `json:"interrupts"`
	// Failures counts how often the device has failed; see VM.DeviceFailures. NeedsReset tells whether its driver is told so now.
	Failures   uint64       `json:"failures"`
	NeedsReset bool         `json:"needs_reset"`
	Disk       *DiskMetrics `json:"disk"`
	NIC        *NICMetrics  `json:"nic"`
	// Balloon is nil unless it is one.
	Balloon *BalloonMetrics `json:"balloon"`
	// Counters are those of the device's backend.
	Counters map[string]uint64 `json:"counters"`
}

// BalloonMetrics is how large a balloon is. These are no counters: they go up and down.
type BalloonMetrics struct {
	TargetBytes uint64 `json:"target_bytes"`
	ActualBytes uint64 `json:"actual_bytes"`
	// Statistics is what the guest said last of its memory, by name, and "age_ns", how long ago that was. It is nil if it has said nothing.
	Statistics map[string]uint64 `json:"statistics"`
}

// DiskMetrics is what a disk has done.
type DiskMetrics struct {
	Engine          string `json:"engine"`
	Fallback        string `json:"fallback"`
	Reads           uint64 `json:"reads"`
	Writes          uint64 `json:"writes"`
	Flushes         uint64 `json:"flushes"`
	Discards        uint64 `json:"discards"`
	Zeroes          uint64 `json:"zeroes"`
	Identifications uint64 `json:"identifications"`
	Refused         uint64 `json:"refused"`
	ReadBytes       uint64 `json:"read_bytes"`
	WrittenBytes    uint64 `json:"written_bytes"`
	DiscardedBytes  uint64 `json:"discarded_bytes"`
	ZeroedBytes     uint64 `json:"zeroed_bytes"`
	Errors          uint64 `json:"errors"`
	// Limited counts how often a request waited for limits, and LimitedTime for how long they did.
	Limited     uint64        `json:"limited"`
	LimitedTime time.Duration `json:"limited_ns"`
}

// NICMetrics is what a network interface has done, as the guest sees it.
type NICMetrics struct {
	ReceivedFrames  uint64 `json:"received_frames"`
	ReceivedBytes   uint64 `json:"received_bytes"`
	ReceivedDropped uint64 `json:"received_dropped"`
	SentFrames      uint64 `json:"sent_frames"`
	SentBytes       uint64 `json:"sent_bytes"`
	SentDropped     uint64 `json:"sent_dropped"`
	// ReceivedLimited and SentLimited count how often the interface waited for its limits, and the others for how long.
	ReceivedLimited     uint64        `json:"received_limited"`
	SentLimited         uint64        `json:"sent_limited"`
	ReceivedLimitedTime time.Duration `json:"received_limited_ns"`
	SentLimitedTime     time.Duration `json:"sent_limited_ns"`
}

// ConsoleMetrics is what passed through the serial console.
type ConsoleMetrics struct {
	OutputBytes uint64 `json:"output_bytes"`
	// DroppedBytes were missed because a reader was too slow, and LostBytes because it failed.
	DroppedBytes uint64 `json:"dropped_bytes"`
	LostBytes    uint64 `json:"lost_bytes"`
	InputBytes   uint64 `json:"input_bytes"`
	// Limited counts how often output waited for Config.ConsoleRate.
	Limited uint64 `json:"limited"`
}

// Metrics tells what the VM has done so far. It never blocks.
func (vm *VM) Metrics() (Metrics, error) {
	var metrics Metrics
	text, err := readText(func(buffer *C.char, capacity C.size_t, length *C.size_t) error {
		return vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t {
			return C.vmcell_vm_metrics_json(h, buffer, capacity, length, e)
		})
	})
	if err == nil {
		err = json.Unmarshal(text, &metrics)
	}
	return metrics, err
}

// DeviceFailure is a device that has failed since its VM was made. The VM goes on without it.
type DeviceFailure struct {
	// Device is "disk0", "nic0" or "device0", as in Metrics. Label says what a disk or an interface is on: "disk 0 (data.img)".
	Device string `json:"device"`
	Label  string `json:"label"`
	// Cause is "broken_queue" or "error", after which a reset by the driver may help, or "panicked", "broke_rule" or "gave_up". Then
	// IsFinal is true: the device or its backend was dropped.
	Cause   string `json:"cause"`
	IsFinal bool   `json:"is_final"`
	// Message is the cause in words, on one line.
	Message string `json:"message"`
	// AtNS is when it failed last, in nanoseconds since 1970: time.Unix(0, f.AtNS).
	AtNS int64 `json:"at_ns"`
	// Count is how often it has failed. A guest can make it large.
	Count uint64 `json:"count"`
	// NeedsReset tells whether the driver is told now that the device needs a reset.
	NeedsReset bool `json:"needs_reset"`
}

// String is a line such as "disk 0 (data.img): the backend gave up: the storage is gone".
func (f DeviceFailure) String() string {
	return f.Label + ": " + f.Message
}

// DeviceFailures tells which devices have failed, in the order in which the guest finds them: the last failure of each, and how many
// there were. It never blocks.
func (vm *VM) DeviceFailures() ([]DeviceFailure, error) {
	var list struct {
		Failures []DeviceFailure `json:"failures"`
	}
	text, err := readText(func(buffer *C.char, capacity C.size_t, length *C.size_t) error {
		return vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t {
			return C.vmcell_vm_device_failures_json(h, buffer, capacity, length, e)
		})
	})
	if err == nil {
		err = json.Unmarshal(text, &list)
	}
	return list.Failures, err
}

// MeasureTurns measures each turn of the VM's own I/O threads from now on, which costs two system calls for each.
func (vm *VM) MeasureTurns() error {
	return vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t { return C.vmcell_vm_measure_turns(h, e) })
}

// OpenMetrics writes what VMs have done so far as one OpenMetrics text, for Prometheus for instance. The label vm is a VM's name.
func OpenMetrics(vms ...*VM) ([]byte, error) {
	handles := make([]*C.vmcell_vm, len(vms)+1) // one more, so that there is a first
	for i, vm := range vms {
		handles[i] = vm.handle
	}
	text, err := readText(func(buffer *C.char, capacity C.size_t, length *C.size_t) error {
		var e *C.vmcell_error
		return failure(C.vmcell_vm_metrics_openmetrics(&handles[0], C.size_t(len(vms)), buffer, capacity, length, &e), e)
	})
	runtime.KeepAlive(vms)
	return text, err
}

// readText calls for a text until there is room for it.
func readText(call func(buffer *C.char, capacity C.size_t, length *C.size_t) error) ([]byte, error) {
	for room := 16 << 10; ; {
		buffer := make([]byte, room)
		var length C.size_t
		if err := call((*C.char)(unsafe.Pointer(&buffer[0])), C.size_t(room), &length); err != nil {
			return nil, err
		}
		if int(length) < room {
			return buffer[:length], nil
		}
		room = int(length) + 4096
	}
}
