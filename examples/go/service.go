package vmcell

/*
#include <stdint.h>
#include <vmcell.h>

extern int32_t vmcellGoDemand(void *user, vmcell_service *service, uint32_t host, uint32_t machine);
extern void vmcellGoRelease(void *user);
*/
import "C"

import (
	"encoding/json"
	"errors"
	"net/netip"
	"runtime/cgo"
	"syscall"
	"time"
	"unsafe"
)

// ServiceOptions describe a service. What is 0 stands for a default.
type ServiceOptions struct {
	// Name has the network's name server know its address under NAME.internal.
	Name string
	// SoftLimit is how many flows a member is to have at most, and HardLimit how many at the very most, each 1 to 65536. Above the soft one,
	// another member is wanted. 1024 by default.
	SoftLimit, HardLimit int
	// HeldPackets is how many packets may wait for a member, 1 to 4096, and HeldBytes how many bytes these may have, with 128 for each packet:
	// 2048 to 16777216. 256 and 262144 by default.
	HeldPackets, HeldBytes int
	// HoldTime is how long a packet waits before it is refused: 100 ms to five minutes. 30 seconds by default.
	HoldTime time.Duration
	// CallInterval is how long after the end of a call of OnDemand there is no other one: 10 ms to an hour. A second by default.
	CallInterval time.Duration
	// OnDemand is called when a member is wanted, one call at a time, and may block: it starts or resumes a VM, and adds it once its server is
	// up. After an error, what waits is refused; nobody is told what it says, so log it here. By default, a flow without a member is refused.
	OnDemand func(demand Demand) error
}

// Demand says why OnDemand is called.
type Demand struct {
	// Service wants a member. It is for the time of the call.
	Service *Service
	// Host and Machine are the member that has a packet and does not run, or both 0 if any will do.
	Host, Machine uint32
}

// Service is an address of a private network that stands for several machines, its members: whatever flows to it goes to the member with the least flows,
// and stays there. A rule to its address says who may use it. Any goroutine may use it.
type Service struct{ handle *C.vmcell_service }

// Service makes service number number of the network.
func (network *Network) Service(number uint32, options ServiceOptions) (*Service, error) {
	var settings C.vmcell_service_settings
	settings.struct_size = C.size_t(unsafe.Sizeof(settings))
	var read settingsReader
	settings.soft_limit = read.number("SoftLimit", options.SoftLimit)
	settings.hard_limit = read.number("HardLimit", options.HardLimit)
	settings.held_packets = C.size_t(read.number("HeldPackets", options.HeldPackets))
	settings.held_bytes = C.size_t(read.number("HeldBytes", options.HeldBytes))
	settings.hold_time_ms = read.milliseconds("HoldTime", options.HoldTime)
	settings.call_interval_ms = read.milliseconds("CallInterval", options.CallInterval)
	if read.err != nil {
		return nil, read.err
	}
	service := &Service{}
	err := withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		if options.Name != "" {
			settings.name = texts[0]
		}
		// Here, as only the call itself releases it.
		if options.OnDemand != nil {
			settings.on_demand = C.vmcell_demand_call(C.vmcellGoDemand)
			settings.user = keep(options.OnDemand)
			settings.release = C.vmcell_release(C.vmcellGoRelease)
		}
		return C.vmcell_service_new(network.pointer(), C.uint32_t(number), &settings, &service.handle, e)
	}, options.Name)
	if err != nil {
		return nil, err
	}
	return service, nil
}

// IP is its address.
func (service *Service) IP() (netip.Addr, error) {
	text, err := readText(func(buffer *C.char, capacity C.size_t, length *C.size_t) error {
		var e *C.vmcell_error
		return failure(C.vmcell_service_address(service.handle, buffer, capacity, length, &e), e)
	})
	if err != nil {
		return netip.Addr{}, err
	}
	return netip.ParseAddr(string(text))
}

// Add makes a machine a member, which has a port in the network; or has one that is drained get new flows again. It gets flows as soon as its driver is
// up, so add one that boots when its server is up. The end of its VM takes it out.
func (service *Service) Add(host, machine uint32) error {
	var e *C.vmcell_error
	return failure(C.vmcell_service_add(service.handle, C.uint32_t(host), C.uint32_t(machine), &e), e)
}

// Drain gives a member no new flows; those that it has go on. It says whether it is a member.
func (service *Service) Drain(host, machine uint32) (bool, error) {
	var was C.int32_t
	var e *C.vmcell_error
	number := C.vmcell_service_drain(service.handle, C.uint32_t(host), C.uint32_t(machine), &was, &e)
	return was != 0, failure(number, e)
}

// Remove takes a member out: its flows end. It says whether it was a member.
func (service *Service) Remove(host, machine uint32) (bool, error) {
	var was C.int32_t
	var e *C.vmcell_error
	number := C.vmcell_service_remove(service.handle, C.uint32_t(host), C.uint32_t(machine), &was, &e)
	return was != 0, failure(number, e)
}

// ServiceMember is a member of a service.
type ServiceMember struct {
	Host    uint32 `json:"host"`
	Machine uint32 `json:"machine"`
	// Runs says that its driver is up, and it is not paused.
	Runs bool `json:"runs"`
	// Draining says that it gets no new flows.
	Draining bool `json:"draining"`
	// Flows is how many flows of the service it has now, and FlowsTotal how many it was given.
	Flows      uint64 `json:"flows"`
	FlowsTotal uint64 `json:"flows_total"`
}

// Members gives its members, in no order.
func (service *Service) Members() ([]ServiceMember, error) {
	var members []ServiceMember
	text, err := readText(func(buffer *C.char, capacity C.size_t, length *C.size_t) error {
		var e *C.vmcell_error
		return failure(C.vmcell_service_members_json(service.handle, buffer, capacity, length, &e), e)
	})
	if err == nil {
		err = json.Unmarshal(text, &members)
	}
	return members, err
}

// Metrics gives its counters by their names: "service_held", "service_calls" and others, and "service_waiting", the packets that wait now.
func (service *Service) Metrics() (map[string]uint64, error) {
	var metrics map[string]uint64
	text, err := readText(func(buffer *C.char, capacity C.size_t, length *C.size_t) error {
		var e *C.vmcell_error
		return failure(C.vmcell_service_metrics_json(service.handle, buffer, capacity, length, &e), e)
	})
	if err == nil {
		err = json.Unmarshal(text, &metrics)
	}
	return metrics, err
}

// Close frees its address: its flows end, and what waits is refused. It does not wait for a call of OnDemand. A second call gives an error and does no
// harm.
func (service *Service) Close() error {
	return failure(C.vmcell_service_free(service.handle), nil)
}

// Idle is how long ago the last packet was sent to a machine or by it, or, if there was none, its port was made.
func (network *Network) Idle(host, machine uint32) (time.Duration, error) {
	var millis C.uint64_t
	var e *C.vmcell_error
	number := C.vmcell_network_idle(network.pointer(), C.uint32_t(host), C.uint32_t(machine), &millis, &e)
	return time.Duration(millis) * time.Millisecond, failure(number, e)
}

//export vmcellGoDemand
func vmcellGoDemand(user unsafe.Pointer, service *C.vmcell_service, host, machine C.uint32_t) C.int32_t {
	call := cgo.Handle(uintptr(user)).Value().(func(Demand) error)
	err := call(Demand{Service: &Service{handle: service}, Host: uint32(host), Machine: uint32(machine)})
	var errno syscall.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &errno) && errno != 0:
		return C.int32_t(errno)
	}
	return C.int32_t(syscall.ECANCELED)
}
