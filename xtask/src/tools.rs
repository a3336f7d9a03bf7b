//! Programs that cargo installs, kept beside the prepared guests.

use std::path::{Path, PathBuf};

use crate::cache::Cache;
use crate::cargo::cargo;
use crate::exec::{self, Result};

/// A program that a check needs. The version is the newest that builds with the oldest compiler that this project
/// supports.
pub struct Tool {
    package: &'static str,
    version: &'static str,
    /// One of the programs that the package holds.
    program: &'static str,
}

/// Its versions follow cargo's; this one needs Rust 1.95 to build.
pub const CARGO_C: Tool = Tool { package: "cargo-c", version: "0.10.24+cargo-0.98.0", program: "cargo-cinstall" };
/// It reads what rustdoc of the nightly toolchain writes, which changes now and then.
pub const CARGO_PUBLIC_API: Tool = Tool { package: "cargo-public-api", version: "0.52.0", program: "cargo-public-api" };
pub const CARGO_SEMVER_CHECKS: Tool =
    Tool { package: "cargo-semver-checks", version: "0.51.0", program: "cargo-semver-checks" };
pub const CARGO_DENY: Tool = Tool { package: "cargo-deny", version: "0.20.2", program: "cargo-deny" };

impl Tool {
    /// The program's path, on PATH or in the cache. If it is in neither, it is installed into the cache, provided that
    /// this may be done unasked; `None` if it may not.
    pub fn find_or_install(&self) -> Result<Option<PathBuf>> {
        if exec::exists(self.program) {
            return Ok(Some(self.program.into()));
        }
        let root = Cache::open()?.root().join("tools");
        let program = root.join("bin").join(self.program);
        if !program.is_file() {
            if !exec::is_root() && std::env::var_os("CI").is_none() {
                return Ok(None);
            }
            self.install(&root)?;
        }
        Ok(Some(program))
    }

    /// The command that a user types to have it.
    pub fn hint(&self) -> String {
        format!(
            "{} is not installed; run: cargo install {} --locked --version {}",
            self.package, self.package, self.version
        )
    }

    fn install(&self, root: &Path) -> Result<()> {
        println!("installing {} {} into {} (some minutes, once)", self.package, self.version, root.display());
        // Unoptimized: it runs for a second, and would compile for minutes more.
        let arguments =
            ["install", self.package, "--version", self.version, "--locked", "--debug", "--quiet", "--root"];
        exec::run(cargo().args(arguments).arg(root))
    }
}
