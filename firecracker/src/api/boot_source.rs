//! `/boot-source`: what the guest starts with.

use serde::{Deserialize, Serialize};

/// A kernel, and what it is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BootSource {
    /// The path of the kernel.
    pub kernel_image_path: String,
    /// The path of an initial RAM disk.
    pub initrd_path: Option<String>,
    /// The kernel's command line.
    pub boot_args: Option<String>,
}
