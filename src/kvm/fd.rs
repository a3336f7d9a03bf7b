//! The descriptor of a vCPU, or what stands for one in a model.

#[cfg(not(shuttle))]
pub(super) use kvm_ioctls::VcpuFd;
#[cfg(shuttle)]
pub(super) use model::VcpuFd;

/// A vCPU of a model runs a guest that does nothing until it is kicked.
#[cfg(shuttle)]
pub(super) mod model {
    use std::ops::{Deref, DerefMut};
    use std::os::fd::{AsRawFd, RawFd};
    use std::sync::Arc;

    use kvm_ioctls::VcpuExit;
    use vmm_sys_util::errno::Error;

    use crate::sys::model::run_guest;
    use crate::sys::sync::atomic::{AtomicU8, Ordering};

    pub(crate) enum VcpuFd {
        Kvm(kvm_ioctls::VcpuFd),
        Model { immediate_exit: Arc<AtomicU8>, in_guest: Box<dyn Fn(bool) + Send> },
    }

    impl VcpuFd {
        pub(crate) fn run(&mut self) -> Result<VcpuExit<'_>, Error> {
            match self {
                Self::Kvm(fd) => fd.run(),
                Self::Model { immediate_exit, in_guest } => {
                    run_guest(|| immediate_exit.load(Ordering::SeqCst) != 0, &**in_guest);
                    Err(Error::new(libc::EINTR))
                }
            }
        }

        pub(crate) fn kvmclock_ctrl(&self) -> Result<(), Error> {
            match self {
                Self::Kvm(fd) => fd.kvmclock_ctrl(),
                Self::Model { .. } => Ok(()),
            }
        }
    }

    impl From<kvm_ioctls::VcpuFd> for VcpuFd {
        fn from(fd: kvm_ioctls::VcpuFd) -> Self {
            Self::Kvm(fd)
        }
    }

    impl Deref for VcpuFd {
        type Target = kvm_ioctls::VcpuFd;

        fn deref(&self) -> &kvm_ioctls::VcpuFd {
            match self {
                Self::Kvm(fd) => fd,
                Self::Model { .. } => unimplemented!("a vCPU of a model can only run"),
            }
        }
    }

    impl DerefMut for VcpuFd {
        fn deref_mut(&mut self) -> &mut kvm_ioctls::VcpuFd {
            match self {
                Self::Kvm(fd) => fd,
                Self::Model { .. } => unimplemented!("a vCPU of a model can only run"),
            }
        }
    }

    impl AsRawFd for VcpuFd {
        fn as_raw_fd(&self) -> RawFd {
            (**self).as_raw_fd()
        }
    }
}
