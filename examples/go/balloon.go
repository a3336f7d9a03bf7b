package vmcell

/*
#include <vmcell.h>
*/
import "C"

import (
	"math"
	"time"
)

// BalloonState is how far a balloon is.
type BalloonState struct {
	// Target is how many bytes the guest was asked to give back, and Actual how many its driver says that it has given back.
	Target, Actual uint64
	// Reported is how many bytes of free pages it has reported, and the host got back, since the VM was made.
	Reported uint64
}

// BalloonStatistics is what a guest says of its memory. Nothing of it is checked. What the guest does not say is nil.
type BalloonStatistics struct {
	// Age is how long ago it was said.
	Age time.Duration
	// SwapIn and SwapOut are bytes that were swapped.
	SwapIn, SwapOut *uint64
	// MajorFaults are page faults for which a disk was read, MinorFaults others.
	MajorFaults, MinorFaults *uint64
	// Free are bytes that are used for nothing, of Total bytes. Available are those that could be had without swapping, and Caches
	// those of caches that could be given up.
	Free, Total, Available, Caches *uint64
	// HugePageAllocations are huge pages that were allocated, HugePageFailures those that were asked for and not there.
	HugePageAllocations, HugePageFailures *uint64
	// OOMKills are processes that were ended because memory ran out (Linux 6.12, as is what follows).
	OOMKills *uint64
	// AllocationStalls is how often an allocation had to wait.
	AllocationStalls *uint64
	// AsyncScans and AsyncReclaims are pages that were looked at, and reclaimed, in the background; DirectScans and DirectReclaims
	// those while an allocation waited.
	AsyncScans, DirectScans, AsyncReclaims, DirectReclaims *uint64
}

func setBalloon(config *C.vmcell_config, balloon *Balloon, e **C.vmcell_error) C.int32_t {
	var deflates, reports C.int32_t
	if !balloon.KeepOnOOM {
		deflates = 1
	}
	if !balloon.NoReporting {
		reports = 1
	}
	return C.vmcell_config_set_balloon(config, C.uint64_t(balloon.MiB), deflates, reports, seconds(balloon.StatisticsEvery), e)
}

// seconds rounds up, so that little is not nothing, and gives more than is allowed for what is negative or does not fit.
func seconds(interval time.Duration) C.uint32_t {
	if interval < 0 || interval > math.MaxUint32*time.Second {
		return math.MaxUint32
	}
	return C.uint32_t((interval + time.Second - 1) / time.Second)
}

// SetBalloon asks the guest to have given back so many bytes in all, in whole pages of 4096. It gives more, or takes some back, as fast
// as it can. The error is ErrInvalidConfig if that is more than the guest's RAM, or if the VM has no balloon.
func (vm *VM) SetBalloon(bytes uint64) error {
	return vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t {
		return C.vmcell_vm_balloon_set_target(h, C.uint64_t(bytes), e)
	})
}

// SetBalloonStatistics has the guest asked for statistics by itself this often, in seconds, of which a part counts as a whole one, at most a day;
// never if it is 0.
func (vm *VM) SetBalloonStatistics(interval time.Duration) error {
	return vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t {
		return C.vmcell_vm_balloon_set_statistics_interval(h, seconds(interval), e)
	})
}

// Balloon tells how far the balloon is.
func (vm *VM) Balloon() (BalloonState, error) {
	var target, actual, reported C.uint64_t
	err := vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t {
		return C.vmcell_vm_balloon_state(h, &target, &actual, &reported, e)
	})
	return BalloonState{Target: uint64(target), Actual: uint64(actual), Reported: uint64(reported)}, err
}

// BalloonStatistics asks the guest what it says of its memory now, and waits for the answer at most for limit, which counts in
// milliseconds; with 0, it takes what the guest said last. The error is ErrTimeout if there is no answer.
func (vm *VM) BalloonStatistics(limit time.Duration) (BalloonStatistics, error) {
	millis, err := limitMillis("statistics of the guest's memory", limit)
	if err != nil {
		return BalloonStatistics{}, err
	}
	var values [32]C.uint64_t
	var count C.size_t
	err = vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t {
		return C.vmcell_vm_balloon_statistics(h, millis, &values[0], C.size_t(len(values)), &count, e)
	})
	if err != nil {
		return BalloonStatistics{}, err
	}
	said := func(index C.size_t) *uint64 {
		value := uint64(values[index])
		if index >= count || value == math.MaxUint64 {
			return nil
		}
		return &value
	}
	return BalloonStatistics{
		Age:                 time.Duration(values[C.VMCELL_BALLOON_AGE_NS]),
		SwapIn:              said(C.VMCELL_BALLOON_SWAP_IN),
		SwapOut:             said(C.VMCELL_BALLOON_SWAP_OUT),
		MajorFaults:         said(C.VMCELL_BALLOON_MAJOR_FAULTS),
		MinorFaults:         said(C.VMCELL_BALLOON_MINOR_FAULTS),
		Free:                said(C.VMCELL_BALLOON_FREE),
		Total:               said(C.VMCELL_BALLOON_TOTAL),
		Available:           said(C.VMCELL_BALLOON_AVAILABLE),
		Caches:              said(C.VMCELL_BALLOON_CACHES),
		HugePageAllocations: said(C.VMCELL_BALLOON_HUGE_PAGE_ALLOCATIONS),
		HugePageFailures:    said(C.VMCELL_BALLOON_HUGE_PAGE_FAILURES),
		OOMKills:            said(C.VMCELL_BALLOON_OOM_KILLS),
		AllocationStalls:    said(C.VMCELL_BALLOON_ALLOCATION_STALLS),
		AsyncScans:          said(C.VMCELL_BALLOON_ASYNC_SCANS),
		DirectScans:         said(C.VMCELL_BALLOON_DIRECT_SCANS),
		AsyncReclaims:       said(C.VMCELL_BALLOON_ASYNC_RECLAIMS),
		DirectReclaims:      said(C.VMCELL_BALLOON_DIRECT_RECLAIMS),
	}, nil
}
