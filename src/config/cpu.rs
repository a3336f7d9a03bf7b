//! The number of vCPUs.

use crate::error::{Error, ErrorKind, Result};

/// More would need x2APIC identifiers and a larger topology than we describe to the guest.
const MAX_VCPUS: u32 = 64;

pub(crate) fn check_vcpus(vcpus: u32) -> Result<()> {
    if (1..=MAX_VCPUS).contains(&vcpus) {
        return Ok(());
    }
    let message = format!("{vcpus} vCPUs were asked for, allowed are 1 to {MAX_VCPUS}");
    Err(Error::new(ErrorKind::InvalidConfig, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_to_sixty_four_are_allowed() {
        assert!(check_vcpus(1).is_ok());
        assert!(check_vcpus(64).is_ok());
        assert_eq!(check_vcpus(0).unwrap_err().to_string(), "0 vCPUs were asked for, allowed are 1 to 64");
        assert_eq!(check_vcpus(65).unwrap_err().to_string(), "65 vCPUs were asked for, allowed are 1 to 64");
    }
}
