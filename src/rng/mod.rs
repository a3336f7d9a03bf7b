//! virtio-rng (5.4): random bytes of the host's kernel for the guest.

mod device;
mod handle;

pub(crate) use device::Rng;
pub(crate) use handle::RngHandle;
