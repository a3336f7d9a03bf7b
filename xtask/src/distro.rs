//! The distribution, and its names for things. This was tested on Debian 12; the rows for Ubuntu follow its package
//! lists and were not run.

use std::fs;
use std::process::Command;

use crate::exec::{self, Context, Error, Result};

/// A release of Debian or Ubuntu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distro {
    /// `debian` or `ubuntu`.
    pub id: String,
    /// `bookworm`, `noble`, ...
    pub codename: String,
}

impl Distro {
    /// Reads /etc/os-release.
    pub fn detect() -> Result<Self> {
        let text = fs::read_to_string("/etc/os-release").context("cannot tell the distribution: /etc/os-release")?;
        Self::parse(&text)
    }

    fn parse(os_release: &str) -> Result<Self> {
        let field = |name: &str| {
            let line = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.map(|value| value.trim_matches('"').to_string()).unwrap_or_default()
        };
        let distro = Self { id: field("ID"), codename: field("VERSION_CODENAME") };
        match distro.id.as_str() {
            "debian" | "ubuntu" if !distro.codename.is_empty() => Ok(distro),
            other => Err(Error::new(format!(
                "this is `{other}`; the set-up of guests knows Debian and Ubuntu releases only"
            ))),
        }
    }

    /// The package that always depends on the newest kernel for virtual machines.
    pub fn kernel_metapackage(&self) -> &'static str {
        if self.id == "ubuntu" { "linux-image-virtual" } else { "linux-image-cloud-amd64" }
    }

    /// The same for any PC. Debian's kernel for virtual machines does not read MP tables; this one does.
    pub fn pc_kernel_metapackage(&self) -> &'static str {
        if self.id == "ubuntu" { "linux-image-virtual" } else { "linux-image-amd64" }
    }

    /// Whether there is a package of Chromium and its driver: Ubuntu's is a snap.
    pub fn has_browser(&self) -> bool {
        self.id == "debian"
    }

    /// The keys that sign this distribution's archive.
    pub fn keyring_package(&self) -> &'static str {
        if self.id == "ubuntu" { "ubuntu-keyring" } else { "debian-archive-keyring" }
    }

    /// The distribution's own archives as this host's apt knows them, as lines of sources.list: other vendors' archives, which
    /// a host may well have, stay out of the guest.
    pub fn sources(&self) -> Result<Vec<String>> {
        let mut apt = Command::new("apt-get");
        apt.args(["indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)", "Created-By: Packages"]);
        let sources = self.parse_sources(&exec::capture_text(&mut apt)?);
        if sources.is_empty() {
            return Err(Error::new(format!(
                "apt knows no archive of {} {}; check its sources",
                self.id, self.codename
            )));
        }
        Ok(sources)
    }

    fn parse_sources(&self, index_targets: &str) -> Vec<String> {
        let mut sources = Vec::new();
        for line in index_targets.lines() {
            let [uri, release, component, origin] = line.split_whitespace().collect::<Vec<_>>()[..] else { continue };
            let ours = origin.eq_ignore_ascii_case(&self.id) && release.starts_with(&self.codename);
            let source = format!("deb {uri} {release} {component}");
            if ours && !release.ends_with("-backports") && !sources.contains(&source) {
                sources.push(source);
            }
        }
        sources
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bookworm() -> Distro {
        Distro { id: "debian".into(), codename: "bookworm".into() }
    }

    #[test]
    fn os_release_is_read_with_and_without_quotes() {
        assert_eq!(Distro::parse("NAME=x\nVERSION_CODENAME=bookworm\nID=debian\n").unwrap(), bookworm());
        let noble = Distro::parse("ID=\"ubuntu\"\nID_LIKE=debian\nVERSION_CODENAME=\"noble\"\n").unwrap();
        assert_eq!(noble, Distro { id: "ubuntu".into(), codename: "noble".into() });
    }

    #[test]
    fn another_distribution_is_refused_by_name() {
        assert!(Distro::parse("ID=fedora\n").unwrap_err().to_string().contains("`fedora`"));
    }

    #[test]
    fn only_the_own_archives_of_the_release_are_sources() {
        let targets = "http://d/debian/ bookworm main Debian\nhttp://d/debian/ bookworm main Debian\n\
                       http://d/debian/ bookworm-backports main Debian\nhttp://d/debian/ sid main Debian\n\
                       http://other/ bookworm main Other\nhttp://nosuite/ \n";
        assert_eq!(bookworm().parse_sources(targets), ["deb http://d/debian/ bookworm main"]);
    }
}
