package vmcell

/*
#include <vmcell.h>
*/
import "C"

import (
	"fmt"
	"math"
	"runtime"
	"time"
)

func (c Config) secrets(d *describer) {
	for index, secret := range c.Secrets {
		d.about(fmt.Sprintf("Secrets[%d]", index), secret.add)
	}
	if c.ScrubSecretsAfter != 0 {
		limit := uint64(math.MaxUint64)
		if c.ScrubSecretsAfter > 0 {
			// A limit that is shorter than a millisecond is one.
			limit = uint64((c.ScrubSecretsAfter + time.Millisecond - 1) / time.Millisecond)
		}
		d.do(func(e **C.vmcell_error) C.int32_t {
			return C.vmcell_config_set_scrub_secrets_after(d.config, C.uint64_t(limit), e)
		})
	}
}

func (secret *Secret) add(d *describer) {
	d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_config_add_secret(d.config, secret.pointer(), e) })
	runtime.KeepAlive(secret)
}

// ScrubSecrets writes over the secrets in the tables of the guest. What it has read of them stays its own. It does nothing if that is done
// already.
func (vm *VM) ScrubSecrets() error {
	return vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t { return C.vmcell_vm_scrub_secrets(h, e) })
}

// HasSecretsInClear says whether secrets lie in the tables of the guest.
func (vm *VM) HasSecretsInClear() (bool, error) {
	var inClear C.int32_t
	err := vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t {
		return C.vmcell_vm_has_secrets_in_clear(h, &inClear, e)
	})
	return inClear != 0, err
}

// RenewSecret puts a secret in the place of the one of that name with which the guest was booted, also in a fork. It must not be longer. Nothing
// tells the guest. The time until it is written over begins anew.
func (vm *VM) RenewSecret(secret *Secret) error {
	err := vm.call(func(h *C.vmcell_vm, e **C.vmcell_error) C.int32_t {
		return C.vmcell_vm_renew_secret(h, secret.pointer(), e)
	})
	runtime.KeepAlive(secret)
	return err
}
