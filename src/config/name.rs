//! The name of a VM.

use crate::error::{Error, ErrorKind, Result};

/// As much as tells VMs apart in a log, and no more than fits on a line with a message.
const MAX_NAME: usize = 64;

/// An empty name is none, which is allowed, too.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let printable = name.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if printable && name.len() <= MAX_NAME {
        return Ok(());
    }
    let message = format!(
        "the VM's name {name:?} of {} bytes was asked for, allowed are 0 to {MAX_NAME} printable ASCII characters",
        name.len()
    );
    Err(Error::new(ErrorKind::InvalidConfig, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_names_of_up_to_64_bytes_are_allowed() {
        for name in ["", "a", "web 1/eu:7~", &"x".repeat(64)] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["a\0", "a\n", "\x7f", "ä", &"x".repeat(65)] {
            assert!(check_name(name).is_err(), "{name}");
        }
        let text = check_name("a\n").unwrap_err().to_string();
        assert_eq!(
            text,
            r#"the VM's name "a\n" of 2 bytes was asked for, allowed are 0 to 64 printable ASCII characters"#
        );
    }
}
