//! The program gives up what its machine does not need.

use std::path::{Path, PathBuf};

use vmcell::{Jail, JailLayer, JailLimit, JailReport};

/// What a machine is made of, which is opened when it is started.
const DEVICES: [&str; 2] = ["/dev/kvm", "/dev/net/tun"];

/// Leaves the program the files below these folders and the devices that machines are made of. The host's network stays, since TAP
/// devices are found there by their names.
///
/// # Errors
/// If the host gives neither an empty root nor Landlock, so that nothing would keep other files away.
pub fn enter(folders: &[PathBuf]) -> Result<JailReport, String> {
    let mut jail = Jail::new().without(JailLayer::NetworkNamespace).limit(JailLimit::CoreBytes, 0);
    for folder in folders {
        jail = jail.keep_writable(folder);
    }
    for device in DEVICES.iter().filter(|device| Path::new(device).exists()) {
        jail = jail.keep_writable(device);
    }
    let report = jail.enter().map_err(|error| error.chain())?;
    if report.has(JailLayer::EmptyRoot) || report.has(JailLayer::Files) {
        return Ok(report);
    }
    Err(format!("the host keeps no files away: jailed {report}"))
}
