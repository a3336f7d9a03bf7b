package vmcell

/*
#include <vmcell.h>
*/
import "C"

import (
	"encoding/json"
	"fmt"
)

// FindingLevel is what a finding means for VMs on this host. A higher one weighs more.
type FindingLevel int32

const (
	// FindingFine is as it should be.
	FindingFine FindingLevel = C.VMCELL_FINDING_FINE
	// FindingUnknown is what the host does not tell.
	FindingUnknown FindingLevel = C.VMCELL_FINDING_UNKNOWN
	// FindingAdvice is about VMs that run, and could run faster, or in greater numbers.
	FindingAdvice FindingLevel = C.VMCELL_FINDING_ADVICE
	// FindingRisk is that what one VM has may reach another one, or other parts of the host.
	FindingRisk FindingLevel = C.VMCELL_FINDING_RISK
	// FindingProblem is that no VM can start.
	FindingProblem FindingLevel = C.VMCELL_FINDING_PROBLEM
)

var findingLevels = [...]string{FindingFine: "fine", FindingUnknown: "unknown", FindingAdvice: "advice", FindingRisk: "risk", FindingProblem: "problem"}

// String names the level.
func (level FindingLevel) String() string {
	if level >= 0 && int(level) < len(findingLevels) {
		return findingLevels[level]
	}
	return fmt.Sprintf("level %d", int32(level))
}

// UnmarshalText reads the level's name. One that this version does not know is taken for FindingUnknown.
func (level *FindingLevel) UnmarshalText(text []byte) error {
	*level = FindingUnknown
	for known, name := range findingLevels {
		if name == string(text) {
			*level = FindingLevel(known)
		}
	}
	return nil
}

// MarshalText writes the level's name.
func (level FindingLevel) MarshalText() ([]byte, error) {
	return []byte(level.String()), nil
}

// Finding is one thing that CheckHost looked at.
type Finding struct {
	// Name is what was looked at, such as "kvm"; the documentation of the Rust crate (HostCheck) lists the names.
	Name  string       `json:"name"`
	Level FindingLevel `json:"level"`
	// Found is what was found, for a person to read.
	Found string `json:"found"`
	// FindingAdvice is what to do about it, or empty.
	Advice string `json:"advice,omitempty"`
}

// HostCheck is what a host offers for the isolation and the speed of VMs.
type HostCheck struct {
	// Level is that of what weighs most.
	Level    FindingLevel
	Findings []Finding
}

// CheckHost looks at the host that this runs on, as this process and its user see it. It changes nothing, and takes some milliseconds.
func CheckHost() (HostCheck, error) {
	var check HostCheck
	var level C.int32_t
	text, err := readText(func(buffer *C.char, capacity C.size_t, length *C.size_t) error {
		var e *C.vmcell_error
		return failure(C.vmcell_host_check(&level, buffer, capacity, length, &e), e)
	})
	if err == nil {
		err = json.Unmarshal(text, &check)
	}
	check.Level = FindingLevel(level)
	return check, err
}
