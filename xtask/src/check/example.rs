//! The image of `platform/examples/postgres`, for the test that deploys it: made by the example's own script, which needs the distribution's
//! archives, and so before the tests, which may run where there is no network.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::listing::KvmTest;
use crate::cache::Cache;
use crate::cargo;
use crate::distro::Distro;
use crate::exec::{self, Context, Result};

/// Names the image, for the tests of the platform.
pub const VARIABLE: &str = "VMCELL_POSTGRES";
/// What the script makes.
pub const NAME: &str = "postgres.tar";

/// Whether a test deploys it.
pub fn wanted_by(test: &KvmTest) -> bool {
    test.file == "linux_example"
}

/// The image in the cache. It is made once more if its script has changed.
///
/// # Errors
/// Those of the script, with what it said.
pub fn prepare(cache: &Cache, distro: &Distro) -> Result<PathBuf> {
    let folder = cargo::workspace().join("platform/examples/postgres");
    let text = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).context(path.display())
    };
    let recipe = format!("postgres {} {} {} {}", distro.id, distro.codename, text("image")?, text("start")?);
    let entry = cache.entry("postgres", &recipe, |into| build(&folder, into, distro))?;
    Ok(entry.join(NAME))
}

/// The script makes it beside itself.
fn build(folder: &Path, into: &Path, distro: &Distro) -> Result<()> {
    eprintln!("xtask: making the image of platform/examples/postgres (some minutes)");
    for name in ["image", "start"] {
        std::fs::copy(folder.join(name), into.join(name)).context(name)?;
    }
    exec::capture(Command::new(into.join("image")).arg(&distro.codename).args(distro.sources()?)).map(drop)
}
