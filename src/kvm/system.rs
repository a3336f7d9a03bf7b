//! `/dev/kvm`: opened, and asked whether it can do what we need.

use std::fs::{File, OpenOptions};
use std::os::fd::{FromRawFd, IntoRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use kvm_ioctls::Cap;

use super::capabilities::REQUIRED;
use super::refused::refused;
use super::vm::KvmVm;
use crate::error::{Error, ErrorKind, Result};

/// KVM's major and minor device number, the same on every Linux.
const DEVICE: (u32, u32) = (10, 232);

/// The only version of the interface that any kernel since 2.6.22 speaks.
const API_VERSION: i32 = 12;

/// KVM itself.
pub struct Kvm {
    fd: kvm_ioctls::Kvm,
}

impl Kvm {
    /// Opens `/dev/kvm` and checks that it can do what this crate needs.
    ///
    /// # Errors
    /// [`ErrorKind::KvmUnavailable`] if the device is missing, is refused, or lacks capabilities, which the message names.
    pub fn open() -> Result<Self> {
        Self::open_at(Path::new("/dev/kvm"))
    }

    /// The same for a device node at another path, as a jail may have it. It must have KVM's device number, 10:232.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_at(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(|cause| {
            let hint = match cause.kind() {
                std::io::ErrorKind::NotFound => {
                    "; is the kvm module loaded, and virtualization enabled in the firmware?"
                }
                std::io::ErrorKind::PermissionDenied => "; is this user in the group kvm?",
                _ => "",
            };
            let message = format!("cannot open {} for reading and writing{hint}", path.display());
            Error::new(ErrorKind::KvmUnavailable, message).with_source(cause)
        })?;
        check_device(&file, path)?;
        // SAFETY: the descriptor was just opened, is handed over, and belongs to nobody else; `kvm` closes it. It is KVM's, so
        // that its calls do what the wrapper takes them to do: other drivers may answer the same numbers otherwise.
        let kvm = Self { fd: unsafe { kvm_ioctls::Kvm::from_raw_fd(file.into_raw_fd()) } };
        kvm.check(path)?;
        Ok(kvm)
    }

    /// Makes a VM without memory, vCPUs or an irqchip. Takes up to some milliseconds in the kernel.
    ///
    /// # Errors
    /// [`ErrorKind::Kvm`] if KVM refuses, for instance since the process may open no more descriptors.
    pub fn create_vm(&self) -> Result<KvmVm> {
        // A signal that interrupts the kernel here says nothing about the VM: try again.
        loop {
            match self.fd.create_vm() {
                Ok(fd) => return KvmVm::new(fd),
                Err(e) if e.errno() == libc::EINTR => continue,
                Err(e) => return Err(refused("make a VM", e)),
            }
        }
    }

    /// How many vCPUs a VM may have.
    pub(crate) fn max_vcpus(&self) -> u32 {
        u32::try_from(self.fd.check_extension_int(Cap::MaxVcpus)).unwrap_or(0)
    }

    pub(super) fn fd(&self) -> &kvm_ioctls::Kvm {
        &self.fd
    }

    fn check(&self, path: &Path) -> Result<()> {
        let unavailable = |message: String| Err(Error::new(ErrorKind::KvmUnavailable, message));
        let version = self.fd.get_api_version();
        if version != API_VERSION {
            return unavailable(format!(
                "{} speaks version {version} of the KVM interface, needed is {API_VERSION}",
                path.display()
            ));
        }
        let missing = missing(REQUIRED, |capability| self.fd.check_extension(capability));
        if !missing.is_empty() {
            return unavailable(format!("{} lacks {}, which vmcell needs", path.display(), missing.join(", ")));
        }
        Ok(())
    }
}

/// Refuses what is not KVM, before it is asked anything.
fn check_device(file: &File, path: &Path) -> Result<()> {
    let (major, minor) = DEVICE;
    let why = match file.metadata() {
        Ok(metadata) if !metadata.file_type().is_char_device() => "is not a character device".to_owned(),
        Ok(metadata) if metadata.rdev() == libc::makedev(major, minor) => return Ok(()),
        Ok(metadata) => format!("is device {}:{}", libc::major(metadata.rdev()), libc::minor(metadata.rdev())),
        Err(e) => format!("cannot be examined ({e})"),
    };
    let message = format!("{} {why}, KVM is {major}:{minor}", path.display());
    Err(Error::new(ErrorKind::KvmUnavailable, message))
}

fn missing(required: &[(Cap, &'static str)], has: impl Fn(Cap) -> bool) -> Vec<&'static str> {
    required.iter().filter(|(capability, _)| !has(*capability)).map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &str) -> Error {
        Kvm::open_at(Path::new(path)).err().expect("is refused")
    }

    #[test]
    fn a_missing_device_is_named() {
        let error = refusal("/nonexistent/kvm");
        assert_eq!(error.kind(), ErrorKind::KvmUnavailable);
        assert!(error.chain().contains("/nonexistent/kvm"), "{error:?}");
    }

    #[test]
    fn what_is_not_kvm_is_refused_before_it_is_asked_anything() {
        assert_eq!(refusal("/dev/null").to_string(), "/dev/null is device 1:3, KVM is 10:232");
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = refusal(file.path().to_str().unwrap());
        assert!(error.to_string().ends_with("is not a character device, KVM is 10:232"), "{error:?}");
    }

    #[test]
    fn every_missing_capability_is_named() {
        let names = missing(REQUIRED, |capability| !matches!(capability, Cap::Irqfd | Cap::Ioeventfd));
        assert_eq!(names, ["KVM_CAP_IRQFD", "KVM_CAP_IOEVENTFD"]);
    }
}
